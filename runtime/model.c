/* Opens a model: reads the configs, checks that the components fit together, declares every weight to the
 * store. First thing fx_pipeline_open does. */
#include "runtime/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/json.h"

static const char *const component_name[FX_COMPONENTS] = {"transformer", "vae", "text_encoder",
                                                          "text_encoder_2"};
static const char synthetic_prefix[] = "synthetic:";

/* What "synthetic:flux-dev:1+2" asks for. */
typedef struct synthetic_spec {
    bool guidance;
    int double_blocks, single_blocks;
    bool whole; /* full depth: text encoders too */
} synthetic_spec;

static fx_status parse_synthetic(const char *name, synthetic_spec *out)
{
    const char *kind = name + strlen(synthetic_prefix);
    const size_t length = strcspn(kind, ":");
    char extra;
    *out = (synthetic_spec){.double_blocks = 19, .single_blocks = 38, .whole = true};
    if (length == 8 && !strncmp(kind, "flux-dev", length))
        out->guidance = true;
    else
        FX_CHECK(length == 12 && !strncmp(kind, "flux-schnell", length), FX_EINVAL,
                 "unknown synthetic model '%s'; use synthetic:flux-dev, synthetic:flux-schnell, or either "
                 "with :D+S blocks, "
                 "such as synthetic:flux-dev:1+2",
                 name);
    if (!kind[length]) return FX_OK;
    const int read = sscanf(kind + length, ":%d+%d%c", &out->double_blocks, &out->single_blocks, &extra);
    FX_CHECK(read == 2 && out->double_blocks >= 0 && out->single_blocks >= 0 && out->double_blocks <= 64 &&
                 out->single_blocks <= 128 && out->double_blocks + out->single_blocks > 0,
             FX_EINVAL, "'%s': depth must be D+S, double and single blocks, at most 64+128, such as :1+2",
             name);
    out->whole = out->double_blocks >= 19;
    return FX_OK;
}

/* scheduler_config.json of FLUX.1-dev and of schnell */
static fx_scheduler_config flux_schedule(bool dev)
{
    return (fx_scheduler_config){.dynamic = dev,
                                 .shift = dev ? 3.0 : 1.0,
                                 .base_shift = 0.5,
                                 .max_shift = 1.15,
                                 .base_tokens = 256,
                                 .max_tokens = 4096};
}

typedef struct configs {
    fx_vae_config vae;
    fx_clip_config clip;
    fx_t5_config t5;
} configs;

/* Cut models have short text encoders, so that a benchmark of few blocks does not wait for 9 GB of T5. */
static fx_status open_synthetic(const char *name, fx_model *m, configs *c)
{
    synthetic_spec spec;
    FX_TRY(parse_synthetic(name, &spec));
    m->dit_config = fx_dit_config_flux(spec.guidance, spec.double_blocks, spec.single_blocks);
    c->vae = fx_vae_config_flux();
    c->clip = fx_clip_config_large(spec.whole ? 12 : 1);
    c->t5 = fx_t5_config_xxl(spec.whole ? 24 : 1);
    m->scheduler = flux_schedule(spec.guidance);
    for (int i = 0; i < FX_COMPONENTS; i++)
        FX_TRY(fx_checkpoint_synthetic(component_name[i], 0, &m->checkpoint[i]));
    return FX_OK;
}

static fx_status check_kind(const char *dir)
{
    fx_config index;
    char kind[128];
    FX_TRY(fx_config_open(dir, "", "model_index.json", &index));
    fx_status st = fx_config_string(&index, "_class_name", NULL, kind, sizeof kind);
    if (!st && strcmp(kind, "FluxPipeline"))
        st =
            FX_FAIL(FX_EFORMAT, "%s: this is a '%s'; only text-to-image FLUX.1 (FluxPipeline) is implemented",
                    index.path, kind);
    fx_config_close(&index);
    return st;
}

static fx_status open_folder(const char *dir, fx_model *m, configs *c)
{
    FX_TRY(check_kind(dir));
    FX_TRY(fx_dit_config_load(dir, &m->dit_config));
    FX_TRY(fx_vae_config_load(dir, &c->vae));
    FX_TRY(fx_clip_config_load(dir, &c->clip));
    FX_TRY(fx_t5_config_load(dir, &c->t5));
    FX_TRY(fx_scheduler_load(dir, &m->scheduler));
    for (int i = 0; i < FX_COMPONENTS; i++)
        FX_TRY(fx_checkpoint_open(dir, component_name[i], &m->checkpoint[i]));
    return FX_OK;
}

