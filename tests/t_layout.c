/* Row tables and meshes: every row has exactly one owner, ranges rise, splits are as even as they can be,
 * impossible requests are refused by name. Arithmetic only; no ranks needed. */
#include "parallel/layout.h"
#include "parallel/mesh.h"
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

static void test_tables(void)
{
    static const int64_t rows[][3] = {{512, 4096, 0}, {24, 64, 0}, {7, 13, 5},   {1, 1, 0},
                                      {0, 9, 0},      {5, 0, 0},   {0, 0, 0},    {1, 72, 3},
                                      {3, 2, 1},      {77, 1, 0},  {16, 60, 60}, {256, 1, 300}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int ranks = 1; ranks <= 17; ranks++)
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
                fx_layout_close(&l);
            }
}

static fx_layout_kind chosen(int ranks, int64_t text, int64_t image, int64_t weight_rows)
{
    return fx_layout_choose(ranks, (const int64_t[]){text, image, 0}, weight_rows);
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
    test_choice();
    test_mesh();
    return test_end("layout");
}
