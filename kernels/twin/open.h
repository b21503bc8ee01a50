/* Opens backend "twin": the CUDA kernels on the CPU, for tests. dtype FX_F32 or FX_BF16. Built with the tests. */
#ifndef FX_KERNELS_TWIN_OPEN_H
#define FX_KERNELS_TWIN_OPEN_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

fx_status fx_twin_open(fx_dtype dtype, int threads, fx_backend **out);

#ifdef __cplusplus
}
#endif
#endif
