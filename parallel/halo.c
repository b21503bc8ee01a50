/* Pictures split by rows over ranks: border rows for convolutions, gathers, and moves between two row splits.
 * Every rank knows all ranges, so each computes what it sends and what it gets; rows travel straight from and
 * into the tensors. */
#include "parallel/halo.h"

#include <stdlib.h>

/* Transfers of one call. Small jobs need no memory. */
typedef struct xfer_list {
    int n, capacity;
    fx_xfer *x, few[32];
} xfer_list;

static void list_open(xfer_list *l)
{
    l->n = 0;
    l->capacity = (int)(sizeof l->few / sizeof l->few[0]);
    l->x = l->few;
}

static void list_close(xfer_list *l)
{
    if (l->x != l->few) free(l->x);
}

static fx_status list_add(xfer_list *l, int peer, fx_tensor rows)
{
    if (!fx_numel(rows)) return FX_OK;
    if (l->n == l->capacity) {
        fx_xfer *grown = malloc(2 * (size_t)l->capacity * sizeof *grown);
        FX_CHECK(grown, FX_ENOMEM, "no memory for %d transfers", 2 * l->capacity);
        for (int i = 0; i < l->n; i++) grown[i] = l->x[i];
        list_close(l);
        l->x = grown;
        l->capacity *= 2;
    }
    l->x[l->n++] = (fx_xfer){peer, rows.data, fx_bytes(rows)};
    return FX_OK;
}

static fx_status move(fx_comm *comm, const xfer_list *send, const xfer_list *recv)
{
    fx_ticket t;
    comm = fx_comm_rows(comm);
    FX_TRY(fx_comm_transfer(comm, send->n, send->x, recv->n, recv->x, &t));
    return fx_comm_wait(comm, &t);
}

static int64_t end_of(fx_range r)
{
    return r.begin + r.count;
}

/* Rows both ranges have; empty when they do not meet. */
static fx_range common(fx_range a, fx_range b)
{
    const int64_t begin = a.begin > b.begin ? a.begin : b.begin;
    const int64_t end = end_of(a) < end_of(b) ? end_of(a) : end_of(b);
    return (fx_range){begin, end > begin ? end - begin : 0};
}

/* Picture rows r of a tensor whose first row is picture row `origin`. */
static fx_tensor rows_at(fx_tensor t, int64_t origin, fx_range r)
{
    return fx_rows(t, r.count ? r.begin - origin : 0, r.count);
}

static fx_status check_rows(const char *what, fx_tensor t, int64_t rows)
{
    FX_CHECK(t.ndim >= 1 && t.shape[0] == rows && (rows == 0 || fx_contiguous(t)), FX_ESHAPE,
             "%s: %lld rows (%s), want %lld contiguous ones", what, (long long)(t.ndim ? t.shape[0] : 0),
             fx_dtype_name(t.dtype), (long long)rows);
    return FX_OK;
}

/* ---- halo ---- */

/* Rows outside the picture. Copied from a block of zeros, because 0 * (what was there) may be NaN. */
static fx_status clear(fx_backend *be, fx_tensor rows)
{
    static const double zeros[4096];
    const int64_t n = fx_numel(rows), piece = (int64_t)(sizeof zeros / fx_dtype_size(rows.dtype));
    const fx_tensor flat = fx_view1(rows.data, rows.dtype, n);
    for (int64_t i = 0; i < n; i += piece) {
        const int64_t left = n - i;
        FX_TRY(fx_upload(be, fx_slice(flat, 0, i, left < piece ? left : piece), zeros));
    }
    return FX_OK;
}

/* The border rows of a slab that exist: above, then below. An empty slab has none. */
static void borders(const fx_slabs *s, int rank, int top, int bottom, fx_range out[2])
{
    const fx_range mine = s->range[rank], all = {0, s->rows};
    out[0] = out[1] = (fx_range){mine.begin, 0};
    if (!mine.count) return;
    out[0] = common((fx_range){mine.begin - top, top}, all);
    out[1] = common((fx_range){end_of(mine), bottom}, all);
}

/* x, but at least 0 and at most `most`. */
static int64_t clamp(int64_t x, int64_t most)
{
    const int64_t low = x < most ? x : most;
    return low > 0 ? low : 0;
}

