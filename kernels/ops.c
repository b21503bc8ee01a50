/* The graph's calls: each fx_<op> checks its arguments once for all backends, counts flops, takes scratch
 * from the arena and calls the backend's slot. Empty outputs (a rank may own no rows) return here. Contract:
 * kernels/ops.h. */
#include "kernels/check.h"

#define WANT1(be, op, t, flags, a)          fx_want(be, op, #t, t, flags, 1, (const int64_t[]){a})
#define WANT2(be, op, t, flags, a, b)       fx_want(be, op, #t, t, flags, 2, (const int64_t[]){a, b})
#define WANT3(be, op, t, flags, a, b, c)    fx_want(be, op, #t, t, flags, 3, (const int64_t[]){a, b, c})
#define WANT_OPTIONAL1(be, op, t, flags, a) (fx_present(t) ? WANT1(be, op, t, flags, a) : FX_OK)
#define APART(op, y, x)                     fx_want_apart(op, #y, y, #x, x)
#define APART_OR_SAME(op, y, x)             fx_want_apart_or_same(op, #y, y, #x, x)
enum { ANY = FX_W_ANY };

static bool nothing(fx_tensor y)
{
    return fx_numel(y) == 0;
}

/* Takes `bytes` of scratch; the caller rewinds to its own mark. */
static fx_status take_scratch(fx_backend *be, const char *op, size_t bytes, void **out)
{
    *out = NULL;
    if (bytes == 0) return FX_OK;
    FX_CHECK(be->arena, FX_ESHAPE, "%s: needs %zu bytes of scratch and the backend has no arena", op, bytes);
    fx_tensor t;
    FX_TRY(fx_push1(be->arena, FX_U8, (int64_t)bytes, &t));
    *out = t.data;
    return FX_OK;
}

static size_t mark_of(const fx_backend *be)
{
    return be->arena ? fx_mark(be->arena) : 0;
}

static void rewind_to(fx_backend *be, size_t mark)
{
    if (be->arena) fx_rewind(be->arena, mark);
}

fx_status fx_linear(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act act)
{
    FX_TRY(fx_want_weight(be, "linear", &w, FX_WEIGHT_LINEAR));
    FX_TRY(WANT2(be, "linear", x, FX_W_DTYPE, ANY, w.k));
    FX_TRY(WANT2(be, "linear", y, FX_W_WORK, x.shape[0], w.n));
    FX_TRY(WANT_OPTIONAL1(be, "linear", b, FX_W_F32, w.n));
    FX_TRY(APART("linear", y, x));
    if (nothing(y)) return FX_OK;
    be->counts.calls++;
    be->counts.linear_flop += 2.0 * (double)x.shape[0] * (double)w.n * (double)w.k;
    const size_t mark = mark_of(be);
    size_t bytes = 0;
    void *scratch = NULL;
    fx_status st;
    FX_TRY_OUT(be->ops->linear_scratch(be, y, x, w, b, act, &bytes));
    FX_TRY_OUT(take_scratch(be, "linear", bytes, &scratch));
    FX_TRY_OUT(be->ops->linear(be, y, x, w, b, act, scratch));
out:
    rewind_to(be, mark);
    return st;
}

static fx_status check_conv2d(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                              const int pad[4])
{
    FX_TRY(fx_want_weight(be, "conv2d", &w, FX_WEIGHT_CONV));
    FX_CHECK((stride == 1 || stride == 2) && pad[0] >= 0 && pad[1] >= 0 && pad[2] >= 0 && pad[3] >= 0,
             FX_ESHAPE, "conv2d: stride %d, pad %d,%d,%d,%d; want stride 1 or 2 and no negative pad", stride,
             pad[0], pad[1], pad[2], pad[3]);
    FX_TRY(WANT3(be, "conv2d", x, FX_W_DTYPE | FX_W_DENSE2, ANY, ANY, w.k));
    const int64_t high = x.shape[0] + pad[0] + pad[1] - w.kh, wide = x.shape[1] + pad[2] + pad[3] - w.kw;
    FX_CHECK(high >= 0 && wide >= 0, FX_ESHAPE,
             "conv2d: %dx%d taps do not fit x %lldx%lld with pad %d,%d,%d,%d", (int)w.kh, (int)w.kw,
             (long long)x.shape[0], (long long)x.shape[1], pad[0], pad[1], pad[2], pad[3]);
    FX_TRY(WANT3(be, "conv2d", y, FX_W_WORK | FX_W_DENSE2, high / stride + 1, wide / stride + 1, w.n));
    FX_TRY(WANT_OPTIONAL1(be, "conv2d", b, FX_W_F32, w.n));
    return APART("conv2d", y, x);
}

