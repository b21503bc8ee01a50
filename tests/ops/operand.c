/* Operands of a trial: random values of a kind, rounded to the dtype, in a frame whose other bytes are NaN
 * canaries. */
#include "tests/ops/ops_test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = 256 }; /* bytes of canary on both ends; also the alignment of PLAIN data */

static uint64_t next(uint64_t *rng) /* splitmix64, public domain constants of Vigna's generator */
{
    uint64_t z = (*rng += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double uniform(uint64_t *rng)
{
    return (double)(next(rng) >> 11) * 0x1p-53;
}

/* Sum of four 16-bit uniforms: cheap, and the tails do not matter here. */
double normal(uint64_t *rng)
{
    const uint64_t z = next(rng);
    const double sum =
        (double)(z & 0xffff) + (double)(z >> 16 & 0xffff) + (double)(z >> 32 & 0xffff) + (double)(z >> 48);
    return (sum / 65536 - 2 + 2.0 / 65536) * 1.7320508075688772;
}

static double draw(uint64_t *rng, unsigned kind)
{
    switch (kind) {
    case OUTLIER: {
        const double x = normal(rng);
        return next(rng) % 64 == 0 ? 100 * x : x;
    }
    case TINY: return 1e-3 * normal(rng);
    case NEARCONST: return 100 + 1e-2 * normal(rng);
    case PEAKY: return 4 * normal(rng);
    default: return normal(rng);
    }
}

const char *kind_name(unsigned kind)
{
    switch (kind) {
    case OUTLIER: return "OUTLIER";
    case TINY: return "TINY";
    case NEARCONST: return "NEARCONST";
    case PEAKY: return "PEAKY";
    case BROKEN: return "BROKEN";
    default: return "NORMAL";
    }
}

/* Strides and offset (elements) of a view; returns the elements from first to last. */
static int64_t place(fx_tensor *t, view_kind view, int64_t *offset)
{
    const bool dense = view == PLAIN || (view == PIECE && t->ndim < 3);
    if (view == PIECE && t->ndim == 3) view = WIDE;
    int order[FX_MAX_DIMS]; /* memory order, outermost first */
    for (int i = 0; i < t->ndim; i++) order[i] = view == REVERSED ? t->ndim - 1 - i : i;
    if (view == MAJOR && t->ndim == 3) order[0] = 1, order[1] = 0;
    int64_t step = 1, extent = 1;
    for (int i = t->ndim - 1; i >= 0; i--) {
        const int d = order[i];
        t->stride[d] = step;
        extent += t->shape[d] > 0 ? (t->shape[d] - 1) * step : 0;
        step *= t->shape[d];
        if (i == 1 && !dense && !(view == INNER && t->ndim > 2))
            step = view == WIDE ? 3 * step : view == GAPS ? step + 4 : step + 7;
        else if (i > 1 && (view == HEADS || view == MAJOR || view == INNER))
            step += 3;
    }
    *offset = view == PLAIN || view == GAPS ? 0 : view == WIDE ? t->shape[t->ndim - 1] : 3;
    return extent;
}

static void canaries(unsigned char *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) p[i] = i % 2 ? 0xff : 0xfd; /* a NaN in every float dtype */
}

static int64_t offset_of(fx_tensor t, int64_t i)
{
    int64_t at = 0;
    for (int d = t.ndim - 1; d >= 0; d--) {
        at += i % t.shape[d] * t.stride[d];
        i /= t.shape[d];
    }
    return at;
}

static double load(fx_tensor t, int64_t at)
{
    double value;
    const unsigned char *p = (const unsigned char *)t.data + (size_t)at * fx_dtype_size(t.dtype);
    if (t.dtype == FX_U8) return (double)*p;
    if (t.dtype == FX_I32) return (double)*(const int32_t *)(const void *)p;
    fx_convert(&value, FX_F64, p, t.dtype, 1);
    return value;
}

static void store(fx_tensor t, int64_t at, double value)
{
    unsigned char *p = (unsigned char *)t.data + (size_t)at * fx_dtype_size(t.dtype);
    if (t.dtype == FX_U8)
        *p = (unsigned char)value;
    else if (t.dtype == FX_I32)
        *(int32_t *)(void *)p = (int32_t)value;
    else
        fx_convert(p, t.dtype, &value, FX_F64, 1);
}

static void *need(size_t bytes)
{
    void *p = NULL;
    if (posix_memalign(&p, 256, bytes ? bytes : 1) != 0) abort();
    return p;
}

static fx_dtype ref_dtype(fx_dtype dtype, operand_role role)
{
    return role == PARAM || dtype == FX_U8 || dtype == FX_I32 ? dtype : FX_F64;
}

operand *add_operand(trial *t, const char *name, operand_role role, fx_dtype dtype, view_kind view, int ndim,
                     int64_t a, int64_t b, int64_t c)
{
    if (t->args == MAX_OPERANDS) abort();
    operand *o = &t->arg[t->args++];
    const int64_t shape[3] = {a, b, c};
    *o = (operand){.name = name, .role = role, .split_dim = -1};
    o->t = fx_view(NULL, dtype, ndim, shape);
    int64_t offset;
    const size_t size = fx_dtype_size(dtype), extent = (size_t)place(&o->t, view, &offset) * size;
    o->bytes = 2 * GUARD + (size_t)offset * size + extent;
    o->frame = (unsigned char *)need(o->bytes);
    o->snapshot = (unsigned char *)need(o->bytes);
    canaries(o->frame, o->bytes);
    memcpy(o->snapshot, o->frame, o->bytes);
    o->t.data = o->frame + GUARD + (size_t)offset * size;
    o->r = fx_view(NULL, ref_dtype(dtype, role), ndim, shape);
    o->r.data = need(fx_bytes(o->r));
    memset(o->r.data, 0xff, fx_bytes(o->r));
    o->before = (double *)need((size_t)fx_numel(o->t) * sizeof(double));
    for (int64_t i = 0; i < fx_numel(o->t); i++) o->before[i] = 0;
    return o;
}

static fx_tensor in_snapshot(const operand *o)
{
    fx_tensor t = o->t;
    t.data = o->snapshot + ((const unsigned char *)o->t.data - o->frame);
    return t;
}

void set_value(operand *o, int64_t i, double value)
{
    const int64_t at = offset_of(o->t, i);
    store(o->t, at, value);
    store(in_snapshot(o), at, value);
    o->before[i] = load(o->t, at);
    store(o->r, i, o->before[i]);
}

void fill(trial *t, operand *o, unsigned kind)
{
    const int64_t n = fx_numel(o->t);
    for (int64_t i = 0; i < n; i++) set_value(o, i, draw(&t->rng, kind));
    if (kind == BROKEN && n) set_value(o, (int64_t)(uniform(&t->rng) * (double)n), NAN);
}

double read_t(const operand *o, int64_t i)
{
    return load(o->t, offset_of(o->t, i));
}

double read_r(const operand *o, int64_t i)
{
    return load(o->r, i);
}

void restart_outputs(trial *t)
{
    for (int a = 0; a < t->args; a++) {
        operand *o = &t->arg[a];
        memcpy(o->frame, o->snapshot, o->bytes);
    }
}

const char *frame_damage(trial *t)
{
    static char buf[120];
    for (int a = 0; a < t->args; a++) {
        operand *o = &t->arg[a];
        unsigned char *expect = (unsigned char *)need(o->bytes);
        memcpy(expect, o->snapshot, o->bytes);
        fx_tensor e = o->t;
        e.data = expect + ((const unsigned char *)o->t.data - o->frame);
        const size_t size = fx_dtype_size(e.dtype);
        const bool input = o->role == IN || o->role == PARAM;
        for (int64_t i = 0; !input && i < fx_numel(e); i++) {
            const size_t at = (size_t)offset_of(e, i) * size;
            memcpy((unsigned char *)e.data + at, (const unsigned char *)o->t.data + at, size);
        }
        size_t bad = 0;
        while (bad < o->bytes && expect[bad] == o->frame[bad]) bad++;
        free(expect);
        if (bad == o->bytes) continue;
        snprintf(buf, sizeof buf, "%s of %s changed, %lld bytes from its first element",
                 input ? "the input or a canary" : "a canary", o->name,
                 (long long)bad - (long long)((const unsigned char *)o->t.data - o->frame));
        return buf;
    }
    return NULL;
}

static void pack_for(fx_backend *be, fx_weight *w, const fx_weight *like, const double *values)
{
    *w = *like;
    w->dtype = be->dtype;
    const int64_t count = w->n * w->k * w->kh * w->kw;
    void *src = need((size_t)count * fx_dtype_size(w->dtype)), *dst = need(fx_packed_bytes(be, w));
    fx_convert(src, w->dtype, values, FX_F64, count);
    if (fx_pack(be, w, src, dst)) printf("pack: %s\n", fx_error());
    w->packed = dst;
    free(src);
}

void make_weight(trial *t, fx_weight_kind wk, int64_t n, int64_t k, int kh, int kw, unsigned kind)
{
    const fx_weight like = {.n = n, .k = k, .kh = kh, .kw = kw, .kind = wk};
    const int64_t count = n * k * kh * kw;
    const double scale = 1 / sqrt((double)(k * kh * kw)); /* sums of order one, as in a network */
    t->w_values = (double *)need((size_t)count * sizeof(double));
    for (int64_t i = 0; i < count; i++)
        t->w_values[i] = scale * draw(&t->rng, kind == OUTLIER ? OUTLIER : NORMAL);
    void *rounded = need((size_t)count * fx_dtype_size(t->be->dtype));
    fx_convert(rounded, t->be->dtype, t->w_values, FX_F64, count);
    fx_convert(t->w_values, FX_F64, rounded, t->be->dtype, count);
    free(rounded);
    t->has_weight = true;
    pack_for(t->be, &t->w_be, &like, t->w_values);
    pack_for(t->be1, &t->w_be1, &like, t->w_values);
    pack_for(t->ref, &t->w_ref, &like, t->w_values);
}

void free_trial(trial *t)
{
    for (int a = 0; a < t->args; a++) {
        operand *o = &t->arg[a];
        free(o->frame), free(o->snapshot), free(o->r.data), free(o->before);
    }
    if (!t->has_weight) return;
    free(t->w_values);
    free((void *)t->w_be.packed), free((void *)t->w_be1.packed), free((void *)t->w_ref.packed);
}
