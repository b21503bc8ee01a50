/* Between the front of a communicator (comm.c: checks, waits, collectives, statistics) and a transport
 * (comm_*.c: moves bytes). Collectives are sets of point-to-point transfers made by the front, so a transport
 * is four small functions and a rank that is late can always be named. */
#ifndef FX_PARALLEL_COMM_INTERNAL_H
#define FX_PARALLEL_COMM_INTERNAL_H

#include "parallel/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { FX_COMM_SLOTS = 64 }; /* tickets that may be pending at once on one communicator */

/* What a communicator and all its splits share. */
typedef struct fx_comm_family {
    int refs;
    char phase[96];
    int phase_length; /* without its part */
    void (*on_phase)(const char *, bool whole);
    int culprit;      /* of the last failed vote, in the root's ranks; -1 none */
    int blamed;       /* the same, of the root or a split */
    double timeout_s; /* <= 0: wait for ever */
    fx_comm_stats stats;
    fx_status failed;              /* sticky: the first failure of any wait or transport call */
    const struct fx_comm_ops *ops; /* of the root, whose transport it is */
    int next_id;                   /* for splits: larger than the id of every communicator this rank is in */
    void *transport;               /* of the root; freed with the last reference */
} fx_comm_family;

typedef struct fx_comm_ops {
    const char *name;
    bool dry; /* moves nothing, data is never touched (plan) */
    /* Starts the transfers with other ranks (never this one; bytes > 0) and files them under `slot`. All
     * receives are posted before the sends. `lane` 0: transfers, 1: collectives; matching is in posting order
     * per peer and lane. */
    fx_status (*post)(fx_comm *, int slot, int lane, int sends, const fx_xfer send[], int recvs,
                      const fx_xfer recv[]);
    /* Moves things on. *left = transfers of the slot that are not complete. */
    fx_status (*test)(fx_comm *, int slot, int *left);
    bool (*gave_up)(const fx_comm *); /* the device has waited in vain; NULL: it never waits by itself */
    /* Marks late[rank of this comm] for each peer the slot still waits for. */
    void (*late)(const fx_comm *, int slot, bool late[]);
    fx_status (*attach)(
        fx_comm *); /* sets up the transport part of a new communicator (comm->id, ->world given) */
    void (*detach)(fx_comm *);
    void (*close)(fx_comm_family *,
                  bool finish); /* the transport of the root; finish: end it for this process */
    void (*abort)(fx_comm_family *, int exit_code); /* may return */
    fx_status (*progress)(fx_comm *);
    /* Memory that is not the host's: a copy of this rank's own rows, in stream order; NULL: memmove. */
    fx_status (*copy)(fx_comm *, void *to, const void *from, size_t bytes);
    /* The same: *left = transfers that have not arrived in fact, where `test` only puts them in order; NULL: test tells; -1:
     * the device has given up waiting, the deadline is over. late() of slot -1 names their peers. */
    fx_status (*drain)(fx_comm *, int *left);
    void (*collective)(fx_comm *, const char *name,
                       size_t bytes); /* dry: one that was called, and is not done */
} fx_comm_ops;

/* What kernels need that write into the other ranks' memory (kernels/window.h); addresses as this rank's kernels use them. */
typedef struct fx_reach {
    char *base, **bases; /* registered memory: this rank's, NULL: none now; [size] */
    uint32_t **counters; /* [size] FX_WINDOW_COUNTERS * size words of each rank */
    uint32_t *state;     /* FX_WINDOW_STATE words of this rank */
    uint32_t *late;      /* [size], readable by the host too */
    void *tables;        /* FX_REACH_TABLES * size bytes of this rank */
} fx_reach;
enum { FX_REACH_TABLES = 256 };

struct fx_comm {
    const fx_comm_ops *ops;
    fx_comm_family *family;
    int rank, size, id;
    bool agreed;       /* a vote on it has failed, so that all its ranks know */
    int *world;        /* [size] rank in the root communicator */
    const char *label; /* of the next transfer, or NULL */
    struct {
        uint32_t generation;
        bool busy;
    } slot[FX_COMM_SLOTS];
    void *transport;       /* per communicator */
    fx_comm *rows;         /* for a device's memory, or NULL */
    const fx_reach *reach; /* attention's rows go by kernels; NULL: by transfers */
    fx_xfer *list;         /* [2 * size] sends and receives of a collective */
    void *scratch;         /* values of a reduction; grows */
    size_t scratch_bytes;
};

/* A root communicator (transport becomes family->transport) or a split of `parent`. Takes world[] when it
 * succeeds. */
fx_status fx_comm_new(const fx_comm_ops *, fx_comm *parent, void *transport, int rank, int size, int id,
                      int *world, fx_comm **out);
fx_status fx_comm_scratch(fx_comm *, size_t bytes, void **out);
fx_status fx_comm_post(fx_comm *, int lane, int sends, const fx_xfer send[], int recvs, const fx_xfer recv[],
                       fx_ticket *out);
/* grace_s: the stop flag is looked at only after so many seconds (a vote must be able to carry the news). */
fx_status fx_comm_wait_grace(fx_comm *, fx_ticket *, double grace_s);

fx_status fx_comm_open_self(double timeout_s, fx_comm **out);
fx_status fx_comm_open_mpi(double timeout_s, fx_comm **out); /* FX_EINVAL when built without MPI */
const char *fx_comm_describe_mpi(void);

#ifdef __cplusplus
}
#endif
#endif