fx_status fx_conv2d(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                    const int pad[4])
{
    /* a rank without picture rows: no input rows and no output rows, whatever the halo */
    if (y.ndim == 3 && y.shape[0] == 0) return FX_OK;
    FX_TRY(check_conv2d(be, y, x, w, b, stride, pad));
    if (nothing(y)) return FX_OK;
    be->counts.calls++;
    be->counts.conv_flop += 2.0 * (double)fx_numel(y) * (double)(w.k * w.kh * w.kw);
    const size_t mark = mark_of(be);
    size_t bytes = 0;
    void *scratch = NULL;
    fx_status st;
    FX_TRY_OUT(be->ops->conv2d_scratch(be, y, x, w, b, stride, pad, &bytes));
    FX_TRY_OUT(take_scratch(be, "conv2d", bytes, &scratch));
    FX_TRY_OUT(be->ops->conv2d(be, y, x, w, b, stride, pad, scratch));
out:
    rewind_to(be, mark);
    return st;
}

static fx_status check_attention(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k,
                                 fx_tensor v, fx_tensor bias)
{
    FX_TRY(WANT3(be, "attention", q, FX_W_DTYPE, ANY, ANY, ANY));
    const int64_t tq = q.shape[0], heads = q.shape[1], dim = q.shape[2];
    FX_CHECK(heads > 0 && dim > 0 && dim <= 1024, FX_ESHAPE,
             "attention: %lld heads of %lld channels; want a head dim of 1 to 1024", (long long)heads,
             (long long)dim);
    FX_TRY(WANT3(be, "attention", k, FX_W_DTYPE, ANY, heads, dim));
    FX_TRY(WANT3(be, "attention", v, FX_W_DTYPE, k.shape[0], heads, dim));
    FX_TRY(WANT3(be, "attention", o, FX_W_WORK | FX_W_F32, tq, heads, dim));
    if (fx_present(lse)) {
        FX_TRY(WANT2(be, "attention", lse, FX_W_F32 | FX_W_F64, heads, tq));
        FX_TRY(APART("attention", lse, o));
    }
    if (fx_present(bias)) {
        const bool per_head = bias.ndim == 2 && bias.shape[0] == heads;
        FX_TRY(WANT2(be, "attention", bias, FX_W_F32, per_head ? heads : 1, tq + k.shape[0] - 1));
    }
    FX_TRY(APART("attention", o, q));
    FX_TRY(APART("attention", o, k));
    return APART("attention", o, v);
}

fx_status fx_attention(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k, fx_tensor v,
                       fx_tensor bias, float scale)
{
    if (o.ndim == 3 && q.ndim == 3 && o.shape[0] == 0 && q.shape[0] == 0) return FX_OK;
    FX_TRY(check_attention(be, o, lse, q, k, v, bias));
    be->counts.calls++;
    be->counts.attention_flop += 4.0 * (double)fx_numel(q) * (double)k.shape[0];
    const size_t mark = mark_of(be);
    size_t bytes = 0;
    void *scratch = NULL;
    fx_status st;
    FX_TRY_OUT(be->ops->attention_scratch(be, o, lse, q, k, v, bias, &bytes));
    FX_TRY_OUT(take_scratch(be, "attention", bytes, &scratch));
    FX_TRY_OUT(be->ops->attention(be, o, lse, q, k, v, bias, scale, scratch));
out:
    rewind_to(be, mark);
    return st;
}

fx_status fx_attention_merge(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor o2, fx_tensor lse2)
{
    FX_TRY(WANT3(be, "attention_merge", o, FX_W_STREAM, ANY, ANY, ANY));
    FX_TRY(WANT3(be, "attention_merge", o2, FX_W_WORK, o.shape[0], o.shape[1], o.shape[2]));
    FX_TRY(WANT2(be, "attention_merge", lse, FX_W_STREAM, o.shape[1], o.shape[0]));
    FX_TRY(WANT2(be, "attention_merge", lse2, FX_W_STREAM, o.shape[1], o.shape[0]));
    FX_TRY(APART("attention_merge", o, o2));
    FX_TRY(APART("attention_merge", lse, lse2));
    if (nothing(o)) return FX_OK;
    be->counts.calls++;
    return be->ops->attention_merge(be, o, lse, o2, lse2);
}

