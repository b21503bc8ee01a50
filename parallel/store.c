/* The weight store: one block of packed weights per node. Modules declare (shapes checked at once, no memory
 * taken); the load gives every item an offset, takes the block, and each rank of the node fills its share of the
 * items: read rows, convert, pack. Between checkpoint files and every op that takes a weight. */
#include "parallel/store.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "runtime/core/clock.h"

enum { MAX_PARTS = 8, SPLIT_BYTES = 1 << 20 }; /* below a MiB a second thread costs more than it saves */

typedef struct piece {
    fx_entry entry;
    int64_t row0, rows;
} piece;

typedef struct item {
    fx_checkpoint *source;
    piece pieces[MAX_PARTS];
    int count;
    fx_weight *weight;      /* either this one, packed through the staging buffer, */
    fx_tensor *tensor;      /* or this one, read in place */
    fx_dtype dtype;         /* of the row-major form */
    size_t offset, bytes;   /* in the block */
    size_t row_major_bytes; /* before packing */
    int order;              /* of declaration */
} item;

struct fx_store {
    fx_backend *be;
    fx_share share;
    bool shared, loaded;
    item *items;
    int count, capacity;
    size_t total;          /* bytes of the block */
    char *block, *staging; /* staging: row-major source of the item being packed */
    size_t staging_bytes;
    atomic_size_t bytes_read;
};

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
    if (share && share->alloc) {
        s->share = *share;
        s->shared = true;
    }
    return FX_OK;
}

void fx_store_close(fx_store **out)
{
    fx_store *s = *out;
    *out = NULL;
    if (!s) return;
    if (s->block && s->shared)
        s->share.release(s->share.ctx, s->block, s->total);
    else if (s->block)
        munmap(s->block, s->total);
    free(s->items);
    free(s);
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
    return atomic_load(&s->bytes_read);
}

/* ---- declare ---- */

static fx_status new_item(fx_store *s, fx_checkpoint *source, fx_dtype dtype, item **out)
{
    FX_CHECK(!s->loaded, FX_ESHAPE, "store: declared after the load");
    if (s->count == s->capacity) {
        const int capacity = s->capacity ? 2 * s->capacity : 64;
        item *grown = realloc(s->items, (size_t)capacity * sizeof *grown);
        FX_CHECK(grown, FX_ENOMEM, "no memory for the weight store");
        s->items = grown;
        s->capacity = capacity;
    }
    *out = &s->items[s->count]; /* counted by place() once it is complete */
    memset(*out, 0, sizeof **out);
    (*out)->source = source;
    (*out)->dtype = dtype;
    (*out)->order = s->count;
    return FX_OK;
}

/* Gives the item its place at the end of the block. */
static void place(fx_store *s, item *it, size_t row_major_bytes, size_t bytes)
{
    it->row_major_bytes = row_major_bytes;
    it->bytes = bytes;
    it->offset = s->total;
    s->total += (bytes + FX_ARENA_ALIGN - 1) / FX_ARENA_ALIGN * FX_ARENA_ALIGN;
    s->count++;
}

/* One part: `rows` rows from part->row0 of a tensor whose other sizes are shape[1..]. */
static fx_status find_piece(item *it, const fx_part *part, int64_t rows, int ndim, const int64_t shape[],
                            piece *out)
{
    const bool whole = part->row0 == 0 && part->rows < 0, synthetic = fx_checkpoint_is_synthetic(it->source);
    int64_t want[FX_MAX_DIMS];
    memcpy(want, shape, (size_t)ndim * sizeof *want);
    want[0] = whole || synthetic ? part->row0 + rows
                                 : -1; /* a synthetic tensor is as large as what is asked of it */
    FX_TRY(fx_checkpoint_find(it->source, part->name, ndim, want, &out->entry));
    FX_CHECK(part->row0 >= 0 && part->row0 <= out->entry.shape[0] - rows, FX_EFORMAT,
             "tensor %s: wanted rows %lld to %lld, file has %lld rows", part->name, (long long)part->row0,
             (long long)(part->row0 + rows), (long long)out->entry.shape[0]);
    out->row0 = part->row0;
    out->rows = rows;
    return FX_OK;
}

