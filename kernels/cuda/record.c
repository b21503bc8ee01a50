/* Recording as CUDA graphs; contract in kernels/record.h. One graph holds what the stream got between begin and end, work of
 * other streams that it waited for included. */
#include "kernels/record.h"

#include <stdlib.h>

#include "runtime/core/clock.h"
#include "runtime/core/log.h"

#include "kernels/cuda/internal.h"

/* Memory that kernels write and that the host reads later. */
struct fx_cuda_looks {
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
    if (l->count) (void)cudaFree(l->count);
    free(l);
    c->looks = NULL;
}

/* Other threads of this process may go on calling CUDA: only what this one does may break a recording. */
static fx_status begin(fx_backend *be)
{
    FX_CUDA(cudaStreamBeginCapture(fx_cuda_stream(be), cudaStreamCaptureModeThreadLocal));
    return FX_OK;
}

static fx_status end(fx_backend *be, void **recording)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    *recording = NULL;
    FX_CUDA(cudaStreamEndCapture(fx_cuda_stream(be), &graph));
    const double begin_s = fx_now_s();
    size_t nodes = 0;
    const cudaError_t e = cudaGraphInstantiate(&exec, graph, 0);
    (void)cudaGraphGetNodes(graph, NULL, &nodes);
    (void)cudaGraphDestroy(graph);
    fx_log(FX_LOG_DETAIL, "recorded a step: %zu launches and copies, made ready in %.1f ms", nodes,
           1e3 * (fx_now_s() - begin_s));
    FX_CUDA(e);
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
