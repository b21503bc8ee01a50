/* The numbers of calibrate.h, each the median of some runs of the slowest rank. Called by launch/cmd_calibrate.c. */
#include "runtime/predict/calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/clock.h"
#include "runtime/core/log.h"

enum { C = 3072, HEAD = 128, RUNS = 5, ROWS_MOST = 1024 }; /* FLUX.1's widths */
static const int64_t row_classes[] = {16, 64, 256, ROWS_MOST};
enum { CLASSES = sizeof row_classes / sizeof row_classes[0] };

typedef struct bench {
    fx_comm *comm;
    fx_backend *be;
    void *packed, *host;
    fx_tensor pool; /* random values, of which operands are cut */
    fx_weight w;
} bench;

/* What is timed. */
typedef struct work {
    const bench *b;
    int64_t rows, heads;
    fx_status (*run)(const struct work *);
} work;

/* ---- timing ---- */

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static fx_status run_times(const work *w, int times)
{
    for (int i = 0; i < times; i++) FX_TRY(w->run(w));
    return fx_sync(w->b->be);
}

/* Seconds of one run of the slowest rank, all at once. Short work is repeated until it takes about 10 ms. */
static fx_status time_of(const work *w, double *out)
{
    double s[RUNS];
    const double begin = fx_now_s();
    FX_TRY(fx_comm_vote(w->b->comm, run_times(w, 1), NULL));
    double once = fx_now_s() - begin;
    FX_TRY(fx_comm_all_reduce_f64(w->b->comm, FX_MAX, &once, 1));
    const int times = once > 0.01 ? 1 : once > 1e-5 ? (int)(0.01 / once) + 1 : 1000;
    const int runs = once > 0.2 ? 2 : RUNS;
    for (int i = 0; i < runs; i++) {
        FX_TRY(fx_comm_barrier(w->b->comm));
        const double start = fx_now_s();
        const fx_status st = run_times(w, times);
        s[i] = (fx_now_s() - start) / times;
        FX_TRY(fx_comm_vote(w->b->comm, st, NULL));
    }
    FX_TRY(fx_comm_all_reduce_f64(w->b->comm, FX_MAX, s, runs));
    qsort(s, (size_t)runs, sizeof *s, ascending);
    const double median = s[(runs - 1) / 2];
    *out = median > 1e-9 ? median : 1e-9;
    return FX_OK;
}

/* ---- operands ---- */

/* [rows, cols] from an offset of the pool. */
static fx_tensor cut(const bench *b, fx_dtype dtype, int64_t offset_rows, int64_t rows, int64_t cols)
{
    char *at = (char *)b->pool.data + offset_rows * C * 4;
    return fx_view2(at, dtype, rows, cols);
}

/* Values of about 0.02 in both dtypes, so that nothing overflows and nothing is 0. */
static void fill(void *to, size_t bytes, bool bf16)
{
    uint32_t state = 12345, *v = to;
    for (size_t i = 0; i < bytes / 4; i++) {
        state = state * 1664525u + 1013904223u;
        v[i] = bf16 ? 0x3c803c80u | (state >> 9 & 0x7f) | (state & 0x807f8000u & 0x807f0000u)
                    : 0x3c800000u | (state >> 9 & 0xffffu);
    }
}

static fx_status open_pool(bench *b)
{
    const size_t bytes = (size_t)8 * ROWS_MOST * C * 4; /* more than the weights: 4 C^2 values */
    b->host = malloc(bytes);
    FX_CHECK(b->host, FX_ENOMEM, "no memory to calibrate (%zu MiB)", bytes >> 20);
    fill(b->host, bytes, b->be->dtype == FX_BF16);
    b->w = (fx_weight){.n = 4 * C, .k = C, .kh = 1, .kw = 1, .kind = FX_WEIGHT_LINEAR, .dtype = b->be->dtype};
    b->pool = fx_view1(b->host, FX_U8, (int64_t)bytes);
    b->packed = aligned_alloc(256, (b->be->ops->packed_bytes(b->be, &b->w) + 255) / 256 * 256);
    FX_CHECK(b->packed, FX_ENOMEM, "no memory to calibrate (weights)");
    b->w.packed = b->packed;
    return b->be->ops->pack(b->be, &b->w, b->host, b->packed);
}

static void close_pool(bench *b)
{
    free(b->packed);
    free(b->host);
}

/* ---- the classes ---- */

static fx_status run_linear(const work *w)
{
    const bench *b = w->b;
    return fx_linear(b->be, cut(b, b->be->dtype, 0, w->rows, 4 * C),
                     cut(b, b->be->dtype, 5 * ROWS_MOST, w->rows, C), b->w, fx_none(), FX_ACT_NONE);
}

