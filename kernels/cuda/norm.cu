/* Row normalisation: layer norm (plain and modulated), RMS norm; the per-head RMS norm + rotation of q and k. Norms: a CTA
 * per row, the row in registers between the two passes where it fits (to 4096 channels), else read again. Heads: a warp per
 * head of a token; where a head is 8, 16, ... 256 values that lie in chunks, a lane takes 8 of them and its neighbours the
 * rest, for a few heads that share the token's rotation. Contract: kernels/ops.h. */
#include "kernels/cuda/heads.cuh"
#include "kernels/cuda/slots.h"

namespace
{

enum { THREADS = 256, KEPT = 16 }; /* values of a row that a thread keeps */

template <class Y, class X> struct norm_args {
    Y *y;
    const X *x;
    const float *w, *b; /* rms: b unused */
    int64_t y_stride, x_stride;
    int n;
    float one, eps; /* y = normed * (w + one) + b */
    bool centred;   /* layer norm; else RMS norm */
};

template <int V, class X> FX_DEVICE float sum_of(const X *row, int n, float centre, bool squares)
{
    float sum = 0;
    for (int i = fx_tid() * V; i < n; i += THREADS * V) {
        const fx_vec<V> p = fx_get_vec<V>(row, i);
        FX_UNROLL for (int k = 0; k < V; k++)
        {
            const float d = p.v[k] - centre;
            sum += squares ? d * d : d;
        }
    }
    return sum;
}

template <int V, class Y, class X>
FX_DEVICE void scale_pack(const norm_args<Y, X> &a, Y *out, int i, const fx_vec<V> &x, float mean,
                          float inverse)
{
    fx_vec<V> w = fx_get_vec<V>(a.w, i), r;
    FX_UNROLL for (int k = 0; k < V; k++) r.v[k] = (x.v[k] - mean) * inverse * (w.v[k] + a.one);
    if (a.centred) {
        const fx_vec<V> b = fx_get_vec<V>(a.b, i);
        FX_UNROLL for (int k = 0; k < V; k++) r.v[k] += b.v[k];
    }
    fx_put_vec<V>(out, i, r);
}

/* What is added to the rows first, and stays there: x += gate * y. */
struct gate_args {
    float *x;
    const uint16_t *y;
    const float *gate;
    int64_t y_stride;
};

template <int V> FX_DEVICE fx_vec<V> add_gated(const gate_args &g, int64_t x_stride, int i, fx_vec<V> x)
{
    const fx_vec<V> y = fx_get_vec<V>(g.y + fx_cta() * g.y_stride, i), gate = fx_get_vec<V>(g.gate, i);
    FX_UNROLL for (int k = 0; k < V; k++) x.v[k] += gate.v[k] * y.v[k];
    fx_put_vec<V>(g.x + fx_cta() * x_stride, i, x);
    return x;
}

/* KEEP: the row fits KEPT values per thread. GATED: with KEEP. */
template <int V, bool KEEP, bool GATED, class Y, class X>
FX_KERNEL FX_BOUNDS(THREADS) norm_kernel(norm_args<Y, X> a, gate_args g)
{
    enum { PACKS = KEEP ? KEPT / V : 1 };
    float *part = fx_shared<float>();
    const X *row = a.x + fx_cta() * a.x_stride;
    Y *out = a.y + fx_cta() * a.y_stride;
    fx_vec<V> kept[PACKS];
    float mean = 0, sum = 0;
    if constexpr (KEEP) FX_UNROLL for (int j = 0; j < PACKS; j++)
        {
            const int i = (fx_tid() + j * THREADS) * V;
            if (i < a.n) kept[j] = fx_get_vec<V>(row, i);
            if constexpr (GATED)
                if (i < a.n) kept[j] = add_gated<V>(g, a.x_stride, i, kept[j]);
        }
    if (a.centred) {
        if constexpr (KEEP) {
            FX_UNROLL for (int j = 0; j < PACKS; j++) if ((fx_tid() + j * THREADS) * V < a.n)
                FX_UNROLL for (int k = 0; k < V; k++) sum += kept[j].v[k];
        } else {
            sum = sum_of<V>(row, a.n, 0, false);
        }
        mean = fx_cta_sum<THREADS>(sum, part) / (float)a.n;
        sum = 0;
    }
    if constexpr (KEEP) {
        FX_UNROLL for (int j = 0; j < PACKS; j++) if ((fx_tid() + j * THREADS) * V < a.n)
            FX_UNROLL for (int k = 0; k < V; k++) sum += (kept[j].v[k] - mean) * (kept[j].v[k] - mean);
    } else {
        sum = sum_of<V>(row, a.n, mean, true);
    }
    const float inverse = fx_rsqrt(fx_cta_sum<THREADS>(sum, part) / (float)a.n + a.eps);
    if constexpr (KEEP) {
        FX_UNROLL for (int j = 0; j < PACKS; j++)
        {
            const int i = (fx_tid() + j * THREADS) * V;
            if (i < a.n) scale_pack<V>(a, out, i, kept[j], mean, inverse);
        }
    } else {
        for (int i = fx_tid() * V; i < a.n; i += THREADS * V)
            scale_pack<V>(a, out, i, fx_get_vec<V>(row, i), mean, inverse);
    }
}

template <int V, class Y, class X>
fx_status launch_norm(fx_backend *be, int64_t rows, const norm_args<Y, X> &a)
{
    const fx_dim3 grid((unsigned)rows);
    const size_t shared = THREADS / FX_WARP * sizeof(float);
    if (a.n <= KEPT * THREADS)
        return FX_LAUNCH(be, grid, THREADS, shared, (norm_kernel<V, true, false, Y, X>), a, gate_args());
    return FX_LAUNCH(be, grid, THREADS, shared, (norm_kernel<V, false, false, Y, X>), a, gate_args());
}

template <class Y, class X>
fx_status norm_rows(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor b, float one, float eps,
                    bool centred)
{
    norm_args<Y, X> a = {(Y *)y.data,
                         (const X *)x.data,
                         (const float *)w.data,
                         fx_present(b) ? (const float *)b.data : nullptr,
                         y.stride[0],
                         x.stride[0],
                         (int)x.shape[1],
                         one,
                         eps,
                         centred};
    const bool packs =
        fx_in_packs(y) && fx_in_packs(x) && fx_in_packs(w) && (!fx_present(b) || fx_in_packs(b));
    return packs ? launch_norm<4>(be, x.shape[0], a) : launch_norm<1>(be, x.shape[0], a);
}

fx_status norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor b, float one, float eps,
               bool centred)
{
    if (y.dtype == FX_F32 && x.dtype == FX_F32)
        return norm_rows<float, float>(be, y, x, w, b, one, eps, centred);
    if (y.dtype == FX_F32) return norm_rows<float, uint16_t>(be, y, x, w, b, one, eps, centred);
    if (x.dtype == FX_F32) return norm_rows<uint16_t, float>(be, y, x, w, b, one, eps, centred);
    return norm_rows<uint16_t, uint16_t>(be, y, x, w, b, one, eps, centred);
}

