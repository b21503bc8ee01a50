/* One loop, three compilations: FX_MULTI(name, params, args) makes `static void name params`, which runs the
 * inline function name##_any compiled for AVX-512, AVX2 or the base instruction set. Loops over plain C give
 * the same bits in all three (no contraction, reductions over explicit lanes). */
#ifndef FX_KERNELS_CPU_MULTI_H
#define FX_KERNELS_CPU_MULTI_H

#include "kernels/cpu/internal.h"

#define FX_INLINE static inline __attribute__((always_inline, unused))

#if FX_X86
#define FX_MULTI(name, params, args)                                                                         \
    FX_TARGET_AVX512 static void name##_avx512 params                                                        \
    {                                                                                                        \
        name##_any args;                                                                                     \
    }                                                                                                        \
    FX_TARGET_AVX2 static void name##_avx2 params                                                            \
    {                                                                                                        \
        name##_any args;                                                                                     \
    }                                                                                                        \
    static void name##_base params                                                                           \
    {                                                                                                        \
        name##_any args;                                                                                     \
    }                                                                                                        \
    static void name params                                                                                  \
    {                                                                                                        \
        const fx_cpu_isa isa = fx_cpu_isa_level();                                                           \
        if (isa >= FX_ISA_AVX512)                                                                            \
            name##_avx512 args;                                                                              \
        else if (isa >= FX_ISA_AVX2)                                                                         \
            name##_avx2 args;                                                                                \
        else                                                                                                 \
            name##_base args;                                                                                \
    }
#else
#define FX_MULTI(name, params, args)                                                                         \
    static void name params                                                                                  \
    {                                                                                                        \
        name##_any args;                                                                                     \
    }
#endif

/* Elements of f32 or bf16 rows; dtype is a constant where these are inlined. */
#include "kernels/rowfn.h"

FX_INLINE float fx_load(const void *p, int64_t i, fx_dtype dtype)
{
    return dtype == FX_F32 ? ((const float *)p)[i] : fx_widen_bf16(((const uint16_t *)p)[i]);
}

FX_INLINE void fx_store(void *p, int64_t i, fx_dtype dtype, float value)
{
    if (dtype == FX_F32)
        ((float *)p)[i] = value;
    else
        ((uint16_t *)p)[i] = fx_round_bf16(value);
}

static inline const void *fx_at(fx_tensor t, int64_t offset)
{
    return (const char *)t.data + offset * (int64_t)fx_dtype_size(t.dtype);
}

static inline void *fx_at_mut(fx_tensor t, int64_t offset)
{
    return (char *)t.data + offset * (int64_t)fx_dtype_size(t.dtype);
}

/* Sum of 16 lanes in a fixed order. */
FX_INLINE float fx_sum16(const float lane[16])
{
    float s[8];
    for (int i = 0; i < 8; i++) s[i] = lane[i] + lane[i + 8];
    for (int i = 0; i < 4; i++) s[i] += s[i + 4];
    return (s[0] + s[2]) + (s[1] + s[3]);
}

#endif
