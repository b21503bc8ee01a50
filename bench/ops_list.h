/* The ops of kernels/ops.h as bench_ops runs them: operands on a side, the call, the work. */
#ifndef FX_BENCH_OPS_LIST_H
#define FX_BENCH_OPS_LIST_H

#include "bench/ops_side.h"

enum { HEAD = 128 };

typedef struct spec spec;
typedef struct call {
    fx_tensor y, a, b, c, d, e; /* y is compared; what it is and the others: by kind */
    fx_weight w;
    int pad[4];
} call;

typedef struct kind {
    const char *name;
    fx_status (*make)(side *, const spec *, call *);
    fx_status (*run)(fx_backend *, const spec *, call *);
    int out_rows; /* rows of y per row of the op: 2 for upsample2x */
} kind;

struct spec {
    const kind *kind;
    int64_t rows, n, k; /* rows: of tokens, or of a picture (then width) */
    int64_t width;      /* pixels per row; keys of attention */
    fx_act act;
    double count; /* per step */
};

static inline int64_t some(const side *s, int64_t n)
{
    return s->cols && s->cols < n ? s->cols : n;
}

/* y[rows, n] = act(a[rows, k] w^T + b) */
static inline fx_status make_linear(side *s, const spec *p, call *c)
{
    const int64_t n = some(s, p->n);
    FX_TRY(side_rows2(s, 1, s->be->dtype, p->k, &c->a));
    FX_TRY(side_rows2(s, 2, s->be->dtype, n, &c->y));
    FX_TRY(side_vector(s, 3, FX_F32, n, &c->b));
    return side_weight(s, 4, n, p->k, 1, &c->w);
}
static inline fx_status run_linear(fx_backend *be, const spec *p, call *c)
{
    return fx_linear(be, c->y, c->a, c->w, c->b, p->act);
}

/* y[rows, width, n] = conv(a[rows, width, k]), 3 x 3. Rows inside of the picture have real rows around them. */
static inline fx_status make_conv(side *s, const spec *p, call *c)
{
    const int64_t n = some(s, p->n), above = s->begin > 0, below = s->begin + s->rows < p->rows;
    const int64_t in[3] = {s->rows + above + below, p->width, p->k}, out[3] = {s->rows, p->width, n};
    FX_TRY(side_tensor(s, 1, s->be->dtype, 3, in, s->begin - above, 1, &c->a));
    FX_TRY(side_tensor(s, 2, s->be->dtype, 3, out, s->begin, 1, &c->y));
    FX_TRY(side_vector(s, 3, FX_F32, n, &c->b));
    c->pad[0] = !above, c->pad[1] = !below, c->pad[2] = c->pad[3] = 1;
    return side_weight(s, 4, n, p->k, 3, &c->w);
}
static inline fx_status run_conv(fx_backend *be, const spec *p, call *c)
{
    (void)p;
    return fx_conv2d(be, c->y, c->a, c->w, c->b, 1, c->pad);
}

/* y[rows, n]: n / 128 heads; width keys. k = 32: the output and its log-sum-exp in f32, as rings ask for. */
static inline fx_status make_attention(side *s, const spec *p, call *c)
{
    const int64_t n = s->cols ? HEAD : p->n, keys[2] = {p->width, n};
    FX_TRY(side_rows2(s, 1, s->be->dtype, n, &c->a));
    FX_TRY(side_tensor(s, 2, s->be->dtype, 2, keys, 0, 1, &c->b));
    FX_TRY(side_tensor(s, 3, s->be->dtype, 2, keys, 0, 1, &c->c));
    c->e = fx_none();
    const fx_dtype wide = s->be->dtype == FX_F64 ? FX_F64 : FX_F32;
    if (p->k == 32) FX_TRY(side_tensor(s, 5, wide, 2, (const int64_t[]){n / HEAD, s->rows}, 0, 1, &c->e));
    return side_rows2(s, 4, p->k == 32 ? wide : s->be->dtype, n, &c->y);
}
static inline fx_status run_attention(fx_backend *be, const spec *p, call *c)
{
    const int64_t h = c->a.shape[1] / HEAD;
    (void)p;
    return fx_attention(be, fx_heads(c->y, h), c->e, fx_heads(c->a, h), fx_heads(c->b, h), fx_heads(c->c, h),
                        fx_none(), 1 / sqrtf(HEAD));
}

