/* Inside kernels/cpu/ only: instruction sets, the matrix tile all heavy ops are built from, tasks, and the
 * slots. Contract of the slots: kernels/ops.h. */
#ifndef FX_KERNELS_CPU_INTERNAL_H
#define FX_KERNELS_CPU_INTERNAL_H

#include <string.h>

#include "kernels/ops.h"

#if defined(__x86_64__)
#define FX_X86         1
#define FX_TARGET_AVX2 __attribute__((target("avx2,fma,f16c")))
#ifdef __clang__
#define FX_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#else
#define FX_TARGET_AVX512                                                                                     \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,prefer-vector-width=512")))
#endif
#define FX_TARGET_BF16 __attribute__((target("avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#define FX_TARGET_AMX                                                                                        \
    __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#else
#define FX_X86 0
#endif
#if defined(__aarch64__)
#define FX_NEON 1
#else
#define FX_NEON 0
#endif

/* Ascending: each level of a processor's kind has all below it; NEON is 64-bit Arm's, the others are x86's. */
typedef enum { FX_ISA_BASE, FX_ISA_NEON, FX_ISA_AVX2, FX_ISA_AVX512, FX_ISA_BF16, FX_ISA_AMX } fx_cpu_isa;
/* What this process uses: the processor, the operating system and ONEDNN_MAX_CPU_ISA agree on it. */
fx_cpu_isa fx_cpu_isa_level(void);
const char *fx_cpu_isa_name(fx_cpu_isa);

static inline int64_t fx_least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- the matrix tile ----
 * Weights, keys and values are packed in panels of 32 columns. bf16: panel[k/2][32][2] with k padded to 32
 * (zeros), the operand order of the AMX and AVX512-BF16 dot products; where bf16 has no instruction, panels
 * are widened chunk by chunk to f32. f32: strips of the columns that the tile takes at once, [32 / width]
 * [k][width], so that a strip's rows follow each other (a strip cut out of longer rows would use part of the
 * cache sets). */
enum { FX_PANEL = 32, FX_K_UNIT = 32 };
/* Element (k, column) of an f32 panel of `depth` rows in strips of `width`. */
static inline int64_t fx_strip_at(int width, int64_t depth, int64_t k, int64_t column)
{
    return column / width * width * depth + k * width + column % width;
}
/* Weights are cut along k first: [k / FX_CHUNK][n / 32] panels of at most FX_CHUNK values of k. A panel of
 * bf16 (20 KiB), 32 rows and the sums stay in L1, and the panels one task needs lie one after the other. */
enum { FX_CHUNK = 320 };

/* c[m,32] = (acc ? c : 0) + a[m,k] . panel. lda, ldc in elements. Each c element is one chain over ascending
 * k (AMX: pairs of k), so its bits depend on its row and column alone. m is any; with rows32, a and c must
 * have memory for m rounded up to 32 rows (the extra rows of c are overwritten with garbage). */
typedef void (*fx_tile_fn)(int64_t m, int64_t k, const void *a, int64_t lda, const void *panel, float *c,
                           int64_t ldc, bool acc);

typedef struct fx_cpu_tile {
    fx_dtype operand; /* what a and the panel hold: bf16, or f32 (also for bf16 weights, widened) */
    int width;        /* of a strip of an f32 panel */
    bool rows32;
    fx_tile_fn run;
    void (*begin)(void), (*end)(void); /* around a thread's use of run (AMX: tile configuration) */
} fx_cpu_tile;

extern const fx_cpu_tile fx_cpu_tile_base, fx_cpu_tile_neon, fx_cpu_tile_avx2, fx_cpu_tile_avx512,
    fx_cpu_tile_bf16, fx_cpu_tile_amx;
bool fx_cpu_amx_permitted(void); /* asks the kernel for the tile registers, for this process */

/* Zeros behind n operands of a row, to the whole step of k that tiles for bf16 take. */
static inline void fx_cpu_pad_row(fx_dtype operand, void *row, int64_t n)
{
    if (operand == FX_BF16)
        memset((uint16_t *)row + n, 0, (size_t)(fx_round_up(n, FX_K_UNIT) - n) * sizeof(uint16_t));
}

/* Thread buffers, made at open. One thread's block serves one op at a time. */
enum { FX_BUF_C = 1040 << 10, FX_BUF_A = 544 << 10, FX_BUF_B = 128 << 10 }; /* bytes */
typedef struct fx_cpu_buf {
    float *c;
    void *a, *b;
} fx_cpu_buf;

typedef struct fx_cpu {
    fx_cpu_isa isa;
    const fx_cpu_tile *tile;
    void *memory;
    fx_cpu_buf *buf; /* [threads] */

} fx_cpu;

static inline fx_cpu *fx_cpu_of(const fx_backend *be)
{
    return (fx_cpu *)be->impl;
}

