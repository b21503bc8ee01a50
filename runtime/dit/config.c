/* Reads transformer/config.json into fx_dit_config and refuses, by name, what this program does not compute.
 * First thing the pipeline does with a model. Source: FluxTransformer2DModel's config. */
#include "runtime/dit/config.h"

#include "runtime/io/json.h"

/* Bounds on untrusted numbers: far above every published model, small enough that products cannot overflow.
 */
enum { MAX_CHANNELS = 65536, MAX_HEADS = 1024, MAX_HEAD_DIM = 1024, MAX_BLOCKS = 1024 };

static fx_status read_axes(const fx_config *c, fx_dit_config *out)
{
    if (!fx_config_has(c, "axes_dims_rope")) {
        const int64_t flux[FX_ROPE_AXES] = {16, 56, 56};
        for (int i = 0; i < FX_ROPE_AXES; i++) out->axis_dim[i] = flux[i];
    } else {
        int64_t axes[8];
        int count;
        FX_TRY(fx_config_ints(c, "axes_dims_rope", 8, 0, MAX_HEAD_DIM, &count, axes));
        FX_CHECK(count == FX_ROPE_AXES, FX_EFORMAT, "%s: axes_dims_rope has %d entries; FLUX.1 models have 3",
                 c->path, count);
        for (int i = 0; i < FX_ROPE_AXES; i++) out->axis_dim[i] = axes[i];
    }
    int64_t sum = 0;
    for (int i = 0; i < FX_ROPE_AXES; i++) {
        FX_CHECK(out->axis_dim[i] % 2 == 0, FX_EFORMAT,
                 "%s: axes_dims_rope has the odd entry %lld; must be even", c->path,
                 (long long)out->axis_dim[i]);
        sum += out->axis_dim[i];
    }
    FX_CHECK(sum == out->head_dim, FX_EFORMAT,
             "%s: axes_dims_rope sums to %lld but attention_head_dim is %lld", c->path, (long long)sum,
             (long long)out->head_dim);
    return FX_OK;
}

/* Other members of the family share the class name; their input channels tell them apart. */
static fx_status check_kind(const fx_config *c, const fx_dit_config *d)
{
    const char *name = d->in_channels == 384   ? "FLUX.1-Fill"
                       : d->in_channels == 128 ? "FLUX.1-Canny or Depth"
                                               : NULL;
    FX_CHECK(!name || d->in_channels == d->out_channels, FX_EFORMAT,
             "%s: in_channels %lld with out_channels %lld: this is %s, which is not supported; use "
             "FLUX.1-dev or schnell",
             c->path, (long long)d->in_channels, (long long)d->out_channels, name);
    FX_CHECK(d->in_channels == d->out_channels && d->in_channels % 4 == 0, FX_EFORMAT,
             "%s: in_channels %lld, out_channels %lld; must be equal multiples of 4", c->path,
             (long long)d->in_channels, (long long)d->out_channels);
    return FX_OK;
}

static fx_status read_config(const fx_config *c, fx_dit_config *out)
{
    const int64_t layers = 19, singles = 38, in = 64, head_dim = 128, heads = 24, joint = 4096, pooled = 768;
    const int64_t none = 0;
    const bool no = false;
    int64_t blocks;
    FX_TRY(fx_config_only_string(c, "_class_name", "FluxTransformer2DModel"));
    FX_TRY(fx_config_only_int(c, "patch_size", 1));
    FX_TRY(fx_config_int(c, "in_channels", 4, MAX_CHANNELS, &in, &out->in_channels));
    FX_TRY(fx_config_int(c, "out_channels", 4, MAX_CHANNELS, &out->in_channels, &out->out_channels));
    FX_TRY(fx_config_int(c, "num_layers", 0, MAX_BLOCKS, &layers, &blocks));
    out->double_blocks = (int32_t)blocks;
    FX_TRY(fx_config_int(c, "num_single_layers", 0, MAX_BLOCKS, &singles, &blocks));
    out->single_blocks = (int32_t)blocks;
    FX_TRY(fx_config_int(c, "attention_head_dim", 2, MAX_HEAD_DIM, &head_dim, &out->head_dim));
    FX_TRY(fx_config_int(c, "num_attention_heads", 1, MAX_HEADS, &heads, &out->heads));
    FX_TRY(fx_config_int(c, "joint_attention_dim", 1, MAX_CHANNELS, &joint, &out->joint_dim));
    FX_TRY(fx_config_int(c, "pooled_projection_dim", 1, MAX_CHANNELS, &pooled, &out->pooled_dim));
    FX_TRY(fx_config_int(c, "sample_size", 1, 1 << 14, &none, &out->sample_size));
    FX_TRY(fx_config_bool(c, "guidance_embeds", &no, &out->guidance));
    out->hidden = out->heads * out->head_dim;
    out->mlp = 4 * out->hidden;
    FX_TRY(check_kind(c, out));
    return read_axes(c, out);
}

fx_status fx_dit_config_load(const char *model_dir, fx_dit_config *out)
{
    fx_config c;
    *out = (fx_dit_config){0};
    FX_TRY(fx_config_open(model_dir, "transformer", "config.json", &c));
    const fx_status st = read_config(&c, out);
    fx_config_close(&c);
    return st;
}

fx_dit_config fx_dit_config_flux(bool guidance, int double_blocks, int single_blocks)
{
    return (fx_dit_config){.in_channels = 64,
                           .out_channels = 64,
                           .heads = 24,
                           .head_dim = 128,
                           .hidden = 3072,
                           .mlp = 12288,
                           .joint_dim = 4096,
                           .pooled_dim = 768,
                           .axis_dim = {16, 56, 56},
                           .double_blocks = double_blocks,
                           .single_blocks = single_blocks,
                           .guidance = guidance};
}
