/* One mesh of ranks as threads (tests/t_scatter.cc): their windows, what one rank computes, and a rank's calls. */
#ifndef FX_TESTS_SCATTER_RANKS_CUH
#define FX_TESTS_SCATTER_RANKS_CUH

#include <unistd.h>

#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/slots.h"
#include "parallel/layout.h"
#include "tests/test.h"

namespace
{

typedef std::vector<uint16_t> values;
enum {
    KINDS = 5,
    EDGE = 32,
    BESIDE = 8, /* columns of an output row behind attention's */
    POISON = 0xffff,
    CANARY = 0x5aa5
}; /* kinds of blocks; values before and behind a buffer */
/* How rows are put and come back: of one tensor; of one per stream, the last first; this with ulysses 1: computed in place. */
enum style { ONE, STREAMS, OWN, STYLES };
/* In one group: by kernels, by copies, or in each block as each rank likes. */
enum way { KERNELS, COPIES, MIXED };

struct job {
    int ranks, ulysses;
    fx_layout_kind kind;
    int64_t rows[FX_SEGMENTS];
    int heads, dim, epochs, ctas;
    style how;
    bool plain; /* no weights, no rotation */
    way by;
};

uint32_t mixed(uint32_t a, uint32_t b)
{
    uint32_t x = a * 0x9e3779b9u ^ b * 0x85ebca6bu;
    x = (x ^ x >> 15) * 0x2c1b3c6du;
    return x ^ x >> 13;
}

struct buffer {
    values all;
    void open(int64_t n)
    {
        all.assign((size_t)n + 2 * EDGE, POISON);
        for (int i = 0; i < EDGE; i++) all[(size_t)i] = all[(size_t)(n + EDGE + i)] = CANARY;
    }
    uint16_t *data() { return all.data() + EDGE; }
    int64_t size() const { return (int64_t)all.size() - 2 * EDGE; }
    void poison()
    {
        if (!all.empty()) std::fill(all.begin() + EDGE, all.end() - EDGE, (uint16_t)POISON);
    }
    bool edges_stand() const
    {
        for (int i = 0; i < EDGE && !all.empty(); i++)
            if (all[(size_t)i] != CANARY || all[all.size() - 1 - (size_t)i] != CANARY) return false;
        return true;
    }
};

/* ---- one mesh: what all ranks see, and what one rank computes ---- */

struct rank_data {
    buffer recv[FX_WINDOW_PARTS],
        output; /* recv: in one group all is in the first, a row's parts side by side */
    buffer staged;
    uint16_t *part[FX_WINDOW_PARTS]; /* in recv */
    int64_t recv_row;
    std::vector<uint32_t> counters, late;
    uint32_t state[FX_WINDOW_STATE];
    std::vector<int64_t> group_rows; /* joint rows of its group, in the group's order */
    std::vector<fx_window_owner> owners;
    int64_t begin[FX_SEGMENTS + 1]; /* of the group's segments */
    int bad;
    std::string why;
};

struct mesh {
    job j;
    fx_layout layout;
    int64_t total;
    std::vector<rank_data> rank;
    std::vector<uint16_t *> recv, output;
    std::vector<uint32_t *> counters;
    std::vector<float> w[2], cs;                                              /* [D]; [total, D] */
    values x[KINDS][FX_WINDOW_PARTS], want[KINDS][FX_WINDOW_PARTS], o[KINDS]; /* [total, H, D] */
    uint64_t limit_ns = 10000000000u;
};

/* Attention's stand-in: a value of q with sums over all keys that tell each row by its place. Rows are `row` values apart. */
values attended(const uint16_t *q, int64_t rows, const uint16_t *k, const uint16_t *v, int64_t keys,
                int width, int64_t row)
{
    values o((size_t)(rows * width));
    for (int c = 0; c < width; c++) {
        uint32_t sum = 0;
        for (int64_t t = 0; t < keys; t++)
            sum += (uint32_t)(2 * t + 1) * (k[t * row + c] + 77u * v[t * row + c]);
        for (int64_t r = 0; r < rows; r++) o[(size_t)(r * width + c)] = (uint16_t)(q[r * row + c] + sum);
    }
    return o;
}

void compute_alone(mesh &m)
{
    const job &j = m.j;
    for (int p = 0; p < 2; p++)
        for (int i = 0; i < j.dim; i++) m.w[p].push_back(1 + 0.01f * (float)(i + 3 * p));
    for (int64_t i = 0; i < m.total * j.dim; i++)
        m.cs.push_back((float)(mixed((uint32_t)i, 5) % 2001) * 0.001f - 1);
    const size_t n = (size_t)(m.total * j.heads * j.dim);
    for (int e = 0; e < KINDS; e++) {
        for (int p = 0; p < FX_WINDOW_PARTS; p++) {
            for (size_t i = 0; i < n; i++)
                m.x[e][p].push_back(
                    fx_f32_to_bf16((float)(mixed((uint32_t)i, (uint32_t)(8 * e + p)) % 4001) * 0.001f - 2));
            m.want[e][p] = m.x[e][p];
            const fx_tensor x = fx_view3(m.x[e][p].data(), FX_BF16, m.total, j.heads, j.dim),
                            y = fx_view3(m.want[e][p].data(), FX_BF16, m.total, j.heads, j.dim);
            if (p == FX_WINDOW_V || j.plain) continue;
            T_OK(fx_twin_qk_norm_rope(nullptr, y, x, fx_view1(m.w[p].data(), FX_F32, j.dim),
                                      fx_view3(m.cs.data(), FX_F32, m.total, j.dim / 2, 2), 1e-6f));
        }
        m.o[e] = attended(m.want[e][FX_WINDOW_Q].data(), m.total, m.want[e][FX_WINDOW_K].data(),
                          m.want[e][FX_WINDOW_V].data(), m.total, j.heads * j.dim, j.heads * j.dim);
    }
}

void open_rank(mesh &m, int me)
{
    const job &j = m.j;
    rank_data &r = m.rank[(size_t)me];
    const int first = me - me % j.ulysses, per = j.heads / j.ulysses;
    for (int s = 0; s < FX_SEGMENTS; s++) {
        r.begin[s] = (int64_t)r.group_rows.size();
        for (int u = first; u < first + j.ulysses; u++) {
            const fx_range range = m.layout.part[u][s];
            if (range.count)
                r.owners.push_back(
                    {(int64_t)r.group_rows.size(), range.count, fx_layout_local_start(&m.layout, u, s), u});
            for (int64_t i = 0; i < range.count; i++)
                r.group_rows.push_back(fx_layout_start(&m.layout, s) + range.begin + i);
        }
    }
    r.begin[FX_SEGMENTS] = (int64_t)r.group_rows.size();
    const bool one = j.ranks == j.ulysses;
    r.recv_row = (one ? FX_WINDOW_PARTS : 1) * per * j.dim;
    for (int p = 0; p < FX_WINDOW_PARTS; p++) {
        if (p == 0 || !one) r.recv[p].open((p == FX_WINDOW_Q ? r.begin[FX_SEGMENTS] : m.total) * r.recv_row);
        r.part[p] = one ? r.recv[0].data() + p * per * j.dim : r.recv[p].data();
    }
    if (one) r.staged.open((j.ranks - 1) * fx_layout_local(&m.layout, me) * r.recv_row);
    r.output.open(fx_layout_local(&m.layout, me) * (j.heads * j.dim + BESIDE));
    r.counters.assign((size_t)(FX_WINDOW_COUNTERS * j.ranks), 0);
    r.late.assign((size_t)j.ranks, 0);
}

bool open_mesh(mesh &m, const job &j)
{
    m.j = j;
    if (fx_layout_open(j.kind, j.ranks, j.rows, &m.layout) != FX_OK) return false;
    m.total = fx_layout_total(&m.layout);
    m.rank.resize((size_t)j.ranks);
    for (int r = 0; r < j.ranks; r++) open_rank(m, r);
    for (int p = 0; p < FX_WINDOW_PARTS; p++)
        for (rank_data &r : m.rank) m.recv.push_back(r.part[p]);
    for (rank_data &r : m.rank) m.output.push_back(r.output.data()), m.counters.push_back(r.counters.data());
    compute_alone(m);
    return true;
}

} // namespace

