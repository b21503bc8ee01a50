/* Which of cuBLASLt's algorithms a large product takes: the fastest in a trial on this device among those whose results have
 * the very bits of the reference algorithm's (gemm.c: the same one for every number of rows). On random operands of the
 * product's real shape every element is compared, by a digest; an algorithm that sums in another order does not pass. So the
 * choice may differ between ranks and runs and the picture does not. Without room for the operands the reference algorithm
 * stays. */
#include <string.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/internal.h"
#include "runtime/core/log.h"

enum { CALLS = 3, BIAS_SEED = 1, X_SEED = 2, W_SEED = 3 };
static const double worth = 1e9; /* flop from which on a trial pays: some microseconds in every call */

/* On a stream, a workspace and operands of its own: the backend's stream may be waiting for another rank. */
typedef struct bench {
    fx_cuda own;
    fx_backend be;
    cudaEvent_t begin, end;
    char *memory;
    uint16_t *x, *w, *y, *bias;
    int64_t y_words;
    unsigned long long *sum;
} bench;

static size_t padded(int64_t words)
{
    return ((size_t)words * 2 + 255) / 256 * 256;
}

static int64_t words_of(int32_t type)
{
    return type == CUDA_R_32F ? 2 : 1;
}

static fx_status set_up(bench *b, const fx_cuda *c, const fx_lt_key *key, bool *room)
{
    const int64_t x = key->m * key->ldx, w = key->n * key->ldw, y = key->m * key->ldy * words_of(key->out);
    const size_t all = padded(x) + padded(w) + padded(y) + 2 * padded(2 * key->n) + c->workspace_bytes;
    b->own = *c;
    b->be.impl = &b->own;
    b->own.stream = NULL;
    FX_CUDA(cudaStreamCreateWithFlags(&b->own.stream, cudaStreamNonBlocking));
    FX_CUDA(cudaEventCreate(&b->begin));
    FX_CUDA(cudaEventCreate(&b->end));
    *room = cudaMallocAsync((void **)&b->memory, all, b->own.stream) == cudaSuccess;
    if (!*room) {
        (void)cudaGetLastError();
        return FX_OK;
    }
    b->own.workspace = b->memory; /* first, for its alignment */
    b->x = (uint16_t *)(b->memory + c->workspace_bytes);
    b->w = b->x + padded(x) / 2;
    b->y = b->w + padded(w) / 2;
    b->bias = b->y + padded(y) / 2;
    b->sum = (unsigned long long *)(b->bias + padded(2 * key->n) / 2);
    b->y_words = y;
    FX_CUDA(cudaMemsetAsync(b->y, 0, (size_t)y * 2, b->own.stream)); /* rows may lie apart */
    FX_TRY(fx_cuda_draw(&b->be, b->x, FX_BF16, x, X_SEED, 0, 1, 0));
    FX_TRY(fx_cuda_draw(&b->be, b->w, FX_BF16, w, W_SEED, 0, 1, 0));
    if (key->out == CUDA_R_16BF) return fx_cuda_draw(&b->be, b->bias, FX_BF16, key->n, BIAS_SEED, 0, 1, 0);
    FX_CUDA(cudaMemsetAsync(b->bias, 0, (size_t)key->n * 4, b->own.stream));
    return FX_OK;
}

static void take_down(bench *b)
{
    if (b->memory) (void)cudaFreeAsync(b->memory, b->own.stream);
    if (b->begin) (void)cudaEventDestroy(b->begin);
    if (b->end) (void)cudaEventDestroy(b->end);
    if (b->own.stream) {
        (void)cudaStreamSynchronize(b->own.stream);
        (void)cudaStreamDestroy(b->own.stream);
    }
}

/* The algorithm's digest, and its time per call. */
static fx_status try_one(bench *b, fx_lt_plan *p, const cublasLtMatmulAlgo_t *algo,
                         unsigned long long *digest, float *ms)
{
    FX_TRY(fx_lt_run(&b->own, p, algo, 1, b->y, b->x, b->w, b->bias));
    FX_TRY(fx_cuda_digest(&b->be, b->y, b->y_words, b->sum));
    FX_CUDA(cudaMemcpyAsync(digest, b->sum, sizeof *digest, cudaMemcpyDeviceToHost, b->own.stream));
    FX_CUDA(cudaEventRecord(b->begin, b->own.stream));
    for (int i = 0; i < CALLS; i++) FX_TRY(fx_lt_run(&b->own, p, algo, 1, b->y, b->x, b->w, b->bias));
    FX_CUDA(cudaEventRecord(b->end, b->own.stream));
    FX_CUDA(cudaStreamSynchronize(b->own.stream));
    FX_CUDA(cudaEventElapsedTime(ms, b->begin, b->end));
    *ms /= CALLS;
    return FX_OK;
}

static fx_status race(bench *b, fx_lt_plan *p, const cublasLtMatmulAlgo_t algo[], int n)
{
    unsigned long long want, got;
    float best, ms, before;
    int equal = 0, others = 0;
    cublasLtMatmulAlgo_t winner = p->algo;
    FX_TRY(try_one(b, p, &p->algo, &want, &best)); /* once more: the first call of all pays for much */
    FX_TRY(try_one(b, p, &p->algo, &want, &before));
    best = before;
    for (int i = 0; i < n; i++) {
        if (!memcmp(&algo[i], &p->algo, sizeof algo[i])) continue;
        FX_TRY(try_one(b, p, &algo[i], &got, &ms));
        others++;
        equal += got == want;
        if (got != want || ms >= best) continue;
        best = ms;
        winner = algo[i];
    }
    p->algo = winner;
    fx_log(FX_LOG_DETAIL,
           "product %lld x %lld x %lld: %d of %d other algorithms give the same bits; %.1f -> %.1f us",
           (long long)p->key.m, (long long)p->key.n, (long long)p->key.k, equal, others, (double)before * 1e3,
           (double)best * 1e3);
    return FX_OK;
}

bool fx_lt_worth_a_trial(const fx_lt_key *k)
{
    return k->batch == 1 && !k->w_plain && k->in == CUDA_R_16BF &&
           2.0 * (double)k->m * (double)k->n * (double)k->k >= worth;
}

fx_status fx_lt_tune(fx_cuda *c, fx_lt_plan *p, const cublasLtMatmulAlgo_t algo[], int n, bool *tried)
{
    bench b;
    *tried = false;
    memset(&b, 0, sizeof b);
    fx_status st = set_up(&b, c, &p->key, tried);
    if (!st && *tried) st = race(&b, p, algo, n);
    take_down(&b);
    return st;
}
