/* Elementwise work on token rows: gates, residual sums, activations, table lookup, and the merge of two attention
 * results. One thread per four neighbours (or per value where rows do not allow it). Contract: kernels/ops.h. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/slots.h"

namespace
{

enum { THREADS = 256 };

/* Where row i of a tensor of up to 5 dims begins: all dims but the last, row-major. */
struct row_map {
    int64_t size[FX_MAX_DIMS - 1], stride[FX_MAX_DIMS - 1];
    int dims;
};

row_map map_of(fx_tensor t)
{
    row_map m = {};
    m.dims = t.ndim - 1;
    for (int d = 0; d < m.dims; d++) m.size[d] = t.shape[d], m.stride[d] = t.stride[d];
    return m;
}

FX_DEVICE int64_t row_at(const row_map &m, int64_t i)
{
    int64_t at = 0;
    FX_UNROLL for (int d = FX_MAX_DIMS - 2; d >= 0; d--)
    {
        if (d >= m.dims) continue;
        at += i % m.size[d] * m.stride[d];
        i /= m.size[d];
    }
    return at;
}

struct mul_gate {
    const float *gate;
    FX_METHOD float operator()(float x, float y, int c) const { return x + gate[c] * y; }
};
struct mul_scalar {
    float a;
    FX_METHOD float operator()(float x, float y, int) const { return x + a * y; }
};

/* x = f(x, y, column) */
template <int V, class X, class Y, class F>
FX_KERNEL FX_BOUNDS(THREADS)
    update_kernel(X *x, row_map xm, const Y *y, row_map ym, int64_t packs, int packs_per_row, F f)
{
    const int64_t i = fx_cta() * THREADS + fx_tid();
    if (i >= packs) return;
    const int64_t row = i / packs_per_row;
    const int c = (int)(i % packs_per_row) * V;
    X *to = x + row_at(xm, row);
    fx_vec<V> p = fx_get_vec<V>(to, c);
    const fx_vec<V> q = fx_get_vec<V>(y + row_at(ym, row), c);
    FX_UNROLL for (int k = 0; k < V; k++) p.v[k] = f(p.v[k], q.v[k], c + k);
    fx_put_vec<V>(to, c, p);
}

fx_dim3 grid_for(int64_t items)
{
    return fx_dim3((unsigned)((items + THREADS - 1) / THREADS));
}

template <class X, class Y, class F> fx_status update(fx_backend *be, fx_tensor x, fx_tensor y, F f)
{
    const int64_t n = x.shape[x.ndim - 1], all = fx_numel(x);
    const row_map xm = map_of(x), ym = map_of(y);
    if (fx_in_packs(x) && fx_in_packs(y))
        return FX_LAUNCH(be, grid_for(all / 4), THREADS, 0, (update_kernel<4, X, Y, F>), (X *)x.data, xm,
                         (const Y *)y.data, ym, all / 4, (int)(n / 4), f);
    return FX_LAUNCH(be, grid_for(all), THREADS, 0, (update_kernel<1, X, Y, F>), (X *)x.data, xm,
                     (const Y *)y.data, ym, all, (int)n, f);
}

/* ---- y = act(x) [* b] ---- */

template <int V, class Y, class X, class B, bool GATED>
FX_KERNEL FX_BOUNDS(THREADS) act_kernel(Y *y, int64_t ys, const X *x, int64_t xs, const B *b, int64_t bs,
                                        int64_t packs, int packs_per_row, fx_act act)
{
    const int64_t i = fx_cta() * THREADS + fx_tid();
    if (i >= packs) return;
    const int64_t row = i / packs_per_row, c = i % packs_per_row * V;
    fx_vec<V> p = fx_get_vec<V>(x + row * xs, c);
    FX_UNROLL for (int k = 0; k < V; k++) p.v[k] = fx_act_apply(p.v[k], act);
    if (GATED) {
        const fx_vec<V> q = fx_get_vec<V>(b + row * bs, c);
        FX_UNROLL for (int k = 0; k < V; k++) p.v[k] *= q.v[k];
    }
    fx_put_vec<V>(y + row * ys, c, p);
}

