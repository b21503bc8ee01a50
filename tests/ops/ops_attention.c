/* attention, attention in parts (ring), and the merge. Budget of o, with p the true probabilities and e_j the
 * relative error of p_j (score: 2 sqrt(D) 2^-24 scale sum|q k|, exp argument: 2^-24 |s - max|): u|o| + sum_j
 * p_j e_j (|v_j| + |o|) + 2 sqrt(Tk) 2^-24 sum_j p_j |v_j| and for bf16 operands 4 sqrt(sum_j (p_j 2^-8
 * (|v_j| + |o|))^2): p may be rounded to bf16 before p v. */
#include "tests/ops/ops_test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* t = Tq, c = Tk, k = D, h = H; variant: bias kind, + 8 without lse, + 16 in 2 parts, + 32 in 3 parts with an
 * empty one */
enum { NO_BIAS, RELATIVE, CAUSAL, STRICT, BIAS_MASK = 7, NO_LSE = 8, TWO_PARTS = 16, THREE_PARTS = 32 };
enum { Q, K, V, O, LSE, BIAS_OR_O2, LSE2 };

static void attention_bias(trial *t)
{
    const op_case *c = t->c;
    const int kind = c->variant & BIAS_MASK;
    if (kind == NO_BIAS) return;
    operand *b =
        add_operand(t, "bias", PARAM, FX_F32, ROWS, 2, kind == RELATIVE ? c->h : 1, c->t + c->c - 1, 0);
    const int64_t width = b->t.shape[1];
    for (int64_t i = 0; i < fx_numel(b->t); i++) {
        const int64_t ahead = i % width - (c->t - 1); /* j - i */
        const bool masked = kind == CAUSAL ? ahead > 0 : ahead >= 0;
        set_value(b, i, kind == RELATIVE ? 3 * normal(&t->rng) : masked ? -INFINITY : 0);
    }
}

static void attention_setup(trial *t)
{
    const op_case *c = t->c;
    const unsigned scores = t->kind == NEARCONST ? NORMAL : t->kind,
                   values = t->kind == PEAKY ? NORMAL : t->kind;
    const bool in_parts = c->variant & (TWO_PARTS | THREE_PARTS);
    fill(t, add_operand(t, "q", IN, t->be->dtype, c->view, 3, c->t, c->h, c->k), scores);
    fill(t, add_operand(t, "k", IN, t->be->dtype, c->view, 3, c->c, c->h, c->k), scores);
    fill(t, add_operand(t, "v", IN, t->be->dtype, c->view, 3, c->c, c->h, c->k), values);
    const fx_dtype o = in_parts ? t->be->stream : t->y_dtype;
    const bool as_inputs = c->view == PLAIN || c->view == PIECE;
    add_operand(t, "o", OUT, o, as_inputs ? c->view : HEADS, 3, c->t, c->h, c->k);
    add_operand(t, "lse", c->variant & NO_LSE ? TEMP : OUT, t->be->stream, as_inputs ? c->view : ROWS, 2,
                c->h, c->t, 0);
    t->scale = (float)(1 / sqrt((double)c->k));
    if (in_parts) {
        t->parts = c->variant & THREE_PARTS ? 3 : 2;
        add_operand(t, "o2", TEMP, o, as_inputs ? c->view : PLAIN, 3, c->t, c->h, c->k)->split_dim = 0;
        add_operand(t, "lse2", TEMP, t->be->stream, as_inputs ? c->view : PLAIN, 2, c->h, c->t, 0)
            ->split_dim = 1;
    } else {
        attention_bias(t);
    }
    t->split_rows = c->t;
    t->arg[Q].split_dim = t->arg[O].split_dim = 0, t->arg[LSE].split_dim = 1;
}

static fx_status attention_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    (void)w;
    const fx_tensor lse =
        t->c->variant & NO_LSE && be != t->ref ? fx_none() : a[LSE]; /* the budget needs it */
    return fx_attention(be, a[O], lse, a[Q], a[K], a[V], t->args > BIAS_OR_O2 ? a[BIAS_OR_O2] : fx_none(),
                        t->scale);
}

static void attention_cut(const trial *t, int64_t begin, int64_t count, fx_tensor part[], trial *sub)
{
    (void)sub;
    part[Q] = fx_rows(part[Q], begin, count);
    part[O] = fx_rows(part[O], begin, count);
    part[LSE] = fx_slice(part[LSE], 1, begin, count);
    if (t->args > BIAS_OR_O2)
        part[BIAS_OR_O2] = fx_slice(part[BIAS_OR_O2], 1, t->c->t - begin - count, t->c->c + count - 1);
}

