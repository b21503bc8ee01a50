/* What the VAE does to picture rows besides convolution: group norm from per-row statistics (so that a
 * picture split by rows gives the same numbers), upsampling, and the last step to 8 bits. f64. source:
 * torch.nn.GroupNorm */
#include "kernels/ref/ref_ops.h"

#include <math.h>

fx_status fx_ref_row_stats(fx_backend *be, fx_tensor stats, fx_tensor x)
{
    (void)be;
    const int64_t width = x.shape[1], size = x.shape[2] / stats.shape[1]; /* channels per group */
    for (int64_t i = 0; i < x.shape[0]; i++)
        for (int64_t g = 0; g < stats.shape[1]; g++) {
            double sum = 0, m2 = 0, *out = ref_row2(stats, i, g);
            for (int64_t j = 0; j < width; j++)
                for (int64_t c = g * size; c < (g + 1) * size; c++) sum += ref_row2(x, i, j)[c];
            const double mean = sum / (double)(width * size);
            for (int64_t j = 0; j < width; j++)
                for (int64_t c = g * size; c < (g + 1) * size; c++) {
                    const double off = ref_row2(x, i, j)[c] - mean;
                    m2 += off * off;
                }
            out[0] = mean;
            out[1] = m2;
        }
    return FX_OK;
}

/* Chan's formula over all rows, in row order; n values per row. Variance is the biased one. */
static void merge_rows(fx_tensor stats, int64_t group, double n, double *mean, double *variance)
{
    double m2 = 0;
    *mean = 0;
    for (int64_t i = 0; i < stats.shape[0]; i++) {
        const double *row = ref_row2(stats, i, group), before = (double)i * n, delta = row[0] - *mean;
        *mean += delta * n / (before + n);
        m2 += row[1] + delta * delta * before * n / (before + n);
    }
    *variance = m2 / (n * (double)stats.shape[0]);
}

fx_status fx_ref_group_norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor stats, fx_tensor w,
                            fx_tensor b, int64_t width, float eps, fx_act act)
{
    (void)be;
    const int64_t size = x.shape[2] / stats.shape[1];
    for (int64_t g = 0; g < stats.shape[1]; g++) {
        double mean, variance;
        merge_rows(stats, g, (double)(width * size), &mean, &variance);
        const double inv = 1 / sqrt(variance + (double)eps);
        for (int64_t i = 0; i < x.shape[0]; i++)
            for (int64_t j = 0; j < width; j++)
                for (int64_t c = g * size; c < (g + 1) * size; c++) {
                    const double unit = (ref_row2(x, i, j)[c] - mean) * inv;
                    ref_row2(y, i, j)[c] = fx_ref_act(unit * ref_load(w, c) + ref_load(b, c), act);
                }
    }
    return FX_OK;
}

fx_status fx_ref_upsample2x(fx_backend *be, fx_tensor y, fx_tensor x)
{
    (void)be;
    for (int64_t i = 0; i < y.shape[0]; i++)
        for (int64_t j = 0; j < y.shape[1]; j++)
            for (int64_t c = 0; c < y.shape[2]; c++) ref_row2(y, i, j)[c] = ref_row2(x, i / 2, j / 2)[c];
    return FX_OK;
}

fx_status fx_ref_to_rgb8(fx_backend *be, fx_tensor y, fx_tensor x)
{
    (void)be;
    for (int64_t i = 0; i < x.shape[0]; i++)
        for (int64_t j = 0; j < x.shape[1]; j++)
            for (int64_t c = 0; c < 3; c++) {
                const double unit = fmin(fmax(ref_row2(x, i, j)[c] / 2 + 0.5, 0), 1);
                ((uint8_t *)y.data)[i * y.stride[0] + j * 3 + c] =
                    (uint8_t)nearbyint(255 * unit); /* half to even */
            }
    return FX_OK;
}
