/* The transport of rows in device memory: NCCL's grouped sends and receives on a stream of their own. A post waits for
 * what the compute stream has written so far; a wait makes the compute stream wait for the arrival and the host goes on.
 * The host never blocks in NCCL or CUDA here: calls are non-blocking and polled with the communicator's deadline. The
 * unique id and the check of devices go over the communicator it belongs to (MPI). One rank: copies only. */
#include "parallel/comm_nccl.h"

#include <stdlib.h>
#include <string.h>

#include "parallel/comm_cards.h"
#include "parallel/comm_internal.h"
#include "parallel/comm_reach.h"

typedef struct rows_transport rows_transport;

static fx_backend *backend_of(const fx_comm *c);

static fx_status rows_copy(fx_comm *c, void *to, const void *from, size_t bytes)
{
    return fx_device_copy(backend_of(c), to, from, bytes);
}

#if FX_HAVE_NCCL
#include <cuda_runtime_api.h>
#include <nccl.h>
#include <sched.h>
#include <stdio.h>

#include "runtime/core/clock.h"

struct rows_transport {
    fx_backend *be;
    ncclComm_t nccl; /* NULL on one rank */
    cudaStream_t compute, wire;
    cudaEvent_t ready, last;         /* what compute has written; the last arrival */
    cudaEvent_t done[FX_COMM_SLOTS]; /* of a slot's transfers */
    fx_open_way way;                 /* its peers NULL: NCCL's transfers */
    bool *peer;                      /* [size] of transfers since the last drain */
    bool marked;                     /* `last` is at the end of what is drained */
};

static rows_transport *transport_of(const fx_comm *c)
{
    return c->transport;
}

static fx_status nccl_error(ncclComm_t nccl, ncclResult_t r, const char *what)
{
    return FX_FAIL(FX_ECOMM, "%s: NCCL: %s; %.200s", what, ncclGetErrorString(r), ncclGetLastError(nccl));
}

fx_status fx_nccl_follow(const fx_comm *c, ncclComm_t nccl, int result, const char *what)
{
    ncclResult_t r = (ncclResult_t)result;
    const double begin = fx_now_s(), limit = c->family->timeout_s;
    while (r == ncclInProgress) {
        if (fx_stop_signal())
            return FX_FAIL(FX_ESIGNAL, "stopped by signal %d in '%s'", fx_stop_signal(), c->family->phase);
        FX_CHECK(limit <= 0 || fx_now_s() - begin < limit, FX_ECOMM,
                 "rank %d waited %.3g s in '%s' for the other ranks' devices; a peer is stopped, lost or "
                 "slow; see its "
                 "messages, or give more time with --timeout",
                 c->world[c->rank], limit, c->family->phase);
        sched_yield();
        const ncclResult_t asked = ncclCommGetAsyncError(nccl, &r);
        if (asked != ncclSuccess) r = asked;
    }
    return r == ncclSuccess ? FX_OK : nccl_error(nccl, r, what);
}

/* ---- the transport ---- */

static ncclResult_t enqueue(fx_comm *c, const rows_transport *t, int sends, const fx_xfer send[], int recvs,
                            const fx_xfer recv[])
{
    ncclResult_t r = ncclGroupStart(), end;
    for (int i = 0; r == ncclSuccess && i < recvs; i++)
        if (recv[i].peer != c->rank && recv[i].bytes)
            r = ncclRecv(recv[i].data, recv[i].bytes, ncclInt8, recv[i].peer, t->nccl, t->wire);
    for (int i = 0; r == ncclSuccess && i < sends; i++)
        if (send[i].peer != c->rank && send[i].bytes)
            r = ncclSend(send[i].data, send[i].bytes, ncclInt8, send[i].peer, t->nccl, t->wire);
    end = ncclGroupEnd();
    return r == ncclSuccess ? end : r;
}