/* Rows of a part that says -1: what the other parts leave, divided among those that say so. */
static fx_status open_rows(int64_t n, int parts, const fx_part part[], int64_t *out)
{
    int64_t left = n, open = 0;
    for (int i = 0; i < parts; i++) {
        if (part[i].rows < 0)
            open++;
        else
            left -= part[i].rows;
    }
    FX_CHECK(left >= 0 && (open ? left % open == 0 : left == 0), FX_ESHAPE,
             "store: the parts of %s do not add up to %lld rows", part[0].name, (long long)n);
    *out = open ? left / open : 0;
    return FX_OK;
}

/* All parts of one item stacked by rows; shape[0] is n. */
static fx_status find_pieces(item *it, int parts, const fx_part part[], int ndim, const int64_t shape[])
{
    int64_t open = 0;
    FX_CHECK(parts >= 1 && parts <= MAX_PARTS, FX_ESHAPE, "store: %d parts; at most %d", parts, MAX_PARTS);
    for (int d = 0; d < ndim; d++)
        FX_CHECK(shape[d] > 0, FX_EFORMAT, "tensor %s: size %d of its shape is %lld; wanted at least 1",
                 part[0].name, d, (long long)shape[d]);
    FX_TRY(open_rows(shape[0], parts, part, &open));
    for (int i = 0; i < parts; i++)
        FX_TRY(find_piece(it, &part[i], part[i].rows < 0 ? open : part[i].rows, ndim, shape, &it->pieces[i]));
    it->count = parts;
    return FX_OK;
}

static fx_status declare_weight(fx_store *s, fx_checkpoint *source, fx_weight *out, fx_weight w, int parts,
                                const fx_part part[])
{
    const int64_t shape[4] = {w.n, w.k, w.kh, w.kw};
    item *it = NULL;
    *out = w;
    FX_TRY(new_item(s, source, w.dtype, &it));
    FX_TRY(find_pieces(it, parts, part, w.kind == FX_WEIGHT_CONV ? 4 : 2, shape));
    it->weight = out;
    place(s, it, (size_t)(w.n * w.k * w.kh * w.kw) * fx_dtype_size(w.dtype), fx_packed_bytes(s->be, &w));
    return FX_OK;
}

static fx_status declare_tensor(fx_store *s, fx_checkpoint *source, fx_tensor *out, fx_tensor view, int parts,
                                const fx_part part[])
{
    item *it = NULL;
    *out = view;
    FX_TRY(new_item(s, source, view.dtype, &it));
    FX_TRY(find_pieces(it, parts, part, view.ndim, view.shape));
    it->tensor = out;
    place(s, it, fx_bytes(view), fx_bytes(view));
    return FX_OK;
}

fx_status fx_store_linear(fx_store *s, fx_checkpoint *source, fx_weight *out, int64_t n, int64_t k, int parts,
                          const fx_part part[])
{
    const fx_weight w = {NULL, n, k, 1, 1, FX_WEIGHT_LINEAR, s->be->dtype};
    return declare_weight(s, source, out, w, parts, part);
}

fx_status fx_store_conv(fx_store *s, fx_checkpoint *source, fx_weight *out, int64_t n, int64_t k, int kh,
                        int kw, const char *name)
{
    const fx_weight w = {NULL, n, k, kh, kw, FX_WEIGHT_CONV, s->be->dtype};
    const fx_part all = {name, 0, -1};
    return declare_weight(s, source, out, w, 1, &all);
}

fx_status fx_store_vector(fx_store *s, fx_checkpoint *source, fx_tensor *out, int64_t n, int parts,
                          const fx_part part[])
{
    return declare_tensor(s, source, out, fx_view1(NULL, FX_F32, n), parts, part);
}

fx_status fx_store_table(fx_store *s, fx_checkpoint *source, fx_tensor *out, int64_t rows, int64_t cols,
                         const char *name, bool f32)
{
    const int64_t shape[2] = {rows, cols};
    const fx_part all = {name, 0, -1};
    fx_entry found;
    FX_TRY(fx_checkpoint_find(source, name, 2, shape, &found)); /* fills in rows = -1 */
    const fx_tensor view = fx_view(NULL, f32 ? FX_F32 : s->be->dtype, 2, found.shape);
    return declare_tensor(s, source, out, view, 1, &all);
}