/* y merged with another part; all weigh alike, so that any rows have the same log-sum-exp. */
static inline fx_status make_merge(side *s, const spec *p, call *c)
{
    const int64_t n = s->cols ? HEAD : p->n, lse[2] = {n / HEAD, s->rows};
    const fx_dtype wide = s->be->dtype == FX_F64 ? FX_F64 : FX_F32;
    FX_TRY(side_rows2(s, 1, wide, n, &c->y));
    FX_TRY(side_rows2(s, 2, wide, n, &c->a));
    FX_TRY(side_tensor(s, 3, wide, 2, lse, 0, 0, &c->b));
    return side_tensor(s, 4, wide, 2, lse, 0, 0, &c->c);
}
static inline fx_status run_merge(fx_backend *be, const spec *p, call *c)
{
    const int64_t h = c->y.shape[1] / HEAD;
    (void)p;
    return fx_attention_merge(be, fx_heads(c->y, h), c->b, fx_heads(c->a, h), c->c);
}

/* Row kernels: y and a dtype or stream [rows, n], vectors b, c, d. */
static inline fx_status make_rows(side *s, const spec *p, fx_dtype y, fx_dtype a, fx_dtype vectors, call *c)
{
    FX_TRY(side_rows2(s, 1, y, p->n, &c->y));
    FX_TRY(side_rows2(s, 2, a, p->n, &c->a));
    FX_TRY(side_vector(s, 3, vectors, p->n, &c->b));
    FX_TRY(side_vector(s, 4, vectors, p->n, &c->c));
    return side_vector(s, 5, vectors, p->n, &c->d);
}
static inline fx_status make_norm(side *s, const spec *p, call *c)
{
    return make_rows(s, p, s->be->dtype, s->be->stream, s->be->stream, c);
}
static inline fx_status make_text_norm(side *s, const spec *p, call *c)
{
    return make_rows(s, p, s->be->dtype, s->be->stream, FX_F32, c);
}
static inline fx_status make_gate(side *s, const spec *p, call *c)
{
    return make_rows(s, p, s->be->stream, s->be->dtype, s->be->stream, c);
}
static inline fx_status make_gate_norm(side *s, const spec *p, call *c)
{
    FX_TRY(make_norm(s, p, c));
    return side_rows2(s, 6, s->be->dtype, p->n, &c->e);
}
static inline fx_status run_norm_mod(fx_backend *be, const spec *p, call *c)
{
    (void)p;
    return fx_norm_mod(be, c->y, c->a, c->b, c->c, 1e-6f);
}
static inline fx_status run_layer_norm(fx_backend *be, const spec *p, call *c)
{
    (void)p;
    return fx_layer_norm(be, c->y, c->a, c->b, c->c, 1e-5f);
}
static inline fx_status run_rms_norm(fx_backend *be, const spec *p, call *c)
{
    (void)p;
    return fx_rms_norm(be, c->y, c->a, c->b, 1e-6f);
}
static inline fx_status run_gate_add(fx_backend *be, const spec *p, call *c)
{
    (void)p;
    return fx_gate_add(be, c->y, c->b, c->a);
}
static inline fx_status run_gate_norm(fx_backend *be, const spec *p, call *c)
{
    (void)p;
    return fx_gate_norm(be, c->y, c->a, c->b, c->e, c->c, c->d, 1e-6f);
}

static inline fx_status make_rope(side *s, const spec *p, call *c)
{
    const int64_t angles[3] = {s->rows, HEAD / 2, 2};
    FX_TRY(side_rows2(s, 1, s->be->dtype, p->n, &c->y));
    FX_TRY(side_rows2(s, 2, s->be->dtype, p->n, &c->a));
    FX_TRY(side_vector(s, 3, FX_F32, HEAD, &c->b));
    return side_tensor(s, 4, FX_F32, 3, angles, s->begin, 1, &c->c);
}
static inline fx_status run_rope(fx_backend *be, const spec *p, call *c)
{
    return fx_qk_norm_rope(be, fx_heads(c->y, p->n / HEAD), fx_heads(c->a, p->n / HEAD), c->b, c->c, 1e-6f);
}

