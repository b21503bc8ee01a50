/* Embedded prompts that are kept (runtime/text/kept.h): what comes back is what went in, by prompt and shape; bounded by
 * bytes and by number, the oldest goes first. */
#include "runtime/core/arena.h"
#include "runtime/text/kept.h"
#include "tests/test.h"

enum { ROWS = 3, WIDTH = 5, POOLED = 4 };

typedef struct pair {
    float t5[ROWS * WIDTH], pooled[POOLED];
} pair;

static fx_backend *be;

static fx_tensor t5_of(pair *p, int64_t rows)
{
    return fx_view2(p->t5, FX_F32, rows, WIDTH);
}
static fx_tensor pooled_of(pair *p)
{
    return fx_view2(p->pooled, FX_F32, 1, POOLED);
}

static pair fill(int seed)
{
    pair p;
    for (int i = 0; i < ROWS * WIDTH; i++) p.t5[i] = (float)(seed * 100 + i);
    for (int i = 0; i < POOLED; i++) p.pooled[i] = (float)(-seed * 100 - i);
    return p;
}

static void keep(fx_text_kept *k, const char *prompt, int seed)
{
    pair p = fill(seed);
    T_OK(fx_text_kept_keep(k, be, prompt, t5_of(&p, ROWS), pooled_of(&p)));
}
static bool has(const fx_text_kept *k, const char *prompt)
{
    pair p;
    return fx_text_kept_has(k, prompt, t5_of(&p, ROWS), pooled_of(&p));
}
static bool gives(fx_text_kept *k, const char *prompt, int seed)
{
    pair want = fill(seed), got;
    memset(&got, 0xff, sizeof got);
    const fx_status st = fx_text_kept_fetch(k, be, prompt, t5_of(&got, ROWS), pooled_of(&got));
    return st == FX_OK && !memcmp(&want, &got, sizeof got);
}

static void test_bytes(void)
{
    fx_text_kept *k;
    T_OK(fx_text_kept_open(1 << 20, &k));
    T_CHECK(!has(k, "a"), "an empty store");
    keep(k, "a", 1);
    keep(k, "", 2);
    keep(k, "ab", 3);
    T_CHECK(gives(k, "a", 1) && gives(k, "", 2) && gives(k, "ab", 3), "other bytes than went in");
    T_CHECK(fx_text_kept_bytes(k) == 3 * sizeof(pair) + 2 + 1 + 3, "%zu bytes", fx_text_kept_bytes(k));
    pair p = fill(4);
    T_CHECK(!fx_text_kept_has(k, "a", t5_of(&p, ROWS - 1), pooled_of(&p)), "another text length");
    fx_tensor halves = fx_view2(p.t5, FX_BF16, ROWS, WIDTH);
    T_CHECK(!fx_text_kept_has(k, "a", halves, pooled_of(&p)), "another type");
    T_CHECK(!has(k, "abc") && !has(k, "b"), "a prompt that was never kept");
    T_CHECK(fx_text_kept_fetch(k, be, "b", t5_of(&p, ROWS), pooled_of(&p)) != FX_OK,
            "fetched what is not there");
    keep(k, "a", 5); /* again: replaced, not twice */
    T_CHECK(gives(k, "a", 5), "not replaced");
    T_CHECK(fx_text_kept_bytes(k) == 3 * sizeof(pair) + 2 + 1 + 3, "%zu bytes", fx_text_kept_bytes(k));
    fx_text_kept_close(&k);
    T_CHECK(!k, "not closed");
    fx_text_kept_close(&k);
}

/* Room for exactly two entries of one letter. */
static void test_oldest(void)
{
    fx_text_kept *k;
    const size_t one = sizeof(pair) + 2;
    T_OK(fx_text_kept_open(2 * one, &k));
    keep(k, "a", 1);
    keep(k, "b", 2);
    T_CHECK(has(k, "a") && has(k, "b"), "two fit");
    T_CHECK(gives(k, "a", 1), "a"); /* now b is the older one */
    keep(k, "c", 3);
    T_CHECK(has(k, "a") && !has(k, "b") && has(k, "c"), "the one not used for the longest time goes");
    T_CHECK(fx_text_kept_bytes(k) == 2 * one, "%zu bytes", fx_text_kept_bytes(k));
    char long_one[2 * sizeof(pair)];
    memset(long_one, 'x', sizeof long_one - 1);
    long_one[sizeof long_one - 1] = 0;
    keep(k, long_one, 4); /* larger than all the room: nothing goes for it */
    T_CHECK(!has(k, long_one) && has(k, "a") && has(k, "c"), "what never fits is not kept");
    fx_text_kept_close(&k);
    T_OK(fx_text_kept_open(0, &k));
    keep(k, "a", 1);
    T_CHECK(!has(k, "a") && fx_text_kept_bytes(k) == 0, "0 bytes: nothing is kept");
    fx_text_kept_close(&k);
}

static void test_number(void)
{
    fx_text_kept *k;
    char name[16];
    T_OK(fx_text_kept_open(1 << 30, &k));
    for (int i = 0; i <= FX_TEXTS_KEPT; i++) {
        snprintf(name, sizeof name, "%d", i);
        keep(k, name, i);
    }
    T_CHECK(!has(k, "0") && has(k, "1"), "at most %d", FX_TEXTS_KEPT);
    T_CHECK(gives(k, name, FX_TEXTS_KEPT), "the last one");
    fx_text_kept_close(&k);
}

int main(void)
{
    T_OK(fx_backend_open("ref", FX_F32, 1, &be));
    test_bytes();
    test_oldest();
    test_number();
    fx_backend_close(&be);
    return test_end("t_kept");
}
