/* Copy engines instead of NCCL; see comm_peer.h. Every rank posts the same transfers in the same order, so counters need no
 * reset: ready[p] of mine counts the receives that rank p has opened for me, arrived[p] the sends of rank p that are here.
 * In the wire stream: tell each sender that its place is free; wait until each receiver's is; copy; tell it. */
#include "parallel/comm_peer.h"

#if FX_HAVE_NCCL
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/window.h"
#include "parallel/comm_cards.h"

typedef CUresult (*value_fn)(CUstream, CUdeviceptr, cuuint32_t, unsigned);

/* Where a receive goes: offset in the receiver's registered memory. Both sides know bytes; a difference is a bug. */
typedef struct place {
    uint64_t offset, bytes;
} place;

struct fx_peers {
    fx_comm *host;
    fx_windows *windows;               /* NULL: by CUDA's handles */
    cudaStream_t compute, wire, aside; /* aside: to look at counters while the others wait */
    value_fn write, wait;
    uint32_t *mine;    /* [2 + FX_WINDOW_COUNTERS][size] on the device: ready, arrived, the kernels' */
    uint32_t **theirs; /* [size] the same of each rank, mapped here */
    fx_reach reach;
    char *base, **bases;       /* registered memory; [size] of each rank, mapped here */
    uint32_t *sent, *received; /* [size] transfers so far */
    uint32_t *expect;          /* [FX_COMM_SLOTS][size] value of arrived to wait for; 0: none */
    place *told, *heard;       /* places of one post: mine for my senders, my receivers' for me */
    int capacity;
    fx_xfer *out, *in; /* [size] */
};

static fx_status find_calls(fx_peers *p)
{
    enum cudaDriverEntryPointQueryResult found;
    void *write = NULL, *wait = NULL;
    FX_TRY(fx_cuda_status(
        cudaGetDriverEntryPointByVersion("cuStreamWriteValue32", &write, 12000, cudaEnableDefault, &found),
        "cuStreamWriteValue32"));
    FX_TRY(fx_cuda_status(
        cudaGetDriverEntryPointByVersion("cuStreamWaitValue32", &wait, 12000, cudaEnableDefault, &found),
        "cuStreamWaitValue32"));
    FX_CHECK(write && wait, FX_EDEVICE, "this driver has no stream memory operations");
    memcpy(&p->write, &write, sizeof write);
    memcpy(&p->wait, &wait, sizeof wait);
    return FX_OK;
}

static fx_status tell(const fx_peers *p, uint32_t *where, uint32_t value)
{
    const CUresult r = p->write(p->wire, (CUdeviceptr)(uintptr_t)where, value, CU_STREAM_WRITE_VALUE_DEFAULT);
    FX_CHECK(r == CUDA_SUCCESS, FX_EDEVICE, "cuStreamWriteValue32: error %d", (int)r);
    return FX_OK;
}

static fx_status await(const fx_peers *p, cudaStream_t stream, uint32_t *where, uint32_t value)
{
    const CUresult r = p->wait(stream, (CUdeviceptr)(uintptr_t)where, value, CU_STREAM_WAIT_VALUE_GEQ);
    FX_CHECK(r == CUDA_SUCCESS, FX_EDEVICE, "cuStreamWaitValue32: error %d", (int)r);
    return FX_OK;
}

/* ---- memory of the others ---- */

/* Maps block `mine` of every rank; at[rank of this one] is its own. Collective: all or none succeed. */
static fx_status map_handles(fx_comm *c, void *mine, void **at)
{
    const int size = fx_comm_size(c), me = fx_comm_rank(c);
    cudaIpcMemHandle_t own, *all = calloc((size_t)size, sizeof *all);
    size_t *where = calloc(2 * (size_t)size, sizeof *where);
    memset(&own, 0, sizeof own);
    fx_status st = all && where ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for the addresses of %d ranks", size);
    if (!st) st = fx_cuda_status(cudaIpcGetMemHandle(&own, mine), "cudaIpcGetMemHandle");
    for (int r = 0; where && r < size; r++) where[r] = sizeof own, where[size + r] = (size_t)r * sizeof own;
    st = fx_comm_vote(c, st, NULL);
    if (!st) st = fx_comm_all_gather(c, &own, all, where, where + size);
    for (int r = 0; !st && r < size; r++) {
        at[r] = NULL;
        if (r == me)
            at[r] = mine;
        else
            st = fx_cuda_status(cudaIpcOpenMemHandle(&at[r], all[r], cudaIpcMemLazyEnablePeerAccess),
                                "cudaIpcOpenMemHandle");
    }
    free(all);
    free(where);
    return fx_comm_vote(c, st, NULL);
}

