/* Argument checks of the op wrappers (kernels/ops.c): one place for all backends, messages with values. */
#include "kernels/check.h"

#include <stdio.h>

static bool dtype_allowed(const fx_backend *be, fx_dtype t, unsigned flags)
{
    const bool is_float = t == FX_F64 || t == FX_F32 || t == FX_BF16 || t == FX_F16;
    return ((flags & FX_W_DTYPE) && t == be->dtype) || ((flags & FX_W_STREAM) && t == be->stream) ||
           ((flags & FX_W_F32) && t == FX_F32) || ((flags & FX_W_F64) && t == FX_F64) ||
           ((flags & FX_W_I32) && t == FX_I32) || ((flags & FX_W_U8) && t == FX_U8) ||
           ((flags & FX_W_FLOAT) && is_float);
}

/* "f32 or bf16" */
static const char *dtype_names(const fx_backend *be, unsigned flags, char *buf, size_t size)
{
    size_t used = 0;
    buf[0] = '\0';
    for (int t = 0; t < FX_DTYPES; t++) {
        if (!dtype_allowed(be, (fx_dtype)t, flags) || used >= size) continue;
        const int n =
            snprintf(buf + used, size - used, "%s%s", used ? " or " : "", fx_dtype_name((fx_dtype)t));
        used += n > 0 ? (size_t)n : 0;
    }
    return buf;
}

