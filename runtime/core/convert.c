/* Float formats in storage: bf16, f16, f32, f64, rounding to nearest even everywhere. Weight files pass
 * through fx_convert on their way into the store; kernels use the scalar forms. Loops are written so that
 * compilers vectorise them: the scalar functions are selects, not branches. */
#include "runtime/core/tensor.h"

#include <string.h>

static inline uint32_t float_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float bits_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline uint16_t to_bf16(float x)
{
    const uint32_t u = float_bits(x);
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    const uint32_t quiet = (u >> 16) | 0x40u; /* rounding could carry a NaN into infinity */
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

static inline float from_bf16(uint16_t h)
{
    return bits_float((uint32_t)h << 16);
}

/* Halves below 2^-14 are subnormal: adding 0.5 lets the f32 adder align and round the ten bits they keep. */
static inline uint16_t to_f16(float x)
{
    const uint32_t u = float_bits(x), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    const uint32_t normal = (a - (112u << 23) + 0xfffu + ((a >> 13) & 1u)) >> 13;
    const uint32_t subnormal = float_bits(bits_float(a) + 0.5f) - float_bits(0.5f);
    const uint32_t special = a > 0x7f800000u ? 0x7e00u | ((a >> 13) & 0x3ffu) : 0x7c00u;
    uint32_t h = a < (113u << 23) ? subnormal : normal;
    h = a >= 0x477ff000u ? special : h; /* 65520 and up round to infinity */
    return (uint16_t)(sign | h);
}

static inline float from_f16(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = (h >> 10) & 31u, m = h & 0x3ffu;
    const uint32_t normal = ((e + 112u) << 23) | (m << 13);
    const uint32_t special = 0x7f800000u | (m << 13);
    const uint32_t small =
        float_bits((float)(int32_t)m * 0x1p-24f); /* the signed conversion is the cheap one */
    return bits_float(sign | (e == 0 ? small : e == 31u ? special : normal));
}

uint16_t fx_f32_to_bf16(float x)
{
    return to_bf16(x);
}
float fx_bf16_to_f32(uint16_t h)
{
    return from_bf16(h);
}
uint16_t fx_f32_to_f16(float x)
{
    return to_f16(x);
}
float fx_f16_to_f32(uint16_t h)
{
    return from_f16(h);
}

/* f64 to a 16-bit format must not round twice: rounding the f64 to odd in f32 first keeps the sticky bit. */
static inline float odd_f32(double x)
{
    float f = (float)x;
    uint32_t u = float_bits(f);
    const double back = (double)f;
    if (back == x || x != x || (u & 0x7fffffffu) == 0x7f800000u) return f;
    const bool away = (back < 0 ? -back : back) > (x < 0 ? -x : x);
    if (away) u--;
    return bits_float(u | 1u);
}

/* One loop per pair of formats. */
#define LOOP(name, from, to, expression)                                                                     \
    static void name(void *restrict dst, const void *restrict src, int64_t n)                                \
    {                                                                                                        \
        const from *restrict s = src;                                                                        \
        to *restrict d = dst;                                                                                \
        for (int64_t i = 0; i < n; i++) d[i] = expression;                                                   \
    }
LOOP(f64_f32, double, float, (float)s[i])
LOOP(f64_bf16, double, uint16_t, to_bf16(odd_f32(s[i])))
LOOP(f64_f16, double, uint16_t, to_f16(odd_f32(s[i])))
LOOP(f32_f64, float, double, (double)s[i])
LOOP(f32_bf16, float, uint16_t, to_bf16(s[i]))
LOOP(f32_f16, float, uint16_t, to_f16(s[i]))
LOOP(bf16_f64, uint16_t, double, (double)from_bf16(s[i]))
LOOP(bf16_f32, uint16_t, float, from_bf16(s[i]))
LOOP(bf16_f16, uint16_t, uint16_t, to_f16(from_bf16(s[i])))
LOOP(f16_f64, uint16_t, double, (double)from_f16(s[i]))
LOOP(f16_f32, uint16_t, float, from_f16(s[i]))
LOOP(f16_bf16, uint16_t, uint16_t, to_bf16(from_f16(s[i])))
#undef LOOP

void fx_convert(void *dst, fx_dtype dst_dtype, const void *src, fx_dtype src_dtype, int64_t n)
{
    typedef void (*loop)(void *restrict, const void *restrict, int64_t);
    static const loop loops[4][4] = {/* [from][to], in the order of fx_dtype */
                                     {NULL, f64_f32, f64_bf16, f64_f16},
                                     {f32_f64, NULL, f32_bf16, f32_f16},
                                     {bf16_f64, bf16_f32, NULL, bf16_f16},
                                     {f16_f64, f16_f32, f16_bf16, NULL}};
    if (n <= 0) return;
    if (dst_dtype == src_dtype)
        memcpy(dst, src, (size_t)n * fx_dtype_size(src_dtype));
    else
        loops[src_dtype][dst_dtype](dst, src, n);
}
