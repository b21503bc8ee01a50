/* What the VAE does to picture rows besides convolution: group norm from per-row statistics (a picture cut by rows
 * gives the same numbers), nearest-neighbour doubling, and the last step to 8 bits. Contract: kernels/ops.h. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/slots.h"

namespace
{

enum { THREADS = 256 };

/* ---- statistics: a CTA per picture row and group ---- */

template <class X>
FX_KERNEL FX_BOUNDS(THREADS) stats_kernel(double *stats, int64_t stats_row, const X *x, int64_t x_row,
                                          int width, int channels, int size)
{
    double *part = fx_shared<double>();
    const int64_t row = fx_cta(), group = fx_cta_y();
    const X *in = x + row * x_row + group * size;
    const int n = width * size;
    double sum = 0;
    for (int i = fx_tid(); i < n; i += THREADS)
        sum += (double)fx_get(in, (int64_t)(i / size) * channels + i % size);
    const double mean = fx_cta_sum<THREADS>(sum, part) / n;
    double squares = 0;
    for (int i = fx_tid(); i < n; i += THREADS) {
        const double d = (double)fx_get(in, (int64_t)(i / size) * channels + i % size) - mean;
        squares += d * d;
    }
    squares = fx_cta_sum<THREADS>(squares, part);
    if (fx_tid() == 0) {
        stats[row * stats_row + group * 2] = mean;
        stats[row * stats_row + group * 2 + 1] = squares;
    }
}

template <class X> fx_status row_stats(fx_backend *be, fx_tensor stats, fx_tensor x)
{
    const int groups = (int)stats.shape[1], channels = (int)x.shape[2];
    return FX_LAUNCH(be, fx_dim3((unsigned)x.shape[0], (unsigned)groups), THREADS,
                     THREADS / FX_WARP * sizeof(double), stats_kernel<X>, (double *)stats.data,
                     stats.stride[0], (const X *)x.data, x.stride[0], (int)x.shape[1], channels,
                     channels / groups);
}

/* ---- group norm: first each channel's mean, factor and summand, then the pixels ---- */

struct moments {
    double count, mean, m2;
};

/* Chan's formula: a, then b. */
FX_DEVICE moments merged(moments a, moments b)
{
    if (b.count == 0) return a;
    if (a.count == 0) return b;
    const double n = a.count + b.count, delta = b.mean - a.mean;
    return {n, a.mean + delta * (b.count / n), a.m2 + b.m2 + delta * delta * (a.count * b.count / n)};
}

struct channel_args {
    const double *stats;
    const float *w, *b;
    float *mean, *mul, *add; /* [channels] */
    int64_t stats_row;
    double values; /* per picture row and group */
    int rows, size;
    float eps;
};

enum { MERGERS = 64 }; /* runs of rows merged side by side: the same tree whatever the number of ranks */

FX_KERNEL FX_BOUNDS(MERGERS) channel_kernel(channel_args a)
{
    moments *run = fx_shared<moments>();
    const int64_t group = fx_cta();
    const int per = (a.rows + MERGERS - 1) / MERGERS, begin = fx_tid() * per;
    moments m = {0, 0, 0};
    for (int i = begin; i < begin + per && i < a.rows; i++) {
        const double *row = a.stats + i * a.stats_row + group * 2;
        m = merged(m, {a.values, row[0], row[1]});
    }
    run[fx_tid()] = m;
    fx_barrier();
    for (int reach = 1; reach < MERGERS; reach *= 2) {
        if (fx_tid() % (2 * reach) == 0) run[fx_tid()] = merged(run[fx_tid()], run[fx_tid() + reach]);
        fx_barrier();
    }
    const double inverse = 1.0 / sqrt(run[0].m2 / run[0].count + (double)a.eps);
    for (int64_t c = group * a.size + fx_tid(); c < (group + 1) * a.size; c += MERGERS) {
        a.mean[c] = (float)run[0].mean;
        a.mul[c] = (float)(inverse * (double)a.w[c]);
        a.add[c] = a.b[c];
    }
}

template <int V, class Y, class X> struct pixel_args {
    Y *y;
    const X *x;
    const float *mean, *mul, *add;
    int64_t y_row, x_row, packs;
    int packs_per_row, channels;
    fx_act act;
};

template <int V, class Y, class X> FX_KERNEL FX_BOUNDS(THREADS) pixel_kernel(pixel_args<V, Y, X> a)
{
    const int64_t i = fx_cta() * THREADS + fx_tid();
    if (i >= a.packs) return;
    const int64_t row = i / a.packs_per_row, at = i % a.packs_per_row * V;
    const int c = (int)(at % a.channels);
    fx_vec<V> p = fx_get_vec<V>(a.x + row * a.x_row, at);
    FX_UNROLL for (int k = 0; k < V; k++) p.v[k] =
        fx_act_apply((p.v[k] - a.mean[c + k]) * a.mul[c + k] + a.add[c + k], a.act);
    fx_put_vec<V>(a.y + row * a.y_row, at, p);
}

template <int V, class Y, class X>
fx_status pixels(fx_backend *be, fx_tensor y, fx_tensor x, const channel_args &c, fx_act act)
{
    const int64_t per_row = x.shape[1] * x.shape[2] / V, packs = x.shape[0] * per_row;
    const pixel_args<V, Y, X> a = {(Y *)y.data,  (const X *)x.data, c.mean,      c.mul,
                                   c.add,        y.stride[0],       x.stride[0], packs,
                                   (int)per_row, (int)x.shape[2],   act};
    return FX_LAUNCH(be, fx_dim3((unsigned)((packs + THREADS - 1) / THREADS)), THREADS, 0,
                     (pixel_kernel<V, Y, X>), a);
}

