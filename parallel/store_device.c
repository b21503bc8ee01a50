/* Weights on devices: each rank reads an equal share of the bytes once and writes it to its own device through two pinned
 * buffers, one filled while the other is uploaded; then the ranks give each other their shares, device to device. Host memory
 * stays at the two buffers, whatever the model's size. Synthetic weights are drawn on every device. Called by store.c. */
#include <stdlib.h>
#include <string.h>

#include "parallel/comm_nccl.h"
#include "parallel/store_internal.h"

/* A window of the block that is being filled; windows follow one another through the two buffers. */
typedef struct window {
    fx_store *s;
    char *half[2];
    int at;
    size_t begin, used; /* place in the block */
} window;

static fx_status flush(window *w)
{
    fx_backend *be = w->s->be;
    if (!w->used) return FX_OK;
    FX_TRY(fx_sync(be)); /* the other buffer is free from here on */
    FX_TRY(fx_upload(be, fx_view1(w->s->device + w->begin, FX_U8, (int64_t)w->used), w->half[w->at]));
    w->at ^= 1;
    w->used = 0;
    return FX_OK;
}

/* Where bytes [offset, offset + bytes) of the block may be written; what was written before goes when it does not fit. */
static fx_status room(window *w, size_t offset, size_t bytes, char **out)
{
    if (w->used && offset + bytes > w->begin + w->s->half) FX_TRY(flush(w));
    if (!w->used) w->begin = offset;
    FX_CHECK(offset + bytes <= w->begin + w->s->half, FX_EFORMAT,
             "a row of %zu bytes is larger than the buffer", bytes);
    *out = w->half[w->at] + (offset - w->begin);
    w->used = offset + bytes - w->begin;
    return FX_OK;
}

/* Synthetic values are drawn where they belong, by every rank. */
static fx_status draw(fx_store *s, const fx_store_item *it)
{
    const size_t row = fx_store_row_bytes(it), each = fx_dtype_size(it->dtype);
    char *to = s->device + it->offset;
    for (int i = 0; i < it->count; i++) {
        const fx_store_piece *p = &it->pieces[i];
        const int64_t per_row = (int64_t)(row / each);
        FX_TRY(fx_device_draw(s->be, to, it->dtype, p->rows * per_row, p->entry.key,
                              (uint64_t)(p->row0 * per_row), p->entry.amp, p->entry.mean));
        to += (size_t)p->rows * row;
    }
    return FX_OK;
}

/* Row-major items lie in the block as the file has them. */
static fx_status load_rows(window *w, const fx_store_item *it)
{
    const size_t row = fx_store_row_bytes(it);
    const int64_t step = row < w->s->chunk ? (int64_t)(w->s->chunk / row) : 1;
    size_t offset = it->offset;
    for (int i = 0; i < it->count; i++) {
        const fx_store_piece *p = &it->pieces[i];
        for (int64_t done = 0; done < p->rows; done += step) {
            const int64_t rows = p->rows - done < step ? p->rows - done : step;
            char *to = NULL;
            FX_TRY(room(w, offset, (size_t)rows * row, &to));
            FX_TRY(fx_store_read_rows(w->s, it, p, done, rows, to));
            offset += (size_t)rows * row;
        }
    }
    return FX_OK;
}

static fx_status load_packed(window *w, const fx_store_item *it)
{
    const size_t row = fx_store_row_bytes(it), chunk = w->s->chunk;
    char *source = malloc(it->row_major_bytes + it->bytes),
         *packed = source ? source + it->row_major_bytes : NULL;
    FX_CHECK(source, FX_ENOMEM, "no memory to pack a weight of %zu bytes", it->bytes);
    fx_status st = FX_OK;
    size_t at = 0;
    for (int i = 0; i < it->count && !st; i++) {
        st = fx_store_read_rows(w->s, it, &it->pieces[i], 0, it->pieces[i].rows, source + at);
        at += (size_t)it->pieces[i].rows * row;
    }
    if (!st) st = fx_pack(w->s->be, it->weight, source, packed);
    for (size_t done = 0; !st && done < it->bytes; done += chunk) {
        const size_t n = it->bytes - done < chunk ? it->bytes - done : chunk;
        char *to = NULL;
        st = room(w, it->offset + done, n, &to);
        if (!st) memcpy(to, packed + done, n);
    }
    free(source);
    return st;
}

static bool row_major(const fx_store_item *it)
{
    return !it->weight || (it->weight->kind == FX_WEIGHT_LINEAR && it->bytes == it->row_major_bytes);
}

static bool is_drawn(const fx_store_item *it)
{
    return row_major(it) && it->pieces[0].entry.file < 0;
}

/* Rank r's share: items [*first, *end), neighbours in the block; the bytes from begin to end of it. */
static void share_of(const fx_store *s, int ranks, int r, int *first, int *end)
{
    *first = 0;
    while (*first < s->count && fx_store_owner(s, &s->items[*first], ranks) < r) ++*first;
    *end = *first;
    while (*end < s->count && fx_store_owner(s, &s->items[*end], ranks) == r) ++*end;
}