/* ---- load ---- */

/* Which of the node's ranks loads the item: ranks take consecutive items with about equal bytes. */
static int owner(const fx_store *s, const item *it)
{
    const double middle = (double)it->offset + 0.5 * (double)it->bytes;
    const int r = (int)(middle * s->share.local_size / (double)s->total);
    return r < s->share.local_size ? r : s->share.local_size - 1;
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

/* Rows of one piece, split over the backend's threads: conversion and generation are the slow part, and
 * several reads at once are what fast disks want. */
static fx_status read_piece(fx_store *s, const item *it, const piece *p, char *dst)
{
    const size_t row_bytes =
        it->row_major_bytes / (size_t)(it->tensor ? it->tensor->shape[0] : it->weight->n);
    const int64_t most = (int64_t)((size_t)p->rows * row_bytes / SPLIT_BYTES) + 1;
    const int64_t tasks = s->be->threads < most ? (s->be->threads > 1 ? s->be->threads : 1) : most;
    failure failed = {FX_OK, ""};
#pragma omp parallel for num_threads((int)tasks) if (tasks > 1)
    for (int64_t i = 0; i < tasks; i++) {
        const int64_t from = p->rows * i / tasks, to = p->rows * (i + 1) / tasks;
        const fx_status st = fx_checkpoint_read(it->source, &p->entry, p->row0 + from, to - from, it->dtype,
                                                dst + (size_t)from * row_bytes);
        if (st != FX_OK) note_failure(&failed, st);
    }
    FX_CHECK(failed.status == FX_OK, failed.status, "%s", failed.message);
    if (p->entry.file >= 0) {
        size_t elements = (size_t)p->rows;
        for (int d = 1; d < p->entry.ndim; d++) elements *= (size_t)p->entry.shape[d];
        atomic_fetch_add(&s->bytes_read, elements * fx_dtype_size(p->entry.dtype));
    }
    return FX_OK;
}

static fx_status load_item(fx_store *s, const item *it)
{
    char *place_at = s->block + it->offset, *dst = it->weight ? s->staging : place_at;
    size_t done = 0;
    for (int i = 0; i < it->count; i++) {
        const int64_t n = it->tensor ? it->tensor->shape[0] : it->weight->n;
        FX_TRY(read_piece(s, it, &it->pieces[i], dst + done));
        done += it->row_major_bytes / (size_t)n * (size_t)it->pieces[i].rows;
    }
    return it->weight ? fx_pack(s->be, it->weight, s->staging, place_at) : FX_OK;
}

/* Largest first: then the staging buffer shrinks while the block fills, and the two never peak together. */
static int by_size(const void *a, const void *b)
{
    const item *x = *(item *const *)a, *y = *(item *const *)b;
    const size_t p = x->weight ? x->row_major_bytes : 0, q = y->weight ? y->row_major_bytes : 0;
    if (p != q) return p < q ? 1 : -1;
    return x->order - y->order;
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
    for (int i = 0; i < s->count; i++) {
        const item *it = &s->items[i];
        if (it->weight)
            it->weight->packed = s->block + it->offset;
        else
            it->tensor->data = s->block + it->offset;
    }
    s->loaded = true;
}

fx_status fx_store_load(fx_store *s, void (*progress)(void *ctx, size_t done, size_t total), void *ctx)
{
    int count = 0;
    FX_CHECK(!s->loaded, FX_ESHAPE, "store: loaded twice");
    if (s->total == 0) return FX_OK;
    item **mine = malloc((size_t)s->count * sizeof(item *));
    if (!mine) return agree(s, FX_FAIL(FX_ENOMEM, "no memory for the weight store"));
    for (int i = 0; i < s->count; i++)
        if (owner(s, &s->items[i]) == s->share.local_rank) mine[count++] = &s->items[i];
    if (count) qsort(mine, (size_t)count, sizeof *mine, by_size);
    const fx_status st = take_and_load(s, mine, count, progress, ctx);
    if (s->staging) munmap(s->staging, s->staging_bytes);
    s->staging = NULL;
    free(mine);
    if (st == FX_OK) publish(s);
    return st;
}
