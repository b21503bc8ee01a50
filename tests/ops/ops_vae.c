/* Picture rows: row statistics, group norm, upsampling, 8-bit output. t = rows, h = width, c = channels, k =
 * groups. */
#include "tests/ops/ops_test.h"

#include <math.h>
#include <stdlib.h>

/* ---- row_stats ---- */

static void row_stats_setup(trial *t)
{
    const op_case *c = t->c;
    fill(t, add_operand(t, "x", IN, t->x_dtype, c->view, 3, c->t, c->h, c->c), t->kind);
    add_operand(t, "stats", OUT, FX_F64, PLAIN, 3, c->t, c->k, 2);
    t->split_rows = c->t;
    t->arg[0].split_dim = t->arg[1].split_dim = 0;
}

static fx_status row_stats_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    (void)t, (void)w;
    return fx_row_stats(be, a[1], a[0]);
}

/* Mean and M2 of row i, group g of x[.., width, channels]; size: mean of |x|. */
static void group_moments(const double *x, const op_case *c, int64_t g, double *mean, double *m2,
                          double *size)
{
    const int64_t each = c->c / c->k;
    const double n = (double)(c->h * each);
    *mean = *m2 = *size = 0;
    for (int64_t j = 0; j < c->h; j++)
        for (int64_t i = g * each; i < (g + 1) * each; i++)
            *mean += x[j * c->c + i] / n, *size += fabs(x[j * c->c + i]) / n;
    for (int64_t j = 0; j < c->h; j++)
        for (int64_t i = g * each; i < (g + 1) * each; i++)
            *m2 += (x[j * c->c + i] - *mean) * (x[j * c->c + i] - *mean);
}

/* f64 accumulation, in any order: mean: n 2^-53 mean|x|; M2: n 2^-53 M2 + n (error of the mean)^2. The worst
 * case, not its square root: plain sums of values on a coarse grid (bf16) do not round at random, ref's among
 * them. */
static void row_stats_budget(const trial *t, int index, double *budget)
{
    const op_case *c = t->c;
    const double n = (double)(c->h * (c->c / c->k)), grow = n * unit_of(FX_F64);
    (void)index;
    for (int64_t i = 0; i < c->t; i++)
        for (int64_t g = 0; g < c->k; g++) {
            double mean, m2, size, *out = budget + (i * c->k + g) * 2;
            group_moments(t->arg[0].before + i * c->h * c->c, c, g, &mean, &m2, &size);
            out[0] = grow * size;
            out[1] = grow * m2 + n * out[0] * out[0];
        }
}

const op_def op_row_stats = {.name = "row_stats",
                             .free_dtypes = 2,
                             .setup = row_stats_setup,
                             .call = row_stats_call,
                             .budget = row_stats_budget};

/* ---- group_norm: the picture has one row above and two below this slab; variant: activation, + 8 in place
 * ---- */

enum { GX, GY, STATS, GW, GB, ABOVE = 1, BELOW = 2 };

static void picture_stats(trial *t, operand *stats, const operand *x)
{
    const op_case *c = t->c;
    for (int64_t i = 0; i < stats->t.shape[0]; i++)
        for (int64_t g = 0; g < c->k; g++) {
            /* rows of other ranks: this slab's rows again, a little off */
            double mean, m2, size;
            const int64_t row = (i - ABOVE + c->t) % c->t;
            const bool mine = i >= ABOVE && i < ABOVE + c->t;
            group_moments(x->before + row * c->h * c->c, c, g, &mean, &m2, &size);
            set_value(stats, (i * c->k + g) * 2, mine ? mean : mean * (1 + 0.01 * uniform(&t->rng)));
            set_value(stats, (i * c->k + g) * 2 + 1, mine ? m2 : 1.1 * m2);
        }
}

static void group_norm_setup(trial *t)
{
    const op_case *c = t->c;
    const bool in_place = (c->variant & 8) && t->x_dtype == t->y_dtype;
    operand *x = add_operand(t, "x", in_place ? INOUT : IN, t->x_dtype, c->view, 3, c->t, c->h, c->c);
    fill(t, x, t->kind);
    add_operand(t, "y", in_place ? TEMP : OUT, t->y_dtype, c->view, 3, c->t, c->h, c->c);
    picture_stats(t, add_operand(t, "stats", PARAM, FX_F64, PLAIN, 3, c->t + ABOVE + BELOW, c->k, 2), x);
    fill(t, add_operand(t, "w", PARAM, FX_F32, PLAIN, 1, c->c, 0, 0), NORMAL);
    fill(t, add_operand(t, "b", PARAM, FX_F32, PLAIN, 1, c->c, 0, 0), NORMAL);
    t->eps = 1e-6f;
    t->act = (fx_act)(c->variant & 7);
    t->split_rows = c->t;
    t->arg[GX].split_dim = t->arg[GY].split_dim = 0;
}

