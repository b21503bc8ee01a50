/* Device memory that all ranks of a communicator reach by load and store, through NCCL's windows: what CUDA's handles are on one
 * node, in one NVLink domain, which may have many nodes. Behind comm_peer.c; the calls of NCCL are in comm_window.c and
 * comm_lsa.cu.
 *
 * A block is taken on all ranks together and is as large on all of them as on the one that needs most: NCCL lays the ranks'
 * memory side by side at equal distances and in equal order. It is mapped once, unmapped by all before one gives it back. After
 * a failure nothing is: the process is about to end. */
#ifndef FX_PARALLEL_COMM_WINDOW_H
#define FX_PARALLEL_COMM_WINDOW_H

#include "parallel/comm_internal.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ncclComm;
typedef struct fx_windows fx_windows;

/* Collective over host, whose ranks are those of the NCCL communicator. *out NULL: there are none, because the team is not all
 * ranks (*team: as many as one NVLink domain holds) or for another reason (*why, else NULL). */
fx_status fx_windows_open(fx_comm *host, struct ncclComm *, fx_windows **out, int *team, const char **why);
void fx_windows_close(fx_windows **);
/* Collective: *bytes becomes what every rank takes. FX_ENOMEM: need and free. */
fx_status fx_windows_take(fx_windows *, size_t *bytes, void **out);
void fx_windows_give(fx_windows *, void *block);
/* A block that another communicator with all these ranks took, to be mapped here too; given back, it stays the other's. */
fx_status fx_windows_lend(fx_windows *, void *block, size_t bytes);
bool fx_windows_took(fx_windows *, const void *block);
/* at[r]: rank r's block as this rank's device reaches it; its own is `block`. Collective. */
fx_status fx_windows_map(fx_windows *, void *block, void **at);
void fx_windows_unmap(fx_windows *, void *block);
/* Appended to NCCL's version in what a build says of itself: "" or ", no windows". */
const char *fx_windows_describe(void);

/* comm_nccl.c: follows a call of NCCL that goes on in the background (result: its ncclResult_t) to its end, with the deadline of
 * the communicator `c`. */
fx_status fx_nccl_follow(const fx_comm *c, struct ncclComm *, int result, const char *what);

#ifdef __cplusplus
}
#endif
#endif