#include "tests/scatter/copies.cuh"

namespace
{

/* ---- a rank ---- */

struct runner {
    mesh &m;
    int me;
    rank_data &r;
    fx_window w;
    uint64_t random;
    bool copies = false;
    values mine[FX_WINDOW_PARTS]; /* local rows of x */
    std::vector<float> cs;

    runner(mesh &m_, int me_, uint64_t seed)
        : m(m_), me(me_), r(m_.rank[(size_t)me_]), random(seed * 977 + (uint64_t)me_ * 31 + 1)
    {
        w = {m.j.ranks,       m.j.ulysses,       me,         m.j.heads,
             m.j.dim,         m.recv.data(),     r.recv_row, m.output.data(),
             row_of_output(), m.counters.data(), r.state,    r.late.data(),
             m.limit_ns,      m.j.ctas};
        fx_twin_seed(random);
    }
    int64_t row_of_output() const { return m.j.heads * m.j.dim + BESIDE; }
    int64_t local() const { return fx_layout_local(&m.layout, me); }
    void check(bool ok, const char *what)
    {
        if (!ok && !r.bad++) r.why = what;
    }
    void ok(fx_status st)
    {
        if (st) check(false, fx_error());
    }
    void dawdle()
    {
        random = random * 6364136223846793005u + 1442695040888963407u;
        const unsigned n = (unsigned)(random >> 40);
        if (n % 4 == 0) usleep(n / 4 % 300);
    }
    /* How this rank brings its rows of the next block. */
    void choose()
    {
        dawdle();
        copies = m.j.ranks == m.j.ulysses && (m.j.by == COPIES || (m.j.by == MIXED && random >> 33 & 1));
    }

