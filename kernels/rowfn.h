/* Scalar row functions: the one definition of exp, the activations and bf16 rounding that the CPU kernels
 * (and later device kernels) share. Branch-free, no library calls but sqrt: compilers vectorise loops around
 * them, and a value has the same bits in a vector body, in a scalar tail and on any instruction set
 * (contraction is off). Polynomials: weighted least-squares fits made for this file. */
#ifndef FX_KERNELS_ROWFN_H
#define FX_KERNELS_ROWFN_H

#include "kernels/ops.h"

#include <string.h>

#ifdef __CUDACC__
#define FX_ROWFN __host__ __device__ static inline
#elif defined(__GNUC__)
#define FX_ROWFN static inline __attribute__((always_inline, unused))
#else
#define FX_ROWFN static inline
#endif

FX_ROWFN uint32_t fx_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

FX_ROWFN float fx_from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Two bf16 side by side as one word: the first in the low half. */
FX_ROWFN uint32_t fx_word(const uint16_t *pair)
{
    uint32_t u;
    memcpy(&u, pair, sizeof u);
    return u;
}

/* Round to nearest even; NaN stays NaN. A GPU has an instruction for it, where row kernels are bound by how many they issue. */
FX_ROWFN uint16_t fx_round_bf16(float x)
{
#ifdef __CUDA_ARCH__
    uint16_t h;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
#else
    const uint32_t u = fx_bits(x), rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded);
#endif
}

FX_ROWFN float fx_widen_bf16(uint16_t h)
{
    return fx_from_bits((uint32_t)h << 16);
}

/* Two neighbours as one word. */
FX_ROWFN uint32_t fx_round_two(float first, float second)
{
#ifdef __CUDA_ARCH__
    uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    return word;
#else
    return fx_round_bf16(first) | (uint32_t)fx_round_bf16(second) << 16;
#endif
}

FX_ROWFN void fx_widen_two(uint32_t word, float two[2])
{
    two[0] = fx_from_bits(word << 16);
    two[1] = fx_from_bits(word & 0xffff0000u);
}

/* e^x: relative error below 2e-7 (2 ulp) where the result is normal; 0 below -86.6, infinity above 88.7; NaN
 * stays. */
FX_ROWFN float fx_exp(float x)
{
    const float shifter = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    const float lo = x < -86.6f ? -86.6f : x, c = lo > 88.7f ? 88.7f : lo;
    const float t = c * 1.44269504f + shifter, n = t - shifter;
    const float r = (c - n * 0.693359375f) - n * -2.12194440e-4f; /* ln 2 in two parts: n * high is exact */
    float q = 0.00138145988f;
    q = q * r + 0.00836871658f;
    q = q * r + 0.0416683890f;
    q = q * r + 0.166665211f;
    q = q * r + 0.499999940f;
    const float e = (r * r) * q + r + 1.0f;
    /* 2^n in two factors: n reaches 128, whose power alone is not a float */
    const uint32_t half = (fx_bits(t) - fx_bits(shifter) - 1u) << 23;
    const float scaled = fx_from_bits(fx_bits(e) + half) * 2.0f;
    const float low = x < -86.6f ? 0.0f : scaled, high = x > 88.7f ? fx_from_bits(0x7f800000u) : low;
    return x != x ? x : high;
}

/* erfc(z) for z >= 0, relative error below 2e-6 (far tail), 3e-7 for z < 2. */
FX_ROWFN float fx_erfc(float z)
{
    const float t = 1.0f / (1.0f + 0.5f * z);
    float p = 0.153943107f;
    p = p * t - 0.730103016f;
    p = p * t + 1.27317274f;
    p = p * t - 0.851892412f;
    p = p * t + 0.0489975177f;
    p = p * t - 0.0676882267f;
    p = p * t + 0.0581316017f;
    p = p * t + 0.381707966f;
    p = p * t + 0.999206901f;
    p = p * t - 1.26547611f;
    return t * fx_exp(p - z * z);
}

/* x * sigmoid(u) without cancellation in either tail. */
FX_ROWFN float fx_gated(float x, float u)
{
    return x / (1.0f + fx_exp(-u));
}

FX_ROWFN float fx_gelu_tanh(float x)
{
    /* 0.5 (1 + tanh(a)) = sigmoid(2a); 2 sqrt(2/pi) = 1.59576912 */
    return fx_gated(x, 1.59576912f * (x + 0.044715f * x * x * x));
}

FX_ROWFN float fx_gelu_erf(float x)
{
    const float z = (x < 0.0f ? -x : x) * 0.707106781f, half = 0.5f * fx_erfc(z);
    const float g = x * (x < 0.0f ? half : 1.0f - half);
    return x != x ? x : g;
}

FX_ROWFN float fx_act_apply(float x, fx_act act)
{
    switch (act) {
    case FX_ACT_GELU_TANH: return fx_gelu_tanh(x);
    case FX_ACT_GELU_ERF: return fx_gelu_erf(x);
    case FX_ACT_QUICK_GELU: return fx_gated(x, 1.702f * x);
    case FX_ACT_SILU: return fx_gated(x, x);
    case FX_ACT_NONE: break;
    }
    return x;
}

#endif