/* "[*,64]" */
static const char *shape_names(int ndim, const int64_t shape[], char *buf, size_t size)
{
    size_t used = 0;
    for (int i = 0; i < ndim && used < size; i++) {
        const char *lead = i ? "," : "[";
        const int n = shape[i] < 0 ? snprintf(buf + used, size - used, "%s*", lead)
                                   : snprintf(buf + used, size - used, "%s%lld", lead, (long long)shape[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    if (used < size) snprintf(buf + used, size - used, "]");
    return buf;
}

static bool dense(fx_tensor t, int trailing)
{
    int64_t step = 1;
    for (int i = t.ndim - 1; i >= 0 && i >= t.ndim - trailing; i--) {
        if (t.shape[i] > 1 && t.stride[i] != step) return false;
        step *= t.shape[i];
    }
    return true;
}

fx_status fx_want(const fx_backend *be, const char *op, const char *arg, fx_tensor t, unsigned flags,
                  int ndim, const int64_t want_shape[])
{
    char have[96], want[96], names[64];
    bool ok = t.ndim == ndim && dtype_allowed(be, t.dtype, flags);
    for (int i = 0; ok && i < ndim; i++)
        ok = t.shape[i] >= 0 && (want_shape[i] < 0 || t.shape[i] == want_shape[i]);
    FX_CHECK(ok, FX_ESHAPE, "%s: %s is %s; want %s %s", op, arg, fx_shape_str(t, have, sizeof have),
             shape_names(ndim, want_shape, want, sizeof want), dtype_names(be, flags, names, sizeof names));
    const int trailing = flags & FX_W_STRIDED ? 0 : flags & FX_W_DENSE2 ? 2 : 1;
    FX_CHECK(dense(t, trailing), FX_ESHAPE,
             "%s: %s is %s with strides %lld,%lld,%lld; want the last %d dims dense", op, arg,
             fx_shape_str(t, have, sizeof have), (long long)t.stride[0], (long long)t.stride[1],
             (long long)t.stride[2], trailing);
    FX_CHECK(t.data || fx_planning(be) || fx_numel(t) == 0, FX_ESHAPE, "%s: %s %s has no data", op, arg,
             fx_shape_str(t, have, sizeof have));
    return FX_OK;
}

fx_status fx_want_same_shape(const char *op, const char *yn, fx_tensor y, const char *xn, fx_tensor x)
{
    char a[96], b[96];
    bool ok = y.ndim == x.ndim && y.ndim >= 1 && y.ndim <= FX_MAX_DIMS;
    for (int i = 0; ok && i < y.ndim; i++) ok = y.shape[i] >= 0 && y.shape[i] == x.shape[i];
    FX_CHECK(ok, FX_ESHAPE, "%s: %s is %s, %s is %s; want equal shapes of 1 to 5 dims", op, yn,
             fx_shape_str(y, a, sizeof a), xn, fx_shape_str(x, b, sizeof b));
    return FX_OK;
}

/* The bytes a view visits: dimensions longer than 1, widest stride first; `span` covers dims from i inwards.
 */
typedef struct footprint {
    int64_t count[FX_MAX_DIMS], stride[FX_MAX_DIMS], span[FX_MAX_DIMS + 1]; /* strides and spans in bytes */
    int ndim;
} footprint;

static footprint footprint_of(fx_tensor t)
{
    footprint f = {.ndim = 0};
    const int64_t size = (int64_t)fx_dtype_size(t.dtype);
    for (int i = 0; i < t.ndim; i++) {
        if (t.shape[i] <= 1 || t.stride[i] == 0) continue;
        int at = f.ndim++;
        for (; at > 0 && f.stride[at - 1] < t.stride[i] * size; at--) {
            f.stride[at] = f.stride[at - 1];
            f.count[at] = f.count[at - 1];
        }
        f.stride[at] = t.stride[i] * size;
        f.count[at] = t.shape[i];
    }
    f.span[f.ndim] = size;
    for (int i = f.ndim - 1; i >= 0; i--) f.span[i] = f.span[i + 1] + (f.count[i] - 1) * f.stride[i];
    return f;
}

/* May the dims i.. of a and j.. of b meet when b starts `off` bytes after a? Equal outer strides reduce to
 * the inner views at the offsets modulo that stride; anything else that cannot be told apart counts as
 * meeting. */
static bool may_meet(const footprint *a, int i, const footprint *b, int j, int64_t off)
{
    if (off >= a->span[i] || -off >= b->span[j]) return false;
    if (i == a->ndim || j == b->ndim || a->stride[i] != b->stride[j]) return true;
    const int64_t s = a->stride[i];
    if (a->span[i + 1] > s || b->span[j + 1] > s) return true;
    const int64_t d = ((off % s) + s) % s;
    return may_meet(a, i + 1, b, j + 1, d) || may_meet(a, i + 1, b, j + 1, d - s);
}

static bool overlap(fx_tensor a, fx_tensor b)
{
    if (!a.data || !b.data || fx_numel(a) == 0 || fx_numel(b) == 0) return false;
    const footprint fa = footprint_of(a), fb = footprint_of(b);
    return may_meet(&fa, 0, &fb, 0, (int64_t)((intptr_t)b.data - (intptr_t)a.data));
}

static bool same_view(fx_tensor a, fx_tensor b)
{
    bool same = a.data == b.data && a.dtype == b.dtype && a.ndim == b.ndim;
    for (int i = 0; same && i < a.ndim; i++)
        same = a.shape[i] == b.shape[i] && (a.shape[i] <= 1 || a.stride[i] == b.stride[i]);
    return same;
}

fx_status fx_want_apart(const char *op, const char *yn, fx_tensor y, const char *xn, fx_tensor x)
{
    char a[96], b[96];
    FX_CHECK(!overlap(y, x), FX_ESHAPE, "%s: %s %s at %p overlaps %s %s at %p", op, yn,
             fx_shape_str(y, a, sizeof a), y.data, xn, fx_shape_str(x, b, sizeof b), x.data);
    return FX_OK;
}

fx_status fx_want_apart_or_same(const char *op, const char *yn, fx_tensor y, const char *xn, fx_tensor x)
{
    return same_view(y, x) ? FX_OK : fx_want_apart(op, yn, y, xn, x);
}

fx_status fx_want_weight(const fx_backend *be, const char *op, const fx_weight *w, fx_weight_kind kind)
{
    FX_CHECK(w->kind == kind && w->n > 0 && w->k > 0 && w->kh > 0 && w->kw > 0 && w->dtype == be->dtype,
             FX_ESHAPE, "%s: weight is %s [%lld,%lld,%d,%d] %s; want a %s of %s", op,
             w->kind == FX_WEIGHT_CONV ? "conv" : "linear", (long long)w->n, (long long)w->k, (int)w->kh,
             (int)w->kw, fx_dtype_name(w->dtype), kind == FX_WEIGHT_CONV ? "conv" : "linear",
             fx_dtype_name(be->dtype));
    FX_CHECK(kind == FX_WEIGHT_CONV || (w->kh == 1 && w->kw == 1), FX_ESHAPE,
             "%s: linear weight with %dx%d taps", op, (int)w->kh, (int)w->kw);
    FX_CHECK(w->packed || fx_planning(be), FX_ESHAPE, "%s: weight [%lld,%lld] is not loaded", op,
             (long long)w->n, (long long)w->k);
    return FX_OK;
}
