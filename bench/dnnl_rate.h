/* The yardstick of the CPU benches: what oneDNN itself reaches on one large matmul in this process. Without
 * oneDNN (FX_ONEDNN=OFF) it measures nothing and its rate is 0. */
#ifndef FX_BENCH_DNNL_RATE_H
#define FX_BENCH_DNNL_RATE_H

#include <stdlib.h>
#include <string.h>

#include "runtime/core/clock.h"
#include "runtime/core/tensor.h"
#if FX_HAVE_ONEDNN
#include "kernels/onednn/compat.h"
#endif

typedef struct yardstick {
    double flop; /* 0: none */
    const char *name;
    fx_dtype dtype; /* of its operands */
#if FX_HAVE_ONEDNN
    fx_dnnl *dnnl;
    fx_dnnl_op *op;
    void *x, *w, *y, *scratch;
#endif
} yardstick;

#if FX_HAVE_ONEDNN
/* Values in [-1, 1): zeros would be computed faster on some machines. */
static inline void *yardstick_values(size_t bytes, fx_dtype dtype)
{
    void *data = aligned_alloc(4096, (bytes + 8191) / 4096 * 4096);
    for (size_t i = 0; data && i < bytes / fx_dtype_size(dtype); i++) {
        const float v = (float)((int)(i * 2654435761u >> 16 & 255) - 128) / 128.0f;
        if (dtype == FX_BF16)
            ((uint16_t *)data)[i] = fx_f32_to_bf16(v);
        else
            ((float *)data)[i] = v;
    }
    return data;
}

/* x[M,K] w[N,K]^T with weights in the library's own form. Not 0: failed, fx_error says why. */
static inline int yardstick_try(yardstick *y, int64_t M, int64_t N, int64_t K, fx_dtype dtype, int threads)
{
    const fx_weight w = {.n = N, .k = K, .kh = 1, .kw = 1, .kind = FX_WEIGHT_LINEAR, .dtype = dtype};
    const size_t es = fx_dtype_size(dtype);
    size_t bytes;
    fx_dnnl_shape s;
    memset(&s, 0, sizeof s);
    s.m = M, s.n = N, s.k = K, s.x_stride = K, s.y_stride = N;
    s.kind = FX_WEIGHT_LINEAR, s.dtype = s.out = dtype;
    *y = (yardstick){
        .flop = 2.0 * (double)M * (double)N * (double)K, .name = fx_dnnl_version_text(), .dtype = dtype};
    if (fx_dnnl_open(threads, &y->dnnl) || fx_dnnl_weight_bytes(y->dnnl, &w, &bytes) ||
        fx_dnnl_op_new(y->dnnl, &s, &y->op))
        return 1;
    y->x = yardstick_values((size_t)(M * K) * es, dtype);
    y->w = yardstick_values(bytes, dtype); /* any values will do, in any form */
    y->y = yardstick_values((size_t)(M * N) * es, dtype);
    y->scratch = yardstick_values(fx_dnnl_op_scratch(y->op), FX_F32);
    return !y->x || !y->w || !y->y || !y->scratch;
}

static inline void yardstick_close(yardstick *y)
{
    fx_dnnl_op_free(&y->op);
    fx_dnnl_close(&y->dnnl);
    free(y->x), free(y->w), free(y->y), free(y->scratch);
}

/* A processor without bf16 products (AVX2, AVX-512 before bf16) is measured by what it does best there: f32. */
static inline int yardstick_open(yardstick *y, int64_t M, int64_t N, int64_t K, fx_dtype dtype, int threads)
{
    if (!yardstick_try(y, M, N, K, dtype, threads)) return 0;
    yardstick_close(y);
    return dtype == FX_BF16 ? yardstick_try(y, M, N, K, FX_F32, threads) : 1;
}

static inline double yardstick_run_s(yardstick *y)
{
    const double begin = fx_now_s();
    (void)fx_dnnl_op_run(y->op, FX_ACT_NONE, y->x, y->w, NULL, y->y, y->scratch);
    return fx_now_s() - begin;
}

#else
static inline int yardstick_open(yardstick *y, int64_t M, int64_t N, int64_t K, fx_dtype dtype, int threads)
{
    (void)M, (void)N, (void)K, (void)dtype, (void)threads;
    *y = (yardstick){.flop = 0, .name = "no oneDNN"};
    return 0;
}

static inline double yardstick_run_s(yardstick *y)
{
    (void)y;
    return 1;
}

static inline void yardstick_close(yardstick *y)
{
    (void)y;
}
#endif

#endif