fx_status fx_norm_mod(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor shift, fx_tensor scale, float eps)
{
    FX_TRY(WANT2(be, "norm_mod", x, FX_W_STREAM, ANY, ANY));
    FX_TRY(WANT2(be, "norm_mod", y, FX_W_DTYPE, x.shape[0], x.shape[1]));
    FX_TRY(WANT1(be, "norm_mod", shift, FX_W_STREAM, x.shape[1]));
    FX_TRY(WANT1(be, "norm_mod", scale, FX_W_STREAM, x.shape[1]));
    FX_TRY(APART("norm_mod", y, x));
    if (nothing(y)) return FX_OK;
    be->counts.calls++;
    return be->ops->norm_mod(be, y, x, shift, scale, eps);
}

fx_status fx_layer_norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor b, float eps)
{
    FX_TRY(WANT2(be, "layer_norm", x, FX_W_WORK, ANY, ANY));
    FX_TRY(WANT2(be, "layer_norm", y, FX_W_WORK, x.shape[0], x.shape[1]));
    FX_TRY(WANT1(be, "layer_norm", w, FX_W_F32, x.shape[1]));
    FX_TRY(WANT1(be, "layer_norm", b, FX_W_F32, x.shape[1]));
    FX_TRY(APART("layer_norm", y, x));
    if (nothing(y)) return FX_OK;
    be->counts.calls++;
    return be->ops->layer_norm(be, y, x, w, b, eps);
}

fx_status fx_rms_norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, float eps)
{
    FX_TRY(WANT2(be, "rms_norm", x, FX_W_STREAM, ANY, ANY));
    FX_TRY(WANT2(be, "rms_norm", y, FX_W_WORK, x.shape[0], x.shape[1]));
    FX_TRY(WANT1(be, "rms_norm", w, FX_W_F32, x.shape[1]));
    FX_TRY(APART("rms_norm", y, x));
    if (nothing(y)) return FX_OK;
    be->counts.calls++;
    return be->ops->rms_norm(be, y, x, w, eps);
}

fx_status fx_gate_add(fx_backend *be, fx_tensor x, fx_tensor gate, fx_tensor y)
{
    FX_TRY(WANT2(be, "gate_add", x, FX_W_STREAM, ANY, ANY));
    FX_TRY(WANT2(be, "gate_add", y, FX_W_WORK, x.shape[0], x.shape[1]));
    FX_TRY(WANT1(be, "gate_add", gate, FX_W_STREAM, x.shape[1]));
    FX_TRY(APART("gate_add", x, y));
    FX_TRY(APART("gate_add", x, gate));
    if (nothing(x)) return FX_OK;
    be->counts.calls++;
    return be->ops->gate_add(be, x, gate, y);
}

fx_status fx_gate_norm(fx_backend *be, fx_tensor h, fx_tensor x, fx_tensor gate, fx_tensor y, fx_tensor shift,
                       fx_tensor scale, float eps)
{
    FX_TRY(WANT2(be, "gate_norm", x, FX_W_STREAM, ANY, ANY));
    FX_TRY(WANT2(be, "gate_norm", y, FX_W_DTYPE, x.shape[0], x.shape[1]));
    FX_TRY(WANT2(be, "gate_norm", h, FX_W_DTYPE, x.shape[0], x.shape[1]));
    FX_TRY(WANT1(be, "gate_norm", gate, FX_W_STREAM, x.shape[1]));
    FX_TRY(WANT1(be, "gate_norm", shift, FX_W_STREAM, x.shape[1]));
    FX_TRY(WANT1(be, "gate_norm", scale, FX_W_STREAM, x.shape[1]));
    FX_TRY(APART("gate_norm", x, y));
    FX_TRY(APART("gate_norm", x, gate));
    FX_TRY(APART("gate_norm", h, x));
    FX_TRY(APART("gate_norm", h, y));
    if (nothing(x)) return FX_OK;
    be->counts.calls++;
    return be->ops->gate_norm(be, h, x, gate, y, shift, scale, eps);
}

fx_status fx_qk_norm_rope(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor cs, float eps)
{
    FX_TRY(WANT3(be, "qk_norm_rope", x, FX_W_DTYPE, ANY, ANY, ANY));
    FX_TRY(WANT3(be, "qk_norm_rope", y, FX_W_DTYPE, x.shape[0], x.shape[1], x.shape[2]));
    FX_TRY(WANT_OPTIONAL1(be, "qk_norm_rope", w, FX_W_F32, x.shape[2]));
    if (fx_present(cs)) {
        FX_CHECK(x.shape[2] % 2 == 0, FX_ESHAPE, "qk_norm_rope: head dim %lld is odd and cannot be rotated",
                 (long long)x.shape[2]);
        FX_TRY(WANT3(be, "qk_norm_rope", cs, FX_W_F32 | FX_W_DENSE2, x.shape[0], x.shape[2] / 2, 2));
    }
    FX_TRY(APART_OR_SAME("qk_norm_rope", y, x));
    if (nothing(y)) return FX_OK;
    be->counts.calls++;
    return be->ops->qk_norm_rope(be, y, x, w, cs, eps);
}

