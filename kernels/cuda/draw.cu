/* Random values on the device, bit for bit those of runtime/io/synthetic.c, and a digest of results that tells two apart when
 * one bit of them differs (by all odds). For synthetic weights (parallel/store_device.c) and trials of algorithms (tune.c). */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/slots.h"

namespace
{

enum { THREADS = 256, CTAS = 4096 };
const uint64_t golden = 0x9E3779B97F4A7C15u;

/* The finaliser of SplitMix64 (Steele, Lea, Flood 2014) */
FX_DEVICE uint64_t mixed(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* 24 random bits -> [-amp, amp) + add, then bf16. No operation may be fused with another. */
FX_DEVICE uint16_t value(uint64_t key, uint64_t i, float amp, float add)
{
    const float u = (float)(int32_t)(mixed(key + (i + 1) * golden) >> 40) * 0x1p-24f;
    return fx_round_bf16(fx_add(fx_mul(fx_add(2.0f * u, -1.0f), amp), add));
}

template <class T>
FX_KERNEL FX_BOUNDS(THREADS) draw_kernel(T *x, int64_t n, uint64_t key, uint64_t first, float amp, float add)
{
    for (int64_t i = fx_cta() * THREADS + fx_tid(); i < n; i += fx_ctas() * THREADS)
        fx_put(x, i, fx_widen_bf16(value(key, first + (uint64_t)i, amp, add)));
}

FX_KERNEL FX_BOUNDS(THREADS) digest_kernel(const uint16_t *x, int64_t n, unsigned long long *sum)
{
    uint64_t mine = 0;
    for (int64_t i = fx_cta() * THREADS + fx_tid(); i < n; i += fx_ctas() * THREADS)
        mine += mixed(((uint64_t)i << 16 | x[i]) + golden);
    fx_atomic_add(sum, (unsigned long long)mine);
}

FX_KERNEL start_kernel(unsigned long long *sum)
{
    *sum = 0;
}

fx_dim3 grid_for(int64_t n)
{
    const int64_t ctas = (n + THREADS - 1) / THREADS;
    return fx_dim3((unsigned)(ctas < (int64_t)CTAS ? ctas : (int64_t)CTAS));
}

} // namespace

extern "C" fx_status FX_SLOT(draw)(fx_backend *be, void *x, fx_dtype dtype, int64_t n, uint64_t key,
                                   uint64_t first, float amp, float mean)
{
    const float add = mean != 0 ? mean : -0.0f; /* x + -0 is x for every x */
    if (!n) return FX_OK;
    if (dtype == FX_F32)
        return FX_LAUNCH(be, grid_for(n), THREADS, 0, draw_kernel<float>, (float *)x, n, key, first, amp,
                         add);
    return FX_LAUNCH(be, grid_for(n), THREADS, 0, draw_kernel<uint16_t>, (uint16_t *)x, n, key, first, amp,
                     add);
}

extern "C" fx_status FX_SLOT(digest)(fx_backend *be, const uint16_t *x, int64_t n, unsigned long long *sum)
{
    FX_TRY(FX_LAUNCH(be, fx_dim3(1), 1, 0, start_kernel, sum));
    return n ? FX_LAUNCH(be, grid_for(n), THREADS, 0, digest_kernel, x, n, sum) : FX_OK;
}