static fx_status run_attention(const work *w)
{
    const bench *b = w->b;
    const fx_dtype d = b->be->dtype;
    const int64_t width = w->heads * HEAD;
    const fx_tensor qkv = cut(b, d, 0, w->rows, 3 * width);
    return fx_attention(b->be, fx_heads(cut(b, d, 5 * ROWS_MOST, w->rows, width), w->heads), fx_none(),
                        fx_heads(fx_cols(qkv, 0, width), w->heads),
                        fx_heads(fx_cols(qkv, width, width), w->heads),
                        fx_heads(fx_cols(qkv, 2 * width, width), w->heads), fx_none(), 1 / sqrtf(HEAD));
}

static fx_status run_gate_norm(const work *w)
{
    const bench *b = w->b;
    const fx_tensor c = cut(b, b->be->stream, 6 * ROWS_MOST, 3, C);
    return fx_gate_norm(b->be, cut(b, b->be->dtype, 0, w->rows, C),
                        cut(b, b->be->stream, ROWS_MOST, w->rows, C), fx_row(c, 0),
                        cut(b, b->be->dtype, 2 * ROWS_MOST, w->rows, C), fx_row(c, 1), fx_row(c, 2), 1e-6f);
}

static fx_status run_rope(const work *w)
{
    const bench *b = w->b;
    const fx_dtype d = b->be->dtype;
    const fx_tensor cs = cut(b, FX_F32, 6 * ROWS_MOST, w->rows, HEAD);
    return fx_qk_norm_rope(b->be, fx_heads(cut(b, d, 0, w->rows, C), C / HEAD),
                           fx_heads(cut(b, d, ROWS_MOST, w->rows, C), C / HEAD),
                           fx_row(cut(b, FX_F32, 7 * ROWS_MOST, 1, HEAD), 0),
                           fx_view3(cs.data, FX_F32, w->rows, HEAD / 2, 2), 1e-6f);
}

static fx_status run_copy(const work *w)
{
    const bench *b = w->b;
    return fx_copy(b->be, cut(b, b->be->dtype, 0, w->rows, C),
                   cut(b, b->be->dtype, 4 * ROWS_MOST, w->rows, C), 1, 0);
}

static void add_rate(fx_rates *to, fx_rate_dtype dtype, int64_t rows, double tflops)
{
    to->r[to->n++] = (fx_rate){.dtype = dtype, .rows = rows, .cols = 128, .tflops = tflops};
}

static fx_status time_products(const bench *b, fx_rate_dtype dtype, int ranks, fx_machine *m)
{
    double s;
    for (int i = 0; i < CLASSES; i++) {
        work w = {.b = b, .rows = row_classes[i], .run = run_linear, .heads = 4};
        FX_TRY(time_of(&w, &s));
        add_rate(&m->gemm, dtype, w.rows, ranks * 2e-12 * (double)w.rows * 4 * C * C / s);
        w.run = run_attention;
        FX_TRY(time_of(&w, &s));
        add_rate(&m->attention, dtype, w.rows,
                 ranks * 4e-12 * (double)w.rows * (double)w.rows * HEAD * 4 / s);
    }
    const fx_rate *best = &m->gemm.r[m->gemm.n - 1];
    add_rate(&m->conv, dtype, 1, best->tflops); /* gathered rows times a matrix */
    return FX_OK;
}

static fx_status time_row_ops(const bench *b, int ranks, fx_machine *m)
{
    static const struct {
        const char *name;
        fx_status (*run)(const work *);
        int values, streams; /* of dtype, of the stream, per row and column */
    } op[] = {{"gate_norm", run_gate_norm, 2, 2}, {"qk_norm_rope", run_rope, 2, 0}, {"copy", run_copy, 2, 0}};
    double s, all = 0;
    for (size_t i = 0; i < sizeof op / sizeof op[0]; i++) {
        const work w = {.b = b, .rows = 1024, .run = op[i].run};
        const double bytes = 1024.0 * C *
                             (double)((size_t)op[i].values * fx_dtype_size(b->be->dtype) +
                                      (size_t)op[i].streams * fx_dtype_size(b->be->stream));
        FX_TRY(time_of(&w, &s));
        const double gbps = ranks * bytes / s * 1e-9;
        memcpy(m->op[m->ops].name, op[i].name, strlen(op[i].name) + 1);
        m->op[m->ops++].gbps = gbps;
        all += gbps / (sizeof op / sizeof op[0]);
    }
    const work small = {.b = b, .rows = 1, .run = run_copy};
    FX_TRY(time_of(&small, &s));
    m->rows_gbps = all;
    m->op_us = s * 1e6;
    return FX_OK;
}

/* ---- between ranks ---- */

