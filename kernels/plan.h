/* Inside kernels/ only: what the registry knows about the plan backend, and the completeness check of a
 * table. */
#ifndef FX_KERNELS_PLAN_H
#define FX_KERNELS_PLAN_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

const fx_backend *fx_plan_inner(const fx_backend *plan); /* the wrapped backend */
fx_status fx_ops_complete(const fx_ops *);               /* FX_EDEVICE names the first empty slot */

#ifdef __cplusplus
}
#endif
#endif
