/* Mistakes that the op check must find: each replaces one slot of the backend's table by a wrong one, mostly the right op
 * with a wrong argument. check_ops --selftest runs the rows of the op over it and wants a failure; the two backends of a
 * trial make the same mistake, so that it is the judge who finds it and not the comparison between them. */
#include "tests/ops/ops_test.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static fx_ops right; /* the backend's own table */

/* ---- matrix products ---- */

/* The last k of every weight row count as zero: a loop that forgets its tail. */
static fx_status pack_drop_tail(fx_backend *be, const fx_weight *w, const void *src, void *dst)
{
    const size_t size = fx_dtype_size(w->dtype), taps = (size_t)w->kh * (size_t)w->kw,
                 row = (size_t)w->k * taps * size;
    char *copy = (char *)malloc((size_t)w->n * row);
    if (!copy) return FX_ENOMEM;
    memcpy(copy, src, (size_t)w->n * row);
    for (int64_t n = 0; n < w->n; n++) memset(copy + (size_t)(n + 1) * row - taps * size, 0, taps * size);
    const fx_status st = right.pack(be, w, copy, dst);
    free(copy);
    return st;
}

static fx_status linear_no_bias(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b,
                                fx_act act, void *scratch)
{
    (void)b;
    return right.linear(be, y, x, w, fx_none(), act, scratch);
}

static fx_status linear_other_gelu(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b,
                                   fx_act act, void *scratch)
{
    return right.linear(be, y, x, w, b, act == FX_ACT_GELU_TANH ? FX_ACT_GELU_ERF : act, scratch);
}

static fx_status linear_short(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act act,
                              void *scratch)
{
    const int64_t rows = x.shape[0] > 1 ? x.shape[0] - 1 : 1;
    return right.linear(be, fx_rows(y, 0, rows), fx_rows(x, 0, rows), w, b, act, scratch);
}

static fx_status conv_swap_pad(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                               const int pad[4], void *scratch)
{
    const int swapped[4] = {pad[1], pad[0], pad[2], pad[3]};
    return right.conv2d(be, y, x, w, b, stride, swapped, scratch);
}

/* On a real shape only: 64 channels of one pixel that nobody samples but by chance. */
static fx_status conv_hole(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                           const int pad[4], void *scratch)
{
    FX_TRY(right.conv2d(be, y, x, w, b, stride, pad, scratch));
    if (y.shape[1] == 1024) {
        char *pixel = (char *)y.data + (size_t)(3 * y.stride[0] + 500 * y.shape[2]) * fx_dtype_size(y.dtype);
        memset(pixel, 0, 64 * fx_dtype_size(y.dtype));
    }
    return FX_OK;
}

/* One element behind the last pixel of a row. */
static fx_status conv_spill(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                            const int pad[4], void *scratch)
{
    FX_TRY(right.conv2d(be, y, x, w, b, stride, pad, scratch));
    if (y.shape[1] == 1024) ((char *)y.data)[(size_t)(y.shape[1] * y.shape[2]) * fx_dtype_size(y.dtype)] = 0;
    return FX_OK;
}

/* ---- attention ---- */

static fx_status attention_scale(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k,
                                 fx_tensor v, fx_tensor bias, float scale, void *scratch)
{
    return right.attention(be, o, lse, q, k, v, bias, scale * 1.01f, scratch);
}

static fx_status attention_late_bias(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k,
                                     fx_tensor v, fx_tensor bias, float scale, void *scratch)
{
    if (fx_present(bias)) bias.data = (float *)bias.data - (bias.shape[1] > 1); /* off by one key */
    return right.attention(be, o, lse, q, k, v, bias, scale, scratch);
}

static fx_status attention_round(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k,
                                 fx_tensor v, fx_tensor bias, float scale, void *scratch)
{
    FX_TRY(right.attention(be, o, lse, q, k, v, bias, scale, scratch));
    for (int64_t i = 0; o.dtype == FX_F32 && i < fx_numel(o); i++) {
        const int64_t at = i / (o.shape[1] * o.shape[2]) * o.stride[0] +
                           i / o.shape[2] % o.shape[1] * o.stride[1] + i % o.shape[2];
        float *value = (float *)o.data + at;
        *value = fx_bf16_to_f32(fx_f32_to_bf16(*value));
    }
    return FX_OK;
}

