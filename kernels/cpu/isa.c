/* Which instruction set this process computes with: the processor's best, limited by ONEDNN_MAX_CPU_ISA (the
 * variable oneDNN reads, so that one setting limits both) and by what the operating system grants (AMX tile
 * registers). */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/internal.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const char *fx_cpu_isa_name(fx_cpu_isa isa)
{
    static const char *const names[] = {"portable", "neon", "avx2", "avx512", "avx512_bf16", "amx_bf16"};
    return names[isa];
}

static fx_cpu_isa isa_limit(void)
{
    static const struct {
        const char *name;
        fx_cpu_isa isa;
    } limits[] = {
        {"PORTABLE", FX_ISA_BASE}, /* not a word of oneDNN's, which ignores it: for any processor */
        {"SSE41", FX_ISA_BASE},
        {"AVX", FX_ISA_BASE},
        {"AVX2", FX_ISA_AVX2},
        {"AVX2_VNNI", FX_ISA_AVX2},
        {"AVX2_VNNI_2", FX_ISA_AVX2},
        {"AVX512_MIC", FX_ISA_AVX2},
        {"AVX512_CORE", FX_ISA_AVX512},
        {"AVX512_CORE_VNNI", FX_ISA_AVX512},
        {"AVX512_CORE_BF16", FX_ISA_BF16},
        {"AVX512_CORE_FP16", FX_ISA_BF16},
        {"AVX10_1_512", FX_ISA_BF16},
    };
    const char *value = getenv("ONEDNN_MAX_CPU_ISA");
    if (!value || !*value) value = getenv("DNNL_MAX_CPU_ISA");
    for (size_t i = 0; value && i < sizeof limits / sizeof *limits; i++)
        if (!strcasecmp(value, limits[i].name)) return limits[i].isa;
    return FX_ISA_AMX;
}

static fx_cpu_isa isa_of_processor(void)
{
#if FX_X86
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return FX_ISA_BASE;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
        return FX_ISA_AVX2;
    if (!__builtin_cpu_supports("avx512bf16")) return FX_ISA_AVX512;
    return FX_ISA_AMX;
#else
    return FX_NEON ? FX_ISA_NEON : FX_ISA_BASE;
#endif
}

static fx_cpu_isa find_isa(void)
{
    const fx_cpu_isa limit = isa_limit(), have = isa_of_processor();
    const fx_cpu_isa isa = have < limit ? have : limit;
#if FX_X86
    if (isa == FX_ISA_AMX && !fx_cpu_amx_permitted()) return FX_ISA_BF16;
#endif
    return isa;
}

fx_cpu_isa fx_cpu_isa_level(void)
{
    static atomic_int known = -1; /* racing threads find the same value */
    int isa = atomic_load_explicit(&known, memory_order_relaxed);
    if (isa < 0) {
        isa = (int)find_isa();
        atomic_store_explicit(&known, isa, memory_order_relaxed);
    }
    return (fx_cpu_isa)isa;
}

bool fx_cpu_has_tiles(void)
{
    return fx_cpu_isa_level() > FX_ISA_BASE;
}