static fx_status group_norm_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    (void)w;
    const fx_tensor y = a[t->arg[GX].role == INOUT ? GX : GY];
    return fx_group_norm(be, y, a[GX], a[STATS], a[GW], a[GB], t->c->h, t->eps, t->act);
}

static void merged(const trial *t, int64_t g, double *mean, double *rstd)
{
    const double n = (double)(t->c->h * (t->c->c / t->c->k));
    const operand *stats = &t->arg[STATS];
    const int64_t rows = stats->t.shape[0], groups = t->c->k;
    double sum = 0, m2 = 0;
    for (int64_t i = 0; i < rows; i++) sum += stats->before[(i * groups + g) * 2] / (double)rows;
    for (int64_t i = 0; i < rows; i++) {
        const double off = stats->before[(i * groups + g) * 2] - sum;
        m2 += stats->before[(i * groups + g) * 2 + 1] + n * off * off;
    }
    *mean = sum;
    *rstd = 1 / sqrt(m2 / (n * (double)rows) + (double)t->eps);
}

/* u|y| + 4 2^-24 (|w| rstd (|x| + |mean|) + |b|), times the activation's slope; its own roundings 4 2^-24 |s|
 * lie inside */
static void group_norm_budget(const trial *t, int index, double *budget)
{
    const op_case *c = t->c;
    const operand *y = &t->arg[index];
    for (int64_t i = 0; i < fx_numel(y->t); i++) {
        double mean, rstd;
        const int64_t channel = i % c->c;
        merged(t, channel / (c->c / c->k), &mean, &rstd);
        const double w = fabs(t->arg[GW].before[channel]), b = fabs(t->arg[GB].before[channel]);
        const double size = w * rstd * (fabs(t->arg[GX].before[i]) + fabs(mean)) + b;
        budget[i] = unit_of(y->t.dtype) * fabs(read_r(y, i)) + (t->act == FX_ACT_NONE ? 4 : 9) * u32 * size;
    }
}

const op_def op_group_norm = {.name = "group_norm",
                              .free_dtypes = 3,
                              .setup = group_norm_setup,
                              .call = group_norm_call,
                              .budget = group_norm_budget};

/* ---- upsample2x, to_rgb8 ---- */

static void upsample_setup(trial *t)
{
    const op_case *c = t->c;
    fill(t, add_operand(t, "x", IN, t->x_dtype, c->view, 3, c->t, c->h, c->c), t->kind);
    add_operand(t, "y", OUT, t->y_dtype, c->view, 3, 2 * c->t, 2 * c->h, c->c);
    t->split_rows = c->t;
}

static fx_status upsample_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    (void)t, (void)w;
    return fx_upsample2x(be, a[1], a[0]);
}

static void upsample_cut(const trial *t, int64_t begin, int64_t count, fx_tensor part[], trial *sub)
{
    (void)t, (void)sub;
    part[0] = fx_rows(part[0], begin, count);
    part[1] = fx_rows(part[1], 2 * begin, 2 * count);
}

static void upsample_budget(const trial *t, int index, double *budget)
{
    const operand *y = &t->arg[index];
    const bool narrows = y->t.dtype == FX_BF16 && t->arg[0].t.dtype != FX_BF16;
    for (int64_t i = 0; i < fx_numel(y->t); i++)
        budget[i] = narrows ? unit_of(FX_BF16) * fabs(read_r(y, i)) : 0;
}

const op_def op_upsample2x = {.name = "upsample2x",
                              .free_dtypes = 3,
                              .setup = upsample_setup,
                              .call = upsample_call,
                              .budget = upsample_budget,
                              .cut = upsample_cut};

static void rgb_setup(trial *t)
{
    const op_case *c = t->c;
    operand *x = add_operand(t, "x", IN, t->x_dtype, c->view, 3, c->t, c->h, 3);
    fill(t, x, t->kind);
    for (int64_t i = 0; i < fx_numel(x->t);
         i += 5) /* values that stand exactly between two bytes, and the borders */
        set_value(x, i,
                  i % 2 ? (double)(i / 10 % 256) / 127.5 - 1 : ((double)(i / 10 % 256) + 0.5) / 127.5 - 1);
    add_operand(t, "y", OUT, FX_U8, c->view, 3, c->t, c->h, 3);
    t->split_rows = c->t;
    t->arg[0].split_dim = t->arg[1].split_dim = 0;
}

static fx_status rgb_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    (void)t, (void)w;
    return fx_to_rgb8(be, a[1], a[0]);
}

/* Exact, except within four f32 roundings of a half, where either neighbour will do. */
static void rgb_budget(const trial *t, int index, double *budget)
{
    for (int64_t i = 0; i < fx_numel(t->arg[index].t); i++) {
        const double level = 255 * (t->arg[0].before[i] / 2 + 0.5), off = level - floor(level) - 0.5;
        budget[i] = fabs(off) < 4 * 255 * u32 ? 1 : 0;
    }
}

const op_def op_to_rgb8 = {
    .name = "to_rgb8", .free_dtypes = 2, .setup = rgb_setup, .call = rgb_call, .budget = rgb_budget};
