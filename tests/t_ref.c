/* The oracle's own oracle: the ref backend against closed forms and tiny examples worked by hand; the
 * wrappers' checks (kernels/ops.c) and the plan backend. Everything else is judged against ref (check_ops). */
#include "tests/test.h"

#include "kernels/ops.h"

#include <math.h>

static fx_backend *be;
static uint64_t state = 12345;

static double rnd(void) /* in [-1, 1) */
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)state / 9223372036854775808.0;
}

static fx_tensor push(int ndim, int64_t a, int64_t b, int64_t c)
{
    fx_tensor t;
    const int64_t shape[] = {a, b, c};
    T_OK(fx_push(be->arena, FX_F64, ndim, shape, &t));
    for (int64_t i = 0; i < fx_numel(t); i++) ((double *)t.data)[i] = rnd();
    return t;
}

static double *at(fx_tensor t)
{
    return (double *)t.data;
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-12 * (1 + fabs(b));
}

static fx_weight weight(fx_weight_kind kind, int64_t n, int64_t k, int taps, const double *src)
{
    fx_weight w = {.n = n, .k = k, .kh = taps, .kw = taps, .kind = kind, .dtype = FX_F64};
    fx_tensor bytes;
    T_OK(fx_push1(be->arena, FX_U8, (int64_t)fx_packed_bytes(be, &w), &bytes));
    T_OK(fx_pack(be, &w, src, bytes.data));
    w.packed = bytes.data;
    return w;
}

static void t_linear(void)
{
    const double w[] = {1, 2, 3, 4, 5, 6}; /* [2,3] */
    const double x[] = {1, 0, -1, 2, 2, 2};
    const float b[] = {0.5f, -0.5f};
    const double want[] = {-1.5, -2.5, 12.5, 29.5};
    fx_tensor y = push(2, 2, 2, 0);
    T_OK(fx_linear(be, y, fx_view2((void *)x, FX_F64, 2, 3), weight(FX_WEIGHT_LINEAR, 2, 3, 1, w),
                   fx_view1((void *)b, FX_F32, 2), FX_ACT_NONE));
    for (int i = 0; i < 4; i++) T_CHECK(at(y)[i] == want[i], "y[%d] = %g, want %g", i, at(y)[i], want[i]);
}

/* A delta in the picture gives back the flipped taps; pad and stride move it. */
static void t_conv(void)
{
    double taps[9];
    for (int i = 0; i < 9; i++) taps[i] = i + 1;
    const fx_weight w = weight(FX_WEIGHT_CONV, 1, 1, 3, taps);
    fx_tensor x = push(3, 5, 5, 1), y = push(3, 5, 5, 1), small = push(3, 2, 2, 1);
    for (int i = 0; i < 25; i++) at(x)[i] = i == 12;
    T_OK(fx_conv2d(be, y, x, w, fx_none(), 1, (const int[]){1, 1, 1, 1}));
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            const double got = at(y)[(i + 1) * 5 + j + 1], want = 9 - (3 * i + j);
            T_CHECK(got == want, "delta: y[%d,%d] = %g, want %g", i + 1, j + 1, got, want);
        }
    T_CHECK(at(y)[0] == 0 && at(y)[24] == 0, "corners %g %g", at(y)[0], at(y)[24]);
    T_OK(fx_conv2d(be, small, x, w, fx_none(), 2, (const int[]){0, 0, 0, 0}));
    /* windows at 0 and 2: the centre (2,2) is tap (2,2), (2,0), (0,2), (0,0) of them */
    const double want[] = {9, 7, 3, 1};
    for (int i = 0; i < 4; i++)
        T_CHECK(at(small)[i] == want[i], "stride 2: %d: %g want %g", i, at(small)[i], want[i]);
    /* the VAE encoder's asymmetric pad: one row and column of zeros below and right */
    fx_tensor six = push(3, 6, 6, 1), three = push(3, 3, 3, 1);
    for (int i = 0; i < 36; i++) at(six)[i] = i == 35;
    T_OK(fx_conv2d(be, three, six, w, fx_none(), 2, (const int[]){0, 1, 0, 1}));
    T_CHECK(at(three)[8] == 5 && at(three)[0] == 0, "bottom right %g, want tap 5", at(three)[8]);
}

