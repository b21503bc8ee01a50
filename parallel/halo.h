/* Pictures split by rows over ranks (the VAE): border rows for convolutions, statistics for group norms,
 * gathers. A slab is rows [begin, begin+count) of a picture whose rows are split by fx_split_even scaled with
 * the resolution: the owner sets the ranges; ranks with empty slabs take part in every call. */
#ifndef FX_PARALLEL_HALO_H
#define FX_PARALLEL_HALO_H

#include "kernels/ops.h"
#include "parallel/comm.h"
#include "parallel/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How the rows of one picture (at one resolution) lie on the ranks. */
typedef struct fx_slabs {
    fx_comm *comm;         /* borrowed */
    const fx_range *range; /* [size of comm], rising; borrowed */
    int64_t rows;          /* all rows */
} fx_slabs;

/* x[top + count + bottom, W, C] holds this rank's rows in the middle; fills `top` rows above and `bottom`
 * rows below from their owners (several owners when slabs are thin) with the neighbours' middle rows; rows
 * outside the picture are set to zero. top, bottom <= 2 and equal on all ranks. Collective. */
fx_status fx_halo_fill(fx_backend *, const fx_slabs *, fx_tensor x, int top, int bottom);

/* Gathers row statistics: mine[count, G, 2] f64 -> all[rows, G, 2] f64 on every rank. Collective. */
fx_status fx_gather_stats(fx_backend *, const fx_slabs *, fx_tensor mine, fx_tensor all);

/* all[rows, ...] on every rank from mine[count, ...] (contiguous, equal inner shape). Collective. */
fx_status fx_gather_rows(fx_backend *, const fx_slabs *, fx_tensor mine, fx_tensor all);

/* Rows move between two splits: x_in[in.range[me].count, ...] -> x_out[out.range[me].count, ...]. Used
 * between the transformer's token rows and the VAE's picture rows. Contiguous. Collective. */
fx_status fx_redistribute(fx_backend *, fx_comm *, const fx_range in[], fx_tensor x_in, const fx_range out[],
                          fx_tensor x_out);

#ifdef __cplusplus
}
#endif
#endif
