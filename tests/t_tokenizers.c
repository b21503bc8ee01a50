/* CLIP and T5 token ids against the reference: 759 strings with the FLUX.1 vocabularies, every golden model's
 * own tokenizers (raw files and tokenizer.json), then truncation, padding, refusals and what a hostile prompt
 * costs. */
#include "tests/scratch.h"
#include "tests/test.h"

#include <jansson.h>

#include "runtime/core/clock.h"
#include "runtime/io/npy.h"
#include "runtime/text/added_tokens.h"
#include "runtime/text/charsmap.h"
#include "runtime/text/clip_normalize.h"
#include "runtime/text/tokenizer.h"
#include "runtime/text/utf8.h"

enum { LONG = 2048 };

static const char *in_tests(const char *folder, const char *name)
{
    static char path[4][1024];
    static int next;
    const char *root = getenv("FX_TESTS_DIR");
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/goldens/%s/%s", root ? root : "tests", folder, name);
    return p;
}

static int same_ids(const json_t *want, const int32_t *ids, int32_t used)
{
    if ((int32_t)json_array_size(want) != used) return 0;
    for (int32_t i = 0; i < used; i++)
        if (json_integer_value(json_array_get(want, (size_t)i)) != ids[i]) return 0;
    return 1;
}

static void t_reference_strings(const fx_clip_bpe *clip, const fx_t5_tokenizer *t5)
{
    json_t *rows = json_load_file(in_tests("tokens", "tokens.json"), JSON_ALLOW_NUL, NULL);
    T_CHECK(json_array_size(rows) >= 300, "%zu strings", json_array_size(rows));
    int32_t ids[LONG], used;
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        const char *text = json_string_value(json_object_get(row, "text"));
        used = 0;
        T_OK(fx_clip_bpe_encode(clip, text, 77, ids, &used, NULL));
        T_CHECK(same_ids(json_object_get(row, "clip"), ids, used), "CLIP, string %zu: %s", i, text);
        used = 0;
        T_OK(fx_t5_encode(t5, text, LONG, ids, &used, NULL));
        T_CHECK(same_ids(json_object_get(row, "t5"), ids, used), "T5, string %zu: %s", i, text);
    }
    json_decref(rows);
}