/* Elementwise: y, a, b [rows, n]. */
static inline fx_status make_plain(side *s, const spec *p, call *c)
{
    FX_TRY(side_rows2(s, 1, s->be->dtype, p->n, &c->y));
    FX_TRY(side_rows2(s, 2, s->be->dtype, p->n, &c->a));
    return side_rows2(s, 3, s->be->dtype, p->n, &c->b);
}
static inline fx_status make_stream(side *s, const spec *p, call *c)
{
    FX_TRY(side_rows2(s, 1, s->be->stream, p->n, &c->y));
    return side_rows2(s, 2, s->be->stream, p->n, &c->a);
}
static inline fx_status run_axpy(fx_backend *be, const spec *p, call *c)
{
    (void)p;
    return fx_axpy(be, c->y, c->a, -0.0625f);
}
static inline fx_status run_activate(fx_backend *be, const spec *p, call *c)
{
    return fx_activate(be, c->y, c->a, p->act);
}
static inline fx_status run_glu(fx_backend *be, const spec *p, call *c)
{
    return fx_glu(be, c->y, c->a, c->b, p->act);
}
static inline fx_status run_copy(fx_backend *be, const spec *p, call *c)
{
    (void)p;
    return fx_copy(be, c->y, c->a, 1, 0);
}
static inline fx_status run_count(fx_backend *be, const spec *p, call *c)
{
    int64_t bad = -1;
    (void)p;
    FX_TRY(fx_count_nonfinite(be, c->y, &bad));
    FX_CHECK(bad == 0, FX_ENUMERIC, "count_nonfinite counts %lld of finite numbers", (long long)bad);
    return FX_OK;
}

/* y[rows, n] = table[ids, n] */
static inline fx_status make_embed(side *s, const spec *p, call *c)
{
    int32_t *ids = malloc((size_t)s->rows * sizeof *ids);
    void *data;
    FX_CHECK(ids, FX_ENOMEM, "no memory for ids");
    for (int64_t i = 0; i < s->rows; i++) ids[i] = (int32_t)((s->begin + i) * 7919 % p->k);
    fx_status st = side_take(s, (size_t)s->rows * sizeof *ids, &data);
    if (!st) st = fx_upload(s->be, c->b = fx_view1(data, FX_I32, s->rows), ids);
    if (!st) st = fx_sync(s->be);
    free(ids);
    FX_TRY(st);
    FX_TRY(side_tensor(s, 2, s->be->dtype, 2, (const int64_t[]){p->k, p->n}, 0, 1, &c->a));
    return side_rows2(s, 1, s->be->stream, p->n, &c->y);
}
static inline fx_status run_embed(fx_backend *be, const spec *p, call *c)
{
    (void)p;
    return fx_embed(be, c->y, c->a, c->b);
}

/* ---- pictures: rows x width x n ---- */

enum { GROUPS = 32 };

