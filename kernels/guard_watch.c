/* Filling, hashing and scanning for the guard backend (guard.c); see guard_watch.h. Plain loops over host memory: the
 * guard looks for mistakes, not for speed. */
#include "kernels/guard_watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- rows of a view: all dims but the last, in order ---- */

typedef void (*row_fn)(void *ctx, unsigned char *row, int64_t n, int64_t stride, size_t size);

static void each_row(fx_tensor t, row_fn fn, void *ctx)
{
    const size_t size = fx_dtype_size(t.dtype);
    const int last = t.ndim - 1;
    int64_t index[FX_MAX_DIMS] = {0}, at = 0;
    if (fx_numel(t) == 0) return;
    for (int d = 0; d >= 0;) {
        fn(ctx, (unsigned char *)t.data + at * (int64_t)size, t.shape[last], t.stride[last], size);
        for (d = last - 1; d >= 0; d--) {
            at += t.stride[d];
            if (++index[d] < t.shape[d]) break;
            at -= index[d] * t.stride[d];
            index[d] = 0;
        }
    }
}

/* ---- hash ---- */

static uint64_t mix(uint64_t h, const unsigned char *p, size_t bytes)
{
    uint64_t word;
    for (; bytes >= sizeof word; p += sizeof word, bytes -= sizeof word) {
        memcpy(&word, p, sizeof word);
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    for (; bytes; bytes--) h = (h ^ *p++) * 0x100000001b3u;
    return h;
}

static void hash_row(void *ctx, unsigned char *row, int64_t n, int64_t stride, size_t size)
{
    uint64_t *h = (uint64_t *)ctx;
    if (stride == 1)
        *h = mix(*h, row, (size_t)n * size);
    else
        for (int64_t i = 0; i < n; i++) *h = mix(*h, row + i * stride * (int64_t)size, size);
}

uint64_t fx_watch_hash(fx_tensor t)
{
    uint64_t h = 0x243f6a8885a308d3u;
    each_row(t, hash_row, &h);
    return h;
}

/* ---- fill ---- */

typedef struct filler {
    unsigned char word[8];
} filler;

static filler filler_of(uint16_t pattern)
{
    filler f;
    for (size_t i = 0; i < sizeof f.word; i += sizeof pattern) memcpy(f.word + i, &pattern, sizeof pattern);
    return f;
}

static void fill_row(void *ctx, unsigned char *row, int64_t n, int64_t stride, size_t size)
{
    for (int64_t i = 0; i < n; i++) memcpy(row + i * stride * (int64_t)size, ((filler *)ctx)->word, size);
}

void fx_watch_fill(fx_tensor t, uint16_t pattern)
{
    filler f = filler_of(pattern);
    each_row(t, fill_row, &f);
}

/* Any bytes that begin at an even address: filler throughout, but for the last byte of an odd number. */
static void fill_bytes(unsigned char *p, size_t bytes)
{
    fx_watch_fill(fx_view1(p, FX_F16, (int64_t)(bytes / 2)), FX_WATCH_FILLER);
}

/* ---- scan ---- */

typedef struct scan {
    fx_dtype dtype;
    int64_t at, filler, broken; /* elements seen, elements that hold the filler, other NaN and infinities */
    int64_t first_filler, first_broken;
    bool minus_inf;
} scan;

static uint64_t exponent_mask(fx_dtype dtype)
{
    switch (dtype) {
    case FX_F64: return (uint64_t)0x7ff << 52;
    case FX_F32: return 0x7f800000;
    case FX_BF16: return 0x7f80;
    case FX_F16: return 0x7c00;
    default: return 0; /* integers: every value is one */
    }
}

static void scan_row(void *ctx, unsigned char *row, int64_t n, int64_t stride, size_t size)
{
    scan *s = (scan *)ctx;
    const uint64_t exponent = exponent_mask(s->dtype), sign = (uint64_t)1 << (8 * size - 1);
    const filler f = filler_of(FX_WATCH_FILLER);
    uint64_t bits = 0, never = 0;
    memcpy(&never, f.word, size);
    for (int64_t i = 0; i < n; i++, s->at++) {
        memcpy(&bits, row + i * stride * (int64_t)size, size);
        if ((bits & exponent) != exponent) continue;
        if (bits == never) {
            if (!s->filler++) s->first_filler = s->at;
        } else if (!s->minus_inf || bits != (exponent | sign)) {
            if (!s->broken++) s->first_broken = s->at;
        }
    }
}

static scan scan_of(fx_tensor t, bool minus_inf)
{
    scan s = {.dtype = t.dtype, .minus_inf = minus_inf};
    if (exponent_mask(t.dtype)) each_row(t, scan_row, &s);
    return s;
}

int64_t fx_watch_count_nonfinite(fx_tensor t)
{
    const scan s = scan_of(t, false);
    return s.filler + s.broken;
}

/* "[3,0,17]" */
static const char *place(fx_tensor t, int64_t at, char *buf, size_t size)
{
    int64_t index[FX_MAX_DIMS] = {0};
    size_t used = 0;
    for (int d = t.ndim - 1; d >= 0; d--) {
        index[d] = at % t.shape[d];
        at /= t.shape[d];
    }
    for (int d = 0; d < t.ndim && used < size; d++) {
        const int n = snprintf(buf + used, size - used, "%s%lld", d ? "," : "[", (long long)index[d]);
        used += n > 0 ? (size_t)n : 0;
    }
    if (used < size) snprintf(buf + used, size - used, "]");
    return buf;
}

/* ---- one call ---- */

enum { CANARY = 0xc5 }; /* each byte round the scratch */

static void add(fx_watch *w, const char *name, fx_watch_role role, fx_tensor t, bool minus_inf)
{
    if (!fx_present(t) || fx_numel(t) == 0) return;
    for (int a = 0; a < w->args; a++)
        if (w->arg[a].t.data == t.data &&
            w->arg[a].role != role) { /* in place: ops.c allows the same view only */
            w->arg[a].role = FX_WATCH_INOUT;
            return;
        }
    w->arg[w->args++] = (fx_watched){.name = name, .role = role, .t = t, .minus_inf = minus_inf};
}

void fx_watch_view(fx_watch *w, const char *name, fx_watch_role role, fx_tensor t)
{
    add(w, name, role, t, false);
}

void fx_watch_inf(fx_watch *w, const char *name, fx_watch_role role, fx_tensor t)
{
    add(w, name, role, t, true);
}

/* Bytes from the first element to behind the last (strides are never negative here). */
static size_t span_bytes(fx_tensor t)
{
    int64_t last = 0;
    for (int d = 0; d < t.ndim; d++) last += (t.shape[d] - 1) * t.stride[d];
    return (size_t)(last + 1) * fx_dtype_size(t.dtype);
}

static fx_status keep_span(const fx_watch *w, fx_watched *a)
{
    const size_t bytes = span_bytes(a->t);
    if (bytes == fx_bytes(a->t)) return FX_OK; /* no gaps */
    a->span = (unsigned char *)malloc(bytes);
    FX_CHECK(a->span, FX_ENOMEM, "guard: call %lld, %s: no memory to watch %zu bytes of %s",
             (long long)w->call, w->op, bytes, a->name);
    memcpy(a->span, a->t.data, bytes);
    return FX_OK;
}

static fx_status look_at_input(fx_watch *w, const fx_watched *a)
{
    char at[96], shape[96];
    const scan s = scan_of(a->t, a->minus_inf);
    FX_CHECK(!s.filler, FX_ESHAPE,
             "guard: call %lld, %s: %lld elements of the input %s %s were never written, the first is "
             "%s" FX_WATCH_CALLER,
             (long long)w->call, w->op, (long long)s.filler, a->name, fx_shape_str(a->t, shape, sizeof shape),
             place(a->t, s.first_filler, at, sizeof at));
    w->broken_input = w->broken_input || s.broken;
    return FX_OK;
}

fx_status fx_watch_before(fx_watch *w)
{
    for (int a = 0; a < w->args; a++) {
        if (w->arg[a].role != FX_WATCH_OUT) FX_TRY(look_at_input(w, &w->arg[a]));
        if (w->arg[a].role == FX_WATCH_IN) w->arg[a].hash = fx_watch_hash(w->arg[a].t);
    }
    for (int a = 0; a < w->args; a++) {
        if (w->arg[a].role == FX_WATCH_IN) continue;
        FX_TRY(keep_span(w, &w->arg[a]));
        if (w->arg[a].role == FX_WATCH_OUT) fx_watch_fill(w->arg[a].t, FX_WATCH_FILLER);
    }
    w->weight_hash = mix(0, (const unsigned char *)w->weight, w->weight_bytes);
    if (!w->scratch) return FX_OK;
    memset(w->scratch, CANARY, w->scratch_bytes + 2 * FX_WATCH_CANARY);
    fill_bytes(w->scratch + FX_WATCH_CANARY, w->scratch_bytes);
    return FX_OK;
}

void *fx_watch_scratch(const fx_watch *w)
{
    return w->scratch ? w->scratch + FX_WATCH_CANARY : NULL;
}

typedef struct span_copy {
    unsigned char *span;
    const unsigned char *base;
} span_copy;

static void copy_row(void *ctx, unsigned char *row, int64_t n, int64_t stride, size_t size)
{
    const span_copy *c = (const span_copy *)ctx;
    for (int64_t i = 0; i < n; i++) {
        const int64_t off = i * stride * (int64_t)size;
        memcpy(c->span + (row - c->base) + off, row + off, size);
    }
}

/* What lies between the elements of an output belongs to others. */
static fx_status look_at_gaps(const fx_watch *w, const fx_watched *a)
{
    char shape[96];
    const unsigned char *now = (const unsigned char *)a->t.data;
    if (!a->span) return FX_OK;
    span_copy c = {a->span, now};
    each_row(a->t, copy_row, &c);
    const size_t bytes = span_bytes(a->t);
    size_t bad = 0;
    while (bad < bytes && a->span[bad] == now[bad]) bad++;
    FX_CHECK(bad == bytes, FX_ESHAPE,
             "guard: call %lld, %s: wrote between the rows of its output %s %s, %zu bytes after the first "
             "element" FX_WATCH_OP,
             (long long)w->call, w->op, a->name, fx_shape_str(a->t, shape, sizeof shape), bad);
    return FX_OK;
}

static fx_status look_at_output(const fx_watch *w, const fx_watched *a)
{
    char at[96], shape[96];
    FX_TRY(look_at_gaps(w, a));
    const scan s = scan_of(a->t, a->minus_inf);
    FX_CHECK(!s.filler, FX_ESHAPE,
             "guard: call %lld, %s: %lld elements of the output %s %s were not written, or made from scratch "
             "that was not, the first is %s" FX_WATCH_OP,
             (long long)w->call, w->op, (long long)s.filler, a->name, fx_shape_str(a->t, shape, sizeof shape),
             place(a->t, s.first_filler, at, sizeof at));
    FX_CHECK(!s.broken || w->broken_input, FX_ENUMERIC,
             "guard: call %lld, %s: finite inputs gave %lld NaN or infinities in %s %s, the first at %s; a "
             "value is too large for its dtype, a weight is not finite, or the op is wrong; try --dtype f32",
             (long long)w->call, w->op, (long long)s.broken, a->name, fx_shape_str(a->t, shape, sizeof shape),
             place(a->t, s.first_broken, at, sizeof at));
    return FX_OK;
}

static bool all_canary(const unsigned char *p)
{
    for (int i = 0; i < FX_WATCH_CANARY; i++)
        if (p[i] != CANARY) return false;
    return true;
}

static fx_status look_at_scratch(const fx_watch *w)
{
    if (!w->scratch) return FX_OK;
    const bool before = all_canary(w->scratch),
               behind = all_canary(w->scratch + FX_WATCH_CANARY + w->scratch_bytes);
    FX_CHECK(before && behind, FX_ESHAPE,
             "guard: call %lld, %s: wrote %s its scratch of %zu bytes" FX_WATCH_OP, (long long)w->call, w->op,
             before ? "behind" : "before", w->scratch_bytes);
    return FX_OK;
}

static fx_status look_at_inputs_again(const fx_watch *w)
{
    char shape[96];
    for (int a = 0; a < w->args; a++)
        FX_CHECK(w->arg[a].role != FX_WATCH_IN || fx_watch_hash(w->arg[a].t) == w->arg[a].hash, FX_ESHAPE,
                 "guard: call %lld, %s: changed its input %s %s" FX_WATCH_OP, (long long)w->call, w->op,
                 w->arg[a].name, fx_shape_str(w->arg[a].t, shape, sizeof shape));
    FX_CHECK(mix(0, (const unsigned char *)w->weight, w->weight_bytes) == w->weight_hash, FX_ESHAPE,
             "guard: call %lld, %s: changed its weight" FX_WATCH_OP, (long long)w->call, w->op);
    return FX_OK;
}

fx_status fx_watch_after(fx_watch *w)
{
    FX_TRY(look_at_inputs_again(w));
    FX_TRY(look_at_scratch(w));
    for (int a = 0; a < w->args; a++)
        if (w->arg[a].role != FX_WATCH_IN) FX_TRY(look_at_output(w, &w->arg[a]));
    return FX_OK;
}

/* The scratch is filled once more: who gets this memory next and reads before writing is noticed. */
void fx_watch_release(fx_watch *w)
{
    for (int a = 0; a < w->args; a++) free(w->arg[a].span);
    if (w->scratch) fill_bytes(w->scratch, w->scratch_bytes + 2 * FX_WATCH_CANARY);
    w->args = 0;
}
