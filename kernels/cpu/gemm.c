/* c = a . panels, blocked for the caches: the body of linear and convolution. Tasks are blocks of rows x
 * columns; in a task k goes in chunks, the rows of a chunk are gathered into the thread's buffer (copied,
 * widened or cut from a picture by `fill`), and sums wait in f32. The chain over k of one element is the same
 * in any blocking, so blocks are chosen freely by shape and thread count. */
#include "kernels/cpu/attention.h"
#include "kernels/cpu/internal.h"
#include "kernels/cpu/multi.h"

/* A block: its sums (1 MiB) and gathered rows stay in L2. Wide blocks, because gathering costs more than
 * streaming panels (bench/LOG.md). LINE keeps row strides off powers of two, which would share few cache
 * sets. */
enum { ROWS = 256, COLS = 1024, CHUNK = FX_CHUNK, LINE = 16 };
_Static_assert(ROWS *(COLS + LINE) * 4 <= FX_BUF_C, "sums fit");
_Static_assert(ROWS *(CHUNK + 16) * 4 <= FX_BUF_A, "gathered rows fit");
_Static_assert(CHUNK *FX_PANEL * 4 <= FX_BUF_B, "a widened panel chunk fits");

static int64_t padded_k(int64_t k, fx_dtype dtype)
{
    return dtype == FX_BF16 ? fx_round_up(k, FX_K_UNIT) : k;
}

size_t fx_cpu_panel_bytes(int64_t n, int64_t k, fx_dtype dtype)
{
    return (size_t)(fx_round_up(n, FX_PANEL) * padded_k(k, dtype)) * fx_dtype_size(dtype);
}

/* ---- packing ---- */

typedef struct pack_job {
    int64_t n, k, taps;
    fx_dtype dtype;
    int width; /* of a strip */
    const void *src;
    void *dst;
} pack_job;

/* Source column of packed k: taps outermost in the packed order, innermost in the file. */
static inline int64_t source_k(const pack_job *j, int64_t k)
{
    if (j->taps == 1) return k;
    const int64_t inner = j->k / j->taps;
    return k % inner * j->taps + k / inner;
}

/* Where the panel of columns [32 panel, +32) and k [k0, +FX_CHUNK) begins, in elements. */
static int64_t panel_at(int64_t n, int64_t k, fx_dtype dtype, int64_t panel, int64_t k0)
{
    const int64_t depth = fx_least(CHUNK, padded_k(k, dtype) - k0);
    return k0 * fx_round_up(n, FX_PANEL) + panel * FX_PANEL * depth;
}

static void pack_panel_f32(const pack_job *j, int64_t panel)
{
    const float *src = j->src;
    for (int64_t k = 0; k < j->k; k++) {
        const int64_t from = source_k(j, k), k0 = k / CHUNK * CHUNK;
        const int64_t depth = fx_least(CHUNK, j->k - k0);
        float *dst = (float *)j->dst + panel_at(j->n, j->k, FX_F32, panel, k0);
        for (int64_t c = 0; c < FX_PANEL; c++) {
            const int64_t n = panel * FX_PANEL + c;
            dst[fx_strip_at(j->width, depth, k - k0, c)] = n < j->n ? src[n * j->k + from] : 0.0f;
        }
    }
}

static void pack_panel_bf16(const pack_job *j, int64_t panel)
{
#if FX_X86
    if (j->taps == 1 && j->k % 2 == 0 && j->k < (1 << 24) && fx_cpu_isa_level() >= FX_ISA_AVX512) {
        for (int64_t k0 = 0; k0 < j->k; k0 += CHUNK) {
            const int64_t depth = fx_least(CHUNK, j->k - k0);
            fx_cpu_pack_keys_avx512((const uint16_t *)j->src + panel * FX_PANEL * j->k + k0, j->k,
                                    fx_least(FX_PANEL, j->n - panel * FX_PANEL), depth,
                                    padded_k(depth, FX_BF16),
                                    (uint16_t *)j->dst + panel_at(j->n, j->k, FX_BF16, panel, k0));
        }
        return;
    }
#endif
    const uint16_t *src = j->src;
    const int64_t kp = padded_k(j->k, FX_BF16);
    for (int64_t k = 0; k < kp; k += FX_K_UNIT) { /* 2 KiB at a time: strided writes stay in L1 */
        const int64_t k0 = k / CHUNK * CHUNK;
        uint16_t *dst = (uint16_t *)j->dst + panel_at(j->n, j->k, FX_BF16, panel, k0) + (k - k0) * FX_PANEL;
        for (int64_t c = 0; c < FX_PANEL; c++) {
            const int64_t n = panel * FX_PANEL + c;
            for (int64_t i = 0; i < FX_K_UNIT; i++)
                dst[i / 2 * 64 + c * 2 + i % 2] =
                    n < j->n && k + i < j->k ? src[n * j->k + source_k(j, k + i)] : (uint16_t)0;
        }
    }
}

