/* Maps diffusers' FluxTransformer2DModel tensor names to fx_dit_weights. Called once per model, before the
 * load. */
#include "runtime/dit/weights.h"

#include <stdio.h>
#include <stdlib.h>

/* The names of one stream inside transformer_blocks.N. */
typedef struct stream_names {
    const char *q, *k, *v, *norm_q, *norm_k, *out, *mlp_in, *mlp_out, *mod;
} stream_names;

static const stream_names image_names = {"attn.to_q",          "attn.to_k",          "attn.to_v",
                                         "attn.norm_q.weight", "attn.norm_k.weight", "attn.to_out.0",
                                         "ff.net.0.proj",      "ff.net.2",           "norm1.linear"};
static const stream_names text_names = {
    "attn.add_q_proj",          "attn.add_k_proj",          "attn.add_v_proj",
    "attn.norm_added_q.weight", "attn.norm_added_k.weight", "attn.to_add_out",
    "ff_context.net.0.proj",    "ff_context.net.2",         "norm1_context.linear"};

static fx_status declare_qkv(const fx_dit_config *c, fx_store *store, fx_checkpoint *ckpt, const char *prefix,
                             const stream_names *n, fx_qkv_weights *w)
{
    const char *const all[] = {n->q, n->k, n->v, NULL};
    const int64_t C = c->hidden;
    fx_dense_pair *d = &w->q_kv;
    d->n[0] = C, d->n[1] = 2 * C;
    if (fx_store_plain_rows(store)) {
        FX_TRY(fx_declare_dense(store, ckpt, &d->whole, 3 * C, C, true, prefix, all));
    } else {
        FX_TRY(fx_declare_dense1(store, ckpt, &d->part[0], C, C, true, prefix, n->q));
        FX_TRY(fx_declare_dense(store, ckpt, &d->part[1], 2 * C, C, true, prefix, all + 1));
    }
    FX_TRY(fx_declare_vector(store, ckpt, &w->norm_q, c->head_dim, prefix, n->norm_q));
    return fx_declare_vector(store, ckpt, &w->norm_k, c->head_dim, prefix, n->norm_k);
}

static fx_status declare_stream(const fx_dit_config *c, fx_store *store, fx_checkpoint *ckpt,
                                const char *prefix, const stream_names *n, fx_stream_weights *w)
{
    const int64_t C = c->hidden;
    FX_TRY(declare_qkv(c, store, ckpt, prefix, n, &w->qkv));
    FX_TRY(fx_declare_dense1(store, ckpt, &w->out, C, C, true, prefix, n->out));
    FX_TRY(fx_declare_dense1(store, ckpt, &w->mlp_in, c->mlp, C, true, prefix, n->mlp_in));
    FX_TRY(fx_declare_dense1(store, ckpt, &w->mlp_out, C, c->mlp, true, prefix, n->mlp_out));
    return fx_declare_dense1(store, ckpt, &w->mod, FX_MOD_DOUBLE * C, C, true, prefix, n->mod);
}

/* Columns of a single block's MLP that are computed before attention where transfers are to be hidden: two thirds, as the rows of
 * q, k and v are three times those of its output and need most of what both are hidden behind; in whole chunks of a matrix
 * product where the width allows. */
static int64_t before_attention(const fx_dit_config *c)
{
    const int64_t want = 2 * c->mlp / 3;
    int64_t chunk = 64;
    while (c->mlp % chunk || want < chunk) chunk /= 2; /* mlp is 4 at least */
    return want - want % chunk;
}

