/* Recording as CUDA graphs; contract in kernels/record.h. One graph holds what the stream got between begin and end, work of
 * other streams that it waited for included. */
#include "kernels/record.h"

#include <stdlib.h>

#include "runtime/core/clock.h"
#include "runtime/core/log.h"

#include "kernels/cuda/internal.h"

/* cuBLASLt and cuDNN clear a counter in their workspace before many a product and before attention, by a memset that the kernel
 * waits for: hundreds in a step. While recording each call gets a workspace of its own, if it needs a small one, and one memset
 * at the beginning clears them all. */
enum { ALIGN = 256, LARGEST = 1 << 18, POOL = 16 << 20 }; /* bytes: where one begins, of one, of all */

/* Memory that kernels write and that the host reads later. */
struct fx_cuda_looks {
    char *pool;   /* [POOL] on the device */
    size_t taken; /* bytes of it, by the recording at hand */
    bool recording;
    int64_t *count; /* on the device */
    int64_t *slot;  /* [FX_RECORD_SLOTS] pinned host memory */
    cudaEvent_t arrived[FX_RECORD_SLOTS];
};

fx_status fx_cuda_looks_open(fx_cuda *c)
{
    fx_cuda_looks *l = calloc(1, sizeof *l);
    FX_CHECK(l, FX_ENOMEM, "cuda backend: no memory");
    c->looks = l;
    FX_CUDA(cudaMalloc((void **)&l->count, sizeof *l->count));
    FX_CUDA(cudaMemset(l->count, 0, sizeof *l->count));
    FX_CUDA(cudaMalloc((void **)&l->pool, POOL));
    FX_CUDA(cudaMallocHost((void **)&l->slot, FX_RECORD_SLOTS * sizeof *l->slot));
    for (int i = 0; i < FX_RECORD_SLOTS; i++)
        FX_CUDA(cudaEventCreateWithFlags(&l->arrived[i], cudaEventDisableTiming));
    return FX_OK;
}

void fx_cuda_looks_close(fx_cuda *c)
{
    fx_cuda_looks *l = c->looks;
    if (!l) return;
    for (int i = 0; i < FX_RECORD_SLOTS; i++)
        if (l->arrived[i]) (void)cudaEventDestroy(l->arrived[i]);
    if (l->slot) (void)cudaFreeHost(l->slot);
    if (l->pool) (void)cudaFree(l->pool);
    if (l->count) (void)cudaFree(l->count);
    free(l);
    c->looks = NULL;
}

bool fx_cuda_recording(const fx_cuda *c)
{
    return c->looks->recording;
}

void *fx_cuda_own_workspace(const fx_cuda *c, size_t bytes)
{
    fx_cuda_looks *l = c->looks;
    if (!l->recording || !bytes || bytes > LARGEST || POOL - l->taken < LARGEST) return c->workspace;
    void *const own = l->pool + l->taken;
    l->taken += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return own;
}

/* Other threads of this process may go on calling CUDA: only what this one does may break a recording. */
static fx_status begin(fx_backend *be)
{
    fx_cuda_looks *l = fx_cuda_of(be)->looks;
    FX_CUDA(cudaStreamBeginCapture(fx_cuda_stream(be), cudaStreamCaptureModeThreadLocal));
    l->recording = true;
    l->taken = 0;
    return FX_OK;
}

/* ---- one memset for all ---- */

/* Does the node clear bytes of the pool, and nothing else? */
static bool clears_workspace(const fx_cuda_looks *l, cudaGraphNode_t node)
{
    enum cudaGraphNodeType type;
    struct cudaMemsetParams p;
    if (cudaGraphNodeGetType(node, &type) != cudaSuccess || type != cudaGraphNodeTypeMemset) return false;
    if (cudaGraphMemsetNodeGetParams(node, &p) != cudaSuccess) return false;
    const char *at = p.dst;
    return at >= l->pool && at < l->pool + l->taken && p.value == 0 && p.height == 1;
}

/* What came after the node comes after what was before it. Only plain edges, as a stream makes them. */
static fx_status take_out(cudaGraph_t graph, cudaGraphNode_t node)
{
    cudaGraphNode_t before[4], after[4];
    size_t n = 4, m = 4;
    FX_CUDA(cudaGraphNodeGetDependencies(node, before, NULL, &n));
    FX_CUDA(cudaGraphNodeGetDependentNodes(node, after, NULL, &m));
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < m; k++)
            FX_CUDA(cudaGraphAddDependencies(graph, &before[i], &after[k], NULL, 1));
    FX_CUDA(cudaGraphDestroyNode(node));
    return FX_OK;
}

