/* Row normalisation: layer norm (plain and modulated), RMS norm, and the per-head RMS norm + rotation of q
 * and k. Two passes over a row that stays in L1; sums run over 16 lanes in a fixed order. */
#include "kernels/cpu/internal.h"
#include "kernels/cpu/multi.h"

#include <math.h>

FX_INLINE float row_sum(const void *x, fx_dtype dtype, int64_t n)
{
    float lane[16] = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) lane[j] += fx_load(x, i + j, dtype);
    for (int j = 0; i + j < n; j++) lane[j] += fx_load(x, i + j, dtype);
    return fx_sum16(lane);
}

/* sum (x - centre)^2 */
FX_INLINE float row_squares(const void *x, fx_dtype dtype, int64_t n, float centre)
{
    float lane[16] = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) {
            const float d = fx_load(x, i + j, dtype) - centre;
            lane[j] += d * d;
        }
    for (int j = 0; i + j < n; j++) {
        const float d = fx_load(x, i + j, dtype) - centre;
        lane[j] += d * d;
    }
    return fx_sum16(lane);
}

/* y = (x - mean) / sqrt(var + eps) * (w + one) + b; one is 1 for a modulation scale. */
FX_INLINE void layer_row(void *y, fx_dtype yd, const void *x, fx_dtype xd, const float *w, float one,
                         const float *b, int64_t n, float eps)
{
    const float mean = row_sum(x, xd, n) / (float)n;
    const float inv = 1.0f / sqrtf(row_squares(x, xd, n, mean) / (float)n + eps);
    for (int64_t i = 0; i < n; i++)
        fx_store(y, i, yd, (fx_load(x, i, xd) - mean) * inv * (w[i] + one) + b[i]);
}

FX_INLINE void layer_any(void *y, fx_dtype yd, const void *x, fx_dtype xd, const float *w, float one,
                         const float *b, int64_t n, float eps)
{
    if (xd == FX_F32 && yd == FX_F32)
        layer_row(y, FX_F32, x, FX_F32, w, one, b, n, eps);
    else if (xd == FX_F32)
        layer_row(y, FX_BF16, x, FX_F32, w, one, b, n, eps);
    else if (yd == FX_F32)
        layer_row(y, FX_F32, x, FX_BF16, w, one, b, n, eps);
    else
        layer_row(y, FX_BF16, x, FX_BF16, w, one, b, n, eps);
}
FX_MULTI(layer,
         (void *restrict y, fx_dtype yd, const void *restrict x, fx_dtype xd, const float *restrict w,
          float one, const float *restrict b, int64_t n, float eps),
         (y, yd, x, xd, w, one, b, n, eps))

FX_INLINE void rms_row(void *y, fx_dtype yd, const void *x, fx_dtype xd, const float *w, int64_t n, float eps)
{
    const float inv = 1.0f / sqrtf(row_squares(x, xd, n, 0.0f) / (float)n + eps);
    for (int64_t i = 0; i < n; i++) fx_store(y, i, yd, fx_load(x, i, xd) * inv * w[i]);
}

/* x is the residual stream: always f32. */
FX_INLINE void rms_any(void *y, fx_dtype yd, const void *x, const float *w, int64_t n, float eps)
{
    if (yd == FX_F32)
        rms_row(y, FX_F32, x, FX_F32, w, n, eps);
    else
        rms_row(y, FX_BF16, x, FX_F32, w, n, eps);
}
FX_MULTI(rms,
         (void *restrict y, fx_dtype yd, const void *restrict x, const float *restrict w, int64_t n,
          float eps),
         (y, yd, x, w, n, eps))

typedef struct norm_job {
    fx_tensor y, x;
    const float *w, *b;
    float one, eps;
} norm_job;

static int64_t row_grain(int64_t row_elements)
{
    return 1 + 16384 / (row_elements + 1);
}

static void layer_range(const void *job, int64_t begin, int64_t end, int thread)
{
    const norm_job *j = job;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        layer(fx_at_mut(j->y, i * j->y.stride[0]), j->y.dtype, fx_at(j->x, i * j->x.stride[0]), j->x.dtype,
              j->w, j->one, j->b, j->x.shape[1], j->eps);
}

