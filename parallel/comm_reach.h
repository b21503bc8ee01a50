/* How the ranks of a communicator reach each other's device memory: the way that was found open (comm_way.h), and memory that it
 * can use. Behind comm_nccl.c. */
#ifndef FX_PARALLEL_COMM_REACH_H
#define FX_PARALLEL_COMM_REACH_H

#include "kernels/ops.h"
#include "parallel/comm_peer.h"
#include "parallel/comm_way.h"
#include "parallel/comm_window.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_open_way {
    fx_peers *peers;             /* NULL: NCCL's transfers */
    fx_windows *windows;         /* through which the peers reach memory; NULL: by CUDA's handles */
    bool kernels;                /* attention's rows go by kernels */
    char text[FX_WAY_TEXT + 32]; /* the way, and why no better one */
} fx_open_way;

/* Collective over host, whose ranks are those of the NCCL communicator. alone: from fx_cards_check. of_all: NULL, or the way of a
 * communicator that these ranks are a part of, and whose memory they use: windows if it has windows, else none. compute, wire:
 * cudaStream_t of ops and of transfers. FX_EDEVICE: what is wanted is not possible here. *out holds what was opened also after a
 * failure. */
fx_status fx_reach_open(fx_comm *host, struct ncclComm *, fx_wire want, bool alone, const fx_open_way *of_all,
                        void *compute, void *wire, fx_open_way *out);
void fx_reach_close(fx_open_way *);
/* Memory that rows may be written into, once it is registered (fx_peers_register). Collective over host; *bytes becomes what is
 * taken: with windows as much on every rank as on the one that needs most. way NULL: one rank. FX_ENOMEM: need and free. */
fx_status fx_reach_take(fx_open_way *way, fx_comm *host, fx_backend *, size_t *bytes, void **out);
void fx_reach_give(fx_open_way *way, fx_backend *, void *data);

#ifdef __cplusplus
}
#endif
#endif
