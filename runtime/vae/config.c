/* Reads vae/config.json into fx_vae_config and refuses, by name, what is not computed here. Source:
 * AutoencoderKL's config in diffusers. */
#include "runtime/vae/vae.h"

#include <string.h>

#include "runtime/io/json.h"

enum { MAX_CHANNELS = 16384, MAX_LAYERS = 16, MAX_ATTENTION = 1024 };

static fx_status check_block_types(const fx_config *c, const char *key, const char *want, int levels)
{
    if (!fx_config_has(c, key)) return FX_OK;
    const json_t *list = json_object_get(c->root, key);
    FX_CHECK(json_is_array(list) && (int)json_array_size(list) == levels, FX_EFORMAT,
             "%s: %s must be a list of %d names, as long as block_out_channels", c->path, key, levels);
    for (int i = 0; i < levels; i++) {
        const char *name = json_string_value(json_array_get(list, (size_t)i));
        FX_CHECK(name && !strcmp(name, want), FX_EFORMAT, "%s: %s[%d] is '%s'; only '%s' is implemented",
                 c->path, key, i, name ? name : "not a string", want);
    }
    return FX_OK;
}

static fx_status read_widths(const fx_config *c, fx_vae_config *out)
{
    int count;
    FX_TRY(fx_config_ints(c, "block_out_channels", FX_VAE_LEVELS, 1, MAX_CHANNELS, &count, out->width));
    out->levels = count;
    const int64_t groups = 32;
    FX_TRY(fx_config_int(c, "norm_num_groups", 1, MAX_CHANNELS, &groups, &out->groups));
    for (int i = 0; i < count; i++)
        FX_CHECK(out->width[i] % out->groups == 0, FX_EFORMAT,
                 "%s: norm_num_groups %lld does not divide block_out_channels[%d] = %lld", c->path,
                 (long long)out->groups, i, (long long)out->width[i]);
    FX_TRY(check_block_types(c, "down_block_types", "DownEncoderBlock2D", count));
    return check_block_types(c, "up_block_types", "UpDecoderBlock2D", count);
}

static fx_status read_config(const fx_config *c, fx_vae_config *out)
{
    const int64_t three = 3, four = 4, one = 1, none = 0;
    const double scaling = 0.18215, zero = 0;
    const bool yes = true;
    int64_t layers;
    FX_TRY(fx_config_only_string(c, "_class_name", "AutoencoderKL"));
    FX_TRY(fx_config_only_string(c, "act_fn", "silu"));
    FX_TRY(read_widths(c, out));
    FX_TRY(fx_config_int(c, "in_channels", 1, 64, &three, &out->in_channels));
    FX_TRY(fx_config_int(c, "out_channels", 1, 64, &three, &out->out_channels));
    FX_CHECK(out->in_channels == 3 && out->out_channels == 3, FX_EFORMAT,
             "%s: in_channels %lld, out_channels %lld; only RGB (3 and 3) is implemented", c->path,
             (long long)out->in_channels, (long long)out->out_channels);
    FX_TRY(fx_config_int(c, "latent_channels", 1, MAX_CHANNELS, &four, &out->latent_channels));
    FX_TRY(fx_config_int(c, "layers_per_block", 1, MAX_LAYERS, &one, &layers));
    out->layers = (int32_t)layers;
    FX_TRY(fx_config_int(c, "sample_size", 1, 1 << 16, &none, &out->sample_size));
    FX_TRY(fx_config_real(c, "scaling_factor", 1e-6, 1e6, &scaling, &out->scaling));
    FX_TRY(fx_config_real(c, "shift_factor", -1e6, 1e6, &zero, &out->shift));
    FX_TRY(fx_config_bool(c, "use_quant_conv", &yes, &out->quant_conv));
    FX_TRY(fx_config_bool(c, "use_post_quant_conv", &yes, &out->post_quant_conv));
    FX_TRY(fx_config_bool(c, "mid_block_add_attention", &yes, &out->mid_attention));
    const int64_t mid = out->width[out->levels - 1];
    FX_CHECK(
        !out->mid_attention || mid <= MAX_ATTENTION, FX_EFORMAT,
        "%s: the last of block_out_channels is %lld; the middle attention is implemented up to %d channels",
        c->path, (long long)mid, MAX_ATTENTION);
    FX_CHECK(
        !fx_config_has(c, "latents_mean") && !fx_config_has(c, "latents_std"), FX_EFORMAT,
        "%s: latents_mean and latents_std are not implemented (FLUX.1 uses scaling_factor and shift_factor)",
        c->path);
    return FX_OK;
}

fx_status fx_vae_config_load(const char *model_dir, fx_vae_config *out)
{
    fx_config c;
    *out = (fx_vae_config){0};
    FX_TRY(fx_config_open(model_dir, "vae", "config.json", &c));
    const fx_status st = read_config(&c, out);
    fx_config_close(&c);
    return st;
}

fx_vae_config fx_vae_config_flux(void)
{
    return (fx_vae_config){.in_channels = 3,
                           .out_channels = 3,
                           .latent_channels = 16,
                           .width = {128, 256, 512, 512},
                           .levels = 4,
                           .layers = 2,
                           .groups = 32,
                           .sample_size = 1024,
                           .scaling = 0.3611,
                           .shift = 0.1159,
                           .mid_attention = true};
}

int fx_vae_factor(const fx_vae_config *c)
{
    return 1 << (c->levels - 1);
}
