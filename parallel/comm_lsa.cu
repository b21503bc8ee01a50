/* NCCL's device interface; contract in comm_lsa.h. Compiled where NCCL has it (2.28). Multicast is never asked for. */
#include "parallel/comm_lsa.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <nccl_device.h>
#include <stdlib.h>
#include <string.h>

struct fx_lsa {
    ncclDevComm_t device;
};

namespace
{

enum { THREADS = 128 };

__global__ void write_addresses(ncclWindow_t window, int n, void **at)
{
    for (int r = (int)threadIdx.x; r < n; r += THREADS) at[r] = ncclGetLsaPointer(window, 0, r);
}

} // namespace

extern "C" int fx_lsa_team(ncclComm_t comm)
{
    return ncclTeamLsa(comm).nRanks;
}

extern "C" int fx_lsa_start(ncclComm_t comm, fx_lsa **out)
{
#ifdef NCCL_DEV_COMM_REQUIREMENTS_INITIALIZER
    ncclDevCommRequirements_t nothing = NCCL_DEV_COMM_REQUIREMENTS_INITIALIZER;
#else
    ncclDevCommRequirements_t nothing;
    memset(&nothing, 0, sizeof nothing);
#endif
    *out = (fx_lsa *)calloc(1, sizeof **out);
    const ncclResult_t r = *out ? ncclDevCommCreate(comm, &nothing, &(*out)->device) : ncclSystemError;
    if (r == ncclSuccess || r == ncclInProgress) return r;
    free(*out);
    *out = nullptr;
    return r;
}

extern "C" bool fx_lsa_all(const fx_lsa *lsa, int rank, int ranks)
{
    return lsa->device.lsaSize == ranks && lsa->device.lsaRank == rank;
}

extern "C" void fx_lsa_end(ncclComm_t comm, fx_lsa **lsa)
{
    if (*lsa) (void)ncclDevCommDestroy(comm, &(*lsa)->device);
    free(*lsa);
    *lsa = nullptr;
}

extern "C" int fx_lsa_addresses(ncclWindow_t window, int n, void **at, cudaStream_t stream)
{
    write_addresses<<<1, THREADS, 0, stream>>>(window, n, at);
    return cudaGetLastError();
}
