/* The backend that computes nothing: the real graph runs on it over a measuring arena, so that the plan and
 * the graph cannot disagree. Scratch questions go to the wrapped backend, which also creates its primitives
 * at that moment. Flops are counted by the wrappers in kernels/ops.c. No slot touches data. */
#include "kernels/plan.h"

#include <stdlib.h>

static fx_backend *inner_of(const fx_backend *be)
{
    return (fx_backend *)be->impl;
}

/* ---- asked of the wrapped backend ---- */

static size_t plan_packed_bytes(fx_backend *be, const fx_weight *w)
{
    return inner_of(be)->ops->packed_bytes(inner_of(be), w);
}

static fx_status plan_linear_scratch(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b,
                                     fx_act act, size_t *bytes)
{
    return inner_of(be)->ops->linear_scratch(inner_of(be), y, x, w, b, act, bytes);
}

static fx_status plan_conv2d_scratch(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b,
                                     int stride, const int pad[4], size_t *bytes)
{
    return inner_of(be)->ops->conv2d_scratch(inner_of(be), y, x, w, b, stride, pad, bytes);
}

static fx_status plan_attention_scratch(fx_backend *be, fx_tensor o, fx_tensor q, fx_tensor k, size_t *bytes)
{
    return inner_of(be)->ops->attention_scratch(inner_of(be), o, q, k, bytes);
}

/* ---- nothing to do ---- */

static fx_status plan_pack(fx_backend *be, const fx_weight *w, const void *src, void *dst)
{
    (void)be, (void)w, (void)src, (void)dst;
    return FX_OK;
}

static fx_status plan_linear(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act act,
                             void *scratch)
{
    (void)be, (void)y, (void)x, (void)w, (void)b, (void)act, (void)scratch;
    return FX_OK;
}

static fx_status plan_conv2d(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                             const int pad[4], void *scratch)
{
    (void)be, (void)y, (void)x, (void)w, (void)b, (void)stride, (void)pad, (void)scratch;
    return FX_OK;
}

static fx_status plan_attention(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k,
                                fx_tensor v, fx_tensor bias, float scale, void *scratch)
{
    (void)be, (void)o, (void)lse, (void)q, (void)k, (void)v, (void)bias, (void)scale, (void)scratch;
    return FX_OK;
}

/* slots of (be, 2 tensors), (be, 3 tensors) and so on; the names say what follows the backend: t tensor, f
 * float */
static fx_status plan_tt(fx_backend *be, fx_tensor y, fx_tensor x)
{
    (void)be, (void)y, (void)x;
    return FX_OK;
}

static fx_status plan_ttt(fx_backend *be, fx_tensor y, fx_tensor a, fx_tensor b)
{
    (void)be, (void)y, (void)a, (void)b;
    return FX_OK;
}

static fx_status plan_tttt(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor o2, fx_tensor lse2)
{
    (void)be, (void)o, (void)lse, (void)o2, (void)lse2;
    return FX_OK;
}

static fx_status plan_tttf(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, float eps)
{
    (void)be, (void)y, (void)x, (void)w, (void)eps;
    return FX_OK;
}

static fx_status plan_ttttf(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor b, float eps)
{
    (void)be, (void)y, (void)x, (void)w, (void)b, (void)eps;
    return FX_OK;
}

static fx_status plan_gate_norm(fx_backend *be, fx_tensor h, fx_tensor x, fx_tensor gate, fx_tensor y,
                                fx_tensor shift, fx_tensor scale, float eps)
{
    (void)be, (void)h, (void)x, (void)gate, (void)y, (void)shift, (void)scale, (void)eps;
    return FX_OK;
}

static fx_status plan_ttf(fx_backend *be, fx_tensor x, fx_tensor y, float a)
{
    (void)be, (void)x, (void)y, (void)a;
    return FX_OK;
}

static fx_status plan_activate(fx_backend *be, fx_tensor y, fx_tensor x, fx_act act)
{
    (void)be, (void)y, (void)x, (void)act;
    return FX_OK;
}

static fx_status plan_glu(fx_backend *be, fx_tensor y, fx_tensor a, fx_tensor b, fx_act act)
{
    (void)be, (void)y, (void)a, (void)b, (void)act;
    return FX_OK;
}

static fx_status plan_copy(fx_backend *be, fx_tensor y, fx_tensor x, float mul, float add)
{
    (void)be, (void)y, (void)x, (void)mul, (void)add;
    return FX_OK;
}

static fx_status plan_group_norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor stats, fx_tensor w,
                                 fx_tensor b, int64_t width, float eps, fx_act act)
{
    (void)be, (void)y, (void)x, (void)stats, (void)w, (void)b, (void)width, (void)eps, (void)act;
    return FX_OK;
}

static fx_status plan_count_nonfinite(fx_backend *be, fx_tensor x, int64_t *count)
{
    (void)be, (void)x;
    *count = 0;
    return FX_OK;
}

static fx_status plan_upload(fx_backend *be, fx_tensor device, const void *host)
{
    (void)be, (void)device, (void)host;
    return FX_OK;
}

static fx_status plan_download(fx_backend *be, void *host, fx_tensor device)
{
    (void)be, (void)host, (void)device;
    return FX_OK;
}

static fx_status plan_sync(fx_backend *be)
{
    (void)be;
    return FX_OK;
}

static void plan_close(fx_backend *be)
{
    be->impl = NULL; /* borrowed */
}

static const fx_ops plan_ops = {
    .name = "plan",
    .packed_bytes = plan_packed_bytes,
    .pack = plan_pack,
    .linear_scratch = plan_linear_scratch,
    .conv2d_scratch = plan_conv2d_scratch,
    .attention_scratch = plan_attention_scratch,
    .linear = plan_linear,
    .conv2d = plan_conv2d,
    .attention = plan_attention,
    .attention_merge = plan_tttt,
    .norm_mod = plan_ttttf,
    .layer_norm = plan_ttttf,
    .rms_norm = plan_tttf,
    .gate_add = plan_ttt,
    .gate_norm = plan_gate_norm,
    .qk_norm_rope = plan_ttttf,
    .axpy = plan_ttf,
    .activate = plan_activate,
    .glu = plan_glu,
    .embed = plan_ttt,
    .copy = plan_copy,
    .row_stats = plan_tt,
    .group_norm = plan_group_norm,
    .upsample2x = plan_tt,
    .to_rgb8 = plan_tt,
    .count_nonfinite = plan_count_nonfinite,
    .upload = plan_upload,
    .download = plan_download,
    .sync = plan_sync,
    .close = plan_close,
};

fx_status fx_backend_plan(fx_backend *inner, fx_backend **out)
{
    *out = NULL;
    FX_TRY(fx_ops_complete(&plan_ops));
    fx_backend *be = (fx_backend *)calloc(1, sizeof *be);
    FX_CHECK(be, FX_ENOMEM, "plan backend: %zu bytes are not available", sizeof *be);
    *be = (fx_backend){.ops = &plan_ops,
                       .dtype = inner->dtype,
                       .stream = inner->stream,
                       .threads = inner->threads,
                       .rows_exact = inner->rows_exact,
                       .impl = inner};
    *out = be;
    return FX_OK;
}

bool fx_planning(const fx_backend *be)
{
    return be->ops == &plan_ops;
}

const fx_backend *fx_plan_inner(const fx_backend *plan)
{
    return inner_of(plan);
}