/* Channel order: w[n,k,kh,kw] as files store it. */
static void t_conv_channels(void)
{
    double taps[2 * 3 * 4];
    for (int i = 0; i < 24; i++) taps[i] = i;
    const fx_weight w = weight(FX_WEIGHT_CONV, 2, 3, 2, taps);
    fx_tensor x = push(3, 2, 2, 3), y = push(3, 1, 1, 2);
    for (int i = 0; i < 12; i++) at(x)[i] = i == (1 * 2 + 0) * 3 + 2; /* row 1, column 0, channel 2 */
    T_OK(fx_conv2d(be, y, x, w, fx_none(), 1, (const int[]){0, 0, 0, 0}));
    T_CHECK(at(y)[0] == 10 && at(y)[1] == 22, "%g %g, want taps 10 and 22", at(y)[0], at(y)[1]);
}

static void t_attention_mean(void)
{
    fx_tensor q = push(3, 3, 2, 4), k = push(3, 5, 2, 4), v = push(3, 5, 2, 4), o = push(3, 3, 2, 4);
    fx_tensor lse = push(2, 2, 3, 0);
    T_OK(fx_attention(be, o, lse, q, k, v, fx_none(), 0.0f)); /* all scores equal */
    for (int h = 0; h < 2; h++)
        for (int d = 0; d < 4; d++) {
            double mean = 0;
            for (int j = 0; j < 5; j++) mean += at(v)[(j * 2 + h) * 4 + d] / 5;
            for (int i = 0; i < 3; i++) T_CHECK(near(at(o)[(i * 2 + h) * 4 + d], mean), "mean of v");
        }
    for (int i = 0; i < 6; i++) T_CHECK(near(at(lse)[i], log(5)), "lse %g, want log 5", at(lse)[i]);
}

/* Two keys, scores 0 and log 3: weights 1/4 and 3/4. */
static void t_attention_weights(void)
{
    double q[] = {1, 0}, k[] = {0, 5, log(3), 7}, v[] = {4, 0, 0, 8};
    fx_tensor o = push(3, 1, 1, 2), lse = push(2, 1, 1, 0);
    T_OK(fx_attention(be, o, lse, fx_view3(q, FX_F64, 1, 1, 2), fx_view3(k, FX_F64, 2, 1, 2),
                      fx_view3(v, FX_F64, 2, 1, 2), fx_none(), 1.0f));
    T_CHECK(near(at(o)[0], 1) && near(at(o)[1], 6), "o %g %g, want 1 6", at(o)[0], at(o)[1]);
    T_CHECK(near(at(lse)[0], log(4)), "lse %g, want log 4", at(lse)[0]);
}

/* Causal by -inf: query 0 sees key 0 only; a query that sees nothing gives 0 and -inf; no keys at all
 * likewise. */
static void t_attention_masked(void)
{
    fx_tensor q = push(3, 3, 1, 2), k = push(3, 3, 1, 2), v = push(3, 3, 1, 2), o = push(3, 3, 1, 2);
    fx_tensor lse = push(2, 1, 3, 0);
    float bias[5] = {0, 0, 0, -INFINITY, -INFINITY};
    T_OK(fx_attention(be, o, lse, q, k, v, fx_view2(bias, FX_F32, 1, 5), 1.0f));
    T_CHECK(near(at(o)[0], at(v)[0]) && near(at(o)[1], at(v)[1]), "first query takes the first value");
    const double s = exp(at(q)[4] * at(k)[4] + at(q)[5] * at(k)[5]);
    const double s0 = exp(at(q)[4] * at(k)[0] + at(q)[5] * at(k)[1]),
                 s1 = exp(at(q)[4] * at(k)[2] + at(q)[5] * at(k)[3]);
    T_CHECK(near(at(lse)[2], log(s + s0 + s1)), "last query sees all: %g", at(lse)[2]);
    for (int i = 0; i < 5; i++) bias[i] = i < 3 ? 0.0f : -INFINITY;
    bias[2] = -INFINITY; /* strictly below the diagonal: query 0 sees nothing */
    T_OK(fx_attention(be, o, lse, q, k, v, fx_view2(bias, FX_F32, 1, 5), 1.0f));
    T_CHECK(at(o)[0] == 0 && at(o)[1] == 0 && at(lse)[0] == -INFINITY, "nothing seen: o %g lse %g", at(o)[0],
            at(lse)[0]);
    at(k)[0] = NAN; /* a NaN score is seen even among masked keys */
    T_OK(fx_attention(be, o, lse, q, k, v, fx_view2(bias, FX_F32, 1, 5), 1.0f));
    T_CHECK(isnan(at(o)[0]) && isnan(at(lse)[0]) && isnan(at(lse)[2]), "NaN key: o %g lse %g", at(o)[0],
            at(lse)[0]);
    T_OK(fx_attention(be, o, lse, q, fx_rows(k, 0, 0), fx_rows(v, 0, 0), fx_none(), 1.0f));
    for (int i = 0; i < 6; i++) T_CHECK(at(o)[i] == 0, "no keys: o[%d] = %g", i, at(o)[i]);
    T_CHECK(at(lse)[2] == -INFINITY, "no keys: lse %g", at(lse)[2]);
}

