/* One single stream block: text and image rows share weights; attention and MLP run side by side and meet in one output
 * matrix. The MLP is independent of attention, so both exchanges hide behind it: rows of q, k and v travel while two thirds of
 * its columns are computed, attention's output while the rest is. Called by dit.c after the double blocks. Source:
 * FluxSingleTransformerBlock of diffusers. */
#include "runtime/dit/dit.h"

/* One part of the MLP's columns of the block's output matrix. */
static fx_status mlp_part(fx_dit *d, const fx_dense *in, fx_tensor h, int64_t begin)
{
    return fx_dense_apply(d->be, fx_cols(d->wide, d->cfg->hidden + begin, in->w.n), h, in, FX_ACT_GELU_TANH);
}

fx_status fx_single_block(fx_dit *d, int block)
{
    fx_backend *be = d->be;
    const fx_single_weights *w = &d->w->single_blocks[block];
    const fx_tensor x = d->x, mod = d->mod.single[block];
    const int64_t C = d->cfg->hidden, T = x.shape[0];
    const size_t mark = fx_mark(be->arena);
    fx_tensor h, kv, q;
    FX_TRY(fx_push2(be->arena, be->dtype, T, C, &h));
    FX_TRY(fx_dit_push_parts(d, FX_ALL, FX_K | FX_V, T, &kv));
    FX_TRY(fx_dit_push_parts(d, FX_ALL, FX_Q, T, &q));

    FX_TRY(fx_dit_norm(d, FX_ALL, h, x, fx_mod_chunk(mod, 0, C), fx_mod_chunk(mod, 1, C)));
    FX_TRY(fx_dense_apply(be, kv, h, &w->qkv.kv, FX_ACT_NONE));
    fx_exchange_beside(d->exchange);
    FX_TRY(fx_exchange_put(d->exchange, FX_ALL, FX_K | FX_V, kv, fx_none(), w->qkv.norm_k, d->cs));
    FX_TRY(fx_dense_apply(be, q, h, &w->qkv.q, FX_ACT_NONE));
    FX_TRY(fx_exchange_put(d->exchange, FX_ALL, FX_Q, q, w->qkv.norm_q, fx_none(), d->cs));
    FX_TRY(mlp_part(d, &w->mlp_in[0], h, 0));
    FX_TRY(fx_exchange_attend(d->exchange, false));
    FX_TRY(mlp_part(d, &w->mlp_in[1], h, w->mlp_in[0].w.n));
    FX_TRY(fx_exchange_collect(d->exchange, FX_ALL));
    FX_TRY(fx_dense_apply(be, d->branch, d->wide, &w->out, FX_ACT_NONE)); /* columns attention | mlp */
    d->owed[FX_ALL] = (fx_debt){fx_mod_chunk(mod, 2, C), d->branch};      /* paid by the next norm */
    fx_rewind(be->arena, mark);
    return FX_OK;
}