static fx_status merge_no_maximum(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor o2, fx_tensor lse2)
{
    (void)be;
    for (int64_t h = 0; h < o.shape[1]; h++)
        for (int64_t i = 0; i < o.shape[0]; i++) {
            float *a = (float *)lse.data + h * lse.stride[0] + i,
                  *x = (float *)o.data + i * o.stride[0] + h * o.stride[1];
            const float *y = (const float *)o2.data + i * o2.stride[0] + h * o2.stride[1];
            const float p = expf(*a), q = expf(((const float *)lse2.data)[h * lse2.stride[0] + i]);
            for (int64_t d = 0; d < o.shape[2]; d++) x[d] = p + q > 0 ? (p * x[d] + q * y[d]) / (p + q) : 0;
            *a = logf(p + q);
        }
    return FX_OK;
}

static fx_status merge_keep_lse(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor o2, fx_tensor lse2)
{
    const float first = *(const float *)lse.data;
    FX_TRY(right.attention_merge(be, o, lse, o2, lse2));
    *(float *)lse.data = first;
    return FX_OK;
}

/* ---- norms and rows ---- */

static fx_status norm_mod_swap(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor shift, fx_tensor scale,
                               float eps)
{
    return right.norm_mod(be, y, x, scale, shift, eps);
}

static fx_status norm_mod_eps(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor shift, fx_tensor scale,
                              float eps)
{
    return right.norm_mod(be, y, x, shift, scale, 10 * eps);
}

static fx_status norm_mod_one_pass(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor shift, fx_tensor scale,
                                   float eps)
{
    const int64_t n = x.shape[1];
    (void)be;
    for (int64_t i = 0; i < x.shape[0]; i++) {
        const float *row = (const float *)x.data + i * x.stride[0];
        float sum = 0, squares = 0;
        for (int64_t c = 0; c < n; c++) sum += row[c], squares += row[c] * row[c];
        const float mean = sum / (float)n, rstd = 1 / sqrtf(squares / (float)n - mean * mean + eps);
        for (int64_t c = 0; c < n; c++) {
            const float value = (1 + ((const float *)scale.data)[c]) * (row[c] - mean) * rstd +
                                ((const float *)shift.data)[c];
            fx_convert((char *)y.data + (size_t)(i * y.stride[0] + c) * fx_dtype_size(y.dtype), y.dtype,
                       &value, FX_F32, 1);
        }
    }
    return FX_OK;
}

static fx_status layer_norm_no_eps(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor b,
                                   float eps)
{
    (void)eps;
    return right.layer_norm(be, y, x, w, b, 1e-12f);
}

static fx_status rms_norm_eps(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, float eps)
{
    return right.rms_norm(be, y, x, w, 10 * eps);
}

static fx_status rope_no_weight(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor cs,
                                float eps)
{
    float one[64] = {0};
    for (int i = 0; i < 64; i++) one[i] = 1;
    return right.qk_norm_rope(
        be, y, x, fx_present(w) && w.shape[0] <= 64 ? fx_view1(one, FX_F32, w.shape[0]) : w, cs, eps);
}

/* The sine of the next pair. */
static fx_status rope_sine(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor cs, float eps)
{
    if (fx_present(cs) && cs.shape[0] > 1) { /* row 1's angles for row 0, and so on */
        FX_TRY(right.qk_norm_rope(be, fx_rows(y, cs.shape[0] - 1, 1), fx_rows(x, cs.shape[0] - 1, 1), w,
                                  fx_rows(cs, 0, 1), eps));
        cs = fx_rows(cs, 1, cs.shape[0] - 1);
        return right.qk_norm_rope(be, fx_rows(y, 0, cs.shape[0]), fx_rows(x, 0, cs.shape[0]), w, cs, eps);
    }
    return right.qk_norm_rope(be, y, x, w, cs, eps);
}

static fx_status gate_add_no_gate(fx_backend *be, fx_tensor x, fx_tensor gate, fx_tensor y)
{
    (void)gate;
    return right.axpy(be, x, y, 1);
}

