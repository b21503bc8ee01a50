/* Elementwise work on token rows: residual sums, activations, gates, table lookup, and the merge of two
 * attention results. Memory-bound: one pass, vectorised by the compiler. */
#include "kernels/cpu/internal.h"
#include "kernels/cpu/multi.h"

#include <math.h>

static int64_t row_grain(int64_t row_elements)
{
    return 1 + 16384 / (row_elements + 1);
}

/* Runs BODY with the constants XD and YD for every pair of f32 and bf16. */
#define EACH_DTYPES(xd, yd, CALL)                                                                            \
    do {                                                                                                     \
        if ((xd) == FX_F32 && (yd) == FX_F32)                                                                \
            CALL(FX_F32, FX_F32);                                                                            \
        else if ((xd) == FX_F32)                                                                             \
            CALL(FX_F32, FX_BF16);                                                                           \
        else if ((yd) == FX_F32)                                                                             \
            CALL(FX_BF16, FX_F32);                                                                           \
        else                                                                                                 \
            CALL(FX_BF16, FX_BF16);                                                                          \
    } while (0)

/* ---- x += gate * y ---- */

FX_INLINE void gate_row_any(float *x, const float *gate, const void *y, fx_dtype yd, int64_t n)
{
    if (yd == FX_F32) {
        for (int64_t i = 0; i < n; i++) x[i] += gate[i] * fx_load(y, i, FX_F32);
    } else {
        for (int64_t i = 0; i < n; i++) x[i] += gate[i] * fx_load(y, i, FX_BF16);
    }
}
FX_MULTI(gate_row,
         (float *restrict x, const float *restrict gate, const void *restrict y, fx_dtype yd, int64_t n),
         (x, gate, y, yd, n))

typedef struct rows_job {
    fx_tensor y, x, z;
    float a;
    fx_act act;
} rows_job;

static void gate_range(const void *job, int64_t begin, int64_t end, int thread)
{
    const rows_job *j = job;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        gate_row(fx_at_mut(j->x, i * j->x.stride[0]), j->z.data, fx_at(j->y, i * j->y.stride[0]), j->y.dtype,
                 j->x.shape[1]);
}

fx_status fx_cpu_gate_add(fx_backend *be, fx_tensor x, fx_tensor gate, fx_tensor y)
{
    const rows_job job = {.y = y, .x = x, .z = gate};
    fx_cpu_ranges(be, x.shape[0], row_grain(x.shape[1]), gate_range, &job);
    return FX_OK;
}

fx_status fx_cpu_gate_norm(fx_backend *be, fx_tensor h, fx_tensor x, fx_tensor gate, fx_tensor y,
                           fx_tensor shift, fx_tensor scale, float eps)
{
    FX_TRY(fx_cpu_gate_add(be, x, gate, y));
    return fx_cpu_norm_mod(be, h, x, shift, scale, eps);
}

/* ---- x += a y ---- */

FX_INLINE void axpy_row_any(void *x, fx_dtype xd, const void *y, fx_dtype yd, float a, int64_t n)
{
#define AXPY(XD, YD)                                                                                         \
    for (int64_t i = 0; i < n; i++) fx_store(x, i, XD, fx_load(x, i, XD) + a * fx_load(y, i, YD))
    EACH_DTYPES(xd, yd, AXPY);
#undef AXPY
}
FX_MULTI(axpy_row, (void *restrict x, fx_dtype xd, const void *restrict y, fx_dtype yd, float a, int64_t n),
         (x, xd, y, yd, a, n))

/* Offset in elements of row i (all dims but the last, row-major). */
static int64_t row_offset(fx_tensor t, int64_t i)
{
    int64_t at = 0;
    for (int d = t.ndim - 2; d >= 0; d--) {
        at += i % t.shape[d] * t.stride[d];
        i /= t.shape[d];
    }
    return at;
}

static int64_t row_count(fx_tensor t)
{
    int64_t rows = 1;
    for (int d = 0; d < t.ndim - 1; d++) rows *= t.shape[d];
    return rows;
}

static void axpy_range(const void *job, int64_t begin, int64_t end, int thread)
{
    const rows_job *j = job;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        axpy_row(fx_at_mut(j->x, row_offset(j->x, i)), j->x.dtype, fx_at(j->y, row_offset(j->y, i)),
                 j->y.dtype, j->a, j->x.shape[j->x.ndim - 1]);
}

fx_status fx_cpu_axpy(fx_backend *be, fx_tensor x, fx_tensor y, float a)
{
    const rows_job job = {.y = y, .x = x, .a = a};
    fx_cpu_ranges(be, row_count(x), row_grain(x.shape[x.ndim - 1]), axpy_range, &job);
    return FX_OK;
}

/* ---- y = act(x) [* b] ---- */

#define EACH_ACT(act, CALL)                                                                                  \
    switch (act) {                                                                                           \
    case FX_ACT_NONE: CALL(FX_ACT_NONE); break;                                                              \
    case FX_ACT_GELU_TANH: CALL(FX_ACT_GELU_TANH); break;                                                    \
    case FX_ACT_GELU_ERF: CALL(FX_ACT_GELU_ERF); break;                                                      \
    case FX_ACT_QUICK_GELU: CALL(FX_ACT_QUICK_GELU); break;                                                  \
    case FX_ACT_SILU: CALL(FX_ACT_SILU); break;                                                              \
    }

/* Blocks of values in f32 between load and store, so that aliasing (y may be x) needs no care. */
enum { BLOCK = 256 };

