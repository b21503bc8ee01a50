/* Operands for bench_ops, on one of two sides: the backend that is timed, and f64 loops (ref) that compute a few of its rows and
 * of its columns. A value is a function of operand, row and column, so both sides have the same without copying any. Values
 * have 8 bits: every dtype holds them exactly. Zeros would run faster. */
#ifndef FX_BENCH_OPS_SIDE_H
#define FX_BENCH_OPS_SIDE_H

#include "bench/bench.h"

enum { SIDE_BLOCKS = 32 };

typedef struct side {
    fx_backend *be;
    int64_t begin, rows; /* of the op's rows, the ones of this side */
    int64_t cols;        /* at most so many output columns (0: all) */
    void *block[SIDE_BLOCKS];
    int blocks;
} side;

static inline fx_status side_take(side *s, size_t bytes, void **out)
{
    FX_CHECK(s->blocks < SIDE_BLOCKS, FX_ESHAPE, "too many operands");
    if (fx_on_device(s->be))
        FX_TRY(fx_device_alloc(s->be, bytes + 256, out));
    else
        FX_CHECK((*out = aligned_alloc(4096, (bytes + 8191) / 4096 * 4096)), FX_ENOMEM,
                 "no memory for %zu bytes", bytes);
    s->block[s->blocks++] = *out;
    return FX_OK;
}

static inline void side_clear(side *s)
{
    while (s->blocks)
        if (fx_on_device(s->be))
            fx_device_free(s->be, s->block[--s->blocks]);
        else
            free(s->block[--s->blocks]);
}

static inline float side_value(int id, int64_t row, int64_t column)
{
    const uint64_t x =
        ((uint64_t)(unsigned)id << 56 ^ (uint64_t)row << 28 ^ (uint64_t)column) * 0x9e3779b97f4a7c15u >> 40;
    return (float)(int)(x & 255) / 128.0f - 1.0f;
}

/* Writes row `row` of operand id. scale: a power of two. */
static inline void side_row(void *to, fx_dtype dtype, int id, int64_t row, int64_t n, float scale)
{
    for (int64_t c = 0; c < n; c++) {
        const float v = side_value(id, row, c) * scale;
        if (dtype == FX_BF16)
            ((uint16_t *)to)[c] = fx_f32_to_bf16(v);
        else if (dtype == FX_F32)
            ((float *)to)[c] = v;
        else
            ((double *)to)[c] = v;
    }
}

/* A tensor whose first dimension starts at row `first` of operand id. */
static inline fx_status side_tensor(side *s, int id, fx_dtype dtype, int ndim, const int64_t shape[],
                                    int64_t first, float scale, fx_tensor *out)
{
    void *data, *host;
    FX_TRY(side_take(s, fx_bytes(fx_view(NULL, dtype, ndim, shape)), &data));
    *out = fx_view(data, dtype, ndim, shape);
    const int64_t rows = shape[0], n = rows ? fx_numel(*out) / rows : 0;
    FX_CHECK((host = malloc(fx_bytes(*out) + 1)), FX_ENOMEM, "no memory for an operand");
#pragma omp parallel for
    for (int64_t r = 0; r < rows; r++)
        side_row((char *)host + (size_t)(r * n) * fx_dtype_size(dtype), dtype, id, first + r, n, scale);
    fx_status st = fx_upload(s->be, *out, host);
    if (!st) st = fx_sync(s->be);
    free(host);
    return st;
}

static inline fx_status side_rows2(side *s, int id, fx_dtype dtype, int64_t n, fx_tensor *out)
{
    return side_tensor(s, id, dtype, 2, (const int64_t[]){s->rows, n}, s->begin, 1, out);
}

/* A parameter vector: f32 as bf16 checkpoints have it, or of the stream. */
static inline fx_status side_vector(side *s, int id, fx_dtype dtype, int64_t n, fx_tensor *out)
{
    fx_tensor row;
    FX_TRY(side_tensor(s, id, dtype, 2, (const int64_t[]){1, n}, 0, 1, &row));
    *out = fx_row(row, 0);
    if (!fx_on_device(s->be) || dtype != FX_F32) return FX_OK;
    float *host = malloc((size_t)n * sizeof *host);
    FX_CHECK(host, FX_ENOMEM, "no memory for a vector");
    side_row(host, FX_F32, id, 0, n, 1);
    const fx_status st = fx_device_constant(s->be, out->data, host, n);
    free(host);
    return st;
}

/* n outputs of k inputs and kh x kw taps, in the backend's own form. */
static inline fx_status side_weight(side *s, int id, int64_t n, int64_t k, int taps, fx_weight *out)
{
    const fx_dtype dtype = s->be->dtype;
    const int64_t row = k * taps * taps;
    *out = (fx_weight){.packed = NULL,
                       .n = n,
                       .k = k,
                       .kh = taps,
                       .kw = taps,
                       .kind = taps > 1 ? FX_WEIGHT_CONV : FX_WEIGHT_LINEAR,
                       .dtype = dtype};
    const size_t bytes = fx_packed_bytes(s->be, out);
    char *plain = malloc((size_t)(n * row) * fx_dtype_size(dtype)), *packed = malloc(bytes);
    void *data = NULL;
    fx_status st =
        plain && packed ? side_take(s, bytes, &data) : FX_FAIL(FX_ENOMEM, "no memory for a weight");
#pragma omp parallel for
    for (int64_t i = 0; i < (st ? 0 : n); i++)
        side_row(plain + (size_t)(i * row) * fx_dtype_size(dtype), dtype, id, i, row, 0.03125f);
    if (!st) st = fx_pack(s->be, out, plain, packed);
    if (!st) st = fx_upload(s->be, fx_view1(data, FX_U8, (int64_t)bytes), packed);
    if (!st) st = fx_sync(s->be);
    free(plain);
    free(packed);
    out->packed = data;
    return st;
}

#endif
