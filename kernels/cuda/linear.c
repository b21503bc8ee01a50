/* y = act(x w^T + b). Weights stay as files store them, [N,K]; convolutions as [N,kh,kw,K] with N and K filled up to
 * multiples of 8 by zeros. The library adds the bias and applies
 * tanh-GELU where it can take the bias in the result's dtype (f32, or a bias that bf16 holds exactly: bias.c); otherwise
 * sums go to scratch in f32, a block of rows at a time, and one kernel adds the bias, applies
 * the activation and rounds once. */
#include <string.h>

#include "kernels/cuda/internal.h"

enum { SUMS = 64 << 20 }; /* bytes of f32 sums at once */

static int64_t filled(int64_t channels)
{
    return (channels + FX_CUDA_CHANNELS - 1) / FX_CUDA_CHANNELS * FX_CUDA_CHANNELS;
}

size_t fx_cuda_packed_bytes(fx_backend *be, const fx_weight *w)
{
    const size_t size = fx_dtype_size(w->dtype);
    (void)be;
    if (w->kind == FX_WEIGHT_LINEAR) return (size_t)(w->n * w->k) * size;
    return (size_t)(filled(w->n) * filled(w->k) * w->kh * w->kw) * size;
}

/* Host to host; convolutions from [N,K,kh,kw]. */
fx_status fx_cuda_pack(fx_backend *be, const fx_weight *w, const void *src, void *dst)
{
    const size_t size = fx_dtype_size(w->dtype);
    const int64_t taps = (int64_t)w->kh * w->kw, k = filled(w->k);
    if (w->kind == FX_WEIGHT_LINEAR) {
        memcpy(dst, src, fx_cuda_packed_bytes(be, w));
        return FX_OK;
    }
    memset(dst, 0, fx_cuda_packed_bytes(be, w));
    for (int64_t n = 0; n < w->n; n++)
        for (int64_t t = 0; t < taps; t++)
            for (int64_t c = 0; c < w->k; c++)
                memcpy((char *)dst + (size_t)((n * taps + t) * k + c) * size,
                       (const char *)src + (size_t)((n * w->k + c) * taps + t) * size, size);
    return FX_OK;
}

static int32_t type_of(fx_dtype dtype)
{
    return dtype == FX_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

/* The largest power of two up to 16 bytes that all addresses and row strides keep. */
static int32_t alignment(const void *a, const void *b, const void *c, int64_t a_row, int64_t b_row,
                         int64_t c_row)
{
    const uintptr_t bits =
        (uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)a_row | (uintptr_t)b_row | (uintptr_t)c_row;
    int32_t align = 16;
    while (align > 2 && bits % (uintptr_t)align) align /= 2;
    return align;
}

static int64_t block_rows(fx_tensor y)
{
    const int64_t rows = SUMS / (y.shape[1] * 4 + 1) + 1;
    return rows < y.shape[0] ? rows : y.shape[0];
}

static fx_lt_key key_of(fx_tensor x, fx_weight w, int64_t rows, int64_t ldy, fx_dtype out, const void *y)
{
    fx_lt_key key;
    const int64_t size = (int64_t)fx_dtype_size(x.dtype), ldx = rows > 1 ? x.stride[0] : w.k;
    memset(&key, 0, sizeof key); /* compared as bytes */
    key.m = rows, key.n = w.n, key.k = w.k, key.ldw = w.k, key.ldx = ldx, key.ldy = ldy, key.batch = 1;
    key.in = type_of(x.dtype), key.out = type_of(out);
    key.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    key.align = alignment(x.data, w.packed, y, ldx * size, w.k * size, ldy * (int64_t)fx_dtype_size(out));
    return key;
}

/* The epilogue that does it all, or -1. The library's tanh is an approximation: good to bf16, not to f32 (H100: 8 times
 * the budget). */
static int32_t epilogue_of(bool bias, fx_act act, fx_dtype y)
{
    if (act != FX_ACT_NONE && y == FX_F32) return -1;
    if (act == FX_ACT_NONE) return bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    if (act == FX_ACT_GELU_TANH) return bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    return -1;
}

/* How a product is done: in one call of the library with its bias (as the library wants it) and epilogue, or by sums. */
typedef struct form {
    bool whole;
    const void *bias;
    fx_lt_key key; /* whole */
} form;

static form form_of(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act act)
{
    form f = {0};
    const bool biased = fx_present(b);
    const int32_t epilogue = epilogue_of(biased, act, y.dtype);
    if (biased && y.dtype != FX_F32)
        f.bias = fx_cuda_bf16_bias(fx_cuda_of(be), b.data);
    else if (biased && (uintptr_t)b.data % 16 == 0)
        f.bias = b.data;
    f.whole = epilogue >= 0 && biased == (f.bias != NULL);
    if (!f.whole) return f;
    f.key = key_of(x, w, x.shape[0], x.shape[0] > 1 ? y.stride[0] : w.n, y.dtype, y.data);
    f.key.epilogue = epilogue;
    return f;
}

fx_status fx_cuda_linear_scratch(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b,
                                 fx_act act, size_t *bytes)
{
    const form f = form_of(be, y, x, w, b, act);
    *bytes = f.whole ? 0 : (size_t)(block_rows(y) * y.shape[1]) * 4;
    return f.whole ? fx_cuda_gemm_prepare(be, &f.key) : FX_OK;
}

fx_status fx_cuda_linear(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act act,
                         void *scratch)
{
    const int64_t step = block_rows(y);
    const form f = form_of(be, y, x, w, b, act);
    if (f.whole) return fx_cuda_gemm(be, &f.key, 1, y.data, x.data, w.packed, f.bias);
    for (int64_t at = 0; at < x.shape[0]; at += step) {
        const int64_t rows = x.shape[0] - at < step ? x.shape[0] - at : step;
        const fx_tensor part = fx_rows(x, at, rows);
        const fx_lt_key key = key_of(part, w, rows, w.n, FX_F32, scratch);
        FX_TRY(fx_cuda_gemm(be, &key, 1, scratch, part.data, w.packed, NULL));
        FX_TRY(fx_cuda_finish(be, fx_rows(y, at, rows), scratch, fx_present(b) ? b.data : NULL, act));
    }
    return FX_OK;
}
