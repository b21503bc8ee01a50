/* Matrix products through cuBLASLt. Row-major y[M,N] = x[M,K] w[N,K]^T is, in the library's column-major view,
 * y^T[N,M] = op_T(w[K,N]) x[K,M]: the TN form. One reference algorithm per (N, K, types, epilogue), chosen at a fixed M and
 * without split-K, so that a row has the same bits whatever the number of rows beside it; large products take the fastest one
 * that is proved to give those bits (tune.c). */
#include "kernels/cuda/internal.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/core/log.h"

/* Rows of 1024x1024, where the time goes, and the heads of FLUX.1. */
enum { CHOICES = 64, FIXED_M = 4608, FIXED_HEADS = 24 };

static void free_plan(fx_lt_plan *p)
{
    if (p->op) cublasLtMatmulDescDestroy(p->op);
    if (p->w) cublasLtMatrixLayoutDestroy(p->w);
    if (p->x) cublasLtMatrixLayoutDestroy(p->x);
    if (p->y) cublasLtMatrixLayoutDestroy(p->y);
    free(p);
}

void fx_cuda_gemm_close(fx_cuda *c)
{
    while (c->lt_plans) {
        fx_lt_plan *p = c->lt_plans;
        c->lt_plans = p->next;
        free_plan(p);
    }
}

static fx_status set_layout(cublasLtMatrixLayout_t *out, int32_t type, int64_t rows, int64_t cols, int64_t ld,
                            int64_t batch, int64_t stride)
{
    const int32_t count = (int32_t)batch;
    FX_LT(cublasLtMatrixLayoutCreate(out, (cudaDataType_t)type, (uint64_t)rows, (uint64_t)cols, ld));
    if (batch == 1) return FX_OK;
    FX_LT(cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count));
    FX_LT(cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                           sizeof stride));
    return FX_OK;
}

/* Attention's products come head by head: with other numbers of heads the library would take other algorithms. */
static int64_t fixed_batch(const fx_lt_key *k)
{
    return k->stride_w ? FIXED_HEADS : k->batch;
}

static fx_status describe(fx_lt_plan *p, int64_t m, int64_t batch)
{
    const fx_lt_key *k = &p->key;
    const cublasOperation_t w_op = k->w_plain ? CUBLAS_OP_N : CUBLAS_OP_T, x_op = CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = (cublasLtEpilogue_t)k->epilogue;
    FX_LT(cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    FX_LT(cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &w_op, sizeof w_op));
    FX_LT(cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSB, &x_op, sizeof x_op));
    FX_LT(cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
    if (k->w_plain)
        FX_TRY(set_layout(&p->w, k->in, k->n, k->k, k->ldw, batch, k->stride_w));
    else
        FX_TRY(set_layout(&p->w, k->in, k->k, k->n, k->ldw, batch, k->stride_w));
    FX_TRY(set_layout(&p->x, k->in, k->k, m, k->ldx, batch, k->stride_x));
    return set_layout(&p->y, k->out, k->n, m, k->ldy, batch, k->stride_y);
}

static bool has_bias(const fx_lt_key *k)
{
    return k->epilogue == CUBLASLT_EPILOGUE_BIAS || k->epilogue == CUBLASLT_EPILOGUE_GELU_BIAS;
}

static void forget(fx_lt_plan *p)
{
    if (p->op) cublasLtMatmulDescDestroy(p->op);
    if (p->w) cublasLtMatrixLayoutDestroy(p->w);
    if (p->x) cublasLtMatrixLayoutDestroy(p->x);
    if (p->y) cublasLtMatrixLayoutDestroy(p->y);
    p->op = NULL, p->w = p->x = p->y = NULL;
}

/* The algorithm with no sum split between CTAs, in whichever way; false where it cannot do without. */
static bool unsplit(cublasLtMatmulAlgo_t *a)
{
    int32_t parts = 1, scheme = CUBLASLT_REDUCTION_SCHEME_NONE;
    size_t n;
    (void)cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts, sizeof parts, &n);
    (void)cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme,
                                               sizeof scheme, &n);
    if (parts <= 1 && scheme == CUBLASLT_REDUCTION_SCHEME_NONE) return true;
    parts = 1, scheme = CUBLASLT_REDUCTION_SCHEME_NONE;
    return cublasLtMatmulAlgoConfigSetAttribute(a, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts, sizeof parts) ==
               CUBLAS_STATUS_SUCCESS &&
           cublasLtMatmulAlgoConfigSetAttribute(a, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme,
                                                sizeof scheme) == CUBLAS_STATUS_SUCCESS;
}

static fx_status ask(fx_cuda *c, fx_lt_plan *p, int64_t m, int64_t batch,
                     cublasLtMatmulHeuristicResult_t result[], int *got)
{
    static const cublasLtMatmulPreferenceAttributes_t each[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    cublasLtMatmulPreference_t want;
    const uint32_t align = (uint32_t)p->key.align;
    forget(p);
    FX_TRY(describe(p, m, batch));
    FX_LT(cublasLtMatmulPreferenceCreate(&want));
    (void)cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                               &c->workspace_bytes, sizeof c->workspace_bytes);
    for (int i = 0; i < 4; i++)
        (void)cublasLtMatmulPreferenceSetAttribute(want, each[i], &align, sizeof align);
    *got = 0;
    if (cublasLtMatmulAlgoGetHeuristic(c->lt, p->op, p->w, p->x, p->y, p->y, want, CHOICES, result, got) !=
        CUBLAS_STATUS_SUCCESS)
        *got = 0;
    cublasLtMatmulPreferenceDestroy(want);
    return FX_OK;
}

