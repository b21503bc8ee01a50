/* What the VAE does to picture rows besides convolution: group norm from per-row statistics (a picture cut by
 * rows gives the same numbers), nearest-neighbour doubling, and the last step to 8 bits. Statistics in f64,
 * in pixel order. */
#include "kernels/cpu/internal.h"
#include "kernels/cpu/multi.h"

#include <math.h>

enum { LANES = 64 }; /* channels summed side by side */

/* Sum over the row of x - centre, or of its square, for up to 64 channels. */
FX_INLINE void channel_sums(const void *x, fx_dtype dtype, int64_t width, int64_t stride, int64_t n,
                            const double *centre, bool square, double *sum)
{
    for (int64_t c = 0; c < n; c++) sum[c] = 0;
    for (int64_t j = 0; j < width; j++)
        for (int64_t c = 0; c < n; c++) {
            const double v = (double)fx_load(x, j * stride + c, dtype) - centre[c];
            sum[c] += square ? v * v : v;
        }
}

FX_INLINE void sums_any(const void *x, fx_dtype dtype, int64_t width, int64_t stride, int64_t n,
                        const double *centre, bool square, double *sum)
{
    if (dtype == FX_F32 && square)
        channel_sums(x, FX_F32, width, stride, n, centre, true, sum);
    else if (dtype == FX_F32)
        channel_sums(x, FX_F32, width, stride, n, centre, false, sum);
    else if (square)
        channel_sums(x, FX_BF16, width, stride, n, centre, true, sum);
    else
        channel_sums(x, FX_BF16, width, stride, n, centre, false, sum);
}
FX_MULTI(sums,
         (const void *restrict x, fx_dtype dtype, int64_t width, int64_t stride, int64_t n,
          const double *restrict centre, bool square, double *restrict sum),
         (x, dtype, width, stride, n, centre, square, sum))

typedef struct stats_job {
    fx_tensor stats, x;
} stats_job;

/* Adds sum (x - mean of its group)^power over a picture row into out[group * 2 + slot]. */
static void row_pass(fx_tensor x, int64_t row, int64_t groups, double *out, int slot)
{
    const int64_t channels = x.shape[2], size = channels / groups;
    for (int64_t c0 = 0; c0 < channels; c0 += LANES) {
        const int64_t n = channels - c0 < LANES ? channels - c0 : LANES;
        double centre[LANES] = {0}, sum[LANES];
        if (slot == 1)
            for (int64_t c = 0; c < n; c++) centre[c] = out[(c0 + c) / size * 2];
        sums(fx_at(x, row * x.stride[0] + c0), x.dtype, x.shape[1], channels, n, centre, slot == 1, sum);
        for (int64_t c = 0; c < n; c++) out[(c0 + c) / size * 2 + slot] += sum[c];
    }
}

static void stats_range(const void *job, int64_t begin, int64_t end, int thread)
{
    const stats_job *j = job;
    const int64_t groups = j->stats.shape[1], width = j->x.shape[1], size = j->x.shape[2] / groups;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        double *out = (double *)j->stats.data + i * j->stats.stride[0];
        memset(out, 0, (size_t)groups * 2 * sizeof(double));
        row_pass(j->x, i, groups, out, 0);
        for (int64_t g = 0; g < groups; g++) out[2 * g] /= (double)(width * size);
        row_pass(j->x, i, groups, out, 1);
    }
}

fx_status fx_cpu_row_stats(fx_backend *be, fx_tensor stats, fx_tensor x)
{
    const stats_job job = {stats, x};
    fx_cpu_ranges(be, x.shape[0], 1 + 8192 / (x.shape[1] * x.shape[2] + 1), stats_range, &job);
    return FX_OK;
}

/* ---- group norm ---- */

typedef struct group_job {
    fx_tensor y, x;
    const float *mean, *mul, *add; /* per channel */
    fx_act act;
} group_job;

FX_INLINE void norm_pixels(void *y, fx_dtype yd, const void *x, fx_dtype xd, const float *mean,
                           const float *mul, const float *add, int64_t pixels, int64_t n, fx_act act)
{
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t c0 = 0; c0 < n; c0 += LANES) {
            float t[LANES];
            const int64_t count = n - c0 < LANES ? n - c0 : LANES, at = p * n + c0;
            for (int64_t c = 0; c < count; c++)
                t[c] = (fx_load(x, at + c, xd) - mean[c0 + c]) * mul[c0 + c] + add[c0 + c];
            for (int64_t c = 0; c < count; c++) fx_store(y, at + c, yd, fx_act_apply(t[c], act));
        }
}

FX_INLINE void norm_act(void *y, fx_dtype yd, const void *x, fx_dtype xd, const float *mean, const float *mul,
                        const float *add, int64_t pixels, int64_t n, fx_act act)
{
    switch (act) {
    case FX_ACT_NONE: norm_pixels(y, yd, x, xd, mean, mul, add, pixels, n, FX_ACT_NONE); break;
    case FX_ACT_SILU: norm_pixels(y, yd, x, xd, mean, mul, add, pixels, n, FX_ACT_SILU); break;
    default: norm_pixels(y, yd, x, xd, mean, mul, add, pixels, n, act); break;
    }
}