/* Equal scores but for rounding: the sum's order and its 64 bits decide. Ids from transformers 5.23. */
static void t_ties(const fx_t5_tokenizer *t5)
{
    static const struct {
        const char *text;
        int32_t n, ids[10];
    } cases[] = {
        {".......", 4, {3, 5, 14125, 1}},
        {"so -------x", 7, {78, 3, 18, 14817, 14817, 226, 1}},
        {"!!!!!!!!!!!!!!!!!!!!", 6, {3, 17065, 17065, 17065, 17065, 1}},
        {"********************", 5, {25825, 10647, 21905, 21905, 1}},
        {"LLLicense", 5, {301, 10376, 447, 5167, 1}},
        {"88888888888888888888", 9, {3, 4060, 10927, 10927, 10927, 10927, 10927, 10927, 1}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        int32_t ids[16], used = 0;
        T_OK(fx_t5_encode(t5, cases[c].text, 16, ids, &used, NULL));
        T_CHECK(used == cases[c].n && !memcmp(ids, cases[c].ids, (size_t)used * sizeof *ids), "%s",
                cases[c].text);
    }
}

static void check_golden_ids(const char *model, const char *file, const int32_t *ids, int32_t length)
{
    char name[64];
    fx_tensor want = {0};
    snprintf(name, sizeof name, "golden/%s", file);
    const fx_status st = fx_npy_read(in_tests(model, name), &want);
    T_CHECK(st == FX_OK, "%s", fx_error());
    if (st != FX_OK) return;
    T_CHECK(want.dtype == FX_I32 && want.shape[0] == length &&
                !memcmp(want.data, ids, (size_t)length * sizeof *ids),
            "%s %s differs", model, file);
    free(want.data);
}

static void t_golden_model(const char *model)
{
    json_t *run = json_load_file(in_tests(model, "golden/run.json"), 0, NULL);
    const char *prompt = json_string_value(json_object_get(run, "prompt"));
    const int32_t length = (int32_t)json_integer_value(json_object_get(run, "t5_len"));
    fx_clip_bpe *clip = NULL;
    fx_t5_tokenizer *t5 = NULL;
    int32_t ids[LONG], used;
    T_CHECK(prompt && length > 0 && length <= LONG, "%s: run.json", model);
    T_OK(fx_clip_bpe_open(in_tests(model, "tokenizer"), &clip));
    T_OK(fx_t5_tokenizer_open(in_tests(model, "tokenizer_2"), &t5));
    if (clip && t5 && prompt && length > 0 && length <= LONG) {
        const int32_t clip_length = fx_clip_bpe_max_length(clip);
        T_OK(fx_clip_bpe_encode(clip, prompt, clip_length, ids, &used, NULL));
        check_golden_ids(model, "ids_clip.npy", ids, clip_length);
        T_OK(fx_t5_encode(t5, prompt, length, ids, &used, NULL));
        check_golden_ids(model, "ids_t5.npy", ids, length);
    }
    fx_clip_bpe_close(&clip);
    fx_t5_tokenizer_close(&t5);
    T_CHECK(!clip && !t5, "close clears");
    json_decref(run);
}

static void t_truncation(const fx_clip_bpe *clip, const fx_t5_tokenizer *t5)
{
    int32_t ids[16], used = 0, lost = -1;
    char *cut = NULL;
    T_OK(fx_clip_bpe_encode(clip, "a b c d e", 5, ids, &used, &lost));
    T_CHECK(used == 5 && lost == 2 && ids[0] == 49406 && ids[4] == 49407, "used %d, lost %d", used, lost);
    T_OK(fx_clip_bpe_encode(clip, "a", 5, ids, &used, &lost));
    T_CHECK(used == 3 && lost == 0 && ids[2] == 49407 && ids[3] == 49407 && ids[4] == 49407, "padding");
    T_OK(fx_t5_encode(t5, "A tall lighthouse\tbeyond   the sea", 4, ids, &used, &cut));
    T_CHECK(used == 4 && ids[3] == 1, "used %d", used);
    T_CHECK(cut && !strcmp(cut, "lighthouse beyond the sea"), "cut: %s", cut ? cut : "(none)");
    free(cut);
    T_OK(fx_t5_encode(t5, "a", 5, ids, &used, &cut));
    T_CHECK(!cut && used == 3 && ids[2] == 1 && ids[3] == 0 && ids[4] == 0, "padding");
    T_OK(fx_t5_encode(t5, "a", 1, ids, &used, &cut));
    T_CHECK(used == 1 && ids[0] == 1 && cut && !strcmp(cut, "a"), "only </s>");
    free(cut);
}

static void t_limits(const fx_clip_bpe *clip, const fx_t5_tokenizer *t5)
{
    T_CHECK(fx_clip_bpe_max_length(clip) == 77 && fx_t5_max_length(t5) == 512, "model_max_length");
    T_CHECK(fx_clip_bpe_id_limit(clip) == 49408 && fx_t5_id_limit(t5) == 32000, "id limits %d %d",
            fx_clip_bpe_id_limit(clip), fx_t5_id_limit(t5));
}

static void t_refusals(const fx_clip_bpe *clip, const fx_t5_tokenizer *t5)
{
    static const char *const bad[] = {"\xFF",       "ab\xC0\xAF", "ab\xED\xA0\x80", "ab\xF4\x90\x80\x80",
                                      "ab\xE2\x82", "ab\x80"};
    int32_t ids[8], used;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        T_CHECK(fx_clip_bpe_encode(clip, bad[i], 8, ids, &used, NULL) == FX_EINVAL, "CLIP took bad UTF-8 %zu",
                i);
        T_CHECK(fx_t5_encode(t5, bad[i], 8, ids, &used, NULL) == FX_EINVAL, "T5 took bad UTF-8 %zu", i);
        T_CHECK(strstr(fx_error(), i ? "not valid UTF-8 at byte 2" : "not valid UTF-8 at byte 0"), "%s",
                fx_error());
    }
    T_CHECK(fx_clip_bpe_encode(clip, "a", 1, ids, &used, NULL) == FX_EINVAL, "length 1");
    T_CHECK(fx_t5_encode(t5, "a", 0, ids, &used, NULL) == FX_EINVAL, "length 0");
    T_CHECK(fx_t5_encode(t5, NULL, 8, ids, &used, NULL) == FX_EINVAL, "no prompt");
}

