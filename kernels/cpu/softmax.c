/* The softmax row of attention: one query against one block of keys. For processors whose tile takes f32. */
#include "kernels/cpu/attention.h"
#include "kernels/cpu/multi.h"

#include <math.h>

FX_INLINE void softmax_body(const float *s, int64_t n, int64_t padded, float scale, const float *bias,
                            float *max, float *sum, float *p, float *factor)
{
    float t[FX_KEYS], lane[16], total[16] = {0};
    for (int j = 0; j < 16; j++) lane[j] = -INFINITY;
    for (int64_t i = 0; i < n; i++) t[i] = bias ? s[i] * scale + bias[i] : s[i] * scale;
    for (int64_t i = n; i < padded; i++) t[i] = -INFINITY;
    for (int64_t i = 0; i < padded; i += 16)
        for (int j = 0; j < 16; j++) {
            const float x = t[i + j];
            lane[j] = x > lane[j] ? x : lane[j];
        }
    float top = *max;
    for (int j = 0; j < 16; j++) top = lane[j] > top ? lane[j] : top;
    const float base = top == -INFINITY ? 0.0f : top;
    for (int64_t i = 0; i < padded; i += 16)
        for (int j = 0; j < 16; j++) {
            const float e = fx_exp(t[i + j] - base);
            total[j] += e;
            p[i + j] = e;
        }
    *factor = fx_exp(*max - base);
    *sum = *sum * *factor + fx_sum16(total);
    *max = top;
}

FX_INLINE void softmax_rows_any(const fx_softmax *j)
{
    for (int64_t r = 0; r < j->rows; r++) {
        const float *s = j->s + r * FX_SCORES_LD, *bias = j->bias ? j->bias - r : NULL;
        softmax_body(s, j->n, j->padded, j->scale, bias, j->max + r, j->sum + r,
                     (float *)j->p + r * FX_SCORES_LD, j->factor + r);
    }
}
FX_MULTI(softmax_rows, (const fx_softmax *j), (j))

void fx_cpu_softmax_generic(const fx_softmax *j)
{
    softmax_rows(j);
}
