/* The backend that watches another one: each call goes to the wrapped backend, and before and after it the guard looks
 * whether both sides keep the contract of kernels/ops.h: the op writes all of its outputs and nothing else, leaves its
 * inputs and weights alone, stays inside its scratch and reads nothing from it that it did not write, and makes no NaN
 * from finite numbers; the caller hands over nothing that was never written. The first breach ends the call with its
 * op and number. `--backend guard` runs the whole pipeline so. How it looks: guard_watch.c. */
#include "kernels/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/guard_watch.h"
#include "kernels/plan.h"

typedef struct guard {
    fx_backend be;     /* first: freed as the backend */
    fx_backend *inner; /* owned */
    int64_t calls;
    char text[160];
} guard;

static guard *guard_of(const fx_backend *be)
{
    return (guard *)be->impl; /* itself */
}

static fx_backend *inner_of(const fx_backend *be)
{
    return guard_of(be)->inner;
}

#define CALL(slot, ...) inner_of(be)->ops->slot(inner_of(be), __VA_ARGS__)

static fx_watch watch(const fx_backend *be, const char *op)
{
    return (fx_watch){.op = op, .call = ++guard_of(be)->calls};
}

/* Views with before, then the call, then after; the views are named as the slot's parameters. */
#define IN(t)         fx_watch_view(&seen, #t, FX_WATCH_IN, t)
#define OUT(t)        fx_watch_view(&seen, #t, FX_WATCH_OUT, t)
#define INOUT(t)      fx_watch_view(&seen, #t, FX_WATCH_INOUT, t)
#define IN_INF(t)     fx_watch_inf(&seen, #t, FX_WATCH_IN, t)
#define OUT_INF(t)    fx_watch_inf(&seen, #t, FX_WATCH_OUT, t)
#define INOUT_INF(t)  fx_watch_inf(&seen, #t, FX_WATCH_INOUT, t)
#define WEIGHT(w)     seen.weight = (w).packed, seen.weight_bytes = CALL(packed_bytes, &(w))
#define SCRATCH(p, n) seen.scratch = (n) ? (unsigned char *)(p) : NULL, seen.scratch_bytes = (n)
#define WATCH(call)                                                                                          \
    do {                                                                                                     \
        fx_status seen_st = fx_watch_before(&seen);                                                          \
        if (!seen_st) seen_st = (call);                                                                      \
        if (!seen_st) seen_st = fx_watch_after(&seen);                                                       \
        fx_watch_release(&seen);                                                                             \
        FX_TRY(seen_st);                                                                                     \
    } while (0)
#define WATCHED(call)                                                                                        \
    WATCH(call);                                                                                             \
    return FX_OK

/* ---- weights ---- */

static size_t guard_packed_bytes(fx_backend *be, const fx_weight *w)
{
    return CALL(packed_bytes, w);
}

/* Packs into memory of its own first: what packs beyond packed_bytes would otherwise reach the next weight. */
static fx_status guard_pack(fx_backend *be, const fx_weight *w, const void *src, void *dst)
{
    const size_t bytes = CALL(packed_bytes, w), all = bytes + FX_WATCH_CANARY;
    unsigned char *own = NULL;
    guard_of(be)->calls++;
    if (posix_memalign((void **)&own, FX_ARENA_ALIGN, all) != 0) own = NULL;
    FX_CHECK(own, FX_ENOMEM, "guard: no memory to pack a weight of %zu bytes", bytes);
    memset(own, 0xc5, all);
    fx_status st = CALL(pack, w, src, own);
    for (size_t i = bytes; !st && i < all; i++)
        if (own[i] != 0xc5)
            st = FX_FAIL(
                FX_ESHAPE,
                "guard: call %lld, pack: wrote behind the %zu bytes of the weight [%lld,%lld]" FX_WATCH_OP,
                (long long)guard_of(be)->calls, bytes, (long long)w->n, (long long)w->k);
    if (!st) memcpy(dst, own, bytes);
    free(own);
    return st;
}

/* ---- scratch: the op's own, between canaries ---- */