/* Runs fn over [0,n) on the backend's threads, in contiguous ranges of at least `grain` items: no parallel
 * region when one range is enough. fn must give the same bits for any ranges. */
typedef void (*fx_range_fn)(const void *job, int64_t begin, int64_t end, int thread);
void fx_cpu_ranges(const fx_backend *, int64_t n, int64_t grain, fx_range_fn fn, const void *job);
/* The same, one task at a time, to whichever thread is free. */
void fx_cpu_tasks(const fx_backend *, int64_t n, fx_range_fn fn, const void *job);

/* ---- gemm: c = a . panels, for linear and convolution ---- */
typedef struct fx_gemm fx_gemm;
struct fx_gemm {
    int64_t m, n, k;
    const void *packed;
    fx_dtype dtype; /* of the packed weight */
    const void *ctx;
    /* a[rows, k0..k0+count) of the operand dtype into dst (row stride ld), zeros from k to the padded count.
     */
    void (*fill)(const fx_gemm *, fx_dtype operand, int64_t row, int64_t rows, int64_t k0, int64_t count,
                 void *dst, int64_t ld);
    const float *direct; /* f32 operand rows that need no fill, or NULL */
    int64_t direct_ld;
    /* takes finished sums of rows [row, +rows) and columns [col, +cols) */
    void (*store)(const fx_gemm *, int64_t row, int64_t rows, int64_t col, int64_t cols, const float *c,
                  int64_t ldc);
};
void fx_cpu_gemm(const fx_backend *, const fx_gemm *);
size_t fx_cpu_panel_bytes(int64_t n, int64_t k, fx_dtype);
/* src[n][k / taps][taps] (as files store it) into panels whose k order is (tap, inner). */
void fx_cpu_pack_panels(const fx_backend *, int64_t n, int64_t k, fx_dtype, const void *src, int64_t taps,
                        void *dst);
/* y[0..cols) = act(c + b), stored as dtype. */
void fx_cpu_finish_row(void *y, fx_dtype, const float *c, const float *b, int64_t cols, fx_act);
/* n values of dtype (bf16 or f32) into an operand row. */
void fx_cpu_gather(fx_dtype operand, fx_dtype dtype, const void *src, int64_t n, void *dst);

/* ---- slots ---- */
size_t fx_cpu_packed_bytes(fx_backend *, const fx_weight *);
fx_status fx_cpu_pack(fx_backend *, const fx_weight *, const void *src, void *dst);
fx_status fx_cpu_linear_scratch(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act,
                                size_t *bytes);
fx_status fx_cpu_conv2d_scratch(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                                const int pad[4], size_t *bytes);
fx_status fx_cpu_attention_scratch(fx_backend *, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k,
                                   fx_tensor v, fx_tensor bias, size_t *bytes);
fx_status fx_cpu_linear(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act,
                        void *scratch);
fx_status fx_cpu_conv2d(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                        const int pad[4], void *scratch);
fx_status fx_cpu_attention(fx_backend *, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k, fx_tensor v,
                           fx_tensor bias, float scale, void *scratch);
fx_status fx_cpu_attention_merge(fx_backend *, fx_tensor o, fx_tensor lse, fx_tensor o2, fx_tensor lse2);
fx_status fx_cpu_norm_mod(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor shift, fx_tensor scale,
                          float eps);
fx_status fx_cpu_layer_norm(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor b, float eps);
fx_status fx_cpu_rms_norm(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor w, float eps);
fx_status fx_cpu_gate_add(fx_backend *, fx_tensor x, fx_tensor gate, fx_tensor y);
fx_status fx_cpu_gate_norm(fx_backend *, fx_tensor h, fx_tensor x, fx_tensor gate, fx_tensor y,
                           fx_tensor shift, fx_tensor scale, float eps);
fx_status fx_cpu_qk_norm_rope(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor cs, float eps);
fx_status fx_cpu_axpy(fx_backend *, fx_tensor x, fx_tensor y, float a);
fx_status fx_cpu_activate(fx_backend *, fx_tensor y, fx_tensor x, fx_act);
fx_status fx_cpu_glu(fx_backend *, fx_tensor y, fx_tensor a, fx_tensor b, fx_act);
fx_status fx_cpu_embed(fx_backend *, fx_tensor y, fx_tensor table, fx_tensor ids);
fx_status fx_cpu_copy(fx_backend *, fx_tensor y, fx_tensor x, float mul, float add);
fx_status fx_cpu_row_stats(fx_backend *, fx_tensor stats, fx_tensor x);
fx_status fx_cpu_group_norm(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor stats, fx_tensor w, fx_tensor b,
                            int64_t width, float eps, fx_act);
fx_status fx_cpu_upsample2x(fx_backend *, fx_tensor y, fx_tensor x);
fx_status fx_cpu_to_rgb8(fx_backend *, fx_tensor y, fx_tensor x);
fx_status fx_cpu_count_nonfinite(fx_backend *, fx_tensor x, int64_t *count);

#endif