static bool simple(cudaGraphNode_t node)
{
    size_t n = 0, m = 0;
    return cudaGraphNodeGetDependencies(node, NULL, NULL, &n) == cudaSuccess &&
           cudaGraphNodeGetDependentNodes(node, NULL, NULL, &m) == cudaSuccess && n <= 4 && m <= 4;
}

static fx_status clear_at_the_beginning(const fx_cuda_looks *l, cudaGraph_t graph)
{
    const struct cudaMemsetParams all = {.dst = l->pool, .elementSize = 1, .width = l->taken, .height = 1};
    cudaGraphNode_t root[8], first;
    size_t n = 0;
    FX_CUDA(cudaGraphGetRootNodes(graph, NULL, &n));
    FX_CHECK(n <= 8, FX_EDEVICE, "a recorded step begins in %zu places", n);
    FX_CUDA(cudaGraphGetRootNodes(graph, root, &n));
    FX_CUDA(cudaGraphAddMemsetNode(&first, graph, NULL, 0, &all));
    for (size_t i = 0; i < n; i++) FX_CUDA(cudaGraphAddDependencies(graph, &first, &root[i], NULL, 1));
    return FX_OK;
}

/* *nodes: what the graph holds in the end. */
static fx_status gather_memsets(const fx_cuda_looks *l, cudaGraph_t graph, size_t *nodes)
{
    FX_CUDA(cudaGraphGetNodes(graph, NULL, nodes));
    cudaGraphNode_t *all = calloc(*nodes + 1, sizeof *all);
    FX_CHECK(all, FX_ENOMEM, "no memory for a recorded step");
    fx_status st =
        cudaGraphGetNodes(graph, all, nodes) == cudaSuccess ? FX_OK : fx_cuda_failed("cudaGraphGetNodes", "");
    size_t gone = 0;
    for (size_t i = 0; !st && i < *nodes; i++)
        if (clears_workspace(l, all[i]) && simple(all[i])) {
            st = take_out(graph, all[i]);
            gone++;
        }
    free(all);
    FX_TRY(st);
    *nodes -= gone;
    return l->taken ? clear_at_the_beginning(l, graph) : FX_OK;
}

static fx_status end(fx_backend *be, void **recording)
{
    fx_cuda_looks *l = fx_cuda_of(be)->looks;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    size_t nodes = 0;
    *recording = NULL;
    l->recording = false;
    FX_CUDA(cudaStreamEndCapture(fx_cuda_stream(be), &graph));
    const double begin_s = fx_now_s();
    fx_status st = gather_memsets(l, graph, &nodes);
    if (!st && cudaGraphInstantiate(&exec, graph, 0) != cudaSuccess)
        st = fx_cuda_failed("cudaGraphInstantiate", cudaGetErrorString(cudaGetLastError()));
    (void)cudaGraphDestroy(graph);
    FX_TRY(st);
    fx_log(FX_LOG_DETAIL,
           "recorded a step: %zu launches and copies, %zu KiB of small workspaces, made ready in %.1f ms",
           nodes, l->taken >> 10, 1e3 * (fx_now_s() - begin_s));
    *recording = exec;
    return FX_OK;
}

static fx_status play(fx_backend *be, void *recording)
{
    FX_CUDA(cudaGraphLaunch((cudaGraphExec_t)recording, fx_cuda_stream(be)));
    return FX_OK;
}

static void drop(fx_backend *be, void *recording)
{
    (void)be;
    if (recording) (void)cudaGraphExecDestroy((cudaGraphExec_t)recording);
}

static fx_status count(fx_backend *be, fx_tensor x)
{
    return fx_cuda_count_into(be, x, fx_cuda_of(be)->looks->count);
}

static fx_status fetch(fx_backend *be, int slot)
{
    const fx_cuda_looks *l = fx_cuda_of(be)->looks;
    FX_CUDA(cudaMemcpyAsync(l->slot + slot, l->count, sizeof *l->slot, cudaMemcpyDeviceToHost,
                            fx_cuda_stream(be)));
    FX_CUDA(cudaEventRecord(l->arrived[slot], fx_cuda_stream(be)));
    return FX_OK;
}

static fx_status fetched(fx_backend *be, int slot, int64_t *out)
{
    const fx_cuda_looks *l = fx_cuda_of(be)->looks;
    FX_CUDA(cudaEventSynchronize(l->arrived[slot]));
    *out = l->slot[slot];
    return FX_OK;
}

const fx_recorder fx_cuda_recorder = {begin, end, play, drop, count, fetch, fetched};
