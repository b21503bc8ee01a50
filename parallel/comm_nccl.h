/* The communicator for rows that lie in a device's memory (comm.h, fx_comm_rows). */
#ifndef FX_PARALLEL_COMM_NCCL_H
#define FX_PARALLEL_COMM_NCCL_H

#include "kernels/ops.h"
#include "parallel/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Gives `comm` its communicator for be's memory; nothing happens where that is the host's. Collective; every rank has
 * voted before, so all of them come. One rank needs no NCCL. be must live until fx_comm_close_rows or fx_comm_close.
 * FX_ECOMM: NCCL failed or a rank did not come within the deadline; FX_EDEVICE: built without NCCL, or two ranks share a
 * device. */
fx_status fx_comm_open_rows(fx_comm *comm, fx_backend *be);
void fx_comm_close_rows(fx_comm *comm);
const char *fx_nccl_describe(void); /* "NCCL 2.28.9" or "none" */

#ifdef __cplusplus
}
#endif
#endif