/* The widths at which components meet. */
static fx_status check_fit(const char *name, const fx_model *m, const configs *c)
{
    const fx_dit_config *d = &m->dit_config;
    FX_CHECK(c->t5.width == d->joint_dim, FX_EFORMAT,
             "%s: text_encoder_2 makes vectors of %lld but transformer's joint_attention_dim is %lld", name,
             (long long)c->t5.width, (long long)d->joint_dim);
    FX_CHECK(c->clip.width == d->pooled_dim, FX_EFORMAT,
             "%s: text_encoder makes vectors of %lld but transformer's pooled_projection_dim is %lld", name,
             (long long)c->clip.width, (long long)d->pooled_dim);
    FX_CHECK(4 * c->vae.latent_channels == d->in_channels, FX_EFORMAT,
             "%s: vae has %lld latent channels but transformer's in_channels is %lld (want 4 times as many)",
             name, (long long)c->vae.latent_channels, (long long)d->in_channels);
    return FX_OK;
}

/* sample_size of the transformer (latents), else of the VAE (pixels; FLUX.1: 1024), else 128 latents as the
 * reference. */
static void default_size(fx_model *m, const configs *c)
{
    const int multiple = fx_model_size_multiple(m), factor = fx_vae_factor(&c->vae);
    const int64_t latents = m->dit_config.sample_size ? m->dit_config.sample_size : 128;
    const int64_t pixels =
        !m->dit_config.sample_size && c->vae.sample_size ? c->vae.sample_size : latents * factor;
    m->width = m->height = (int)((pixels + multiple - 1) / multiple * multiple);
}

static fx_status hash_checkpoints(fx_model *m)
{
    for (int i = 0; i < FX_COMPONENTS; i++) {
        uint64_t part;
        FX_TRY(fx_checkpoint_hash(m->checkpoint[i], &part));
        m->hash = (m->hash ^ part) * 0x9e3779b97f4a7c15u; /* order matters: a multiply between the parts */
        m->hash ^= m->hash >> 29;
    }
    return FX_OK;
}

static fx_status declare_all(const char *name, bool synthetic, const configs *c, fx_model *m)
{
    FX_TRY(fx_dit_weights_declare(&m->dit_config, m->store, m->checkpoint[0], &m->dit));
    FX_TRY(fx_vae_declare(&c->vae, m->store, m->checkpoint[1], &m->vae));
    return fx_text_open(name, synthetic, &c->clip, &c->t5, m->store, m->checkpoint[2], m->checkpoint[3],
                        &m->text);
}

fx_status fx_model_open(const char *name, fx_backend *be, const fx_share *share, fx_model *out)
{
    const bool synthetic = !strncmp(name, synthetic_prefix, strlen(synthetic_prefix));
    configs c = {0};
    *out = (fx_model){0};
    FX_TRY(synthetic ? open_synthetic(name, out, &c) : open_folder(name, out, &c));
    FX_TRY(check_fit(name, out, &c));
    FX_TRY(hash_checkpoints(out));
    FX_TRY(fx_store_open(be, share, &out->store));
    FX_TRY(declare_all(name, synthetic, &c, out));
    default_size(out, &c);
    return FX_OK;
}

fx_status fx_model_load(fx_model *m, fx_comm *comm, void (*progress)(void *ctx, size_t done, size_t total),
                        void *ctx)
{
    const fx_status st = fx_store_load(m->store, comm, progress, ctx);
    for (int i = 0; i < FX_COMPONENTS; i++) fx_checkpoint_close(&m->checkpoint[i]);
    return st;
}

void fx_model_close(fx_model *m)
{
    for (int i = 0; i < FX_COMPONENTS; i++) fx_checkpoint_close(&m->checkpoint[i]);
    fx_text_close(&m->text);
    fx_vae_free(&m->vae);
    fx_dit_weights_free(&m->dit);
    fx_store_close(&m->store);
}

int fx_model_size_multiple(const fx_model *m)
{
    return 2 * fx_vae_factor(&m->vae.cfg);
}