static fx_status rows_post(fx_comm *c, int slot, int lane, int sends, const fx_xfer send[], int recvs,
                           const fx_xfer recv[])
{
    rows_transport *t = transport_of(c);
    (void)lane; /* one order for all: every rank posts in the same one */
    FX_TRY(fx_cuda_status(cudaEventRecord(t->ready, t->compute), "cudaEventRecord"));
    FX_TRY(fx_cuda_status(cudaStreamWaitEvent(t->wire, t->ready, 0), "cudaStreamWaitEvent"));
    if (t->way.peers && fx_peers_ready(t->way.peers))
        FX_TRY(fx_peers_post(t->way.peers, slot, sends, send, recvs, recv));
    else
        FX_TRY(fx_nccl_follow(c, t->nccl, enqueue(c, t, sends, send, recvs, recv), "a transfer"));
    FX_TRY(fx_cuda_status(cudaEventRecord(t->done[slot], t->wire), "cudaEventRecord"));
    for (int i = 0; i < recvs; i++) t->peer[recv[i].peer] |= recv[i].bytes != 0;
    for (int i = 0; i < sends; i++) t->peer[send[i].peer] |= send[i].bytes != 0;
    return FX_OK;
}

static fx_status rows_test(fx_comm *c, int slot, int *left)
{
    const rows_transport *t = transport_of(c);
    *left = 0;
    FX_TRY(fx_cuda_status(cudaStreamWaitEvent(t->compute, t->done[slot], 0), "cudaStreamWaitEvent"));
    if (t->way.peers) FX_TRY(fx_peers_order(t->way.peers, slot));
    return fx_cuda_status(cudaEventRecord(t->last, t->compute), "cudaEventRecord");
}

static bool rows_gave_up(const fx_comm *c)
{
    return transport_of(c)->way.kernels && fx_peers_gave_up(transport_of(c)->way.peers);
}

static fx_status rows_drain(fx_comm *c, int *left)
{
    rows_transport *t = transport_of(c);
    ncclResult_t r = ncclSuccess;
    *left = 0;
    if (!t->nccl) return FX_OK;
    if (t->way.kernels && !t->marked)
        FX_TRY(fx_cuda_status(cudaEventRecord(t->last, t->compute), "cudaEventRecord"));
    t->marked = true;
    const cudaError_t e = cudaEventQuery(t->last);
    if (rows_gave_up(c)) *left = -1;
    if (*left < 0) return FX_OK;
    if (e == cudaErrorNotReady) {
        *left = 1;
        const ncclResult_t asked = ncclCommGetAsyncError(t->nccl, &r);
        if (asked != ncclSuccess) r = asked;
        return r == ncclSuccess || r == ncclInProgress ? FX_OK : nccl_error(t->nccl, r, "a transfer");
    }
    memset(t->peer, 0, (size_t)c->size);
    t->marked = false;
    return fx_cuda_status(e, "a transfer");
}

static void rows_late(const fx_comm *c, int slot, bool late[])
{
    const rows_transport *t = transport_of(c);
    (void)slot;
    for (int r = 0; r < c->size; r++) late[r] = t->peer[r] && r != c->rank;
    if (t->way.kernels) fx_peers_late(t->way.peers, late);
}

static void rows_detach(fx_comm *c)
{
    rows_transport *t = transport_of(c);
    if (!t) return;
    if (t->wire && c->family->failed == FX_OK) (void)cudaStreamSynchronize(t->wire);
    fx_reach_close(&t->way);
    if (t->nccl)
        (void)ncclCommAbort(t->nccl); /* nothing is under way, or it is lost: no rank waits for another */
    for (int i = 0; i < FX_COMM_SLOTS; i++)
        if (t->done[i]) (void)cudaEventDestroy(t->done[i]);
    if (t->ready) (void)cudaEventDestroy(t->ready);
    if (t->last) (void)cudaEventDestroy(t->last);
    if (t->wire) (void)cudaStreamDestroy(t->wire);
    free(t->peer);
    free(t);
    c->transport = NULL;
}

/* ---- start ---- */

