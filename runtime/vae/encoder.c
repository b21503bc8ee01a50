/* Pixels -> mean of the latent distribution: the way in for image-to-image. Mirror of decoder.c; downsampling
 * pads one row below and one column right, so a slab needs only its lower neighbour's first row. Source:
 * AutoencoderKL.encode of diffusers. */
#include "runtime/vae/vae.h"

/* x -> conv3x3 stride 2 of x padded by one row below and one column right; the run's resolution halves. */
static fx_status downsample(fx_vae_run *r, const fx_conv *c, fx_vae_pair *pair, fx_tensor *x)
{
    fx_backend *be = r->be;
    const int64_t w = x->shape[1], channels = x->shape[2], mine = fx_vae_mine(r);
    const int pad[4] = {0, 0, 0, 1};
    const fx_slabs slabs = {.comm = r->comm, .range = r->range, .rows = r->rows};
    const size_t mark = fx_mark(be->arena);
    fx_tensor bordered;
    FX_TRY(fx_vae_push(r, 1, w, channels, &bordered));
    FX_TRY(fx_copy(be, fx_rows(bordered, 0, mine), *x, 1, 0));
    FX_TRY(fx_halo_fill(be, &slabs, bordered, 0, 1));
    *x = fx_vae_flip(pair, mine / 2, w / 2, channels);
    FX_TRY(fx_conv2d(be, *x, bordered, c->w, c->b, 2, pad));
    fx_rewind(be->arena, mark);
    fx_vae_rescale(r, 1, 2);
    return FX_OK;
}

/* Elements of the largest picture per pixel; later levels are smaller by 4 each. */
static int64_t largest(const fx_vae_config *c)
{
    int64_t most = 1;
    for (int i = 0; i < c->levels; i++) {
        const int64_t width = c->width[i] >> (2 * i);
        if (width + 1 > most) most = width + 1;
    }
    return most;
}

/* y = conv3x3(x), x unbordered, norm optional. */
static fx_status conv3(fx_vae_run *r, const fx_conv *c, const fx_norm *norm, fx_tensor x, fx_tensor y)
{
    const size_t mark = fx_mark(r->be->arena);
    fx_tensor bordered;
    FX_TRY(fx_vae_push(r, 2, x.shape[1], x.shape[2], &bordered));
    FX_TRY(fx_vae_bordered(r, x, norm, bordered));
    FX_TRY(fx_vae_conv3(r, y, bordered, c));
    fx_rewind(r->be->arena, mark);
    return FX_OK;
}

fx_status fx_vae_encode(fx_vae_run *r, fx_tensor pixels, fx_tensor mean)
{
    const fx_vae_half *h = &r->vae->encoder;
    const int64_t z = r->vae->cfg.latent_channels, factor = fx_vae_factor(&r->vae->cfg);
    const size_t mark = fx_mark(r->be->arena);
    fx_vae_pair pair;
    fx_tensor moments, quant;
    fx_vae_rescale(r, (int)factor, 1);
    const int64_t rows = fx_vae_mine(r), w = pixels.shape[1];
    FX_TRY(fx_vae_pair_open(r, rows * w * largest(&r->vae->cfg), &pair));
    fx_tensor x = fx_vae_flip(&pair, rows, w, h->conv_in.w.n);
    FX_TRY(conv3(r, &h->conv_in, NULL, pixels, x));
    for (int i = 0; i < r->vae->cfg.levels; i++) {
        FX_TRY(fx_vae_resnets(r, &h->level[i], &pair, &x));
        if (h->level[i].resample.w.n) FX_TRY(downsample(r, &h->level[i].resample, &pair, &x));
    }
    FX_TRY(fx_vae_mid(r, h, x));
    FX_TRY(fx_vae_push(r, 0, x.shape[1], 2 * z, &moments));
    FX_TRY(conv3(r, &h->conv_out, &h->norm_out, x, moments));
    if (h->quant.w.n) {
        FX_TRY(fx_vae_push(r, 0, x.shape[1], 2 * z, &quant));
        FX_TRY(fx_vae_conv1(r, quant, moments, &h->quant));
        moments = quant;
    }
    FX_TRY(fx_copy(r->be, mean, fx_cols(moments, 0, z), 1, 0)); /* columns mean | log variance */
    fx_rewind(r->be->arena, mark);
    return FX_OK;
}
