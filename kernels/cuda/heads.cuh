/* One head of q or k: RMS norm with its weight, then rotation. norm.cu and scatter.cu share these lines, so that both give
 * the same bits; where the values go is a sink of the caller's. */
#ifndef FX_KERNELS_CUDA_HEADS_CUH
#define FX_KERNELS_CUDA_HEADS_CUH

#include "kernels/cuda/divide.cuh"

enum { FX_HEAD_PAIRS = 4 }; /* by a warp: pairs that a lane keeps, 256 channels */
enum {
    FX_HEAD_CHUNK = 8,
    FX_HEAD_SHARING = 4
}; /* in chunks: values of a lane; heads that one lane goes through */

struct alignas(16) fx_head_chunk {
    uint32_t v[FX_HEAD_CHUNK / 2]; /* two bf16 each */
};

/* ---- a warp per head, any width ---- */

template <class Sink>
FX_DEVICE void fx_turn_pair(const float *w, const float *cs, int i, float u, float v, const Sink &sink)
{
    if (w) u *= w[i], v *= w[i + 1];
    if (cs) {
        const float c = cs[i], s = cs[i + 1], t = u * c - v * s;
        v = v * c + u * s;
        u = t;
    }
    sink.pair(i, u, v);
}

/* in[n]; w[n] or null: no norm; cs[n] or null: no rotation. sink.pair(i, u, v): values i and i + 1; sink.last(i, u): the
 * last of an odd width, which cannot be rotated. */
template <class E, class Sink>
FX_DEVICE void fx_head_by_warp(const E *in, const float *w, const float *cs, int n, float eps,
                               const Sink &sink)
{
    enum { PAIRS = FX_HEAD_PAIRS };
    const int lane = fx_tid() % FX_WARP;
    float u[PAIRS], v[PAIRS], sum = 0;
    FX_UNROLL for (int j = 0; j < PAIRS; j++)
    {
        const int i = 2 * (lane + j * FX_WARP);
        u[j] = i < n ? fx_get(in, i) : 0.0f;
        v[j] = i + 1 < n ? fx_get(in, i + 1) : 0.0f;
        sum += u[j] * u[j] + v[j] * v[j];
    }
    for (int i = 2 * (lane + PAIRS * FX_WARP); i < n; i += 2 * FX_WARP) {
        const float p = fx_get(in, i), q = i + 1 < n ? fx_get(in, i + 1) : 0.0f;
        sum += p * p + q * q;
    }
    const float inverse = w ? fx_rsqrt(fx_warp_sum(sum) / (float)n + eps) : 1.0f;
    FX_UNROLL for (int j = 0; j < PAIRS; j++)
    {
        const int i = 2 * (lane + j * FX_WARP);
        if (i + 1 < n)
            fx_turn_pair(w, cs, i, u[j] * inverse, v[j] * inverse, sink);
        else if (i < n)
            sink.last(i, u[j] * inverse * (w ? w[i] : 1.0f));
    }
    for (int i = 2 * (lane + PAIRS * FX_WARP); i < n; i += 2 * FX_WARP) {
        const float p = fx_get(in, i), q = i + 1 < n ? fx_get(in, i + 1) : 0.0f;
        if (i + 1 < n)
            fx_turn_pair(w, cs, i, p * inverse, q * inverse, sink);
        else
            sink.last(i, p * inverse * (w ? w[i] : 1.0f));
    }
}

/* ---- bf16 in chunks of 16 bytes: n / FX_HEAD_CHUNK lanes per head, a power of two up to a warp ---- */

FX_DEVICE void fx_get_eight(const float *p, float out[FX_HEAD_CHUNK])
{
    FX_UNROLL for (int k = 0; k < FX_HEAD_CHUNK; k += 4)
    {
        const fx_vec<4> q = fx_get_vec<4>(p, k);
        FX_UNROLL for (int j = 0; j < 4; j++) out[k + j] = q.v[j];
    }
}

/* BOTH: with a weight and a rotation, as in all blocks of FLUX.1: the compiler then leaves out what the others need. */
template <bool BOTH>
FX_DEVICE fx_head_chunk fx_turned(const float x[FX_HEAD_CHUNK], const float w[FX_HEAD_CHUNK],
                                  const float cs[FX_HEAD_CHUNK], float inverse, bool weighted, bool turn)
{
    fx_head_chunk r;
    FX_UNROLL for (int k = 0; k < FX_HEAD_CHUNK; k += 2)
    {
        float u = x[k] * inverse, v = x[k + 1] * inverse;
        if (BOTH || weighted) u *= w[k], v *= w[k + 1];
        const float c = cs[k], s = cs[k + 1], t = u * c - v * s;
        r.v[k / 2] = fx_round_two(BOTH || turn ? t : u, BOTH || turn ? v * c + u * s : v);
    }
    return r;
}