template <int V, class Y, class X, class B>
fx_status act_packs(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor b, fx_act act)
{
    const int64_t n = x.shape[1] / V, packs = x.shape[0] * n;
    if (fx_present(b))
        return FX_LAUNCH(be, grid_for(packs), THREADS, 0, (act_kernel<V, Y, X, B, true>), (Y *)y.data,
                         y.stride[0], (const X *)x.data, x.stride[0], (const B *)b.data, b.stride[0], packs,
                         (int)n, act);
    return FX_LAUNCH(be, grid_for(packs), THREADS, 0, (act_kernel<V, Y, X, B, false>), (Y *)y.data,
                     y.stride[0], (const X *)x.data, x.stride[0], (const B *)nullptr, (int64_t)0, packs,
                     (int)n, act);
}

template <class Y, class X, class B>
fx_status act_rows(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor b, fx_act act)
{
    const bool packs = fx_in_packs(y) && fx_in_packs(x) && (!fx_present(b) || fx_in_packs(b));
    return packs ? act_packs<4, Y, X, B>(be, y, x, b, act) : act_packs<1, Y, X, B>(be, y, x, b, act);
}

template <class Y, class X>
fx_status act_any(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor b, fx_act act)
{
    if (fx_present(b) && b.dtype == FX_BF16) return act_rows<Y, X, uint16_t>(be, y, x, b, act);
    return act_rows<Y, X, float>(be, y, x, b, act);
}

fx_status act_of(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor b, fx_act act)
{
    if (y.dtype == FX_F32 && x.dtype == FX_F32) return act_any<float, float>(be, y, x, b, act);
    if (y.dtype == FX_F32) return act_any<float, uint16_t>(be, y, x, b, act);
    if (x.dtype == FX_F32) return act_any<uint16_t, float>(be, y, x, b, act);
    return act_any<uint16_t, uint16_t>(be, y, x, b, act);
}

/* ---- table lookup ---- */

template <class Y, class E>
FX_KERNEL FX_BOUNDS(THREADS)
    embed_kernel(Y *y, int64_t ys, const E *table, int64_t ts, const int32_t *ids, int64_t is, int n)
{
    const E *row = table + (int64_t)ids[fx_cta() * is] * ts;
    for (int c = fx_tid(); c < n; c += THREADS) fx_put(y + fx_cta() * ys, c, fx_get(row, c));
}

template <class Y, class E> fx_status embed(fx_backend *be, fx_tensor y, fx_tensor table, fx_tensor ids)
{
    return FX_LAUNCH(be, fx_dim3((unsigned)y.shape[0]), THREADS, 0, (embed_kernel<Y, E>), (Y *)y.data,
                     y.stride[0], (const E *)table.data, table.stride[0], (const int32_t *)ids.data,
                     ids.stride[0], (int)y.shape[1]);
}

/* ---- attention over two key sets: a warp per head of a token ---- */

struct merge_args {
    float *o, *lse;
    const void *o2;
    const float *lse2;
    int64_t o_token, o_head, o2_token, o2_head, lse_head, lse_token, lse2_head, lse2_token, heads, items;
    int n;
};

enum { HEADS_PER_CTA = THREADS / FX_WARP };

