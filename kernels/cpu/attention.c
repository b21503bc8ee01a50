/* o = softmax(scale q k^T + bias) v without the Tq x Tk matrix: per head, 128 queries at a time walk the keys
 * in blocks of 256 counted from key 0 with a running maximum and sum (f32). Both products are the backend's
 * matrix tile on packed keys and values; a query row never meets another one. source: FlashAttention-2 (arXiv
 * 2307.08691) */
#include "kernels/cpu/attention.h"
#include "kernels/cpu/multi.h"

#include <math.h>

_Static_assert(FX_QUERIES * 1024 * 4 <= FX_BUF_C && FX_QUERIES * 1024 * 4 <= FX_BUF_A,
               "queries and sums fit");
_Static_assert(FX_QUERY_ROWS *FX_SCORES_LD * 8 <= FX_BUF_B, "scores and weights fit");

/* Sizes, also of the packed panels; heads are packed in groups of about 8 MiB, at least one per thread. */
static fx_attn sizes_of(const fx_backend *be, fx_tensor q, fx_tensor k)
{
    fx_attn a = {
        .cpu = fx_cpu_of(be), .heads = q.shape[1], .dim = q.shape[2], .tq = q.shape[0], .tk = k.shape[0]};
    const fx_dtype operand = a.cpu->tile->operand;
    const int64_t es = (int64_t)fx_dtype_size(operand);
    a.dim_k = operand == FX_BF16 ? fx_round_up(a.dim, FX_K_UNIT) : a.dim;
    a.dim_v = fx_round_up(a.dim, FX_PANEL);
    a.keys = fx_round_up(a.tk, FX_PANEL);
    a.k_bytes = a.keys * a.dim_k * es;
    a.v_bytes = a.keys * a.dim_v * es;
    const int64_t fitting = (8 << 20) / (a.k_bytes + a.v_bytes + 1),
                  wanted = fitting < be->threads ? be->threads : fitting;
    a.group = fx_least(a.heads, wanted);
    return a;
}

fx_status fx_cpu_attention_scratch(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k,
                                   fx_tensor v, fx_tensor bias, size_t *bytes)
{
    (void)o, (void)lse, (void)v, (void)bias;
    const fx_attn a = sizes_of(be, q, k);
    *bytes = (size_t)(a.group * (a.k_bytes + a.v_bytes));
    return FX_OK;
}

/* A pass: up to 32 queries through one key block. */
typedef struct pass {
    const fx_attn *a;
    int64_t head, slot, query, rows; /* rows of this task */
    const char *q;                   /* [rows][dim_k] operand */
    float *o;                        /* [rows][dim_v] */
    float *scores;                   /* [32][FX_SCORES_LD] */
    char *weights;                   /* the same, operand */
    float max[FX_QUERIES], sum[FX_QUERIES];
} pass;

FX_INLINE void scale_row_any(float *o, float factor, int64_t n)
{
    for (int64_t i = 0; i < n; i++) o[i] *= factor;
}
FX_MULTI(scale_row, (float *o, float factor, int64_t n), (o, factor, n))

static void key_block(pass *t, int64_t row, int64_t key0)
{
    const fx_attn *a = t->a;
    const fx_cpu_tile *tile = a->cpu->tile;
    const int64_t es = (int64_t)fx_dtype_size(tile->operand), rows = fx_least(FX_QUERY_ROWS, t->rows - row);
    const int64_t n = fx_least(FX_KEYS, a->tk - key0), padded = fx_round_up(n, FX_PANEL);
    const bool first = key0 == 0;
    for (int64_t c = 0; c < padded; c += FX_PANEL)
        tile->run(rows, a->dim_k, t->q + row * a->dim_k * es, a->dim_k,
                  a->k_panels + t->slot * a->k_bytes + (key0 + c) * a->dim_k * es, t->scores + c,
                  FX_SCORES_LD, false);
    float factor[FX_QUERY_ROWS];
    fx_softmax job = {
        .s = t->scores,
        .p = t->weights,
        .operand = tile->operand,
        .scale = a->scale,
        .rows = rows,
        .n = n,
        .padded = padded,
        .max = t->max + row,
        .sum = t->sum + row,
        .factor = factor,
    };
    if (fx_present(a->bias)) {
        const int64_t h = a->bias.shape[0] > 1 ? t->head : 0;
        job.bias = (const float *)a->bias.data + h * a->bias.stride[0] + key0 - (t->query + row) + a->tq - 1;
    }
    a->softmax(&job);
    for (int64_t r = 0; r < rows && !first; r++)
        if (factor[r] != 1.0f) scale_row(t->o + (row + r) * a->dim_v, factor[r], a->dim_v);
    for (int64_t d = 0; d < a->dim_v; d += FX_PANEL)
        tile->run(rows, padded, t->weights, FX_SCORES_LD,
                  a->v_panels + t->slot * a->v_bytes + (d * a->keys + key0 * FX_PANEL) * es,
                  t->o + row * a->dim_v + d, a->dim_v, !first);
}

