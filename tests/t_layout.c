/* Row tables and meshes: every row of text, image and condition has exactly one owner, ranges rise, splits are as
 * even as they can be, positions follow their rows, impossible requests are refused by name. Arithmetic only; no
 * ranks needed. */
#include "parallel/layout.h"
#include "parallel/mesh.h"
#include "runtime/dit/dit.h"
#include "tests/test.h"

#include <stdbool.h>

static void check_table(const fx_layout *l)
{
    int64_t total = 0;
    for (int s = 0; s < FX_SEGMENTS; s++) {
        int64_t next = 0, least = INT64_MAX, most = 0;
        for (int r = 0; r < l->ranks; r++) {
            const fx_range p = l->part[r][s];
            T_CHECK(p.begin == next && p.count >= 0, "rank %d segment %d: begin %lld, want %lld", r, s,
                    (long long)p.begin, (long long)next);
            next += p.count;
            if (p.count < least) least = p.count;
            if (p.count > most) most = p.count;
        }
        T_CHECK(next == l->rows[s], "segment %d: %lld of %lld rows have an owner", s, (long long)next,
                (long long)l->rows[s]);
        T_CHECK(l->kind != FX_LAYOUT_EVEN || most - least <= 1, "segment %d: %lld to %lld rows", s,
                (long long)least, (long long)most);
        T_CHECK(fx_layout_start(l, s) == total, "segment %d starts at %lld", s,
                (long long)fx_layout_start(l, s));
        total += l->rows[s];
    }
    T_CHECK(fx_layout_total(l) == total, "total %lld", (long long)fx_layout_total(l));
    int64_t sum = 0;
    for (int r = 0; r < l->ranks; r++) {
        int64_t start = 0;
        for (int s = 0; s < FX_SEGMENTS; s++) {
            T_CHECK(fx_layout_local_start(l, r, s) == start, "rank %d segment %d", r, s);
            start += l->part[r][s].count;
        }
        T_CHECK(fx_layout_local(l, r) == start, "rank %d: %lld rows", r, (long long)fx_layout_local(l, r));
        sum += start;
        if (l->kind != FX_LAYOUT_STREAM) continue;
        const bool text = l->part[r][FX_TEXT].count > 0;
        T_CHECK(!text || l->part[r][FX_IMAGE].count + l->part[r][FX_COND].count == 0,
                "rank %d has both streams", r);
    }
    T_CHECK(sum == total, "all ranks together: %lld of %lld rows", (long long)sum, (long long)total);
}

/* Local rows, in order, are joint rows that rise; together the ranks have each joint row once. The joint order is
 * text | image | condition: the owner of joint row i is worked out from the counts alone. */
static void check_joint(const fx_layout *l)
{
    enum { MOST = 5000 };
    static int owner[MOST];
    const int64_t total = l->rows[0] + l->rows[1] + l->rows[2];
    int64_t bad = 0;
    for (int64_t i = 0; i < total; i++) owner[i] = -1;
    for (int r = 0; r < l->ranks; r++) {
        int64_t last = -1;
        for (int64_t i = 0; i < fx_layout_local(l, r); i++) {
            int s = FX_COND;
            while (i < fx_layout_local_start(l, r, s)) s--;
            while (i - fx_layout_local_start(l, r, s) >= l->part[r][s].count && s > 0) s--;
            const int64_t row = l->part[r][s].begin + i - fx_layout_local_start(l, r, s),
                          joint = (s > FX_TEXT ? l->rows[FX_TEXT] : 0) +
                                  (s > FX_IMAGE ? l->rows[FX_IMAGE] : 0) + row;
            bad += row >= l->rows[s] || joint <= last || owner[joint] != -1;
            last = joint;
            owner[joint] = r;
        }
    }
    for (int64_t i = 0; i < total; i++) bad += owner[i] < 0;
    T_CHECK(bad == 0, "%d ranks, rows %d %d %d, %s: %lld joint rows are wrong", l->ranks, (int)l->rows[0],
            (int)l->rows[1], (int)l->rows[2], fx_layout_name(l->kind), (long long)bad);
}

/* The part of rows [from, to) of a stream that lies in [begin, begin + count). */
static int64_t overlap(int64_t from, int64_t to, fx_range r)
{
    const int64_t a = from > r.begin ? from : r.begin, end = r.begin + r.count, b = to < end ? to : end;
    return b > a ? b - a : 0;
}