/* bias[h, j - i + Tq - 1]: one number, seen by the pairs with j - i = 1 of head 1 only. */
static void t_attention_bias(void)
{
    fx_tensor q = push(3, 2, 2, 2), k = push(3, 3, 2, 2), v = push(3, 3, 2, 2), o = push(3, 2, 2, 2);
    float bias[8] = {0};
    bias[4 + 1 + 1] = 60;
    T_OK(fx_attention(be, o, fx_none(), q, k, v, fx_view2(bias, FX_F32, 2, 4), 1.0f));
    for (int i = 0; i < 2; i++)
        T_CHECK(fabs(at(o)[(i * 2 + 1) * 2] - at(v)[((i + 1) * 2 + 1) * 2]) < 1e-12,
                "query %d takes value %d", i, i + 1);
    T_CHECK(fabs(at(o)[0] - at(v)[4]) > 1e-6, "head 0 has no bias");
}

/* Halves merged = the whole; merging an empty half changes nothing. */
static void t_merge(void)
{
    fx_tensor q = push(3, 4, 2, 6), k = push(3, 9, 2, 6), v = push(3, 9, 2, 6);
    fx_tensor o = push(3, 4, 2, 6), o1 = push(3, 4, 2, 6), o2 = push(3, 4, 2, 6);
    fx_tensor l = push(2, 2, 4, 0), l1 = push(2, 2, 4, 0), l2 = push(2, 2, 4, 0);
    T_OK(fx_attention(be, o, l, q, k, v, fx_none(), 3.0f));
    T_OK(fx_attention(be, o1, l1, q, fx_rows(k, 0, 4), fx_rows(v, 0, 4), fx_none(), 3.0f));
    T_OK(fx_attention(be, o2, l2, q, fx_rows(k, 4, 5), fx_rows(v, 4, 5), fx_none(), 3.0f));
    T_OK(fx_attention_merge(be, o1, l1, o2, l2));
    for (int i = 0; i < 48; i++)
        T_CHECK(near(at(o1)[i], at(o)[i]), "merged %g, whole %g", at(o1)[i], at(o)[i]);
    for (int i = 0; i < 8; i++)
        T_CHECK(near(at(l1)[i], at(l)[i]), "merged lse %g, whole %g", at(l1)[i], at(l)[i]);
    T_OK(fx_attention(be, o2, l2, q, fx_rows(k, 0, 0), fx_rows(v, 0, 0), fx_none(), 3.0f));
    T_OK(fx_attention_merge(be, o1, l1, o2, l2));
    T_OK(fx_attention_merge(be, o2, l2, o, l));
    for (int i = 0; i < 48; i++)
        T_CHECK(near(at(o1)[i], at(o)[i]) && near(at(o2)[i], at(o)[i]), "empty half changes %d", i);
}

