/* The transformer's frame: embed, double blocks, single blocks, final layer, over this rank's rows.
 * Called by the pipeline once per denoise step. Source: FluxTransformer2DModel.forward of diffusers. */
#include "runtime/dit/dit.h"

#include <stdio.h>

static const float norm_eps = 1e-6f;

fx_status fx_dit_open(const fx_dit_config *cfg, const fx_dit_weights *w, fx_backend *be, fx_comm *comm,
                      const fx_layout *layout, const fx_dit_options *opt, fx_dit *out)
{
    const int rank = fx_comm_rank(comm);
    const fx_range *mine = layout->part[rank];
    *out = (fx_dit){.cfg = cfg,
                    .w = w,
                    .be = be,
                    .comm = comm,
                    .layout = layout,
                    .rank = rank,
                    .steps = opt->steps,
                    .text_rows = mine[FX_TEXT].count,
                    .image_rows = mine[FX_IMAGE].count};
    const int64_t rows = out->text_rows + out->image_rows;
    FX_TRY(fx_push2(be->arena, be->stream, rows, cfg->hidden, &out->x));
    FX_TRY(fx_push2(be->arena, be->dtype, rows, cfg->hidden, &out->branch));
    FX_TRY(fx_push2(be->arena, be->dtype, rows, cfg->hidden + cfg->mlp, &out->wide));
    FX_TRY(fx_push2(be->arena, be->stream, out->text_rows, cfg->hidden, &out->context));
    FX_TRY(fx_push3(be->arena, FX_F32, rows, cfg->head_dim / 2, 2, &out->cs));
    FX_TRY(fx_rope_fill(out, opt->grid_width));
    FX_TRY(fx_mod_open(out));
    const fx_exchange_options exchange = {.mesh = opt->mesh,
                                          .exact = opt->exact,
                                          .by_kernels = opt->by_kernels,
                                          .heads = (int)cfg->heads,
                                          .head_dim = (int)cfg->head_dim,
                                          .qk_eps = norm_eps,
                                          .output = fx_cols(out->wide, 0, cfg->hidden)};
    return fx_exchange_open(be, comm, layout, &exchange, &out->exchange);
}

void fx_dit_close(fx_dit *d)
{
    fx_exchange_close(&d->exchange);
    fx_mod_close(d);
}

/* y[T,C] = x[T,K] W^T + b where x is stream and the matmul reads dtype. */
static fx_status embed_rows(fx_dit *d, const fx_dense *dense, fx_tensor x, fx_tensor y)
{
    fx_tensor in;
    const size_t mark = fx_mark(d->be->arena);
    FX_TRY(fx_push2(d->be->arena, d->be->dtype, x.shape[0], x.shape[1], &in));
    FX_TRY(fx_copy(d->be, in, x, 1, 0));
    FX_TRY(fx_dense_apply(d->be, y, in, dense, FX_ACT_NONE));
    fx_rewind(d->be->arena, mark);
    return FX_OK;
}

fx_status fx_dit_prepare(fx_dit *d, fx_tensor t5, fx_tensor pooled, const float *sigma, double guidance)
{
    const fx_range text = d->layout->part[d->rank][FX_TEXT];
    FX_TRY(embed_rows(d, &d->w->context_embed, fx_rows(t5, text.begin, text.count), d->context));
    return fx_mod_fill(d, pooled, sigma, guidance);
}

/* ---- q, k and v ---- */

bool fx_dit_at_once(const fx_dit *d, const fx_dense_pair *pair)
{
    return pair->whole.w.n && !fx_exchange_hides(d->exchange);
}

static fx_status push_parts(fx_dit *d, int segment, unsigned parts, int64_t n, int64_t rows, fx_tensor *out)
{
    *out = fx_exchange_place(d->exchange, segment, parts);
    if (fx_present(*out)) return FX_OK;
    return fx_push2(d->be->arena, d->be->dtype, rows, n * d->cfg->hidden, out);
}

fx_status fx_dit_push_qkv(fx_dit *d, int segment, const fx_qkv_weights *w, int64_t rows, fx_qkv_rows *out)
{
    *out = (fx_qkv_rows){.q = fx_none(), .kv = fx_none(), .all = fx_none()};
    if (fx_dit_at_once(d, &w->q_kv)) return push_parts(d, segment, FX_Q | FX_K | FX_V, 3, rows, &out->all);
    FX_TRY(push_parts(d, segment, FX_K | FX_V, 2, rows, &out->kv));
    return push_parts(d, segment, FX_Q, 1, rows, &out->q);
}