static fx_status make_events(rows_transport *t)
{
    int least = 0, most = 0;
    FX_TRY(
        fx_cuda_status(cudaDeviceGetStreamPriorityRange(&least, &most), "cudaDeviceGetStreamPriorityRange"));
    FX_TRY(fx_cuda_status(cudaStreamCreateWithPriority(&t->wire, cudaStreamNonBlocking, most),
                          "cudaStreamCreate"));
    FX_TRY(fx_cuda_status(cudaEventCreateWithFlags(&t->ready, cudaEventDisableTiming), "cudaEventCreate"));
    FX_TRY(fx_cuda_status(cudaEventCreateWithFlags(&t->last, cudaEventDisableTiming), "cudaEventCreate"));
    for (int i = 0; i < FX_COMM_SLOTS; i++)
        FX_TRY(
            fx_cuda_status(cudaEventCreateWithFlags(&t->done[i], cudaEventDisableTiming), "cudaEventCreate"));
    return FX_OK;
}

static fx_status start_nccl(fx_comm *c, rows_transport *t)
{
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclResult_t r = ncclSuccess;
    memset(&id, 0, sizeof id);
    if (c->rank == 0) r = ncclGetUniqueId(&id);
    FX_TRY(fx_comm_vote(c, r == ncclSuccess ? FX_OK : nccl_error(NULL, r, "ncclGetUniqueId"), NULL));
    FX_TRY(fx_comm_broadcast(c, 0, &id, sizeof id));
    config.blocking = 0;
    r = ncclCommInitRankConfig(&t->nccl, c->size, id, c->rank, &config);
    return fx_nccl_follow(c, t->nccl, r, "start of NCCL");
}

static const fx_comm_ops rows_ops = {.name = "nccl",
                                     .post = rows_post,
                                     .test = rows_test,
                                     .gave_up = rows_gave_up,
                                     .late = rows_late,
                                     .detach = rows_detach,
                                     .copy = rows_copy,
                                     .drain = rows_drain};

/* whole: NULL, or c is of some of its ranks. */
static fx_status start(fx_comm *c, rows_transport *t, fx_backend *be, fx_wire want, const fx_comm *whole)
{
    bool alone;
    const fx_open_way *of_all = whole && whole->rows ? &transport_of(whole->rows)->way : NULL;
    t->be = be;
    t->compute = fx_device_stream(be);
    fx_status st = make_events(t);
    t->peer = calloc((size_t)c->size, sizeof *t->peer);
    if (!st && !t->peer) st = FX_FAIL(FX_ENOMEM, "no memory for a communicator");
    FX_TRY(fx_comm_vote(c, st, NULL));
    if (c->size == 1) return FX_OK;
    /* before NCCL's first call: multicast, which nothing here uses; where it is broken it can take the node's devices with it */
    setenv("NCCL_NVLS_ENABLE", "0", 1);
    FX_TRY(fx_cards_check(c, &alone));
    FX_TRY(fx_comm_vote(c, start_nccl(c, t), NULL));
    FX_TRY(fx_reach_open(c, t->nccl, want, alone, of_all, t->compute, t->wire, &t->way));
    if (t->way.kernels) c->rows->reach = fx_peers_reach(t->way.peers);
    return FX_OK;
}

const char *fx_comm_rows_text(const fx_comm *c)
{
    return c->rows ? transport_of(c->rows)->way.text : "";
}

/* ---- memory ---- */

fx_status fx_comm_register_rows(fx_comm *c, void *base)
{
    rows_transport *t = c->rows ? transport_of(c->rows) : NULL;
    return t && t->way.peers ? fx_peers_register(t->way.peers, base) : FX_OK;
}

void fx_comm_forget_rows(fx_comm *c)
{
    rows_transport *t = c && c->rows ? transport_of(c->rows) : NULL;
    if (t && t->way.peers) fx_peers_forget(t->way.peers);
}

fx_status fx_comm_take_rows(fx_comm *c, fx_backend *be, size_t *bytes, void **out)
{
    rows_transport *t = c->rows ? transport_of(c->rows) : NULL;
    FX_TRY(fx_reach_take(t ? &t->way : NULL, c, be, bytes, out));
    return fx_comm_register_rows(c, *out);
}

fx_status fx_comm_share_rows(fx_comm *c, void *base, size_t bytes)
{
    rows_transport *t = c->rows ? transport_of(c->rows) : NULL;
    if (t && t->way.windows) FX_TRY(fx_windows_lend(t->way.windows, base, bytes));
    return fx_comm_register_rows(c, base);
}

