/* NCCL's windows; contract in comm_window.h. Their calls go on in the background and other ranks wait inside NCCL, so a rank that
 * fails there waits for no vote: it ends the job with its own words. */
#include "parallel/comm_window.h"

#if FX_HAVE_NCCL && FX_HAVE_NCCL_WINDOWS
#include <cuda_runtime_api.h>
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/ops.h"
#include "parallel/comm_cards.h"
#include "parallel/comm_lsa.h"

enum { BLOCKS = 4 }; /* taken at a time: counters, and what rows lie in */
typedef struct block {
    void *data; /* NULL: an empty place */
    size_t bytes;
    ncclWindow_t window; /* NULL: not mapped */
    bool lent;           /* another's memory */
} block;

struct fx_windows {
    fx_comm *host;
    ncclComm_t nccl;
    fx_lsa *lsa;
    cudaStream_t stream;
    void **at; /* [ranks], pinned */
    block block[BLOCKS];
};

static fx_status give_up(const fx_windows *w, fx_status st)
{
    if (st && w->host->family->failed == FX_OK) w->host->family->failed = st;
    return st;
}

/* Some calls say success while they are still under way: only the communicator knows. */
static fx_status finish(const fx_windows *w, ncclResult_t r, const char *what)
{
    return give_up(w, fx_nccl_follow(w->host, w->nccl, r == ncclSuccess ? ncclInProgress : r, what));
}

/* NULL: an empty place. */
static block *find(fx_windows *w, const void *data)
{
    for (int i = 0; i < BLOCKS; i++)
        if (w->block[i].data == data) return &w->block[i];
    return NULL;
}

/* ---- open ---- */

/* Before 2.29 the structs of the device interface have no version of their own. */
static const char *check_version(void)
{
    static char why[120];
    int v = 0;
    if (ncclGetVersion(&v) == ncclSuccess && v == NCCL_VERSION_CODE) return NULL;
    snprintf(why, sizeof why, "built for the windows of NCCL %d.%d.%d and run with NCCL %d.%d.%d", NCCL_MAJOR,
             NCCL_MINOR, NCCL_PATCH, v / 10000, v / 100 % 100, v % 100);
    return why;
}

static fx_status take_own(fx_windows *w)
{
    FX_TRY(fx_cuda_status(cudaStreamCreateWithFlags(&w->stream, cudaStreamNonBlocking), "cudaStreamCreate"));
    return fx_cuda_status(cudaMallocHost((void **)&w->at, (size_t)w->host->size * sizeof *w->at),
                          "cudaMallocHost");
}

/* Without this a window may be registered and must not be used. */
static fx_status check_support(fx_windows *w, const char **why)
{
    const ncclResult_t r = fx_lsa_start(w->nccl, &w->lsa);
    const bool fine = r == ncclSuccess || r == ncclInProgress;
    int64_t least[2] = {fine, -(int64_t)fine};
    FX_TRY(fx_comm_all_reduce_i64(w->host, FX_MIN, least, 2));
    if (!least[1]) { /* on none */
        *why = "NCCL maps no memory of other ranks (NCCL_CUMEM_ENABLE=0, NCCL_WIN_ENABLE=0 or no NVLink)";
        return FX_OK;
    }
    if (!least[0])
        return give_up(w, FX_FAIL(FX_EDEVICE, "NCCL maps memory of other ranks on some ranks only; start all "
                                              "with the same NCCL_* settings, or use --exchange nccl"));
    FX_TRY(finish(w, r, "addresses of other ranks (--exchange nccl needs none)"));
    if (fx_lsa_all(w->lsa, w->host->rank, w->host->size)) return FX_OK;
    return give_up(w,
                   FX_FAIL(FX_ECOMM, "NCCL numbers the ranks of one NVLink domain otherwise than they are; "
                                     "use --exchange nccl"));
}

fx_status fx_windows_open(fx_comm *host, ncclComm_t nccl, fx_windows **out, int *team, const char **why)
{
    *out = NULL;
    *team = 0;
    *why = check_version();
    if (*why) return FX_OK;
    int64_t least = fx_lsa_team(nccl);
    FX_TRY(fx_comm_all_reduce_i64(host, FX_MIN, &least, 1));
    *team = (int)least;
    if (!*team) *why = "NCCL cannot tell which ranks reach each other's memory";
    if (*team != host->size) return FX_OK;
    fx_windows *w = calloc(1, sizeof *w);
    fx_status st = w ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for windows");
    if (w) {
        w->host = host;
        w->nccl = nccl;
        st = take_own(w);
    }
    st = fx_comm_vote(host, st, NULL);
    if (!st && w) st = check_support(w, why);
    if (st || *why) fx_windows_close(&w);
    *out = w;
    return st;
}

void fx_windows_close(fx_windows **windows)
{
    fx_windows *w = *windows;
    *windows = NULL;
    if (!w || w->host->family->failed != FX_OK) return; /* NCCL may still write there */
    for (int i = 0; i < BLOCKS; i++) fx_windows_give(w, w->block[i].data);
    fx_lsa_end(w->nccl, &w->lsa);
    if (w->stream) (void)cudaStreamDestroy(w->stream);
    if (w->at) (void)cudaFreeHost(w->at);
    free(w);
}