/* Probabilities of query i, head h, and the relative error each may carry. */
static void true_row(const trial *t, int64_t i, int64_t h, double *p, double *e)
{
    const op_case *c = t->c;
    const double *q = t->arg[Q].before + (i * c->h + h) * c->k;
    const operand *bias = t->args > BIAS_OR_O2 && !t->parts ? &t->arg[BIAS_OR_O2] : NULL;
    const double lse = read_r(&t->arg[LSE], h * c->t + i),
                 grow = 2 * sqrt((double)c->k) * u32 * (double)t->scale;
    for (int64_t j = 0; j < c->c; j++) {
        const double *k = t->arg[K].before + (j * c->h + h) * c->k;
        double score = 0, size = 0, b = 0;
        for (int64_t d = 0; d < c->k; d++) score += q[d] * k[d], size += fabs(q[d] * k[d]);
        if (bias) b = bias->before[(bias->t.shape[0] > 1 ? h : 0) * bias->t.shape[1] + j - i + c->t - 1];
        score = score * (double)t->scale + b;
        p[j] = lse == -INFINITY ? 0 : exp(score - lse);
        e[j] = p[j] == 0 ? 0 : grow * size + 4 * u32 * (1 + fabs(b) + fabs(score - lse));
    }
}

static void budget_row(const trial *t, int64_t i, int64_t h, const double *p, const double *e, double *budget)
{
    const op_case *c = t->c;
    const double u = unit_of(t->arg[O].t.dtype), sum_grow = 2 * sqrt((double)c->c) * u32 + 8 * u32 * t->parts;
    const double u_p = t->be->dtype == FX_BF16 ? 0x1p-8 : 0;
    /* a query that sees no key gets exact zeros */
    const double tiny = read_r(&t->arg[LSE], h * c->t + i) == -INFINITY ? 0 : 0x1p-120;
    for (int64_t d = 0; d < c->k; d++) {
        const double o = fabs(read_r(&t->arg[O], (i * c->h + h) * c->k + d));
        double by_p = 0, sum = 0, squares = 0;
        for (int64_t j = 0; j < c->c; j++) {
            const double v = fabs(t->arg[V].before[(j * c->h + h) * c->k + d]),
                         rounding = p[j] * u_p * (v + o);
            by_p += p[j] * e[j] * (v + o);
            sum += p[j] * v;
            squares += rounding * rounding;
        }
        budget[(i * c->h + h) * c->k + d] = u * o + by_p + sum_grow * sum + 4 * sqrt(squares) + tiny;
    }
}

/* lse: u|lse| + sum p e + 2 sqrt(Tk) 2^-24: the denominator is summed in f32 from unrounded p. */
static double budget_lse(const trial *t, double lse, const double *p, const double *e)
{
    double by_p = 0;
    for (int64_t j = 0; j < t->c->c; j++) by_p += p[j] * e[j];
    return u32 * fabs(lse) * (1 + t->parts) + by_p + (2 * sqrt((double)t->c->c) + 4 * t->parts) * u32;
}

static void attention_budget(const trial *t, int index, double *budget)
{
    const op_case *c = t->c;
#pragma omp parallel for num_threads(2)
    for (int64_t row = 0; row < c->t * c->h; row++) {
        const int64_t i = row / c->h, h = row % c->h;
        double *p = (double *)malloc((size_t)(2 * c->c + 1) * sizeof *p), *e = p + c->c;
        true_row(t, i, h, p, e);
        if (index == O)
            budget_row(t, i, h, p, e, budget);
        else
            budget[h * c->t + i] = budget_lse(t, read_r(&t->arg[LSE], h * c->t + i), p, e);
        free(p);
    }
}

/* The merge needs partial results that were not rounded to bf16: an f32 output must not look like one that
 * was. */
static const char *keeps_f32(const trial *t)
{
    const operand *o = &t->arg[O];
    int64_t coarse = 0, n = fx_numel(o->t), seen = 0;
    for (int64_t i = 0; i < n; i++) {
        const double value = read_t(o, i);
        seen += value != 0;
        coarse += value != 0 && (double)fx_bf16_to_f32(fx_f32_to_bf16((float)value)) == value;
    }
    /* one key hands v through and equal values hand themselves through: many are bf16 by right */
    const bool by_right =
        t->c->c < 3 || t->kind > TINY || t->kind == OUTLIER || (t->c->variant & BIAS_MASK) > RELATIVE;
    return o->t.dtype == FX_F32 && t->be->dtype == FX_BF16 && !by_right && coarse > seen / 8
               ? "f32 output holds values rounded to bf16"
               : NULL;
}

const op_def op_attention = {.name = "attention",
                             .free_dtypes = 1,
                             .setup = attention_setup,
                             .call = attention_call,
                             .budget = attention_budget,
                             .cut = attention_cut,
                             .extra = keeps_f32};

