/* One single stream block: text and image rows share weights; attention and MLP run side by side and meet in one output
 * matrix. The MLP does not depend on attention: rows of q, k and v travel beside it. Transfers hide behind two thirds of its
 * columns, and attention's output behind the rest; otherwise it is one product, and the output is brought by a kernel. Called by
 * dit.c after the double blocks. Source: FluxSingleTransformerBlock of diffusers. */
#include "runtime/dit/dit.h"

/* The MLP's columns of the block's output matrix: of one part, or of both while they need not be apart. */
static fx_status mlp(fx_dit *d, const fx_dense_pair *in, fx_tensor h, int part)
{
    const int64_t C = d->cfg->hidden;
    if (fx_dit_at_once(d, in)) {
        if (part == 1) return FX_OK;
        return fx_dense_apply(d->be, fx_cols(d->wide, C, d->cfg->mlp), h, &in->whole, FX_ACT_GELU_TANH);
    }
    const fx_tensor y = fx_cols(d->wide, C + (part ? in->n[0] : 0), in->n[part]);
    return fx_dense_apply_part(d->be, y, h, in, part, FX_ACT_GELU_TANH);
}

fx_status fx_single_block(fx_dit *d, int block)
{
    fx_backend *be = d->be;
    const fx_single_weights *w = &d->w->single_blocks[block];
    const fx_tensor x = d->x, mod = d->mod.single[block];
    const int64_t C = d->cfg->hidden, T = x.shape[0];
    const size_t mark = fx_mark(be->arena);
    fx_qkv_rows rows;
    fx_tensor h;
    FX_TRY(fx_push2(be->arena, be->dtype, T, C, &h));
    FX_TRY(fx_dit_push_qkv(d, FX_ALL, &w->qkv, T, &rows));

    FX_TRY(fx_dit_norm(d, FX_ALL, h, x, fx_mod_chunk(mod, 0, C), fx_mod_chunk(mod, 1, C)));
    fx_exchange_beside(d->exchange);
    FX_TRY(fx_dit_put_qkv(d, FX_ALL, &w->qkv, &rows, h, d->cs));
    FX_TRY(mlp(d, &w->mlp_in, h, 0));
    FX_TRY(fx_exchange_attend(d->exchange, false));
    FX_TRY(mlp(d, &w->mlp_in, h, 1));
    FX_TRY(fx_exchange_collect(d->exchange, FX_ALL));
    FX_TRY(fx_dense_apply(be, d->branch, d->wide, &w->out, FX_ACT_NONE)); /* columns attention | mlp */
    d->owed[FX_ALL] = (fx_debt){fx_mod_chunk(mod, 2, C), d->branch};      /* paid by the next norm */
    fx_rewind(be->arena, mark);
    return FX_OK;
}
