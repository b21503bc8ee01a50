/* Latents -> pixels, the last matmul-heavy box of the dataflow: conv in, middle, levels of rising resolution,
 * norm, conv out. Two buffers take turns. Source: AutoencoderKL.decode of diffusers. */
#include "runtime/vae/vae.h"

/* x -> conv3x3(nearest(x)) at twice the resolution, which is the run's afterwards. */
static fx_status upsample(fx_vae_run *r, const fx_conv *c, fx_vae_pair *pair, fx_tensor *x)
{
    fx_backend *be = r->be;
    const int64_t w = 2 * x->shape[1], channels = x->shape[2];
    const size_t mark = fx_mark(be->arena);
    fx_tensor big;
    fx_vae_rescale(r, 2, 1);
    FX_TRY(fx_vae_push(r, 2, w, channels, &big));
    FX_TRY(fx_upsample2x(be, fx_rows(big, 1, fx_vae_mine(r)), *x));
    const fx_slabs slabs = {.comm = r->comm, .range = r->range, .rows = r->rows};
    FX_TRY(fx_halo_fill(be, &slabs, big, 1, 1));
    *x = fx_vae_flip(pair, fx_vae_mine(r), w, channels);
    FX_TRY(fx_vae_conv3(r, *x, big, c));
    fx_rewind(be->arena, mark);
    return FX_OK;
}

/* Elements of this rank's largest picture on the way, per latent row and column. */
static int64_t largest(const fx_vae_config *c)
{
    const int last = c->levels - 1;
    int64_t most = c->width[last];
    for (int i = 0; i <= last; i++) {
        const int scale = i < last ? i + 1 : i; /* the resampled output is the level's largest */
        const int64_t size = c->width[last - i] << (2 * scale),
                      in = c->width[i ? last - i + 1 : last] << (2 * i);
        if (size > most) most = size;
        if (in > most) most = in;
    }
    return most;
}

static fx_status conv_in(fx_vae_run *r, const fx_vae_half *h, fx_tensor z, fx_tensor x)
{
    const int64_t w = z.shape[1];
    const size_t mark = fx_mark(r->be->arena);
    fx_tensor first = z, bordered;
    if (h->quant.w.n) {
        FX_TRY(fx_vae_push(r, 0, w, z.shape[2], &first));
        FX_TRY(fx_vae_conv1(r, first, z, &h->quant));
    }
    FX_TRY(fx_vae_push(r, 2, w, z.shape[2], &bordered));
    FX_TRY(fx_vae_bordered(r, first, NULL, bordered));
    FX_TRY(fx_vae_conv3(r, x, bordered, &h->conv_in));
    fx_rewind(r->be->arena, mark);
    return FX_OK;
}

fx_status fx_vae_decode(fx_vae_run *r, fx_tensor z, fx_tensor pixels)
{
    const fx_vae_half *h = &r->vae->decoder;
    const size_t mark = fx_mark(r->be->arena);
    fx_vae_pair pair;
    fx_tensor bordered;
    const int64_t rows = fx_vae_mine(r), w = z.shape[1];
    FX_TRY(fx_vae_pair_open(r, rows * w * largest(&r->vae->cfg), &pair));
    fx_tensor x = fx_vae_flip(&pair, rows, w, h->conv_in.w.n);
    FX_TRY(conv_in(r, h, z, x));
    FX_TRY(fx_vae_mid(r, h, x));
    for (int i = 0; i < r->vae->cfg.levels; i++) {
        FX_TRY(fx_vae_resnets(r, &h->level[i], &pair, &x));
        if (h->level[i].resample.w.n) FX_TRY(upsample(r, &h->level[i].resample, &pair, &x));
    }
    FX_TRY(fx_vae_push(r, 2, x.shape[1], x.shape[2], &bordered));
    FX_TRY(fx_vae_bordered(r, x, &h->norm_out, bordered));
    FX_TRY(fx_vae_conv3(r, pixels, bordered, &h->conv_out));
    fx_rewind(r->be->arena, mark);
    return FX_OK;
}
