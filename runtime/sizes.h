/* Everything that pictures of one size need, for the sizes that were asked for lately. One picture is made at a time, so all
 * sizes share one block of memory, as large as the largest needs; equal sizes have equal addresses in it, which is why a
 * recorded step (kernels/record.h) can be played again when its size comes back. Collective over the team that makes the
 * picture, with equal sizes on all of its ranks.
 *
 * A rank is in several teams, one of each width, and makes a picture with one at a time: they share the block too. */
#ifndef FX_SIZES_H
#define FX_SIZES_H

#include "parallel/groups.h"
#include "parallel/node_share.h"
#include "runtime/session.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { FX_SIZES_KEPT = FX_WARM_MOST };

typedef struct fx_known_size {
    fx_size size;
    size_t arena_bytes; /* planned; 0: an empty place */
    fx_step_record step;
    uint64_t used; /* when, counted in uses */
} fx_known_size;

/* Ranks that make a picture together. */
typedef struct fx_team {
    int groups; /* it is one of so many */
    fx_comm *comm;
    fx_mesh mesh;
    fx_known_size known[FX_SIZES_KEPT];
} fx_team;

typedef struct fx_sizes {
    const fx_model *model; /* all borrowed, the teams' communicators too */
    fx_backend *be;
    fx_comm *whole; /* of all ranks: that of team 0 */
    const fx_share *share;
    fx_session_options opt;         /* its step is that of the open size, its mesh that of the team */
    bool record;                    /* steps may be recorded */
    fx_team team[FX_GROUPS_WIDTHS]; /* the first is all ranks */
    int teams;
    fx_team *now; /* the one that makes pictures */
    uint64_t uses;
    fx_arena *pages; /* the block in host memory, or */
    void *on_device; /* on the device */
    void *base;      /* of the block, wherever it is */
    size_t capacity; /* bytes of it */
    fx_arena *arena; /* of the open size, over it */
    size_t arena_bytes;
    fx_session session;
    bool open;
} fx_sizes;

/* From now on pictures are made by this one of the teams. */
void fx_sizes_select(fx_sizes *, fx_team *);
/* Collective over all ranks, before weights are loaded: FX_ENOMEM when a picture of this size does not fit beside them in the
 * host's memory. Nothing is taken; a device's memory is not looked at. */
fx_status fx_sizes_check(fx_sizes *, fx_size);
/* Collective over all ranks: plans these sizes for every team and takes memory for the largest. On a device, where other ranks
 * reach the block, a team of several cannot take more later. */
fx_status fx_sizes_reserve(fx_sizes *, const fx_size[], int n);
/* Opens the buffers of a size: plans, takes memory where the block is too small. Nothing is allocated in the step loop after
 * this. FX_ENOMEM: need and have. */
fx_status fx_sizes_open(fx_sizes *, fx_size);
/* After a failure in the middle of a picture, whose buffers are still taken: the next fx_sizes_open begins afresh. */
void fx_sizes_leave(fx_sizes *);
void fx_sizes_close(fx_sizes *);

#ifdef __cplusplus
}
#endif
#endif