fx_status fx_dit_put_qkv(fx_dit *d, int segment, const fx_qkv_weights *w, const fx_qkv_rows *rows,
                         fx_tensor h, fx_tensor cs)
{
    fx_exchange *ex = d->exchange;
    if (fx_present(rows->all)) {
        FX_TRY(fx_dense_apply(d->be, rows->all, h, &w->q_kv.whole, FX_ACT_NONE));
        return fx_exchange_put(ex, segment, FX_Q | FX_K | FX_V, rows->all, w->norm_q, w->norm_k, cs);
    }
    FX_TRY(fx_dense_apply_part(d->be, rows->kv, h, &w->q_kv, 1, FX_ACT_NONE));
    FX_TRY(fx_exchange_put(ex, segment, FX_K | FX_V, rows->kv, fx_none(), w->norm_k, cs));
    FX_TRY(fx_dense_apply_part(d->be, rows->q, h, &w->q_kv, 0, FX_ACT_NONE));
    return fx_exchange_put(ex, segment, FX_Q, rows->q, w->norm_q, fx_none(), cs);
}

/* ---- debts ---- */

fx_status fx_dit_norm(fx_dit *d, int segment, fx_tensor h, fx_tensor x, fx_tensor shift, fx_tensor scale)
{
    const fx_debt debt = d->owed[segment];
    d->owed[segment] = (fx_debt){fx_none(), fx_none()};
    if (!fx_present(debt.gate)) return fx_norm_mod(d->be, h, x, shift, scale, norm_eps);
    return fx_gate_norm(d->be, h, x, debt.gate, debt.y, shift, scale, norm_eps);
}

fx_status fx_dit_settle(fx_dit *d)
{
    const fx_tensor rows[FX_SEGMENTS + 1] = {[FX_TEXT] = fx_rows(d->x, 0, d->text_rows),
                                             [FX_IMAGE] = fx_rows(d->x, d->text_rows, d->image_rows),
                                             [FX_ALL] = d->x};
    for (int s = 0; s <= FX_ALL; s++) {
        if (!fx_present(d->owed[s].gate)) continue;
        FX_TRY(fx_gate_add(d->be, rows[s], d->owed[s].gate, d->owed[s].y));
        d->owed[s] = (fx_debt){fx_none(), fx_none()};
    }
    return FX_OK;
}

static fx_status observe(const fx_dit *d, const char *kind, int block, const char *suffix, int segment,
                         fx_tensor rows)
{
    char name[64];
    if (!d->observe) return FX_OK;
    snprintf(name, sizeof name, "%s_%02d%s", kind, block, suffix);
    return d->observe(d->observe_ctx, name, segment, rows);
}

static fx_status final_layer(fx_dit *d, fx_tensor img, fx_tensor noise)
{
    const int64_t C = d->cfg->hidden;
    const size_t mark = fx_mark(d->be->arena);
    const fx_tensor scale = fx_mod_chunk(d->mod.final, 0, C), shift = fx_mod_chunk(d->mod.final, 1, C);
    fx_tensor h;
    FX_TRY(fx_push2(d->be->arena, d->be->dtype, img.shape[0], C, &h));
    FX_TRY(fx_norm_mod(d->be, h, img, shift, scale, norm_eps));
    FX_TRY(fx_dense_apply(d->be, noise, h, &d->w->proj_out, FX_ACT_NONE));
    fx_rewind(d->be->arena, mark);
    return FX_OK;
}

fx_status fx_dit_select(fx_dit *d, int step)
{
    return fx_mod_select(d, step);
}

fx_status fx_dit_step(fx_dit *d, fx_tensor latents, fx_tensor noise)
{
    const fx_tensor txt = fx_rows(d->x, 0, d->text_rows), img = fx_rows(d->x, d->text_rows, d->image_rows);
    fx_plan_box(d->be, "embed", -1);
    FX_TRY(fx_copy(d->be, txt, d->context, 1, 0));
    FX_TRY(embed_rows(d, &d->w->x_embed, latents, img));
    for (int b = 0; b < d->cfg->double_blocks; b++) {
        fx_plan_box(d->be, "double", b);
        FX_TRY(fx_double_block(d, b));
        if (d->observe) FX_TRY(fx_dit_settle(d));
        FX_TRY(observe(d, "double", b, "_txt", FX_TEXT, txt));
        FX_TRY(observe(d, "double", b, "_img", FX_IMAGE, img));
    }
    fx_plan_box(d->be, "join", -1);
    FX_TRY(fx_dit_settle(d)); /* from here on text and image are one stream */
    for (int b = 0; b < d->cfg->single_blocks; b++) {
        fx_plan_box(d->be, "single", b);
        FX_TRY(fx_single_block(d, b));
        if (d->observe) FX_TRY(fx_dit_settle(d));
        FX_TRY(observe(d, "single", b, "", FX_ALL, d->x));
    }
    fx_plan_box(d->be, "final", -1);
    FX_TRY(fx_dit_settle(d));
    return final_layer(d, img, noise);
}