static fx_status gate_norm_old_rows(fx_backend *be, fx_tensor h, fx_tensor x, fx_tensor gate, fx_tensor y,
                                    fx_tensor shift, fx_tensor scale, float eps)
{
    FX_TRY(right.norm_mod(be, h, x, shift, scale, eps));
    return right.gate_add(be, x, gate, y);
}

static fx_status axpy_minus(fx_backend *be, fx_tensor x, fx_tensor y, float a)
{
    return right.axpy(be, x, y, a * (1 + 0x1p-20f));
}

static fx_status glu_swap(fx_backend *be, fx_tensor y, fx_tensor a, fx_tensor b, fx_act act)
{
    return right.glu(be, y, b, a, act);
}

static fx_status copy_add_first(fx_backend *be, fx_tensor y, fx_tensor x, float mul, float add)
{
    return right.copy(be, y, x, mul, mul * add);
}

/* ---- pictures ---- */

static fx_status group_norm_own_rows(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor stats, fx_tensor w,
                                     fx_tensor b, int64_t width, float eps, fx_act act)
{
    return right.group_norm(be, y, x, fx_rows(stats, 0, x.shape[0]), w, b, width, eps, act);
}

static fx_status row_stats_one_pass(fx_backend *be, fx_tensor stats, fx_tensor x)
{
    FX_TRY(right.row_stats(be, stats, x));
    double *s = (double *)stats.data;
    const double n = (double)(x.shape[1] * (x.shape[2] / stats.shape[1]));
    for (int64_t i = 0; i < fx_numel(stats); i += 2) {
        const double squares = s[i + 1] + n * s[i] * s[i]; /* what a sum of squares would have held */
        s[i + 1] = squares - n * s[i] * s[i];
    }
    return FX_OK;
}

static fx_status upsample_left(fx_backend *be, fx_tensor y, fx_tensor x)
{
    FX_TRY(right.upsample2x(be, y, x));
    const size_t pixel = (size_t)y.shape[2] * fx_dtype_size(y.dtype);
    memmove((char *)y.data + pixel, y.data, pixel * (size_t)(y.shape[1] - 1)); /* the first row moves right */
    return FX_OK;
}

static fx_status rgb_floor(fx_backend *be, fx_tensor y, fx_tensor x)
{
    (void)be;
    for (int64_t i = 0; i < fx_numel(x); i++) {
        const int64_t row = x.shape[1] * 3, from = i / row * x.stride[0] + i % row,
                      to = i / row * y.stride[0] + i % row;
        float value;
        fx_convert(&value, FX_F32, (const char *)x.data + (size_t)from * fx_dtype_size(x.dtype), x.dtype, 1);
        ((unsigned char *)y.data)[to] = (unsigned char)(255 * fminf(fmaxf(value / 2 + 0.5f, 0), 1));
    }
    return FX_OK;
}

static fx_status count_only_nan(fx_backend *be, fx_tensor x, int64_t *count)
{
    FX_TRY(right.count_nonfinite(be, x, count));
    *count = (*count + 1) / 2;
    return FX_OK;
}

/* ---- the table ---- */

#define MUTANT(slot, fn)                                                                                     \
    static void apply_##fn(fx_ops *ops)                                                                      \
    {                                                                                                        \
        ops->slot = fn;                                                                                      \
    }
MUTANT(pack, pack_drop_tail)
MUTANT(linear, linear_no_bias)
MUTANT(linear, linear_other_gelu)
MUTANT(linear, linear_short)
MUTANT(conv2d, conv_swap_pad)
MUTANT(conv2d, conv_hole)
MUTANT(conv2d, conv_spill)
MUTANT(attention, attention_scale)
MUTANT(attention, attention_late_bias)
MUTANT(attention, attention_round)
MUTANT(attention_merge, merge_no_maximum)
MUTANT(attention_merge, merge_keep_lse)
MUTANT(norm_mod, norm_mod_swap)
MUTANT(norm_mod, norm_mod_eps)
MUTANT(norm_mod, norm_mod_one_pass)
MUTANT(layer_norm, layer_norm_no_eps)
MUTANT(rms_norm, rms_norm_eps)
MUTANT(qk_norm_rope, rope_no_weight)
MUTANT(qk_norm_rope, rope_sine)
MUTANT(gate_add, gate_add_no_gate)
MUTANT(gate_norm, gate_norm_old_rows)
MUTANT(axpy, axpy_minus)
MUTANT(glu, glu_swap)
MUTANT(copy, copy_add_first)
MUTANT(group_norm, group_norm_own_rows)
MUTANT(row_stats, row_stats_one_pass)
MUTANT(upsample2x, upsample_left)
MUTANT(to_rgb8, rgb_floor)
MUTANT(count_nonfinite, count_only_nan)

