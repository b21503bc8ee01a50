/* Inside kernels/onednn/ only: the backend's state, its primitives, the slots. Contract: kernels/ops.h. */
#ifndef FX_KERNELS_ONEDNN_INTERNAL_H
#define FX_KERNELS_ONEDNN_INTERNAL_H

#include "kernels/onednn/compat.h"

typedef struct fx_onednn_entry {
    fx_dnnl_shape shape;
    fx_dnnl_op *op; /* NULL: a free place */
} fx_onednn_entry;

typedef struct fx_onednn {
    fx_ops ops; /* first: be->ops points here, because be->impl belongs to the cpu slots */
    const fx_ops *cpu;
    fx_dnnl *dnnl;
    fx_dtype operand; /* f32 for bf16 weights where the processor has no bf16 products: they are widened */
    fx_onednn_entry *entry;
    size_t places, used; /* places: a power of two */
    float *zeros;        /* in place of an absent bias */
    int64_t zero_count;
} fx_onednn;

static inline fx_onednn *fx_onednn_of(const fx_backend *be)
{
    return (fx_onednn *)(void *)(uintptr_t)be->ops;
}

static inline bool fx_onednn_widens(const fx_onednn *o, fx_dtype dtype)
{
    return o->operand != dtype;
}

static inline size_t fx_onednn_padded(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* The primitives of a shape, made when first asked for. */
fx_status fx_onednn_op(fx_onednn *, const fx_dnnl_shape *, fx_dnnl_op **out);
/* b's values, or zeros. */
const float *fx_onednn_bias(const fx_onednn *, fx_tensor b);
/* out[] f32 of the exact values of in[] bf16, or back. */
fx_status fx_onednn_widen(fx_backend *, const void *in, int64_t n, float *out);
fx_status fx_onednn_narrow(fx_backend *, const float *in, int64_t n, void *out);

size_t fx_onednn_packed_bytes(fx_backend *, const fx_weight *);
fx_status fx_onednn_pack(fx_backend *, const fx_weight *, const void *src, void *dst);
fx_status fx_onednn_linear_scratch(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act,
                                   size_t *bytes);
fx_status fx_onednn_conv2d_scratch(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b,
                                   int stride, const int pad[4], size_t *bytes);
fx_status fx_onednn_linear(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act,
                           void *scratch);
fx_status fx_onednn_conv2d(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                           const int pad[4], void *scratch);

/* Widened weights are packed in panels of this many outputs (linear), so that f32 copies stay small. */
enum { FX_ONEDNN_PANEL = 512 };
static inline int64_t fx_onednn_panel(const fx_weight *w)
{
    return w->kind == FX_WEIGHT_CONV || w->n < FX_ONEDNN_PANEL ? w->n : (int64_t)FX_ONEDNN_PANEL;
}

#endif
