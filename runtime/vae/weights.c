/* Maps diffusers' AutoencoderKL tensor names to fx_vae. Called once per model, before the load. */
#include "runtime/vae/vae.h"

#include <stdio.h>
#include <stdlib.h>

/* Where weights come from, and the name prefix of the half being declared. */
typedef struct source {
    fx_store *store;
    fx_checkpoint *ckpt;
    const char *half; /* "encoder." or "decoder." */
} source;

static fx_status conv(const source *s, fx_conv *out, int64_t n, int64_t k, int taps, const char *prefix,
                      const char *name)
{
    char full[FX_NAME_MAX], bias[FX_NAME_MAX + 8];
    snprintf(full, sizeof full, "%s%s%s.weight", s->half, prefix, name);
    snprintf(bias, sizeof bias, "%s%s%s", s->half, prefix, name);
    FX_TRY(fx_store_conv(s->store, s->ckpt, &out->w, n, k, taps, taps, full));
    return fx_declare_vector(s->store, s->ckpt, &out->b, n, bias, ".bias");
}

static fx_status norm(const source *s, fx_norm *out, int64_t n, const char *prefix, const char *name)
{
    char full[FX_NAME_MAX];
    snprintf(full, sizeof full, "%s%s%s", s->half, prefix, name);
    FX_TRY(fx_declare_vector(s->store, s->ckpt, &out->w, n, full, ".weight"));
    return fx_declare_vector(s->store, s->ckpt, &out->b, n, full, ".bias");
}

static fx_status resnet(const source *s, fx_resnet *r, int64_t in, int64_t out, const char *prefix)
{
    r->in = in;
    r->out = out;
    FX_TRY(norm(s, &r->norm1, in, prefix, "norm1"));
    FX_TRY(conv(s, &r->conv1, out, in, 3, prefix, "conv1"));
    FX_TRY(norm(s, &r->norm2, out, prefix, "norm2"));
    FX_TRY(conv(s, &r->conv2, out, out, 3, prefix, "conv2"));
    return in == out ? FX_OK : conv(s, &r->shortcut, out, in, 1, prefix, "conv_shortcut");
}

static fx_status attention(const source *s, fx_vae_attention *a, int64_t c)
{
    char p[FX_NAME_MAX];
    snprintf(p, sizeof p, "%smid_block.attentions.0.", s->half);
    FX_TRY(norm(s, &a->norm, c, "mid_block.attentions.0.", "group_norm"));
    FX_TRY(fx_declare_dense1(s->store, s->ckpt, &a->q, c, c, true, p, "to_q"));
    FX_TRY(fx_declare_dense1(s->store, s->ckpt, &a->k, c, c, true, p, "to_k"));
    FX_TRY(fx_declare_dense1(s->store, s->ckpt, &a->v, c, c, true, p, "to_v"));
    return fx_declare_dense1(s->store, s->ckpt, &a->out, c, c, true, p, "to_out.0");
}

static fx_status level(const source *s, fx_vae_level *l, int64_t in, int64_t out, int resnets,
                       const char *kind, int number, const char *resample)
{
    char p[64];
    l->resnet = calloc((size_t)resnets, sizeof *l->resnet);
    FX_CHECK(l->resnet, FX_ENOMEM, "no memory for the list of VAE blocks");
    l->resnets = resnets;
    for (int i = 0; i < resnets; i++) {
        snprintf(p, sizeof p, "%s.%d.resnets.%d.", kind, number, i);
        FX_TRY(resnet(s, &l->resnet[i], i ? out : in, out, p));
    }
    if (!resample) return FX_OK;
    snprintf(p, sizeof p, "%s.%d.", kind, number);
    return conv(s, &l->resample, out, out, 3, p, resample);
}

static fx_status mid(const source *s, fx_vae_half *h, int64_t c, bool with_attention)
{
    FX_TRY(resnet(s, &h->mid[0], c, c, "mid_block.resnets.0."));
    FX_TRY(resnet(s, &h->mid[1], c, c, "mid_block.resnets.1."));
    return with_attention ? attention(s, &h->attention, c) : FX_OK;
}

static fx_status declare_encoder(const fx_vae_config *c, const source *s, fx_vae_half *h)
{
    const int last = c->levels - 1;
    FX_TRY(conv(s, &h->conv_in, c->width[0], c->in_channels, 3, "", "conv_in"));
    for (int i = 0; i <= last; i++)
        FX_TRY(level(s, &h->level[i], c->width[i ? i - 1 : 0], c->width[i], c->layers, "down_blocks", i,
                     i < last ? "downsamplers.0.conv" : NULL));
    FX_TRY(mid(s, h, c->width[last], c->mid_attention));
    FX_TRY(norm(s, &h->norm_out, c->width[last], "", "conv_norm_out"));
    return conv(s, &h->conv_out, 2 * c->latent_channels, c->width[last], 3, "", "conv_out");
}

static fx_status declare_decoder(const fx_vae_config *c, const source *s, fx_vae_half *h)
{
    const int last = c->levels - 1;
    FX_TRY(conv(s, &h->conv_in, c->width[last], c->latent_channels, 3, "", "conv_in"));
    FX_TRY(mid(s, h, c->width[last], c->mid_attention));
    for (int i = 0; i <= last; i++)
        FX_TRY(level(s, &h->level[i], c->width[i ? last - i + 1 : last], c->width[last - i], c->layers + 1,
                     "up_blocks", i, i < last ? "upsamplers.0.conv" : NULL));
    FX_TRY(norm(s, &h->norm_out, c->width[0], "", "conv_norm_out"));
    return conv(s, &h->conv_out, c->out_channels, c->width[0], 3, "", "conv_out");
}

fx_status fx_vae_declare(const fx_vae_config *c, fx_store *store, fx_checkpoint *ckpt, fx_vae *out)
{
    *out = (fx_vae){.cfg = *c};
    const source encoder = {store, ckpt, "encoder."}, decoder = {store, ckpt, "decoder."};
    const source root = {store, ckpt, ""};
    const int64_t z = c->latent_channels;
    FX_TRY(declare_encoder(c, &encoder, &out->encoder));
    FX_TRY(declare_decoder(c, &decoder, &out->decoder));
    if (c->quant_conv) FX_TRY(conv(&root, &out->encoder.quant, 2 * z, 2 * z, 1, "", "quant_conv"));
    if (c->post_quant_conv) FX_TRY(conv(&root, &out->decoder.quant, z, z, 1, "", "post_quant_conv"));
    return FX_OK;
}

void fx_vae_free(fx_vae *v)
{
    for (int i = 0; i < FX_VAE_LEVELS; i++) {
        free(v->encoder.level[i].resnet);
        free(v->decoder.level[i].resnet);
    }
    *v = (fx_vae){0};
}
