/* A FLUX.1 model: configs, tokenizers and weights of all components, from a diffusers folder or synthetic. */
#ifndef FX_MODEL_H
#define FX_MODEL_H

#include "parallel/store.h"
#include "runtime/dit/weights.h"
#include "runtime/sample/schedule.h"
#include "runtime/text/encode.h"
#include "runtime/vae/vae.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { FX_COMPONENTS = 4 }; /* transformer, vae, text_encoder, text_encoder_2 */

typedef struct fx_model {
    fx_dit_config dit_config;
    fx_dit_weights dit;
    fx_vae vae;
    fx_text text;
    fx_scheduler_config scheduler;
    fx_checkpoint *checkpoint[FX_COMPONENTS];
    fx_store *store;
    uint64_t hash;
    int width, height; /* default picture size */
} fx_model;

/* Reads configs and headers and declares all weights; nothing large is read yet. name: folder or
 * synthetic:... */
fx_status fx_model_open(const char *name, fx_backend *, const fx_share *, fx_model *out);
/* Reads the weights. Collective over the share. Closes the checkpoints. */
fx_status fx_model_load(fx_model *, fx_comm *, void (*progress)(void *ctx, size_t done, size_t total),
                        void *ctx);
void fx_model_close(fx_model *);
int fx_model_size_multiple(const fx_model *); /* 2 x the VAE factor */

#ifdef __cplusplus
}
#endif
#endif
