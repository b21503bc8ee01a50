/* Views: shape and stride arithmetic on tensors that others own, and the four float formats of the project.
 * Everything above core (kernels, exchange, graph) slices its operands with these, so they stay branch-light
 * and never allocate. */
#include "runtime/core/tensor.h"

#include <stdio.h>
#include <string.h>

size_t fx_dtype_size(fx_dtype dtype)
{
    switch (dtype) {
    case FX_F64: return 8;
    case FX_F32:
    case FX_I32: return 4;
    case FX_BF16:
    case FX_F16: return 2;
    case FX_U8: return 1;
    case FX_DTYPES: break;
    }
    return 0;
}

const char *fx_dtype_name(fx_dtype dtype)
{
    static const char *const names[FX_DTYPES] = {"f64", "f32", "bf16", "f16", "i32", "u8"};
    return (unsigned)dtype < FX_DTYPES ? names[dtype] : "unknown";
}

fx_tensor fx_none(void)
{
    fx_tensor t;
    memset(&t, 0, sizeof t);
    return t;
}

bool fx_present(fx_tensor t)
{
    return t.ndim > 0;
}

fx_tensor fx_view(void *data, fx_dtype dtype, int ndim, const int64_t shape[])
{
    fx_tensor t = fx_none();
    int64_t stride = 1;
    t.data = data;
    t.dtype = dtype;
    t.ndim = ndim;
    for (int d = ndim - 1; d >= 0; d--) {
        t.shape[d] = shape[d];
        t.stride[d] = stride;
        stride *= shape[d];
    }
    return t;
}

fx_tensor fx_view1(void *data, fx_dtype dtype, int64_t n)
{
    return fx_view(data, dtype, 1, &n);
}

fx_tensor fx_view2(void *data, fx_dtype dtype, int64_t rows, int64_t cols)
{
    const int64_t shape[2] = {rows, cols};
    return fx_view(data, dtype, 2, shape);
}

fx_tensor fx_view3(void *data, fx_dtype dtype, int64_t a, int64_t b, int64_t c)
{
    const int64_t shape[3] = {a, b, c};
    return fx_view(data, dtype, 3, shape);
}

int64_t fx_numel(fx_tensor t)
{
    int64_t n = t.ndim > 0;
    for (int d = 0; d < t.ndim; d++) n *= t.shape[d];
    return n;
}

size_t fx_bytes(fx_tensor t)
{
    return (size_t)fx_numel(t) * fx_dtype_size(t.dtype);
}

bool fx_contiguous(fx_tensor t)
{
    int64_t stride = 1;
    for (int d = t.ndim - 1; d >= 0; d--) {
        if (t.shape[d] != 1 && t.stride[d] != stride) return false;
        stride *= t.shape[d];
    }
    return true;
}

static void *advance(fx_tensor t, int64_t elements)
{
    return t.data ? (char *)t.data + elements * (int64_t)fx_dtype_size(t.dtype) : NULL;
}

fx_tensor fx_slice(fx_tensor t, int dim, int64_t begin, int64_t count)
{
    if (!fx_present(t) || begin < 0 || count < 0 || begin > t.shape[dim] - count) return fx_none();
    t.data = advance(t, begin * t.stride[dim]);
    t.shape[dim] = count;
    return t;
}

fx_tensor fx_rows(fx_tensor t, int64_t begin, int64_t count)
{
    return fx_slice(t, 0, begin, count);
}

fx_tensor fx_cols(fx_tensor t, int64_t begin, int64_t count)
{
    return fx_slice(t, t.ndim - 1, begin, count);
}

/* Takes dimension d out of shape and stride. */
static fx_tensor drop_dim(fx_tensor t, int d)
{
    if (!fx_present(t)) return t;
    for (; d + 1 < t.ndim; d++) {
        t.shape[d] = t.shape[d + 1];
        t.stride[d] = t.stride[d + 1];
    }
    t.ndim--;
    t.shape[t.ndim] = t.stride[t.ndim] = 0;
    return t;
}

fx_tensor fx_row(fx_tensor t, int64_t i)
{
    return drop_dim(fx_rows(t, i, 1), 0);
}

fx_tensor fx_heads(fx_tensor t, int64_t heads)
{
    const int64_t dim = t.shape[1] / heads;
    t.shape[2] = dim;
    t.stride[2] = t.stride[1];
    t.shape[1] = heads;
    t.stride[1] = dim * t.stride[2];
    t.ndim = 3;
    return t;
}

fx_tensor fx_flat(fx_tensor t)
{
    t.shape[1] *= t.shape[2];
    t.stride[1] = t.stride[2];
    return drop_dim(t, 2);
}

fx_tensor fx_pixels(fx_tensor t)
{
    t.shape[1] *= t.shape[0];
    return drop_dim(t, 0);
}

fx_tensor fx_permute(fx_tensor t, const int order[])
{
    fx_tensor p = t;
    for (int d = 0; d < t.ndim; d++) {
        p.shape[d] = t.shape[order[d]];
        p.stride[d] = t.stride[order[d]];
    }
    return p;
}

const char *fx_shape_str(fx_tensor t, char *buf, size_t size)
{
    size_t used = 0;
    if (size) buf[0] = 0;
    for (int d = 0; d <= t.ndim && used < size; d++) {
        const char *before = d == 0 ? "[" : d < t.ndim ? "," : "";
        const int n = d < t.ndim ? snprintf(buf + used, size - used, "%s%lld", before, (long long)t.shape[d])
                                 : snprintf(buf + used, size - used, "%s] %s", t.ndim ? "" : "[",
                                            fx_dtype_name(t.dtype));
        used += (size_t)n;
    }
    return buf;
}
