/* One single stream block: text and image rows share weights; attention and MLP run side by side and meet in
 * one output matrix. The MLP half is independent of attention, so the exchanges hide behind it. Called by
 * dit.c after the double blocks. Source: FluxSingleTransformerBlock of diffusers. */
#include "runtime/dit/dit.h"

static const float norm_eps = 1e-6f;

fx_status fx_single_block(fx_dit *d, int block, int step)
{
    fx_backend *be = d->be;
    const fx_single_weights *w = &d->w->single_blocks[block];
    const fx_tensor x = d->x, mod = d->mod.single[block];
    const int64_t C = d->cfg->hidden, T = x.shape[0];
    const size_t mark = fx_mark(be->arena);
    fx_tensor h, kv, q, wide;
    FX_TRY(fx_push2(be->arena, be->dtype, T, C, &h));
    FX_TRY(fx_push2(be->arena, be->dtype, T, 2 * C, &kv));
    FX_TRY(fx_push2(be->arena, be->dtype, T, C, &q));
    FX_TRY(fx_push2(be->arena, be->dtype, T, C + d->cfg->mlp, &wide)); /* columns attention | mlp */

    FX_TRY(fx_norm_mod(be, h, x, fx_mod_chunk(mod, step, 0, C), fx_mod_chunk(mod, step, 1, C), norm_eps));
    FX_TRY(fx_dense_apply(be, kv, h, &w->qkv.kv, FX_ACT_NONE));
    FX_TRY(fx_exchange_put(d->exchange, FX_ALL, FX_K | FX_V, kv, fx_none(), w->qkv.norm_k, d->cs));
    FX_TRY(fx_dense_apply(be, q, h, &w->qkv.q, FX_ACT_NONE));
    FX_TRY(fx_exchange_put(d->exchange, FX_ALL, FX_Q, q, w->qkv.norm_q, fx_none(), d->cs));
    /* The Q exchange travels while the MLP half is computed, the output exchange after attention. */
    FX_TRY(fx_dense_apply(be, fx_cols(wide, C, d->cfg->mlp), h, &w->mlp_in, FX_ACT_GELU_TANH));
    FX_TRY(fx_exchange_attend(d->exchange));
    FX_TRY(fx_exchange_collect(d->exchange, fx_cols(wide, 0, C)));
    FX_TRY(fx_dense_apply(be, h, wide, &w->out, FX_ACT_NONE));
    FX_TRY(fx_gate_add(be, x, fx_mod_chunk(mod, step, 2, C), h));
    fx_rewind(be->arena, mark);
    return FX_OK;
}
