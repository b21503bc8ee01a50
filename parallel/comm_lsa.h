/* What of NCCL's device interface comm_window.c needs (nccl_device.h is C++, so comm_lsa.cu holds it): ranks whose memory this
 * rank's kernels load and store, and where it lies ("LSA", load and store accessible). Results are ncclResult_t. */
#ifndef FX_PARALLEL_COMM_LSA_H
#define FX_PARALLEL_COMM_LSA_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ncclComm;
struct ncclWindow_vidmem;
struct CUstream_st;
typedef struct fx_lsa fx_lsa;

/* As many ranks of the communicator are reached in this way, those of other nodes too where NVLink joins them; 0: NCCL cannot
 * tell. Nothing is set up, no other rank takes part. */
int fx_lsa_team(struct ncclComm *);
/* What it returns at once says whether the communicator maps memory: on all ranks alike, but for their settings. Where it does,
 * the call is collective and goes on in the background: *out must stay until the communicator is ready again, or for ever. */
int fx_lsa_start(struct ncclComm *, fx_lsa **out);
/* Once it is ready: the team is all of `ranks`, numbered alike. */
bool fx_lsa_all(const fx_lsa *, int rank, int ranks);
void fx_lsa_end(struct ncclComm *, fx_lsa **);
/* at[n]: pinned host memory; written in stream order with where this rank's kernels find the window of each rank. A
 * cudaError_t. */
int fx_lsa_addresses(struct ncclWindow_vidmem *, int n, void **at, struct CUstream_st *);

#ifdef __cplusplus
}
#endif
#endif
