/* Softmax of attention scores with a bias by distance, for attention that is two matrix products with scores between
 * them: T5 (relative bias), CLIP (causal), head dims that the fused kernel does not take. A CTA per query and head.
 * Contract: kernels/cuda/slots.h and fx_attention of kernels/ops.h. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/slots.h"

namespace
{

enum { THREADS = 128 };

template <class P> struct softmax_args {
    P *p;
    float *lse;            /* or null */
    const float *s, *bias; /* bias: or null */
    int64_t p_head, p_row, s_head, s_row, lse_head, lse_row, bias_head, first, queries;
    int keys;
};

FX_DEVICE float score(const float *s, const float *bias, int j)
{
    return bias ? s[j] + bias[j] : s[j];
}

template <class P> FX_KERNEL FX_BOUNDS(THREADS) softmax_kernel(softmax_args<P> a)
{
    float *part = fx_shared<float>();
    const int64_t row = fx_cta(), head = fx_cta_y();
    const float *s = a.s + head * a.s_head + row * a.s_row;
    /* query i, key j: bias[j - i + Tq - 1] */
    const float *bias = a.bias ? a.bias + head * a.bias_head + (a.queries - 1 - (a.first + row)) : nullptr;
    P *p = a.p + head * a.p_head + row * a.p_row;
    float top = -INFINITY, sum = 0;
    for (int j = fx_tid(); j < a.keys; j += THREADS) {
        const float v = score(s, bias, j);
        top = v > top || v != v ? v : top;
    }
    top = fx_cta_max<THREADS>(top, part);
    const bool none = top == -INFINITY;
    if (!none)
        for (int j = fx_tid(); j < a.keys; j += THREADS) sum += fx_exp(score(s, bias, j) - top);
    sum = fx_cta_sum<THREADS>(sum, part);
    const float inverse = 1.0f / sum;
    for (int j = fx_tid(); j < a.keys; j += THREADS)
        fx_put(p, j, none ? 0.0f : fx_exp(score(s, bias, j) - top) * inverse);
    if (a.lse && fx_tid() == 0)
        a.lse[head * a.lse_head + row * a.lse_row] = none ? -INFINITY : top + logf(sum);
}

template <class P>
fx_status softmax(fx_backend *be, fx_tensor p, fx_tensor lse, fx_tensor s, fx_tensor bias, int64_t first,
                  int64_t queries)
{
    const bool with_lse = fx_present(lse), biased = fx_present(bias);
    const softmax_args<P> a = {(P *)p.data,
                               with_lse ? (float *)lse.data : nullptr,
                               (const float *)s.data,
                               biased ? (const float *)bias.data : nullptr,
                               p.stride[0],
                               p.stride[1],
                               s.stride[0],
                               s.stride[1],
                               with_lse ? lse.stride[0] : 0,
                               with_lse ? lse.stride[1] : 0,
                               biased && bias.shape[0] > 1 ? bias.stride[0] : 0,
                               first,
                               queries,
                               (int)s.shape[2]};
    const fx_dim3 grid((unsigned)s.shape[1], (unsigned)s.shape[0]);
    return FX_LAUNCH(be, grid, THREADS, THREADS / FX_WARP * sizeof(float), softmax_kernel<P>, a);
}

/* ---- scores of a single key: a warp per head of a query ---- */

struct dots_args {
    float *s;
    const void *q, *k;
    int64_t s_head, s_row, q_row, q_head, k_head, heads, items;
    int n;
    float scale;
};

enum { HEADS_PER_CTA = THREADS / FX_WARP };

template <class T> FX_KERNEL FX_BOUNDS(THREADS) dots_kernel(dots_args a)
{
    const int64_t item = fx_cta() * HEADS_PER_CTA + fx_tid() / FX_WARP;
    if (item >= a.items) return;
    const int64_t row = item / a.heads, head = item % a.heads;
    const T *q = (const T *)a.q + row * a.q_row + head * a.q_head, *k = (const T *)a.k + head * a.k_head;
    float sum = 0;
    for (int c = fx_tid() % FX_WARP; c < a.n; c += FX_WARP) sum += fx_get(q, c) * fx_get(k, c);
    sum = fx_warp_sum(sum);
    if (fx_tid() % FX_WARP == 0) a.s[head * a.s_head + row * a.s_row] = a.scale * sum;
}

} // namespace

extern "C" fx_status FX_SLOT(dots)(fx_backend *be, fx_tensor s, fx_tensor q, fx_tensor k, float scale)
{
    const dots_args a = {(float *)s.data, q.data,      k.data,      s.stride[0], s.stride[1],
                         q.stride[0],     q.stride[1], k.stride[1], q.shape[1],  q.shape[0] * q.shape[1],
                         (int)q.shape[2], scale};
    const fx_dim3 grid((unsigned)((a.items + HEADS_PER_CTA - 1) / HEADS_PER_CTA));
    return q.dtype == FX_F32 ? FX_LAUNCH(be, grid, THREADS, 0, dots_kernel<float>, a)
                             : FX_LAUNCH(be, grid, THREADS, 0, dots_kernel<uint16_t>, a);
}

extern "C" fx_status FX_SLOT(softmax)(fx_backend *be, fx_tensor p, fx_tensor lse, fx_tensor s, fx_tensor bias,
                                      int64_t first, int64_t queries)
{
    return p.dtype == FX_F32 ? softmax<float>(be, p, lse, s, bias, first, queries)
                             : softmax<uint16_t>(be, p, lse, s, bias, first, queries);
}