/* ---- blocks ---- */

static fx_status allocate(block *b, size_t bytes)
{
    if (ncclMemAlloc(&b->data, bytes) == ncclSuccess) return FX_OK;
    b->data = NULL;
    return fx_device_no_room(bytes, ", as on the rank that needs most,");
}

fx_status fx_windows_take(fx_windows *w, size_t *bytes, void **out)
{
    int64_t most = (int64_t)*bytes;
    block *b = find(w, NULL);
    *out = NULL;
    FX_CHECK(b, FX_EINVAL, "windows: %d blocks are taken", BLOCKS); /* on all ranks */
    FX_TRY(fx_comm_all_reduce_i64(w->host, FX_MAX, &most, 1));
    const fx_status st = fx_comm_vote(w->host, allocate(b, (size_t)most), NULL);
    if (st) {
        fx_windows_give(w, b->data);
        return st;
    }
    b->bytes = *bytes = (size_t)most;
    *out = b->data;
    return FX_OK;
}

void fx_windows_give(fx_windows *w, void *data)
{
    block *b = data ? find(w, data) : NULL;
    if (!b || w->host->family->failed != FX_OK) return;
    fx_windows_unmap(w, data);
    if (!b->lent) (void)ncclMemFree(data);
    *b = (block){NULL, 0, NULL, false};
}

fx_status fx_windows_lend(fx_windows *w, void *data, size_t bytes)
{
    block *b = find(w, NULL);
    FX_CHECK(b, FX_EINVAL, "windows: %d blocks are taken", BLOCKS); /* on all ranks */
    *b = (block){data, bytes, NULL, true};
    return FX_OK;
}

bool fx_windows_took(fx_windows *w, const void *data)
{
    return data && find(w, data);
}

/* ---- addresses ---- */

static fx_status read_addresses(fx_windows *w, const block *b)
{
    FX_CHECK(b->window, FX_ECOMM, "NCCL made no window of %zu bytes; use --exchange nccl", b->bytes);
    FX_TRY(fx_cuda_status(fx_lsa_addresses(b->window, w->host->size, w->at, w->stream),
                          "addresses of a window"));
    return fx_cuda_status(cudaStreamSynchronize(w->stream), "addresses of a window");
}

fx_status fx_windows_map(fx_windows *w, void *data, void **at)
{
    block *b = data ? find(w, data) : NULL;
    FX_CHECK(b && !b->window, FX_EINVAL, "windows: no block, or one that is mapped"); /* on all ranks */
    FX_TRY(finish(w, ncclCommWindowRegister(w->nccl, data, b->bytes, &b->window, NCCL_WIN_COLL_SYMMETRIC),
                  "a window of memory (--exchange nccl needs none)"));
    FX_TRY(fx_comm_vote(w->host, read_addresses(w, b), NULL));
    for (int r = 0; r < w->host->size; r++) at[r] = r == w->host->rank ? data : w->at[r];
    return FX_OK;
}

void fx_windows_unmap(fx_windows *w, void *data)
{
    block *b = data ? find(w, data) : NULL;
    if (!b || !b->window || w->host->family->failed != FX_OK) return;
    (void)finish(w, ncclCommWindowDeregister(w->nccl, b->window), "the end of a window");
    b->window = NULL;
}

const char *fx_windows_describe(void)
{
    return "";
}

#elif FX_HAVE_NCCL /* nobody gets any, so the rest is not called */

fx_status fx_windows_open(fx_comm *host, struct ncclComm *nccl, fx_windows **out, int *team, const char **why)
{
    (void)host, (void)nccl;
    *out = NULL;
    *team = 0;
    *why = "this build has no windows of NCCL (they come with NCCL 2.28 and its nccl_device.h)";
    return FX_OK;
}

void fx_windows_close(fx_windows **w)
{
    *w = NULL;
}

fx_status fx_windows_take(fx_windows *w, size_t *bytes, void **out)
{
    (void)w, (void)bytes;
    *out = NULL;
    return FX_FAIL(FX_EDEVICE, "this build has no windows of NCCL");
}

void fx_windows_give(fx_windows *w, void *data)
{
    (void)w, (void)data;
}

fx_status fx_windows_lend(fx_windows *w, void *data, size_t bytes)
{
    (void)w, (void)data, (void)bytes;
    return FX_FAIL(FX_EDEVICE, "this build has no windows of NCCL");
}

bool fx_windows_took(fx_windows *w, const void *data)
{
    (void)w, (void)data;
    return false;
}

fx_status fx_windows_map(fx_windows *w, void *data, void **at)
{
    (void)w, (void)data, (void)at;
    return FX_FAIL(FX_EDEVICE, "this build has no windows of NCCL");
}

void fx_windows_unmap(fx_windows *w, void *data)
{
    (void)w, (void)data;
}

const char *fx_windows_describe(void)
{
    return ", no windows";
}
#endif
