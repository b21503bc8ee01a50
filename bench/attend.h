/* One block of attention with its exchange, as the transformer asks for it: put (normalise, rotate, pack, start), attend (wait
 * and compute), collect (the way back). The output's bytes are compared with those of this rank's own attention over all rows. */
#ifndef FX_BENCH_ATTEND_H
#define FX_BENCH_ATTEND_H

#include "bench/bench.h"
#include "parallel/comm_nccl.h"
#include "parallel/exchange.h"

typedef struct attend {
    fx_backend *be;
    fx_comm *comm;
    fx_layout layout;
    fx_exchange *ex;
    fx_arena *arena;
    void *base; /* on a device */
    fx_tensor qkv, out, w, cs;
    int heads, dim;
} attend;

/* A function of segment, row and column, so that any rank can write any row. */
static inline float attend_value(int64_t row, int64_t column)
{
    const uint64_t x = ((uint64_t)row << 32 ^ (uint64_t)column) * 0x9e3779b97f4a7c15u >> 40;
    return (float)(int)(x & 255) / 128.0f - 1.0f;
}

/* This rank's rows of q|k|v in joint order. */
static inline fx_status attend_fill(const attend *a, int rank)
{
    const int64_t width = a->qkv.shape[1], rows = a->qkv.shape[0];
    char *host = malloc(fx_bytes(a->qkv) + fx_bytes(a->cs) + fx_bytes(a->w) + 1);
    FX_CHECK(host, FX_ENOMEM, "no memory for %lld rows", (long long)rows);
    int64_t to = 0;
    for (int seg = 0; seg < FX_SEGMENTS; seg++) {
        const fx_range r = a->layout.part[rank][seg];
        for (int64_t i = 0; i < r.count; i++, to++)
            for (int64_t c = 0; c < width; c++) {
                const float v = attend_value(fx_layout_start(&a->layout, seg) + r.begin + i, c);
                fx_convert(host + (size_t)(to * width + c) * fx_dtype_size(a->be->dtype), a->be->dtype, &v,
                           FX_F32, 1);
            }
    }
    fx_status st = rows ? fx_upload(a->be, a->qkv, host) : FX_OK;
    if (!st) st = fx_sync(a->be);
    float *plain = (float *)host;
    for (int64_t i = 0; i < fx_numel(a->cs); i++) plain[i] = 0.5f;
    if (!st && rows) st = fx_upload(a->be, a->cs, host);
    if (!st) st = fx_sync(a->be);
    for (int64_t i = 0; i < a->dim; i++) plain[i] = 1;
    if (!st) st = fx_upload(a->be, a->w, host);
    if (!st) st = fx_sync(a->be);
    free(host);
    return st;
}

/* comm: NULL, one rank by itself (then `self` is opened for it). */
static inline fx_status attend_open(attend *a, fx_backend *be, fx_comm *comm, int64_t text, int64_t image,
                                    int dim)
{
    const int ranks = fx_comm_size(comm), me = fx_comm_rank(comm);
    size_t bytes = (size_t)1 << 20;
    *a = (attend){.be = be, .comm = comm, .heads = 24, .dim = dim};
    bytes += (size_t)(text + image) * (size_t)(a->heads * dim) * 40;
    if (fx_on_device(be)) FX_TRY(fx_comm_take_rows(comm, be, &bytes, &a->base));
    FX_TRY(fx_arena_open(a->base, bytes, &a->arena));
    be->arena = a->arena;
    FX_TRY(fx_layout_open(FX_LAYOUT_EVEN, ranks, (const int64_t[]){text, image, 0}, &a->layout));
    const int64_t rows = fx_layout_local(&a->layout, me), width = (int64_t)a->heads * dim;
    fx_mesh mesh;
    FX_TRY(fx_mesh_make(ranks, a->heads, 0, 0, &mesh));
    FX_TRY(fx_push2(be->arena, be->dtype, rows, width, &a->out));
    const fx_exchange_options opt = {mesh, FX_EXACT_AUTO, a->heads, dim, 1e-6f, false, a->out};
    FX_TRY(fx_exchange_open(be, comm, &a->layout, &opt, &a->ex));
    FX_TRY(fx_push2(be->arena, be->dtype, rows, 3 * width, &a->qkv));
    FX_TRY(fx_push1(be->arena, FX_F32, dim, &a->w));
    FX_TRY(fx_push3(be->arena, FX_F32, rows, dim / 2, 2, &a->cs));
    return attend_fill(a, me);
}

static inline void attend_close(attend *a)
{
    fx_exchange_close(&a->ex);
    fx_layout_close(&a->layout);
    fx_arena_close(&a->arena);
    if (a->base) fx_comm_give_rows(a->comm, a->be, a->base);
    a->be->arena = NULL;
}

/* t[3]: put, attend, collect. */
static inline fx_status attend_block(attend *a, double t[3])
{
    double at[4] = {fx_now_s()};
    FX_TRY(fx_exchange_put(a->ex, FX_ALL, FX_Q | FX_K | FX_V, a->qkv, a->w, a->w, a->cs));
    at[1] = fx_now_s();
    FX_TRY(fx_exchange_attend(a->ex, false));
    at[2] = fx_now_s();
    FX_TRY(fx_exchange_collect(a->ex, FX_ALL));
    FX_TRY(fx_comm_settle(a->comm));
    FX_TRY(fx_sync(a->be));
    at[3] = fx_now_s();
    for (int k = 0; k < 3; k++) t[k] = at[k + 1] - at[k];
    return FX_OK;
}