static fx_status map_all(const fx_peers *p, void *mine, void **at)
{
    return p->windows ? fx_windows_map(p->windows, mine, at) : map_handles(p->host, mine, at);
}

static void unmap_all(const fx_peers *p, void *mine, void **at)
{
    const int size = fx_comm_size(p->host), me = fx_comm_rank(p->host);
    if (p->windows) fx_windows_unmap(p->windows, mine);
    for (int r = 0; r < size; r++) {
        if (at[r] && r != me && !p->windows) (void)cudaIpcCloseMemHandle(at[r]);
        at[r] = NULL;
    }
    (void)cudaGetLastError();
}

static size_t words(const fx_peers *p)
{
    return (2 + FX_WINDOW_COUNTERS) * (size_t)fx_comm_size(p->host);
}

static fx_status take_reach(fx_peers *p, size_t size)
{
    fx_reach *r = &p->reach;
    r->bases = p->bases;
    r->counters = calloc(size, sizeof *r->counters);
    FX_CHECK(r->counters, FX_ENOMEM, "no memory for transfers");
    FX_TRY(fx_cuda_status(cudaMalloc((void **)&r->state, FX_WINDOW_STATE * sizeof *r->state), "cudaMalloc"));
    FX_TRY(fx_cuda_status(cudaMalloc(&r->tables, FX_REACH_TABLES * size), "cudaMalloc"));
    FX_TRY(fx_cuda_status(cudaMemset(r->state, 0, FX_WINDOW_STATE * sizeof *r->state), "cudaMemset"));
    FX_TRY(fx_cuda_status(cudaMallocHost((void **)&r->late, (size + words(p)) * sizeof *r->late),
                          "cudaMallocHost"));
    memset(r->late, 0, (size + words(p)) * sizeof *r->late);
    FX_TRY(fx_cuda_status(cudaStreamCreateWithFlags(&p->aside, cudaStreamNonBlocking), "cudaStreamCreate"));
    return FX_OK;
}

static fx_status take_memory(fx_peers *p)
{
    const size_t size = (size_t)fx_comm_size(p->host);
    p->theirs = calloc(size, sizeof *p->theirs);
    p->bases = calloc(size, sizeof *p->bases);
    p->sent = calloc(size, sizeof *p->sent);
    p->received = calloc(size, sizeof *p->received);
    p->expect = calloc(FX_COMM_SLOTS * size, sizeof *p->expect);
    p->out = calloc(size, sizeof *p->out);
    p->in = calloc(size, sizeof *p->in);
    FX_CHECK(p->theirs && p->bases && p->sent && p->received && p->expect && p->out && p->in, FX_ENOMEM,
             "no memory for transfers");
    FX_TRY(find_calls(p));
    return take_reach(p, size);
}

static fx_status clear(fx_peers *p, size_t bytes)
{
    FX_TRY(fx_cuda_status(cudaMemset(p->mine, 0, bytes), "cudaMemset"));
    return fx_cuda_status(cudaDeviceSynchronize(),
                          "cudaDeviceSynchronize"); /* before another rank writes there */
}

/* Collective, on all ranks. */
static fx_status take_counters(fx_peers *p)
{
    size_t bytes = words(p) * sizeof *p->mine;
    fx_status st = p->windows ? fx_windows_take(p->windows, &bytes, (void **)&p->mine)
                              : fx_cuda_status(cudaMalloc((void **)&p->mine, bytes), "cudaMalloc");
    if (!st) st = clear(p, bytes);
    return fx_comm_vote(p->host, st, NULL);
}

