/* Inside kernels/ref/ only: the slots, and how plain loops reach elements of any float dtype. Contract:
 * kernels/ops.h. */
#ifndef FX_KERNELS_REF_OPS_H
#define FX_KERNELS_REF_OPS_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

size_t fx_ref_packed_bytes(fx_backend *, const fx_weight *);
fx_status fx_ref_pack(fx_backend *, const fx_weight *, const void *src, void *dst);
fx_status fx_ref_linear_scratch(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act,
                                size_t *bytes);
fx_status fx_ref_conv2d_scratch(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                                const int pad[4], size_t *bytes);
fx_status fx_ref_attention_scratch(fx_backend *, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k,
                                   fx_tensor v, fx_tensor bias, size_t *bytes);
fx_status fx_ref_linear(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act,
                        void *scratch);
fx_status fx_ref_conv2d(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                        const int pad[4], void *scratch);
fx_status fx_ref_attention(fx_backend *, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k, fx_tensor v,
                           fx_tensor bias, float scale, void *scratch);
fx_status fx_ref_attention_merge(fx_backend *, fx_tensor o, fx_tensor lse, fx_tensor o2, fx_tensor lse2);
fx_status fx_ref_norm_mod(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor shift, fx_tensor scale,
                          float eps);
fx_status fx_ref_layer_norm(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor b, float eps);
fx_status fx_ref_rms_norm(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor w, float eps);
fx_status fx_ref_gate_add(fx_backend *, fx_tensor x, fx_tensor gate, fx_tensor y);
fx_status fx_ref_gate_norm(fx_backend *, fx_tensor h, fx_tensor x, fx_tensor gate, fx_tensor y,
                           fx_tensor shift, fx_tensor scale, float eps);
fx_status fx_ref_qk_norm_rope(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor cs, float eps);
fx_status fx_ref_axpy(fx_backend *, fx_tensor x, fx_tensor y, float a);
fx_status fx_ref_activate(fx_backend *, fx_tensor y, fx_tensor x, fx_act);
fx_status fx_ref_glu(fx_backend *, fx_tensor y, fx_tensor a, fx_tensor b, fx_act);
fx_status fx_ref_embed(fx_backend *, fx_tensor y, fx_tensor table, fx_tensor ids);
fx_status fx_ref_copy(fx_backend *, fx_tensor y, fx_tensor x, float mul, float add);
fx_status fx_ref_row_stats(fx_backend *, fx_tensor stats, fx_tensor x);
fx_status fx_ref_group_norm(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor stats, fx_tensor w, fx_tensor b,
                            int64_t width, float eps, fx_act);
fx_status fx_ref_upsample2x(fx_backend *, fx_tensor y, fx_tensor x);
fx_status fx_ref_to_rgb8(fx_backend *, fx_tensor y, fx_tensor x);
fx_status fx_ref_count_nonfinite(fx_backend *, fx_tensor x, int64_t *count);
fx_status fx_ref_upload(fx_backend *, fx_tensor device, const void *host);
fx_status fx_ref_download(fx_backend *, void *host, fx_tensor device);
fx_status fx_ref_sync(fx_backend *);

double fx_ref_act(double, fx_act);

/* Element at an offset in elements, of any float dtype. */
static inline double ref_load(fx_tensor t, int64_t at)
{
    switch (t.dtype) {
    case FX_F64: return ((const double *)t.data)[at];
    case FX_F32: return (double)((const float *)t.data)[at];
    case FX_BF16: return (double)fx_bf16_to_f32(((const uint16_t *)t.data)[at]);
    default: return (double)fx_f16_to_f32(((const uint16_t *)t.data)[at]);
    }
}

static inline void ref_store(fx_tensor t, int64_t at, double value)
{
    switch (t.dtype) {
    case FX_F64: ((double *)t.data)[at] = value; break;
    case FX_F32: ((float *)t.data)[at] = (float)value; break;
    case FX_BF16: fx_convert((uint16_t *)t.data + at, FX_BF16, &value, FX_F64, 1); break; /* rounds once */
    default: fx_convert((uint16_t *)t.data + at, FX_F16, &value, FX_F64, 1); break;
    }
}

/* Start of row (i) or (i,j) of an f64 tensor whose last dim is dense. */
static inline double *ref_row(fx_tensor t, int64_t i)
{
    return (double *)t.data + i * t.stride[0];
}

static inline double *ref_row2(fx_tensor t, int64_t i, int64_t j)
{
    return (double *)t.data + i * t.stride[0] + j * t.stride[1];
}

/* Offset in elements of the i-th element in row-major order. */
static inline int64_t ref_offset(fx_tensor t, int64_t i)
{
    int64_t at = 0;
    for (int d = t.ndim - 1; d >= 0; d--) {
        at += i % t.shape[d] * t.stride[d];
        i /= t.shape[d];
    }
    return at;
}

#ifdef __cplusplus
}
#endif
#endif