static fx_status with_canaries(fx_status st, size_t *bytes)
{
    *bytes += *bytes ? 2 * FX_WATCH_CANARY : 0;
    return st;
}

static fx_status guard_linear_scratch(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b,
                                      fx_act act, size_t *bytes)
{
    return with_canaries(CALL(linear_scratch, y, x, w, b, act, bytes), bytes);
}

static fx_status guard_conv2d_scratch(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b,
                                      int stride, const int pad[4], size_t *bytes)
{
    return with_canaries(CALL(conv2d_scratch, y, x, w, b, stride, pad, bytes), bytes);
}

static fx_status guard_attention_scratch(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k,
                                         fx_tensor v, fx_tensor bias, size_t *bytes)
{
    return with_canaries(CALL(attention_scratch, o, lse, q, k, v, bias, bytes), bytes);
}

/* ---- ops ---- */

static fx_status guard_linear(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act act,
                              void *scratch)
{
    fx_watch seen = watch(be, "linear");
    size_t bytes = 0;
    FX_TRY(CALL(linear_scratch, y, x, w, b, act, &bytes));
    SCRATCH(scratch, bytes);
    WEIGHT(w);
    IN(x), IN(b), OUT(y);
    WATCHED(CALL(linear, y, x, w, b, act, fx_watch_scratch(&seen)));
}

static fx_status guard_conv2d(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                              const int pad[4], void *scratch)
{
    fx_watch seen = watch(be, "conv2d");
    size_t bytes = 0;
    FX_TRY(CALL(conv2d_scratch, y, x, w, b, stride, pad, &bytes));
    SCRATCH(scratch, bytes);
    WEIGHT(w);
    IN(x), IN(b), OUT(y);
    WATCHED(CALL(conv2d, y, x, w, b, stride, pad, fx_watch_scratch(&seen)));
}

static fx_status guard_attention(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k,
                                 fx_tensor v, fx_tensor bias, float scale, void *scratch)
{
    fx_watch seen = watch(be, "attention");
    size_t bytes = 0;
    FX_TRY(CALL(attention_scratch, o, lse, q, k, v, bias, &bytes));
    SCRATCH(scratch, bytes);
    IN(q), IN(k), IN(v), IN_INF(bias), OUT(o), OUT_INF(lse);
    WATCHED(CALL(attention, o, lse, q, k, v, bias, scale, fx_watch_scratch(&seen)));
}

static fx_status guard_attention_merge(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor o2,
                                       fx_tensor lse2)
{
    fx_watch seen = watch(be, "attention_merge");
    INOUT(o), INOUT_INF(lse), IN(o2), IN_INF(lse2);
    WATCHED(CALL(attention_merge, o, lse, o2, lse2));
}

static fx_status guard_norm_mod(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor shift, fx_tensor scale,
                                float eps)
{
    fx_watch seen = watch(be, "norm_mod");
    IN(x), IN(shift), IN(scale), OUT(y);
    WATCHED(CALL(norm_mod, y, x, shift, scale, eps));
}

static fx_status guard_layer_norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor b,
                                  float eps)
{
    fx_watch seen = watch(be, "layer_norm");
    IN(x), IN(w), IN(b), OUT(y);
    WATCHED(CALL(layer_norm, y, x, w, b, eps));
}

static fx_status guard_rms_norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, float eps)
{
    fx_watch seen = watch(be, "rms_norm");
    IN(x), IN(w), OUT(y);
    WATCHED(CALL(rms_norm, y, x, w, eps));
}

static fx_status guard_gate_add(fx_backend *be, fx_tensor x, fx_tensor gate, fx_tensor y)
{
    fx_watch seen = watch(be, "gate_add");
    INOUT(x), IN(gate), IN(y);
    WATCHED(CALL(gate_add, x, gate, y));
}

static fx_status guard_gate_norm(fx_backend *be, fx_tensor h, fx_tensor x, fx_tensor gate, fx_tensor y,
                                 fx_tensor shift, fx_tensor scale, float eps)
{
    fx_watch seen = watch(be, "gate_norm");
    INOUT(x), IN(gate), IN(y), IN(shift), IN(scale), OUT(h);
    WATCHED(CALL(gate_norm, h, x, gate, y, shift, scale, eps));
}

