/* y = mul * x + add between any strides and float dtypes, and the count of values that are not finite. Contract:
 * kernels/ops.h. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/slots.h"

namespace
{

enum { THREADS = 256 };

struct copy_args {
    void *y;
    const void *x;
    int64_t shape[FX_MAX_DIMS], ys[FX_MAX_DIMS], xs[FX_MAX_DIMS], n; /* leading dims of 1 */
    double mul, add;
    bool plain; /* mul 1, add 0: exact */
};

template <class T> struct raw {
    T bits;
};
typedef raw<uint16_t> half_bits; /* f16, told apart from bf16 */

FX_DEVICE double load(const double *p, int64_t i)
{
    return p[i];
}
FX_DEVICE double load(const float *p, int64_t i)
{
    return (double)p[i];
}
FX_DEVICE double load(const uint16_t *p, int64_t i)
{
    return (double)fx_widen_bf16(p[i]);
}
FX_DEVICE double load(const half_bits *p, int64_t i)
{
    return (double)fx_half_to_f32(p[i].bits);
}
FX_DEVICE void store(double *p, int64_t i, double v)
{
    p[i] = v;
}
FX_DEVICE void store(float *p, int64_t i, double v)
{
    p[i] = (float)v;
}
FX_DEVICE void store(uint16_t *p, int64_t i, double v)
{
    p[i] = fx_round_bf16((float)v);
}
FX_DEVICE void store(half_bits *p, int64_t i, double v)
{
    p[i].bits = fx_f32_to_half((float)v);
}

FX_DEVICE void places(const copy_args &a, int64_t i, int64_t *y, int64_t *x)
{
    *y = *x = 0;
    FX_UNROLL for (int d = FX_MAX_DIMS - 1; d >= 0; d--)
    {
        const int64_t k = i % a.shape[d];
        i /= a.shape[d];
        *y += k * a.ys[d];
        *x += k * a.xs[d];
    }
}

template <class Y, class X> FX_KERNEL FX_BOUNDS(THREADS) copy_kernel(copy_args a)
{
    const int64_t i = fx_cta() * THREADS + fx_tid();
    if (i >= a.n) return;
    int64_t y, x;
    places(a, i, &y, &x);
    const double v = load((const X *)a.x, x);
    store((Y *)a.y, y, a.plain ? v : a.mul * v + a.add);
}

/* Both f32: no detour over f64. */
FX_KERNEL FX_BOUNDS(THREADS) f32_kernel(copy_args a)
{
    const int64_t i = fx_cta() * THREADS + fx_tid();
    if (i >= a.n) return;
    int64_t y, x;
    places(a, i, &y, &x);
    const float v = ((const float *)a.x)[x];
    ((float *)a.y)[y] = a.plain ? v : (float)a.mul * v + (float)a.add;
}

struct alignas(16) chunk {
    uint32_t word[4];
};

/* The same dtype, unchanged, 16 bytes at a time: shape, strides and n count chunks. */
FX_KERNEL FX_BOUNDS(THREADS) chunk_kernel(copy_args a)
{
    const int64_t i = fx_cta() * THREADS + fx_tid();
    if (i >= a.n) return;
    int64_t y, x;
    places(a, i, &y, &x);
    ((chunk *)a.y)[y] = ((const chunk *)a.x)[x];
}

fx_dim3 grid_for(int64_t items)
{
    return fx_dim3((unsigned)((items + THREADS - 1) / THREADS));
}

/* Rows are dense and whole chunks on both sides. */
bool in_chunks(const copy_args &a, fx_tensor y, fx_tensor x)
{
    const int64_t each = 16 / (int64_t)fx_dtype_size(y.dtype), last = FX_MAX_DIMS - 1;
    bool ok = a.plain && y.dtype == x.dtype && a.ys[last] == 1 && a.xs[last] == 1 &&
              a.shape[last] % each == 0 && (uintptr_t)y.data % 16 == 0 && (uintptr_t)x.data % 16 == 0;
    for (int d = 0; d < last; d++)
        ok = ok && (a.shape[d] == 1 || (a.ys[d] % each == 0 && a.xs[d] % each == 0));
    return ok;
}

