/* Contract in comm_fit.h. Two ranks on one device are slower than one, and NCCL refuses them with less to say; other libraries
 * compute other bits. */
#include "parallel/comm_fit.h"

#include <string.h>

static fx_status compare(const fx_device_card *a, const fx_device_card *b, bool neighbours)
{
    FX_CHECK(!neighbours || memcmp(a->uuid, b->uuid, sizeof a->uuid) != 0, FX_EDEVICE,
             "ranks %d and %d are on the same device; start one rank per device (this node shows fewer "
             "devices than it has ranks), or use --backend cpu",
             a->rank, b->rank);
    FX_CHECK(!strcmp(a->libraries, b->libraries), FX_EDEVICE,
             "rank %d runs with %s and rank %d with %s; install the same libraries on all nodes", a->rank,
             a->libraries, b->rank, b->libraries);
    return FX_OK;
}

fx_status fx_cards_fit(const fx_device_card all[], int n, bool *alone)
{
    *alone = false;
    for (int a = 0; a < n; a++)
        for (int b = 0; b < a; b++) {
            const bool neighbours = !strcmp(all[a].host, all[b].host);
            FX_TRY(compare(&all[b], &all[a], neighbours));
            *alone = *alone || (neighbours && (all[a].visible == 1 || all[b].visible == 1));
        }
    return FX_OK;
}
