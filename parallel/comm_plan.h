/* What a plan communicator would do: transfers, waits and collectives, in the order of the calls. */
#ifndef FX_PARALLEL_COMM_PLAN_H
#define FX_PARALLEL_COMM_PLAN_H

#include "parallel/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_comm_watch {
    /* Transfers with other ranks that begin (none is empty); ticket: 1, 2, ... of this communicator. label: fx_comm_label or
     * "rows". The buffers are in use until the wait for the ticket. */
    void (*post)(void *ctx, int ticket, const char *label, int sends, const fx_xfer send[], int recvs,
                 const fx_xfer recv[]);
    void (*wait)(void *ctx, int ticket, const char *label);
    /* Rows that this rank sends to itself: a copy, in the order of the ops. */
    void (*copy)(void *ctx, void *to, const void *from, size_t bytes);
    /* Kernels of this rank store so many bytes into another rank's memory; n > 0: its copy engines do, from n places that they
     * read until the join / what follows comes after that rank's stores into these places (n of them; none: not told). */
    void (*store)(void *ctx, const char *label, int peer, size_t bytes, int n, const fx_xfer from[]);
    void (*join)(void *ctx, const char *label); /* what follows comes after all copies of this rank so far */
    void (*await)(void *ctx, const char *label, int peer, size_t bytes, int n, const fx_xfer place[]);
    /* A collective of host data, or "settle" (bytes 0): the host waits for it. */
    void (*host)(void *ctx, const char *name, size_t bytes);
    void *ctx;
} fx_comm_watch;

/* Shows everything from now on; NULL: to nobody. *watch must live as long. Plan communicators only. */
void fx_comm_observe(fx_comm *plan, const fx_comm_watch *watch);
void fx_comm_plan_store(const fx_comm *plan, const char *label, int peer, size_t bytes, int n,
                        const fx_xfer from[]);
void fx_comm_plan_join(const fx_comm *plan, const char *label);
void fx_comm_plan_await(const fx_comm *plan, const char *label, int peer, size_t bytes, int n,
                        const fx_xfer place[]);

#ifdef __cplusplus
}
#endif
#endif
