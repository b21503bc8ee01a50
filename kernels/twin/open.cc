/* Backend "twin": the CUDA backend's own kernels, executed on the CPU by kernels/twin/twin.cc. Matrix products and
 * convolutions, which a GPU leaves to cuBLASLt and cuDNN, come from the cpu backend. For tests: slow. */
#include "kernels/twin/open.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cuda/products.h"
#include "kernels/cuda/slots.h"
#include "kernels/twin/twin.cuh"

namespace
{

struct twin {
    fx_backend *cpu;
    void *small;
    size_t small_bytes;
};

enum { SCORES = 1 << 20 }; /* bytes of scores at once: several blocks in most tests */

twin *twin_of(const fx_backend *be)
{
    return (twin *)be->impl;
}

/* ---- from the cpu backend ---- */

size_t packed_bytes(fx_backend *be, const fx_weight *w)
{
    return twin_of(be)->cpu->ops->packed_bytes(twin_of(be)->cpu, w);
}
fx_status pack(fx_backend *be, const fx_weight *w, const void *src, void *dst)
{
    return twin_of(be)->cpu->ops->pack(twin_of(be)->cpu, w, src, dst);
}
/* The sums of a matrix product in f32, as cuBLASLt leaves them for the finishing kernel. */
fx_tensor sums_of(fx_tensor y, void *data)
{
    return fx_view2(data, FX_F32, y.shape[0], y.shape[1]);
}
fx_status linear_scratch(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act act,
                         size_t *bytes)
{
    size_t own = 0;
    FX_TRY(twin_of(be)->cpu->ops->linear_scratch(twin_of(be)->cpu, sums_of(y, y.data), x, w, b, act, &own));
    *bytes = (fx_bytes(sums_of(y, y.data)) + 255) / 256 * 256 + own;
    return FX_OK;
}
fx_status conv2d_scratch(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                         const int pad[4], size_t *bytes)
{
    return twin_of(be)->cpu->ops->conv2d_scratch(twin_of(be)->cpu, y, x, w, b, stride, pad, bytes);
}
fx_status linear(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act act,
                 void *scratch)
{
    const fx_tensor sums = sums_of(y, scratch);
    char *own = (char *)scratch + (fx_bytes(sums) + 255) / 256 * 256;
    FX_TRY(twin_of(be)->cpu->ops->linear(twin_of(be)->cpu, sums, x, w, fx_none(), FX_ACT_NONE, own));
    return fx_twin_finish(be, y, (const float *)scratch, fx_present(b) ? (const float *)b.data : nullptr,
                          act);
}
fx_status conv2d(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                 const int pad[4], void *scratch)
{
    return twin_of(be)->cpu->ops->conv2d(twin_of(be)->cpu, y, x, w, b, stride, pad, scratch);
}

/* ---- attention: loops for the products, the device's softmax between them ---- */

float value(fx_tensor t, int64_t at)
{
    return t.dtype == FX_F32 ? ((const float *)t.data)[at] : fx_bf16_to_f32(((const uint16_t *)t.data)[at]);
}

fx_status scores(fx_backend *be, fx_tensor s, fx_tensor q, fx_tensor k, float scale)
{
    if (k.shape[0] == 1) return fx_twin_dots(be, s, q, k, scale);
    for (int64_t h = 0; h < s.shape[0]; h++)
        for (int64_t i = 0; i < s.shape[1]; i++)
            for (int64_t j = 0; j < s.shape[2]; j++) {
                float sum = 0;
                for (int64_t d = 0; d < q.shape[2]; d++)
                    sum += value(q, i * q.stride[0] + h * q.stride[1] + d) *
                           value(k, j * k.stride[0] + h * k.stride[1] + d);
                ((float *)s.data)[h * s.stride[0] + i * s.stride[1] + j] = scale * sum;
            }
    return FX_OK;
}

fx_status values(fx_backend *, fx_tensor o, fx_tensor p, fx_tensor v)
{
    for (int64_t i = 0; i < o.shape[0]; i++)
        for (int64_t h = 0; h < o.shape[1]; h++)
            for (int64_t d = 0; d < o.shape[2]; d++) {
                float sum = 0;
                for (int64_t j = 0; j < p.shape[2]; j++)
                    sum += value(p, h * p.stride[0] + i * p.stride[1] + j) *
                           value(v, j * v.stride[0] + h * v.stride[1] + d);
                const int64_t at = i * o.stride[0] + h * o.stride[1] + d;
                if (o.dtype == FX_F32)
                    ((float *)o.data)[at] = sum;
                else
                    ((uint16_t *)o.data)[at] = fx_f32_to_bf16(sum);
            }
    return FX_OK;
}

const fx_products products = {scores, fx_twin_softmax, values};

fx_status attention_scratch(fx_backend *, fx_tensor, fx_tensor, fx_tensor q, fx_tensor k, fx_tensor,
                            fx_tensor, size_t *bytes)
{
    *bytes = fx_products_scratch(q, k, SCORES);
    return FX_OK;
}
fx_status attention(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k, fx_tensor v,
                    fx_tensor bias, float scale, void *scratch)
{
    return fx_products_attention(be, &products, o, lse, q, k, v, bias, scale, scratch, SCORES);
}

/* ---- memory ---- */

fx_status upload(fx_backend *, fx_tensor device, const void *host)
{
    memcpy(device.data, host, fx_bytes(device));
    return FX_OK;
}
fx_status download(fx_backend *, void *host, fx_tensor device)
{
    memcpy(host, device.data, fx_bytes(device));
    return FX_OK;
}
fx_status sync(fx_backend *)
{
    return FX_OK;
}
void close(fx_backend *be)
{
    twin *t = twin_of(be);
    if (!t) return;
    fx_backend_close(&t->cpu);
    free(t->small);
    free(t);
    be->impl = nullptr;
}

fx_ops table()
{
    fx_ops t = {};
    t.name = "twin";
    t.packed_bytes = packed_bytes;
    t.pack = pack;
    t.linear_scratch = linear_scratch;
    t.conv2d_scratch = conv2d_scratch;
    t.attention_scratch = attention_scratch;
    t.linear = linear;
    t.conv2d = conv2d;
    t.attention = attention;
    t.attention_merge = fx_twin_attention_merge;
    t.norm_mod = fx_twin_norm_mod;
    t.layer_norm = fx_twin_layer_norm;
    t.rms_norm = fx_twin_rms_norm;
    t.gate_add = fx_twin_gate_add;
    t.gate_norm = fx_twin_gate_norm;
    t.qk_norm_rope = fx_twin_qk_norm_rope;
    t.axpy = fx_twin_axpy;
    t.activate = fx_twin_activate;
    t.glu = fx_twin_glu;
    t.embed = fx_twin_embed;
    t.copy = fx_twin_copy;
    t.row_stats = fx_twin_row_stats;
    t.group_norm = fx_twin_group_norm;
    t.upsample2x = fx_twin_upsample2x;
    t.to_rgb8 = fx_twin_to_rgb8;
    t.count_nonfinite = fx_twin_count_nonfinite;
    t.upload = upload;
    t.download = download;
    t.sync = sync;
    t.close = close;
    return t;
}

} // namespace

void *fx_twin_small(fx_backend *be, size_t bytes)
{
    twin *t = twin_of(be);
    if (bytes > t->small_bytes) {
        void *grown = realloc(t->small, bytes);
        if (!grown) return nullptr;
        t->small = grown;
        t->small_bytes = bytes;
    }
    return t->small;
}

fx_status fx_twin_open(fx_dtype dtype, int threads, fx_backend **out)
{
    static const fx_ops ops = table();
    *out = nullptr;
    fx_backend *be = (fx_backend *)calloc(1, sizeof *be);
    twin *t = (twin *)calloc(1, sizeof *t);
    fx_status st =
        be && t ? fx_cpu_open(dtype, threads, &t->cpu) : FX_FAIL(FX_ENOMEM, "twin backend: no memory");
    if (st) {
        free(be);
        free(t);
        return st;
    }
    be->ops = &ops;
    be->dtype = dtype;
    be->stream = FX_F32;
    be->threads = threads;
    be->rows_exact = true;
    be->impl = t;
    *out = be;
    return FX_OK;
}