/* Every rank sends a piece to every other, as in an exchange. */
static fx_status exchange(const bench *b, size_t bytes, double *out)
{
    enum { TIMES = 20, MOST = 64 };
    const int ranks = fx_comm_size(b->comm), me = fx_comm_rank(b->comm);
    const int peers = ranks - 1 < MOST ? ranks - 1 : MOST;
    fx_xfer send[MOST], recv[MOST];
    char *at = b->host; /* what it holds does not matter any more */
    double s[TIMES];
    for (int k = 0; k < peers; k++) {
        send[k] = (fx_xfer){(me + k + 1) % ranks, at + (size_t)k * bytes, bytes};
        recv[k] = (fx_xfer){(me + ranks - k - 1) % ranks, at + (size_t)(peers + k) * bytes, bytes};
    }
    for (int i = 0; i < TIMES; i++) {
        fx_ticket t;
        FX_TRY(fx_comm_barrier(b->comm));
        const double begin = fx_now_s();
        FX_TRY(fx_comm_transfer(b->comm, peers, send, peers, recv, &t));
        FX_TRY(fx_comm_wait(b->comm, &t));
        s[i] = fx_now_s() - begin;
    }
    FX_TRY(fx_comm_all_reduce_f64(b->comm, FX_MAX, s, TIMES));
    qsort(s, TIMES, sizeof *s, ascending);
    *out = s[TIMES / 2];
    return FX_OK;
}

static fx_status time_exchange(const bench *b, fx_machine *m)
{
    const int ranks = fx_comm_size(b->comm);
    const size_t large = ((size_t)8 << 20) / (size_t)(ranks > 1 ? ranks - 1 : 1) / 8 * 8;
    double small_s, large_s;
    fx_by_rate *by = &m->by[FX_BY_MPI];
    *by = (fx_by_rate){.given = true, .start_us = 1, .wait_us = 1, .gbps = m->rows_gbps / 2};
    if (ranks == 1) return FX_OK; /* what a copy through shared memory would be */
    FX_TRY(exchange(b, 64, &small_s));
    FX_TRY(exchange(b, large, &large_s));
    by->start_us = small_s * 1e6;
    by->wait_us = 0;
    by->gbps = (double)large * (ranks - 1) / (large_s > small_s ? large_s - small_s : large_s) * 1e-9;
    return FX_OK;
}

/* ---- the call ---- */

static fx_status measure(bench *b, fx_machine *m)
{
    const int ranks = fx_comm_size(b->comm);
    const fx_rate_dtype dtype = b->be->dtype == FX_F32 ? FX_RATE_F32 : FX_RATE_BF16;
    FX_TRY(fx_comm_vote(b->comm, open_pool(b), NULL));
    FX_TRY(time_products(b, dtype, ranks, m));
    FX_TRY(time_row_ops(b, ranks, m));
    FX_TRY(time_exchange(b, m));
    m->weights_gbps = m->peak_gbps = m->op[2].gbps; /* what a large copy reaches */
    for (int i = 0; i < m->gemm.n; i++)
        if (m->gemm.r[i].tflops > m->peak_tflops[dtype]) m->peak_tflops[dtype] = m->gemm.r[i].tflops;
    for (int i = 0; i < m->attention.n; i++)
        if (m->attention.r[i].tflops > m->peak_tflops[dtype])
            m->peak_tflops[dtype] = m->attention.r[i].tflops;
    m->peak_link_gbps = m->by[FX_BY_MPI].gbps;
    return FX_OK;
}

fx_status fx_calibrate(fx_comm *comm, fx_backend *be, double png_s_per_pixel, fx_machine *out)
{
    const char *limit;
    bench b = {.comm = comm, .be = be};
    fx_arena *arena = NULL;
    *out = (fx_machine){.cpu = true,
                        .units = (int64_t)be->threads * fx_comm_size(comm),
                        .sustained = 1,
                        .domain_ranks = 65536,
                        .png_ms_per_mpixel = png_s_per_pixel * 1e9,
                        .memory_gib = (double)fx_memory_share(1, &limit) / 0x1p30};
    strcpy(out->source, "measured by fluxpar bench --calibrate");
    memcpy(out->name, fx_backend_describe(be), strnlen(fx_backend_describe(be), sizeof out->name - 1));
    fx_status st =
        fx_on_device(be)
            ? FX_FAIL(FX_EINVAL, "calibrating measures processors; for GPUs there are files: see plan --help")
            : fx_arena_open(NULL, (size_t)256 << 20, &arena);
    FX_TRY(fx_comm_vote(comm, st, NULL));
    be->arena = arena;
    st = measure(&b, out);
    close_pool(&b);
    be->arena = NULL;
    fx_arena_close(&arena);
    return st;
}