    void take_rows(int kind)
    {
        const size_t width = (size_t)(m.j.heads * m.j.dim), dim = (size_t)m.j.dim;
        cs.clear();
        for (values &v : mine) v.clear();
        for (int s = 0; s < FX_SEGMENTS; s++) {
            const fx_range range = m.layout.part[me][s];
            const size_t row = (size_t)(fx_layout_start(&m.layout, s) + range.begin), n = (size_t)range.count;
            for (int p = 0; p < FX_WINDOW_PARTS; p++)
                mine[p].insert(mine[p].end(), m.x[kind][p].begin() + (long)(row * width),
                               m.x[kind][p].begin() + (long)((row + n) * width));
            cs.insert(cs.end(), m.cs.begin() + (long)(row * dim), m.cs.begin() + (long)((row + n) * dim));
        }
    }

    fx_window_run run_of(int seg)
    {
        const job &j = m.j;
        const int64_t first = fx_layout_local_start(&m.layout, me, seg);
        const fx_range range = m.layout.part[me][seg];
        fx_window_run run = {};
        run.q_row = r.begin[seg];
        run.kv_row = fx_layout_start(&m.layout, seg) + range.begin;
        run.local_row = first;
        for (int u = me - me % j.ulysses; u < me; u++) run.q_row += m.layout.part[u][seg].count;
        for (int p = 0; p < FX_WINDOW_PARTS; p++)
            run.x[p] =
                fx_rows(fx_view3(mine[p].data(), FX_BF16, local(), j.heads, j.dim), first, range.count);
        if (j.plain) return run;
        run.w_q = fx_view1(m.w[0].data(), FX_F32, j.dim);
        run.w_k = fx_view1(m.w[1].data(), FX_F32, j.dim);
        run.cs = fx_view3(cs.data() + first * j.dim, FX_F32, range.count, j.dim / 2, 2);
        return run;
    }

