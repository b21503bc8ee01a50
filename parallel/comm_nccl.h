/* The communicator for rows that lie in a device's memory (comm.h, fx_comm_rows). */
#ifndef FX_PARALLEL_COMM_NCCL_H
#define FX_PARALLEL_COMM_NCCL_H

#include "kernels/ops.h"
#include "parallel/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Gives `comm` its communicator for be's memory, over the wire that is wanted; nothing happens where that memory is the
 * host's. Collective; every rank has voted before, so all of them come. One rank needs no NCCL. be must live until
 * fx_comm_close_rows or fx_comm_close. FX_ECOMM: NCCL failed or a rank did not come within the deadline; FX_EDEVICE: built
 * without NCCL, two ranks share a device, or what was named is not possible. */
fx_status fx_comm_open_rows(fx_comm *comm, fx_backend *be, fx_wire want);
/* The same for some ranks of `whole`, which has its own. Their way is decided anew, but memory is that of whole's
 * (fx_comm_take_rows): windows where whole has them, else CUDA's handles or NCCL. Collective over comm. */
fx_status fx_comm_open_team_rows(fx_comm *comm, fx_backend *be, fx_wire want, const fx_comm *whole);
/* "peer copies", "peer stores", both also with "NCCL windows", or "NCCL" and why it is not one of these; "" where rows are in
 * host memory or there is one rank. Lives as long as the rows' communicator. */
const char *fx_comm_rows_text(const fx_comm *comm);
void fx_comm_close_rows(fx_comm *comm);
/* The device memory, from its allocation's beginning, that all transfers of this rank lie in: on one node they then go by
 * the copy engines (comm_peer.h). Nothing happens without a communicator of fx_comm_open_rows, or where ranks reach only what
 * fx_comm_take_rows took. Collective, and so is forgetting, which comes before the memory is freed. */
fx_status fx_comm_register_rows(fx_comm *comm, void *base);
void fx_comm_forget_rows(fx_comm *comm);
/* Device memory of the backend that the other ranks can reach if any can be, registered. Collective; *bytes is at least what was
 * asked for, and what is taken: NCCL's windows (comm_window.h) are as large on every rank as on the one that needs most.
 * FX_ENOMEM: need and free. */
fx_status fx_comm_take_rows(fx_comm *comm, fx_backend *, size_t *bytes, void **out);
void fx_comm_give_rows(fx_comm *comm, fx_backend *, void *data); /* collective; NULL: nothing */
/* What was taken for all ranks, for some of them too, over their own communicator. Collective over comm, and so is the end,
 * which comes before it is given back. */
fx_status fx_comm_share_rows(fx_comm *comm, void *base, size_t bytes);
void fx_comm_unshare_rows(fx_comm *comm, void *base);
const char *fx_nccl_describe(void); /* "NCCL 2.28.9", "NCCL 2.27.7, no windows" or "no NCCL" */

#ifdef __cplusplus
}
#endif
#endif
