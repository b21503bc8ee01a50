/* The one thing the transformer knows about other ranks: put my rows of q, k, v -> attend -> my rows of the
 * output. Hides Ulysses (rows <-> heads), ring (K/V hop round, log-sum-exp merge) and both, and the exact
 * mode.
 *
 *   per block:  put(FX_IMAGE, FX_K|FX_V, ...); put(FX_IMAGE, FX_Q, ...); put(FX_TEXT, FX_K|FX_V, ...); ...
 *               attend();  [independent work];  collect(FX_TEXT); ... collect(FX_ALL)
 * Transfers begin at once, so K and V move while Q is computed, and the image's Q while the text's is; a kernel (window.c)
 * brings all rows of a block when the last of them was put. */
#ifndef FX_PARALLEL_EXCHANGE_H
#define FX_PARALLEL_EXCHANGE_H

#include "kernels/ops.h"
#include "parallel/comm.h"
#include "parallel/layout.h"
#include "parallel/mesh.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { FX_Q = 1, FX_K = 2, FX_V = 4 };
typedef enum { FX_EXACT_AUTO, FX_EXACT_ON, FX_EXACT_OFF } fx_exact;
typedef struct fx_exchange fx_exchange;

typedef struct fx_exchange_options {
    fx_mesh mesh;
    fx_exact exact; /* auto and on: K/V of all ring members gathered, keys in joint order; off: K/V hop,
                       partial results merge */
    int heads, head_dim;
    float qk_eps;    /* 1e-6 */
    bool by_kernels; /* while planning: rows would go by kernels (parallel/window.c) */
    fx_tensor
        output; /* [T_local, H*D] backend dtype in be->arena, the same row stride on all ranks: where the output comes in
                         every block. This rank's rows: text, image, condition */
} fx_exchange_options;

/* For the options while planning: by_kernels of a backend and communicator that are there. */
bool fx_exchange_kernels(const fx_backend *, fx_comm *);
/* Takes its buffers from be->arena now (they live as long as the exchange: open it below the per-block mark).
 * `layout` and `comm` (size = mesh.ranks; a plan comm while measuring) are borrowed. Close before rewinding
 * the arena. */
fx_status fx_exchange_open(fx_backend *, fx_comm *, const fx_layout *, const fx_exchange_options *,
                           fx_exchange **out);
void fx_exchange_close(fx_exchange **);
bool fx_exchange_exact(const fx_exchange *); /* bytes equal those of one rank */
bool fx_exchange_repeats(
    const fx_exchange *); /* a block takes no message of the host: what runs on the device can be recorded */
/* Whether rows travel while their rank computes on: then K and V should leave before Q is computed, and what does not depend on
 * attention be left for while rows come. Else (one rank, or kernels that bring all rows at once) work in two goes only costs. */
bool fx_exchange_hides(const fx_exchange *);
/* Where the rows of Q, of K and V together, or of all three may be computed so that put has nothing to move: [T_local(seg),
 * n*H*D], dtype, row stride that or larger. Absent where rows go to other ranks: then they are computed into memory of the
 * caller. */
fx_tensor fx_exchange_place(const fx_exchange *, int seg, unsigned parts);
/* Before a block's first put: the caller computes something between its last put and attend, long enough to hide the rows. They
 * may then take longer (by copy engines, if they go by kernels otherwise). Each rank for itself. */
void fx_exchange_beside(fx_exchange *);
/* t[T_local(seg), n*H*D], n = number of parts, columns in the order q | k | v of the parts given; backend
 * dtype. seg FX_ALL: t holds all local rows. Each part of each segment once per block, in any order. w_q,
 * w_k[D]: RMS-norm weights (absent: none; ignored for V; all segments have one or none); cs[T_local(seg), D/2, 2] f32 rotation
 * of these rows. t and cs stay as they are until attend returns. All ranks put the same parts of the same segments in
 * the same order, also those of which a rank has no rows: transfers between two ranks match in posting order. A segment that
 * no rank has rows of may be left out. */
fx_status fx_exchange_put(fx_exchange *, int seg, unsigned parts, fx_tensor t, fx_tensor w_q, fx_tensor w_k,
                          fx_tensor cs);
/* apart: the output of each segment travels by itself, and is collected by itself in any order; the same on all ranks. */
fx_status fx_exchange_attend(fx_exchange *, bool apart);
/* Brings the rows of one segment or of all that were not collected yet (FX_ALL), which also ends the block. They stay until the
 * first put of the next one. */
fx_status fx_exchange_collect(fx_exchange *, int seg);

#ifdef __cplusplus
}
#endif
#endif
