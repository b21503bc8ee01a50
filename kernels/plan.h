/* The plan backend: what the registry knows about it, the completeness check of a table, and how to watch the graph that
 * runs on it. */
#ifndef FX_KERNELS_PLAN_H
#define FX_KERNELS_PLAN_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

const fx_backend *fx_plan_inner(const fx_backend *plan); /* the wrapped backend, or NULL */
fx_status fx_ops_complete(const fx_ops *);               /* FX_EDEVICE names the first empty slot */

/* One call of an op: what it would write and read. Absent tensors (ndim 0) are not there; what an op changes in place is in
 * both lists. Views lie in the measuring arena, or are weights (before the load: without data). */
enum { FX_PLAN_WRITES = 9, FX_PLAN_READS = 12 };
typedef struct fx_plan_op {
    const char *name; /* "linear" */
    fx_tensor write[FX_PLAN_WRITES], read[FX_PLAN_READS];
    fx_weight weight; /* n is 0: none */
    const void *scratch;
    size_t scratch_bytes;
    bool host; /* the host waits for it */
} fx_plan_op;

typedef struct fx_plan_watch {
    void (*op)(void *ctx, const fx_plan_op *);
    void (*box)(void *ctx, const char *name); /* what the ops that follow belong to; see fx_plan_box */
    void *ctx;
} fx_plan_watch;

/* Shows every op and box from now on; NULL: to nobody. *watch must live as long. */
void fx_plan_observe(fx_backend *plan, const fx_plan_watch *watch);
/* Shows a call that is no op of the table. */
void fx_plan_tell(const fx_backend *plan, const fx_plan_op *);

#ifdef __cplusplus
}
#endif
#endif
