/* The weight store: one block of packed weights per node. Modules declare (shapes checked at once, no memory
 * taken); the load gives every item an offset, takes the block, and each rank of the node fills its share of the
 * items: read rows, convert, pack. Between checkpoint files and every op that takes a weight. */
#include "parallel/store_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "runtime/core/clock.h"

enum { SPLIT_BYTES = 1 << 20 }; /* below a MiB a second thread costs more than it saves */

typedef fx_store_item item;
typedef fx_store_piece piece;

static double gib(size_t bytes)
{
    return (double)bytes / (1024.0 * 1024.0 * 1024.0);
}

fx_status fx_store_open(fx_backend *be, const fx_share *share, fx_store **out)
{
    fx_store *s = calloc(1, sizeof *s);
    *out = s;
    FX_CHECK(s, FX_ENOMEM, "no memory for the weight store");
    s->be = be;
    s->share.local_size = 1;
    s->half = 64 << 20;
    s->chunk = 16 << 20;
    if (share && share->alloc) {
        s->share = *share;
        s->shared = true;
    }
    return FX_OK;
}

static void release_block(fx_store *s)
{
    if (s->block && s->shared)
        s->share.release(s->share.ctx, s->block, s->total);
    else if (s->block)
        munmap(s->block, s->total);
    s->block = NULL;
}

void fx_store_close(fx_store **out)
{
    fx_store *s = *out;
    *out = NULL;
    if (!s) return;
    release_block(s);
    if (s->device) fx_device_free(s->be, s->device);
    free(s->items);
    free(s);
}

bool fx_store_plain_rows(const fx_store *s)
{
    return s->be->plain_rows;
}

size_t fx_store_bytes(const fx_store *s)
{
    return s->total;
}
double fx_store_parameters(const fx_store *s)
{
    double n = 0;
    for (int i = 0; i < s->count; i++)
        n += (double)(s->items[i].row_major_bytes / fx_dtype_size(s->items[i].dtype));
    return n;
}
size_t fx_store_bytes_read(const fx_store *s)
{
    return __atomic_load_n(&s->bytes_read, __ATOMIC_RELAXED);
}

/* ---- load ---- */

int fx_store_owner(const fx_store *s, const item *it, int ranks)
{
    const double middle = (double)it->offset + 0.5 * (double)it->bytes;
    const int r = (int)(middle * ranks / (double)s->total);
    return r < ranks ? r : ranks - 1;
}

size_t fx_store_row_bytes(const item *it)
{
    return it->row_major_bytes / (size_t)(it->tensor ? it->tensor->shape[0] : it->weight->n);
}

static fx_status check_memory(const fx_store *s, size_t staging)
{
    const char *limit;
    const size_t have = fx_memory_available(&limit), need = s->total + staging * (size_t)s->share.local_size;
    FX_CHECK(
        need <= have, FX_ENOMEM,
        "weights need %.2f GiB on this node; %.2f GiB are available (%s); use more nodes or a smaller model",
        gib(need), gib(have), limit);
    return FX_OK;
}

static fx_status map_bytes(size_t bytes, char **out)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    FX_CHECK(p != MAP_FAILED, FX_ENOMEM, "weights need %.2f GiB; mmap: %s", gib(bytes), strerror(errno));
    (void)madvise(p, bytes, MADV_HUGEPAGE);
    *out = p;
    return FX_OK;
}

/* One rank's word about itself, and all ranks' worst. */
static fx_status agree(const fx_store *s, fx_status mine)
{
    return s->shared ? s->share.barrier(s->share.ctx, mine) : mine;
}

/* First failure of a parallel loop; messages are kept per thread, so it is carried over by hand. */
typedef struct failure {
    fx_status status;
    char message[1024];
} failure;

static void note_failure(failure *f, fx_status st)
{
#pragma omp critical(fx_store_failure)
    if (f->status == FX_OK) {
        f->status = st;
        snprintf(f->message, sizeof f->message, "%s", fx_error());
    }
}

/* Split over the backend's threads: conversion and generation are the slow part, and several reads at once are what fast
 * disks want. */
fx_status fx_store_read_rows(fx_store *s, const item *it, const piece *p, int64_t begin, int64_t count,
                             char *dst)
{
    const size_t row_bytes = fx_store_row_bytes(it);
    const int64_t most = (int64_t)((size_t)count * row_bytes / SPLIT_BYTES) + 1;
    const int64_t tasks = s->be->threads < most ? (s->be->threads > 1 ? s->be->threads : 1) : most;
    failure failed = {FX_OK, ""};
#pragma omp parallel for num_threads((int)tasks) if (tasks > 1)
    for (int64_t i = 0; i < tasks; i++) {
        const int64_t from = count * i / tasks, to = count * (i + 1) / tasks;
        const fx_status st = fx_checkpoint_read(it->source, &p->entry, p->row0 + begin + from, to - from,
                                                it->dtype, dst + (size_t)from * row_bytes);
        if (st != FX_OK) note_failure(&failed, st);
    }
    FX_CHECK(failed.status == FX_OK, failed.status, "%s", failed.message);
    if (p->entry.file >= 0) {
        size_t elements = (size_t)count;
        for (int d = 1; d < p->entry.ndim; d++) elements *= (size_t)p->entry.shape[d];
        __atomic_fetch_add(&s->bytes_read, elements * fx_dtype_size(p->entry.dtype), __ATOMIC_RELAXED);
    }
    return FX_OK;
}