/* ---- q and k ---- */

template <class E> struct rope_args {
    E *y;
    const E *x;
    const float *w, *cs;                                              /* or null */
    int64_t y_token, y_head, x_token, x_head, cs_token, heads, items; /* items = tokens * heads */
    int n;
    float eps;
};

enum { HEADS_PER_CTA = 8, CHUNK_THREADS = 128 };

/* Where rows in this rank's memory take a head. */
template <class E> struct near_head {
    E *out;
    FX_METHOD void pair(int i, float u, float v) const
    {
        fx_put(out, i, u);
        fx_put(out, i + 1, v);
    }
    FX_METHOD void last(int i, float u) const { fx_put(out, i, u); }
};
struct near_chunks {
    uint16_t *out;
    int64_t stride;
    FX_METHOD void chunk(int h, const fx_head_chunk &c) const { *(fx_head_chunk *)(out + h * stride) = c; }
};

template <class E> FX_KERNEL FX_BOUNDS(HEADS_PER_CTA *FX_WARP) rope_kernel(rope_args<E> a)
{
    const int64_t item = fx_cta() * HEADS_PER_CTA + fx_tid() / FX_WARP;
    if (item >= a.items) return; /* a whole warp */
    const int64_t token = item / a.heads, head = item % a.heads;
    const near_head<E> sink = {a.y + token * a.y_token + head * a.y_head};
    fx_head_by_warp(a.x + token * a.x_token + head * a.x_head, a.w,
                    a.cs ? a.cs + token * a.cs_token : nullptr, a.n, a.eps, sink);
}

/* items: tokens * parts of FX_HEAD_SHARING heads. Lanes past the end go along for the sums. */
FX_KERNEL FX_BOUNDS(CHUNK_THREADS)
    rope_chunk_kernel(rope_args<uint16_t> a, int lanes, int lane_bits, fx_divisor parts)
{
    const int at = (fx_tid() & (lanes - 1)) * FX_HEAD_CHUNK;
    const unsigned item =
        (unsigned)fx_cta() * (CHUNK_THREADS >> lane_bits) + (unsigned)(fx_tid() >> lane_bits);
    const bool there = item < a.items;
    const unsigned mine = there ? item : 0, token = fx_over(parts, mine),
                   first = (mine - token * parts.by) * FX_HEAD_SHARING;
    const near_chunks sink = {a.y + token * a.y_token + first * a.y_head + at, a.y_head};
    fx_heads_in_chunks(a.x + token * a.x_token + first * a.x_head + at, a.x_head, there, first,
                       (unsigned)a.heads, a.w, a.cs, token * a.cs_token, at, a.n, lanes, a.eps, sink);
}