const op_mutant op_mutants[] = {
    {"the last k of each product dropped", "linear", apply_pack_drop_tail},
    {"the last k of each product dropped", "conv2d", apply_pack_drop_tail},
    {"bias forgotten", "linear", apply_linear_no_bias},
    {"gelu with erf for tanh", "linear", apply_linear_other_gelu},
    {"last row not written", "linear", apply_linear_short},
    {"pad above and below swapped", "conv2d", apply_conv_swap_pad},
    {"a hole in a large picture", "conv2d", apply_conv_hole},
    {"an element behind a row", "conv2d", apply_conv_spill},
    {"softmax scale one percent off", "attention", apply_attention_scale},
    {"bias one key late", "attention", apply_attention_late_bias},
    {"partial results rounded to bf16", "attention", apply_attention_round},
    {"merge without its maximum", "attention_merge", apply_merge_no_maximum},
    {"merge leaves the first lse", "attention_merge", apply_merge_keep_lse},
    {"shift and scale swapped", "norm_mod", apply_norm_mod_swap},
    {"eps 1e-5 for 1e-6", "norm_mod", apply_norm_mod_eps},
    {"variance in one pass", "norm_mod", apply_norm_mod_one_pass},
    {"no eps", "layer_norm", apply_layer_norm_no_eps},
    {"eps 1e-5 for 1e-6", "rms_norm", apply_rms_norm_eps},
    {"norm weight forgotten", "qk_norm_rope", apply_rope_no_weight},
    {"angles of the next row", "qk_norm_rope", apply_rope_sine},
    {"gate forgotten", "gate_add", apply_gate_add_no_gate},
    {"the rows from before the sum are normed", "gate_norm", apply_gate_norm_old_rows},
    {"factor off by 2^-20", "axpy", apply_axpy_minus},
    {"gate and value swapped", "glu", apply_glu_swap},
    {"shift before scale", "copy", apply_copy_add_first},
    {"statistics of the rank's own rows", "group_norm", apply_group_norm_own_rows},
    {"sum of squares in one pass", "row_stats", apply_row_stats_one_pass},
    {"one row shifted by a pixel", "upsample2x", apply_upsample_left},
    {"bytes cut off, not rounded", "to_rgb8", apply_rgb_floor},
    {"half of the bad values missed", "count_nonfinite", apply_count_only_nan},
};
const int op_mutant_count = sizeof op_mutants / sizeof op_mutants[0];

/* ---- a crash and a hang, on one of the cases ---- */

static fx_status embed_crash(fx_backend *be, fx_tensor y, fx_tensor table, fx_tensor ids)
{
    if (y.shape[0] == 77) raise(SIGSEGV);
    return right.embed(be, y, table, ids);
}

static fx_status embed_hang(fx_backend *be, fx_tensor y, fx_tensor table, fx_tensor ids)
{
    if (y.shape[0] == 77)
        for (;;) pause();
    return right.embed(be, y, table, ids);
}

MUTANT(embed, embed_crash)
MUTANT(embed, embed_hang)
const op_mutant op_mutant_crash = {"a crash", "embed", apply_embed_crash};
const op_mutant op_mutant_hang = {"a hang", "embed", apply_embed_hang};

void mutate(const op_mutant *m, fx_backend *be)
{
    static fx_ops wrong;
    if (be->ops != &wrong) right = wrong = *be->ops;
    m->apply(&wrong);
    be->ops = &wrong;
}