/* The library's choices at this number of rows (and of heads) that split no sum and also run the real one, best first. */
static fx_status choices(fx_cuda *c, fx_lt_plan *p, int64_t m, int64_t batch, cublasLtMatmulAlgo_t algo[],
                         int *n)
{
    cublasLtMatmulHeuristicResult_t result[CHOICES], check;
    int got;
    *n = 0;
    FX_TRY(ask(c, p, m, batch, result, &got));
    if (m != p->key.m || batch != p->key.batch) {
        forget(p);
        FX_TRY(describe(p, p->key.m, p->key.batch));
    }
    for (int i = 0; i < got; i++) {
        if (result[i].state != CUBLAS_STATUS_SUCCESS || !unsplit(&result[i].algo)) continue;
        if (cublasLtMatmulAlgoCheck(c->lt, p->op, p->w, p->x, p->y, p->y, &result[i].algo, &check) !=
                CUBLAS_STATUS_SUCCESS ||
            check.workspaceSize > c->workspace_bytes)
            continue;
        algo[(*n)++] = result[i].algo;
    }
    return FX_OK;
}

static const char kind[] = "product";

/* The winner of an earlier run's trial. */
static bool recall(fx_cuda *c, fx_lt_plan *p)
{
    cublasLtMatmulHeuristicResult_t check;
    cublasLtMatmulAlgo_t algo;
    void *data;
    size_t bytes;
    if (!fx_cuda_recall(c, kind, &p->key, sizeof p->key, &data, &bytes)) return false;
    const bool whole = bytes == sizeof algo;
    if (whole) memcpy(&algo, data, sizeof algo);
    free(data);
    if (!whole ||
        cublasLtMatmulAlgoCheck(c->lt, p->op, p->w, p->x, p->y, p->y, &algo, &check) !=
            CUBLAS_STATUS_SUCCESS ||
        check.workspaceSize > c->workspace_bytes)
        return false;
    p->algo = algo;
    return true;
}

static fx_status choose(fx_cuda *c, fx_lt_plan *p)
{
    cublasLtMatmulAlgo_t algo[CHOICES];
    const fx_lt_key *k = &p->key;
    int n;
    FX_TRY(choices(c, p, FIXED_M, fixed_batch(k), algo, &n));
    if (!n) {
        FX_TRY(choices(c, p, k->m, k->batch, algo, &n));
        fx_log(
            FX_LOG_DETAIL,
            "product %lld x %lld x %lld: no algorithm for %d rows runs it; its bits may depend on its rows",
            (long long)k->m, (long long)k->n, (long long)k->k, FIXED_M);
    }
    FX_CHECK(n, FX_EDEVICE, "cuBLASLt has no algorithm for [%lld,%lld] = [%lld,%lld] x [%lld,%lld]^T",
             (long long)k->m, (long long)k->n, (long long)k->m, (long long)k->k, (long long)k->n,
             (long long)k->k);
    p->algo = algo[0];
    if (!fx_lt_worth_a_trial(k) || recall(c, p)) return FX_OK;
    FX_TRY(choices(c, p, k->m, k->batch, algo, &n));
    bool tried;
    FX_TRY(fx_lt_tune(c, p, algo, n, &tried));
    if (tried) fx_cuda_remember(c, kind, k, sizeof *k, &p->algo, sizeof p->algo);
    return FX_OK;
}

static fx_status plan_of(fx_cuda *c, const fx_lt_key *key, fx_lt_plan **out)
{
    for (*out = c->lt_plans; *out; *out = (*out)->next)
        if (!memcmp(&(*out)->key, key, sizeof *key)) return FX_OK;
    fx_lt_plan *p = calloc(1, sizeof *p);
    FX_CHECK(p, FX_ENOMEM, "no memory for a matrix product's plan");
    p->key = *key;
    const fx_status st = choose(c, p);
    if (st) {
        free_plan(p);
        return st;
    }
    p->next = c->lt_plans;
    c->lt_plans = *out = p;
    return FX_OK;
}

fx_status fx_cuda_gemm_prepare(fx_backend *be, const fx_lt_key *key)
{
    fx_lt_plan *p;
    return plan_of(fx_cuda_of(be), key, &p);
}

fx_status fx_lt_run(const fx_cuda *c, const fx_lt_plan *p, const cublasLtMatmulAlgo_t *algo, float alpha,
                    void *y, const void *x, const void *w, const void *bias)
{
    const float zero = 0;
    if (has_bias(&p->key))
        FX_LT(cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
    FX_LT(cublasLtMatmul(c->lt, p->op, &alpha, w, p->w, x, p->x, &zero, y, p->y, y, p->y, algo, c->workspace,
                         c->workspace_bytes, c->stream));
    return FX_OK;
}

enum { COUNTERS = 256 }; /* bytes that a product may clear although it asks for none */

fx_status fx_cuda_gemm(fx_backend *be, const fx_lt_key *key, float alpha, void *y, const void *x,
                       const void *w, const void *bias)
{
    fx_lt_plan *p;
    fx_cuda c = *fx_cuda_of(be); /* its workspace may be another */
    FX_TRY(plan_of(fx_cuda_of(be), key, &p));
    cublasLtMatmulHeuristicResult_t need;
    if (fx_cuda_recording(&c) && cublasLtMatmulAlgoCheck(c.lt, p->op, p->w, p->x, p->y, p->y, &p->algo,
                                                         &need) == CUBLAS_STATUS_SUCCESS) {
        const size_t bytes = need.workspaceSize > COUNTERS ? need.workspaceSize : COUNTERS;
        void *const own = fx_cuda_own_workspace(&c, bytes);
        if (own != c.workspace) c.workspace = own, c.workspace_bytes = bytes;
    }
    return fx_lt_run(&c, p, &p->algo, alpha, y, x, w, bias);
}
