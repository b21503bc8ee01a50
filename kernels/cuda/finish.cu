/* The last pass of a matrix product whose sums lie in f32: bias, activation, one rounding. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/slots.h"

namespace
{

enum { THREADS = 256 };

template <int V, class Y>
FX_KERNEL FX_BOUNDS(THREADS) finish_kernel(Y *y, int64_t ys, const float *sums, const float *bias,
                                           int64_t packs, int per_row, fx_act act)
{
    const int64_t i = fx_cta() * THREADS + fx_tid();
    if (i >= packs) return;
    const int64_t row = i / per_row, c = i % per_row * V;
    fx_vec<V> p = fx_get_vec<V>(sums + row * per_row * V, c);
    if (bias) {
        const fx_vec<V> b = fx_get_vec<V>(bias, c);
        FX_UNROLL for (int k = 0; k < V; k++) p.v[k] += b.v[k];
    }
    FX_UNROLL for (int k = 0; k < V; k++) p.v[k] = fx_act_apply(p.v[k], act);
    fx_put_vec<V>(y + row * ys, c, p);
}

template <class Y>
fx_status finish(fx_backend *be, fx_tensor y, const float *sums, const float *bias, fx_act act)
{
    const int64_t n = y.shape[1], all = fx_numel(y);
    const bool packs = fx_in_packs(y) && (uintptr_t)sums % 16 == 0 && (uintptr_t)bias % 16 == 0;
    const int64_t items = packs ? all / 4 : all;
    const fx_dim3 grid((unsigned)((items + THREADS - 1) / THREADS));
    if (packs)
        return FX_LAUNCH(be, grid, THREADS, 0, (finish_kernel<4, Y>), (Y *)y.data, y.stride[0], sums, bias,
                         items, (int)(n / 4), act);
    return FX_LAUNCH(be, grid, THREADS, 0, (finish_kernel<1, Y>), (Y *)y.data, y.stride[0], sums, bias, items,
                     (int)n, act);
}

} // namespace

extern "C" fx_status FX_SLOT(finish)(fx_backend *be, fx_tensor y, const float *sums, const float *bias,
                                     fx_act act)
{
    return y.dtype == FX_F32 ? finish<float>(be, y, sums, bias, act)
                             : finish<uint16_t>(be, y, sums, bias, act);
}