static fx_status load_share(fx_store *s, int first, int end, void (*progress)(void *, size_t, size_t),
                            void *ctx)
{
    window w = {.s = s};
    void *pinned;
    size_t total = 0, done = 0;
    FX_TRY(fx_device_pinned(s->be, 2 * s->half, &pinned));
    w.half[0] = pinned;
    w.half[1] = w.half[0] + s->half;
    fx_status st = FX_OK;
    for (int i = first; i < end; i++) total += s->items[i].bytes;
    for (int i = first; i < end && !st; i++) {
        const fx_store_item *it = &s->items[i];
        if (fx_stop_signal())
            st = FX_FAIL(FX_ESIGNAL, "stopped by signal %d while loading weights", fx_stop_signal());
        if (!st && is_drawn(it)) {
            st = flush(&w); /* a window must not go on behind what is drawn: it would be uploaded over it */
            if (!st) st = draw(s, it);
        } else if (!st) {
            st = row_major(it) ? load_rows(&w, it) : load_packed(&w, it);
        }
        done += it->bytes;
        if (!st && progress) progress(ctx, done, total);
    }
    if (!st) st = flush(&w);
    if (!st) st = fx_sync(s->be);
    fx_device_unpin(s->be, pinned);
    return st;
}

/* ---- from device to device ---- */

static size_t begin_of(const fx_store *s, int item)
{
    return item < s->count ? s->items[item].offset : s->total;
}

static fx_status swap_shares(fx_store *s, int ranks, int me)
{
    fx_comm *rows = fx_comm_rows(s->comm);
    fx_xfer *list = calloc(2 * (size_t)ranks, sizeof *list);
    int sends = 0, recvs = 0, first, end;
    fx_ticket ticket;
    FX_CHECK(list, FX_ENOMEM, "no memory for a list of %d ranks", ranks);
    share_of(s, ranks, me, &first, &end);
    const size_t mine = begin_of(s, first), bytes = begin_of(s, end) - mine;
    for (int k = 1; k < ranks; k++) {
        const int r = (me + k) % ranks;
        share_of(s, ranks, r, &first, &end);
        const size_t theirs = begin_of(s, first);
        if (bytes) list[sends++] = (fx_xfer){r, s->device + mine, bytes};
        if (begin_of(s, end) > theirs)
            list[ranks + recvs++] = (fx_xfer){r, s->device + theirs, begin_of(s, end) - theirs};
    }
    fx_status st = fx_comm_transfer(rows, sends, list, recvs, list + ranks, &ticket);
    if (!st) st = fx_comm_wait(rows, &ticket);
    if (!st) st = fx_comm_settle(s->comm);
    free(list);
    return st;
}

static fx_status share_out(fx_store *s)
{
    const int ranks = fx_comm_size(s->comm);
    FX_TRY(fx_comm_register_rows(s->comm, s->device));
    const fx_status st = fx_comm_vote(s->comm, swap_shares(s, ranks, fx_comm_rank(s->comm)), NULL);
    if (!st) fx_comm_forget_rows(s->comm);
    return st;
}

/* Vectors that products may add in their last step: the backend wants to see the values. */
static fx_status tell_constants(fx_store *s)
{
    for (int i = 0; i < s->count; i++) {
        const fx_store_item *it = &s->items[i];
        if (!it->tensor || it->tensor->ndim != 1 || it->tensor->dtype != FX_F32) continue;
        float *host = malloc(it->bytes);
        FX_CHECK(host, FX_ENOMEM, "no memory for a vector of %zu bytes", it->bytes);
        const fx_tensor on_device = fx_view1(s->device + it->offset, FX_F32, it->tensor->shape[0]);
        fx_status st = fx_download(s->be, host, on_device);
        if (!st) st = fx_device_constant(s->be, on_device.data, host, on_device.shape[0]);
        free(host);
        FX_TRY(st);
    }
    return fx_sync(s->be);
}

fx_status fx_store_load_device(fx_store *s, void (*progress)(void *, size_t, size_t), void *ctx)
{
    const int ranks = s->comm ? fx_comm_size(s->comm) : 1, me = s->comm ? fx_comm_rank(s->comm) : 0;
    const bool synthetic =
        fx_checkpoint_is_synthetic(s->items[0].source); /* then all are: nothing is read, nothing shared */
    int first = 0, end = s->count;
    void *device = NULL;
    fx_status st = fx_device_alloc(s->be, s->total, &device);
    s->device = device;
    if (ranks > 1) st = fx_comm_vote(s->comm, st, NULL);
    FX_TRY(st);
    if (!synthetic) share_of(s, ranks, me, &first, &end);
    st = load_share(s, first, end, progress, ctx);
    if (ranks > 1) st = fx_comm_vote(s->comm, st, NULL);
    FX_TRY(st);
    if (ranks > 1 && !synthetic) FX_TRY(share_out(s));
    return tell_constants(s);
}
