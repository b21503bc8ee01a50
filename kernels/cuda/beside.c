/* Copies to other ranks by copy engines, beside the kernels of the backend's stream (kernels/window.h: send, join): a second
 * stream that begins after an event of the first, and that the first waits for at the join. While recording, the same calls make
 * a branch of the graph, so only what a capture allows is used, and a branch must be joined before the recording ends. Called
 * through kernels/registry.c by parallel/window.c. */
#include "kernels/cuda/internal.h"

fx_status fx_cuda_beside_open(fx_cuda *c)
{
    FX_CUDA(cudaStreamCreateWithFlags(&c->beside, cudaStreamNonBlocking));
    FX_CUDA(cudaEventCreateWithFlags(&c->fork, cudaEventDisableTiming));
    FX_CUDA(cudaEventCreateWithFlags(&c->joined, cudaEventDisableTiming));
    return FX_OK;
}

void fx_cuda_beside_close(fx_cuda *c)
{
    if (c->beside) (void)cudaStreamSynchronize(c->beside);
    if (c->fork) (void)cudaEventDestroy(c->fork);
    if (c->joined) (void)cudaEventDestroy(c->joined);
    if (c->beside) (void)cudaStreamDestroy(c->beside);
}

bool fx_cuda_window_under_way(const fx_backend *be)
{
    return fx_cuda_of(be)->sending;
}

/* The direction is left to the addresses: peers' memory is mapped by CUDA's handles or by NCCL's windows. */
static fx_status copy(const fx_cuda *c, const fx_window_copy *x)
{
    FX_CUDA(cudaMemcpyAsync(x->to, x->from, x->bytes, cudaMemcpyDefault, c->beside));
    return FX_OK;
}

fx_status fx_cuda_window_send(fx_backend *be, const fx_window_copy copies[], int n)
{
    fx_cuda *c = fx_cuda_of(be);
    FX_CUDA(cudaEventRecord(c->fork, c->stream));
    FX_CUDA(cudaStreamWaitEvent(c->beside, c->fork, 0));
    c->sending = true;
    for (int i = 0; i < n; i++) FX_TRY(copy(c, &copies[i]));
    return FX_OK;
}

fx_status fx_cuda_window_join(fx_backend *be)
{
    fx_cuda *c = fx_cuda_of(be);
    if (!c->sending) return FX_OK;
    c->sending = false;
    FX_CUDA(cudaEventRecord(c->joined, c->beside));
    FX_CUDA(cudaStreamWaitEvent(c->stream, c->joined, 0));
    return FX_OK;
}
