/* Gathers row-split tensors to rank 0 and writes them as .npy. A debugging path: it allocates and is slow on
 * purpose. */
#include "runtime/dump.h"

#include <stdio.h>
#include <stdlib.h>

#include "runtime/io/npy.h"

static fx_status write_file(const fx_dump *d, const char *name, fx_tensor host)
{
    char path[4096];
    const int n = snprintf(path, sizeof path, "%s/%s.npy", d->dir, name);
    FX_CHECK(n > 0 && (size_t)n < sizeof path, FX_EWRITE, "dump path %s/%s.npy is too long", d->dir, name);
    return fx_npy_write(path, host);
}

fx_status fx_dump_host(const fx_dump *d, const char *name, fx_tensor host)
{
    return fx_comm_rank(d->comm) == 0 ? write_file(d, name, host) : FX_OK;
}

/* Receives every rank's rows at their place in `all` (rank 0), or sends mine. */
static fx_status collect(const fx_dump *d, const fx_range range[], size_t row_bytes, void *mine, char *all)
{
    const int ranks = fx_comm_size(d->comm), rank = fx_comm_rank(d->comm);
    const fx_xfer send = {0, mine, (size_t)range[rank].count * row_bytes};
    fx_xfer *recv = calloc((size_t)ranks, sizeof *recv);
    FX_CHECK(recv, FX_ENOMEM, "no memory for a dump");
    for (int i = 0; i < ranks; i++)
        recv[i] = (fx_xfer){i, all + (size_t)range[i].begin * row_bytes, (size_t)range[i].count * row_bytes};
    fx_ticket ticket;
    fx_status st = fx_comm_transfer(d->comm, 1, &send, rank == 0 ? ranks : 0, recv, &ticket);
    if (!st) st = fx_comm_wait(d->comm, &ticket);
    free(recv);
    return st;
}

fx_status fx_dump_rows(const fx_dump *d, const char *name, const fx_range range[], int64_t rows,
                       fx_tensor mine)
{
    const int rank = fx_comm_rank(d->comm);
    size_t row_bytes = fx_dtype_size(mine.dtype);
    for (int i = 1; i < mine.ndim; i++) row_bytes *= (size_t)mine.shape[i];
    char *local = malloc(fx_bytes(mine) + 1), *all = rank == 0 ? malloc((size_t)rows * row_bytes + 1) : NULL;
    fx_status st = local && (all || rank) ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory to dump %s", name);
    if (!st && range[rank].count) st = fx_download(d->be, local, mine);
    if (!st) st = collect(d, range, row_bytes, local, all);
    if (!st && rank == 0) {
        fx_tensor whole = mine;
        whole.shape[0] = rows;
        st = write_file(d, name, fx_view(all, mine.dtype, mine.ndim, whole.shape));
    }
    free(local);
    free(all);
    return st;
}

/* The joint tensor is dumped segment by segment into one file: text rows, then image rows. */
static fx_status dump_joint(const fx_dump *d, const char *name, const fx_layout *l, fx_tensor mine)
{
    const int rank = fx_comm_rank(d->comm), ranks = fx_comm_size(d->comm);
    const size_t row_bytes = (size_t)mine.shape[1] * fx_dtype_size(mine.dtype);
    const int64_t rows = fx_layout_total(l);
    char *local = malloc(fx_bytes(mine) + 1), *all = malloc((size_t)rows * row_bytes + 1);
    fx_range *range = calloc((size_t)ranks, sizeof *range);
    fx_status st = local && all && range ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory to dump %s", name);
    if (!st && mine.shape[0]) st = fx_download(d->be, local, mine);
    for (int s = 0; !st && s < FX_SEGMENTS; s++) {
        for (int i = 0; i < ranks; i++) {
            range[i] = l->part[i][s];
            range[i].begin += fx_layout_start(l, s);
        }
        st = collect(d, range, row_bytes, local + (size_t)fx_layout_local_start(l, rank, s) * row_bytes, all);
    }
    if (!st && rank == 0) st = write_file(d, name, fx_view2(all, mine.dtype, rows, mine.shape[1]));
    free(local);
    free(all);
    free(range);
    return st;
}

fx_status fx_dump_segment(const fx_dump *d, const char *name, const fx_layout *l, int segment, fx_tensor mine)
{
    if (segment == FX_ALL) return dump_joint(d, name, l, mine);
    const int ranks = fx_comm_size(d->comm);
    fx_range *range = calloc((size_t)ranks, sizeof *range);
    FX_CHECK(range, FX_ENOMEM, "no memory to dump %s", name);
    for (int i = 0; i < ranks; i++) range[i] = l->part[i][segment];
    const fx_status st = fx_dump_rows(d, name, range, l->rows[segment], mine);
    free(range);
    return st;
}
