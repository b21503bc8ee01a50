/* AVX-512 parts of attention: the softmax rows (16 scores at a time, a block of 256 held in registers) and
 * the packing of bf16 keys and values. 2^x = 2^floor(x) * q(x - floor(x)): vreduce, a polynomial (relative
 * error 1.3e-7, exact at 0), vscalef; -inf gives 0 and NaN stays. The running maximum is rounded up to an
 * integer (scores are in units of ln 2): weights under two maxima then differ by a power of two, and nearly
 * always round alike to bf16, so a ring of key blocks rounds as one pass over all keys does. */
#include "kernels/cpu/attention.h"

#if FX_X86
#include <immintrin.h>
#include <math.h>

#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))
enum { VECTORS = FX_KEYS / 16 };

FX_TARGET_AVX512 INLINE __m512 power2(__m512 x)
{
    const __m512 f = _mm512_reduce_ps(x, 1); /* x - floor(x) */
    __m512 q = _mm512_set1_ps(fx_power2_q[0]);
    for (int i = 1; i < 6; i++) q = _mm512_fmadd_ps(q, f, _mm512_set1_ps(fx_power2_q[i]));
    return _mm512_scalef_ps(q, x);
}

/* A row in registers: scores x[i] * (c + c_low) in units of ln 2. c_low, what rounding took from scale *
 * log2(e), matters to f32 results only. */
typedef struct row_scale {
    float c, c_low;
} row_scale;

static row_scale row_scale_of(const fx_softmax *j)
{
    const double exact = (double)j->scale * 1.4426950408889634;
    return (row_scale){(float)exact, (float)(exact - (double)(float)exact)};
}

FX_TARGET_AVX512 INLINE __m512 edge_scores(const fx_softmax *j, const float *s, const float *bias, int64_t at)
{
    const float log2_e = 1.44269504f;
    const int64_t left = j->n - at;
    const __mmask16 m = left >= 16 ? (__mmask16)0xffff
                        : left > 0 ? (__mmask16)((1u << left) - 1)
                                   : (__mmask16)0;
    __m512 x = _mm512_maskz_loadu_ps(m, s + at);
    if (bias) {
        x = _mm512_mul_ps(x, _mm512_set1_ps(j->scale * log2_e));
        x = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, bias + at), _mm512_set1_ps(log2_e), x);
    }
    return _mm512_mask_blend_ps(m, _mm512_set1_ps(bias ? -INFINITY : FX_NO_SCORE), x);
}

/* Full blocks without bias are loaded as they are; with a bias, scores are scaled first and the factor is 1.
 */
FX_TARGET_AVX512 INLINE void load_row(const fx_softmax *j, int64_t r, __m512 *x, int count)
{
    const float *s = j->s + r * FX_SCORES_LD, *bias = j->bias ? j->bias - r : NULL;
    if (!bias && j->n == count * 16) {
        UNROLL for (int i = 0; i < count; i++) x[i] = _mm512_loadu_ps(s + 16 * i);
    } else {
        for (int i = 0; i < count; i++) x[i] = edge_scores(j, s, bias, 16 * i);
    }
}

/* x[0..count) becomes p; count (even) is a constant at the call for full blocks. */
FX_TARGET_AVX512 INLINE void weigh(const fx_softmax *j, int64_t r, __m512 *x, int count, row_scale scale,
                                   bool precise)
{
    __m512 top = x[0];
    UNROLL for (int i = 1; i < count; i++) top = _mm512_max_ps(top, x[i]);
    const float before = j->max[r], here = ceilf(_mm512_reduce_max_ps(top) * scale.c),
                now = here > before ? here : before;
    const float base = now == -INFINITY ? 0.0f : now;
    const __m512 minus = _mm512_set1_ps(-base), c = _mm512_set1_ps(scale.c),
                 c_low = _mm512_set1_ps(scale.c_low);
    __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
    UNROLL for (int i = 0; i < count; i += 2)
    {
        const __m512 m0 = precise ? _mm512_fmadd_ps(x[i], c_low, minus) : minus;
        const __m512 m1 = precise ? _mm512_fmadd_ps(x[i + 1], c_low, minus) : minus;
        x[i] = power2(_mm512_fmadd_ps(x[i], c, m0));
        x[i + 1] = power2(_mm512_fmadd_ps(x[i + 1], c, m1));
        even = _mm512_add_ps(even, x[i]);
        odd = _mm512_add_ps(odd, x[i + 1]);
    }
    const float factor = _mm512_cvtss_f32(power2(_mm512_set1_ps(before - base)));
    j->sum[r] = j->sum[r] * factor + _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
    j->max[r] = now;
    j->factor[r] = factor;
}

