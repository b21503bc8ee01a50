/* Plans, memory and sessions by size; called by pipeline.c before each picture, contract in sizes.h. */
#include "runtime/sizes.h"

#include <string.h>

#include "parallel/comm_nccl.h"
#include "runtime/core/clock.h"
#include "runtime/core/log.h"

static void drop_step(const fx_sizes *z, fx_known_size *k)
{
    if (k->step.recording) z->be->recorder->drop(z->be, k->step.recording);
    k->step.recording = NULL;
}

/* The place of a size: its own, an empty one, or that of the size which was not used for the longest time. */
static fx_known_size *place_of(fx_sizes *z, fx_size size)
{
    fx_known_size *oldest = &z->known[0];
    for (int i = 0; i < FX_SIZES_KEPT; i++) {
        fx_known_size *k = &z->known[i];
        if (k->arena_bytes && !memcmp(&k->size, &size, sizeof size)) return k;
        if (k->used < oldest->used) oldest = k;
    }
    return oldest;
}

static void close_session(fx_sizes *z)
{
    if (z->open) fx_session_close(&z->session);
    z->open = false;
    fx_arena_close(&z->arena);
    z->be->arena = NULL;
}

static fx_status plan(fx_sizes *z, fx_size size, fx_known_size **out)
{
    fx_known_size *k = *out = place_of(z, size);
    k->used = ++z->uses;
    if (k->arena_bytes && !memcmp(&k->size, &size, sizeof size)) return FX_OK;
    if (z->open && !memcmp(&k->size, &z->session.size, sizeof size)) close_session(z); /* its record goes */
    drop_step(z, k);
    *k = (fx_known_size){.used = z->uses};
    FX_TRY(fx_session_plan(z->model, z->be, fx_comm_rank(z->comm), fx_comm_size(z->comm), &z->opt, size, NULL,
                           &k->arena_bytes));
    k->size = size;
    /* a device's memory is where pictures fail to fit: said without -v, before any is taken for them */
    fx_log(fx_on_device(z->be) && fx_comm_rank(z->comm) == 0 ? FX_LOG_NOTE : FX_LOG_DETAIL,
           "memory: %.2f GiB of activations planned for %dx%d, beside %.2f GiB of weights",
           (double)k->arena_bytes / 0x1p30, size.width, size.height,
           (double)fx_store_bytes(z->model->store) / 0x1p30);
    return FX_OK;
}

fx_status fx_sizes_plan(fx_sizes *z, fx_size size)
{
    fx_known_size *k;
    return fx_comm_vote(z->comm, plan(z, size, &k), NULL);
}

/* ---- the block ---- */

static void release(fx_sizes *z)
{
    close_session(z);
    for (int i = 0; i < FX_SIZES_KEPT; i++) drop_step(z, &z->known[i]); /* they name addresses in the block */
    fx_comm_give_rows(z->comm, z->be, z->on_device);
    fx_arena_close(&z->pages);
    z->on_device = z->base = NULL;
    z->capacity = 0;
}

/* All ranks of a node take theirs at once: checked together and before any does, so that none is killed for what
 * its neighbour took. */
static fx_status check_room(const fx_sizes *z, size_t bytes)
{
    const char *limit;
    const int local = z->share->local_size > 1 ? z->share->local_size : 1;
    const size_t have = fx_memory_share(local, &limit);
    if (bytes <= have) return FX_OK;
    return FX_FAIL(FX_ENOMEM,
                   "activations need %.2f GiB on each of %d ranks of this node, beside %.2f GiB of weights; "
                   "%.2f GiB are available to each (%s); make the picture smaller or use more nodes",
                   (double)bytes / 0x1p30, local, (double)fx_store_bytes(z->model->store) / 0x1p30,
                   (double)have / 0x1p30, limit);
}

static fx_status take_pages(fx_sizes *z, size_t bytes)
{
    fx_tensor all;
    FX_TRY(fx_arena_open(NULL, bytes, &z->pages));
    FX_TRY(fx_push1(z->pages, FX_U8, (int64_t)bytes, &all));
    z->base = all.data;
    z->capacity = bytes;
    return FX_OK;
}

/* A device's memory is no neighbour's: taking it is the check. */
static fx_status take_on_device(fx_sizes *z, size_t need)
{
    size_t bytes = need;
    FX_TRY(fx_comm_take_rows(z->comm, z->be, &bytes, &z->on_device));
    z->base = z->on_device;
    z->capacity = bytes;
    if (bytes > need)
        fx_log(FX_LOG_DETAIL, "memory: %.2f GiB taken for them, as on the rank that needs most",
               (double)bytes / 0x1p30);
    return FX_OK;
}

/* The largest need among the known sizes, so that sizes that were planned together take the block once. */
static fx_status grow(fx_sizes *z)
{
    size_t bytes = 0;
    for (int i = 0; i < FX_SIZES_KEPT; i++)
        if (z->known[i].arena_bytes > bytes) bytes = z->known[i].arena_bytes;
    release(z);
    if (fx_on_device(z->be)) return take_on_device(z, bytes);
    FX_TRY(fx_comm_vote(z->comm, check_room(z, bytes), NULL));
    return fx_comm_vote(z->comm, take_pages(z, bytes), NULL);
}

fx_status fx_sizes_open(fx_sizes *z, fx_size size)
{
    fx_known_size *k;
    if (z->open && !memcmp(&size, &z->session.size, sizeof size)) return FX_OK;
    close_session(z);
    FX_TRY(fx_comm_vote(z->comm, plan(z, size, &k), NULL));
    int64_t small = k->arena_bytes > z->capacity; /* ranks need different amounts, and take theirs together */
    FX_TRY(fx_comm_all_reduce_i64(z->comm, FX_MAX, &small, 1));
    const fx_status st = small ? grow(z) : FX_OK;
    if (st) memset(z->known, 0, sizeof z->known); /* so that the next request asks for what it needs itself */
    FX_TRY(st);
    FX_TRY(fx_comm_vote(z->comm, fx_arena_open(z->base, k->arena_bytes, &z->arena), NULL));
    z->be->arena = z->arena;
    z->arena_bytes = k->arena_bytes;
    z->opt.step = z->record ? &k->step : NULL;
    z->open = true;
    return fx_comm_vote(z->comm, fx_session_open(z->model, z->be, z->comm, &z->opt, size, &z->session), NULL);
}

void fx_sizes_leave(fx_sizes *z)
{
    close_session(z);
}

void fx_sizes_close(fx_sizes *z)
{
    if (z->be) release(z);
    *z = (fx_sizes){0};
}