static inline fx_status make_picture(side *s, const spec *p, fx_dtype dtype, int grown, int64_t channels,
                                     call *c)
{
    const int64_t in[3] = {s->rows, p->width, p->n}, out[3] = {grown * s->rows, grown * p->width, channels};
    FX_TRY(side_tensor(s, 1, s->be->dtype, 3, in, s->begin, 1, &c->a));
    if (dtype != FX_U8) return side_tensor(s, 2, dtype, 3, out, grown * s->begin, 1, &c->y);
    void *data;
    FX_TRY(side_take(s, (size_t)(out[0] * out[1] * out[2]), &data));
    c->y = fx_view(data, FX_U8, 3, out);
    return FX_OK;
}
static inline fx_status make_upsample(side *s, const spec *p, call *c)
{
    return make_picture(s, p, s->be->dtype, 2, p->n, c);
}
static inline fx_status run_upsample(fx_backend *be, const spec *p, call *c)
{
    (void)p;
    return fx_upsample2x(be, c->y, c->a);
}
static inline fx_status make_rgb(side *s, const spec *p, call *c)
{
    return make_picture(s, p, FX_U8, 1, p->n, c);
}
static inline fx_status run_rgb(fx_backend *be, const spec *p, call *c)
{
    (void)p;
    return fx_to_rgb8(be, c->y, c->a);
}
static inline fx_status make_stats(side *s, const spec *p, call *c)
{
    FX_TRY(make_picture(s, p, s->be->dtype, 1, p->n, c));
    return side_tensor(s, 3, FX_F64, 3, (const int64_t[]){s->rows, GROUPS, 2}, 0, 1, &c->y);
}
static inline fx_status run_stats(fx_backend *be, const spec *p, call *c)
{
    (void)p;
    return fx_row_stats(be, c->y, c->a);
}
/* The whole picture's statistics: means 0 and sums of squares as of the values, so that a few rows need no others. */
static inline fx_status make_group_norm(side *s, const spec *p, call *c)
{
    const int64_t n = p->rows * GROUPS;
    double *host = malloc(2 * (size_t)n * sizeof *host);
    void *data;
    FX_TRY(make_picture(s, p, s->be->dtype, 1, p->n, c));
    FX_TRY(side_vector(s, 3, FX_F32, p->n, &c->b));
    FX_TRY(side_vector(s, 4, FX_F32, p->n, &c->d));
    FX_CHECK(host, FX_ENOMEM, "no memory for statistics");
    for (int64_t i = 0; i < n; i++) host[2 * i] = 0, host[2 * i + 1] = (double)(p->width * p->n / GROUPS) / 3;
    fx_status st = side_take(s, 2 * (size_t)n * sizeof *host, &data);
    if (!st) st = fx_upload(s->be, c->c = fx_view3(data, FX_F64, p->rows, GROUPS, 2), host);
    if (!st) st = fx_sync(s->be);
    free(host);
    return st;
}
static inline fx_status run_group_norm(fx_backend *be, const spec *p, call *c)
{
    return fx_group_norm(be, c->y, c->a, c->c, c->b, c->d, p->width, 1e-6f, p->act);
}

/* Between the host and the backend's memory; host buffer in c->e. */
static inline fx_status make_host(side *s, const spec *p, call *c)
{
    FX_TRY(side_rows2(s, 1, s->be->dtype, p->n, &c->y));
    void *host = calloc(1, fx_bytes(c->y));
    FX_CHECK(host, FX_ENOMEM, "no memory for a host buffer");
    c->e = fx_view1(host, FX_U8, (int64_t)fx_bytes(c->y));
    return fx_download(s->be, host, c->y);
}
static inline fx_status run_upload(fx_backend *be, const spec *p, call *c)
{
    (void)p;
    return fx_upload(be, c->y, c->e.data);
}
static inline fx_status run_download(fx_backend *be, const spec *p, call *c)
{
    (void)p;
    return fx_download(be, c->e.data, c->y);
}

static const kind linear = {"linear", make_linear, run_linear, 1};
static const kind conv2d = {"conv2d", make_conv, run_conv, 1};
static const kind attention = {"attention", make_attention, run_attention, 1};
static const kind attention_merge = {"attention_merge", make_merge, run_merge, 1};
static const kind norm_mod = {"norm_mod", make_norm, run_norm_mod, 1};
static const kind layer_norm = {"layer_norm", make_text_norm, run_layer_norm, 1};
static const kind rms_norm = {"rms_norm", make_text_norm, run_rms_norm, 1};
static const kind gate_add = {"gate_add", make_gate, run_gate_add, 1};
static const kind gate_norm = {"gate_norm", make_gate_norm, run_gate_norm, 1};
static const kind qk_norm_rope = {"qk_norm_rope", make_rope, run_rope, 1};
static const kind axpy = {"axpy", make_stream, run_axpy, 1};
static const kind activate = {"activate", make_plain, run_activate, 1};
static const kind glu = {"glu", make_plain, run_glu, 1};
static const kind embed = {"embed", make_embed, run_embed, 1};
static const kind copy = {"copy", make_plain, run_copy, 1};
static const kind row_stats = {"row_stats", make_stats, run_stats, 1};
static const kind group_norm = {"group_norm", make_group_norm, run_group_norm, 1};
static const kind upsample2x = {"upsample2x", make_upsample, run_upsample, 2};
static const kind to_rgb8 = {"to_rgb8", make_rgb, run_rgb, 1};
static const kind count_nonfinite = {"count_nonfinite", make_plain, run_count, 1};
static const kind upload = {"upload", make_host, run_upload, 1};
static const kind download = {"download", make_host, run_download, 1};

#endif
