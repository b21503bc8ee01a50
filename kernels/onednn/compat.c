/* oneDNN: engine, descriptors, and weights in the library's own form. */
#include "kernels/onednn/compat_api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The shape for which the library chooses its form of the weights. */
enum { NOMINAL_ROWS = 512, NOMINAL_SIDE = 64 };

/* ---- engine ---- */

fx_status fx_dnnl_open(int threads, fx_dnnl **out)
{
    fx_dnnl *d = *out = calloc(1, sizeof *d);
    FX_CHECK(d, FX_ENOMEM, "oneDNN: no memory");
    d->threads = threads;
    dnnl_status_t status = dnnl_engine_create(&d->engine, dnnl_cpu, 0);
    if (status == dnnl_success) status = dnnl_stream_create(&d->stream, d->engine, dnnl_stream_default_flags);
    if (status == dnnl_success) return FX_OK;
    fx_dnnl_close(out);
    return FX_FAIL(FX_EDEVICE, "%s opens no CPU engine (status %d); use --backend cpu",
                   fx_dnnl_version_text(), (int)status);
}

void fx_dnnl_close(fx_dnnl **dp)
{
    fx_dnnl *d = *dp;
    if (!d) return;
    for (size_t i = 0; i < d->forms; i++) md_free(&d->form[i].md);
    if (d->stream) dnnl_stream_destroy(d->stream);
    if (d->engine) dnnl_engine_destroy(d->engine);
    free(d->form);
    free(d);
    *dp = NULL;
}

const char *fx_dnnl_version_text(void)
{
    static _Thread_local char text[32];
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, sizeof text, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
    return text;
}

bool fx_dnnl_uses_openmp(void)
{
    return dnnl_version()->cpu_runtime == DNNL_RUNTIME_OMP;
}

/* ---- descriptors ---- */

static dnnl_data_type_t type_of(fx_dtype dtype)
{
    return dtype == FX_BF16 ? dnnl_bf16 : dnnl_f32;
}

static dnnl_status_t append_act(dnnl_post_ops_t ops, fx_act act)
{
    switch (act) {
    case FX_ACT_GELU_TANH: return APPEND_ELTWISE(ops, dnnl_eltwise_gelu_tanh, 0.0f, 0.0f);
    case FX_ACT_GELU_ERF: return APPEND_ELTWISE(ops, dnnl_eltwise_gelu_erf, 0.0f, 0.0f);
    case FX_ACT_QUICK_GELU: return APPEND_ELTWISE(ops, dnnl_eltwise_swish, 1.702f, 0.0f);
    case FX_ACT_SILU: return APPEND_ELTWISE(ops, dnnl_eltwise_swish, 1.0f, 0.0f);
    case FX_ACT_NONE: break;
    }
    return dnnl_success;
}

/* x, w, b, y; weights NULL: the library chooses. */
static fx_status linear_mds(const fx_dnnl_shape *s, fx_md_view weights, fx_md md[4])
{
    const dnnl_dims_t x = {s->m, s->k}, w = {s->k, s->n}, b = {1, s->n}, y = {s->m, s->n};
    const dnnl_dims_t x_stride = {s->x_stride, 1}, b_stride = {s->n, 1}, y_stride = {s->y_stride, 1};
    DNNL_TRY(MD_STRIDES(&md[0], 2, x, type_of(s->dtype), x_stride));
    DNNL_TRY(weights ? MD_CLONE(&md[1], weights)
                     : MD_TAG(&md[1], 2, w, type_of(s->dtype), dnnl_format_tag_any));
    DNNL_TRY(MD_STRIDES(&md[2], 2, b, dnnl_f32, b_stride));
    DNNL_TRY(MD_STRIDES(&md[3], 2, y, type_of(s->out), y_stride));
    return FX_OK;
}

