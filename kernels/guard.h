/* Inside kernels/ and for tests: the backend that watches another one at work (guard.c). */
#ifndef FX_KERNELS_GUARD_H
#define FX_KERNELS_GUARD_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Same dtypes and numbers as inner, which it closes with itself (on an error inner stays the caller's). */
fx_status fx_backend_guard(fx_backend *inner, fx_backend **out);
bool fx_guarding(const fx_backend *);
const char *fx_guard_describe(const fx_backend *guard); /* "every op of cpu is watched: avx2, 2 threads" */

#ifdef __cplusplus
}
#endif
#endif