FX_INLINE void divide_row_any(void *y, fx_dtype dtype, const float *o, float inverse, int64_t n)
{
    if (dtype == FX_F32) {
        for (int64_t i = 0; i < n; i++) fx_store(y, i, FX_F32, o[i] * inverse);
    } else {
        for (int64_t i = 0; i < n; i++) fx_store(y, i, FX_BF16, o[i] * inverse);
    }
}
FX_MULTI(divide_row, (void *restrict y, fx_dtype dtype, const float *restrict o, float inverse, int64_t n),
         (y, dtype, o, inverse, n))

static void write_rows(const pass *t)
{
    const fx_attn *a = t->a;
    for (int64_t r = 0; r < t->rows; r++) {
        const bool empty = t->sum[r] == 0; /* no finite score; a NaN makes the sum NaN */
        const int64_t i = t->query + r;
        void *y = fx_at_mut(a->o, i * a->o.stride[0] + t->head * a->o.stride[1]);
        if (empty)
            memset(y, 0, (size_t)a->dim * fx_dtype_size(a->o.dtype));
        else
            divide_row(y, a->o.dtype, t->o + r * a->dim_v, 1.0f / t->sum[r], a->dim);
        if (!fx_present(a->lse)) continue;
        const double lse = empty ? -INFINITY : (double)t->max[r] * a->max_unit + log((double)t->sum[r]);
        const int64_t at = t->head * a->lse.stride[0] + i * a->lse.stride[1];
        if (a->lse.dtype == FX_F64)
            ((double *)a->lse.data)[at] = lse;
        else
            ((float *)a->lse.data)[at] = (float)lse;
    }
}

static void gather_queries(const pass *t, char *dst)
{
    const fx_attn *a = t->a;
    const fx_dtype operand = a->cpu->tile->operand;
    const int64_t es = (int64_t)fx_dtype_size(operand);
    for (int64_t r = 0; r < t->rows; r++) {
        char *row = dst + r * a->dim_k * es;
        fx_cpu_gather(operand, a->q.dtype,
                      fx_at(a->q, (t->query + r) * a->q.stride[0] + t->head * a->q.stride[1]), a->dim, row);
        fx_cpu_pad_row(operand, row, a->dim);
    }
}

/* Task: slot * query blocks + block. */
static void query_range(const void *job, int64_t begin, int64_t end, int thread)
{
    const fx_attn *a = job;
    const int64_t blocks = (a->tq + FX_QUERIES - 1) / FX_QUERIES;
    const fx_cpu_buf *buf = &a->cpu->buf[thread];
    pass t = {.a = a, .q = buf->a, .o = buf->c, .scores = buf->b};
    t.weights = (char *)buf->b + FX_QUERY_ROWS * FX_SCORES_LD * sizeof(float);
    a->cpu->tile->begin();
    for (int64_t i = begin; i < end; i++) {
        t.slot = i / blocks;
        t.head = a->head0 + t.slot;
        t.query = i % blocks * FX_QUERIES;
        t.rows = fx_least(FX_QUERIES, a->tq - t.query);
        for (int64_t r = 0; r < t.rows; r++) {
            t.max[r] = -INFINITY;
            t.sum[r] = 0;
        }
        gather_queries(&t, buf->a);
        for (int64_t key0 = 0; key0 < a->tk; key0 += FX_KEYS)
            for (int64_t row = 0; row < t.rows; row += FX_QUERY_ROWS) key_block(&t, row, key0);
        write_rows(&t);
    }
    a->cpu->tile->end();
}

static void choose_softmax(fx_attn *a)
{
    a->softmax = fx_cpu_softmax_generic;
    a->max_unit = 1;
#if FX_X86
    if (a->cpu->isa < FX_ISA_AVX2 || a->scale <= 0)
        return; /* maximum of unscaled scores: scale must be positive */
    if (a->cpu->isa < FX_ISA_AVX512)
        a->softmax = fx_cpu_softmax_avx2;
    else
        a->softmax = a->cpu->tile->operand == FX_BF16 ? fx_cpu_softmax_bf16 : fx_cpu_softmax_avx512;
    a->max_unit = 0.69314718055994531; /* ln 2 */
#endif
}

fx_status fx_cpu_attention(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k, fx_tensor v,
                           fx_tensor bias, float scale, void *scratch)
{
    fx_attn a = sizes_of(be, q, k);
    a.o = o;
    a.lse = lse;
    a.q = q;
    a.k = k;
    a.v = v;
    a.bias = bias;
    a.scale = scale;
    choose_softmax(&a);
    a.k_panels = scratch;
    a.v_panels = a.k_panels + a.group * a.k_bytes;
    const int64_t blocks = (a.tq + FX_QUERIES - 1) / FX_QUERIES, most = a.group;
    for (a.head0 = 0; a.head0 < a.heads; a.head0 += most) {
        a.group = fx_least(most, a.heads - a.head0);
        fx_cpu_ranges(be, a.group * (a.keys / FX_PANEL), 1 + 65536 / (FX_PANEL * a.dim), fx_cpu_attn_pack,
                      &a);
        fx_cpu_tasks(be, a.group * blocks, query_range, &a);
    }
    return FX_OK;
}
