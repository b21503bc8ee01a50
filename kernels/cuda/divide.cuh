/* Whole quotients by a multiplication, for row kernels: they are bound by instructions, and a division by a number that the
 * compiler does not know takes many. */
#ifndef FX_KERNELS_CUDA_DIVIDE_CUH
#define FX_KERNELS_CUDA_DIVIDE_CUH

#include "kernels/cuda/device.cuh"

struct fx_divisor {
    uint64_t factor; /* 2^32 / by, rounded up */
    uint32_t by;
};

static inline fx_divisor fx_divide_by(int64_t by)
{
    return {(((uint64_t)1 << 32) + (uint64_t)by - 1) / (uint64_t)by, (uint32_t)by};
}

/* Whether fx_over is right for 0..n: what rounding adds to factor, less than 1 for each n, must stay below 2^32 / by. */
static inline bool fx_divides(fx_divisor d, int64_t n)
{
    return n >= 0 && n < ((int64_t)1 << 32) / d.by;
}

/* n / by */
FX_DEVICE uint32_t fx_over(fx_divisor d, uint32_t n)
{
    return (uint32_t)((n * d.factor) >> 32);
}

#endif
