/* The reference backend: f64 plain loops, the oracle of every other backend (dtype = stream = f64; vector
 * parameters stay f32). Clarity before speed. The caller frees the backend with fx_backend_close. */
#ifndef FX_KERNELS_REF_REF_H
#define FX_KERNELS_REF_REF_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

fx_status fx_ref_open(int threads, fx_backend **out);

#ifdef __cplusplus
}
#endif
#endif
