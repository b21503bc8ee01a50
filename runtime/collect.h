/* All rows of a row-split tensor on rank 0, for people and for comparisons: --dump and the selftest. A debugging path:
 * it allocates. Collective; mine is contiguous, in the backend's memory; all: host memory on rank 0, NULL elsewhere. */
#ifndef FX_COLLECT_H
#define FX_COLLECT_H

#include "kernels/ops.h"
#include "parallel/comm.h"
#include "parallel/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

/* range[ranks]: which rows of all[rows, ...] each rank has. */
fx_status fx_collect_rows(fx_backend *, fx_comm *, const fx_range range[], fx_tensor mine, void *all);
/* Rows of one segment, or of FX_ALL in joint order (text rows, then image rows). */
fx_status fx_collect_segment(fx_backend *, fx_comm *, const fx_layout *, int segment, fx_tensor mine,
                             void *all);
/* Rows of that tensor over all ranks, and the rank that owns one of them. */
int64_t fx_collect_count(const fx_layout *, int segment);
int fx_collect_owner(const fx_layout *, int segment, int64_t row);

#ifdef __cplusplus
}
#endif
#endif