FX_INLINE void load_block(float *t, const void *x, fx_dtype dtype, int64_t at, int64_t n)
{
    if (dtype == FX_F32) {
        for (int64_t i = 0; i < n; i++) t[i] = fx_load(x, at + i, FX_F32);
    } else {
        for (int64_t i = 0; i < n; i++) t[i] = fx_load(x, at + i, FX_BF16);
    }
}

FX_INLINE void store_block(void *y, fx_dtype dtype, int64_t at, const float *t, int64_t n)
{
    if (dtype == FX_F32) {
        for (int64_t i = 0; i < n; i++) fx_store(y, at + i, FX_F32, t[i]);
    } else {
        for (int64_t i = 0; i < n; i++) fx_store(y, at + i, FX_BF16, t[i]);
    }
}

FX_INLINE void act_row_any(void *y, fx_dtype yd, const void *x, fx_dtype xd, const void *b, fx_dtype bd,
                           fx_act act, int64_t n)
{
    for (int64_t at = 0; at < n; at += BLOCK) {
        const int64_t count = fx_least(BLOCK, n - at);
        float t[BLOCK], u[BLOCK];
        load_block(t, x, xd, at, count);
#define ACT(A)                                                                                               \
    for (int64_t i = 0; i < count; i++) t[i] = fx_act_apply(t[i], A)
        EACH_ACT(act, ACT)
#undef ACT
        if (b) {
            load_block(u, b, bd, at, count);
            for (int64_t i = 0; i < count; i++) t[i] *= u[i];
        }
        store_block(y, yd, at, t, count);
    }
}
FX_MULTI(act_row,
         (void *y, fx_dtype yd, const void *x, fx_dtype xd, const void *b, fx_dtype bd, fx_act act,
          int64_t n),
         (y, yd, x, xd, b, bd, act, n))

static void act_range(const void *job, int64_t begin, int64_t end, int thread)
{
    const rows_job *j = job;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        act_row(fx_at_mut(j->y, i * j->y.stride[0]), j->y.dtype, fx_at(j->x, i * j->x.stride[0]), j->x.dtype,
                fx_present(j->z) ? fx_at(j->z, i * j->z.stride[0]) : NULL, j->z.dtype, j->act, j->x.shape[1]);
}

fx_status fx_cpu_activate(fx_backend *be, fx_tensor y, fx_tensor x, fx_act act)
{
    const rows_job job = {.y = y, .x = x, .z = fx_none(), .act = act};
    fx_cpu_ranges(be, x.shape[0], row_grain(x.shape[1] * 4), act_range, &job);
    return FX_OK;
}

fx_status fx_cpu_glu(fx_backend *be, fx_tensor y, fx_tensor a, fx_tensor b, fx_act act)
{
    const rows_job job = {.y = y, .x = a, .z = b, .act = act};
    fx_cpu_ranges(be, a.shape[0], row_grain(a.shape[1] * 4), act_range, &job);
    return FX_OK;
}

/* ---- table lookup ---- */

fx_status fx_cpu_embed(fx_backend *be, fx_tensor y, fx_tensor table, fx_tensor ids)
{
    (void)be;
    for (int64_t i = 0; i < y.shape[0]; i++) {
        const int64_t id = ((const int32_t *)ids.data)[i];
        fx_convert(fx_at_mut(y, i * y.stride[0]), y.dtype, fx_at(table, id * table.stride[0]), table.dtype,
                   y.shape[1]);
    }
    return FX_OK;
}

/* ---- attention over two key sets ---- */

typedef struct merge_job {
    fx_tensor o, lse, o2, lse2;
} merge_job;

FX_INLINE void mix_any(float *o, const float *o2, float a, float b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) o[i] = o[i] * a + o2[i] * b;
}
FX_MULTI(mix, (float *restrict o, const float *restrict o2, float a, float b, int64_t n), (o, o2, a, b, n))

static void merge_range(const void *job, int64_t begin, int64_t end, int thread)
{
    const merge_job *j = job;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        for (int64_t h = 0; h < j->o.shape[1]; h++) {
            float *l = (float *)j->lse.data + h * j->lse.stride[0] + i * j->lse.stride[1];
            const float l2 = ((const float *)j->lse2.data)[h * j->lse2.stride[0] + i * j->lse2.stride[1]];
            const float l1 = *l, top = l1 > l2 ? l1 : l2;
            if (top == -INFINITY) continue; /* both empty: o stays 0 */
            const float a = expf(l1 - top), b = expf(l2 - top), sum = a + b;
            float wide[1024]; /* head dims go up to that */
            const int64_t at = i * j->o2.stride[0] + h * j->o2.stride[1];
            const float *o2 = (const float *)j->o2.data + at;
            if (j->o2.dtype != FX_F32) {
                fx_convert(wide, FX_F32, fx_at(j->o2, at), j->o2.dtype, j->o2.shape[2]);
                o2 = wide;
            }
            mix((float *)j->o.data + i * j->o.stride[0] + h * j->o.stride[1], o2, a / sum, b / sum,
                j->o.shape[2]);
            *l = top + logf(sum);
        }
}

fx_status fx_cpu_attention_merge(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor o2, fx_tensor lse2)
{
    const merge_job job = {o, lse, o2, lse2};
    fx_cpu_ranges(be, o.shape[0], row_grain(o.shape[1] * o.shape[2]), merge_range, &job);
    return FX_OK;
}
