/* Row-split tensors to rank 0; see collect.h. Slow on purpose: nothing is kept between calls. */
#include "runtime/collect.h"

#include <stdlib.h>

/* Receives every rank's rows at their place in `all` (rank 0), or sends mine (host memory). */
static fx_status collect(fx_comm *comm, const fx_range range[], size_t row_bytes, void *mine, char *all)
{
    const int ranks = fx_comm_size(comm), rank = fx_comm_rank(comm);
    const fx_xfer send = {0, mine, (size_t)range[rank].count * row_bytes};
    fx_xfer *recv = calloc((size_t)ranks, sizeof *recv);
    FX_CHECK(recv, FX_ENOMEM, "no memory to gather rows of %d ranks", ranks);
    for (int i = 0; rank == 0 && i < ranks; i++)
        recv[i] = (fx_xfer){i, all + (size_t)range[i].begin * row_bytes, (size_t)range[i].count * row_bytes};
    fx_ticket ticket;
    fx_status st = fx_comm_transfer(comm, 1, &send, rank == 0 ? ranks : 0, recv, &ticket);
    if (!st) st = fx_comm_wait(comm, &ticket);
    free(recv);
    return st;
}

static size_t bytes_per_row(fx_tensor t)
{
    size_t bytes = fx_dtype_size(t.dtype);
    for (int i = 1; i < t.ndim; i++) bytes *= (size_t)t.shape[i];
    return bytes;
}

static fx_status to_host(fx_backend *be, fx_tensor mine, char **out)
{
    *out = malloc(fx_bytes(mine) + 1);
    FX_CHECK(*out, FX_ENOMEM, "no memory to gather %zu bytes of rows", fx_bytes(mine));
    return mine.shape[0] ? fx_download(be, *out, mine) : FX_OK;
}

fx_status fx_collect_rows(fx_backend *be, fx_comm *comm, const fx_range range[], fx_tensor mine, void *all)
{
    char *local = NULL;
    fx_status st = to_host(be, mine, &local);
    if (!st) st = collect(comm, range, bytes_per_row(mine), local, all);
    free(local);
    return st;
}

/* This segment's ranges of all ranks, counted from row `start`. */
static void ranges_of(const fx_layout *l, int segment, int64_t start, fx_range out[])
{
    for (int i = 0; i < l->ranks; i++) {
        out[i] = l->part[i][segment];
        out[i].begin += start;
    }
}

fx_status fx_collect_segment(fx_backend *be, fx_comm *comm, const fx_layout *l, int segment, fx_tensor mine,
                             void *all)
{
    const size_t row_bytes = bytes_per_row(mine);
    const int rank = fx_comm_rank(comm);
    fx_range *range = calloc((size_t)l->ranks, sizeof *range);
    FX_CHECK(range, FX_ENOMEM, "no memory to gather rows of %d ranks", l->ranks);
    char *local = NULL;
    fx_status st = to_host(be, mine, &local);
    if (!st && segment != FX_ALL) {
        ranges_of(l, segment, 0, range);
        st = collect(comm, range, row_bytes, local, all);
    }
    for (int s = 0; !st && segment == FX_ALL && s < FX_SEGMENTS; s++) {
        ranges_of(l, s, fx_layout_start(l, s), range);
        st = collect(comm, range, row_bytes, local + (size_t)fx_layout_local_start(l, rank, s) * row_bytes,
                     all);
    }
    free(local);
    free(range);
    return st;
}

int64_t fx_collect_count(const fx_layout *l, int segment)
{
    return segment == FX_ALL ? fx_layout_total(l) : l->rows[segment];
}

int fx_collect_owner(const fx_layout *l, int segment, int64_t row)
{
    if (segment == FX_ALL) {
        segment = FX_TEXT;
        while (segment + 1 < FX_SEGMENTS && row >= l->rows[segment]) row -= l->rows[segment++];
    }
    for (int r = 0; r < l->ranks; r++) {
        const fx_range *p = &l->part[r][segment];
        if (row >= p->begin && row < p->begin + p->count) return r;
    }
    return -1;
}
