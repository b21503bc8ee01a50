/* Everything that pictures of one size need, for the sizes that were asked for lately. One picture is made at a time, so all
 * sizes share one block of memory, as large as the largest needs; equal sizes have equal addresses in it, which is why a
 * recorded step (kernels/record.h) can be played again when its size comes back. Collective, with equal sizes on all ranks. */
#ifndef FX_SIZES_H
#define FX_SIZES_H

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

typedef struct fx_sizes {
    const fx_model *model; /* all borrowed */
    fx_backend *be;
    fx_comm *comm;
    const fx_share *share;
    fx_session_options opt; /* its step is that of the open size */
    bool record;            /* steps may be recorded */
    fx_known_size known[FX_SIZES_KEPT];
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

/* Plans the memory for a size, unless it is known. */
fx_status fx_sizes_plan(fx_sizes *, fx_size);
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