/* stream: text ranks first, as even as they can be; the others share the rows image | condition as one run. */
static void check_stream(const fx_layout *l)
{
    const int64_t image = l->rows[FX_IMAGE], all = image + l->rows[FX_COND];
    int text_ranks = 0;
    if (l->kind != FX_LAYOUT_STREAM) return;
    while (text_ranks < l->ranks &&
           l->part[text_ranks][FX_IMAGE].count + l->part[text_ranks][FX_COND].count == 0)
        text_ranks++;
    T_CHECK(text_ranks > 0 && text_ranks < l->ranks, "%d text ranks of %d", text_ranks, l->ranks);
    for (int r = 0; r < l->ranks; r++) {
        const bool text = r < text_ranks;
        const fx_range *part = l->part[r], want = fx_split_even(text ? l->rows[FX_TEXT] : all,
                                                                text ? text_ranks : l->ranks - text_ranks,
                                                                text ? r : r - text_ranks);
        T_CHECK(text ? part[FX_TEXT].count == want.count && part[FX_TEXT].begin == want.begin
                     : part[FX_TEXT].count == 0 && part[FX_IMAGE].count == overlap(0, image, want) &&
                           part[FX_COND].count == overlap(image, all, want),
                "%d ranks, rows %d %d %d, rank %d", l->ranks, (int)l->rows[0], (int)image, (int)l->rows[2],
                r);
    }
}

/* Rotary angles of a rank's rows are those of the same rows on one rank: text at the origin, image by raster order.
 * Condition rows lie behind them and move none. */
static void check_positions(fx_layout_kind kind, int ranks, int64_t text, int64_t height, int64_t width,
                            int64_t cond)
{
    enum { PAIRS = 4 };
    static const fx_dit_config cfg = {.head_dim = 2 * PAIRS, .axis_dim = {4, 2, 2}};
    static float want[600 * PAIRS * 2], got[600 * PAIRS * 2];
    const int64_t rows[FX_SEGMENTS] = {text, height * width, cond};
    fx_layout one, l;
    fx_backend *be;
    T_OK(fx_backend_open("ref", FX_F32, 1, &be));
    T_OK(fx_layout_open(FX_LAYOUT_EVEN, 1, rows, &one));
    T_OK(fx_layout_open(kind, ranks, rows, &l));
    fx_dit d = {.cfg = &cfg, .be = be, .layout = &one, .text_rows = text, .image_rows = height * width};
    d.cs = fx_view3(want, FX_F32, text + height * width, PAIRS, 2);
    T_OK(fx_rope_fill(&d, width));
    int64_t bad = 0;
    for (int r = 0; r < ranks; r++) {
        const fx_range t = l.part[r][FX_TEXT], i = l.part[r][FX_IMAGE];
        const size_t row = sizeof(float) * PAIRS * 2;
        fx_dit mine = {
            .cfg = &cfg, .be = be, .layout = &l, .rank = r, .text_rows = t.count, .image_rows = i.count};
        mine.cs = fx_view3(got, FX_F32, t.count + i.count, PAIRS, 2);
        T_OK(fx_rope_fill(&mine, width));
        bad += memcmp(got, (char *)want + row * (size_t)t.begin, row * (size_t)t.count) != 0;
        bad += memcmp((char *)got + row * (size_t)fx_layout_local_start(&l, r, FX_IMAGE),
                      (char *)want + row * (size_t)(text + i.begin), row * (size_t)i.count) != 0;
    }
    T_CHECK(bad == 0, "%d ranks, %s, %d text, %dx%d image: %lld wrong", ranks, fx_layout_name(kind),
            (int)text, (int)height, (int)width, (long long)bad);
    fx_layout_close(&one);
    fx_layout_close(&l);
    fx_backend_close(&be);
}

static void test_positions(void)
{
    for (int ranks = 1; ranks <= 72; ranks++)
        for (int kind = FX_LAYOUT_EVEN; kind <= FX_LAYOUT_STREAM; kind++) {
            if (kind == FX_LAYOUT_STREAM && ranks == 1) continue;
            check_positions((fx_layout_kind)kind, ranks, 13, 7, 11, 5);
            check_positions((fx_layout_kind)kind, ranks, 77, 19, 23, 0);
            check_positions((fx_layout_kind)kind, ranks, 1, 1, 3, 17);
        }
}

