/* Row-split tensors, gathered to rank 0, as .npy files; see dump.h. */
#include "runtime/dump.h"

#include <stdio.h>
#include <stdlib.h>

#include "runtime/collect.h"
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

fx_status fx_dump_whole(const fx_dump *d, const char *name, fx_tensor mine)
{
    if (fx_comm_rank(d->comm)) return FX_OK;
    void *host = malloc(fx_bytes(mine) + 1);
    FX_CHECK(host, FX_ENOMEM, "no memory to dump %s", name);
    fx_status st = fx_download(d->be, host, mine);
    if (!st) st = write_file(d, name, fx_view(host, mine.dtype, mine.ndim, mine.shape));
    free(host);
    return st;
}

/* Gathers with one of the two functions of collect.h and writes; rank 0 has the whole tensor. */
static fx_status write_gathered(const fx_dump *d, const char *name, const fx_range range[],
                                const fx_layout *l, int segment, int64_t rows, fx_tensor mine)
{
    fx_tensor whole = mine;
    whole.shape[0] = rows;
    char *all = fx_comm_rank(d->comm) == 0 ? malloc(fx_bytes(whole) + 1) : NULL;
    FX_CHECK(all || fx_comm_rank(d->comm), FX_ENOMEM, "no memory to dump %s", name);
    fx_status st = range ? fx_collect_rows(d->be, d->comm, range, mine, all)
                         : fx_collect_segment(d->be, d->comm, l, segment, mine, all);
    if (!st && all) st = write_file(d, name, fx_view(all, mine.dtype, mine.ndim, whole.shape));
    free(all);
    return st;
}

fx_status fx_dump_rows(const fx_dump *d, const char *name, const fx_range range[], int64_t rows,
                       fx_tensor mine)
{
    return write_gathered(d, name, range, NULL, 0, rows, mine);
}

fx_status fx_dump_segment(const fx_dump *d, const char *name, const fx_layout *l, int segment, fx_tensor mine)
{
    return write_gathered(d, name, NULL, l, segment, fx_collect_count(l, segment), mine);
}
