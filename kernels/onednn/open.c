/* Opens the oneDNN backend over the cpu backend, and keeps its primitives: a hash table by shape and strides,
 * filled while planning (scratch questions come with the real shapes), so that steps only look up. */
#include "kernels/onednn/onednn.h"

#include "kernels/cpu/cpu.h"
#include "kernels/onednn/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_PLACES = 64 };

/* ---- primitives ---- */

_Static_assert(sizeof(fx_dnnl_shape) == 7 * 8 + 12 * 4, "hashed as bytes: no padding");

static size_t hash_of(const fx_dnnl_shape *s)
{
    const unsigned char *p = (const unsigned char *)s;
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < sizeof *s; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return (size_t)(h ^ h >> 32);
}

/* The shape's place, or the free one where it belongs. */
static fx_onednn_entry *place_of(const fx_onednn *o, const fx_dnnl_shape *s)
{
    size_t i = hash_of(s) & (o->places - 1);
    while (o->entry[i].op && memcmp(&o->entry[i].shape, s, sizeof *s) != 0) i = (i + 1) & (o->places - 1);
    return &o->entry[i];
}

static fx_status grow(fx_onednn *o)
{
    fx_onednn old = *o;
    if (o->places > 2 * o->used) return FX_OK;
    o->places = old.places ? 2 * old.places : FIRST_PLACES;
    o->entry = calloc(o->places, sizeof *o->entry);
    if (!o->entry) {
        *o = old;
        return FX_FAIL(FX_ENOMEM, "onednn backend: no memory");
    }
    for (size_t i = 0; i < old.places; i++)
        if (old.entry[i].op) *place_of(o, &old.entry[i].shape) = old.entry[i];
    free(old.entry);
    return FX_OK;
}

static fx_status enough_zeros(fx_onednn *o, int64_t n)
{
    if (n <= o->zero_count) return FX_OK;
    float *more = calloc((size_t)n, sizeof *more);
    FX_CHECK(more, FX_ENOMEM, "onednn backend: no memory");
    free(o->zeros);
    o->zeros = more;
    o->zero_count = n;
    return FX_OK;
}

fx_status fx_onednn_op(fx_onednn *o, const fx_dnnl_shape *s, fx_dnnl_op **out)
{
    FX_TRY(grow(o));
    fx_onednn_entry *e = place_of(o, s);
    if (!e->op) {
        FX_TRY(enough_zeros(o, s->n));
        FX_TRY(fx_dnnl_op_new(o->dnnl, s, &e->op));
        e->shape = *s;
        o->used++;
    }
    *out = e->op;
    return FX_OK;
}

const float *fx_onednn_bias(const fx_onednn *o, fx_tensor b)
{
    return fx_present(b) ? (const float *)b.data : o->zeros;
}

/* ---- weights ---- */

fx_status fx_onednn_widen(fx_backend *be, const void *in, int64_t n, float *out)
{
    return fx_onednn_of(be)->cpu->copy(be, fx_view1(out, FX_F32, n),
                                       fx_view1((void *)(uintptr_t)in, FX_BF16, n), 1, 0);
}

fx_status fx_onednn_narrow(fx_backend *be, const float *in, int64_t n, void *out)
{
    return fx_onednn_of(be)->cpu->copy(be, fx_view1(out, FX_BF16, n),
                                       fx_view1((void *)(uintptr_t)in, FX_F32, n), 1, 0);
}

/* Of widened weights: f32 panels in the library's form, kept as bf16, which holds their values exactly. */
static fx_status panel_bytes(fx_onednn *o, fx_weight w, size_t *bytes)
{
    const int64_t panel = fx_onednn_panel(&w), n = w.n;
    size_t one;
    *bytes = 0;
    w.dtype = FX_F32;
    for (int64_t at = 0; at < n; at += panel) {
        w.n = n - at < panel ? n - at : panel;
        FX_TRY(fx_dnnl_weight_bytes(o->dnnl, &w, &one));
        *bytes += one / 2;
    }
    return FX_OK;
}

size_t fx_onednn_packed_bytes(fx_backend *be, const fx_weight *w)
{
    fx_onednn *o = fx_onednn_of(be);
    size_t bytes = 0; /* stays 0 where the library refuses: pack says why */
    if (fx_onednn_widens(o, w->dtype))
        (void)panel_bytes(o, *w, &bytes);
    else
        (void)fx_dnnl_weight_bytes(o->dnnl, w, &bytes);
    return bytes;
}

