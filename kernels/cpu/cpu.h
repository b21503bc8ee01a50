/* The CPU backend: own matrix tiles (AMX, AVX-512, AVX2, NEON, portable), OpenMP loops for the rest. The instruction set is
 * chosen at run time; ONEDNN_MAX_CPU_ISA limits it (as in oneDNN; PORTABLE: plain C).
 * The caller frees the backend with fx_backend_close. */
#ifndef FX_KERNELS_CPU_CPU_H
#define FX_KERNELS_CPU_CPU_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* dtype FX_F32 or FX_BF16; threads >= 1 (with 1 no parallel region is ever entered). */
fx_status fx_cpu_open(fx_dtype dtype, int threads, fx_backend **out);
/* Tiles made for this processor (64-bit Arm, or x86 with AVX2 or better), not only the portable loops. */
bool fx_cpu_has_tiles(void);
/* "amx_bf16, 2 threads"; be NULL: without the threads. */
const char *fx_cpu_describe(const fx_backend *be);

#ifdef __cplusplus
}
#endif
#endif