static void t_norms(void)
{
    double x[] = {1, 3, 1, 3}, shift[] = {0, 1, 2, 3}, scale[] = {0, 1, 0, -1};
    float w[] = {1, 2, 3, 4}, b[] = {0, 0, 1, 1};
    fx_tensor xt = fx_view2(x, FX_F64, 1, 4), y = push(2, 1, 4, 0);
    T_OK(fx_norm_mod(be, y, xt, fx_view1(shift, FX_F64, 4), fx_view1(scale, FX_F64, 4),
                     0.0f)); /* unit -1 1 -1 1 */
    const double mod[] = {-1, 3, 1, 3}, layer[] = {-1, 2, -2, 5};
    for (int i = 0; i < 4; i++)
        T_CHECK(near(at(y)[i], mod[i]), "norm_mod[%d] %g want %g", i, at(y)[i], mod[i]);
    T_OK(fx_layer_norm(be, y, xt, fx_view1(w, FX_F32, 4), fx_view1(b, FX_F32, 4), 0.0f));
    for (int i = 0; i < 4; i++)
        T_CHECK(near(at(y)[i], layer[i]), "layer_norm[%d] %g want %g", i, at(y)[i], layer[i]);
    T_OK(fx_rms_norm(be, y, xt, fx_view1(w, FX_F32, 4), 4.0f)); /* mean square 5, eps 4: over 3 */
    for (int i = 0; i < 4; i++)
        T_CHECK(near(at(y)[i], x[i] / 3 * (double)w[i]), "rms_norm[%d] %g", i, at(y)[i]);
    /* two passes: a far offset does not spoil the variance */
    for (int i = 0; i < 4; i++) x[i] = 1e9 + (i % 2 ? 1e-3 : -1e-3);
    T_OK(fx_layer_norm(be, y, xt, fx_view1(w, FX_F32, 4), fx_view1(b, FX_F32, 4), 0.0f));
    T_CHECK(fabs(at(y)[1] - 2) < 1e-3, "layer norm of 1e9 +- 1e-3: %g, want 2", at(y)[1]);
}

static void t_rope(void)
{
    fx_tensor x = push(3, 3, 2, 6), y = push(3, 3, 2, 6);
    float cs[3 * 6], w[6] = {1, 1, 1, 1, 1, 1};
    for (int i = 0; i < 9; i++) {
        cs[2 * i] = (float)cos(i * 0.7);
        cs[2 * i + 1] = (float)sin(i * 0.7);
    }
    const fx_tensor angles = fx_view3(cs, FX_F32, 3, 3, 2);
    T_OK(fx_qk_norm_rope(be, y, x, fx_none(), angles, 1e-6f));
    for (int i = 0; i < 36; i += 2) {
        const double a = at(x)[i], b = at(x)[i + 1], c = at(y)[i], d = at(y)[i + 1];
        T_CHECK(fabs(hypot(a, b) - hypot(c, d)) < 1e-6, "pair %d: length %g becomes %g", i, hypot(a, b),
                hypot(c, d));
        const double angle = 0.7 * (double)(i / 12 * 3 + i % 6 / 2);
        T_CHECK(fabs(a * cos(angle) - b * sin(angle) - c) < 1e-6, "pair %d turns by %g", i, angle);
    }
    T_OK(fx_qk_norm_rope(be, y, x, fx_view1(w, FX_F32, 6), angles, 0.0f));
    for (int i = 0; i < 6; i++) {
        double squares = 0;
        for (int d = 0; d < 6; d++) squares += at(y)[i * 6 + d] * at(y)[i * 6 + d];
        T_CHECK(fabs(squares - 6) < 1e-6, "normed head has mean square %g", squares / 6);
    }
    T_OK(fx_qk_norm_rope(be, x, x, fx_view1(w, FX_F32, 6), angles, 0.0f)); /* in place */
    for (int i = 0; i < 36; i++) T_CHECK(at(x)[i] == at(y)[i], "in place differs at %d", i);
}