static fx_status conv_mds(const fx_dnnl_shape *s, fx_md_view weights, fx_md md[4])
{
    const int64_t ho = (s->h + s->pad[0] + s->pad[1] - s->kh) / s->stride + 1,
                  wo = (s->w + s->pad[2] + s->pad[3] - s->kw) / s->stride + 1;
    const dnnl_dims_t x = {1, s->k, s->h, s->w}, w = {s->n, s->k, s->kh, s->kw}, b = {s->n},
                      y = {1, s->n, ho, wo};
    DNNL_TRY(MD_TAG(&md[0], 4, x, type_of(s->dtype), dnnl_nhwc));
    DNNL_TRY(weights ? MD_CLONE(&md[1], weights)
                     : MD_TAG(&md[1], 4, w, type_of(s->dtype), dnnl_format_tag_any));
    DNNL_TRY(MD_TAG(&md[2], 1, b, dnnl_f32, dnnl_a));
    DNNL_TRY(MD_TAG(&md[3], 4, y, type_of(s->out), dnnl_nhwc));
    return FX_OK;
}

static fx_status describe_with(fx_dnnl *d, const fx_dnnl_shape *s, fx_act act, fx_md_view weights,
                               fx_md md[4], dnnl_primitive_attr_t attr, dnnl_post_ops_t ops,
                               dnnl_primitive_desc_t *pd)
{
    FX_TRY(s->kind == FX_WEIGHT_CONV ? conv_mds(s, weights, md) : linear_mds(s, weights, md));
    DNNL_TRY(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
    DNNL_TRY(append_act(ops, act));
    DNNL_TRY(dnnl_primitive_attr_set_post_ops(attr, ops));
    DNNL_TRY(s->kind == FX_WEIGHT_CONV ? conv_desc(pd, d->engine, md, s->bias, s, attr)
                                       : matmul_desc(pd, d->engine, md, s->bias, attr));
    return FX_OK;
}

fx_status fx_dnnl_describe(fx_dnnl *d, const fx_dnnl_shape *s, fx_act act, fx_md_view weights,
                           dnnl_primitive_desc_t *pd)
{
    fx_md md[4];
    dnnl_primitive_attr_t attr;
    dnnl_post_ops_t ops;
    memset(md, 0, sizeof md);
    *pd = NULL;
    DNNL_TRY(dnnl_primitive_attr_create(&attr));
    DNNL_TRY(dnnl_post_ops_create(&ops));
    const fx_status st = describe_with(d, s, act, weights, md, attr, ops, pd);
    for (int i = 0; i < 4; i++) md_free(&md[i]);
    dnnl_post_ops_destroy(ops);
    dnnl_primitive_attr_destroy(attr);
    return st;
}

/* ---- weights ---- */

static fx_dnnl_shape nominal_shape(const fx_weight *w)
{
    fx_dnnl_shape s;
    memset(&s, 0, sizeof s);
    s.n = w->n, s.k = w->k, s.kind = w->kind, s.dtype = w->dtype, s.out = FX_F32, s.bias = 1;
    if (w->kind == FX_WEIGHT_LINEAR) {
        s.m = NOMINAL_ROWS, s.x_stride = w->k, s.y_stride = w->n;
        return s;
    }
    s.h = s.w = NOMINAL_SIDE, s.kh = w->kh, s.kw = w->kw, s.stride = 1;
    for (int i = 0; i < 4; i++) s.pad[i] = (i < 2 ? w->kh : w->kw) / 2;
    return s;
}

static bool same_weight(const fx_weight *a, const fx_weight *b)
{
    return a->n == b->n && a->k == b->k && a->kh == b->kh && a->kw == b->kw && a->kind == b->kind &&
           a->dtype == b->dtype;
}

fx_status fx_dnnl_form_of(fx_dnnl *d, const fx_weight *w, fx_md *out)
{
    for (size_t i = 0; i < d->forms; i++)
        if (same_weight(&d->form[i].w, w)) {
            *out = d->form[i].md;
            return FX_OK;
        }
    const fx_dnnl_shape nominal = nominal_shape(w);
    dnnl_primitive_desc_t pd;
    fx_dnnl_form *more = realloc(d->form, (d->forms + 1) * sizeof *more);
    FX_CHECK(more, FX_ENOMEM, "oneDNN: no memory");
    d->form = more;
    const int before = fx_dnnl_enter(1);
    const fx_status st = fx_dnnl_describe(d, &nominal, FX_ACT_NONE, NULL, &pd);
    fx_dnnl_leave(before);
    FX_TRY(st);
    more[d->forms].w = *w;
    const dnnl_status_t status = MD_CLONE(&more[d->forms].md, fx_dnnl_md(pd, dnnl_query_weights_md, 0));
    dnnl_primitive_desc_destroy(pd);
    DNNL_TRY(status);
    *out = more[d->forms++].md;
    return FX_OK;
}

bool fx_dnnl_computes(fx_dnnl *d, fx_dtype dtype)
{
    const fx_weight w = {.n = 64, .k = 64, .kh = 1, .kw = 1, .kind = FX_WEIGHT_LINEAR, .dtype = dtype};
    fx_md form;
    return fx_dnnl_form_of(d, &w, &form) == FX_OK;
}

fx_status fx_dnnl_weight_bytes(fx_dnnl *d, const fx_weight *w, size_t *bytes)
{
    fx_md form;
    *bytes = 0;
    FX_TRY(fx_dnnl_form_of(d, w, &form));
    *bytes = dnnl_memory_desc_get_size(md_view(&form));
    return FX_OK;
}

static dnnl_status_t execute_reorder(fx_dnnl *d, dnnl_primitive_desc_t pd, dnnl_memory_t from,
                                     dnnl_memory_t to)
{
    dnnl_primitive_t primitive;
    dnnl_status_t status = dnnl_primitive_create(&primitive, pd);
    if (status != dnnl_success) return status;
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    status = dnnl_primitive_execute(primitive, d->stream, 2, args);
    if (status == dnnl_success) status = dnnl_stream_wait(d->stream);
    dnnl_primitive_destroy(primitive);
    return status;
}

static fx_status reorder(fx_dnnl *d, fx_md_view from, fx_md_view to, const void *src, void *dst)
{
    dnnl_primitive_desc_t pd;
    dnnl_memory_t memory[2] = {NULL, NULL};
    DNNL_TRY(dnnl_reorder_primitive_desc_create(&pd, from, d->engine, to, d->engine, NULL));
    dnnl_status_t status = dnnl_memory_create(&memory[0], from, d->engine, (void *)(uintptr_t)src);
    if (status == dnnl_success) status = dnnl_memory_create(&memory[1], to, d->engine, dst);
    if (status == dnnl_success) status = execute_reorder(d, pd, memory[0], memory[1]);
    for (int i = 0; i < 2; i++)
        if (memory[i]) dnnl_memory_destroy(memory[i]);
    dnnl_primitive_desc_destroy(pd);
    DNNL_TRY(status);
    return FX_OK;
}

fx_status fx_dnnl_weight_pack(fx_dnnl *d, const fx_weight *w, const void *src, void *dst)
{
    const dnnl_dims_t dims[] = {{w->k, w->n}, {w->n, w->k, w->kh, w->kw}};
    const dnnl_dims_t strides[] = {{1, w->k}, {w->k * w->kh * w->kw, (int64_t)w->kh * w->kw, w->kw, 1}};
    const int conv = w->kind == FX_WEIGHT_CONV;
    fx_md form, plain;
    FX_TRY(fx_dnnl_form_of(d, w, &form));
    DNNL_TRY(MD_STRIDES(&plain, conv ? 4 : 2, dims[conv], type_of(w->dtype), strides[conv]));
    const int before = fx_dnnl_enter(d->threads);
    const fx_status st = reorder(d, md_view(&plain), md_view(&form), src, dst);
    fx_dnnl_leave(before);
    md_free(&plain);
    return st;
}
