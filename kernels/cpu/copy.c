/* y = mul * x + add between any strides and float dtypes, and the count of values that are not finite. */
#include "kernels/cpu/internal.h"
#include "kernels/cpu/multi.h"

#include <math.h>

/* Dimensions of one, then neighbours that are dense together, are merged; two dims remain the inner loop. */
typedef struct copy_job {
    fx_tensor y, x;
    float mul, add;
    bool plain; /* mul 1, add 0 */
} copy_job;

static void drop_dim(fx_tensor *t, int d)
{
    for (int i = d; i + 1 < t->ndim; i++) {
        t->shape[i] = t->shape[i + 1];
        t->stride[i] = t->stride[i + 1];
    }
    t->ndim--;
}

static void merge_dims(fx_tensor *y, fx_tensor *x)
{
    for (int d = y->ndim - 1; d >= 0 && y->ndim > 1; d--)
        if (y->shape[d] == 1) {
            drop_dim(y, d);
            drop_dim(x, d);
        }
    for (int d = y->ndim - 2; d >= 0; d--) {
        const int64_t n = y->shape[d + 1];
        if (y->stride[d] != n * y->stride[d + 1] || x->stride[d] != n * x->stride[d + 1]) continue;
        y->shape[d + 1] = x->shape[d + 1] = n * y->shape[d];
        drop_dim(y, d);
        drop_dim(x, d);
    }
}

static int64_t row_offset(fx_tensor t, int64_t i)
{
    int64_t at = 0;
    for (int d = t.ndim - 2; d >= 0; d--) {
        at += i % t.shape[d] * t.stride[d];
        i /= t.shape[d];
    }
    return at;
}

static double load_any(fx_tensor t, int64_t at)
{
    switch (t.dtype) {
    case FX_F64: return ((const double *)t.data)[at];
    case FX_F32: return (double)((const float *)t.data)[at];
    case FX_BF16: return (double)fx_bf16_to_f32(((const uint16_t *)t.data)[at]);
    default: return (double)fx_f16_to_f32(((const uint16_t *)t.data)[at]);
    }
}

static void store_any(fx_tensor t, int64_t at, double value)
{
    switch (t.dtype) {
    case FX_F64: ((double *)t.data)[at] = value; break;
    case FX_F32: ((float *)t.data)[at] = (float)value; break;
    case FX_BF16: ((uint16_t *)t.data)[at] = fx_f32_to_bf16((float)value); break;
    default: ((uint16_t *)t.data)[at] = fx_f32_to_f16((float)value); break;
    }
}

FX_INLINE void f32_row_any(float *y, int64_t ys, const float *x, int64_t xs, int64_t n, float mul, float add)
{
    if (ys == 1 && xs == 1) {
        for (int64_t i = 0; i < n; i++) y[i] = mul * x[i] + add;
    } else {
        for (int64_t i = 0; i < n; i++) y[i * ys] = mul * x[i * xs] + add;
    }
}
FX_MULTI(f32_row,
         (float *restrict y, int64_t ys, const float *restrict x, int64_t xs, int64_t n, float mul,
          float add),
         (y, ys, x, xs, n, mul, add))

static void strided_16(uint16_t *y, int64_t ys, const uint16_t *x, int64_t xs, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i * ys] = x[i * xs];
}

static void copy_row(const copy_job *j, int64_t y_at, int64_t x_at)
{
    const int last = j->y.ndim - 1;
    const int64_t n = j->y.shape[last], ys = j->y.stride[last], xs = j->x.stride[last];
    const bool dense = ys == 1 && xs == 1, same = j->y.dtype == j->x.dtype;
    void *y = fx_at_mut(j->y, y_at);
    const void *x = fx_at(j->x, x_at);
    if (j->plain && dense)
        fx_convert(y, j->y.dtype, x, j->x.dtype, n);
    else if (same && j->y.dtype == FX_F32)
        f32_row(y, ys, x, xs, n, j->mul, j->add);
    else if (j->plain && same && fx_dtype_size(j->y.dtype) == 2)
        strided_16(y, ys, x, xs, n);
    else
        for (int64_t i = 0; i < n; i++) {
            const double value = load_any(j->x, x_at + i * xs);
            store_any(j->y, y_at + i * ys, j->plain ? value : (double)j->mul * value + (double)j->add);
        }
}

static void copy_range(const void *job, int64_t begin, int64_t end, int thread)
{
    const copy_job *j = job;
    (void)thread;
    for (int64_t i = begin; i < end; i++) copy_row(j, row_offset(j->y, i), row_offset(j->x, i));
}

fx_status fx_cpu_copy(fx_backend *be, fx_tensor y, fx_tensor x, float mul, float add)
{
    copy_job job = {y, x, mul, add, mul == 1.0f && add == 0.0f};
    merge_dims(&job.y, &job.x);
    if (job.y.ndim == 1) { /* one long run: cut it so that threads share it */
        const int64_t n = job.y.shape[0], piece = 16384;
        if (n >= 4 * piece && n % piece == 0) {
            job.y.ndim = job.x.ndim = 2;
            job.y.shape[1] = job.x.shape[1] = piece;
            job.y.shape[0] = job.x.shape[0] = n / piece;
            job.y.stride[1] = job.y.stride[0];
            job.x.stride[1] = job.x.stride[0];
            job.y.stride[0] *= piece;
            job.x.stride[0] *= piece;
        }
    }
    int64_t rows = 1;
    for (int d = 0; d < job.y.ndim - 1; d++) rows *= job.y.shape[d];
    fx_cpu_ranges(be, rows, 1 + 32768 / (job.y.shape[job.y.ndim - 1] + 1), copy_range, &job);
    return FX_OK;
}

/* ---- NaN and infinity ---- */

FX_INLINE void count_row_any(const void *x, fx_dtype dtype, int64_t n, int64_t *count)
{
    uint32_t bad = 0; /* a row is shorter than 2^32 */
    if (dtype == FX_F32) {
        for (int64_t i = 0; i < n; i++) bad += (fx_bits(((const float *)x)[i]) & 0x7f800000u) == 0x7f800000u;
    } else {
        for (int64_t i = 0; i < n; i++) bad += (((const uint16_t *)x)[i] & 0x7f80u) == 0x7f80u;
    }
    *count += bad;
}
FX_MULTI(count_row, (const void *x, fx_dtype dtype, int64_t n, int64_t *count), (x, dtype, n, count))

fx_status fx_cpu_count_nonfinite(fx_backend *be, fx_tensor x, int64_t *count)
{
    (void)be;
    *count = 0;
    for (int64_t i = 0; i < x.shape[0]; i++) count_row(fx_at(x, i * x.stride[0]), x.dtype, x.shape[1], count);
    return FX_OK;
}
