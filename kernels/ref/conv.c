/* y[Ho,Wo,N] = conv(x[H,W,K]) + b[N] over channels-last pictures, zero padding {top, bottom, left, right},
 * f64. Weights come as [n, kh, kw, k] (linear.c). source: torch.nn.Conv2d */
#include "kernels/ref/ref_ops.h"

fx_status fx_ref_conv2d_scratch(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b,
                                int stride, const int pad[4], size_t *bytes)
{
    (void)be, (void)y, (void)x, (void)w, (void)b, (void)stride, (void)pad;
    *bytes = 0;
    return FX_OK;
}

/* One output value: the taps of channel n over the window whose top left is (top, left). */
static double window(fx_tensor x, fx_weight w, int64_t n, int64_t top, int64_t left)
{
    double sum = 0;
    for (int64_t i = 0; i < w.kh; i++)
        for (int64_t j = 0; j < w.kw; j++) {
            const int64_t row = top + i, col = left + j;
            if (row < 0 || row >= x.shape[0] || col < 0 || col >= x.shape[1]) continue;
            const double *pixel = ref_row2(x, row, col);
            const double *tap = (const double *)w.packed + ((n * w.kh + i) * w.kw + j) * w.k;
            for (int64_t k = 0; k < w.k; k++) sum += pixel[k] * tap[k];
        }
    return sum;
}

fx_status fx_ref_conv2d(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                        const int pad[4], void *scratch)
{
    (void)scratch;
    const float *bias = (const float *)b.data;
#pragma omp parallel for num_threads(be->threads) schedule(static)
    for (int64_t i = 0; i < y.shape[0]; i++)
        for (int64_t j = 0; j < y.shape[1]; j++)
            for (int64_t n = 0; n < w.n; n++) {
                const double sum = window(x, w, n, i * stride - pad[0], j * stride - pad[2]);
                ref_store(y, i * y.stride[0] + j * y.stride[1] + n, sum + (bias ? (double)bias[n] : 0));
            }
    return FX_OK;
}
