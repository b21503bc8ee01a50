/* The devices of a communicator's ranks: do they fit together, and are they on one node? Private to the transports of device
 * memory. */
#ifndef FX_PARALLEL_COMM_CARDS_H
#define FX_PARALLEL_COMM_CARDS_H

#include "parallel/comm_internal.h"

#ifdef __cplusplus
extern "C" {
#endif

/* FX_EDEVICE, with CUDA's text, for any cudaError_t but success. */
fx_status fx_cuda_status(int error, const char *what);
/* Collective, the same answer on all ranks: do they fit together (comm_fit.h)? */
fx_status fx_cards_check(fx_comm *, bool *alone);
/* Collective, the same answer on all ranks: one running system, within which CUDA's handles of memory (IPC) have a meaning. */
fx_status fx_cards_one_node(fx_comm *, bool *one);

#ifdef __cplusplus
}
#endif
#endif