FX_TARGET_AVX512 void fx_cpu_softmax_avx512(const fx_softmax *j)
{
    const row_scale scale = j->bias ? (row_scale){1.0f, 0.0f} : row_scale_of(j);
    for (int64_t r = 0; r < j->rows; r++) {
        __m512 x[VECTORS] = {_mm512_setzero_ps()};
        float *p = (float *)j->p + r * FX_SCORES_LD;
        const int count = (int)(j->padded / 16);
        load_row(j, r, x, count);
        weigh(j, r, x, count, scale, !j->bias);
        for (int i = 0; i < count; i++) _mm512_storeu_ps(p + 16 * i, x[i]);
    }
}

FX_TARGET_BF16 INLINE void store_bf16(uint16_t *p, const __m512 *x, int count)
{
    UNROLL for (int i = 0; i < count; i += 2)
        _mm512_storeu_si512(p + 16 * i, (__m512i)_mm512_cvtne2ps_pbh(x[i + 1], x[i]));
}

FX_TARGET_BF16 void fx_cpu_softmax_bf16(const fx_softmax *j)
{
    const row_scale scale = j->bias ? (row_scale){1.0f, 0.0f} : row_scale_of(j);
    for (int64_t r = 0; r < j->rows; r++) {
        __m512 x[VECTORS] = {_mm512_setzero_ps()};
        uint16_t *p = (uint16_t *)j->p + r * FX_SCORES_LD;
        if (j->padded == FX_KEYS) {
            load_row(j, r, x, VECTORS);
            weigh(j, r, x, VECTORS, scale, false);
            store_bf16(p, x, VECTORS);
        } else {
            const int count = (int)(j->padded / 16);
            load_row(j, r, x, count);
            weigh(j, r, x, count, scale, false);
            store_bf16(p, x, count);
        }
    }
}

/* ---- packing ---- */

FX_TARGET_AVX512 void fx_cpu_pack_keys_avx512(const uint16_t *k, int64_t stride, int64_t count, int64_t dim,
                                              int64_t dim_k, uint16_t *dst)
{
    for (int half = 0; half < 2; half++) {
        const int64_t real = count - 16 * half;
        const __mmask16 m = real >= 16 ? (__mmask16)0xffff
                            : real > 0 ? (__mmask16)((1u << real) - 1)
                                       : (__mmask16)0;
        const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        const __m512i offset = _mm512_mullo_epi32(lane, _mm512_set1_epi32((int32_t)(stride * 2)));
        const uint16_t *base = k + 16 * half * stride;
        for (int64_t d = 0; d < dim_k; d += 2) {
            const __m512i zero = _mm512_setzero_si512();
            const __m512i pairs =
                d < dim && m ? _mm512_mask_i32gather_epi32(zero, m, offset, base + d, 1) : zero;
            _mm512_storeu_si512(dst + d / 2 * 64 + 32 * half, pairs);
        }
    }
}

/* Two keys side by side: 16 channels of each in one register. */
FX_TARGET_AVX512 INLINE __m512i interleave(const uint16_t *a, const uint16_t *b, __mmask16 m, __mmask16 mb)
{
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, a));
    const __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mb, b));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

FX_TARGET_AVX512 void fx_cpu_pack_values_avx512(const uint16_t *v, int64_t stride, int64_t count, int64_t dim,
                                                int64_t panel_stride, uint16_t *dst)
{
    const int64_t padded = (dim + FX_PANEL - 1) / FX_PANEL * FX_PANEL;
    for (int64_t r = 0; r < FX_PANEL; r += 2)
        for (int64_t d = 0; d < padded; d += 16) {
            const int64_t real = dim - d;
            const __mmask16 m = real >= 16 ? (__mmask16)0xffff
                                : real > 0 ? (__mmask16)((1u << real) - 1)
                                           : (__mmask16)0;
            const __m512i pairs = r < count ? interleave(v + r * stride + d, v + (r + 1) * stride + d, m,
                                                         r + 1 < count ? m : (__mmask16)0)
                                            : _mm512_setzero_si512();
            _mm512_storeu_si512(dst + d / FX_PANEL * panel_stride + r / 2 * 64 + d % FX_PANEL * 2, pairs);
        }
}
#endif
