/* The backend that computes nothing: the real graph runs on it over a measuring arena, so that the plan and
 * the graph cannot disagree. Scratch questions go to the wrapped backend, which also creates its primitives
 * at that moment. Flops are counted by the wrappers in kernels/ops.c. No slot touches data; each tells who watches what the
 * call would touch. */
#include "kernels/plan.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct plan_state {
    fx_backend *inner; /* borrowed; NULL: none */
    const fx_plan_watch *watch;
    size_t scratch; /* bytes of the op that is about to be called */
} plan_state;

static plan_state *state_of(const fx_backend *be)
{
    return (plan_state *)be->impl;
}

static fx_backend *inner_of(const fx_backend *be)
{
    return state_of(be)->inner;
}

/* ---- asked of the wrapped backend ---- */

static size_t plan_packed_bytes(fx_backend *be, const fx_weight *w)
{
    fx_backend *inner = inner_of(be);
    return inner ? inner->ops->packed_bytes(inner, w)
                 : (size_t)(w->n * w->k * w->kh * w->kw) * fx_dtype_size(w->dtype);
}

static fx_status plan_linear_scratch(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b,
                                     fx_act act, size_t *bytes)
{
    fx_backend *inner = inner_of(be);
    *bytes = 0;
    if (inner) FX_TRY(inner->ops->linear_scratch(inner, y, x, w, b, act, bytes));
    state_of(be)->scratch = *bytes;
    return FX_OK;
}

static fx_status plan_conv2d_scratch(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b,
                                     int stride, const int pad[4], size_t *bytes)
{
    fx_backend *inner = inner_of(be);
    *bytes = 0;
    if (inner) FX_TRY(inner->ops->conv2d_scratch(inner, y, x, w, b, stride, pad, bytes));
    state_of(be)->scratch = *bytes;
    return FX_OK;
}

static fx_status plan_attention_scratch(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k,
                                        fx_tensor v, fx_tensor bias, size_t *bytes)
{
    fx_backend *inner = inner_of(be);
    *bytes = 0;
    if (inner) FX_TRY(inner->ops->attention_scratch(inner, o, lse, q, k, v, bias, bytes));
    state_of(be)->scratch = *bytes;
    return FX_OK;
}

/* ---- told, not done ---- */

void fx_plan_tell(const fx_backend *be, const fx_plan_op *op)
{
    const fx_plan_watch *w = state_of(be)->watch;
    if (w) w->op(w->ctx, op);
}

static fx_status tell(const fx_backend *be, const fx_plan_op *op)
{
    fx_plan_tell(be, op);
    return FX_OK;
}
#define TELL(be, ...) tell(be, &(fx_plan_op){__VA_ARGS__})

static fx_status plan_pack(fx_backend *be, const fx_weight *w, const void *src, void *dst)
{
    (void)be, (void)w, (void)src, (void)dst;
    return FX_OK;
}

static fx_status plan_linear(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act act,
                             void *scratch)
{
    (void)act;
    return TELL(be, .name = "linear", .write = {y}, .read = {x, b}, .weight = w, .scratch = scratch,
                .scratch_bytes = state_of(be)->scratch);
}

static fx_status plan_conv2d(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                             const int pad[4], void *scratch)
{
    (void)stride, (void)pad;
    return TELL(be, .name = "conv2d", .write = {y}, .read = {x, b}, .weight = w, .scratch = scratch,
                .scratch_bytes = state_of(be)->scratch);
}

static fx_status plan_attention(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k,
                                fx_tensor v, fx_tensor bias, float scale, void *scratch)
{
    (void)scale;
    return TELL(be, .name = "attention", .write = {o, lse}, .read = {q, k, v, bias}, .scratch = scratch,
                .scratch_bytes = state_of(be)->scratch);
}

static fx_status plan_attention_merge(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor o2,
                                      fx_tensor lse2)
{
    return TELL(be, .name = "attention_merge", .write = {o, lse}, .read = {o, lse, o2, lse2});
}

static fx_status plan_norm_mod(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor shift, fx_tensor scale,
                               float eps)
{
    (void)eps;
    return TELL(be, .name = "norm_mod", .write = {y}, .read = {x, shift, scale});
}

static fx_status plan_layer_norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor b,
                                 float eps)
{
    (void)eps;
    return TELL(be, .name = "layer_norm", .write = {y}, .read = {x, w, b});
}

static fx_status plan_rms_norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, float eps)
{
    (void)eps;
    return TELL(be, .name = "rms_norm", .write = {y}, .read = {x, w});
}

static fx_status plan_gate_add(fx_backend *be, fx_tensor x, fx_tensor gate, fx_tensor y)
{
    return TELL(be, .name = "gate_add", .write = {x}, .read = {x, gate, y});
}

static fx_status plan_gate_norm(fx_backend *be, fx_tensor h, fx_tensor x, fx_tensor gate, fx_tensor y,
                                fx_tensor shift, fx_tensor scale, float eps)
{
    (void)eps;
    return TELL(be, .name = "gate_norm", .write = {h, x}, .read = {x, gate, y, shift, scale});
}