static void pack_range(const void *job, int64_t begin, int64_t end, int thread)
{
    const pack_job *j = job;
    (void)thread;
    for (int64_t p = begin; p < end; p++) {
        if (j->dtype == FX_BF16)
            pack_panel_bf16(j, p);
        else
            pack_panel_f32(j, p);
    }
}

void fx_cpu_pack_panels(const fx_backend *be, int64_t n, int64_t k, fx_dtype dtype, const void *src,
                        int64_t taps, void *dst)
{
    const pack_job job = {n, k, taps, dtype, fx_cpu_of(be)->tile->width, src, dst};
    const int64_t grain = 1 + (1 << 18) / (k * FX_PANEL);
    fx_cpu_ranges(be, fx_round_up(n, FX_PANEL) / FX_PANEL, grain, pack_range, &job);
}

/* bf16 [k/2][32][2] -> f32 strips [32 / width][k][width]. A word holds k and k + 1 of a column. Strips one after
 * the other: of an odd k, the row past the end is overwritten by the next strip. */
FX_INLINE void widen_strips(const uint16_t *panel, float *out, int64_t k, int width)
{
    for (int c0 = 0; c0 < FX_PANEL; c0 += width, out += k * width)
        for (int64_t i = 0; i < k; i += 2)
            for (int c = 0; c < width; c++) {
                const uint32_t word = fx_word(panel + i * FX_PANEL + 2 * (c0 + c));
                out[i * width + c] = fx_from_bits(word << 16);
                out[(i + 1) * width + c] = fx_from_bits(word & 0xffff0000u);
            }
}

FX_INLINE void widen_any(const uint16_t *panel, float *out, int64_t k, int width)
{
    switch (width) { /* constants, for the compiler's vectors */
    case 8: widen_strips(panel, out, k, 8); break;
    case 16: widen_strips(panel, out, k, 16); break;
    default: widen_strips(panel, out, k, FX_PANEL); break;
    }
}
FX_MULTI(widen, (const uint16_t *restrict panel, float *restrict out, int64_t k, int width),
         (panel, out, k, width))

/* ---- the finished row ---- */

FX_INLINE void finish_as(void *y, fx_dtype dtype, const float *c, const float *b, int64_t n, fx_act act)
{
    if (b) {
        for (int64_t i = 0; i < n; i++) fx_store(y, i, dtype, fx_act_apply(c[i] + b[i], act));
    } else {
        for (int64_t i = 0; i < n; i++) fx_store(y, i, dtype, fx_act_apply(c[i], act));
    }
}

FX_INLINE void finish_act(void *y, fx_dtype dtype, const float *c, const float *b, int64_t n, fx_act act)
{
    switch (act) {
    case FX_ACT_NONE: finish_as(y, dtype, c, b, n, FX_ACT_NONE); break;
    case FX_ACT_GELU_TANH: finish_as(y, dtype, c, b, n, FX_ACT_GELU_TANH); break;
    case FX_ACT_GELU_ERF: finish_as(y, dtype, c, b, n, FX_ACT_GELU_ERF); break;
    case FX_ACT_QUICK_GELU: finish_as(y, dtype, c, b, n, FX_ACT_QUICK_GELU); break;
    case FX_ACT_SILU: finish_as(y, dtype, c, b, n, FX_ACT_SILU); break;
    }
}

FX_INLINE void finish_any(void *y, fx_dtype dtype, const float *c, const float *b, int64_t n, fx_act act)
{
    if (dtype == FX_F32)
        finish_act(y, FX_F32, c, b, n, act);
    else
        finish_act(y, FX_BF16, c, b, n, act);
}
FX_MULTI(finish,
         (void *restrict y, fx_dtype dtype, const float *restrict c, const float *restrict b, int64_t n,
          fx_act act),
         (y, dtype, c, b, n, act))