/* A megabyte of one pattern: linear or n log n everywhere, and one byte more is refused. */
static void t_hostile_prompts(const fx_clip_bpe *clip, const fx_t5_tokenizer *t5)
{
    static const char *const patterns[] = {
        "a",    "'s",           "<",  ".", "\xCC\x81\xCC\xB4", "\xE2\x96\x81", "\xF0\x9F\x87\xBA",
        "</s>", "\xE3\x8D\x8D", "ab "};
    char *text = malloc(FX_PROMPT_MAX + 2);
    int32_t ids[77], used;
    for (size_t p = 0; text && p < sizeof patterns / sizeof *patterns; p++) {
        const size_t n = strlen(patterns[p]), times = FX_PROMPT_MAX / n;
        for (size_t i = 0; i < times; i++) memcpy(text + i * n, patterns[p], n);
        text[times * n] = 0;
        const double start = fx_now_s();
        T_OK(fx_clip_bpe_encode(clip, text, 77, ids, &used, NULL));
        T_OK(fx_t5_encode(t5, text, 77, ids, &used, NULL));
        T_CHECK(fx_now_s() - start < 60, "pattern %zu took %.1f s", p, fx_now_s() - start);
    }
    if (text) {
        memset(text, 'a', FX_PROMPT_MAX + 1);
        text[FX_PROMPT_MAX + 1] = 0;
        T_CHECK(fx_clip_bpe_encode(clip, text, 77, ids, &used, NULL) == FX_EINVAL, "one byte too many");
    }
    free(text);
}

/* ---- added tokens, cut out of a text ---- */

static fx_status note_piece(void *ctx, const char *text, size_t len, int32_t id)
{
    char *out = ctx;
    const size_t at = strlen(out);
    if (id < 0)
        snprintf(out + at, 200 - at, "(%.*s)", (int)len, text);
    else
        snprintf(out + at, 200 - at, "[%d]", id);
    return FX_OK;
}

static void expect_pieces(const fx_added_tokens *set, bool normalized, const char *text, const char *want)
{
    char got[200] = "";
    T_OK(fx_added_split(set, normalized, text, strlen(text), note_piece, got));
    T_CHECK(!strcmp(got, want), "'%s' is cut into %s, want %s", text, got, want);
}

/* White space of one, two and three bytes, whose last bytes are even and odd. */
static void t_added_tokens(void)
{
    static const char *const space[] = {" ",           "\t", "\xC2\x85", "\xE2\x80\x82", "\xE2\x80\x83",
                                        "\xE3\x80\x80"};
    const fx_added_token token[] = {{.text = (char[]){"<x>"}, .lstrip = true},
                                    {.text = (char[]){"<x>>"}, .rstrip = true},
                                    {.text = (char[]){"<n>"}, .normalized = true},
                                    {.text = (char[]){"ab"}}};
    fx_added_tokens set = {0};
    fx_strmap words = {0};
    for (size_t i = 0; i < sizeof token / sizeof token[0]; i++) T_OK(fx_added_put(&set, &token[i]));
    T_OK(fx_added_put(&set, &token[0])); /* twice: once */
    T_OK(fx_strmap_set(&words, "ab", 2, 0));
    T_OK(fx_strmap_set(&words, "ab", 2, 3));
    T_CHECK(words.count == 1 && words.keys.len == 2, "%zu words: a key is kept once", words.count);
    T_OK(fx_added_number(&set, &words, 50));
    T_CHECK(set.count == 4 && fx_added_find(&set, "ab") == 3 && fx_added_find(&set, "<x>") == 50 &&
                fx_added_find(&set, "<n>") == 52 && fx_added_find(&set, "<y>") == -1,
            "ids: the vocabulary's, else counted on");
    for (size_t i = 0; i < sizeof space / sizeof space[0]; i++)
        for (int twice = 0; twice < 2; twice++) {
            char text[64], want[64];
            const char *gap = space[i], *more = twice ? space[(i + 1) % 6] : "";
            snprintf(text, sizeof text, "u%s%s<x>%s%sv", gap, more, gap, more);
            snprintf(want, sizeof want, "(u)[50](%s%sv)", gap, more);
            expect_pieces(&set, false, text, want);
            snprintf(text, sizeof text, "u%s%s<x>>%s%sv", gap, more, gap, more);
            snprintf(want, sizeof want, "(u%s%s)[51](v)", gap, more);
            expect_pieces(&set, false, text, want);
        }
    expect_pieces(&set, false, "", "");
    expect_pieces(&set, false, "<x>", "[50]");
    expect_pieces(&set, false, "  <x>> ", "(  )[51]");
    expect_pieces(&set, false, "\xC3\xA9 <x><n>aab", "(\xC3\xA9)[50](<n>a)[3]");
    expect_pieces(&set, true, "<x><n>ab", "(<x>)[52](ab)");
    fx_added_free(&set);
    fx_strmap_free(&words);
}

