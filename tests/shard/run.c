/* The tools of check_shard's parts: see shard.h. */
#include "tests/shard/shard.h"

double shard_noise(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t h = a * 0x9e3779b97f4a7c15u ^ b * 0xc2b2ae3d27d4eb4fu ^ c * 0x165667b19e3779f9u;
    h = (h ^ h >> 31) * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 29) * 0xbf58476d1ce4e5b9u;
    return (double)((h ^ h >> 32) >> 11) * 0x1p-52 - 1;
}

static void *element(fx_tensor t, int64_t row, int64_t col)
{
    return (char *)t.data + (row * t.stride[0] + col * t.stride[1]) * (int64_t)fx_dtype_size(t.dtype);
}

void shard_store(fx_tensor t, int64_t row, int64_t col, double v)
{
    fx_convert(element(t, row, col), t.dtype, &v, FX_F64, 1);
}

double shard_load(fx_tensor t, int64_t row, int64_t col)
{
    double v;
    fx_convert(&v, FX_F64, element(t, row, col), t.dtype, 1);
    return v;
}

int64_t shard_joint_row(const fx_layout *l, int rank, int64_t row)
{
    int s = 0;
    while (row >= l->part[rank][s].count) row -= l->part[rank][s++].count;
    return fx_layout_start(l, s) + l->part[rank][s].begin + row;
}

double *shard_run(fx_backend *be, fx_comm *comm, shard_graph graph, const void *job, int64_t values)
{
    fx_backend *plan;
    fx_comm *dry;
    fx_tensor all;
    double *result = malloc((size_t)(values + 1) * sizeof *result);
    T_OK(fx_comm_open_plan(fx_comm_rank(comm), fx_comm_size(comm), &dry));
    T_OK(fx_backend_plan(be, &plan));
    T_OK(fx_arena_measure(&plan->arena));
    T_OK(graph(job, plan, dry, NULL));
    const size_t peak = fx_peak(plan->arena);
    fx_arena_close(&plan->arena);
    fx_backend_close(&plan);
    fx_comm_close(&dry);
    T_OK(fx_arena_open(NULL, peak, &be->arena));
    T_OK(fx_push1(be->arena, FX_U8, (int64_t)peak, &all));
    memset(all.data, 0xff, peak); /* NaN */
    fx_rewind(be->arena, 0);
    T_OK(graph(job, be, comm, result));
    T_CHECK(fx_peak(be->arena) == peak, "planned %zu bytes, used %zu", peak, fx_peak(be->arena));
    fx_arena_close(&be->arena);
    return result;
}

/* Rows (of the width of a rank's heads) that a rank sends in one block, by parallel/README.md: a hop or a copy too many makes no
 * other result. */
uint64_t shard_rows_sent(const fx_layout *l, const fx_mesh *m, int me, bool exact)
{
    const int first = me / m->ulysses * m->ulysses;
    const uint64_t mine = (uint64_t)fx_layout_local(l, me), others = (uint64_t)m->ulysses - 1;
    uint64_t group = 0, rows;
    for (int r = first; r < first + m->ulysses; r++) group += (uint64_t)fx_layout_local(l, r);
    rows = mine * others + (group - mine);                        /* q, and o back */
    rows += 2 * mine * (exact ? (uint64_t)m->ranks - 1 : others); /* k and v */
    for (int hop = 0; !exact && hop + 1 < m->ring; hop++) /* the block that came with the hop before */
        for (int u = 0; u < m->ulysses; u++) {
            const int from = (me / m->ulysses - hop + m->ring) % m->ring;
            rows += 2 * (uint64_t)fx_layout_local(l, from * m->ulysses + u);
        }
    return rows;
}