template <bool BOTH, class Sink>
FX_DEVICE void fx_chunks_of_heads(const uint16_t *in, int64_t stride, bool there, unsigned first,
                                  unsigned heads, const float *w, const float *cs, int n, int lanes,
                                  float eps, const Sink &sink)
{
    float weight[FX_HEAD_CHUNK] = {}, turn[FX_HEAD_CHUNK] = {};
    if (BOTH || w) fx_get_eight(w, weight);
    if (BOTH || cs) fx_get_eight(cs, turn);
    float x[FX_HEAD_SHARING][FX_HEAD_CHUNK] = {}, sum[FX_HEAD_SHARING] = {};
    FX_UNROLL for (int h = 0; h < FX_HEAD_SHARING; h++) if (there && first + h < heads)
    {
        const fx_head_chunk c = *(const fx_head_chunk *)(in + h * stride);
        FX_UNROLL for (int k = 0; k < FX_HEAD_CHUNK; k += 2) fx_widen_two(c.v[k / 2], x[h] + k);
    }
    FX_UNROLL for (int h = 0; h < FX_HEAD_SHARING; h++) FX_UNROLL for (int k = 0; k < FX_HEAD_CHUNK; k++)
        sum[h] += x[h][k] * x[h][k];
    for (int far = lanes / 2; far; far /= 2)
        FX_UNROLL for (int h = 0; h < FX_HEAD_SHARING; h++) sum[h] += fx_swap_xor(sum[h], far);
    const float part = 1.0f / (float)n; /* a power of two */
    FX_UNROLL for (int h = 0; h < FX_HEAD_SHARING; h++)
    {
        const float inverse = BOTH || w ? fx_rsqrt(sum[h] * part + eps) : 1.0f;
        const fx_head_chunk c = fx_turned<BOTH>(x[h], weight, turn, inverse, w != nullptr, cs != nullptr);
        if (there && first + h < heads) sink.chunk(h, c);
    }
}

/* This lane's eight values, from `at` on, of FX_HEAD_SHARING heads from `first` on, of `heads`, which are `stride` apart. in:
 * the lane's values of the first; w[n], cs[cs_at..] or null as above; not there: the lane goes along for the sums only. All
 * lanes of the warp must come. sink.chunk(h, values): of head first + h. */
template <class Sink>
FX_DEVICE void fx_heads_in_chunks(const uint16_t *in, int64_t stride, bool there, unsigned first,
                                  unsigned heads, const float *w, const float *cs, int64_t cs_at, int at,
                                  int n, int lanes, float eps, const Sink &sink)
{
    const float *const mine = w ? w + at : w, *const angles = cs ? cs + cs_at + at : cs;
    if (w && cs)
        fx_chunks_of_heads<true>(in, stride, there, first, heads, mine, angles, n, lanes, eps, sink);
    else
        fx_chunks_of_heads<false>(in, stride, there, first, heads, mine, angles, n, lanes, eps, sink);
}

/* Lanes per head of n values where these addresses, and strides in bf16 values or'ed together, allow chunks; else 0. */
static inline int fx_head_lanes(int n, uintptr_t addresses, int64_t strides, int64_t cs_stride)
{
    const int lanes = n / FX_HEAD_CHUNK;
    const bool ok = n % FX_HEAD_CHUNK == 0 && lanes > 0 && lanes <= FX_WARP && (lanes & (lanes - 1)) == 0 &&
                    addresses % 16 == 0 && strides % FX_HEAD_CHUNK == 0 && cs_stride % 4 == 0;
    return ok ? lanes : 0;
}

/* lanes = 2^n, or 0: n */
static inline int fx_lane_bits(int lanes)
{
    int bits = 0;
    while (1 << bits < lanes) bits++;
    return bits;
}

/* Groups of heads that a lane goes through. */
static inline fx_divisor fx_head_groups(int64_t heads)
{
    return fx_divide_by((heads + FX_HEAD_SHARING - 1) / FX_HEAD_SHARING);
}

#endif