static fx_status load_item(fx_store *s, const item *it)
{
    char *place_at = s->block + it->offset, *dst = it->weight ? s->staging : place_at;
    size_t done = 0;
    for (int i = 0; i < it->count; i++) {
        FX_TRY(fx_store_read_rows(s, it, &it->pieces[i], 0, it->pieces[i].rows, dst + done));
        done += fx_store_row_bytes(it) * (size_t)it->pieces[i].rows;
    }
    return it->weight ? fx_pack(s->be, it->weight, s->staging, place_at) : FX_OK;
}

/* Largest first: then the staging buffer shrinks while the block fills, and the two never peak together. */
static int by_size(const void *a, const void *b)
{
    const item *x = *(item *const *)a, *y = *(item *const *)b;
    const size_t p = x->weight ? x->row_major_bytes : 0, q = y->weight ? y->row_major_bytes : 0;
    const int order = fx_order(q, p);
    return order ? order : x->order - y->order;
}

static void shrink_staging(fx_store *s, size_t need)
{
    enum { KEEP = 4 << 20 };
    need = (need + KEEP - 1) / KEEP * KEEP;
    if (need >= s->staging_bytes / 2) return;
    munmap(s->staging + need, s->staging_bytes - need);
    s->staging_bytes = need;
    if (!need) s->staging = NULL;
}

static fx_status load_mine(fx_store *s, item *const *mine, int count,
                           void (*progress)(void *, size_t, size_t), void *ctx)
{
    size_t total = 0, done = 0;
    for (int i = 0; i < count; i++) total += mine[i]->bytes;
    for (int i = 0; i < count; i++) {
        FX_CHECK(!fx_stop_signal(), FX_ESIGNAL, "stopped by signal %d while loading weights",
                 fx_stop_signal());
        if (s->staging) shrink_staging(s, mine[i]->weight ? mine[i]->row_major_bytes : 0);
        FX_TRY(load_item(s, mine[i]));
        done += mine[i]->bytes;
        if (progress) progress(ctx, done, total);
    }
    return FX_OK;
}

/* Takes memory (checked first, on all ranks, so that none is left waiting) and fills this rank's items. */
static fx_status take_and_load(fx_store *s, item *const *mine, int count,
                               void (*progress)(void *, size_t, size_t), void *ctx)
{
    const size_t staging = count && mine[0]->weight ? mine[0]->row_major_bytes : 0;
    fx_status st = check_memory(s, staging);
    if (st == FX_OK && staging) st = map_bytes(staging, &s->staging);
    s->staging_bytes = s->staging ? staging : 0;
    FX_TRY(agree(s, st));
    if (s->shared) {
        void *block;
        FX_TRY(s->share.alloc(s->share.ctx, s->total, &block)); /* collective: fails on all or on none */
        s->block = block;
    } else
        FX_TRY(map_bytes(s->total, &s->block));
    return agree(s, load_mine(s, mine, count, progress, ctx));
}

/* Everything is in place: the declared targets get their addresses. */
static void publish(fx_store *s)
{
    char *base = s->device ? s->device : s->block;
    for (int i = 0; i < s->count; i++) {
        const item *it = &s->items[i];
        if (it->weight)
            it->weight->packed = base + it->offset;
        else
            it->tensor->data = base + it->offset;
    }
    s->loaded = true;
}

static fx_status load_host(fx_store *s, void (*progress)(void *, size_t, size_t), void *ctx)
{
    int count = 0;
    item **mine = malloc((size_t)s->count * sizeof(item *));
    if (!mine) return agree(s, FX_FAIL(FX_ENOMEM, "no memory for the weight store"));
    for (int i = 0; i < s->count; i++)
        if (fx_store_owner(s, &s->items[i], s->share.local_size) == s->share.local_rank)
            mine[count++] = &s->items[i];
    if (count) qsort(mine, (size_t)count, sizeof *mine, by_size);
    const fx_status st = take_and_load(s, mine, count, progress, ctx);
    if (s->staging) munmap(s->staging, s->staging_bytes);
    s->staging = NULL;
    free(mine);
    return st;
}

fx_status fx_store_load(fx_store *s, fx_comm *comm, void (*progress)(void *ctx, size_t done, size_t total),
                        void *ctx)
{
    FX_CHECK(!s->loaded, FX_ESHAPE, "store: loaded twice");
    if (s->total == 0) return FX_OK;
    s->comm = comm;
    FX_TRY(fx_on_device(s->be) ? fx_store_load_device(s, progress, ctx) : load_host(s, progress, ctx));
    publish(s);
    return FX_OK;
}