static void test_tables(void)
{
    static const int64_t rows[][3] = {{512, 4096, 0}, {24, 64, 0}, {7, 13, 5},    {1, 1, 0},   {0, 9, 0},
                                      {5, 0, 0},      {0, 0, 0},   {1, 72, 3},    {3, 2, 1},   {77, 1, 0},
                                      {0, 0, 9},      {5, 0, 11},  {16, 60, 60},  {0, 71, 73}, {13, 77, 49},
                                      {256, 1, 300},  {73, 5, 1},  {512, 1, 4096}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int ranks = 1; ranks <= 72; ranks++)
            for (int kind = FX_LAYOUT_AUTO; kind <= FX_LAYOUT_STREAM; kind++) {
                fx_layout l;
                const bool possible = ranks > 1 && rows[i][0] && rows[i][1] + rows[i][2];
                const fx_status st = fx_layout_open((fx_layout_kind)kind, ranks, rows[i], &l);
                if (kind == FX_LAYOUT_STREAM && !possible) {
                    T_CHECK(st == FX_EINVAL, "stream split of one stream");
                    continue;
                }
                T_CHECK(st == FX_OK && l.kind != FX_LAYOUT_AUTO, "%s", fx_error());
                check_table(&l);
                check_joint(&l);
                check_stream(&l);
                fx_layout_close(&l);
            }
}

static fx_layout_kind chosen(int ranks, int64_t text, int64_t image, int64_t weight_rows)
{
    return fx_layout_choose(ranks, (const int64_t[]){text, image, 0}, weight_rows);
}

/* What a layout costs by its own table, in thirds of a row: see fx_layout_choose. */
static int64_t cost(fx_layout_kind kind, int ranks, const int64_t rows[FX_SEGMENTS], int64_t w)
{
    fx_layout l;
    int64_t most = 0;
    T_OK(fx_layout_open(kind, ranks, rows, &l));
    const int64_t t = l.part[0][FX_TEXT].count, i = l.part[0][FX_IMAGE].count + l.part[0][FX_COND].count;
    for (int r = 0; r < ranks; r++) most = fx_layout_local(&l, r) > most ? fx_layout_local(&l, r) : most;
    fx_layout_close(&l);
    return kind == FX_LAYOUT_STREAM ? 3 * (most > w ? most : w)
                                    : (t > w ? t : w) + (i > w ? i : w) + 2 * (t + i > w ? t + i : w);
}

static void test_cheaper(void)
{
    unsigned x = 1;
    int streams = 0;
    for (int n = 0; n < 4000; n++) {
        int64_t rows[FX_SEGMENTS];
        for (int s = 0; s < FX_SEGMENTS; s++) rows[s] = 1 + ((x = x * 1664525u + 1013904223u) >> 20) % 60;
        const int ranks = 2 + n % 9;
        const int64_t w = n / 9 % 12;
        const bool stream = cost(FX_LAYOUT_STREAM, ranks, rows, w) < cost(FX_LAYOUT_EVEN, ranks, rows, w);
        T_CHECK((fx_layout_choose(ranks, rows, w) == FX_LAYOUT_STREAM) == stream,
                "%d ranks, %lld %lld %lld rows", ranks, (long long)rows[0], (long long)rows[1],
                (long long)rows[2]);
        streams += stream;
    }
    T_CHECK(streams > 400 && streams < 3600, "%d of 4000 by stream", streams);
}

static void test_choice(void)
{
    /* GPU numbers of the performance notes: 8 ranks are 1 + 7, 72 are 8 + 64; with few ranks rows decide. */
    T_CHECK(chosen(8, 512, 4096, 256) == FX_LAYOUT_STREAM, "8 GPUs");
    T_CHECK(chosen(72, 512, 4096, 256) == FX_LAYOUT_STREAM, "72 GPUs");
    T_CHECK(chosen(4, 512, 4096, 256) == FX_LAYOUT_EVEN, "4 GPUs");
    T_CHECK(chosen(2, 512, 4096, 256) == FX_LAYOUT_EVEN, "2 GPUs");
    T_CHECK(chosen(2, 512, 4096, FX_LAYOUT_WEIGHT_ROWS) == FX_LAYOUT_EVEN, "2 CPU ranks");
    T_CHECK(chosen(1, 512, 4096, 256) == FX_LAYOUT_EVEN, "one rank");
    T_CHECK(chosen(8, 0, 4096, 256) == FX_LAYOUT_EVEN, "no text");
    T_CHECK(chosen(2, 100, 100, 1) == FX_LAYOUT_EVEN, "a tie");
    fx_layout l;
    T_OK(fx_layout_open(FX_LAYOUT_STREAM, 72, (const int64_t[]){512, 4096, 0}, &l));
    for (int r = 0; r < 72; r++) T_CHECK(fx_layout_local(&l, r) == 64, "rank %d", r);
    fx_layout_close(&l);
    T_OK(fx_layout_open(FX_LAYOUT_STREAM, 8, (const int64_t[]){512, 4096, 0}, &l));
    T_CHECK(l.part[0][FX_TEXT].count == 512 && l.part[1][FX_TEXT].count == 0, "8 = 1 + 7");
    fx_layout_close(&l);
    T_OK(fx_layout_open(FX_LAYOUT_STREAM, 3, (const int64_t[]){10, 10, 0},
                        &l)); /* 1 + 2 and 2 + 1 cost the same */
    T_CHECK(l.part[0][FX_TEXT].count == 10 && l.part[2][FX_IMAGE].count == 5, "a tie takes fewer text ranks");
    fx_layout_close(&l);
    T_CHECK(fx_layout_open(FX_LAYOUT_STREAM, 1, (const int64_t[]){5, 5, 0}, &l) == FX_EINVAL &&
                strstr(fx_error(), "--layout even"),
            "%s", fx_error());
}

