/* embed, copy, count_nonfinite: nothing is computed, so the budget is the output's rounding, or none. */
#include "tests/ops/ops_test.h"

#include <math.h>

/* ---- embed: t = T, c = C, k = vocabulary ---- */

static void embed_setup(trial *t)
{
    const op_case *c = t->c;
    fill(t, add_operand(t, "table", IN, t->be->dtype, c->view, 2, c->k, c->c, 0), t->kind);
    operand *ids = add_operand(t, "ids", PARAM, FX_I32, PLAIN, 1, c->t, 0, 0);
    for (int64_t i = 0; i < c->t; i++) set_value(ids, i, floor(uniform(&t->rng) * (double)c->k));
    add_operand(t, "y", OUT, t->y_dtype, c->view, 2, c->t, c->c, 0);
    t->split_rows = c->t;
    ids->split_dim = t->arg[2].split_dim = 0;
}

static fx_status embed_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    (void)t, (void)w;
    return fx_embed(be, a[2], a[0], a[1]);
}

/* The backend's dtype is never wider than its stream: exact. */
static void no_budget(const trial *t, int index, double *budget)
{
    for (int64_t i = 0; i < fx_numel(t->arg[index].t); i++) budget[i] = 0;
}

const op_def op_embed = {
    .name = "embed", .free_dtypes = 1, .setup = embed_setup, .call = embed_call, .budget = no_budget};

/* ---- copy: t, c, k dims (k = 0: two); variant: 0 as is, 1 with mul and add, + 2 from f16, + 4 to f16, + 8
 * from f64,
 * + 16 to f64, + 32 from bf16, + 64 to bf16 ---- */

static fx_dtype pick(int variant, fx_dtype other)
{
    return variant & 2 ? FX_F16 : variant & 8 ? FX_F64 : variant & 32 ? FX_BF16 : other;
}

static void copy_setup(trial *t)
{
    const op_case *c = t->c;
    const int dims = c->k ? 3 : 2;
    const fx_dtype x = pick(c->variant, t->x_dtype), y = pick(c->variant >> 1, t->y_dtype);
    fill(t, add_operand(t, "x", IN, x, c->view, dims, c->t, c->c, c->k), t->kind);
    const bool dense = c->view == REVERSED || c->view == PLAIN || c->view == GAPS || c->view == INNER;
    add_operand(t, "y", OUT, y, dense ? PLAIN : ROWS, dims, c->t, c->c, c->k);
    t->scale = c->variant & 1 ? 1 / 0.3611f : 1;
    t->add = c->variant & 1 ? 0.1159f : 0;
    t->split_rows = c->t;
    t->arg[0].split_dim = t->arg[1].split_dim = 0;
}

static fx_status copy_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    (void)w;
    return fx_copy(be, a[1], a[0], t->scale, t->add);
}

/* A pure copy into a dtype that holds every value of the source is exact; else u|y| + 2^-24 (|mul x| + |x|):
 * a wider source passes through f32. */
static void copy_budget(const trial *t, int index, double *budget)
{
    const fx_dtype x = t->arg[0].t.dtype, y = t->arg[1].t.dtype;
    const bool pure = !(t->c->variant & 1), holds = x == y || y == FX_F64 || (y == FX_F32 && x != FX_F64);
    for (int64_t i = 0; i < fx_numel(t->arg[index].t); i++) {
        const double size = fabs((double)t->scale * t->arg[0].before[i]),
                     out = fabs(read_r(&t->arg[index], i));
        const double floor_f16 = y == FX_F16 ? 0x1p-25 : 0;
        budget[i] = pure && holds ? 0 : unit_of(y) * out + (pure ? 0 : 2 * u32 * size) + floor_f16;
    }
}

const op_def op_copy = {
    .name = "copy", .free_dtypes = 3, .setup = copy_setup, .call = copy_call, .budget = copy_budget};

/* ---- count_nonfinite: t = T, c = C; variant = how many are spoiled ---- */

static void count_setup(trial *t)
{
    const op_case *c = t->c;
    const double bad[] = {NAN, INFINITY, -INFINITY};
    operand *x = add_operand(t, "x", IN, t->x_dtype, c->view, 2, c->t, c->c, 0);
    fill(t, x, t->kind);
    for (int i = 0; i < c->variant; i++) /* the first and the last element among them */
        set_value(x, c->variant == 1 ? fx_numel(x->t) - 1 : i * (fx_numel(x->t) - 1) / (c->variant - 1),
                  bad[i % 3]);
    add_operand(t, "count", OUT, FX_I32, PLAIN, 1, 1, 0, 0);
}

static fx_status count_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    (void)t, (void)w;
    int64_t count = -1;
    FX_TRY(fx_count_nonfinite(be, a[0], &count));
    if (!fx_planning(be)) *(int32_t *)a[1].data = (int32_t)count;
    return FX_OK;
}

const op_def op_count_nonfinite = {.name = "count_nonfinite",
                                   .free_dtypes = 2,
                                   .setup = count_setup,
                                   .call = count_call,
                                   .budget = no_budget};