static void rms_range(const void *job, int64_t begin, int64_t end, int thread)
{
    const norm_job *j = job;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        rms(fx_at_mut(j->y, i * j->y.stride[0]), j->y.dtype, fx_at(j->x, i * j->x.stride[0]), j->w,
            j->x.shape[1], j->eps);
}

fx_status fx_cpu_norm_mod(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor shift, fx_tensor scale,
                          float eps)
{
    const norm_job job = {y, x, scale.data, shift.data, 1.0f, eps};
    fx_cpu_ranges(be, x.shape[0], row_grain(x.shape[1]), layer_range, &job);
    return FX_OK;
}

fx_status fx_cpu_layer_norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor b, float eps)
{
    const norm_job job = {y, x, w.data, b.data, 0.0f, eps};
    fx_cpu_ranges(be, x.shape[0], row_grain(x.shape[1]), layer_range, &job);
    return FX_OK;
}

fx_status fx_cpu_rms_norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, float eps)
{
    const norm_job job = {.y = y, .x = x, .w = w.data, .eps = eps};
    fx_cpu_ranges(be, x.shape[0], row_grain(x.shape[1]), rms_range, &job);
    return FX_OK;
}

/* ---- q and k: norm per head, then rotation of pairs ---- */

typedef struct rope_job {
    fx_tensor y, x, cs;
    const float *w;
    float eps;
} rope_job;

FX_INLINE void rope_head(void *y, const void *x, fx_dtype dtype, const float *w, const float *cs, int64_t n,
                         float eps)
{
    float t[1024], inv = 1.0f;
    if (w) inv = 1.0f / sqrtf(row_squares(x, dtype, n, 0.0f) / (float)n + eps);
    for (int64_t i = 0; i < n; i++) t[i] = fx_load(x, i, dtype) * inv;
    if (w)
        for (int64_t i = 0; i < n; i++) t[i] *= w[i];
    if (!cs) {
        for (int64_t i = 0; i < n; i++) fx_store(y, i, dtype, t[i]);
        return;
    }
    for (int64_t i = 0; i < n; i += 2) {
        const float a = t[i], b = t[i + 1], c = cs[i], s = cs[i + 1];
        fx_store(y, i, dtype, a * c - b * s);
        fx_store(y, i + 1, dtype, b * c + a * s);
    }
}

FX_INLINE void rope_any(void *y, const void *x, fx_dtype dtype, int64_t heads, int64_t y_head, int64_t x_head,
                        const float *w, const float *cs, int64_t n, float eps)
{
    for (int64_t h = 0; h < heads; h++) {
        if (dtype == FX_F32)
            rope_head((float *)y + h * y_head, (const float *)x + h * x_head, FX_F32, w, cs, n, eps);
        else
            rope_head((uint16_t *)y + h * y_head, (const uint16_t *)x + h * x_head, FX_BF16, w, cs, n, eps);
    }
}
FX_MULTI(rope,
         (void *y, const void *x, fx_dtype dtype, int64_t heads, int64_t y_head, int64_t x_head,
          const float *w, const float *cs, int64_t n, float eps),
         (y, x, dtype, heads, y_head, x_head, w, cs, n, eps))

static void rope_range(const void *job, int64_t begin, int64_t end, int thread)
{
    const rope_job *j = job;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        rope(fx_at_mut(j->y, i * j->y.stride[0]), fx_at(j->x, i * j->x.stride[0]), j->x.dtype, j->x.shape[1],
             j->y.stride[1], j->x.stride[1], j->w,
             fx_present(j->cs) ? fx_at(j->cs, i * j->cs.stride[0]) : NULL, j->x.shape[2], j->eps);
}

fx_status fx_cpu_qk_norm_rope(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor cs, float eps)
{
    FX_CHECK(x.shape[2] <= 1024, FX_ESHAPE, "qk_norm_rope: head dim %lld; want at most 1024",
             (long long)x.shape[2]);
    const rope_job job = {y, x, cs, fx_present(w) ? w.data : NULL, eps};
    fx_cpu_ranges(be, x.shape[0], row_grain(x.shape[1] * x.shape[2]), rope_range, &job);
    return FX_OK;
}