void fx_comm_unshare_rows(fx_comm *c, void *base)
{
    rows_transport *t = c->rows ? transport_of(c->rows) : NULL;
    fx_comm_forget_rows(c);
    if (t && t->way.windows) fx_windows_give(t->way.windows, base);
}

void fx_comm_give_rows(fx_comm *c, fx_backend *be, void *data)
{
    rows_transport *t = c->rows ? transport_of(c->rows) : NULL;
    if (!data) return;
    fx_comm_forget_rows(c);
    fx_reach_give(t ? &t->way : NULL, be, data);
}

const char *fx_nccl_describe(void)
{
    static char text[48];
    int v = 0;
    if (!text[0] && ncclGetVersion(&v) == ncclSuccess)
        snprintf(text, sizeof text, "NCCL %d.%d.%d%s", v / 10000, v / 100 % 100, v % 100,
                 fx_windows_describe());
    return text[0] ? text : "NCCL";
}

#else /* one rank */

struct rows_transport {
    fx_backend *be;
};

static rows_transport *transport_of(const fx_comm *c)
{
    return c->transport;
}

static void rows_detach(fx_comm *c)
{
    free(c->transport);
    c->transport = NULL;
}

static const fx_comm_ops rows_ops = {.name = "device", .detach = rows_detach, .copy = rows_copy};

const char *fx_comm_rows_text(const fx_comm *c)
{
    (void)c;
    return "";
}

static fx_status start(fx_comm *c, rows_transport *t, fx_backend *be, fx_wire want, const fx_comm *whole)
{
    t->be = be;
    (void)want, (void)whole;
    FX_CHECK(c->size == 1, FX_EDEVICE,
             "%d ranks were started and this build has no NCCL to join their devices; build with NCCL "
             "(-DFX_NCCL_ROOT=DIR), start one rank, or use --backend cpu",
             c->size);
    return FX_OK;
}

fx_status fx_comm_register_rows(fx_comm *c, void *base)
{
    (void)c, (void)base;
    return FX_OK;
}

void fx_comm_forget_rows(fx_comm *c)
{
    (void)c;
}

fx_status fx_comm_share_rows(fx_comm *c, void *base, size_t bytes)
{
    (void)c, (void)base, (void)bytes;
    return FX_OK;
}

void fx_comm_unshare_rows(fx_comm *c, void *base)
{
    (void)c, (void)base;
}

fx_status fx_comm_take_rows(fx_comm *c, fx_backend *be, size_t *bytes, void **out)
{
    return fx_comm_vote(c, fx_device_alloc(be, *bytes, out), NULL);
}

void fx_comm_give_rows(fx_comm *c, fx_backend *be, void *data)
{
    (void)c;
    fx_device_free(be, data);
}

const char *fx_nccl_describe(void)
{
    return "no NCCL";
}
#endif

static fx_backend *backend_of(const fx_comm *c)
{
    return transport_of(c)->be;
}

void fx_comm_close_rows(fx_comm *c)
{
    if (c) fx_comm_close(&c->rows);
}

fx_status fx_comm_open_rows(fx_comm *c, fx_backend *be, fx_wire want)
{
    return fx_comm_open_team_rows(c, be, want, NULL);
}

fx_status fx_comm_open_team_rows(fx_comm *c, fx_backend *be, fx_wire want, const fx_comm *whole)
{
    if (!fx_on_device(be) || c->rows) return FX_OK;
    rows_transport *t = calloc(1, sizeof *t);
    int *world = malloc((size_t)c->size * sizeof *world);
    fx_status st = t && world ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for a communicator");
    if (!st) memcpy(world, c->world, (size_t)c->size * sizeof *world);
    st = fx_comm_vote(c, st, NULL);
    if (!st && t) st = fx_comm_new(&rows_ops, c, NULL, c->rank, c->size, c->id, world, &c->rows);
    if (st || !t) {
        free(t);
        free(world);
        return st;
    }
    c->rows->transport = t;
    st = start(c, t, be, want, whole);
    if (st) fx_comm_close_rows(c);
    return st;
}
