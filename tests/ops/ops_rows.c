/* Norms and elementwise ops on token rows. Budgets: u|y| for the one rounding of the output, and f32
 * roundings (2^-24) of the terms that make it; sums over C carry 2 sqrt(C) 2^-24. */
#include "tests/ops/ops_test.h"

#include <math.h>
#include <stdlib.h>

static double out_rounding(const trial *t, int index, int64_t i)
{
    const operand *y = &t->arg[index];
    return unit_of(y->t.dtype) * fabs(read_r(y, i)) + (y->t.dtype == FX_F16 ? 0x1p-25 : 0x1p-140);
}

static void rows_split(trial *t, int args)
{
    t->split_rows = t->c->t;
    for (int a = 0; a < args; a++) t->arg[a].split_dim = 0;
}

/* ---- norm_mod, layer_norm, rms_norm: t = T, c = C ---- */

enum { X, Y, A, B }; /* A, B: shift and scale, or w and b */

static void norm_operands(trial *t, fx_dtype x, fx_dtype y)
{
    const op_case *c = t->c;
    fill(t, add_operand(t, "x", IN, x, c->view, 2, c->t, c->c, 0), t->kind);
    add_operand(t, "y", OUT, y, c->view == PLAIN ? PLAIN : ROWS, 2, c->t, c->c, 0);
    rows_split(t, 2);
}

static void norm_mod_setup(trial *t)
{
    norm_operands(t, t->be->stream, t->be->dtype);
    fill(t, add_operand(t, "shift", IN, t->be->stream, PLAIN, 1, t->c->c, 0, 0), NORMAL);
    fill(t, add_operand(t, "scale", IN, t->be->stream, PLAIN, 1, t->c->c, 0, 0), NORMAL);
    t->eps = 1e-6f;
}

static fx_status norm_mod_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    (void)w;
    return fx_norm_mod(be, a[Y], a[X], a[A], a[B], t->eps);
}

static void layer_norm_setup(trial *t)
{
    norm_operands(t, t->x_dtype, t->y_dtype);
    fill(t, add_operand(t, "w", PARAM, FX_F32, PLAIN, 1, t->c->c, 0, 0), NORMAL);
    fill(t, add_operand(t, "b", PARAM, FX_F32, PLAIN, 1, t->c->c, 0, 0), NORMAL);
    t->eps = 1e-5f;
}

static fx_status layer_norm_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    (void)w;
    return fx_layer_norm(be, a[Y], a[X], a[A], a[B], t->eps);
}

/* gain rstd (2 sqrt(C) 2^-24 (mean|x| + |x - mean|)) + 4 2^-24 (|gain unit| + |shift|), unit = (x - mean)
 * rstd */
static void layer_budget(const trial *t, int index, double *budget)
{
    const int64_t n = t->c->c;
    const bool mod = t->def == &op_norm_mod;
    for (int64_t row = 0; row < t->c->t; row++) {
        const double *x = t->arg[X].before + row * n;
        double mean = 0, size = 0, squares = 0;
        for (int64_t i = 0; i < n; i++) mean += x[i] / (double)n, size += fabs(x[i]) / (double)n;
        for (int64_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
        const double rstd = 1 / sqrt(squares / (double)n + (double)t->eps), grow = 2 * sqrt((double)n) * u32;
        for (int64_t i = 0; i < n; i++) {
            const double gain = fabs(mod ? 1 + t->arg[B].before[i] : t->arg[A].before[i]) * rstd;
            const double shift = fabs(mod ? t->arg[A].before[i] : t->arg[B].before[i]),
                         off = fabs(x[i] - mean);
            budget[row * n + i] = out_rounding(t, index, row * n + i) + gain * grow * (size + off) +
                                  4 * u32 * (gain * off + shift);
        }
    }
}

static void rms_norm_setup(trial *t)
{
    norm_operands(t, t->be->stream, t->y_dtype);
    fill(t, add_operand(t, "w", PARAM, FX_F32, PLAIN, 1, t->c->c, 0, 0), NORMAL);
    t->eps = 1e-6f;
}

static fx_status rms_norm_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    (void)w;
    return fx_rms_norm(be, a[Y], a[X], a[A], t->eps);
}