    void put()
    {
        fx_window_run run[FX_SEGMENTS];
        int n = 0;
        for (int i = 0; i < FX_SEGMENTS; i++) {
            const int s = m.j.how == ONE ? i : FX_SEGMENTS - 1 - i;
            if (m.j.how == ONE || m.layout.part[me][s].count) run[n++] = run_of(s);
        }
        if (!copies) return ok(fx_twin_window_put(nullptr, &w, run, n, 1e-6f));
        const int64_t room[] = {m.j.ranks - 1, local(), r.recv_row};
        ok(fx_twin_window_pack(nullptr, &w, run, n, 1e-6f, fx_view(r.staged.data(), FX_BF16, 3, room)));
        send(rows_there(m, me));
    }
    void send(const copies_list &list) { ok(fx_twin_window_send(nullptr, list.data(), (int)list.size())); }
    void join()
    {
        if (copies) ok(fx_twin_window_join(nullptr));
    }
    void wait(int what) { ok(fx_twin_window_wait(nullptr, &w, what)); }

    /* This rank's heads of whole rows. */
    bool equal(const uint16_t *got, const values &whole, const int64_t *joint, int64_t n) const
    {
        const int width = m.j.heads * m.j.dim, part = width / m.j.ulysses;
        for (int64_t i = 0; i < n; i++)
            if (memcmp(got + i * r.recv_row,
                       &whole[(size_t)((joint ? joint[i] : i) * width + me % m.j.ulysses * part)],
                       (size_t)part * 2))
                return false;
        return true;
    }

    void check_received(int kind)
    {
        const int64_t n = (int64_t)r.group_rows.size();
        check(equal(r.part[0], m.want[kind][0], r.group_rows.data(), n), "q differs");
        check(equal(r.part[1], m.want[kind][1], nullptr, m.total), "k differs");
        check(equal(r.part[2], m.want[kind][2], nullptr, m.total), "v differs");
    }

    void give_back(const values &group_o)
    {
        const job &j = m.j;
        const int64_t rows = r.begin[FX_SEGMENTS];
        fx_tensor t =
            fx_view3(const_cast<uint16_t *>(group_o.data()), FX_BF16, rows, j.heads / j.ulysses, j.dim);
        if (j.ulysses == 1 && j.how == OWN) { /* the others are only told that k and v are free */
            const size_t width = (size_t)(j.heads * j.dim);
            for (size_t i = 0; i < group_o.size(); i++)
                r.output.data()[i / width * (width + BESIDE) + i % width] = group_o[i];
            t = fx_none();
        }
        ok(fx_twin_window_give_back(nullptr, &w, t, r.owners.data(), (int)r.owners.size()));
    }

    void check_output(int kind)
    {
        const size_t width = (size_t)(m.j.heads * m.j.dim);
        size_t row = 0;
        for (int s = 0; s < FX_SEGMENTS; s++)
            for (int64_t i = 0; i < m.layout.part[me][s].count; i++, row++) {
                const size_t joint = (size_t)(fx_layout_start(&m.layout, s) + m.layout.part[me][s].begin + i);
                const uint16_t *o = r.output.data() + row * (width + BESIDE);
                check(!memcmp(o, &m.o[kind][joint * width], width * 2), "the output differs");
                for (size_t c = 0; c < BESIDE; c++) check(o[width + c] == POISON, "columns beside o");
            }
    }

    void block(int kind)
    {
        take_rows(kind);
        choose();
        put();
        for (values &v : mine) std::fill(v.begin(), v.end(), (uint16_t)POISON); /* a kernel has read them */
        dawdle();
        wait(FX_LATE_ROWS);
        dawdle();
        check_received(kind);
        const values group_o = attended(r.part[0], r.begin[FX_SEGMENTS], r.part[1], r.part[2], m.total,
                                        m.j.heads / m.j.ulysses * m.j.dim, r.recv_row);
        for (buffer &b : r.recv) b.poison(); /* nobody else may write before the next call */
        give_back(group_o);
        dawdle();
        if (m.j.ulysses > 1 || m.j.how != OWN) wait(FX_LATE_OUTPUT);
        dawdle();
        join();
        r.staged.poison(); /* nobody reads it any more */
        check_output(kind);
        r.output.poison(); /* read: nobody writes before this rank has put again */
        dawdle();
    }
};

void at_once(mesh &m, const std::function<void(int)> &rank)
{
    std::vector<std::thread> threads;
    for (int r = 0; r < m.j.ranks; r++) threads.emplace_back(rank, r);
    for (std::thread &t : threads) t.join();
}

} // namespace

#endif
