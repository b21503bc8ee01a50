/* Rows between devices by their copy engines, behind comm_nccl.c: a rank writes straight into the memory of its peer, which it
 * reaches by CUDA's handles (IPC, one node) or through NCCL's windows (comm_window.h), and 32-bit counters in device memory
 * tell when a place is free and when rows are there. No multiprocessor takes part, so products go on at full speed while rows
 * travel. */
#ifndef FX_PARALLEL_COMM_PEER_H
#define FX_PARALLEL_COMM_PEER_H

#include "parallel/comm_window.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_peers fx_peers;

/* Collective on `host`, whose ranks are on one node unless they have windows (borrowed; NULL: none). *out is NULL where a device
 * cannot reach another's memory; why: *reason. compute, wire: the cudaStream_t of this rank's ops and of its transfers. */
fx_status fx_peers_open(fx_comm *host, fx_windows *windows, void *compute, void *wire, fx_peers **out,
                        const char **reason);
void fx_peers_close(fx_peers **);
/* The memory that all transfers of each rank lie in: an allocation's beginning; with windows a block taken there, and any other
 * memory stays unregistered. Collective; before it is freed, forget it: collective too. */
fx_status fx_peers_register(fx_peers *, void *base);
void fx_peers_forget(fx_peers *);
bool fx_peers_ready(const fx_peers *); /* memory is registered */
/* For kernels that write there (kernels/window.h); lives as long as the peers. */
const fx_reach *fx_peers_reach(const fx_peers *);
bool fx_peers_gave_up(const fx_peers *);           /* a kernel's wait took too long */
void fx_peers_late(const fx_peers *, bool late[]); /* marks the ranks that kernels wait or waited for */
/* Puts the transfers with other ranks into the wire stream. The ranks tell each other where on the host, so the peers must
 * come to the same call. slot: whose arrival fx_peers_order waits for. */
fx_status fx_peers_post(fx_peers *, int slot, int sends, const fx_xfer send[], int recvs,
                        const fx_xfer recv[]);
/* The compute stream waits until what the slot receives has arrived. */
fx_status fx_peers_order(fx_peers *, int slot);

#ifdef __cplusplus
}
#endif
#endif
