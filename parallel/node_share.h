/* Memory shared by the ranks of one node, for weights: memfd opened through /proc by the node's other ranks
 * (no file left, no /dev/shm limit); where that is not possible (separate pid namespaces) each rank gets its
 * own pages and the bytes are loaded by each of them. */
#ifndef FX_PARALLEL_NODE_SHARE_H
#define FX_PARALLEL_NODE_SHARE_H

#include "parallel/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How ranks of a node share memory; or all zero for a process alone. */
typedef struct fx_share {
    int local_rank, local_size;                              /* among the ranks that share */
    fx_status (*alloc)(void *ctx, size_t bytes, void **out); /* collective; same pages on all local ranks */
    void (*release)(void *ctx, void *base, size_t bytes);
    fx_status (*barrier)(void *ctx, fx_status mine); /* returns the worst status of all; orders memory */
    void *ctx;
} fx_share;

/* Collective over comm. Splits it by host. out->ctx is owned by the share. */
fx_status fx_node_share_open(fx_comm *, fx_share *out);
void fx_node_share_close(fx_share *);
/* Ranks of this node and this rank's number among them. */
fx_status fx_node_ranks(fx_comm *, int *local_rank, int *local_size, int *nodes);

#ifdef __cplusplus
}
#endif
#endif