static fx_status plan_qk_norm_rope(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor cs,
                                   float eps)
{
    (void)eps;
    return TELL(be, .name = "qk_norm_rope", .write = {y}, .read = {x, w, cs});
}

static fx_status plan_axpy(fx_backend *be, fx_tensor x, fx_tensor y, float a)
{
    (void)a;
    return TELL(be, .name = "axpy", .write = {x}, .read = {x, y});
}

static fx_status plan_activate(fx_backend *be, fx_tensor y, fx_tensor x, fx_act act)
{
    (void)act;
    return TELL(be, .name = "activate", .write = {y}, .read = {x});
}

static fx_status plan_glu(fx_backend *be, fx_tensor y, fx_tensor a, fx_tensor b, fx_act act)
{
    (void)act;
    return TELL(be, .name = "glu", .write = {y}, .read = {a, b});
}

static fx_status plan_embed(fx_backend *be, fx_tensor y, fx_tensor table, fx_tensor ids)
{
    return TELL(be, .name = "embed", .write = {y}, .read = {table, ids});
}

static fx_status plan_copy(fx_backend *be, fx_tensor y, fx_tensor x, float mul, float add)
{
    (void)mul, (void)add;
    return TELL(be, .name = "copy", .write = {y}, .read = {x});
}

static fx_status plan_row_stats(fx_backend *be, fx_tensor stats, fx_tensor x)
{
    return TELL(be, .name = "row_stats", .write = {stats}, .read = {x});
}

static fx_status plan_group_norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor stats, fx_tensor w,
                                 fx_tensor b, int64_t width, float eps, fx_act act)
{
    (void)width, (void)eps, (void)act;
    return TELL(be, .name = "group_norm", .write = {y}, .read = {x, stats, w, b});
}

static fx_status plan_upsample2x(fx_backend *be, fx_tensor y, fx_tensor x)
{
    return TELL(be, .name = "upsample2x", .write = {y}, .read = {x});
}

static fx_status plan_to_rgb8(fx_backend *be, fx_tensor y, fx_tensor x)
{
    return TELL(be, .name = "to_rgb8", .write = {y}, .read = {x});
}

static fx_status plan_count_nonfinite(fx_backend *be, fx_tensor x, int64_t *count)
{
    *count = 0;
    return TELL(be, .name = "count_nonfinite", .read = {x}, .host = true);
}

static fx_status plan_upload(fx_backend *be, fx_tensor device, const void *host)
{
    (void)host;
    return TELL(be, .name = "upload", .write = {device}, .host = true);
}

static fx_status plan_download(fx_backend *be, void *host, fx_tensor device)
{
    (void)host;
    return TELL(be, .name = "download", .read = {device}, .host = true);
}

static fx_status plan_sync(fx_backend *be)
{
    return TELL(be, .name = "sync", .host = true);
}

static void plan_close(fx_backend *be)
{
    free(be->impl); /* what it wraps is borrowed */
    be->impl = NULL;
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
    .attention_merge = plan_attention_merge,
    .norm_mod = plan_norm_mod,
    .layer_norm = plan_layer_norm,
    .rms_norm = plan_rms_norm,
    .gate_add = plan_gate_add,
    .gate_norm = plan_gate_norm,
    .qk_norm_rope = plan_qk_norm_rope,
    .axpy = plan_axpy,
    .activate = plan_activate,
    .glu = plan_glu,
    .embed = plan_embed,
    .copy = plan_copy,
    .row_stats = plan_row_stats,
    .group_norm = plan_group_norm,
    .upsample2x = plan_upsample2x,
    .to_rgb8 = plan_to_rgb8,
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
    plan_state *state = (plan_state *)calloc(1, sizeof *state);
    if (!be || !state) {
        free(be);
        free(state);
        return FX_FAIL(FX_ENOMEM, "plan backend: %zu bytes are not available", sizeof *be + sizeof *state);
    }
    state->inner = inner;
    *be = (fx_backend){.ops = &plan_ops,
                       .dtype = inner ? inner->dtype : FX_BF16,
                       .stream = inner ? inner->stream : FX_F32,
                       .threads = inner ? inner->threads : 1,
                       .rows_exact = inner ? inner->rows_exact : true,
                       .plain_rows = inner ? inner->plain_rows : true,
                       .coarse_parts = inner ? inner->coarse_parts : true, /* without one: a GPU's graph */
                       .impl = state};
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

void fx_plan_observe(fx_backend *plan, const fx_plan_watch *watch)
{
    state_of(plan)->watch = watch;
}

void fx_plan_box(fx_backend *be, const char *kind, int number)
{
    char name[64];
    const fx_plan_watch *w = fx_planning(be) ? state_of(be)->watch : NULL;
    if (!w) return;
    snprintf(name, sizeof name, "%s_%02d", kind, number);
    w->box(w->ctx, number < 0 ? kind : name);
}
