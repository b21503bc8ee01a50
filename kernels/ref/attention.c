/* o = softmax(scale q k^T + bias) v per head, with the log of the softmax denominator, and the merge of two
 * such results over disjoint key sets. f64; one row of scores at a time. source: FlashAttention-2, Ring
 * attention */
#include "kernels/ref/ref_ops.h"

#include <math.h>

/* One row of Tk scores. Heads run in parallel, and no more than H threads can work. */
fx_status fx_ref_attention_scratch(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k,
                                   fx_tensor v, fx_tensor bias, size_t *bytes)
{
    (void)be, (void)o, (void)lse, (void)v, (void)bias;
    *bytes = (size_t)(q.shape[1] * k.shape[0]) * sizeof(double);
    return FX_OK;
}

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* Scores of one query to all keys; returns the largest, 0 when none is finite. A NaN does not count here and
 * makes every sum below NaN. bias points at the value for key 0. */
static double score_row(double *score, const double *q, fx_tensor k, int64_t head, const float *bias,
                        double scale)
{
    double most = -INFINITY;
    for (int64_t j = 0; j < k.shape[0]; j++) {
        score[j] = scale * dot(q, ref_row2(k, j, head), k.shape[2]) + (bias ? (double)bias[j] : 0);
        if (score[j] > most) most = score[j];
    }
    return most == -INFINITY ? 0 : most;
}

/* o[d] = sum_j exp(score[j] - most) v[j,d] / sum_j exp(score[j] - most); returns the log of the denominator.
 */
static double weighted_row(double *acc, const double *score, double most, fx_tensor v, int64_t head)
{
    double total = 0;
    for (int64_t d = 0; d < v.shape[2]; d++) acc[d] = 0;
    for (int64_t j = 0; j < v.shape[0]; j++) {
        const double p = exp(score[j] - most);
        const double *value = ref_row2(v, j, head);
        total += p;
        for (int64_t d = 0; d < v.shape[2]; d++) acc[d] += p * value[d];
    }
    if (total == 0) return -INFINITY; /* nothing to see: o = 0 */
    for (int64_t d = 0; d < v.shape[2]; d++) acc[d] /= total;
    return most + log(total);
}

fx_status fx_ref_attention(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k, fx_tensor v,
                           fx_tensor bias, float scale, void *scratch)
{
    const int64_t queries = q.shape[0];
#pragma omp parallel for num_threads(be->threads) schedule(static)
    for (int64_t h = 0; h < q.shape[1]; h++) {
        double *score = (double *)scratch + h * k.shape[0];
        double acc[1024];
        const float *bias_row =
            fx_present(bias) ? (const float *)bias.data + (bias.shape[0] > 1 ? h : 0) * bias.stride[0] : NULL;
        for (int64_t i = 0; i < queries; i++) {
            /* the value for (i, j) stands at j - i + Tq - 1 */
            const float *bias_i = bias_row ? bias_row + queries - 1 - i : NULL;
            const double most = score_row(score, ref_row2(q, i, h), k, h, bias_i, (double)scale);
            const double log_sum = weighted_row(acc, score, most, v, h);
            for (int64_t d = 0; d < q.shape[2]; d++)
                ref_store(o, i * o.stride[0] + h * o.stride[1] + d, acc[d]);
            if (fx_present(lse)) ref_store(lse, h * lse.stride[0] + i, log_sum);
        }
    }
    return FX_OK;
}

static void merge_row(fx_tensor o, int64_t at, double *lse, fx_tensor o2, int64_t at2, double lse2,
                      int64_t dim)
{
    if (*lse == -INFINITY && lse2 == -INFINITY) return; /* neither saw a key: o = 0 stays */
    const double most = fmax(*lse, lse2);
    const double a = exp(*lse - most), b = exp(lse2 - most);
    for (int64_t d = 0; d < dim; d++)
        ref_store(o, at + d, (a * ref_load(o, at + d) + b * ref_load(o2, at2 + d)) / (a + b));
    *lse = most + log(a + b);
}

fx_status fx_ref_attention_merge(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor o2, fx_tensor lse2)
{
    (void)be;
    for (int64_t i = 0; i < o.shape[0]; i++)
        for (int64_t h = 0; h < o.shape[1]; h++) {
            double *sum = ref_row(lse, h) + i;
            const double sum2 = ref_row(lse2, h)[i];
            merge_row(o, i * o.stride[0] + h * o.stride[1], sum, o2, i * o2.stride[0] + h * o2.stride[1],
                      sum2, o.shape[2]);
        }
    return FX_OK;
}
