/* The matrix tile on AVX-512: 12 rows x 32 columns in 24 registers. f32 by fused multiply-add; bf16 by the
 * AVX512-BF16 dot product of pairs. One chain over k per element, so rows do not depend on the block they
 * fall in. */
#include "kernels/cpu/internal.h"

#if FX_X86
#include <immintrin.h>

#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))
enum { MAX_ROWS = 12 };

static void nothing(void) {}

FX_TARGET_AVX512 INLINE void load_rows(__m512 s[][2], int rows, const float *c, int64_t ldc, bool acc)
{
    UNROLL for (int r = 0; r < rows; r++)
    {
        s[r][0] = acc ? _mm512_loadu_ps(c + r * ldc) : _mm512_setzero_ps();
        s[r][1] = acc ? _mm512_loadu_ps(c + r * ldc + 16) : _mm512_setzero_ps();
    }
}

FX_TARGET_AVX512 INLINE void store_rows(__m512 s[][2], int rows, float *c, int64_t ldc)
{
    UNROLL for (int r = 0; r < rows; r++)
    {
        _mm512_storeu_ps(c + r * ldc, s[r][0]);
        _mm512_storeu_ps(c + r * ldc + 16, s[r][1]);
    }
}

FX_TARGET_AVX512 INLINE void f32_rows(int rows, int64_t k, const float *a, int64_t lda, const float *panel,
                                      float *c, int64_t ldc, bool acc)
{
    __m512 s[MAX_ROWS][2];
    load_rows(s, rows, c, ldc, acc);
    for (int64_t i = 0; i < k; i++) {
        const __m512 p0 = _mm512_loadu_ps(panel + i * FX_PANEL),
                     p1 = _mm512_loadu_ps(panel + i * FX_PANEL + 16);
        UNROLL for (int r = 0; r < rows; r++)
        {
            const __m512 x = _mm512_set1_ps(a[r * lda + i]);
            s[r][0] = _mm512_fmadd_ps(x, p0, s[r][0]);
            s[r][1] = _mm512_fmadd_ps(x, p1, s[r][1]);
        }
    }
    store_rows(s, rows, c, ldc);
}

FX_TARGET_BF16 INLINE void bf16_rows(int rows, int64_t k, const uint16_t *a, int64_t lda,
                                     const uint16_t *panel, float *c, int64_t ldc, bool acc)
{
    __m512 s[MAX_ROWS][2];
    load_rows(s, rows, c, ldc, acc);
    for (int64_t i = 0; i < k; i += 2) {
        const __m512bh p0 = (__m512bh)_mm512_loadu_si512(panel + i * FX_PANEL);
        const __m512bh p1 = (__m512bh)_mm512_loadu_si512(panel + i * FX_PANEL + 32);
        UNROLL for (int r = 0; r < rows; r++)
        {
            int32_t pair;
            __builtin_memcpy(&pair, a + r * lda + i, sizeof pair);
            const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
            s[r][0] = _mm512_dpbf16_ps(s[r][0], x, p0);
            s[r][1] = _mm512_dpbf16_ps(s[r][1], x, p1);
        }
    }
    store_rows(s, rows, c, ldc);
}

/* The same body for 12, 8, 4, 2 and 1 rows. */
#define EACH_ROWS(target, element, body)                                                                     \
    target static void body##_12(int64_t k, const element *a, int64_t lda, const element *p, float *c,       \
                                 int64_t ldc, bool acc)                                                      \
    {                                                                                                        \
        body(12, k, a, lda, p, c, ldc, acc);                                                                 \
    }                                                                                                        \
    target static void body##_4(int64_t k, const element *a, int64_t lda, const element *p, float *c,        \
                                int64_t ldc, bool acc)                                                       \
    {                                                                                                        \
        body(4, k, a, lda, p, c, ldc, acc);                                                                  \
    }                                                                                                        \
    target static void body##_1(int64_t k, const element *a, int64_t lda, const element *p, float *c,        \
                                int64_t ldc, bool acc)                                                       \
    {                                                                                                        \
        body(1, k, a, lda, p, c, ldc, acc);                                                                  \
    }                                                                                                        \
    static void body##_run(int64_t m, int64_t k, const void *a, int64_t lda, const void *p, float *c,        \
                           int64_t ldc, bool acc)                                                            \
    {                                                                                                        \
        const element *x = a;                                                                                \
        int64_t i = 0;                                                                                       \
        for (; i + 12 <= m; i += 12) body##_12(k, x + i * lda, lda, p, c + i * ldc, ldc, acc);               \
        for (; i + 4 <= m; i += 4) body##_4(k, x + i * lda, lda, p, c + i * ldc, ldc, acc);                  \
        for (; i < m; i++) body##_1(k, x + i * lda, lda, p, c + i * ldc, ldc, acc);                          \
    }

EACH_ROWS(FX_TARGET_AVX512, float, f32_rows)
EACH_ROWS(FX_TARGET_BF16, uint16_t, bf16_rows)

const fx_cpu_tile fx_cpu_tile_avx512 = {FX_F32, FX_PANEL, false, f32_rows_run, nothing, nothing};
const fx_cpu_tile fx_cpu_tile_bf16 = {FX_BF16, FX_PANEL, false, bf16_rows_run, nothing, nothing};
#endif
