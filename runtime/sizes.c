/* Plans, memory and sessions by size; called by pipeline.c before each picture, contract in sizes.h. */
#include "runtime/sizes.h"

#include <string.h>

#include "parallel/comm_nccl.h"
#include "parallel/exchange.h"
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
    fx_known_size *oldest = &z->now->known[0];
    for (int i = 0; i < FX_SIZES_KEPT; i++) {
        fx_known_size *k = &z->now->known[i];
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

void fx_sizes_select(fx_sizes *z, fx_team *team)
{
    if (z->now != team) close_session(z);
    z->now = team;
    z->opt.mesh = team->mesh;
}

static fx_status plan(fx_sizes *z, fx_size size, fx_known_size **out)
{
    fx_comm *comm = z->now->comm;
    fx_known_size *k = *out = place_of(z, size);
    k->used = ++z->uses;
    if (k->arena_bytes && !memcmp(&k->size, &size, sizeof size)) return FX_OK;
    if (z->open && !memcmp(&k->size, &z->session.size, sizeof size)) close_session(z); /* its record goes */
    drop_step(z, k);
    *k = (fx_known_size){.used = z->uses};
    z->opt.by_kernels = fx_exchange_kernels(z->be, comm); /* another graph, with other products */
    FX_TRY(fx_session_plan(z->model, z->be, fx_comm_rank(comm), fx_comm_size(comm), &z->opt, size, NULL,
                           &k->arena_bytes));
    k->size = size;
    /* a device's memory is where pictures fail to fit: said without -v, before any is taken for them */
    fx_log(fx_on_device(z->be) && fx_comm_rank(z->whole) == 0 ? FX_LOG_NOTE : FX_LOG_DETAIL,
           "memory: %.2f GiB of activations planned for %dx%d, beside %.2f GiB of weights",
           (double)k->arena_bytes / 0x1p30, size.width, size.height,
           (double)fx_store_bytes(z->model->store) / 0x1p30);
    return FX_OK;
}

/* ---- the block ---- */

static void release(fx_sizes *z)
{
    close_session(z);
    for (int t = 0; t < z->teams; t++)
        for (int i = 0; i < FX_SIZES_KEPT; i++)
            drop_step(z, &z->team[t].known[i]); /* they name addresses in the block */
    for (int t = 1; t < z->teams && z->on_device; t++) fx_comm_unshare_rows(z->team[t].comm, z->on_device);
    fx_comm_give_rows(z->whole, z->be, z->on_device);
    fx_arena_close(&z->pages);
    z->on_device = z->base = NULL;
    z->capacity = 0;
}

static int ranks_of_node(const fx_sizes *z)
{
    return z->share->local_size > 1 ? z->share->local_size : 1;
}

/* All ranks of a node take theirs at once: checked together and before any does, so that none is killed for what
 * its neighbour took. */
static fx_status check_room(const fx_sizes *z, size_t bytes)
{
    const char *limit;
    const int local = ranks_of_node(z);
    const size_t have = fx_memory_share(local, &limit);
    if (bytes <= have) return FX_OK;
    return FX_FAIL(FX_ENOMEM,
                   "activations need %.2f GiB on each of %d ranks of this node, beside %.2f GiB of weights; "
                   "%.2f GiB are available to each (%s); make the picture smaller or use more nodes",
                   (double)bytes / 0x1p30, local, (double)fx_store_bytes(z->model->store) / 0x1p30,
                   (double)have / 0x1p30, limit);
}

/* The same while the weights, one copy per node, are still to come. An address space is of one rank. */
static fx_status check_beside_weights(const fx_sizes *z, size_t bytes)
{
    const char *limit;
    const int local = ranks_of_node(z);
    const size_t have = fx_memory_available(&limit), weights = fx_store_bytes(z->model->store);
    const bool of_rank = have == fx_memory_rooms("").space;
    if (weights + bytes * (size_t)(of_rank ? 1 : local) <= have) return FX_OK;
    return FX_FAIL(FX_ENOMEM,
                   "weights need %.2f GiB on this node, and activations need %.2f GiB on each of %d ranks of "
                   "it; %.2f GiB are available (%s); make the picture smaller or use more nodes",
                   (double)weights / 0x1p30, (double)bytes / 0x1p30, local, (double)have / 0x1p30, limit);
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
    FX_TRY(fx_comm_take_rows(z->whole, z->be, &bytes, &z->on_device));
    for (int t = 1; t < z->teams; t++) FX_TRY(fx_comm_share_rows(z->team[t].comm, z->on_device, bytes));
    z->base = z->on_device;
    z->capacity = bytes;
    if (bytes > need)
        fx_log(FX_LOG_DETAIL, "memory: %.2f GiB taken for them, as on the rank that needs most",
               (double)bytes / 0x1p30);
    return FX_OK;
}

/* bytes, or the largest need among the known sizes, so that sizes that were planned together take the block once. */
static size_t largest(const fx_sizes *z, size_t bytes)
{
    for (int t = 0; t < z->teams; t++)
        for (int i = 0; i < FX_SIZES_KEPT; i++)
            if (z->team[t].known[i].arena_bytes > bytes) bytes = z->team[t].known[i].arena_bytes;
    return bytes;
}

/* Other ranks than the team's write into a device's block as well. */
static fx_status check_alone(const fx_sizes *z, const fx_comm *comm, size_t bytes)
{
    if (!fx_on_device(z->be) || z->teams == 1 || comm == z->whole) return FX_OK;
    return FX_FAIL(
        FX_ENOMEM,
        "a picture needs %.2f GiB on the device and %.2f GiB were taken for all groups; memory that "
        "ranks of other groups reach cannot grow in one group; name its size with --warmup",
        (double)bytes / 0x1p30, (double)z->capacity / 0x1p30);
}

/* Collective over comm: where one of its ranks has too little, all take the block anew, each as much as it needs. */
static fx_status grow(fx_sizes *z, fx_comm *comm, size_t need)
{
    int64_t small = need > z->capacity;
    FX_TRY(fx_comm_all_reduce_i64(comm, FX_MAX, &small, 1));
    if (!small) return FX_OK;
    FX_TRY(fx_comm_vote(comm, check_alone(z, comm, need), NULL));
    const size_t bytes = largest(z, need);
    release(z);
    if (fx_on_device(z->be)) return take_on_device(z, bytes);
    FX_TRY(fx_comm_vote(comm, check_room(z, bytes), NULL));
    return fx_comm_vote(comm, take_pages(z, bytes), NULL);
}

/* After a failure the next request asks for what it needs itself. */
static fx_status forget_after(fx_sizes *z, fx_status st)
{
    for (int t = 0; st && t < z->teams; t++) memset(z->team[t].known, 0, sizeof z->team[t].known);
    return st;
}

/* On this rank: the most that a size needs in any team. */
static fx_status plan_all(fx_sizes *z, const fx_size size[], int n, size_t *bytes)
{
    fx_team *const now = z->now;
    fx_known_size *k;
    fx_status st = FX_OK;
    for (int t = 0; t < z->teams; t++) {
        fx_sizes_select(z, &z->team[t]);
        for (int i = 0; !st && i < n; i++) {
            st = plan(z, size[i], &k);
            if (!st && k->arena_bytes > *bytes) *bytes = k->arena_bytes;
        }
    }
    fx_sizes_select(z, now);
    return st;
}

fx_status fx_sizes_check(fx_sizes *z, fx_size size)
{
    fx_known_size *k;
    if (fx_on_device(z->be)) return FX_OK;
    FX_TRY(fx_comm_vote(z->whole, plan(z, size, &k), NULL));
    return fx_comm_vote(z->whole, check_beside_weights(z, k->arena_bytes), NULL);
}

fx_status fx_sizes_reserve(fx_sizes *z, const fx_size size[], int n)
{
    size_t bytes = 0;
    FX_TRY(fx_comm_vote(z->whole, plan_all(z, size, n, &bytes), NULL));
    return forget_after(z, grow(z, z->whole, bytes));
}

fx_status fx_sizes_open(fx_sizes *z, fx_size size)
{
    fx_known_size *k;
    if (z->open && !memcmp(&size, &z->session.size, sizeof size)) return FX_OK;
    close_session(z);
    fx_comm *comm = z->now->comm;
    FX_TRY(fx_comm_vote(comm, plan(z, size, &k), NULL));
    FX_TRY(forget_after(z, grow(z, comm, k->arena_bytes)));
    FX_TRY(fx_comm_vote(comm, fx_arena_open(z->base, k->arena_bytes, &z->arena), NULL));
    z->be->arena = z->arena;
    z->arena_bytes = k->arena_bytes;
    z->opt.step = z->record ? &k->step : NULL;
    z->open = true;
    return fx_comm_vote(comm, fx_session_open(z->model, z->be, comm, &z->opt, size, &z->session), NULL);
}

void fx_sizes_leave(fx_sizes *z)
{
    close_session(z);
}

void fx_sizes_close(fx_sizes *z)
{
    if (z->be && z->now) release(z);
    for (int t = 0; t < z->teams; t++) memset(z->team[t].known, 0, sizeof z->team[t].known);
}