/* One panel; in, out: f32 buffers of the row-major and of the packed values. */
static fx_status pack_panel(fx_backend *be, const fx_weight *panel, const void *src, float *in, float *out,
                            size_t bytes, void *dst)
{
    FX_TRY(fx_onednn_widen(be, src, panel->n * panel->k * panel->kh * panel->kw, in));
    FX_TRY(fx_dnnl_weight_pack(fx_onednn_of(be)->dnnl, panel, in, out));
    return fx_onednn_narrow(be, out, (int64_t)(bytes / sizeof *out), dst);
}

static fx_status pack_panels(fx_backend *be, fx_weight w, const char *src, char *dst)
{
    fx_onednn *o = fx_onednn_of(be);
    const int64_t panel = fx_onednn_panel(&w), n = w.n, k = w.k * w.kh * w.kw;
    fx_status st = FX_OK;
    w.dtype = FX_F32;
    for (int64_t at = 0; at < n && !st; at += panel) {
        size_t bytes;
        w.n = n - at < panel ? n - at : panel;
        FX_TRY(fx_dnnl_weight_bytes(o->dnnl, &w, &bytes));
        float *in = malloc((size_t)(w.n * k) * sizeof *in), *out = calloc(1, bytes);
        st = in && out ? pack_panel(be, &w, src, in, out, bytes, dst)
                       : FX_FAIL(FX_ENOMEM, "onednn backend: no memory to pack weights");
        free(in);
        free(out);
        src += w.n * k * 2;
        dst += bytes / 2;
    }
    return st;
}

fx_status fx_onednn_pack(fx_backend *be, const fx_weight *w, const void *src, void *dst)
{
    fx_onednn *o = fx_onednn_of(be);
    if (fx_onednn_widens(o, w->dtype)) return pack_panels(be, *w, src, dst);
    return fx_dnnl_weight_pack(o->dnnl, w, src, dst);
}

/* ---- open ---- */

static void free_state(fx_onednn *o)
{
    for (size_t i = 0; i < o->places; i++)
        if (o->entry[i].op) fx_dnnl_op_free(&o->entry[i].op);
    fx_dnnl_close(&o->dnnl);
    free(o->entry);
    free(o->zeros);
    free(o);
}

static void onednn_close(fx_backend *be)
{
    fx_onednn *o = fx_onednn_of(be);
    be->ops = o->cpu;
    be->ops->close(be);
    free_state(o);
}

static void replace_slots(fx_onednn *o, const fx_ops *cpu)
{
    o->cpu = cpu;
    o->ops = *cpu;
    o->ops.name = "onednn";
    o->ops.packed_bytes = fx_onednn_packed_bytes;
    o->ops.pack = fx_onednn_pack;
    o->ops.linear_scratch = fx_onednn_linear_scratch;
    o->ops.linear = fx_onednn_linear;
    o->ops.conv2d_scratch = fx_onednn_conv2d_scratch;
    o->ops.conv2d = fx_onednn_conv2d;
    o->ops.close = onednn_close;
}

fx_status fx_onednn_open(fx_dtype dtype, int threads, fx_backend **out)
{
    fx_backend *be = NULL;
    *out = NULL;
    fx_onednn *o = calloc(1, sizeof *o);
    FX_CHECK(o, FX_ENOMEM, "onednn backend: no memory");
    fx_status st = fx_dnnl_open(threads, &o->dnnl);
    if (!st) st = fx_cpu_open(dtype, threads, &be);
    if (st) {
        free_state(o);
        return st;
    }
    o->operand = dtype == FX_BF16 && fx_dnnl_computes(o->dnnl, FX_BF16) ? FX_BF16 : FX_F32;
    replace_slots(o, be->ops);
    be->ops = &o->ops;
    be->rows_exact = false;
    *out = be;
    return FX_OK;
}

const char *fx_onednn_describe(const fx_backend *be)
{
    static _Thread_local char text[160];
    snprintf(text, sizeof text, "%s%s, %s", fx_dnnl_version_text(),
             fx_dnnl_uses_openmp() ? "" : " (threads of its own)", fx_cpu_describe(be));
    return text;
}
