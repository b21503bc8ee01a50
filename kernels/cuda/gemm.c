/* Matrix products through cuBLASLt. Row-major y[M,N] = x[M,K] w[N,K]^T is, in the library's column-major view,
 * y^T[N,M] = op_T(w[K,N]) x[K,M]: the TN form. One algorithm per (N, K, types, epilogue), chosen once at a fixed M and
 * without split-K, so that a row has the same bits whatever the number of rows beside it. */
#include "kernels/cuda/internal.h"

#include <stdlib.h>
#include <string.h>

struct fx_lt_plan {
    fx_lt_plan *next;
    fx_lt_key key;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulAlgo_t algo;
};

enum { CHOICES = 64, FIXED_M = 4608 }; /* rows of 1024x1024: where the time goes */

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

static fx_status describe(fx_lt_plan *p, int64_t m)
{
    const fx_lt_key *k = &p->key;
    const cublasOperation_t w_op = k->w_plain ? CUBLAS_OP_N : CUBLAS_OP_T, x_op = CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = (cublasLtEpilogue_t)k->epilogue;
    FX_LT(cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    FX_LT(cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &w_op, sizeof w_op));
    FX_LT(cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSB, &x_op, sizeof x_op));
    FX_LT(cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
    if (k->w_plain)
        FX_TRY(set_layout(&p->w, k->in, k->n, k->k, k->ldw, k->batch, k->stride_w));
    else
        FX_TRY(set_layout(&p->w, k->in, k->k, k->n, k->ldw, k->batch, k->stride_w));
    FX_TRY(set_layout(&p->x, k->in, k->k, m, k->ldx, k->batch, k->stride_x));
    return set_layout(&p->y, k->out, k->n, m, k->ldy, k->batch, k->stride_y);
}

static void forget(fx_lt_plan *p)
{
    if (p->op) cublasLtMatmulDescDestroy(p->op);
    if (p->w) cublasLtMatrixLayoutDestroy(p->w);
    if (p->x) cublasLtMatrixLayoutDestroy(p->x);
    if (p->y) cublasLtMatrixLayoutDestroy(p->y);
    p->op = NULL, p->w = p->x = p->y = NULL;
}

/* The algorithm with no sum split; false where it cannot do without. */
static bool unsplit(cublasLtMatmulAlgo_t *a)
{
    int32_t parts = 1, scheme = CUBLASLT_REDUCTION_SCHEME_NONE;
    size_t n;
    (void)cublasLtMatmulAlgoConfigGetAttribute(a, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts, sizeof parts, &n);
    if (parts <= 1) return true;
    parts = 1;
    return cublasLtMatmulAlgoConfigSetAttribute(a, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts, sizeof parts) ==
               CUBLAS_STATUS_SUCCESS &&
           cublasLtMatmulAlgoConfigSetAttribute(a, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme,
                                                sizeof scheme) == CUBLAS_STATUS_SUCCESS;
}

static fx_status ask(fx_cuda *c, fx_lt_plan *p, int64_t m, cublasLtMatmulHeuristicResult_t result[], int *got)
{
    static const cublasLtMatmulPreferenceAttributes_t each[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    cublasLtMatmulPreference_t want;
    const uint32_t align = (uint32_t)p->key.align;
    forget(p);
    FX_TRY(describe(p, m));
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

/* The first of the library's choices at this M that splits no sum and that also runs the real M. */
static fx_status choose(fx_cuda *c, fx_lt_plan *p, int64_t m, bool *found)
{
    cublasLtMatmulHeuristicResult_t result[CHOICES];
    int got;
    *found = false;
    FX_TRY(ask(c, p, m, result, &got));
    if (m != p->key.m) {
        forget(p);
        FX_TRY(describe(p, p->key.m));
    }
    for (int i = 0; i < got && !*found; i++) {
        cublasLtMatmulHeuristicResult_t check;
        if (result[i].state != CUBLAS_STATUS_SUCCESS || !unsplit(&result[i].algo)) continue;
        if (cublasLtMatmulAlgoCheck(c->lt, p->op, p->w, p->x, p->y, p->y, &result[i].algo, &check) !=
                CUBLAS_STATUS_SUCCESS ||
            check.workspaceSize > c->workspace_bytes)
            continue;
        p->algo = result[i].algo;
        *found = true;
    }
    return FX_OK;
}

static fx_status plan_of(fx_cuda *c, const fx_lt_key *key, fx_lt_plan **out)
{
    for (*out = c->lt_plans; *out; *out = (*out)->next)
        if (!memcmp(&(*out)->key, key, sizeof *key)) return FX_OK;
    fx_lt_plan *p = calloc(1, sizeof *p);
    FX_CHECK(p, FX_ENOMEM, "no memory for a matrix product's plan");
    p->key = *key;
    bool found = false;
    fx_status st = choose(c, p, FIXED_M, &found);
    if (!st && !found) st = choose(c, p, key->m, &found);
    if (!st && !found)
        st = FX_FAIL(FX_EDEVICE, "cuBLASLt has no algorithm for [%lld,%lld] = [%lld,%lld] x [%lld,%lld]^T",
                     (long long)key->m, (long long)key->n, (long long)key->m, (long long)key->k,
                     (long long)key->n, (long long)key->k);
    if (st) {
        free_plan(p);
        return st;
    }
    p->next = c->lt_plans;
    c->lt_plans = *out = p;
    return FX_OK;
}

fx_status fx_cuda_gemm(fx_backend *be, const fx_lt_key *key, float alpha, void *y, const void *x,
                       const void *w, const void *bias)
{
    fx_cuda *c = fx_cuda_of(be);
    const float zero = 0;
    fx_lt_plan *p;
    FX_TRY(plan_of(c, key, &p));
    if (bias) /* a plan without one has no such epilogue */
        FX_LT(cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
    FX_LT(cublasLtMatmul(c->lt, p->op, &alpha, w, p->w, x, p->x, &zero, y, p->y, y, p->y, &p->algo,
                         c->workspace, c->workspace_bytes, c->stream));
    return FX_OK;
}
