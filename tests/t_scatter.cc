/* The exchange by kernels that write into other ranks' memory (kernels/cuda/scatter.cu), on the CPU twin: ranks are OS threads,
 * windows their common memory. Every rank compares what it received with a gather of values that one rank computed, bit for
 * bit, in every mesh; buffers are poisoned, ranks dawdle, threads run in random order. Then ranks that do not come. */
#include "tests/scatter/ranks.cuh"

namespace
{

std::string name(const job &j)
{
    char text[160];
    snprintf(text, sizeof text, "%d x %d, %s, rows %d %d %d, %d heads of %d, style %d, %d CTAs, way %d",
             j.ulysses, j.ranks / j.ulysses, fx_layout_name(j.kind), (int)j.rows[0], (int)j.rows[1],
             (int)j.rows[2], j.heads, j.dim, (int)j.how, j.ctas, (int)j.by);
    return text;
}

void run(const job &j)
{
    static uint64_t seed;
    mesh m;
    if (test_failed || !open_mesh(m, j))
        return; /* after a failure ranks wait for each other in vain, again and again */
    seed++;
    at_once(m, [&](int me) {
        runner one(m, me, seed);
        for (int e = 0; e < j.epochs && !one.r.bad; e++) one.block(e % KINDS);
    });
    for (int r = 0; r < j.ranks; r++) {
        rank_data &d = m.rank[(size_t)r];
        bool edges = d.output.edges_stand() && d.staged.edges_stand();
        for (buffer &b : d.recv) edges = edges && b.edges_stand();
        for (int p = 0; p < j.ranks; p++)
            T_CHECK(!d.late[(size_t)p], "%s: rank %d was late", name(j).c_str(), p);
        T_CHECK(!d.bad && edges, "%s, rank %d: %s", name(j).c_str(), r,
                d.bad ? d.why.c_str() : "a write beside it");
    }
    fx_layout_close(&m.layout);
}

/* ---- meshes ---- */

void meshes()
{
    static const struct {
        int ranks, ulysses, heads, dim, ctas;
    } shape[] = {{2, 2, 4, 16, 2},  {2, 1, 3, 16, 99},  {3, 3, 9, 8, 1},   {4, 2, 6, 24, 3},
                 {4, 4, 20, 16, 5}, {5, 5, 5, 16, 99},  {6, 3, 6, 128, 4}, {6, 2, 10, 16, 2},
                 {7, 1, 1, 40, 1},  {8, 8, 24, 16, 99}, {8, 4, 8, 64, 7},  {8, 2, 6, 8, 2}};
    static const int64_t rows[][FX_SEGMENTS] = {{7, 13, 0}, {3, 6, 5}, {1, 1, 0}, {0, 9, 2}, {2, 17, 1}};
    int n = 0;
    for (const auto &s : shape)
        for (int kind = FX_LAYOUT_EVEN; kind <= FX_LAYOUT_STREAM; kind++)
            for (int r = 0; r < 5; r++, n++) {
                job j = {s.ranks, s.ulysses, (fx_layout_kind)kind, {},         s.heads,         s.dim,
                         5,       s.ctas,    (style)(n % STYLES),  n % 7 == 3, (way)(n / 2 % 3)};
                memcpy(j.rows, rows[r], sizeof j.rows);
                run(j);
            }
}

/* ---- ranks that do not come ---- */

enum { ABSENT = 3 };
const uint64_t second = 1000000000u;

/* The second block, as far as rank ABSENT goes (`late`: what it fails to do), and what the others need to notice. */
void second_block(runner &one, unsigned late)
{
    const bool absent = one.me == ABSENT;
    const values group_o(
        (size_t)one.r.begin[FX_SEGMENTS] * (size_t)(one.m.j.heads / one.m.j.ulysses * one.m.j.dim), 3);
    if (absent && late == FX_LATE_ROWS) return;
    one.put();
    one.wait(FX_LATE_ROWS);
    if (!absent && late != FX_LATE_ROWS) {
        one.give_back(group_o);
        late == FX_LATE_FREE ? one.put() : one.wait(FX_LATE_OUTPUT);
    }
    one.join(); /* copies are made, whatever kernels wait for */
}

void after_it(runner &one)
{
    const values group_o(
        (size_t)one.r.begin[FX_SEGMENTS] * (size_t)(one.m.j.heads / one.m.j.ulysses * one.m.j.dim), 5);
    one.put();
    one.wait(FX_LATE_ROWS);
    one.give_back(group_o);
    one.wait(FX_LATE_OUTPUT);
    one.join();
}

/* Of output only the group knows. */
bool notices(int rank, unsigned late, int ulysses)
{
    return rank != ABSENT && (late != FX_LATE_OUTPUT || rank / ulysses == ABSENT / ulysses);
}

void absent(unsigned late, way by)
{
    const job j = {4, by == COPIES ? 4 : 2, FX_LAYOUT_EVEN, {4, 7, 0}, 12, 16, 1, 2, ONE, false, by};
    mesh m;
    m.limit_ns = second;
    if (!open_mesh(m, j)) return;
    const uint64_t begin = fx_clock_ns();
    at_once(m, [&](int me) {
        runner one(m, me, late);
        one.block(0);
        second_block(one, late);
    });
    const uint64_t end = fx_clock_ns();
    T_CHECK(end - begin > second && end - begin < 20 * second, "late %u: noticed after %.3f s", late,
            (double)(end - begin) * 1e-9);
    std::vector<std::vector<uint32_t>> told;
    for (rank_data &d : m.rank) {
        for (buffer &b : d.recv) b.poison();
        d.output.poison();
        told.push_back(d.counters);
    }
    at_once(m, [&](int me) {
        runner one(m, me, late);
        one.take_rows(1);
        one.choose();
        if (notices(me, late, j.ulysses)) after_it(one);
    });
    T_CHECK(fx_clock_ns() - end < second / 2, "late %u: kernels wait again after a failure", late);
    for (int r = 0; r < j.ranks; r++) {
        rank_data &d = m.rank[(size_t)r];
        bool touched = false;
        for (uint16_t v : d.output.all) touched |= v != POISON && v != CANARY;
        for (buffer &b : d.recv)
            for (uint16_t v : b.all) touched |= v != POISON && v != CANARY;
        touched &= by != COPIES; /* engines copy all the same, and tell nothing new */
        T_CHECK(!touched && d.counters == told[(size_t)r], "late %u: rank %d is written to after a failure",
                late, r);
        T_CHECK(!d.bad, "late %u, rank %d: %s", late, r, d.why.c_str());
        for (int p = 0; p < j.ranks; p++) {
            const uint32_t want = notices(r, late, j.ulysses) && p == ABSENT ? late : 0;
            T_CHECK(d.late[(size_t)p] == want, "late %u: rank %d finds rank %d late with %u", late, r, p,
                    d.late[(size_t)p]);
        }
    }
    fx_layout_close(&m.layout);
}

void refused()
{
    uint16_t x[64] = {};
    uint32_t words[FX_WINDOW_STATE] = {};
    fx_window w = {2, 2, 0, 4, 12, nullptr, 48, nullptr, 48, nullptr, words, words, 0, 1};
    T_CHECK(fx_twin_window_wait(nullptr, &w, FX_LATE_ROWS) == FX_ESHAPE, "heads of 12");
    w.head_dim = 16, w.output_row = 68;
    T_CHECK(fx_twin_window_wait(nullptr, &w, FX_LATE_ROWS) == FX_ESHAPE, "rows of output not in chunks");
    w.output_row = 64, w.ulysses = 3;
    T_CHECK(fx_twin_window_wait(nullptr, &w, FX_LATE_ROWS) == FX_ESHAPE, "2 ranks in groups of 3");
    w.ulysses = 1;
    const fx_tensor good = fx_view3(x, FX_BF16, 1, 4, 16), odd = fx_view3(x + 1, FX_BF16, 1, 4, 16),
                    f32 = fx_view3(x, FX_F32, 1, 4, 16), weight = fx_view1(x, FX_F32, 16);
    fx_window_run run[4] = {{{good, good, odd}, fx_none(), fx_none(), fx_none(), 0, 0, 0}};
    T_CHECK(fx_twin_window_put(nullptr, &w, run, 1, 0) == FX_ESHAPE, "not in chunks");
    run[0].x[2] = f32;
    T_CHECK(fx_twin_window_put(nullptr, &w, run, 1, 0) == FX_ESHAPE, "f32");
    run[0].x[2] = good;
    for (int i = 1; i < 4; i++) run[i] = run[0];
    T_CHECK(fx_twin_window_put(nullptr, &w, run, 4, 0) == FX_ESHAPE, "four runs");
    for (fx_tensor *one : {&run[1].w_q, &run[1].w_k, &run[1].cs}) {
        *one = weight;
        T_CHECK(fx_twin_window_put(nullptr, &w, run, 2, 0) == FX_ESHAPE, "runs that are not alike");
        *one = fx_none();
    }
    T_CHECK(fx_twin_window_give_back(nullptr, &w, f32, nullptr, 0) == FX_ESHAPE, "no owners");
    T_CHECK(fx_twin_window_give_back(nullptr, &w, good, nullptr, 1025) == FX_ESHAPE, "too many owners");
    T_CHECK(fx_twin_window_give_back(nullptr, &w, fx_view3(x, FX_BF16, 1, 2, 16), nullptr, 1) == FX_ESHAPE,
            "half the heads");
    T_CHECK(fx_twin_window_pack(nullptr, &w, run, 1, 0, good) == FX_ESHAPE, "rows packed in two groups");
    w.ulysses = 2;
    T_CHECK(fx_twin_window_pack(nullptr, &w, run, 1, 0, good) == FX_ESHAPE, "room for a third of the rows");
    w.recv_row = 36;
    T_CHECK(fx_twin_window_wait(nullptr, &w, FX_LATE_ROWS) == FX_ESHAPE, "received rows not in chunks");
    w.recv_row = 96;
    T_OK(fx_twin_window_send(nullptr, nullptr, 0));
    T_CHECK(fx_twin_window_pack(nullptr, &w, run, 1, 0, fx_view3(x, FX_BF16, 1, 6, 16)) == FX_ESHAPE,
            "rows packed before the last ones were joined");
    T_OK(fx_twin_window_join(nullptr));
}

} // namespace

int main()
{
    const int more = getenv("FX_LONG") ? 5 : 1;
    run({4, 2, FX_LAYOUT_EVEN, {10, 23, 0}, 6, 16, 200 * more, 2, STREAMS, false, KERNELS});
    run({4, 4, FX_LAYOUT_STREAM, {10, 23, 0}, 12, 16, 60 * more, 2, ONE, false, KERNELS});
    run({4, 4, FX_LAYOUT_EVEN, {10, 23, 0}, 12, 16, 200 * more, 2, STREAMS, false, COPIES});
    run({3, 3, FX_LAYOUT_STREAM, {5, 17, 4}, 6, 24, 60 * more, 2, ONE, false, MIXED});
    run({6, 3, FX_LAYOUT_EVEN, {3, 8, 2}, 6, 16, 60 * more, 1, STREAMS, false, KERNELS});
    meshes();
    for (unsigned late = FX_LATE_ROWS; late <= FX_LATE_OUTPUT; late++) absent(late, KERNELS);
    absent(FX_LATE_ROWS, COPIES);
    absent(FX_LATE_OUTPUT, COPIES);
    refused();
    return test_end("t_scatter");
}