static fx_status guard_qk_norm_rope(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor cs,
                                    float eps)
{
    fx_watch seen = watch(be, "qk_norm_rope");
    IN(x), IN(w), IN(cs), OUT(y);
    WATCHED(CALL(qk_norm_rope, y, x, w, cs, eps));
}

static fx_status guard_axpy(fx_backend *be, fx_tensor x, fx_tensor y, float a)
{
    fx_watch seen = watch(be, "axpy");
    INOUT(x), IN(y);
    WATCHED(CALL(axpy, x, y, a));
}

static fx_status guard_activate(fx_backend *be, fx_tensor y, fx_tensor x, fx_act act)
{
    fx_watch seen = watch(be, "activate");
    IN(x), OUT(y);
    WATCHED(CALL(activate, y, x, act));
}

static fx_status guard_glu(fx_backend *be, fx_tensor y, fx_tensor a, fx_tensor b, fx_act act)
{
    fx_watch seen = watch(be, "glu");
    IN(a), IN(b), OUT(y);
    WATCHED(CALL(glu, y, a, b, act));
}

static fx_status guard_embed(fx_backend *be, fx_tensor y, fx_tensor table, fx_tensor ids)
{
    fx_watch seen = watch(be, "embed");
    for (int64_t i = 0; i < ids.shape[0]; i++) {
        const int32_t id = ((const int32_t *)ids.data)[i * ids.stride[0]];
        FX_CHECK(id >= 0 && id < table.shape[0], FX_ESHAPE,
                 "guard: call %lld, embed: id %d at %lld of a table of %lld rows" FX_WATCH_CALLER,
                 (long long)seen.call, (int)id, (long long)i, (long long)table.shape[0]);
    }
    IN(table), IN(ids), OUT(y);
    WATCHED(CALL(embed, y, table, ids));
}

static fx_status guard_copy(fx_backend *be, fx_tensor y, fx_tensor x, float mul, float add)
{
    fx_watch seen = watch(be, "copy");
    IN(x), OUT(y);
    WATCHED(CALL(copy, y, x, mul, add));
}

static fx_status guard_row_stats(fx_backend *be, fx_tensor stats, fx_tensor x)
{
    fx_watch seen = watch(be, "row_stats");
    IN(x), OUT(stats);
    WATCHED(CALL(row_stats, stats, x));
}

static fx_status guard_group_norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor stats, fx_tensor w,
                                  fx_tensor b, int64_t width, float eps, fx_act act)
{
    fx_watch seen = watch(be, "group_norm");
    IN(x), IN(stats), IN(w), IN(b), OUT(y);
    WATCHED(CALL(group_norm, y, x, stats, w, b, width, eps, act));
}

static fx_status guard_upsample2x(fx_backend *be, fx_tensor y, fx_tensor x)
{
    fx_watch seen = watch(be, "upsample2x");
    IN(x), OUT(y);
    WATCHED(CALL(upsample2x, y, x));
}

/* Every byte is a value: an element that is not written shows when the op runs twice over different fillers. */
static fx_status rgb8_twice(fx_backend *be, const fx_watch *seen, fx_tensor y, fx_tensor x)
{
    uint64_t hash[2];
    for (int i = 0; i < 2; i++) {
        fx_watch_fill(y, i ? 0xffff : 0);
        FX_TRY(CALL(to_rgb8, y, x));
        hash[i] = fx_watch_hash(y);
    }
    FX_CHECK(hash[0] == hash[1], FX_ESHAPE,
             "guard: call %lld, to_rgb8: elements of the output y were not written" FX_WATCH_OP,
             (long long)seen->call);
    return FX_OK;
}

static fx_status guard_to_rgb8(fx_backend *be, fx_tensor y, fx_tensor x)
{
    fx_watch seen = watch(be, "to_rgb8");
    IN(x), OUT(y);
    WATCHED(rgb8_twice(be, &seen, y, x));
}

