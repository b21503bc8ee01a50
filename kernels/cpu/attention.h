/* Inside kernels/cpu/ only: one call of attention, shared by packing, the softmax rows and the driver. */
#ifndef FX_KERNELS_CPU_ATTENTION_H
#define FX_KERNELS_CPU_ATTENTION_H

#include "kernels/cpu/internal.h"

/* Queries per task, queries per pass through a key block, keys per block (counted from key 0). */
enum { FX_QUERIES = 128, FX_QUERY_ROWS = 32, FX_KEYS = 256 };

/* `rows` query rows (at most 32) against n scores each (n <= FX_KEYS): running maximum and sum, p = exp(scale
 * s + bias - max) of `operand` type, zeros from n to padded (n rounded up to 32). A row's value for `factor`
 * is what its earlier sums are worth now. Each row is computed alone. */
typedef struct fx_softmax {
    const float *s;    /* [rows][FX_SCORES_LD] */
    const float *bias; /* row 0; row r reads bias - r; or NULL */
    void *p;           /* [rows][FX_SCORES_LD] */
    fx_dtype operand;
    float scale;
    int64_t rows, n, padded;
    float *max, *sum, *factor; /* [rows]; max in units of max_unit (fx_attn) */
} fx_softmax;
enum { FX_SCORES_LD = FX_KEYS + 32 }; /* off the power of two */

typedef struct fx_attn {
    fx_tensor o, lse, q, k, v, bias;
    float scale;
    const fx_cpu *cpu;
    void (*softmax)(const fx_softmax *);
    double max_unit;
    int64_t heads, dim, tq, tk;
    int64_t dim_k, dim_v, keys; /* padded: q.k length, columns of v, keys */
    int64_t head0, group;       /* heads whose panels are in scratch */
    char *k_panels, *v_panels;
    int64_t k_bytes, v_bytes; /* of one head */
} fx_attn;

/* Packs keys [32 i, 32 i + 32) of every head of the group. Task: head * (keys / 32) + i. */
void fx_cpu_attn_pack(const void *job, int64_t begin, int64_t end, int thread);

void fx_cpu_softmax_generic(const fx_softmax *); /* operand f32; max in natural units */
#if FX_X86
/* 2^f on [0, 1): q[0] f^5 + ... + q[5]; relative error 1.3e-7, exact at 0. A weighted least-squares fit made for these rows. */
static const float fx_power2_q[6] = {0.00186713052f, 0.00901702978f, 0.0557999127f,
                                     0.240164444f,   0.693151295f,   1.0f};
/* A score past the last key: finite, because infinity times c_low would be NaN; far enough to weigh 0. */
#define FX_NO_SCORE (-1e30f)
void fx_cpu_softmax_avx2(const fx_softmax *);   /* operand f32; max in units of ln 2 */
void fx_cpu_softmax_avx512(const fx_softmax *); /* operand f32; max in units of ln 2 */
void fx_cpu_softmax_bf16(const fx_softmax *); /* operand bf16 (AVX512-BF16 and above); max in units of ln 2 */
/* bf16 panels of 32 keys of one head, rows of `stride` elements, `count` of them real (1 to 32). */
void fx_cpu_pack_keys_avx512(const uint16_t *k, int64_t stride, int64_t count, int64_t dim, int64_t dim_k,
                             uint16_t *dst);
void fx_cpu_pack_values_avx512(const uint16_t *v, int64_t stride, int64_t count, int64_t dim,
                               int64_t panel_stride, uint16_t *dst);
#endif

#endif
