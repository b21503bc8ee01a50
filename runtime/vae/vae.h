/* AutoencoderKL split by picture rows over the ranks: convolutions exchange border rows, group norms use the
 * statistics of the whole picture, the middle attention gathers K and V. Pictures are [rows, width, C]; every
 * buffer that feeds a 3x3 convolution carries one more row above and below (neighbours' rows, or zeros
 * outside the picture). Decoder: latents -> pixels. Encoder: pixels -> mean of the latent distribution. */
#ifndef FX_VAE_H
#define FX_VAE_H

#include "parallel/comm.h"
#include "parallel/dense.h"
#include "parallel/halo.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { FX_VAE_LEVELS = 8 };

typedef struct fx_vae_config {
    int64_t in_channels, out_channels, latent_channels;
    int64_t width[FX_VAE_LEVELS]; /* block_out_channels */
    int32_t levels, layers;       /* layers_per_block: encoder; the decoder has one more */
    int64_t groups, sample_size;  /* sample_size 0: not given */
    double scaling, shift;        /* picture side: z / scaling + shift */
    bool quant_conv, post_quant_conv, mid_attention;
} fx_vae_config;

typedef struct fx_conv {
    fx_weight w;
    fx_tensor b;
} fx_conv;

typedef struct fx_norm {
    fx_tensor w, b;
} fx_norm;

typedef struct fx_resnet {
    fx_norm norm1, norm2;
    fx_conv conv1, conv2, shortcut; /* shortcut.w.n = 0: identity */
    int64_t in, out;
} fx_resnet;

typedef struct fx_vae_attention {
    fx_norm norm;
    fx_dense q, k, v, out;
} fx_vae_attention;

/* One resolution: some resnets, then a resampling convolution (all levels but the last). */
typedef struct fx_vae_level {
    fx_resnet *resnet;
    int resnets;
    fx_conv resample; /* w.n = 0: none */
} fx_vae_level;

typedef struct fx_vae_half {
    fx_conv conv_in, conv_out, quant; /* quant: 1x1, after the encoder or before the decoder; w.n = 0: none */
    fx_vae_level level[FX_VAE_LEVELS];
    fx_resnet mid[2];
    fx_vae_attention attention;
    fx_norm norm_out;
} fx_vae_half;

typedef struct fx_vae {
    fx_vae_config cfg;
    fx_vae_half encoder, decoder;
} fx_vae;

fx_status fx_vae_config_load(const char *model_dir, fx_vae_config *out);
fx_vae_config fx_vae_config_flux(void);
int fx_vae_factor(const fx_vae_config *); /* pixels per latent: 2^(levels-1) */
fx_status fx_vae_declare(const fx_vae_config *, fx_store *, fx_checkpoint *, fx_vae *out);
void fx_vae_free(fx_vae *);

/* A picture being computed: this rank's rows at the present resolution. */
typedef struct fx_vae_run {
    const fx_vae *vae;
    fx_backend *be;
    fx_comm *comm;
    int rank, ranks;
    fx_range *range; /* [ranks] rows at the present resolution; owned */
    int64_t rows;    /* of the whole picture at the present resolution */
} fx_vae_run;

/* range[ranks]: latent rows of each rank (any numbers, also none, rising with the rank), rows in all. Copies
 * range. */
fx_status fx_vae_run_open(const fx_vae *, fx_backend *, fx_comm *, const fx_range range[], int64_t rows,
                          fx_vae_run *out);
void fx_vae_run_close(fx_vae_run *);

/* z[mine, w, latent_channels] (already z / scaling + shift, backend dtype) -> pixels[mine*f, w*f,
 * out_channels]. Collective. */
fx_status fx_vae_decode(fx_vae_run *, fx_tensor z, fx_tensor pixels);
/* pixels[mine*f, w*f, in_channels] in [-1, 1] -> mean[mine, w, latent_channels] (before scaling). Collective.
 */
fx_status fx_vae_encode(fx_vae_run *, fx_tensor pixels, fx_tensor mean);

/* Two buffers that take turns: a level reads one and writes the other. Sized for the largest picture of the
 * run. */
typedef struct fx_vae_pair {
    fx_tensor buffer[2]; /* flat */
    int current;
} fx_vae_pair;

/* --- the boxes --- */
/* elements: of the largest picture */
fx_status fx_vae_pair_open(fx_vae_run *, int64_t elements, fx_vae_pair *out);
/* The buffer not in use, as [rows, w, c]; it becomes the current one. */
fx_tensor fx_vae_flip(fx_vae_pair *, int64_t rows, int64_t w, int64_t c);
/* The resnets of a level, x -> x in the pair. */
fx_status fx_vae_resnets(fx_vae_run *, const fx_vae_level *, fx_vae_pair *, fx_tensor *x);
int64_t fx_vae_mine(const fx_vae_run *);             /* rows of this rank now */
void fx_vae_rescale(fx_vae_run *, int num, int den); /* resolution times num/den */
/* x[mine, w, C] (dense) -> out[mine+2, w, C] = act(norm(x)) with border rows, or x itself when norm is NULL.
 */
fx_status fx_vae_bordered(fx_vae_run *, fx_tensor x, const fx_norm *, fx_tensor out);
fx_status fx_vae_push(fx_vae_run *, int64_t extra_rows, int64_t w, int64_t c, fx_tensor *out);
/* y = conv3x3(bordered x) */
fx_status fx_vae_conv3(fx_vae_run *, fx_tensor y, fx_tensor bordered, const fx_conv *);
fx_status fx_vae_conv1(fx_vae_run *, fx_tensor y, fx_tensor x, const fx_conv *);
fx_status fx_vae_norm(fx_vae_run *, fx_tensor y, fx_tensor x, const fx_norm *, fx_act);
fx_status fx_vae_resnet(fx_vae_run *, const fx_resnet *, fx_tensor x,
                        fx_tensor y); /* y[mine, w, out], y != x */
fx_status fx_vae_attention_block(fx_vae_run *, const fx_vae_attention *, fx_tensor x); /* in place */
fx_status fx_vae_mid(fx_vae_run *, const fx_vae_half *, fx_tensor x);                  /* in place */

#ifdef __cplusplus
}
#endif
#endif