/* ---- characters ---- */

static void t_characters(void)
{
    static const fx_code_range few[] = {{5, 9}, {20, 20}, {30, 40}};
    static const int32_t in[] = {5, 7, 9, 20, 30, 33, 40}, out[] = {0, 4, 10, 19, 21, 29, 41, 1000};
    size_t bad = 99;
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        T_CHECK(fx_in_ranges(few, 3, in[i]) && (in[i] > 9 || fx_in_ranges(few, 1, in[i])), "%d is in a range",
                in[i]);
    for (size_t i = 0; i < sizeof out / sizeof *out; i++)
        T_CHECK(!fx_in_ranges(few, 3, out[i]) && !fx_in_ranges(few, 0, out[i]), "%d is in no range", out[i]);
    T_CHECK(fx_utf8_valid("a\xC3\xA9", 3, &bad), "a whole character at the end");
    T_CHECK(!fx_utf8_valid("a\xC3\xA9", 2, &bad) && bad == 1, "a cut one, at byte %zu", bad);
    static const int32_t space[] = {0x09,   0x0A,   0x0B,   0x0C,   0x0D,   0x20,   0x85,   0xA0,   0x1680,
                                    0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007, 0x2008,
                                    0x2009, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000};
    size_t spaces = 0;
    for (int32_t c = 0; c < 0x11000; c++) {
        const bool wanted = spaces < sizeof space / sizeof *space && c == space[spaces];
        spaces += wanted;
        T_CHECK(fx_is_space(c) == wanted, "U+%X is %sa space", (unsigned)c, wanted ? "" : "not ");
    }
    size_t at = 0;
    fx_utf8_next("\xFF\xFF", 2, &at); /* goes on in what is no text, and behind its end */
    T_CHECK(at == 1, "at %zu", at);
    at = 2;
    fx_utf8_next("\xFF\xFF", 2, &at);
    T_CHECK(at == 3, "at %zu", at);
}

/* Characters that Unicode 9 does not know as marks stay where they are, and nothing composes across one. */
static void t_inert(void)
{
    static const char *const same[] = {"\xE1\xB7\xB6", "e\xE1\xB7\xB6\xCC\x81x",
                                       "\xE1\xB7\xB6\xE1\xB7\xBAxy\xE1\xB7\xB7"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        fx_buf out = {0};
        T_OK(fx_clip_normalize(same[i], strlen(same[i]), &out));
        T_CHECK(out.len == strlen(same[i]) && !memcmp(out.data, same[i], out.len), "%s became %s", same[i],
                out.data);
        fx_buf_free(&out);
    }
}

/* Marks that Unicode 16 and 17 brought belong to the character before them: a map that makes an a of an A then
 * takes both for one. What stands next to them does not. */
static void t_new_marks(void)
{
    static const unsigned char blob[] = {16, 0, 0, 0, 0,   0, 1, 0, 'A', 13,  0,
                                         0,  0, 0, 0, 128, 0, 0, 0, 0,   'a', 0};
    static const fx_code_range marks[] = {
        {0x897, 0x897},     {0x1ACF, 0x1ADD},   {0x1AE0, 0x1AEB},   {0x10D69, 0x10D6D}, {0x10EFA, 0x10EFC},
        {0x113B8, 0x113C0}, {0x113C2, 0x113C2}, {0x113C5, 0x113C5}, {0x113C7, 0x113CA}, {0x113CC, 0x113D0},
        {0x113D2, 0x113D2}, {0x113E1, 0x113E2}, {0x11B60, 0x11B67}, {0x11F5A, 0x11F5A}, {0x1611E, 0x1612F},
        {0x1E5EE, 0x1E5EF}, {0x1E6E3, 0x1E6E3}, {0x1E6E6, 0x1E6E6}, {0x1E6EE, 0x1E6EF}, {0x1E6F5, 0x1E6F5}};
    fx_charsmap map;
    T_OK(fx_charsmap_open(blob, sizeof blob, "a map", &map));
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        for (int k = 0; k < 4; k++) {
            const int32_t c = k < 2    ? (k ? marks[i].last : marks[i].first)
                              : k == 2 ? marks[i].first - 1
                                       : marks[i].last + 1;
            fx_buf text = {0}, out = {0};
            T_OK(fx_buf_put(&text, "A", 1));
            T_OK(fx_buf_put_char(&text, c));
            T_OK(fx_charsmap_apply(&map, text.data, text.len, &out));
            const bool mark = k < 2 || c == 0x898 || c == 0x1ACE || c == 0x10EFD; /* three older ones */
            T_CHECK((out.len == 1) == mark, "U+%X, %zu bytes", (unsigned)c, out.len);
            fx_buf_free(&text);
            fx_buf_free(&out);
        }
    fx_charsmap_close(&map);
}