/* The backend visits the keys in parts and merges; ref sees the whole. */
static fx_status parts_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    (void)w;
    const int64_t keys = t->c->c, cuts[] = {0, keys / 3, t->parts == 3 ? keys / 3 : keys, keys};
    if (be == t->ref) return fx_attention(be, a[O], a[LSE], a[Q], a[K], a[V], fx_none(), t->scale);
    for (int i = 0; i < t->parts; i++) {
        const fx_tensor k = fx_rows(a[K], cuts[i], cuts[i + 1] - cuts[i]),
                        v = fx_rows(a[V], cuts[i], cuts[i + 1] - cuts[i]);
        FX_TRY(fx_attention(be, a[i ? BIAS_OR_O2 : O], a[i ? LSE2 : LSE], a[Q], k, v, fx_none(), t->scale));
        if (i) FX_TRY(fx_attention_merge(be, a[O], a[LSE], a[BIAS_OR_O2], a[LSE2]));
    }
    return FX_OK;
}

const op_def op_attention_parts = {
    .name = "attention_parts", .setup = attention_setup, .call = parts_call, .budget = attention_budget};

/* ---- attention_merge: t = T, h = H, k = D; variant 1: some queries saw no key on one side or on
 * both, 2: lse far apart; + 4: the second
 * part comes in the backend's dtype ---- */

enum { MO, MLSE, MO2, MLSE2 };

static void merge_setup(trial *t)
{
    const op_case *c = t->c;
    const fx_dtype f = t->be->stream;
    fill(t, add_operand(t, "o", INOUT, f, c->view, 3, c->t, c->h, c->k), t->kind);
    operand *lse = add_operand(t, "lse", INOUT, f, c->view == PLAIN ? PLAIN : ROWS, 2, c->h, c->t, 0);
    fill(t, add_operand(t, "o2", IN, c->variant & 4 ? t->be->dtype : f, c->view, 3, c->t, c->h, c->k),
         t->kind);
    operand *lse2 = add_operand(t, "lse2", IN, f, PLAIN, 2, c->h, c->t, 0);
    fill(t, lse, PEAKY), fill(t, lse2, PEAKY);
    /* so far apart that one part is nothing, and that a sum over e^lse as such overflows */
    for (int64_t i = 0; i < c->t * c->h; i += 4) set_value(lse, i, i % 8 ? -150 : 150);
    for (int64_t i = 0; (c->variant & 3) == 2 && i < c->t * c->h; i++) /* exp of either is beyond f32 */
        set_value(lse, i, 150 * normal(&t->rng)), set_value(lse2, i, 150 * normal(&t->rng));
    for (int64_t i = 0; (c->variant & 3) == 1 && i < c->t * c->h; i++) {
        const int64_t token = i % c->t, head = i / c->t, at = (token * c->h + head) * c->k;
        const bool first = i % 3 == 0, second = i % 5 == 0; /* without keys */
        if (first) set_value(lse, i, -INFINITY);
        if (second) set_value(lse2, i, -INFINITY);
        for (int64_t d = 0; d < c->k; d++) {
            if (first) set_value(&t->arg[MO], at + d, 0);
            if (second) set_value(&t->arg[MO2], at + d, 0);
        }
    }
    t->split_rows = c->t;
}

static fx_status merge_call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor a[])
{
    (void)t, (void)w;
    return fx_attention_merge(be, a[MO], a[MLSE], a[MO2], a[MLSE2]);
}

static void merge_cut(const trial *t, int64_t begin, int64_t count, fx_tensor part[], trial *sub)
{
    (void)t, (void)sub;
    part[MO] = fx_rows(part[MO], begin, count);
    part[MO2] = fx_rows(part[MO2], begin, count);
    part[MLSE] = fx_slice(part[MLSE], 1, begin, count);
    part[MLSE2] = fx_slice(part[MLSE2], 1, begin, count);
}

/* u|o| + 4 2^-24 (1 + |lse - lse2|) sum of the weighted parts; lse: u|lse| + 4 2^-24 (1 + |lse - lse2|). */
static void merge_budget(const trial *t, int index, double *budget)
{
    const op_case *c = t->c;
    for (int64_t i = 0; i < c->t * c->h; i++) {
        const int64_t token = i % c->t, head = i / c->t;
        const double a = t->arg[MLSE].before[i], b = t->arg[MLSE2].before[i],
                     whole = read_r(&t->arg[MLSE], i);
        const double spread = isfinite(a) && isfinite(b) ? fabs(a - b) : 0, grow = 4 * u32 * (1 + spread);
        if (index == MLSE) budget[i] = u32 * fabs(whole) + grow;
        for (int64_t d = 0; index == MO && d < c->k; d++) {
            const int64_t at = (token * c->h + head) * c->k + d;
            const double one = fabs(t->arg[MO].before[at]), two = fabs(t->arg[MO2].before[at]);
            const double sum = whole == -INFINITY ? 0 : exp(a - whole) * one + exp(b - whole) * two;
            budget[at] = u32 * fabs(read_r(&t->arg[MO], at)) + grow * sum + 0x1p-126 * (one + two);
        }
    }
}

const op_def op_attention_merge = {.name = "attention_merge",
                                   .setup = merge_setup,
                                   .call = merge_call,
                                   .budget = merge_budget,
                                   .cut = merge_cut};
