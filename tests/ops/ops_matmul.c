/* linear and conv2d. Budget: u|y| + 2 sqrt(K) 2^-24 sum|x w| (+ the bias and the activation's own roundings).
 */
#include "tests/ops/ops_test.h"

#include <math.h>
#include <stdlib.h>

/* ---- linear: t = M, c = N, k = K, h = 1 with bias; variant = activation ---- */

static void linear_setup(trial *t)
{
    const op_case *c = t->c;
    fill(t, add_operand(t, "x", IN, t->be->dtype, c->view, 2, c->t, c->k, 0), t->kind);
    add_operand(t, "y", OUT, t->y_dtype, c->view == PLAIN ? PLAIN : ROWS, 2, c->t, c->c, 0);
    if (c->h) fill(t, add_operand(t, "b", PARAM, FX_F32, PLAIN, 1, c->c, 0, 0), NORMAL);
    make_weight(t, FX_WEIGHT_LINEAR, c->c, c->k, 1, 1, t->kind);
    t->act = (fx_act)c->variant;
    t->split_rows = c->t;
    t->arg[0].split_dim = t->arg[1].split_dim = 0;
}

static fx_status linear_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    return fx_linear(be, a[1], a[0], *w, t->c->h ? a[2] : fx_none(), t->act);
}

/* sum |x||w| through ref itself, on absolute values; out as the output's row-major f64. */
static void absolute_sums(const trial *t, double *out)
{
    trial a = *t;
    fx_tensor args[MAX_OPERANDS];
    const fx_weight *w = &t->w_ref;
    const int64_t nx = fx_numel(t->arg[0].r), nw = w->n * w->k * w->kh * w->kw;
    double *x = (double *)malloc((size_t)nx * sizeof *x),
           *packed = (double *)malloc((size_t)nw * sizeof *packed);
    for (int64_t i = 0; i < nx; i++) x[i] = fabs(t->arg[0].before[i]);
    for (int64_t i = 0; i < nw; i++)
        packed[i] = fabs(((const double *)w->packed)[i]); /* ref packs f64 values */
    fx_weight aw = *w;
    aw.packed = packed;
    args[0] = t->arg[0].r, args[0].data = x;
    args[1] = t->arg[1].r, args[1].data = out;
    op_case c = *t->c; /* without bias and activation */
    c.h = t->def == &op_linear ? 0 : c.h;
    a.c = &c;
    a.act = FX_ACT_NONE;
    a.args = 2;
    if (t->def->call(t->ref, &a, &aw, args)) abort();
    free(x), free(packed);
}

static void matmul_budget(const trial *t, int index, double *budget)
{
    const operand *y = &t->arg[index];
    const fx_weight *w = &t->w_ref;
    const double k = (double)(w->k * w->kh * w->kw), rounded = 2 * sqrt(k);
    const double grow = (tensor_cores(t) ? fmax(rounded, k / 16) : rounded) * u32, u = unit_of(y->t.dtype);
    const double first = library_products(t) ? grow : 2 * u32; /* of the bias */
    const double slope = t->act == FX_ACT_NONE ? 1 : 1.2;      /* the steepest gelu */
    absolute_sums(t, budget);
    for (int64_t i = 0; i < fx_numel(y->t); i++) {
        const double bias = t->args > 2 ? fabs(t->arg[2].before[i % w->n]) : 0;
        const double pre = budget[i] + bias; /* >= |the value the activation takes| */
        budget[i] = u * fabs(read_r(y, i)) + slope * (grow * budget[i] + first * bias) +
                    (t->act == FX_ACT_NONE ? 0 : 4 * u32 * pre) + 0x1p-120;
    }
}

const op_def op_linear = {
    .name = "linear", .free_dtypes = 1, .setup = linear_setup, .call = linear_call, .budget = matmul_budget};

/* ---- conv2d: t = height, h = width, k = in, c = out; variant = taps, stride and pad ---- */

static const struct {
    int taps, stride, pad[4];
} conv_variants[] = {
    {3, 1, {1, 1, 1, 1}}, /* 0 */
    {3, 2, {0, 1, 0, 1}}, /* 1: the encoder's downsampling */
    {1, 1, {0, 0, 0, 0}}, /* 2 */
    {3, 1, {0, 0, 1, 1}}, /* 3: a slab with both halo rows */
    {3, 1, {1, 0, 1, 1}}, /* 4: the topmost slab */
    {3, 2, {1, 1, 1, 1}}, /* 5 */
};

static void conv_setup(trial *t)
{
    const op_case *c = t->c;
    const int taps = conv_variants[c->variant].taps;
    t->stride = conv_variants[c->variant].stride;
    for (int i = 0; i < 4; i++) t->pad[i] = conv_variants[c->variant].pad[i];
    const int64_t high = (c->t + t->pad[0] + t->pad[1] - taps) / t->stride + 1;
    const int64_t wide = (c->h + t->pad[2] + t->pad[3] - taps) / t->stride + 1;
    operand *x = add_operand(t, "x", IN, t->be->dtype, c->view, 3, c->t, c->h, c->k);
    fill(t, x, t->kind);
    add_operand(t, "y", OUT, t->y_dtype, c->view, 3, high, wide, c->c);
    fill(t, add_operand(t, "b", PARAM, FX_F32, PLAIN, 1, c->c, 0, 0), NORMAL);
    make_weight(t, FX_WEIGHT_CONV, c->c, c->k, taps, taps, t->kind);
    t->split_rows = high;
}

static fx_status conv_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    return fx_conv2d(be, a[1], a[0], *w, t->args > 2 ? a[2] : fx_none(), t->stride, t->pad);
}

/* Output rows [begin, +count): their input rows, and zeros only where the window leaves the picture. */
static void conv_cut(const trial *t, int64_t begin, int64_t count, fx_tensor part[], trial *sub)
{
    const int64_t top = begin * t->stride - t->pad[0], end = top + (count - 1) * t->stride + t->w_ref.kh;
    const int64_t first = top > 0 ? top : 0, last = end < t->c->t ? end : t->c->t;
    sub->pad[0] = (int)(first - top);
    sub->pad[1] = (int)(end - last);
    part[0] = fx_rows(part[0], first, last - first);
    part[1] = fx_rows(part[1], begin, count);
}

const op_def op_conv2d = {.name = "conv2d",
                          .free_dtypes = 1,
                          .setup = conv_setup,
                          .call = conv_call,
                          .budget = matmul_budget,
                          .cut = conv_cut};
