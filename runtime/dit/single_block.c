/* One single stream block: text and image rows share weights; attention and MLP run side by side and meet in one output
 * matrix. The MLP is independent of attention, so both exchanges hide behind it: Q travels while one half of its rows is
 * computed, the output while the other is. Called by dit.c after the double blocks. Source: FluxSingleTransformerBlock of
 * diffusers. */
#include "runtime/dit/dit.h"

/* Rows of the MLP's columns of the block's output matrix. */
static fx_status mlp_rows(fx_dit *d, const fx_dense *in, fx_tensor h, fx_tensor m, int64_t begin,
                          int64_t count)
{
    return fx_dense_apply(d->be, fx_rows(m, begin, count), fx_rows(h, begin, count), in, FX_ACT_GELU_TANH);
}

fx_status fx_single_block(fx_dit *d, int block)
{
    fx_backend *be = d->be;
    const fx_single_weights *w = &d->w->single_blocks[block];
    const fx_tensor x = d->x, mod = d->mod.single[block];
    const int64_t C = d->cfg->hidden, T = x.shape[0];
    const size_t mark = fx_mark(be->arena);
    const int64_t early = fx_comm_size(d->comm) > 1 ? T / 2 : T; /* rows; alone there is nothing to hide */
    fx_tensor h, kv, q, wide;
    FX_TRY(fx_push2(be->arena, be->dtype, T, C, &h));
    FX_TRY(fx_dit_push_parts(d, FX_ALL, FX_K | FX_V, T, &kv));
    FX_TRY(fx_dit_push_parts(d, FX_ALL, FX_Q, T, &q));
    FX_TRY(fx_push2(be->arena, be->dtype, T, C + d->cfg->mlp, &wide)); /* columns attention | mlp */
    const fx_tensor m = fx_cols(wide, C, d->cfg->mlp);

    FX_TRY(fx_dit_norm(d, FX_ALL, h, x, fx_mod_chunk(mod, 0, C), fx_mod_chunk(mod, 1, C)));
    FX_TRY(fx_dense_apply(be, kv, h, &w->qkv.kv, FX_ACT_NONE));
    FX_TRY(fx_exchange_put(d->exchange, FX_ALL, FX_K | FX_V, kv, fx_none(), w->qkv.norm_k, d->cs));
    FX_TRY(fx_dense_apply(be, q, h, &w->qkv.q, FX_ACT_NONE));
    FX_TRY(fx_exchange_put(d->exchange, FX_ALL, FX_Q, q, w->qkv.norm_q, fx_none(), d->cs));
    FX_TRY(mlp_rows(d, &w->mlp_in, h, m, 0, early));
    FX_TRY(fx_exchange_attend(d->exchange, false));
    FX_TRY(mlp_rows(d, &w->mlp_in, h, m, early, T - early));
    FX_TRY(fx_exchange_collect(d->exchange, FX_ALL, fx_cols(wide, 0, C)));
    FX_TRY(fx_dense_apply(be, d->branch, wide, &w->out, FX_ACT_NONE));
    d->owed[FX_ALL] = (fx_debt){fx_mod_chunk(mod, 2, C), d->branch}; /* paid by the next norm */
    fx_rewind(be->arena, mark);
    return FX_OK;
}
