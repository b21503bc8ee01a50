/* Launch -> microseconds, by the machine's classes of shapes; see cost.h. Called by simulate.c for every job. */
#include "runtime/predict/cost.h"

#include <math.h>
#include <string.h>

const char *fx_binds_name(fx_binds b)
{
    static const char *const name[FX_BINDS] = {"FLOP", "HBM", "NVLink", "latency"};
    return name[b];
}

double fx_cost_weight_share(fx_rate_dtype d)
{
    static const double share[FX_RATE_DTYPES] = {1, 0.5, 0.28125,
                                                 2}; /* nvfp4: 4 bits, and 8 for each 16 values */
    return share[d];
}

double fx_job_flop(const fx_job *j)
{
    const double mnk = (double)j->m * (double)j->n * (double)j->k;
    return j->work == FX_WORK_ROWS ? 0 : j->work == FX_WORK_ATTENTION ? 4 * mnk * (double)j->heads : 2 * mnk;
}

fx_cost_model fx_cost_of(const fx_machine *m, fx_rate_dtype dtype, int ranks_of_machine)
{
    fx_cost_model c = {.m = m, .dtype = dtype, .units = (double)m->units, .share = 1, .clock = 1};
    if (!m->cpu || ranks_of_machine < 2) return c;
    c.share = 1.0 / ranks_of_machine;
    c.units *= c.share;
    return c;
}

/* On a GPU tiles are dealt out in rounds, and the last round may be nearly empty. A CPU's threads split what is there. */
static double tiled_us(const fx_cost_model *c, const fx_rate *r, double rows, double cols, double count,
                       double flop_per_cell)
{
    const double unit_rate = r->tflops * 1e6 / (double)c->m->units; /* flop per microsecond */
    if (c->m->cpu) return rows * cols * count * flop_per_cell / (unit_rate * c->units) + r->tile_us;
    const double wide = cols > 1 ? (double)r->cols : 1; /* attention has one column of tiles per head */
    const double tiles = ceil(rows / (double)r->rows) * ceil(cols / wide) * count;
    return ceil(tiles / c->units) * (r->tile_us + (double)r->rows * wide * flop_per_cell / unit_rate);
}

/* CPU: classes are what was measured with so many rows, so the nearest below is taken; GPU: the library takes the best. */
static double best_us(const fx_cost_model *c, const fx_rates *rates, fx_rate_dtype dtype, double rows,
                      double cols, double count, double flop_per_cell)
{
    double best = INFINITY;
    int64_t best_rows = 0;
    for (int i = 0; i < rates->n; i++) {
        const fx_rate *r = &rates->r[i];
        if (r->dtype != dtype) continue;
        const double us = tiled_us(c, r, rows, cols, count, flop_per_cell);
        const bool nearer =
            !best_rows || ((double)r->rows <= rows ? r->rows > best_rows : r->rows < best_rows);
        if (c->m->cpu ? !nearer : us >= best) continue;
        best = us;
        best_rows = r->rows;
    }
    return best;
}

/* What is not told about a dtype runs as bf16, or f32, does. */
static double any_us(const fx_cost_model *c, const fx_rates *rates, double rows, double cols, double count,
                     double flop)
{
    const fx_rate_dtype order[3] = {c->dtype, FX_RATE_BF16, FX_RATE_F32};
    for (int i = 0; i < 3; i++) {
        const double us = best_us(c, rates, order[i], rows, cols, count, flop);
        if (isfinite(us)) return us;
    }
    return 0;
}

static double rows_gbps(const fx_machine *m, const char *name)
{
    for (int i = 0; i < m->ops; i++)
        if (!strcmp(m->op[i].name, name)) return m->op[i].gbps;
    return m->rows_gbps;
}

fx_cost fx_cost_job(const fx_cost_model *c, const fx_job *j)
{
    const fx_machine *m = c->m;
    fx_cost x = {.fixed_us = m->op_us, .flop = fx_job_flop(j)};
    double compute = 0, memory;
    const double rows = (double)j->m, cols = (double)j->n, k = (double)j->k, heads = (double)j->heads;
    /* nothing to do is no launch */
    if (j->work != FX_WORK_ROWS && x.flop == 0 && j->bytes == 0) return (fx_cost){.binds = FX_BINDS_LATENCY};
    if (j->work == FX_WORK_ROWS && j->bytes == 0) return (fx_cost){.binds = FX_BINDS_LATENCY};
    switch (j->work) {
    case FX_WORK_GEMM: compute = any_us(c, &m->gemm, rows, cols, 1, 2 * k); break;
    case FX_WORK_CONV: compute = any_us(c, &m->conv, rows, cols, 1, 2 * k); break;
    case FX_WORK_ATTENTION: /* a tile is of queries; all keys are its depth */
        compute = any_us(c, &m->attention, rows, 1, heads, 4 * k * cols);
        break;
    default: break;
    }
    compute /= c->clock;
    if (j->work == FX_WORK_ROWS) {
        memory = j->bytes / (rows_gbps(m, j->name) * 1e3 * c->share);
    } else {
        const double share = j->work == FX_WORK_GEMM ? fx_cost_weight_share(c->dtype) : 1;
        x.floor_us = j->weight_bytes * share / (m->weights_gbps * 1e3 * c->share);
        memory = x.floor_us + j->bytes / (m->weights_gbps * 1e3 * c->share);
    }
    x.binds = compute > memory ? FX_BINDS_FLOP : FX_BINDS_MEMORY;
    x.us = x.fixed_us + (compute > memory ? compute : memory);
    return x;
}
