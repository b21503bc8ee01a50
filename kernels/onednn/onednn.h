/* The oneDNN backend: the cpu backend with matrix products and convolutions done by the library. For
 * processors that kernels/cpu has no own tiles for, and an independent check of those tiles. Rows do not keep
 * their bits in every split (rows_exact is false). The caller frees the backend with fx_backend_close. */
#ifndef FX_KERNELS_ONEDNN_ONEDNN_H
#define FX_KERNELS_ONEDNN_ONEDNN_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* dtype FX_F32 or FX_BF16; threads >= 1. */
fx_status fx_onednn_open(fx_dtype dtype, int threads, fx_backend **out);
/* "oneDNN 2.6.3, amx_bf16, 2 threads" */
const char *fx_onednn_describe(const fx_backend *be);

#ifdef __cplusplus
}
#endif
#endif