void fx_cpu_finish_row(void *y, fx_dtype dtype, const float *c, const float *b, int64_t cols, fx_act act)
{
    finish(y, dtype, c, b, cols, act);
}

/* ---- blocks ---- */

typedef struct block_job {
    const fx_gemm *g;
    const fx_cpu *cpu;
    int64_t rows, cols, row_blocks; /* rows and columns of a block */
} block_job;

typedef struct block {
    int64_t row, rows, col, cols; /* of the result */
    fx_cpu_buf buf;
} block;

/* Row stride of gathered rows in elements: off the power of two. */
static int64_t gathered_ld(fx_dtype operand)
{
    return CHUNK + (operand == FX_BF16 ? 32 : 16);
}

/* One chunk of k for one block: gathered (or direct) rows times each panel. */
static void chunk_of_block(const block_job *j, const block *b, int64_t k0)
{
    const fx_gemm *g = j->g;
    const fx_cpu_tile *tile = j->cpu->tile;
    const bool widen_weight = g->dtype == FX_BF16 && tile->operand == FX_F32;
    const int64_t es = (int64_t)fx_dtype_size(g->dtype), count = fx_least(CHUNK, g->k - k0);
    const int64_t run_k = tile->operand == FX_BF16 ? fx_round_up(count, FX_K_UNIT) : count;
    const int64_t lda = g->direct ? g->direct_ld : gathered_ld(tile->operand);
    const void *a = g->direct ? (const void *)(g->direct + b->row * g->direct_ld + k0) : b->buf.a;
    if (!g->direct) g->fill(g, tile->operand, b->row, b->rows, k0, count, b->buf.a, lda);
    for (int64_t c = 0; c < b->cols; c += FX_PANEL) {
        const int64_t at = panel_at(g->n, g->k, g->dtype, (b->col + c) / FX_PANEL, k0);
        const void *panel = (const char *)g->packed + at * es;
        if (widen_weight) {
            widen(panel, b->buf.b, count, tile->width);
            panel = b->buf.b;
        }
        tile->run(b->rows, run_k, a, lda, panel, b->buf.c + c, j->cols + LINE, k0 != 0);
    }
}

static void block_range(const void *job, int64_t begin, int64_t end, int thread)
{
    const block_job *j = job;
    const fx_gemm *g = j->g;
    j->cpu->tile->begin();
    for (int64_t t = begin; t < end; t++) {
        block b = {.row = t % j->row_blocks * j->rows,
                   .col = t / j->row_blocks * j->cols,
                   .buf = j->cpu->buf[thread]};
        b.rows = fx_least(j->rows, g->m - b.row);
        b.cols = fx_least(j->cols, g->n - b.col);
        for (int64_t k0 = 0; k0 < g->k; k0 += CHUNK) chunk_of_block(j, &b, k0);
        g->store(g, b.row, b.rows, b.col, b.cols, b.buf.c, j->cols + LINE);
    }
    j->cpu->tile->end();
}

void fx_cpu_gemm(const fx_backend *be, const fx_gemm *g)
{
    block_job job = {.g = g, .cpu = fx_cpu_of(be), .rows = ROWS, .cols = COLS};
    const int64_t n = fx_round_up(g->n, FX_PANEL);
    job.cols = fx_least(job.cols, n);
    job.rows = fx_least(job.rows, fx_round_up(g->m, 32));
    /* enough blocks that every thread has work to the end */
    while (be->threads > 1 && job.cols > FX_PANEL &&
           ((g->m + job.rows - 1) / job.rows) * ((n + job.cols - 1) / job.cols) < 4 * be->threads)
        job.cols = fx_round_up(job.cols / 2, FX_PANEL);
    job.row_blocks = (g->m + job.rows - 1) / job.rows;
    const int64_t tasks = job.row_blocks * ((n + job.cols - 1) / job.cols);
    if ((double)g->m * (double)g->n * (double)g->k < 2e5)
        block_range(&job, 0, tasks, 0);
    else
        fx_cpu_tasks(be, tasks, block_range, &job);
}
