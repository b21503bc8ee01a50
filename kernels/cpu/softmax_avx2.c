/* The softmax rows of attention on AVX2: two passes over a row's scores, 8 at a time. As in attention_avx512.c
 * scores are in units of ln 2 and 2^x = 2^floor(x) * q(x - floor(x)) with the same polynomial; the running
 * maximum is rounded up to an integer. Each row is computed alone. */
#include "kernels/cpu/attention.h"

#if FX_X86
#include <immintrin.h>
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* 0 below 2^-126 and for -inf; NaN stays. */
FX_TARGET_AVX2 INLINE __m256 power2(__m256 x)
{
    const __m256 least = _mm256_set1_ps(-126.0f);
    const __m256 kept = _mm256_cmp_ps(x, least, _CMP_NLT_UQ), in = _mm256_max_ps(least, x); /* NaN: x */
    const __m256 n = _mm256_floor_ps(in), f = _mm256_sub_ps(in, n);
    __m256 q = _mm256_set1_ps(fx_power2_q[0]);
    for (int i = 1; i < 6; i++) q = _mm256_fmadd_ps(q, f, _mm256_set1_ps(fx_power2_q[i]));
    const __m256i power = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23); /* NaN: 0 */
    return _mm256_and_ps(_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(q), power)), kept);
}

FX_TARGET_AVX2 INLINE float sum_of(__m256 x)
{
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)),
                 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

FX_TARGET_AVX2 INLINE float max_of(__m256 x)
{
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)),
                 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

/* The scores a row's weights come from: s itself where all are there, else a copy in t with the bias added and
 * the end filled. */
FX_TARGET_AVX2 INLINE const float *row_scores(const fx_softmax *j, int64_t r, float *t)
{
    const float log2_e = 1.44269504f, scale = j->scale * log2_e;
    const float *s = j->s + r * FX_SCORES_LD;
    if (!j->bias && j->n == j->padded) return s;
    if (j->bias) {
        const float *bias = j->bias - r;
        for (int64_t i = 0; i < j->n; i++) t[i] = s[i] * scale + bias[i] * log2_e;
    } else {
        memcpy(t, s, (size_t)j->n * sizeof *t);
    }
    for (int64_t i = j->n; i < j->padded; i++) t[i] = j->bias ? -INFINITY : FX_NO_SCORE;
    return t;
}

/* Scores are worth s * (c + c_low) in units of ln 2: c_low is what rounding took from scale * log2(e). Without
 * `precise` it is left out (0, by which an infinite score must not be multiplied). */
FX_TARGET_AVX2 INLINE void weigh(const fx_softmax *j, int64_t r, const float *s, float c, float c_low,
                                 bool precise)
{
    float *p = (float *)j->p + r * FX_SCORES_LD;
    __m256 top0 = _mm256_loadu_ps(s), top1 = top0;
    for (int64_t i = 0; i < j->padded; i += 16) {
        top0 = _mm256_max_ps(top0, _mm256_loadu_ps(s + i));
        top1 = _mm256_max_ps(top1, _mm256_loadu_ps(s + i + 8));
    }
    const float before = j->max[r], here = ceilf(max_of(_mm256_max_ps(top0, top1)) * c),
                now = here > before ? here : before, base = now == -INFINITY ? 0.0f : now;
    const __m256 minus = _mm256_set1_ps(-base), high = _mm256_set1_ps(c), low = _mm256_set1_ps(c_low);
    __m256 even = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
    for (int64_t i = 0; i < j->padded; i += 16) {
        const __m256 x0 = _mm256_loadu_ps(s + i), x1 = _mm256_loadu_ps(s + i + 8);
        const __m256 m0 = precise ? _mm256_fmadd_ps(x0, low, minus) : minus;
        const __m256 m1 = precise ? _mm256_fmadd_ps(x1, low, minus) : minus;
        const __m256 p0 = power2(_mm256_fmadd_ps(x0, high, m0)), p1 = power2(_mm256_fmadd_ps(x1, high, m1));
        _mm256_storeu_ps(p + i, p0);
        _mm256_storeu_ps(p + i + 8, p1);
        even = _mm256_add_ps(even, p0);
        odd = _mm256_add_ps(odd, p1);
    }
    const float factor = _mm256_cvtss_f32(power2(_mm256_set1_ps(before - base)));
    j->sum[r] = j->sum[r] * factor + sum_of(_mm256_add_ps(even, odd));
    j->max[r] = now;
    j->factor[r] = factor;
}

FX_TARGET_AVX2 void fx_cpu_softmax_avx2(const fx_softmax *j)
{
    const double scale = (double)j->scale * 1.4426950408889634;
    const float c = (float)scale, c_low = (float)(scale - (double)c);
    float t[FX_KEYS];
    for (int64_t r = 0; r < j->rows; r++) {
        const float *s = row_scores(j, r, t);
        if (j->bias)
            weigh(j, r, s, 1.0f, 0.0f, false); /* a row with a bias comes scaled */
        else
            weigh(j, r, s, c, c_low, true);
    }
}
#endif