fx_status fx_axpy(fx_backend *be, fx_tensor x, fx_tensor y, float a)
{
    FX_TRY(fx_want_same_shape("axpy", "x", x, "y", y));
    FX_TRY(fx_want(be, "axpy", "x", x, FX_W_WORK, x.ndim, x.shape));
    FX_TRY(fx_want(be, "axpy", "y", y, FX_W_WORK, x.ndim, x.shape));
    FX_TRY(APART("axpy", x, y));
    if (nothing(x)) return FX_OK;
    be->counts.calls++;
    return be->ops->axpy(be, x, y, a);
}

fx_status fx_activate(fx_backend *be, fx_tensor y, fx_tensor x, fx_act act)
{
    FX_TRY(WANT2(be, "activate", x, FX_W_WORK, ANY, ANY));
    FX_TRY(WANT2(be, "activate", y, FX_W_WORK, x.shape[0], x.shape[1]));
    FX_TRY(APART_OR_SAME("activate", y, x));
    if (nothing(y)) return FX_OK;
    be->counts.calls++;
    return be->ops->activate(be, y, x, act);
}

fx_status fx_glu(fx_backend *be, fx_tensor y, fx_tensor a, fx_tensor b, fx_act act)
{
    FX_TRY(WANT2(be, "glu", a, FX_W_WORK, ANY, ANY));
    FX_TRY(WANT2(be, "glu", b, FX_W_WORK, a.shape[0], a.shape[1]));
    FX_TRY(WANT2(be, "glu", y, FX_W_WORK, a.shape[0], a.shape[1]));
    FX_TRY(APART_OR_SAME("glu", y, a));
    FX_TRY(APART_OR_SAME("glu", y, b));
    if (nothing(y)) return FX_OK;
    be->counts.calls++;
    return be->ops->glu(be, y, a, b, act);
}

fx_status fx_embed(fx_backend *be, fx_tensor y, fx_tensor table, fx_tensor ids)
{
    FX_TRY(WANT2(be, "embed", table, FX_W_DTYPE, ANY, ANY));
    FX_TRY(WANT1(be, "embed", ids, FX_W_I32, ANY));
    FX_TRY(WANT2(be, "embed", y, FX_W_WORK, ids.shape[0], table.shape[1]));
    FX_TRY(APART("embed", y, table));
    FX_TRY(APART("embed", y, ids));
    if (nothing(y)) return FX_OK;
    be->counts.calls++;
    return be->ops->embed(be, y, table, ids);
}

fx_status fx_copy(fx_backend *be, fx_tensor y, fx_tensor x, float mul, float add)
{
    FX_TRY(fx_want_same_shape("copy", "y", y, "x", x));
    FX_TRY(fx_want(be, "copy", "y", y, FX_W_FLOAT | FX_W_STRIDED, y.ndim, y.shape));
    FX_TRY(fx_want(be, "copy", "x", x, FX_W_FLOAT | FX_W_STRIDED, y.ndim, y.shape));
    FX_TRY(APART("copy", y, x));
    if (nothing(y)) return FX_OK;
    be->counts.calls++;
    return be->ops->copy(be, y, x, mul, add);
}

static fx_status check_groups(const char *op, fx_tensor x, int64_t groups)
{
    FX_CHECK(groups > 0 && x.shape[2] % groups == 0, FX_ESHAPE, "%s: %lld channels in %lld groups", op,
             (long long)x.shape[2], (long long)groups);
    return FX_OK;
}

fx_status fx_row_stats(fx_backend *be, fx_tensor stats, fx_tensor x)
{
    FX_TRY(WANT3(be, "row_stats", x, FX_W_WORK | FX_W_DENSE2, ANY, ANY, ANY));
    FX_TRY(WANT3(be, "row_stats", stats, FX_W_F64 | FX_W_DENSE2, x.shape[0], ANY, 2));
    FX_TRY(check_groups("row_stats", x, stats.shape[1]));
    FX_TRY(APART("row_stats", stats, x));
    if (nothing(stats)) return FX_OK;
    be->counts.calls++;
    return be->ops->row_stats(be, stats, x);
}