static fx_status guard_count_nonfinite(fx_backend *be, fx_tensor x, int64_t *count)
{
    const int64_t want = fx_watch_count_nonfinite(x);
    fx_watch seen = watch(be, "count_nonfinite");
    IN(x);
    WATCH(CALL(count_nonfinite, x, count));
    FX_CHECK(*count == want, FX_ESHAPE,
             "guard: call %lld, count_nonfinite: counted %lld NaN and infinities, there are %lld" FX_WATCH_OP,
             (long long)seen.call, (long long)*count, (long long)want);
    return FX_OK;
}

/* ---- moves: host memory on both sides, so that the bytes can be compared ---- */

static fx_status same_bytes(const fx_backend *be, const char *op, const void *a, const void *b, size_t bytes)
{
    FX_CHECK(!memcmp(a, b, bytes), FX_ESHAPE,
             "guard: call %lld, %s: %zu bytes did not arrive as they were" FX_WATCH_OP,
             (long long)guard_of(be)->calls, op, bytes);
    return FX_OK;
}

static fx_status guard_upload(fx_backend *be, fx_tensor device, const void *host)
{
    guard_of(be)->calls++;
    FX_TRY(CALL(upload, device, host));
    return same_bytes(be, "upload", device.data, host, fx_bytes(device));
}

static fx_status guard_download(fx_backend *be, void *host, fx_tensor device)
{
    fx_watch seen = watch(be, "download");
    IN(device);
    WATCH(CALL(download, host, device));
    return same_bytes(be, "download", host, device.data, fx_bytes(device));
}

static fx_status guard_sync(fx_backend *be)
{
    return inner_of(be)->ops->sync(inner_of(be));
}

static void guard_close(fx_backend *be)
{
    fx_backend_close(&guard_of(be)->inner);
}

static const fx_ops guard_ops = {
    .name = "guard",
    .packed_bytes = guard_packed_bytes,
    .pack = guard_pack,
    .linear_scratch = guard_linear_scratch,
    .conv2d_scratch = guard_conv2d_scratch,
    .attention_scratch = guard_attention_scratch,
    .linear = guard_linear,
    .conv2d = guard_conv2d,
    .attention = guard_attention,
    .attention_merge = guard_attention_merge,
    .norm_mod = guard_norm_mod,
    .layer_norm = guard_layer_norm,
    .rms_norm = guard_rms_norm,
    .gate_add = guard_gate_add,
    .gate_norm = guard_gate_norm,
    .qk_norm_rope = guard_qk_norm_rope,
    .axpy = guard_axpy,
    .activate = guard_activate,
    .glu = guard_glu,
    .embed = guard_embed,
    .copy = guard_copy,
    .row_stats = guard_row_stats,
    .group_norm = guard_group_norm,
    .upsample2x = guard_upsample2x,
    .to_rgb8 = guard_to_rgb8,
    .count_nonfinite = guard_count_nonfinite,
    .upload = guard_upload,
    .download = guard_download,
    .sync = guard_sync,
    .close = guard_close,
};

fx_status fx_backend_guard(fx_backend *inner, fx_backend **out)
{
    *out = NULL;
    FX_TRY(fx_ops_complete(&guard_ops));
    guard *g = (guard *)calloc(1, sizeof *g);
    FX_CHECK(g, FX_ENOMEM, "guard backend: %zu bytes are not available", sizeof *g);
    g->inner = inner;
    snprintf(g->text, sizeof g->text, "every op of %s is watched: %s", inner->ops->name,
             fx_backend_describe(inner));
    g->be = (fx_backend){.ops = &guard_ops,
                         .dtype = inner->dtype,
                         .stream = inner->stream,
                         .threads = inner->threads,
                         .rows_exact = inner->rows_exact,
                         .plain_rows = inner->plain_rows,
                         .coarse_parts = inner->coarse_parts,
                         .impl = g};
    *out = &g->be;
    return FX_OK;
}

bool fx_guarding(const fx_backend *be)
{
    return be->ops == &guard_ops;
}

const char *fx_guard_describe(const fx_backend *be)
{
    return guard_of(be)->text;
}
