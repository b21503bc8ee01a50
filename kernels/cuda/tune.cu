/* What choosing an algorithm by trial needs: operands of random values, and a digest of results that tells two apart when
 * one bit of them differs (by all odds). See tune.c. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/slots.h"

namespace
{

enum { THREADS = 256, CTAS = 1024 };

/* Steele, Lea, Flood: SplitMix (OOPSLA 2014) */
FX_DEVICE uint64_t mixed(uint64_t z)
{
    z += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* (-1, 1), the low bits of bf16 in use */
FX_KERNEL FX_BOUNDS(THREADS) random_kernel(uint16_t *x, int64_t n, uint64_t seed)
{
    for (int64_t i = fx_cta() * THREADS + fx_tid(); i < n; i += fx_ctas() * THREADS)
        x[i] = fx_round_bf16((float)((int64_t)(mixed(seed + (uint64_t)i) >> 40) - (1 << 23)) * 0x1p-23f);
}

FX_KERNEL FX_BOUNDS(THREADS) digest_kernel(const uint16_t *x, int64_t n, unsigned long long *sum)
{
    uint64_t mine = 0;
    for (int64_t i = fx_cta() * THREADS + fx_tid(); i < n; i += fx_ctas() * THREADS)
        mine += mixed((uint64_t)i << 16 | x[i]);
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

extern "C" fx_status FX_SLOT(random)(fx_backend *be, uint16_t *x, int64_t n, uint64_t seed)
{
    return n ? FX_LAUNCH(be, grid_for(n), THREADS, 0, random_kernel, x, n, seed) : FX_OK;
}

extern "C" fx_status FX_SLOT(digest)(fx_backend *be, const uint16_t *x, int64_t n, unsigned long long *sum)
{
    FX_TRY(FX_LAUNCH(be, fx_dim3(1), 1, 0, start_kernel, sum));
    return n ? FX_LAUNCH(be, grid_for(n), THREADS, 0, digest_kernel, x, n, sum) : FX_OK;
}