FX_INLINE void norm_row_any(void *y, fx_dtype yd, const void *x, fx_dtype xd, const float *mean,
                            const float *mul, const float *add, int64_t pixels, int64_t n, fx_act act)
{
    if (xd == FX_F32 && yd == FX_F32)
        norm_act(y, FX_F32, x, FX_F32, mean, mul, add, pixels, n, act);
    else if (xd == FX_F32)
        norm_act(y, FX_BF16, x, FX_F32, mean, mul, add, pixels, n, act);
    else if (yd == FX_F32)
        norm_act(y, FX_F32, x, FX_BF16, mean, mul, add, pixels, n, act);
    else
        norm_act(y, FX_BF16, x, FX_BF16, mean, mul, add, pixels, n, act);
}
FX_MULTI(norm_row,
         (void *y, fx_dtype yd, const void *x, fx_dtype xd, const float *mean, const float *mul,
          const float *add, int64_t pixels, int64_t n, fx_act act),
         (y, yd, x, xd, mean, mul, add, pixels, n, act))

static void group_range(const void *job, int64_t begin, int64_t end, int thread)
{
    const group_job *j = job;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        norm_row(fx_at_mut(j->y, i * j->y.stride[0]), j->y.dtype, fx_at(j->x, i * j->x.stride[0]), j->x.dtype,
                 j->mean, j->mul, j->add, j->x.shape[1], j->x.shape[2], j->act);
}

/* Chan's formula over all rows in order; n values per row; biased variance. */
static void merge_rows(fx_tensor stats, int64_t group, double n, double *mean, double *variance)
{
    double m2 = 0;
    *mean = 0;
    for (int64_t i = 0; i < stats.shape[0]; i++) {
        const double *row = (const double *)stats.data + i * stats.stride[0] + group * 2;
        const double before = (double)i * n, delta = row[0] - *mean;
        *mean += delta * n / (before + n);
        m2 += row[1] + delta * delta * before * n / (before + n);
    }
    *variance = m2 / (n * (double)stats.shape[0]);
}

fx_status fx_cpu_group_norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor stats, fx_tensor w,
                            fx_tensor b, int64_t width, float eps, fx_act act)
{
    const int64_t channels = x.shape[2], groups = stats.shape[1], size = channels / groups;
    float *mean = fx_cpu_of(be)->buf[0].c, *mul = mean + channels, *add = mul + channels;
    FX_CHECK(channels * 3 * 4 <= FX_BUF_C, FX_ESHAPE, "group_norm: %lld channels; want at most %d",
             (long long)channels, FX_BUF_C / 12);
    for (int64_t g = 0; g < groups; g++) {
        double m, variance;
        merge_rows(stats, g, (double)(width * size), &m, &variance);
        const double inverse = 1 / sqrt(variance + (double)eps);
        for (int64_t c = g * size; c < (g + 1) * size; c++) {
            mean[c] = (float)m;
            mul[c] = (float)(inverse * (double)((const float *)w.data)[c]);
            add[c] = ((const float *)b.data)[c];
        }
    }
    const group_job job = {y, x, mean, mul, add, act};
    fx_cpu_ranges(be, x.shape[0], 1 + 8192 / (width * channels + 1), group_range, &job);
    return FX_OK;
}

/* ---- doubling and 8 bits ---- */

static void upsample_range(const void *job, int64_t begin, int64_t end, int thread)
{
    const stats_job *j = job; /* stats: y */
    const fx_tensor y = j->stats, x = j->x;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        for (int64_t p = 0; p < x.shape[1]; p++)
            for (int copy = 0; copy < 4; copy++)
                fx_convert(fx_at_mut(y, (2 * i + copy / 2) * y.stride[0] + (2 * p + copy % 2) * x.shape[2]),
                           y.dtype, fx_at(x, i * x.stride[0] + p * x.shape[2]), x.dtype, x.shape[2]);
}

fx_status fx_cpu_upsample2x(fx_backend *be, fx_tensor y, fx_tensor x)
{
    const stats_job job = {y, x};
    fx_cpu_ranges(be, x.shape[0], 1 + 8192 / (x.shape[1] * x.shape[2] + 1), upsample_range, &job);
    return FX_OK;
}

fx_status fx_cpu_to_rgb8(fx_backend *be, fx_tensor y, fx_tensor x)
{
    (void)be;
    for (int64_t i = 0; i < x.shape[0]; i++) {
        const void *in = fx_at(x, i * x.stride[0]);
        uint8_t *out = (uint8_t *)y.data + i * y.stride[0];
        for (int64_t c = 0; c < x.shape[1] * 3; c++) {
            const float v = fx_load(in, c, x.dtype) * 0.5f + 0.5f;
            const float low = v > 0.0f ? v : 0.0f, clamped = low < 1.0f ? low : 1.0f; /* NaN: 0 */
            out[c] = (uint8_t)lrintf(255.0f * clamped);
        }
    }
    return FX_OK;
}