fx_status fx_peers_open(fx_comm *host, fx_windows *windows, void *compute, void *wire, fx_peers **out,
                        const char **reason)
{
    static char text[2][120]; /* both may be told */
    char *why = text[windows != NULL];
    fx_peers *p = calloc(1, sizeof *p);
    *out = NULL;
    *reason = NULL;
    fx_status st = fx_comm_vote(host, p ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for transfers"), NULL);
    if (!st) {
        p->host = host;
        p->windows = windows;
        p->compute = compute;
        p->wire = wire;
        st = fx_comm_vote(host, take_memory(p), NULL);
    }
    if (!st) st = take_counters(p);
    if (!st) st = map_all(p, p->mine, (void **)p->theirs);
    if (!st) {
        for (int r = 0; r < fx_comm_size(host); r++)
            p->reach.counters[r] = p->theirs[r] + 2 * fx_comm_size(host);
        *out = p;
        return FX_OK;
    }
    fx_peers_close(&p);
    if (st != FX_EDEVICE || host->family->failed != FX_OK) return st;
    snprintf(why, sizeof text[0], "%s", fx_error());
    *reason = why;
    return FX_OK;
}

static void free_counters(const fx_peers *p)
{
    if (!p->mine) return;
    if (p->theirs) unmap_all(p, p->mine, (void **)p->theirs);
    if (p->windows)
        fx_windows_give(p->windows, p->mine);
    else
        (void)cudaFree(p->mine);
}

void fx_peers_close(fx_peers **peers)
{
    fx_peers *p = *peers;
    if (!p) return;
    if (p->bases) fx_peers_forget(p);
    free_counters(p);
    if (p->reach.state) (void)cudaFree(p->reach.state);
    if (p->reach.tables) (void)cudaFree(p->reach.tables);
    if (p->reach.late) (void)cudaFreeHost(p->reach.late);
    if (p->aside) (void)cudaStreamDestroy(p->aside);
    free(p->reach.counters);
    free(p->theirs);
    free(p->bases);
    free(p->sent);
    free(p->received);
    free(p->expect);
    free(p->told);
    free(p->heard);
    free(p->out);
    free(p->in);
    free(p);
    *peers = NULL;
}

fx_status fx_peers_register(fx_peers *p, void *base)
{
    if (p->windows && !fx_windows_took(p->windows, base)) return FX_OK; /* on all ranks */
    FX_TRY(map_all(p, base, (void **)p->bases));
    p->base = p->reach.base = base;
    return FX_OK;
}

/* The owner may free it when all have let it go. After a failure nobody waits: the process is about to end. */
void fx_peers_forget(fx_peers *p)
{
    if (!p->base || p->host->family->failed != FX_OK) return;
    (void)cudaStreamSynchronize(p->wire);
    (void)cudaStreamSynchronize(p->compute); /* kernels write there too */
    unmap_all(p, p->base, (void **)p->bases);
    (void)fx_comm_barrier(p->host);
    p->base = p->reach.base = NULL;
}

bool fx_peers_ready(const fx_peers *p)
{
    return p->base != NULL;
}

/* ---- for kernels ---- */

const fx_reach *fx_peers_reach(const fx_peers *p)
{
    return &p->reach;
}

bool fx_peers_gave_up(const fx_peers *p)
{
    bool any = false;
    for (int r = 0; r < fx_comm_size(p->host); r++)
        any = any || __atomic_load_n(&p->reach.late[r], __ATOMIC_ACQUIRE) != 0;
    return any;
}

/* The counters as they are now, beside whatever waits in the other streams; NULL: they cannot be had. */
static const uint32_t *counters_now(const fx_peers *p)
{
    uint32_t *copy = p->reach.late + fx_comm_size(p->host);
    if (cudaMemcpyAsync(copy, p->mine, words(p) * sizeof *copy, cudaMemcpyDefault, p->aside) != cudaSuccess)
        return NULL;
    for (int i = 0; i < 500; i++) { /* ms */
        if (cudaStreamQuery(p->aside) == cudaSuccess) return copy;
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    return NULL;
}

/* Before a kernel gives up: ranks that have told this one less than it has told itself. */
void fx_peers_late(const fx_peers *p, bool late[])
{
    const int size = fx_comm_size(p->host), me = fx_comm_rank(p->host);
    const bool named = fx_peers_gave_up(p);
    const uint32_t *now = named ? NULL : counters_now(p);
    for (int r = 0; named && r < size; r++) late[r] = p->reach.late[r] != 0;
    for (int kind = 2; now && kind < 2 + FX_WINDOW_COUNTERS; kind++)
        for (int r = 0; r < size; r++) { /* only the group is told of output */
            const uint32_t *told = now + (ptrdiff_t)kind * size;
            late[r] = late[r] || ((kind < 4 || told[r]) && (int32_t)(told[r] - told[me]) < 0);
        }
}

/* ---- transfers ---- */

static int count_of(int n, const fx_xfer x[], int peer)
{
    int count = 0;
    for (int i = 0; i < n; i++) count += x[i].peer == peer && x[i].bytes;
    return count;
}

static fx_status reserve(fx_peers *p, int n)
{
    if (n <= p->capacity) return FX_OK;
    place *told = realloc(p->told, (size_t)n * sizeof *told);
    if (told) p->told = told;
    place *heard = realloc(p->heard, (size_t)n * sizeof *heard);
    if (heard) p->heard = heard;
    FX_CHECK(told && heard, FX_ENOMEM, "no memory for %d transfers", n);
    p->capacity = n;
    return FX_OK;
}

/* told: where my receives go, peer by peer; heard: where my sends go. */
static fx_status meet(fx_peers *p, int sends, const fx_xfer send[], int recvs, const fx_xfer recv[])
{
    const int size = fx_comm_size(p->host), me = fx_comm_rank(p->host);
    int n_out = 0, n_in = 0, told = 0, heard = 0;
    fx_ticket ticket;
    FX_TRY(reserve(p, sends > recvs ? sends : recvs));
    for (int r = 0; r < size; r++) {
        if (r == me) continue;
        const int mine = count_of(recvs, recv, r), theirs = count_of(sends, send, r);
        if (mine) p->out[n_out++] = (fx_xfer){r, p->told + told, (size_t)mine * sizeof(place)};
        for (int i = 0; i < recvs; i++)
            if (recv[i].peer == r && recv[i].bytes)
                p->told[told++] = (place){(uint64_t)((char *)recv[i].data - p->base), recv[i].bytes};
        if (theirs) p->in[n_in++] = (fx_xfer){r, p->heard + heard, (size_t)theirs * sizeof(place)};
        heard += theirs;
    }
    FX_TRY(fx_comm_transfer(p->host, n_out, p->out, n_in, p->in, &ticket));
    return fx_comm_wait(p->host, &ticket);
}

static fx_status copy_to(fx_peers *p, int peer, int sends, const fx_xfer send[], const place *to)
{
    for (int i = 0; i < sends; i++) {
        if (send[i].peer != peer || !send[i].bytes) continue;
        FX_CHECK(to->bytes == send[i].bytes, FX_ECOMM, "transfer: rank %d expects %llu bytes and gets %zu",
                 peer, (unsigned long long)to->bytes, send[i].bytes);
        FX_TRY(fx_cuda_status(cudaMemcpyAsync(p->bases[peer] + to->offset, send[i].data, send[i].bytes,
                                              cudaMemcpyDefault, p->wire),
                              "cudaMemcpyAsync"));
        to++;
    }
    return FX_OK;
}

fx_status fx_peers_post(fx_peers *p, int slot, int sends, const fx_xfer send[], int recvs,
                        const fx_xfer recv[])
{
    const int size = fx_comm_size(p->host), me = fx_comm_rank(p->host);
    uint32_t *expect = p->expect + (size_t)slot * (size_t)size;
    FX_TRY(meet(p, sends, send, recvs, recv));
    for (int r = 0; r < size; r++) {
        expect[r] = 0;
        if (r == me || !count_of(recvs, recv, r)) continue;
        expect[r] = ++p->received[r];
        FX_TRY(tell(p, p->theirs[r] + me, expect[r]));
    }
    for (int k = 1; k < size; k++) { /* from the neighbour on, so that not all write to the same rank first */
        const int r = (me + k) % size;
        const place *to = p->heard;
        for (int before = 0; before < r; before++)
            if (before != me) to += count_of(sends, send, before);
        if (!count_of(sends, send, r)) continue;
        FX_TRY(await(p, p->wire, p->mine + r, ++p->sent[r]));
        FX_TRY(copy_to(p, r, sends, send, to));
        FX_TRY(tell(p, p->theirs[r] + size + me, p->sent[r]));
    }
    return FX_OK;
}

fx_status fx_peers_order(fx_peers *p, int slot)
{
    const int size = fx_comm_size(p->host);
    const uint32_t *expect = p->expect + (size_t)slot * (size_t)size;
    for (int r = 0; r < size; r++)
        if (expect[r]) FX_TRY(await(p, p->compute, p->mine + size + r, expect[r]));
    return FX_OK;
}
#endif