static void t_activations(void)
{
    /* values from the definitions, 15 digits: gelu(1) = Phi(1), gelu_tanh(1), silu(1), quick_gelu(1), and at
     * -2 */
    static const struct {
        fx_act act;
        double x, want;
    } rows[] = {{FX_ACT_GELU_ERF, 1, 0.841344746068543},
                {FX_ACT_GELU_ERF, -2, -0.045500263896358},
                {FX_ACT_GELU_TANH, 1, 0.841191990608277},
                {FX_ACT_GELU_TANH, -2, -0.045402305912225},
                {FX_ACT_SILU, 1, 0.731058578630005},
                {FX_ACT_SILU, -2, -0.238405844044235},
                {FX_ACT_QUICK_GELU, 1, 0.845795765932821},
                {FX_ACT_QUICK_GELU, -2, -0.064341376855792},
                {FX_ACT_NONE, 1.25, 1.25},
                {FX_ACT_GELU_TANH, 0, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        double x = rows[i].x, y = NAN, two = 2;
        T_OK(fx_activate(be, fx_view2(&y, FX_F64, 1, 1), fx_view2(&x, FX_F64, 1, 1), rows[i].act));
        T_CHECK(fabs(y - rows[i].want) < 1e-14, "act %d of %g: %.15g, want %.15g", (int)rows[i].act, x, y,
                rows[i].want);
        T_OK(fx_glu(be, fx_view2(&y, FX_F64, 1, 1), fx_view2(&x, FX_F64, 1, 1), fx_view2(&two, FX_F64, 1, 1),
                    rows[i].act));
        T_CHECK(fabs(y - 2 * rows[i].want) < 2e-14, "glu %d of %g: %.15g", (int)rows[i].act, x, y);
    }
}

/* Statistics of split rows = statistics of the whole; and the norm itself has mean 0, variance 1 per group.
 */
static void t_group_norm(void)
{
    fx_tensor x = push(3, 5, 3, 4), y = push(3, 5, 3, 4), part = push(3, 5, 3, 4), stats = push(3, 5, 2, 2);
    float w[] = {1, 1, 1, 1}, b[] = {0, 0, 0, 0};
    const fx_tensor wt = fx_view1(w, FX_F32, 4), bt = fx_view1(b, FX_F32, 4);
    for (int i = 0; i < 60; i++) at(x)[i] += 100 * (i / 12); /* rows far apart: Chan's cross term counts */
    T_OK(fx_row_stats(be, fx_rows(stats, 0, 2), fx_rows(x, 0, 2)));
    T_OK(fx_row_stats(be, fx_rows(stats, 2, 3), fx_rows(x, 2, 3)));
    T_OK(fx_group_norm(be, y, x, stats, wt, bt, 3, 0.0f, FX_ACT_NONE));
    T_OK(fx_group_norm(be, fx_rows(part, 0, 4), fx_rows(x, 0, 4), stats, wt, bt, 3, 0.0f, FX_ACT_NONE));
    T_OK(fx_group_norm(be, fx_rows(part, 4, 1), fx_rows(x, 4, 1), stats, wt, bt, 3, 0.0f, FX_ACT_NONE));
    double sum = 0, squares = 0, mean = 0, variance = 0;
    for (int i = 0; i < 60; i++) {
        T_CHECK(at(part)[i] == at(y)[i], "split rows differ at %d", i);
        if (i % 4 >= 2) continue;
        sum += at(y)[i];
        squares += at(y)[i] * at(y)[i];
        mean += at(x)[i] / 30;
    }
    for (int i = 0; i < 60; i++) variance += i % 4 < 2 ? (at(x)[i] - mean) * (at(x)[i] - mean) / 30 : 0;
    T_CHECK(fabs(sum / 30) < 1e-12 && fabs(squares / 30 - 1) < 1e-12, "mean %g, mean square %g", sum / 30,
            squares / 30);
    T_CHECK(near(at(y)[0], (at(x)[0] - mean) / sqrt(variance)), "two-pass value %g", at(y)[0]);
}

static void t_small(void)
{
    double x[] = {-3, -1, 1.0 / 255, 0, 1, 2, 4, NAN, INFINITY};
    uint8_t rgb[6] = {0};
    T_OK(fx_to_rgb8(be, fx_view3(rgb, FX_U8, 1, 2, 3), fx_view3(x, FX_F64, 1, 2, 3)));
    /* 255 (1/510 + 1/2) = 128; 127.5 goes to the even 128 */
    T_CHECK(rgb[0] == 0 && rgb[1] == 0 && rgb[2] == 128 && rgb[3] == 128 && rgb[4] == 255 && rgb[5] == 255,
            "%d %d %d %d %d %d", rgb[0], rgb[1], rgb[2], rgb[3], rgb[4], rgb[5]);
    int64_t count = -1;
    T_OK(fx_count_nonfinite(be, fx_view2(x, FX_F64, 3, 3), &count));
    T_CHECK(count == 2, "%lld not finite, want 2", (long long)count);
    fx_tensor up = push(3, 4, 2, 1);
    T_OK(fx_upsample2x(be, up, fx_view3(x, FX_F64, 2, 1, 1)));
    for (int i = 0; i < 8; i++) T_CHECK(at(up)[i] == x[i / 4], "upsample[%d] = %g", i, at(up)[i]);
    double table[] = {0, 1, 2, 3, 4, 5};
    int32_t ids[] = {2, 0, 2};
    fx_tensor rows = push(2, 3, 2, 0);
    T_OK(fx_embed(be, rows, fx_view2(table, FX_F64, 3, 2), fx_view1(ids, FX_I32, 3)));
    T_CHECK(at(rows)[0] == 4 && at(rows)[1] == 5 && at(rows)[2] == 0 && at(rows)[5] == 5, "embed");
    /* transpose by strides, with mul and add, into bf16 */
    uint16_t half[6];
    const int order[] = {1, 0};
    T_OK(fx_copy(be, fx_view2(half, FX_BF16, 2, 3), fx_permute(fx_view2(table, FX_F64, 3, 2), order), 2.0f,
                 1.0f));
    const float want[] = {1, 5, 9, 3, 7, 11};
    for (int i = 0; i < 6; i++)
        T_CHECK(fx_bf16_to_f32(half[i]) == want[i], "copy[%d] = %g", i, (double)fx_bf16_to_f32(half[i]));
    double gate[] = {2, -1}, acc[] = {1, 1, 1, 1};
    T_OK(fx_gate_add(be, fx_view2(acc, FX_F64, 2, 2), fx_view1(gate, FX_F64, 2),
                     fx_view2(table, FX_F64, 2, 2)));
    T_CHECK(acc[0] == 1 && acc[1] == 0 && acc[2] == 5 && acc[3] == -2, "gate_add %g %g %g %g", acc[0], acc[1],
            acc[2], acc[3]);
    double both[] = {1, 1, 1, 1}, none[] = {0, 0}; /* the same sums; normed: 1 and -1 in both rows */
    fx_tensor normed = push(2, 2, 2, 0);
    T_OK(fx_gate_norm(be, normed, fx_view2(both, FX_F64, 2, 2), fx_view1(gate, FX_F64, 2),
                      fx_view2(table, FX_F64, 2, 2), fx_view1(gate, FX_F64, 2), fx_view1(none, FX_F64, 2),
                      0.0f));
    const double units[] = {3, -2, 3, -2};
    for (int i = 0; i < 4; i++)
        T_CHECK(both[i] == acc[i] && near(at(normed)[i], units[i]), "gate_norm[%d] %g %g", i, both[i],
                at(normed)[i]);
    T_OK(fx_axpy(be, fx_view2(acc, FX_F64, 2, 2), fx_view2(table, FX_F64, 2, 2), -0.5f));
    T_CHECK(acc[0] == 1 && acc[1] == -0.5 && acc[2] == 4 && acc[3] == -3.5, "axpy %g %g", acc[1], acc[3]);
}

int main(void)
{
    T_OK(fx_backend_open("ref", FX_F32, 2, &be));
    T_OK(fx_arena_open(NULL, 1 << 20, &be->arena));
    void (*const tests[])(void) = {
        t_linear,           t_conv,           t_conv_channels, t_attention_mean, t_attention_weights,
        t_attention_masked, t_attention_bias, t_merge,         t_norms,          t_rope,
        t_activations,      t_group_norm,     t_small};
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        const size_t mark = fx_mark(be->arena);
        tests[i]();
        fx_rewind(be->arena, mark);
    }
    fx_arena_close(&be->arena);
    fx_backend_close(&be);
    return test_end("t_ref");
}
