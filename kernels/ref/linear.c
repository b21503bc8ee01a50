/* Weights and matrix products: y = act(x w^T + b), f64. Packed form: linear row-major [n, k]; conv [n, kh,
 * kw, k], so that the channels of a pixel and of a tap are both dense. */
#include "kernels/ref/ref_ops.h"

#include <string.h>

size_t fx_ref_packed_bytes(fx_backend *be, const fx_weight *w)
{
    (void)be;
    return (size_t)(w->n * w->k * w->kh * w->kw) * sizeof(double);
}

fx_status fx_ref_pack(fx_backend *be, const fx_weight *w, const void *src, void *dst)
{
    (void)be;
    const double *from = (const double *)src;
    double *to = (double *)dst;
    const int64_t taps = (int64_t)w->kh * w->kw;
    for (int64_t n = 0; n < w->n; n++)
        for (int64_t tap = 0; tap < taps; tap++)
            for (int64_t k = 0; k < w->k; k++)
                to[(n * taps + tap) * w->k + k] = from[(n * w->k + k) * taps + tap];
    return FX_OK;
}

fx_status fx_ref_linear_scratch(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b,
                                fx_act act, size_t *bytes)
{
    (void)be, (void)y, (void)x, (void)w, (void)b, (void)act;
    *bytes = 0;
    return FX_OK;
}

fx_status fx_ref_linear(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act act,
                        void *scratch)
{
    (void)scratch;
    const double *weights = (const double *)w.packed;
    const float *bias = (const float *)b.data;
#pragma omp parallel for num_threads(be->threads) schedule(static)
    for (int64_t n = 0; n < w.n; n++) /* n outside: each weight row is read from memory once */
        for (int64_t m = 0; m < x.shape[0]; m++) {
            const double *row = ref_row(x, m), *col = weights + n * w.k;
            double sum = 0;
            for (int64_t k = 0; k < w.k; k++) sum += row[k] * col[k];
            if (bias) sum += (double)bias[n];
            ref_store(y, m * y.stride[0] + n, fx_ref_act(sum, act));
        }
    return FX_OK;
}