template <class Y, class X>
fx_status pixels_of(fx_backend *be, fx_tensor y, fx_tensor x, const channel_args &c, fx_act act)
{
    return fx_in_packs(y) && fx_in_packs(x) ? pixels<4, Y, X>(be, y, x, c, act)
                                            : pixels<1, Y, X>(be, y, x, c, act);
}

/* ---- doubling and 8 bits ---- */

template <class Y, class X>
FX_KERNEL FX_BOUNDS(THREADS)
    double_kernel(Y *y, int64_t y_row, const X *x, int64_t x_row, int64_t values, int per_row, int channels)
{
    const int64_t i = fx_cta() * THREADS + fx_tid();
    if (i >= values) return;
    const int64_t row = i / per_row;
    const int at = (int)(i % per_row), pixel = at / channels, c = at % channels;
    const float v = fx_get(x + row * x_row, at);
    for (int copy = 0; copy < 4; copy++)
        fx_put(y + (2 * row + copy / 2) * y_row, (int64_t)(2 * pixel + copy % 2) * channels + c, v);
}

template <class Y, class X> fx_status upsample(fx_backend *be, fx_tensor y, fx_tensor x)
{
    const int64_t n = fx_numel(x);
    return FX_LAUNCH(be, fx_dim3((unsigned)((n + THREADS - 1) / THREADS)), THREADS, 0, (double_kernel<Y, X>),
                     (Y *)y.data, y.stride[0], (const X *)x.data, x.stride[0], n,
                     (int)(x.shape[1] * x.shape[2]), (int)x.shape[2]);
}

template <class X>
FX_KERNEL FX_BOUNDS(THREADS)
    rgb_kernel(uint8_t *y, int64_t y_row, const X *x, int64_t x_row, int64_t n, int per_row)
{
    const int64_t i = fx_cta() * THREADS + fx_tid();
    if (i >= n) return;
    const int64_t row = i / per_row, c = i % per_row;
    const float v = fx_get(x + row * x_row, c) * 0.5f + 0.5f;
    const float clamped = v > 0.0f ? v < 1.0f ? v : 1.0f : 0.0f;
    y[row * y_row + c] = (uint8_t)rintf(255.0f * clamped);
}

template <class X> fx_status to_rgb8(fx_backend *be, fx_tensor y, fx_tensor x)
{
    const int64_t n = fx_numel(x);
    return FX_LAUNCH(be, fx_dim3((unsigned)((n + THREADS - 1) / THREADS)), THREADS, 0, rgb_kernel<X>,
                     (uint8_t *)y.data, y.stride[0], (const X *)x.data, x.stride[0], n,
                     (int)(x.shape[1] * 3));
}

} // namespace

extern "C" fx_status FX_SLOT(row_stats)(fx_backend *be, fx_tensor stats, fx_tensor x)
{
    return x.dtype == FX_F32 ? row_stats<float>(be, stats, x) : row_stats<uint16_t>(be, stats, x);
}

extern "C" fx_status FX_SLOT(group_norm)(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor stats,
                                         fx_tensor w, fx_tensor b, int64_t width, float eps, fx_act act)
{
    const int64_t channels = x.shape[2], groups = stats.shape[1], size = channels / groups;
    float *small = (float *)FX_SLOT(small)(be, (size_t)channels * 3 * sizeof(float));
    FX_CHECK(small, FX_ENOMEM, "group_norm: no memory for %lld channels", (long long)channels);
    const channel_args c = {(const double *)stats.data,
                            (const float *)w.data,
                            (const float *)b.data,
                            small,
                            small + channels,
                            small + 2 * channels,
                            stats.stride[0],
                            (double)(width * size),
                            (int)stats.shape[0],
                            (int)size,
                            eps};
    FX_TRY(FX_LAUNCH(be, fx_dim3((unsigned)groups), MERGERS, MERGERS * sizeof(moments), channel_kernel, c));
    if (y.dtype == FX_F32 && x.dtype == FX_F32) return pixels_of<float, float>(be, y, x, c, act);
    if (y.dtype == FX_F32) return pixels_of<float, uint16_t>(be, y, x, c, act);
    if (x.dtype == FX_F32) return pixels_of<uint16_t, float>(be, y, x, c, act);
    return pixels_of<uint16_t, uint16_t>(be, y, x, c, act);
}

extern "C" fx_status FX_SLOT(upsample2x)(fx_backend *be, fx_tensor y, fx_tensor x)
{
    if (y.dtype == FX_F32 && x.dtype == FX_F32) return upsample<float, float>(be, y, x);
    if (y.dtype == FX_F32) return upsample<float, uint16_t>(be, y, x);
    if (x.dtype == FX_F32) return upsample<uint16_t, float>(be, y, x);
    return upsample<uint16_t, uint16_t>(be, y, x);
}

extern "C" fx_status FX_SLOT(to_rgb8)(fx_backend *be, fx_tensor y, fx_tensor x)
{
    return x.dtype == FX_F32 ? to_rgb8<float>(be, y, x) : to_rgb8<uint16_t>(be, y, x);
}