template <class Y> fx_status copy_from(fx_backend *be, const copy_args &a, fx_dtype x)
{
    const fx_dim3 grid = grid_for(a.n);
    switch (x) {
    case FX_F64: return FX_LAUNCH(be, grid, THREADS, 0, (copy_kernel<Y, double>), a);
    case FX_F32: return FX_LAUNCH(be, grid, THREADS, 0, (copy_kernel<Y, float>), a);
    case FX_BF16: return FX_LAUNCH(be, grid, THREADS, 0, (copy_kernel<Y, uint16_t>), a);
    default: return FX_LAUNCH(be, grid, THREADS, 0, (copy_kernel<Y, half_bits>), a);
    }
}

/* ---- NaN and infinity ---- */

template <class X>
FX_KERNEL FX_BOUNDS(THREADS)
    count_kernel(const X *x, int64_t row, int64_t n, int per_row, unsigned long long *count)
{
    unsigned bad = 0;
    for (int64_t i = fx_cta() * THREADS + fx_tid(); i < n; i += fx_ctas() * THREADS) {
        const float v = fx_get(x + i / per_row * row, i % per_row);
        bad += (fx_bits(v) & 0x7f800000u) == 0x7f800000u;
    }
    bad = fx_warp_sum(bad);
    if (fx_tid() % FX_WARP == 0 && bad) fx_atomic_add(count, bad);
}

FX_KERNEL zero_kernel(unsigned long long *count)
{
    *count = 0;
}

template <class X> fx_status count_of(fx_backend *be, fx_tensor x, unsigned long long *count)
{
    const int64_t n = fx_numel(x), ctas = (n + THREADS - 1) / THREADS;
    FX_TRY(FX_LAUNCH(be, fx_dim3(1), 1, 0, zero_kernel, count));
    return FX_LAUNCH(be,
                     fx_dim3((unsigned)(ctas < 1      ? 1
                                        : ctas < 1024 ? ctas
                                                      : 1024)),
                     THREADS, 0, count_kernel<X>, (const X *)x.data, x.stride[0], n, (int)x.shape[1], count);
}

} // namespace

extern "C" fx_status FX_SLOT(copy)(fx_backend *be, fx_tensor y, fx_tensor x, float mul, float add)
{
    copy_args a = {};
    a.y = y.data;
    a.x = x.data;
    a.mul = (double)mul;
    a.add = (double)add;
    a.plain = mul == 1.0f && add == 0.0f;
    a.n = fx_numel(y);
    for (int d = 0; d < FX_MAX_DIMS; d++) {
        const int from = d - (FX_MAX_DIMS - y.ndim);
        a.shape[d] = from < 0 ? 1 : y.shape[from];
        a.ys[d] = from < 0 ? 0 : y.stride[from];
        a.xs[d] = from < 0 ? 0 : x.stride[from];
    }
    if (in_chunks(a, y, x)) {
        const int64_t each = 16 / (int64_t)fx_dtype_size(y.dtype);
        for (int d = 0; d < FX_MAX_DIMS - 1; d++) a.ys[d] /= each, a.xs[d] /= each;
        a.shape[FX_MAX_DIMS - 1] /= each;
        a.n /= each;
        return FX_LAUNCH(be, grid_for(a.n), THREADS, 0, chunk_kernel, a);
    }
    if (y.dtype == FX_F32 && x.dtype == FX_F32)
        return FX_LAUNCH(be, grid_for(a.n), THREADS, 0, f32_kernel, a);
    switch (y.dtype) {
    case FX_F64: return copy_from<double>(be, a, x.dtype);
    case FX_F32: return copy_from<float>(be, a, x.dtype);
    case FX_BF16: return copy_from<uint16_t>(be, a, x.dtype);
    default: return copy_from<half_bits>(be, a, x.dtype);
    }
}

extern "C" fx_status FX_SLOT(count_into)(fx_backend *be, fx_tensor x, int64_t *count)
{
    unsigned long long *n = (unsigned long long *)count;
    return x.dtype == FX_F32 ? count_of<float>(be, x, n) : count_of<uint16_t>(be, x, n);
}

extern "C" fx_status FX_SLOT(count_nonfinite)(fx_backend *be, fx_tensor x, int64_t *count)
{
    int64_t *on_device = (int64_t *)FX_SLOT(small)(be, sizeof *on_device);
    FX_CHECK(on_device, FX_ENOMEM, "count_nonfinite: no memory");
    FX_TRY(FX_SLOT(count_into)(be, x, on_device));
    FX_TRY(be->ops->download(be, count, fx_view1(on_device, FX_F64, 1))); /* 8 bytes, whatever they mean */
    return FX_OK;
}