fx_status fx_group_norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor stats, fx_tensor w, fx_tensor b,
                        int64_t width, float eps, fx_act act)
{
    FX_TRY(WANT3(be, "group_norm", x, FX_W_WORK | FX_W_DENSE2, ANY, width, ANY));
    FX_TRY(WANT3(be, "group_norm", y, FX_W_WORK | FX_W_DENSE2, x.shape[0], width, x.shape[2]));
    FX_TRY(WANT3(be, "group_norm", stats, FX_W_F64 | FX_W_DENSE2, ANY, ANY, 2));
    FX_TRY(check_groups("group_norm", x, stats.shape[1]));
    FX_TRY(WANT1(be, "group_norm", w, FX_W_F32, x.shape[2]));
    FX_TRY(WANT1(be, "group_norm", b, FX_W_F32, x.shape[2]));
    FX_TRY(APART_OR_SAME("group_norm", y, x));
    if (nothing(y)) return FX_OK;
    FX_CHECK(stats.shape[0] >= x.shape[0], FX_ESHAPE,
             "group_norm: statistics of %lld rows for %lld rows of x", (long long)stats.shape[0],
             (long long)x.shape[0]);
    be->counts.calls++;
    return be->ops->group_norm(be, y, x, stats, w, b, width, eps, act);
}

fx_status fx_upsample2x(fx_backend *be, fx_tensor y, fx_tensor x)
{
    FX_TRY(WANT3(be, "upsample2x", x, FX_W_WORK | FX_W_DENSE2, ANY, ANY, ANY));
    FX_TRY(WANT3(be, "upsample2x", y, FX_W_WORK | FX_W_DENSE2, 2 * x.shape[0], 2 * x.shape[1], x.shape[2]));
    FX_TRY(APART("upsample2x", y, x));
    if (nothing(y)) return FX_OK;
    be->counts.calls++;
    return be->ops->upsample2x(be, y, x);
}

fx_status fx_to_rgb8(fx_backend *be, fx_tensor y, fx_tensor x)
{
    FX_TRY(WANT3(be, "to_rgb8", x, FX_W_WORK | FX_W_DENSE2, ANY, ANY, 3));
    FX_TRY(WANT3(be, "to_rgb8", y, FX_W_U8 | FX_W_DENSE2, x.shape[0], x.shape[1], 3));
    FX_TRY(APART("to_rgb8", y, x));
    if (nothing(y)) return FX_OK;
    be->counts.calls++;
    return be->ops->to_rgb8(be, y, x);
}

fx_status fx_count_nonfinite(fx_backend *be, fx_tensor x, int64_t *count)
{
    *count = 0;
    FX_TRY(WANT2(be, "count_nonfinite", x, FX_W_WORK, ANY, ANY));
    if (nothing(x)) return FX_OK;
    be->counts.calls++;
    return be->ops->count_nonfinite(be, x, count);
}

fx_status fx_upload(fx_backend *be, fx_tensor device, const void *host)
{
    char a[96];
    FX_CHECK(fx_contiguous(device), FX_ESHAPE, "upload: %s is not contiguous",
             fx_shape_str(device, a, sizeof a));
    if (nothing(device)) return FX_OK;
    return be->ops->upload(be, device, host);
}

fx_status fx_download(fx_backend *be, void *host, fx_tensor device)
{
    char a[96];
    FX_CHECK(fx_contiguous(device), FX_ESHAPE, "download: %s is not contiguous",
             fx_shape_str(device, a, sizeof a));
    if (nothing(device)) return FX_OK;
    return be->ops->download(be, host, device);
}

fx_status fx_sync(fx_backend *be)
{
    return be->ops->sync(be);
}

size_t fx_packed_bytes(fx_backend *be, const fx_weight *w)
{
    return be->ops->packed_bytes(be, w);
}

fx_status fx_pack(fx_backend *be, const fx_weight *w, const void *src, void *dst)
{
    FX_CHECK(w->n > 0 && w->k > 0 && w->kh > 0 && w->kw > 0 && w->dtype == be->dtype, FX_ESHAPE,
             "pack: weight [%lld,%lld,%d,%d] %s; want positive sizes and %s", (long long)w->n,
             (long long)w->k, (int)w->kh, (int)w->kw, fx_dtype_name(w->dtype), fx_dtype_name(be->dtype));
    return be->ops->pack(be, w, src, dst);
}
