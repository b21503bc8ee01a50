/* One double stream block: text rows and image rows have weights of their own and meet in attention.
 * Called by dit.c for each of the first blocks of a step. Source: FluxTransformerBlock of diffusers. */
#include "runtime/dit/dit.h"

/* normed -> q, k and v of one stream. What was put stays until attention. */
static fx_status put_qkv(fx_dit *d, int segment, const fx_stream_weights *w, fx_tensor mod, fx_tensor x)
{
    fx_backend *be = d->be;
    const int64_t C = d->cfg->hidden, T = x.shape[0];
    const fx_tensor cs = fx_rows(d->cs, fx_layout_local_start(d->layout, d->rank, segment), T);
    fx_qkv_rows rows;
    fx_tensor h;
    FX_TRY(fx_dit_push_qkv(d, segment, &w->qkv, T, &rows));
    const size_t mark = fx_mark(be->arena);
    FX_TRY(fx_push2(be->arena, be->dtype, T, C, &h));
    FX_TRY(fx_dit_norm(d, segment, h, x, fx_mod_chunk(mod, 0, C), fx_mod_chunk(mod, 1, C)));
    FX_TRY(fx_dit_put_qkv(d, segment, &w->qkv, &rows, h, cs));
    fx_rewind(be->arena, mark);
    return FX_OK;
}

/* The rest of the block for one stream: x += gate * out(attention rows), then the MLP, whose x += gate * mlp(normed x) is left
 * to the next norm of these rows. */
static fx_status finish(fx_dit *d, int segment, const fx_stream_weights *w, fx_tensor mod, fx_tensor o)
{
    fx_backend *be = d->be;
    const int64_t C = d->cfg->hidden, begin = fx_layout_local_start(d->layout, d->rank, segment),
                  T = o.shape[0];
    const fx_tensor x = fx_rows(d->x, begin, T), branch = fx_rows(d->branch, begin, T);
    const size_t mark = fx_mark(be->arena);
    fx_tensor h, m;
    FX_TRY(fx_push2(be->arena, be->dtype, T, C, &h));
    FX_TRY(fx_push2(be->arena, be->dtype, T, d->cfg->mlp, &m));
    FX_TRY(fx_dense_apply(be, branch, o, &w->out, FX_ACT_NONE));
    d->owed[segment] = (fx_debt){fx_mod_chunk(mod, 2, C), branch};
    FX_TRY(fx_dit_norm(d, segment, h, x, fx_mod_chunk(mod, 3, C), fx_mod_chunk(mod, 4, C)));
    FX_TRY(fx_dense_apply(be, m, h, &w->mlp_in, FX_ACT_GELU_TANH));
    FX_TRY(fx_dense_apply(be, branch, m, &w->mlp_out, FX_ACT_NONE));
    d->owed[segment] = (fx_debt){fx_mod_chunk(mod, 5, C), branch};
    fx_rewind(be->arena, mark);
    return FX_OK;
}

fx_status fx_double_block(fx_dit *d, int block)
{
    const fx_double_weights *w = &d->w->double_blocks[block];
    const fx_tensor mod_txt = d->mod.txt[block], mod_img = d->mod.img[block];
    const fx_tensor txt = fx_rows(d->x, 0, d->text_rows), img = fx_rows(d->x, d->text_rows, d->image_rows);
    const fx_tensor o = fx_cols(d->wide, 0, d->cfg->hidden);
    const size_t mark = fx_mark(d->be->arena);
    /* The image's many rows travel while the text's few are computed, on the way there and on the way back. */
    FX_TRY(put_qkv(d, FX_IMAGE, &w->img, mod_img, img));
    FX_TRY(put_qkv(d, FX_TEXT, &w->txt, mod_txt, txt));
    FX_TRY(fx_exchange_attend(d->exchange, true));
    fx_rewind(d->be->arena, mark);
    FX_TRY(fx_exchange_collect(d->exchange, FX_TEXT));
    FX_TRY(finish(d, FX_TEXT, &w->txt, mod_txt, fx_rows(o, 0, d->text_rows)));
    FX_TRY(fx_exchange_collect(d->exchange, FX_ALL));
    return finish(d, FX_IMAGE, &w->img, mod_img, fx_rows(o, d->text_rows, d->image_rows));
}