int chunk_lanes(const rope_args<uint16_t> &a)
{
    const uintptr_t addresses = (uintptr_t)a.y | (uintptr_t)a.x | (uintptr_t)a.w | (uintptr_t)a.cs;
    return fx_divides(fx_head_groups(a.heads), a.items)
               ? fx_head_lanes(a.n, addresses, a.y_token | a.y_head | a.x_token | a.x_head, a.cs_token)
               : 0;
}

int chunk_lanes(const rope_args<float> &)
{
    return 0;
}

fx_status rope_chunks(fx_backend *be, rope_args<uint16_t> a, int lanes)
{
    const fx_divisor parts = fx_head_groups(a.heads);
    a.items = a.items / a.heads * parts.by;
    const fx_dim3 grid((unsigned)((a.items * lanes + CHUNK_THREADS - 1) / CHUNK_THREADS));
    return FX_LAUNCH(be, grid, CHUNK_THREADS, 0, rope_chunk_kernel, a, lanes, fx_lane_bits(lanes), parts);
}

fx_status rope_chunks(fx_backend *, const rope_args<float> &, int)
{
    return FX_OK; /* never: see chunk_lanes */
}

template <class E>
fx_status rope(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor cs, float eps)
{
    const bool turned = fx_present(cs);
    const rope_args<E> a = {(E *)y.data,
                            (const E *)x.data,
                            fx_present(w) ? (const float *)w.data : nullptr,
                            turned ? (const float *)cs.data : nullptr,
                            y.stride[0],
                            y.stride[1],
                            x.stride[0],
                            x.stride[1],
                            turned ? cs.stride[0] : 0,
                            x.shape[1],
                            x.shape[0] * x.shape[1],
                            (int)x.shape[2],
                            eps};
    if (const int lanes = chunk_lanes(a)) return rope_chunks(be, a, lanes);
    const fx_dim3 grid((unsigned)((a.items + HEADS_PER_CTA - 1) / HEADS_PER_CTA));
    return FX_LAUNCH(be, grid, HEADS_PER_CTA * FX_WARP, 0, rope_kernel<E>, a);
}

} // namespace

extern "C" fx_status FX_SLOT(norm_mod)(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor shift,
                                       fx_tensor scale, float eps)
{
    return norm(be, y, x, scale, shift, 1.0f, eps, true);
}

extern "C" fx_status FX_SLOT(gate_norm)(fx_backend *be, fx_tensor h, fx_tensor x, fx_tensor gate, fx_tensor y,
                                        fx_tensor shift, fx_tensor scale, float eps)
{
    const bool one_pass = x.dtype == FX_F32 && y.dtype == FX_BF16 && h.dtype == FX_BF16 &&
                          x.shape[1] <= KEPT * THREADS && fx_in_packs(h) && fx_in_packs(x) &&
                          fx_in_packs(y) && fx_in_packs(gate) && fx_in_packs(shift) && fx_in_packs(scale);
    if (!one_pass) {
        FX_TRY(FX_SLOT(gate_add)(be, x, gate, y));
        return FX_SLOT(norm_mod)(be, h, x, shift, scale, eps);
    }
    const norm_args<uint16_t, float> a = {(uint16_t *)h.data,
                                          (const float *)x.data,
                                          (const float *)scale.data,
                                          (const float *)shift.data,
                                          h.stride[0],
                                          x.stride[0],
                                          (int)x.shape[1],
                                          1.0f,
                                          eps,
                                          true};
    const gate_args g = {(float *)x.data, (const uint16_t *)y.data, (const float *)gate.data, y.stride[0]};
    return FX_LAUNCH(be, fx_dim3((unsigned)x.shape[0]), THREADS, THREADS / FX_WARP * sizeof(float),
                     (norm_kernel<4, true, true, uint16_t, float>), a, g);
}

extern "C" fx_status FX_SLOT(layer_norm)(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor b,
                                         float eps)
{
    return norm(be, y, x, w, b, 0.0f, eps, true);
}

extern "C" fx_status FX_SLOT(rms_norm)(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, float eps)
{
    return norm(be, y, x, w, fx_none(), 0.0f, eps, false);
}

extern "C" fx_status FX_SLOT(qk_norm_rope)(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w,
                                           fx_tensor cs, float eps)
{
    return x.dtype == FX_F32 ? rope<float>(be, y, x, w, cs, eps) : rope<uint16_t>(be, y, x, w, cs, eps);
}