static void rms_budget(const trial *t, int index, double *budget)
{
    const double grow =
        (sqrt((double)t->c->c) + 4) * u32; /* half of the sum's 2 sqrt(C): a square root follows */
    for (int64_t i = 0; i < fx_numel(t->arg[index].t); i++)
        budget[i] = out_rounding(t, index, i) + grow * fabs(read_r(&t->arg[index], i));
}

const op_def op_norm_mod = {
    .name = "norm_mod", .setup = norm_mod_setup, .call = norm_mod_call, .budget = layer_budget};
const op_def op_layer_norm = {.name = "layer_norm",
                              .free_dtypes = 3,
                              .setup = layer_norm_setup,
                              .call = layer_norm_call,
                              .budget = layer_budget};
const op_def op_rms_norm = {.name = "rms_norm",
                            .free_dtypes = 1,
                            .setup = rms_norm_setup,
                            .call = rms_norm_call,
                            .budget = rms_budget};

/* ---- qk_norm_rope: t = T, h = H, k = D; variant bits: 1 norm, 2 rotation, 4 in place ---- */

static void rope_setup(trial *t)
{
    const op_case *c = t->c;
    const bool in_place = c->variant & 4;
    fill(t, add_operand(t, "x", in_place ? INOUT : IN, t->be->dtype, c->view, 3, c->t, c->h, c->k), t->kind);
    add_operand(t, "y", in_place ? TEMP : OUT, t->be->dtype, c->view == PLAIN ? PLAIN : HEADS, 3, c->t, c->h,
                c->k);
    fill(t, add_operand(t, "w", PARAM, FX_F32, PLAIN, 1, c->k, 0, 0), NORMAL);
    operand *cs = add_operand(t, "cs", PARAM, FX_F32, c->view == PLAIN ? PLAIN : ROWS, 3, c->t, c->k / 2, 2);
    for (int64_t i = 0; i < fx_numel(cs->t); i += 2) {
        const double angle = 100 * uniform(&t->rng);
        set_value(cs, i, cos(angle));
        set_value(cs, i + 1, sin(angle));
    }
    t->eps = 1e-6f;
    rows_split(t, 2);
    cs->split_dim = 0;
}

static fx_status rope_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    (void)w;
    const int v = t->c->variant;
    return fx_qk_norm_rope(be, a[v & 4 ? X : Y], a[X], v & 1 ? a[2] : fx_none(), v & 2 ? a[3] : fx_none(),
                           t->eps);
}

/* u|y| + (sqrt(D) + 6) 2^-24 (|a cos| + |b sin|), a and b normed */
static void rope_budget(const trial *t, int index, double *budget)
{
    const op_case *c = t->c;
    const double grow = (sqrt((double)c->k) + 6) * u32;
    for (int64_t row = 0; row < c->t * c->h; row++) {
        const double *x = t->arg[X].before + row * c->k, *angle = t->arg[3].before + row / c->h * c->k;
        double squares = 0;
        for (int64_t d = 0; d < c->k; d++) squares += x[d] * x[d];
        const double inv = c->variant & 1 ? 1 / sqrt(squares / (double)c->k + (double)t->eps) : 1;
        for (int64_t d = 0; d < c->k; d++) {
            const int64_t other = d ^ 1, pair = d & ~(int64_t)1;
            const double here = fabs(x[d] * inv * (c->variant & 1 ? t->arg[2].before[d] : 1));
            const double there = fabs(x[other] * inv * (c->variant & 1 ? t->arg[2].before[other] : 1));
            const double size =
                c->variant & 2 ? here * fabs(angle[pair]) + there * fabs(angle[pair + 1]) : here;
            const bool exact = (c->variant & 3) == 0;
            budget[row * c->k + d] = exact ? 0 : out_rounding(t, index, row * c->k + d) + grow * size;
        }
    }
}