static void test_split(void)
{
    for (int64_t n = 0; n < 40; n++)
        for (int p = 1; p < 12; p++) {
            int64_t next = 0;
            for (int r = 0; r < p; r++) {
                const fx_range x = fx_split_even(n, p, r);
                T_CHECK(x.begin == next && (x.count == n / p || x.count == n / p + 1),
                        "%lld rows, rank %d of %d", (long long)n, r, p);
                next += x.count;
            }
            T_CHECK(next == n, "%lld of %lld", (long long)next, (long long)n);
        }
}

static void refused(int ranks, int heads, int u, int r, const char *start, const char *end)
{
    fx_mesh m;
    T_CHECK(fx_mesh_make(ranks, heads, u, r, &m) == FX_EINVAL, "%d ranks, %d heads: %d x %d", ranks, heads, u,
            r);
    const char *e = fx_error();
    T_CHECK(!strncmp(e, start, strlen(start)) && strlen(e) > strlen(end) &&
                !strcmp(e + strlen(e) - strlen(end), end),
            "%s", e);
}

static void test_mesh(void)
{
    static const int want[][4] = {{1, 24, 1, 1},  {5, 24, 1, 5},   {8, 24, 8, 1}, {9, 24, 3, 3},
                                  {16, 24, 8, 2}, {72, 24, 24, 3}, {6, 4, 2, 3},  {7, 10, 1, 7},
                                  {10, 6, 2, 5},  {24, 24, 24, 1}};
    char text[64];
    fx_mesh m;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        T_OK(fx_mesh_make(want[i][0], want[i][1], 0, 0, &m));
        T_CHECK(m.ranks == want[i][0] && m.ulysses == want[i][2] && m.ring == want[i][3], "%d ranks: %d x %d",
                m.ranks, m.ulysses, m.ring);
    }
    T_OK(fx_mesh_make(8, 24, 2, 0, &m));
    T_CHECK(m.ulysses == 2 && m.ring == 4, "2 x %d", m.ring);
    T_OK(fx_mesh_make(8, 24, 0, 8, &m));
    T_CHECK(m.ulysses == 1 && m.ring == 8, "%d x 8", m.ulysses);
    T_CHECK(!strcmp(fx_mesh_choices(6, 24, text, sizeof text), "1x6 2x3 3x2 6x1"), "%s", text);
    T_CHECK(!strcmp(fx_mesh_choices(7, 24, text, sizeof text), "1x7"), "%s", text);
    T_CHECK(!strcmp(fx_mesh_choices(6, 24, text, 6), "1x6 ") || strlen(text) < 6, "%s", text);
    refused(0, 4, 0, 0, "a mesh needs ranks and heads, ", "not 0 and 4");
    refused(1, 0, 0, 0, "a mesh needs ranks and heads, ", "not 1 and 0");
    refused(16, 24, 16, 0, "--ulysses 16 does not divide the model's 24 heads; ",
            "possible ulysses x ring for 16 ranks: 1x16 2x8 4x4 8x2");
    refused(8, 24, 3, 0, "--ulysses 3 does not divide 8 ranks", "1x8 2x4 4x2 8x1");
    refused(8, 24, 2, 3, "--ulysses 2 x --ring 3 is not 8 ranks", "1x8 2x4 4x2 8x1");
    refused(8, 24, 0, 3, "--ring 3 does not divide 8 ranks", "1x8 2x4 4x2 8x1");
    refused(8, 6, 0, 1, "--ring 1 needs ulysses 8, which does not divide the model's 6 heads",
            "8 ranks: 1x8 2x4");
    refused(4, 24, -1, 0, "--ulysses -1 is negative", "1x4 2x2 4x1");
    refused(1, 24, 2, 0, "--ulysses 2 does not divide 1 rank", "1 rank: 1x1");
}

int main(void)
{
    test_split();
    test_tables();
    test_positions();
    test_choice();
    test_cheaper();
    test_mesh();
    return test_end("layout");
}