template <int V, class Y> FX_KERNEL FX_BOUNDS(THREADS) merge_kernel(merge_args a)
{
    const int64_t item = fx_cta() * HEADS_PER_CTA + fx_tid() / FX_WARP;
    if (item >= a.items) return;
    const int64_t token = item / a.heads, head = item % a.heads;
    const int lane = fx_tid() % FX_WARP;
    float *o = a.o + token * a.o_token + head * a.o_head,
          *lse = a.lse + head * a.lse_head + token * a.lse_token;
    const Y *o2 = (const Y *)a.o2 + token * a.o2_token + head * a.o2_head;
    const float l = *lse, l2 = a.lse2[head * a.lse2_head + token * a.lse2_token];
    (void)fx_swap_xor(0, 1); /* every lane has read lse before lane 0 writes it */
    const float top = l > l2 || l != l ? l : l2;
    if (top == -INFINITY) return; /* both without keys: o stays 0 */
    const float u = expf(l - top), v = expf(l2 - top), sum = u + v;
    for (int c = lane * V; c < a.n; c += FX_WARP * V) {
        fx_vec<V> p = fx_get_vec<V>(o, c);
        const fx_vec<V> q = fx_get_vec<V>(o2, c);
        FX_UNROLL for (int k = 0; k < V; k++) p.v[k] = p.v[k] * (u / sum) + q.v[k] * (v / sum);
        fx_put_vec<V>(o, c, p);
    }
    if (lane == 0) *lse = top + logf(sum);
}

template <class Y> fx_status merge(fx_backend *be, const merge_args &a, bool packs)
{
    const fx_dim3 grid((unsigned)((a.items + HEADS_PER_CTA - 1) / HEADS_PER_CTA));
    return packs ? FX_LAUNCH(be, grid, THREADS, 0, (merge_kernel<4, Y>), a)
                 : FX_LAUNCH(be, grid, THREADS, 0, (merge_kernel<1, Y>), a);
}

} // namespace

extern "C" fx_status FX_SLOT(gate_add)(fx_backend *be, fx_tensor x, fx_tensor gate, fx_tensor y)
{
    const mul_gate f = {(const float *)gate.data};
    return y.dtype == FX_F32 ? update<float, float>(be, x, y, f) : update<float, uint16_t>(be, x, y, f);
}

extern "C" fx_status FX_SLOT(axpy)(fx_backend *be, fx_tensor x, fx_tensor y, float a)
{
    const mul_scalar f = {a};
    if (x.dtype == FX_F32 && y.dtype == FX_F32) return update<float, float>(be, x, y, f);
    if (x.dtype == FX_F32) return update<float, uint16_t>(be, x, y, f);
    if (y.dtype == FX_F32) return update<uint16_t, float>(be, x, y, f);
    return update<uint16_t, uint16_t>(be, x, y, f);
}

extern "C" fx_status FX_SLOT(activate)(fx_backend *be, fx_tensor y, fx_tensor x, fx_act act)
{
    return act_of(be, y, x, fx_none(), act);
}

extern "C" fx_status FX_SLOT(glu)(fx_backend *be, fx_tensor y, fx_tensor a, fx_tensor b, fx_act act)
{
    return act_of(be, y, a, b, act);
}

extern "C" fx_status FX_SLOT(embed)(fx_backend *be, fx_tensor y, fx_tensor table, fx_tensor ids)
{
    if (y.dtype == FX_F32 && table.dtype == FX_F32) return embed<float, float>(be, y, table, ids);
    if (y.dtype == FX_F32) return embed<float, uint16_t>(be, y, table, ids);
    if (table.dtype == FX_F32) return embed<uint16_t, float>(be, y, table, ids);
    return embed<uint16_t, uint16_t>(be, y, table, ids);
}

extern "C" fx_status FX_SLOT(attention_merge)(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor o2,
                                              fx_tensor lse2)
{
    const merge_args a = {(float *)o.data, (float *)lse.data,
                          o2.data,         (const float *)lse2.data,
                          o.stride[0],     o.stride[1],
                          o2.stride[0],    o2.stride[1],
                          lse.stride[0],   lse.stride[1],
                          lse2.stride[0],  lse2.stride[1],
                          o.shape[1],      o.shape[0] * o.shape[1],
                          (int)o.shape[2]};
    const bool packs = fx_in_packs(o) && fx_in_packs(o2);
    return o2.dtype == FX_F32 ? merge<float>(be, a, packs) : merge<uint16_t>(be, a, packs);
}
