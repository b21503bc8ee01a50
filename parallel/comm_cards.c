/* The devices of a communicator's ranks; contract in comm_cards.h. Compiled empty without NCCL: ranks have no devices to join. */
#include "parallel/comm_cards.h"

#if FX_HAVE_NCCL
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/comm_fit.h"
#include "parallel/comm_nccl.h"

fx_status fx_cuda_status(int error, const char *what)
{
    return error == cudaSuccess ? FX_OK
                                : FX_FAIL(FX_EDEVICE, "%s: %s", what, cudaGetErrorString((cudaError_t)error));
}

static fx_status describe_device(const fx_comm *c, fx_device_card *out)
{
    struct cudaDeviceProp prop;
    int device = 0, visible = 0;
    *out = (fx_device_card){.rank = c->world[c->rank]};
    FX_TRY(fx_cuda_status(cudaGetDevice(&device), "cudaGetDevice"));
    FX_TRY(fx_cuda_status(cudaGetDeviceProperties(&prop, device), "cudaGetDeviceProperties"));
    FX_TRY(fx_cuda_status(cudaGetDeviceCount(&visible), "cudaGetDeviceCount"));
    memcpy(out->uuid, prop.uuid.bytes, sizeof out->uuid);
    out->visible = visible;
    snprintf(out->libraries, sizeof out->libraries, "%s, %s", fx_device_libraries(), fx_nccl_describe());
    FILE *name = fopen("/proc/sys/kernel/hostname", "r");
    if (name && !fgets(out->host, sizeof out->host, name)) out->host[0] = 0;
    if (name) fclose(name);
    return FX_OK;
}

fx_status fx_cards_check(fx_comm *c, bool *alone)
{
    fx_device_card mine, *all = calloc((size_t)c->size, sizeof *all);
    size_t *where = calloc(2 * (size_t)c->size, sizeof *where);
    fx_status st =
        where && all ? describe_device(c, &mine) : FX_FAIL(FX_ENOMEM, "no memory for the ranks' devices");
    *alone = false;
    for (int r = 0; !st && r < c->size; r++)
        where[r] = sizeof mine, where[c->size + r] = (size_t)r * sizeof mine;
    st = fx_comm_vote(c, st, NULL);
    if (!st) st = fx_comm_all_gather(c, &mine, all, where, where + c->size);
    if (!st) st = fx_cards_fit(all, c->size, alone);
    free(where);
    free(all);
    return fx_comm_vote(c, st, NULL);
}

fx_status fx_cards_one_node(fx_comm *c, bool *one)
{
    char mine[64] = "", first[64];
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (f && !fgets(mine, sizeof mine, f)) mine[0] = 0;
    if (f) fclose(f);
    memcpy(first, mine, sizeof first);
    FX_TRY(fx_comm_broadcast(c, 0, first, sizeof first));
    int64_t same = mine[0] && !memcmp(first, mine, sizeof mine);
    FX_TRY(fx_comm_all_reduce_i64(c, FX_MIN, &same, 1));
    *one = same != 0;
    return FX_OK;
}
#endif