static fx_status declare_single(const fx_dit_config *c, fx_store *store, fx_checkpoint *ckpt,
                                const char *prefix, fx_single_weights *w)
{
    static const char name[] = "proj_mlp";
    const int64_t C = c->hidden, n = before_attention(c);
    fx_dense_pair *d = &w->mlp_in;
    FX_TRY(declare_qkv(c, store, ckpt, prefix, &image_names, &w->qkv));
    d->n[0] = n, d->n[1] = c->mlp - n;
    if (fx_store_plain_rows(store)) {
        FX_TRY(fx_declare_dense1(store, ckpt, &d->whole, c->mlp, C, true, prefix, name));
    } else {
        FX_TRY(fx_declare_dense_rows(store, ckpt, &d->part[0], 0, n, C, true, prefix, name));
        FX_TRY(fx_declare_dense_rows(store, ckpt, &d->part[1], n, d->n[1], C, true, prefix, name));
    }
    FX_TRY(fx_declare_dense1(store, ckpt, &w->out, C, C + c->mlp, true, prefix, "proj_out"));
    return fx_declare_dense1(store, ckpt, &w->mod, FX_MOD_SINGLE * C, C, true, prefix, "norm.linear");
}

static fx_status declare_embed(fx_store *store, fx_checkpoint *ckpt, const char *prefix, int64_t out,
                               int64_t in, fx_embed_mlp *w)
{
    FX_TRY(fx_declare_dense1(store, ckpt, &w->in, out, in, true, prefix, "linear_1"));
    return fx_declare_dense1(store, ckpt, &w->out, out, out, true, prefix, "linear_2");
}

static fx_status declare_outer(const fx_dit_config *c, fx_store *store, fx_checkpoint *ckpt,
                               fx_dit_weights *w)
{
    const int64_t C = c->hidden;
    FX_TRY(fx_declare_dense1(store, ckpt, &w->x_embed, C, c->in_channels, true, "", "x_embedder"));
    FX_TRY(fx_declare_dense1(store, ckpt, &w->context_embed, C, c->joint_dim, true, "", "context_embedder"));
    FX_TRY(declare_embed(store, ckpt, "time_text_embed.timestep_embedder.", C, FX_TIME_CHANNELS, &w->time));
    if (c->guidance)
        FX_TRY(declare_embed(store, ckpt, "time_text_embed.guidance_embedder.", C, FX_TIME_CHANNELS,
                             &w->guidance));
    FX_TRY(declare_embed(store, ckpt, "time_text_embed.text_embedder.", C, c->pooled_dim, &w->text));
    FX_TRY(fx_declare_dense1(store, ckpt, &w->final_mod, FX_MOD_FINAL * C, C, true, "", "norm_out.linear"));
    return fx_declare_dense1(store, ckpt, &w->proj_out, c->out_channels, C, true, "", "proj_out");
}

fx_status fx_dit_weights_declare(const fx_dit_config *c, fx_store *store, fx_checkpoint *ckpt,
                                 fx_dit_weights *out)
{
    char prefix[64];
    *out = (fx_dit_weights){0};
    out->double_blocks = calloc((size_t)c->double_blocks + 1, sizeof *out->double_blocks);
    out->single_blocks = calloc((size_t)c->single_blocks + 1, sizeof *out->single_blocks);
    FX_CHECK(out->double_blocks && out->single_blocks, FX_ENOMEM,
             "no memory for the list of transformer blocks");
    FX_TRY(declare_outer(c, store, ckpt, out));
    for (int i = 0; i < c->double_blocks; i++) {
        snprintf(prefix, sizeof prefix, "transformer_blocks.%d.", i);
        FX_TRY(declare_stream(c, store, ckpt, prefix, &text_names, &out->double_blocks[i].txt));
        FX_TRY(declare_stream(c, store, ckpt, prefix, &image_names, &out->double_blocks[i].img));
    }
    for (int i = 0; i < c->single_blocks; i++) {
        snprintf(prefix, sizeof prefix, "single_transformer_blocks.%d.", i);
        FX_TRY(declare_single(c, store, ckpt, prefix, &out->single_blocks[i]));
    }
    return FX_OK;
}

void fx_dit_weights_free(fx_dit_weights *w)
{
    free(w->double_blocks);
    free(w->single_blocks);
    *w = (fx_dit_weights){0};
}