/* Maps are not trusted: sizes are checked to the byte, and what leads out of one leaves the text as it is. */
static void t_hostile_maps(void)
{
    static const struct {
        unsigned char blob[10];
        size_t size;
        const char *refusal; /* NULL: accepted */
    } maps[] = {
        {{0}, 4, "truncated"},
        {{0}, 5, "a trie of 0 bytes in a blob of 5"},
        {{4}, 8, "a trie of 4 bytes in a blob of 8"},
        {{4}, 9, NULL},
        {{5}, 10, "a trie of 5 bytes"},
        {{4, 1, 2, 3}, 10, "a trie of 50462980 bytes"},
        {{4, 0, 0, 0, 0, 0, 0, 0, 'a'}, 9, "not zero-terminated"},
        {{4, 0, 0, 0, 0, 0, 0, 0, 0x80}, 10, "not zero-terminated UTF-8"},
    };
    fx_charsmap m;
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
        if (maps[i].refusal)
            T_REFUSED(fx_charsmap_open(maps[i].blob, maps[i].size, "m", &m), FX_EFORMAT, maps[i].refusal);
        else
            T_OK(fx_charsmap_open(maps[i].blob, maps[i].size, "m", &m));
        fx_charsmap_close(&m);
    }
    /* from byte 1 of the text to unit 1, from there to unit 4, 2 (a value's place) or 2: byte 1 of its values */
    static const uint32_t tries[][4] = {{4 << 10, 0, 0, 0},
                                        {0, 1 | 256 | 5 << 10, 0, 0},
                                        {0, 1 | 256 | 3 << 10, 0x80000003u, 0},
                                        {0, 1 | 256 | 3 << 10, 0x80000001u, 0}};
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        unsigned char blob[23] = {16};
        for (int k = 0; k < 16; k++) blob[4 + k] = (unsigned char)(tries[i][k / 4] >> (8 * (k % 4)));
        memcpy(blob + 20, "\xC3\xA9", 3);
        fx_buf out = {0};
        T_OK(fx_charsmap_open(blob, sizeof blob, "m", &m));
        T_OK(fx_charsmap_apply(&m, "\x01", 1, &out));
        T_CHECK(out.len == 1 && out.data[0] == 1, "map %zu: %zu bytes", i, out.len);
        fx_buf_free(&out);
        fx_charsmap_close(&m);
    }
}

int main(void)
{
    static const char *const models[] = {"h4dev", "h6schnell", "h10shards", "h24dev", "h4shift", "h5odd"};
    fx_clip_bpe *clip = NULL;
    fx_t5_tokenizer *t5 = NULL;
    T_OK(fx_clip_bpe_open(in_tests("tokens", "tokenizer"), &clip));
    T_OK(fx_t5_tokenizer_open(in_tests("tokens", "tokenizer_2"), &t5));
    if (clip && t5) {
        t_reference_strings(clip, t5);
        t_ties(t5);
        t_truncation(clip, t5);
        t_limits(clip, t5);
        t_refusals(clip, t5);
        t_hostile_prompts(clip, t5);
    }
    fx_clip_bpe_close(&clip);
    fx_t5_tokenizer_close(&t5);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) t_golden_model(models[i]);
    t_inert();
    t_hostile_maps();
    t_new_marks();
    t_characters();
    t_added_tokens();
    return test_end("t_tokenizers");
}
