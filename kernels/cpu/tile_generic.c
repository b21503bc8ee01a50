/* The matrix tile on AVX2 (6 rows x 16 columns in 12 registers), on NEON (8 rows x 8 columns in 16) and in plain C (any
 * processor): f32 operands. */
#include "kernels/cpu/internal.h"

static void nothing(void) {}

#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

#if FX_X86
#include <immintrin.h>

enum { STRIP = 16 }; /* columns at once */

FX_TARGET_AVX2 static inline __attribute__((always_inline)) void avx2_rows(int rows, int64_t k,
                                                                           const float *a, int64_t lda,
                                                                           const float *panel, float *c,
                                                                           int64_t ldc, bool acc)
{
    __m256 s[6][2];
    UNROLL for (int r = 0; r < rows; r++)
    {
        s[r][0] = acc ? _mm256_loadu_ps(c + r * ldc) : _mm256_setzero_ps();
        s[r][1] = acc ? _mm256_loadu_ps(c + r * ldc + 8) : _mm256_setzero_ps();
    }
    for (int64_t i = 0; i < k; i++) {
        const __m256 p0 = _mm256_loadu_ps(panel + i * STRIP), p1 = _mm256_loadu_ps(panel + i * STRIP + 8);
        UNROLL for (int r = 0; r < rows; r++)
        {
            const __m256 x = _mm256_broadcast_ss(a + r * lda + i);
            s[r][0] = _mm256_fmadd_ps(x, p0, s[r][0]);
            s[r][1] = _mm256_fmadd_ps(x, p1, s[r][1]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++)
    {
        _mm256_storeu_ps(c + r * ldc, s[r][0]);
        _mm256_storeu_ps(c + r * ldc + 8, s[r][1]);
    }
}

#define AVX2_ROWS(rows)                                                                                      \
    FX_TARGET_AVX2 static void avx2_rows_##rows(int64_t k, const float *a, int64_t lda, const float *panel,  \
                                                float *c, int64_t ldc, bool acc)                             \
    {                                                                                                        \
        avx2_rows(rows, k, a, lda, panel, c, ldc, acc);                                                      \
    }
AVX2_ROWS(6)
AVX2_ROWS(4)
AVX2_ROWS(2)
AVX2_ROWS(1)

/* Six rows at a time; the rest in fours, because one or two rows alone wait for their own sums: 2 rows cost as
 * much as 4. */
static void avx2_run(int64_t m, int64_t k, const void *a, int64_t lda, const void *panel, float *c,
                     int64_t ldc, bool acc)
{
    const int64_t sixes = m % 6 == 2 && m >= 8 ? m - 8 : m - m % 6;
    for (int half = 0; half < FX_PANEL; half += STRIP) {
        const float *x = a, *p = (const float *)panel + half * k;
        float *y = c + half;
        int64_t i = 0;
        for (; i < sixes; i += 6) avx2_rows_6(k, x + i * lda, lda, p, y + i * ldc, ldc, acc);
        for (; i + 4 <= m; i += 4) avx2_rows_4(k, x + i * lda, lda, p, y + i * ldc, ldc, acc);
        for (; i + 2 <= m; i += 2) avx2_rows_2(k, x + i * lda, lda, p, y + i * ldc, ldc, acc);
        if (i < m) avx2_rows_1(k, x + i * lda, lda, p, y + i * ldc, ldc, acc);
    }
}

const fx_cpu_tile fx_cpu_tile_avx2 = {FX_F32, STRIP, false, avx2_run, nothing, nothing};
#endif

#if FX_NEON
#include <arm_neon.h>

enum { NEON_STRIP = 8 }; /* columns at once */

/* Four values of k at a time, the four of a row in one register: then the sums' chains are as they are one by one. */
static inline __attribute__((always_inline)) void neon_rows(int rows, int64_t k, const float *a, int64_t lda,
                                                            const float *panel, float *c, int64_t ldc,
                                                            bool acc)
{
    float32x4_t s[8][2], x[8];
    UNROLL for (int r = 0; r < rows; r++) for (int h = 0; h < 2; h++) s[r][h] =
        acc ? vld1q_f32(c + r * ldc + 4 * h) : vdupq_n_f32(0);
    int64_t i = 0;
    for (; i + 4 <= k; i += 4) {
        UNROLL for (int r = 0; r < rows; r++) x[r] = vld1q_f32(a + r * lda + i);
#define LANE(q)                                                                                              \
    UNROLL for (int r = 0; r < rows; r++) for (int h = 0; h < 2; h++) s[r][h] =                              \
        vfmaq_laneq_f32(s[r][h], vld1q_f32(panel + (i + (q)) * NEON_STRIP + 4 * h), x[r], q);
        LANE(0) LANE(1) LANE(2) LANE(3)
#undef LANE
    }
    for (; i < k; i++)
        UNROLL for (int r = 0; r < rows; r++) for (int h = 0; h < 2; h++) s[r][h] =
            vfmaq_n_f32(s[r][h], vld1q_f32(panel + i * NEON_STRIP + 4 * h), a[r * lda + i]);
    UNROLL for (int r = 0; r < rows; r++) for (int h = 0; h < 2; h++) vst1q_f32(c + r * ldc + 4 * h, s[r][h]);
}

static void neon_run(int64_t m, int64_t k, const void *a, int64_t lda, const void *panel, float *c,
                     int64_t ldc, bool acc)
{
    for (int strip = 0; strip < FX_PANEL; strip += NEON_STRIP) {
        const float *x = a, *p = (const float *)panel + strip * k;
        float *y = c + strip;
        int64_t i = 0;
        for (; i + 8 <= m; i += 8) neon_rows(8, k, x + i * lda, lda, p, y + i * ldc, ldc, acc);
        for (; i + 4 <= m; i += 4) neon_rows(4, k, x + i * lda, lda, p, y + i * ldc, ldc, acc);
        for (; i < m; i++) neon_rows(1, k, x + i * lda, lda, p, y + i * ldc, ldc, acc);
    }
}

const fx_cpu_tile fx_cpu_tile_neon = {FX_F32, NEON_STRIP, false, neon_run, nothing, nothing};
#endif

/* 2 x 8 sums in registers of any vector width. */
static void base_block(int64_t rows, int64_t k, const float *a, int64_t lda, const float *panel, float *c,
                       int64_t ldc, bool acc)
{
    float s[2][8];
    for (int64_t r = 0; r < rows; r++)
        for (int j = 0; j < 8; j++) s[r][j] = acc ? c[r * ldc + j] : 0.0f;
    const float *a1 = a + (rows > 1 ? lda : 0);
    if (rows == 2) {
        for (int64_t i = 0; i < k; i++)
            for (int j = 0; j < 8; j++) {
                s[0][j] += a[i] * panel[i * FX_PANEL + j];
                s[1][j] += a1[i] * panel[i * FX_PANEL + j];
            }
    } else {
        for (int64_t i = 0; i < k; i++)
            for (int j = 0; j < 8; j++) s[0][j] += a[i] * panel[i * FX_PANEL + j];
    }
    for (int64_t r = 0; r < rows; r++)
        for (int j = 0; j < 8; j++) c[r * ldc + j] = s[r][j];
}

static void base_run(int64_t m, int64_t k, const void *a, int64_t lda, const void *panel, float *c,
                     int64_t ldc, bool acc)
{
    const float *x = a, *p = panel;
    for (int64_t i = 0; i < m; i += 2)
        for (int j = 0; j < FX_PANEL; j += 8)
            base_block(m - i < 2 ? 1 : 2, k, x + i * lda, lda, p + j, c + i * ldc + j, ldc, acc);
}

const fx_cpu_tile fx_cpu_tile_base = {FX_F32, FX_PANEL, false, base_run, nothing, nothing};