/* The whole output of one rank alone: all[text + image, heads * dim]. */
static inline fx_status attend_alone(fx_backend *be, int64_t text, int64_t image, int dim, char **all)
{
    attend a = {0};
    fx_comm *self = NULL;
    double t[3];
    fx_status st = fx_comm_open("self", 120, &self);
    if (!st) st = fx_comm_open_rows(self, be, FX_WIRE_AUTO);
    if (!st) st = attend_open(&a, be, self, text, image, dim);
    if (!st) st = attend_block(&a, t);
    if (!st) *all = malloc(fx_bytes(a.out) + 1);
    if (!st && !*all) st = FX_FAIL(FX_ENOMEM, "no memory for the output of one rank");
    if (!st) st = fx_download(be, *all, a.out);
    if (a.be) attend_close(&a);
    fx_comm_close_rows(self);
    fx_comm_close(&self);
    return st;
}

/* Values of this rank's rows that are not those of one rank. */
static inline fx_status attend_wrong(const attend *a, const char *all, int64_t *wrong)
{
    const size_t es = fx_dtype_size(a->be->dtype), row = (size_t)a->out.shape[1] * es;
    char *mine = malloc(fx_bytes(a->out) + 1), *at = mine;
    FX_CHECK(mine, FX_ENOMEM, "no memory for the output");
    const fx_status st = a->out.shape[0] ? fx_download(a->be, mine, a->out) : FX_OK;
    for (int seg = 0; !st && seg < FX_SEGMENTS; seg++) {
        const fx_range r = a->layout.part[fx_comm_rank(a->comm)][seg];
        const char *want = all + (size_t)(fx_layout_start(&a->layout, seg) + r.begin) * row;
        for (size_t i = 0; i < (size_t)r.count * row; i += es, at += es)
            *wrong += memcmp(at, want + i, es) != 0;
    }
    free(mine);
    return st;
}

static inline fx_status attend_measure(bench *b, fx_comm *comm, fx_backend *be, int runs, int64_t text,
                                       int64_t image, int dim)
{
    attend a;
    double t[4][BENCH_RUNS], once[3], s[4];
    char *alone = NULL;
    int64_t wrong = 0;
    FX_TRY(fx_comm_vote(comm, attend_alone(be, text, image, dim, &alone), NULL));
    FX_TRY(fx_comm_vote(comm, attend_open(&a, be, comm, text, image, dim), NULL));
    FX_TRY(attend_block(&a, once));
    for (int i = 0; i < runs; i++) {
        FX_TRY(fx_comm_barrier(comm));
        fx_comm_reset_statistics(comm);
        FX_TRY(attend_block(&a, once));
        for (int k = 0; k < 3; k++) t[k][i] = once[k];
        t[3][i] = fx_comm_statistics(comm).wait_s;
    }
    const double sent = (double)fx_comm_statistics(comm).bytes_sent;
    FX_TRY(attend_wrong(&a, alone, &wrong));
    FX_TRY(fx_comm_all_reduce_i64(comm, FX_SUM, &wrong, 1));
    json_t *samples = json_object();
    static const char *const names[] = {"put_s", "attend_s", "collect_s", "waits_s"};
    for (int k = 0; k < 4; k++) {
        FX_TRY(fx_comm_all_reduce_f64(comm, FX_MAX, t[k], runs));
        json_object_set_new(samples, names[k], bench_samples(t[k], runs));
        s[k] = bench_median(t[k], runs);
    }
    if (b->speaks)
        printf("  %-10s %6lld %6d %5d %9.3f %9.3f %9.3f %9.3f %9.3f %8lld\n", "attention",
               (long long)(text + image), a.heads, dim, s[0] * 1e3, s[1] * 1e3, s[2] * 1e3, s[3] * 1e3,
               sent * 1e-6, (long long)wrong);
    bench_row(b,
              json_pack("{s:s, s:I, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:I, s:o}", "op", "attention", "rows",
                        (json_int_t)(text + image), "heads", a.heads, "dim", dim, "put_ms", s[0] * 1e3,
                        "attend_ms", s[1] * 1e3, "collect_ms", s[2] * 1e3, "waits_ms", s[3] * 1e3, "sent_mb",
                        sent * 1e-6, "wrong", (json_int_t)wrong, "samples", samples),
              wrong);
    attend_close(&a);
    free(alone);
    return FX_OK;
}

static inline fx_status bench_attend(bench *b, fx_comm *comm, fx_backend *be, int runs)
{
    if (b->speaks) {
        printf("# %-10s %6s %6s %5s %9s %9s %9s %9s %9s %8s\n", "op", "rows", "heads", "dim", "put", "attend",
               "collect", "waits", "sent", "#wrong");
        printf("# %-10s %6s %6s %5s %9s %9s %9s %9s %9s %8s\n", "", "", "", "", "(ms)", "(ms)", "(ms)",
               "(ms)", "(MB)", "(values)");
    }
    FX_TRY(attend_measure(b, comm, be, runs, 24, 64, 16));    /* the demo model's */
    return attend_measure(b, comm, be, runs, 512, 1024, 128); /* FLUX.1 at 512x512 */
}

#endif
