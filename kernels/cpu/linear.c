/* y = act(x w^T + b): weights in panels, blocks of rows gathered by copy (or used in place). */
#include "kernels/cpu/internal.h"
#include "kernels/cpu/multi.h"

size_t fx_cpu_packed_bytes(fx_backend *be, const fx_weight *w)
{
    (void)be;
    return fx_cpu_panel_bytes(w->n, w->k * w->kh * w->kw, w->dtype);
}

fx_status fx_cpu_pack(fx_backend *be, const fx_weight *w, const void *src, void *dst)
{
    const int64_t taps = (int64_t)w->kh * w->kw;
    fx_cpu_pack_panels(be, w->n, w->k * taps, w->dtype, src, taps, dst);
    return FX_OK;
}

fx_status fx_cpu_linear_scratch(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b,
                                fx_act act, size_t *bytes)
{
    (void)be, (void)y, (void)x, (void)w, (void)b, (void)act;
    *bytes = 0;
    return FX_OK;
}

typedef struct linear_job {
    fx_tensor y, x;
    const float *bias;
    fx_act act;
} linear_job;

FX_INLINE void widen_row_any(float *dst, const uint16_t *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++) dst[i] = fx_widen_bf16(src[i]);
}
FX_MULTI(widen_row, (float *restrict dst, const uint16_t *restrict src, int64_t n), (dst, src, n))

void fx_cpu_gather(fx_dtype operand, fx_dtype dtype, const void *src, int64_t n, void *dst)
{
    if (operand == dtype)
        memcpy(dst, src, (size_t)n * fx_dtype_size(dtype));
    else
        widen_row(dst, src, n);
}

static void fill_rows(const fx_gemm *g, fx_dtype operand, int64_t row, int64_t rows, int64_t k0,
                      int64_t count, void *dst, int64_t ld)
{
    const linear_job *j = g->ctx;
    const int64_t es = (int64_t)fx_dtype_size(operand);
    for (int64_t i = 0; i < rows; i++) {
        char *to = (char *)dst + i * ld * es;
        fx_cpu_gather(operand, j->x.dtype, fx_at(j->x, (row + i) * j->x.stride[0] + k0), count, to);
        fx_cpu_pad_row(operand, to, count);
    }
}

static void store_rows(const fx_gemm *g, int64_t row, int64_t rows, int64_t col, int64_t cols, const float *c,
                       int64_t ldc)
{
    const linear_job *j = g->ctx;
    for (int64_t i = 0; i < rows; i++)
        fx_cpu_finish_row(fx_at_mut(j->y, (row + i) * j->y.stride[0] + col), j->y.dtype, c + i * ldc,
                          j->bias ? j->bias + col : NULL, cols, j->act);
}

fx_status fx_cpu_linear(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act act,
                        void *scratch)
{
    (void)scratch;
    const linear_job job = {y, x, fx_present(b) ? b.data : NULL, act};
    const fx_gemm g = {
        .m = x.shape[0],
        .n = w.n,
        .k = w.k,
        .packed = w.packed,
        .dtype = w.dtype,
        .ctx = &job,
        .fill = fill_rows,
        .store = store_rows,
        .direct = x.dtype == FX_F32 ? x.data : NULL,
        .direct_ld = x.stride[0],
    };
    fx_cpu_gemm(be, &g);
    return FX_OK;
}