const op_def op_qk_norm_rope = {
    .name = "qk_norm_rope", .setup = rope_setup, .call = rope_call, .budget = rope_budget};

/* ---- gate_add: t = T, c = C; axpy: t, c, k dims ---- */

static void gate_add_setup(trial *t)
{
    const op_case *c = t->c;
    fill(t, add_operand(t, "x", INOUT, t->be->stream, c->view, 2, c->t, c->c, 0), t->kind);
    fill(t, add_operand(t, "y", IN, t->x_dtype, c->view, 2, c->t, c->c, 0), t->kind);
    fill(t, add_operand(t, "gate", IN, t->be->stream, PLAIN, 1, c->c, 0, 0), NORMAL);
    rows_split(t, 2);
}

static fx_status gate_add_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    (void)t, (void)w;
    return fx_gate_add(be, a[0], a[2], a[1]);
}

static void axpy_setup(trial *t)
{
    const op_case *c = t->c;
    fill(t, add_operand(t, "x", INOUT, t->y_dtype, c->view, 3, c->t, c->c, c->k), t->kind);
    fill(t, add_operand(t, "y", IN, t->x_dtype, c->view, 3, c->t, c->c, c->k), t->kind);
    t->scale = c->variant ? 1 : -0.37f;
    rows_split(t, 2);
}

static fx_status axpy_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    (void)w;
    return fx_axpy(be, a[0], a[1], t->scale);
}

/* u|x'| + 2^-24 |a y| */
static void add_budget(const trial *t, int index, double *budget)
{
    for (int64_t i = 0; i < fx_numel(t->arg[0].t); i++) {
        const double a = t->def == &op_gate_add ? t->arg[2].before[i % t->c->c] : (double)t->scale;
        budget[i] =
            out_rounding(t, index, i) * (1 + 4 * u32) + u32 * (1 + 4 * u32) * fabs(a * t->arg[1].before[i]);
    }
}

/* ---- gate_norm: t = T, c = C ---- */

enum { GN_X, GN_Y, GN_H, GN_GATE, GN_SHIFT, GN_SCALE };

static void gate_norm_setup(trial *t)
{
    const op_case *c = t->c;
    fill(t, add_operand(t, "x", INOUT, t->be->stream, c->view, 2, c->t, c->c, 0), t->kind);
    fill(t, add_operand(t, "y", IN, t->be->dtype, c->view, 2, c->t, c->c, 0), t->kind);
    add_operand(t, "h", OUT, t->be->dtype, c->view == PLAIN ? PLAIN : ROWS, 2, c->t, c->c, 0);
    fill(t, add_operand(t, "gate", IN, t->be->stream, PLAIN, 1, c->c, 0, 0), NORMAL);
    fill(t, add_operand(t, "shift", IN, t->be->stream, PLAIN, 1, c->c, 0, 0), NORMAL);
    fill(t, add_operand(t, "scale", IN, t->be->stream, PLAIN, 1, c->c, 0, 0), NORMAL);
    t->eps = 1e-6f;
    rows_split(t, 3);
}

static fx_status gate_norm_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    (void)w;
    return fx_gate_norm(be, a[GN_H], a[GN_X], a[GN_GATE], a[GN_Y], a[GN_SHIFT], a[GN_SCALE], t->eps);
}