static fx_status clear_outside(fx_backend *be, const fx_slabs *s, fx_tensor x, int top, int bottom)
{
    const fx_range mine = s->range[fx_comm_rank(s->comm)];
    const int64_t above = mine.count ? clamp(top - mine.begin, top) : top;
    const int64_t below = mine.count ? clamp(end_of(mine) + bottom - s->rows, bottom) : bottom;
    FX_TRY(clear(be, fx_rows(x, 0, above)));
    return clear(be, fx_rows(x, x.shape[0] - below, below));
}

static fx_status list_halo(const fx_slabs *s, fx_tensor x, int top, int bottom, xfer_list *send,
                           xfer_list *recv)
{
    const int me = fx_comm_rank(s->comm), size = fx_comm_size(s->comm);
    const int64_t origin = s->range[me].begin - top; /* picture row of x's row 0 */
    fx_range want[2], theirs[2];
    borders(s, me, top, bottom, want);
    for (int k = 1; k < size; k++) {
        const int peer = (me + k) % size;
        borders(s, peer, top, bottom, theirs);
        for (int b = 0; b < 2; b++) {
            FX_TRY(list_add(recv, peer, rows_at(x, origin, common(want[b], s->range[peer]))));
            FX_TRY(list_add(send, peer, rows_at(x, origin, common(theirs[b], s->range[me]))));
        }
    }
    return FX_OK;
}

fx_status fx_halo_fill(fx_backend *be, const fx_slabs *s, fx_tensor x, int top, int bottom)
{
    xfer_list send, recv;
    const fx_range mine = s->range[fx_comm_rank(s->comm)];
    FX_CHECK(top >= 0 && top <= 2 && bottom >= 0 && bottom <= 2, FX_ESHAPE, "halo: %d rows above, %d below",
             top, bottom);
    FX_TRY(check_rows("halo", x, top + mine.count + bottom));
    FX_TRY(clear_outside(be, s, x, top, bottom));
    list_open(&send);
    list_open(&recv);
    fx_status st = list_halo(s, x, top, bottom, &send, &recv);
    if (st == FX_OK) st = move(s->comm, &send, &recv);
    list_close(&send);
    list_close(&recv);
    return st;
}

/* ---- gathers and moves ---- */

static fx_status list_moves(fx_comm *comm, const fx_range in[], fx_tensor x_in, const fx_range out[],
                            fx_tensor x_out, xfer_list *send, xfer_list *recv)
{
    const int me = fx_comm_rank(comm), size = fx_comm_size(comm);
    for (int k = 0; k < size; k++) {
        const int peer = (me + k) % size;
        FX_TRY(list_add(send, peer, rows_at(x_in, in[me].begin, common(in[me], out[peer]))));
        FX_TRY(list_add(recv, peer, rows_at(x_out, out[me].begin, common(in[peer], out[me]))));
    }
    return FX_OK;
}

fx_status fx_redistribute(fx_backend *be, fx_comm *comm, const fx_range in[], fx_tensor x_in,
                          const fx_range out[], fx_tensor x_out)
{
    xfer_list send, recv;
    const int me = fx_comm_rank(comm);
    (void)be;
    FX_TRY(check_rows("redistribute from", x_in, in[me].count));
    FX_TRY(check_rows("redistribute to", x_out, out[me].count));
    list_open(&send);
    list_open(&recv);
    fx_status st = list_moves(comm, in, x_in, out, x_out, &send, &recv);
    if (st == FX_OK) st = move(comm, &send, &recv);
    list_close(&send);
    list_close(&recv);
    return st;
}

/* A gather is a move to a split in which every rank wants all rows. */
fx_status fx_gather_rows(fx_backend *be, const fx_slabs *s, fx_tensor mine, fx_tensor all)
{
    const int size = fx_comm_size(s->comm);
    fx_range few[64] = {{0, 0}}, *whole = size <= 64 ? few : malloc((size_t)size * sizeof *whole);
    FX_CHECK(whole, FX_ENOMEM, "no memory for a gather of %d ranks", size);
    for (int r = 0; r < size; r++) whole[r] = (fx_range){0, s->rows};
    const fx_status st = fx_redistribute(be, s->comm, s->range, mine, whole, all);
    if (whole != few) free(whole);
    return st;
}

fx_status fx_gather_stats(fx_backend *be, const fx_slabs *s, fx_tensor mine, fx_tensor all)
{
    FX_CHECK(mine.dtype == FX_F64 && all.dtype == FX_F64, FX_ESHAPE, "gather_stats: want f64, not %s and %s",
             fx_dtype_name(mine.dtype), fx_dtype_name(all.dtype));
    return fx_gather_rows(be, s, mine, all);
}
