/* Normalisations over the channels of a row: adaLN, layer norm, RMS norm, and the q/k norm with rotation.
 * f64, variance in two passes. sources: torch.nn.LayerNorm, T5LayerNorm, RoFormer (pairs 2i, 2i+1) */
#include "kernels/ref/ref_ops.h"

#include <math.h>

/* Mean and 1/sqrt(var + eps) of row i. */
static void row_moments(fx_tensor x, int64_t i, double eps, double *mean, double *inv)
{
    const int64_t n = x.shape[1];
    const double *row = ref_row(x, i);
    double sum = 0, squares = 0;
    for (int64_t c = 0; c < n; c++) sum += row[c];
    *mean = sum / (double)n;
    for (int64_t c = 0; c < n; c++) squares += (row[c] - *mean) * (row[c] - *mean);
    *inv = 1 / sqrt(squares / (double)n + eps);
}

fx_status fx_ref_norm_mod(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor shift, fx_tensor scale,
                          float eps)
{
    (void)be;
    for (int64_t i = 0; i < x.shape[0]; i++) {
        double mean, inv;
        row_moments(x, i, (double)eps, &mean, &inv);
        for (int64_t c = 0; c < x.shape[1]; c++) {
            const double unit = (ref_row(x, i)[c] - mean) * inv;
            ref_store(y, i * y.stride[0] + c, (1 + ref_load(scale, c)) * unit + ref_load(shift, c));
        }
    }
    return FX_OK;
}

fx_status fx_ref_layer_norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor b, float eps)
{
    (void)be;
    for (int64_t i = 0; i < x.shape[0]; i++) {
        double mean, inv;
        row_moments(x, i, (double)eps, &mean, &inv);
        for (int64_t c = 0; c < x.shape[1]; c++) {
            const double unit = (ref_row(x, i)[c] - mean) * inv;
            ref_store(y, i * y.stride[0] + c, unit * ref_load(w, c) + ref_load(b, c));
        }
    }
    return FX_OK;
}

/* 1/sqrt(mean(x^2) + eps) */
static double inverse_rms(const double *x, int64_t n, double eps)
{
    double squares = 0;
    for (int64_t c = 0; c < n; c++) squares += x[c] * x[c];
    return 1 / sqrt(squares / (double)n + eps);
}

fx_status fx_ref_rms_norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, float eps)
{
    (void)be;
    for (int64_t i = 0; i < x.shape[0]; i++) {
        const double *row = ref_row(x, i), inv = inverse_rms(row, x.shape[1], (double)eps);
        for (int64_t c = 0; c < x.shape[1]; c++)
            ref_store(y, i * y.stride[0] + c, row[c] * inv * ref_load(w, c));
    }
    return FX_OK;
}

/* One head of one token; reads each pair before writing it, so y may be x. */
static void norm_rope_head(double *y, const double *x, int64_t dim, fx_tensor w, const float *cs, double eps)
{
    const double inv = fx_present(w) ? inverse_rms(x, dim, eps) : 1;
    for (int64_t d = 0; d < dim; d++) y[d] = fx_present(w) ? x[d] * inv * ref_load(w, d) : x[d];
    for (int64_t d = 0; cs && d < dim; d += 2) {
        const double a = y[d], b = y[d + 1], cosine = (double)cs[d], sine = (double)cs[d + 1];
        y[d] = a * cosine - b * sine;
        y[d + 1] = b * cosine + a * sine;
    }
}

fx_status fx_ref_qk_norm_rope(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor cs, float eps)
{
    (void)be;
    for (int64_t t = 0; t < x.shape[0]; t++)
        for (int64_t h = 0; h < x.shape[1]; h++) {
            const float *angles = fx_present(cs) ? (const float *)cs.data + t * cs.stride[0] : NULL;
            norm_rope_head(ref_row2(y, t, h), ref_row2(x, t, h), x.shape[2], w, angles, (double)eps);
        }
    return FX_OK;
}