/* x as gate_add. h as norm_mod of the new x, and 4 a times the row's largest error of x. */
static void gate_norm_budget(const trial *t, int index, double *budget)
{
    const int64_t n = t->c->c;
    double *x = malloc((size_t)n * sizeof *x);
    for (int64_t row = 0; row < t->c->t; row++) {
        double mean = 0, size = 0, squares = 0, moved = 0;
        for (int64_t i = 0; i < n; i++) {
            const double add = t->arg[GN_GATE].before[i] * t->arg[GN_Y].before[row * n + i];
            x[i] = t->arg[GN_X].before[row * n + i] + add;
            const double error = u32 * (1 + 4 * u32) * (fabs(x[i]) + fabs(add));
            if (index == GN_X) budget[row * n + i] = error;
            moved = fmax(moved, error);
        }
        for (int64_t i = 0; i < n; i++) mean += x[i] / (double)n, size += fabs(x[i]) / (double)n;
        for (int64_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
        const double rstd = 1 / sqrt(squares / (double)n + (double)t->eps), grow = 2 * sqrt((double)n) * u32;
        for (int64_t i = 0; i < n && index == GN_H; i++) {
            const double gain = fabs(1 + t->arg[GN_SCALE].before[i]) * rstd, off = fabs(x[i] - mean);
            budget[row * n + i] = out_rounding(t, index, row * n + i) +
                                  gain * (grow * (size + off) + 4 * moved) +
                                  4 * u32 * (gain * off + fabs(t->arg[GN_SHIFT].before[i]));
        }
    }
    free(x);
}

const op_def op_gate_norm = {
    .name = "gate_norm", .setup = gate_norm_setup, .call = gate_norm_call, .budget = gate_norm_budget};
const op_def op_gate_add = {.name = "gate_add",
                            .free_dtypes = 2,
                            .setup = gate_add_setup,
                            .call = gate_add_call,
                            .budget = add_budget};
const op_def op_axpy = {
    .name = "axpy", .free_dtypes = 3, .setup = axpy_setup, .call = axpy_call, .budget = add_budget};

/* ---- activate, glu: t = T, c = C; variant: activation, + 8 y is the first input, + 16 y is the second ----
 */

static void activate_setup(trial *t)
{
    const op_case *c = t->c;
    const bool same = t->x_dtype == t->y_dtype, over_a = same && (c->variant & 8),
               over_b = same && (c->variant & 16);
    fill(t, add_operand(t, "a", over_a ? INOUT : IN, t->x_dtype, c->view, 2, c->t, c->c, 0), t->kind);
    fill(t, add_operand(t, "b", over_b ? INOUT : IN, t->x_dtype, c->view, 2, c->t, c->c, 0), NORMAL);
    add_operand(t, "y", over_a || over_b ? TEMP : OUT, t->y_dtype, c->view, 2, c->t, c->c, 0);
    t->act = (fx_act)(c->variant & 7);
    rows_split(t, 3);
}

static fx_tensor activate_output(const trial *t, const fx_tensor a[])
{
    return t->arg[0].role == INOUT ? a[0] : t->arg[1].role == INOUT ? a[1] : a[2];
}

static fx_status activate_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    (void)w;
    return fx_activate(be, activate_output(t, a), a[0], t->act);
}

static fx_status glu_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    (void)w;
    return fx_glu(be, activate_output(t, a), a[0], a[1], t->act);
}

/* u|y| + 4 2^-24 |x| (|b|): 1 + tanh cancels where x is far below zero */
static void activate_budget(const trial *t, int index, double *budget)
{
    for (int64_t i = 0; i < fx_numel(t->arg[index].t); i++) {
        const double size = fabs(t->arg[0].before[i]) * (t->def == &op_glu ? fabs(t->arg[1].before[i]) : 1);
        budget[i] = out_rounding(t, index, i) + 4 * u32 * size;
    }
}

const op_def op_activate = {.name = "activate",
                            .free_dtypes = 3,
                            .setup = activate_setup,
                            .call = activate_call,
                            .budget = activate_budget};
const op_def op_glu = {
    .name = "glu", .free_dtypes = 3, .setup = activate_setup, .call = glu_call, .budget = activate_budget};
