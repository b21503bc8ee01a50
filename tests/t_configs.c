/* Numbers of the component configs at the ends of their ranges: the last allowed one is not refused for its range, the next
 * one is, by key. The rest of each config is a golden model's. */
#include "tests/scratch.h"
#include "tests/test.h"

#include <jansson.h>
#include <sys/stat.h>

#include "runtime/dit/config.h"
#include "runtime/io/json.h"
#include "runtime/sample/schedule.h"
#include "runtime/text/clip_encoder.h"
#include "runtime/text/t5_encoder.h"
#include "runtime/vae/vae.h"

typedef struct limit {
    const char *component, *key;
    int64_t lo, hi;
} limit;

static const limit limits[] = {
    {"transformer", "in_channels", 4, 65536},
    {"transformer", "out_channels", 4, 65536},
    {"transformer", "num_layers", 0, 1024},
    {"transformer", "num_single_layers", 0, 1024},
    {"transformer", "attention_head_dim", 2, 1024},
    {"transformer", "num_attention_heads", 1, 1024},
    {"transformer", "joint_attention_dim", 1, 65536},
    {"transformer", "pooled_projection_dim", 1, 65536},
    {"vae", "norm_num_groups", 1, 16384},
    {"vae", "in_channels", 1, 64},
    {"vae", "out_channels", 1, 64},
    {"vae", "latent_channels", 1, 16384},
    {"vae", "layers_per_block", 1, 16},
    {"vae", "sample_size", 1, 65536},
    {"text_encoder", "hidden_size", 1, 65536},
    {"text_encoder", "num_attention_heads", 1, 1024},
    {"text_encoder", "intermediate_size", 1, 16 * 65536},
    {"text_encoder", "vocab_size", 1, 1 << 24},
    {"text_encoder", "max_position_embeddings", 1, 65536},
    {"text_encoder", "num_hidden_layers", 1, 256},
    {"text_encoder", "eos_token_id", 0, 1 << 24},
    {"text_encoder_2", "d_model", 1, 65536},
    {"text_encoder_2", "num_heads", 1, 1024},
    {"text_encoder_2", "d_kv", 1, 1024},
    {"text_encoder_2", "d_ff", 1, 16 * 65536},
    {"text_encoder_2", "vocab_size", 1, 1 << 24},
    {"text_encoder_2", "num_layers", 1, 256},
    {"text_encoder_2", "relative_attention_num_buckets", 4, 4096},
    {"text_encoder_2", "relative_attention_max_distance", 2, 1 << 20},
    {"scheduler", "base_image_seq_len", 0, 1 << 30},
    {"scheduler", "max_image_seq_len", 0, 1 << 30},
};

static fx_status load(const char *component)
{
    fx_dit_config dit;
    fx_vae_config vae;
    fx_clip_config clip;
    fx_t5_config t5;
    fx_scheduler_config scheduler;
    if (!strcmp(component, "transformer")) return fx_dit_config_load(scratch, &dit);
    if (!strcmp(component, "vae")) return fx_vae_config_load(scratch, &vae);
    if (!strcmp(component, "text_encoder")) return fx_clip_config_load(scratch, &clip);
    if (!strcmp(component, "text_encoder_2")) return fx_t5_config_load(scratch, &t5);
    return fx_scheduler_load(scratch, &scheduler);
}

/* The golden config of a component with one key set and those of more (or NULL); takes both. */
static fx_status with_more(const char *component, const char *key, json_t *value, json_t *more)
{
    char path[1024], out[1024];
    json_t *root = NULL;
    const char *tests = getenv("FX_TESTS_DIR");
    const char *file = strcmp(component, "scheduler") ? "config.json" : "scheduler_config.json";
    snprintf(path, sizeof path, "%s/goldens/h4dev/%s/%s", tests ? tests : "tests", component, file);
    T_OK(fx_json_load(path, 0, &root));
    json_object_set_new(root, key, value);
    if (more) json_object_update(root, more);
    json_decref(more);
    snprintf(out, sizeof out, "%s/%s", scratch, component);
    mkdir(out, 0777);
    snprintf(out, sizeof out, "%s/%s/%s", scratch, component, file);
    T_CHECK(json_dump_file(root, out, 0) == 0, "cannot write %s", out);
    json_decref(root);
    return load(component);
}

static fx_status with(const char *component, const char *key, json_t *value)
{
    return with_more(component, key, value, NULL);
}

static bool out_of_range(fx_status st, const char *key)
{
    char quoted[80];
    snprintf(quoted, sizeof quoted, "\"%s\": wanted ", key);
    return st == FX_EFORMAT && strstr(fx_error(), quoted);
}

static void t_limits(void)
{
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        const limit *l = &limits[i];
        const int64_t value[] = {l->lo, l->hi, l->lo - 1, l->hi + 1};
        for (int v = 0; v < 4; v++) {
            const fx_status st = with(l->component, l->key, json_integer(value[v]));
            const bool refused = out_of_range(st, l->key), wanted = v > 1;
            T_CHECK(refused == wanted, "%s %s = %lld: %s", l->component, l->key, (long long)value[v],
                    st ? fx_error() : "accepted");
        }
    }
}

/* Lists: as long as they may be, and what must divide what. */
static void t_lists(void)
{
    T_OK(with("vae", "block_out_channels", json_pack("[i,i,i,i]", 4, 8, 12, 16)));
    for (int wrong = 0; wrong < 4; wrong++) {
        char word[40];
        json_t *widths = json_array();
        for (int i = 0; i < 4; i++) json_array_append_new(widths, json_integer(i == wrong ? 6 : 8));
        snprintf(word, sizeof word, "block_out_channels[%d] = 6", wrong);
        T_REFUSED(with("vae", "block_out_channels", widths), FX_EFORMAT, "norm_num_groups 4", word);
    }
    json_t *most = json_array(), *every = json_object();
    for (int i = 0; i < 8; i++) json_array_append_new(most, json_integer(9));
    json_object_set_new(every, "norm_num_groups",
                        json_integer(3)); /* what lies behind the eighth width is no multiple of 3 */
    json_object_set_new(every, "down_block_types", json_null());
    json_object_set_new(every, "up_block_types", json_null());
    T_OK(with_more("vae", "block_out_channels", most, every));
    T_REFUSED(with("vae", "up_block_types",
                   json_pack("[s,s,s]", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D")),
              FX_EFORMAT, "up_block_types", "list of 4");
    for (int wrong = 0; wrong < 4; wrong++) {
        char word[40];
        json_t *names = json_array();
        for (int i = 0; i < 4; i++)
            json_array_append_new(names, json_string(i == wrong ? "Other" : "DownEncoderBlock2D"));
        snprintf(word, sizeof word, "down_block_types[%d] is 'Other'", wrong);
        T_REFUSED(with("vae", "down_block_types", names), FX_EFORMAT, word);
    }
    T_OK(with("vae", "block_out_channels", json_pack("[i,i,i,i]", 8, 8, 2048, 1024)));
    T_REFUSED(with("vae", "block_out_channels", json_pack("[i,i,i,i]", 8, 8, 8, 1028)), FX_EFORMAT,
              "is 1028; the middle attention");
    T_REFUSED(with("vae", "latents_mean", json_pack("[i]", 0)), FX_EFORMAT, "latents_mean and latents_std");
    T_REFUSED(with("vae", "latents_std", json_pack("[i]", 1)), FX_EFORMAT, "latents_mean and latents_std");
    T_REFUSED(with("vae", "in_channels", json_integer(4)), FX_EFORMAT, "only RGB");
    T_REFUSED(with("vae", "out_channels", json_integer(4)), FX_EFORMAT, "only RGB");
    fx_dit_config flux;
    T_OK(with_more("transformer", "axes_dims_rope", json_null(),
                   json_pack("{s:i}", "attention_head_dim", 128)));
    T_OK(fx_dit_config_load(scratch, &flux)); /* the default is FLUX.1's */
    T_CHECK(flux.axis_dim[0] == 16 && flux.axis_dim[1] == 56 && flux.axis_dim[2] == 56,
            "default axes %lld %lld %lld", (long long)flux.axis_dim[0], (long long)flux.axis_dim[1],
            (long long)flux.axis_dim[2]);
    T_OK(with("transformer", "axes_dims_rope", json_pack("[i,i,i]", 4, 4, 4)));
    T_OK(with("transformer", "axes_dims_rope", json_pack("[i,i,i]", 0, 6, 6)));
    T_REFUSED(with("transformer", "axes_dims_rope", json_pack("[i,i]", 6, 6)), FX_EFORMAT, "2 entries");
    T_REFUSED(with("transformer", "axes_dims_rope", json_pack("[i,i,i,i]", 2, 2, 4, 4)), FX_EFORMAT,
              "4 entries");
    T_REFUSED(with("transformer", "axes_dims_rope", json_pack("[i,i,i,i,i,i,i,i]", 2, 2, 2, 2, 2, 2, 0, 0)),
              FX_EFORMAT, "8 entries");
    T_REFUSED(
        with("transformer", "axes_dims_rope", json_pack("[i,i,i,i,i,i,i,i,i]", 2, 2, 2, 2, 2, 2, 0, 0, 0)),
        FX_EFORMAT, "1 to 8 integers");
    T_REFUSED(with("transformer", "axes_dims_rope", json_pack("[i,i,i]", 2, 4, 8)), FX_EFORMAT, "sums to 14");
    T_REFUSED(with("transformer", "axes_dims_rope", json_pack("[i,i,i]", 6, 3, 3)), FX_EFORMAT,
              "odd entry 3");
    T_REFUSED(with("transformer", "axes_dims_rope", json_pack("[i,i,i]", 4, 5, 3)), FX_EFORMAT,
              "odd entry 5");
    T_REFUSED(with("transformer", "axes_dims_rope", json_pack("[i,i,i]", 3, 3, 6)), FX_EFORMAT,
              "odd entry 3");
    T_REFUSED(with("transformer", "in_channels", json_integer(66)), FX_EFORMAT, "multiples of 4");
    T_REFUSED(with("transformer", "out_channels", json_integer(60)), FX_EFORMAT, "must be equal");
}

/* What a config does not say: the defaults of the reference's classes. {} and what must be said. */
static void put_config(const char *component, const char *file, const char *text)
{
    char path[1200];
    snprintf(path, sizeof path, "%s/%s", scratch, component);
    mkdir(path, 0777);
    put_text(in_scratch("%s/%s", component, file), text);
}

static void t_defaults(void)
{
    fx_dit_config d;
    fx_vae_config v;
    fx_clip_config c;
    fx_t5_config t;
    fx_scheduler_config s;
    put_config("transformer", "config.json", "{}");
    T_OK(fx_dit_config_load(scratch, &d));
    T_CHECK(d.in_channels == 64 && d.out_channels == 64 && d.double_blocks == 19 && d.single_blocks == 38 &&
                d.head_dim == 128 && d.heads == 24 && d.joint_dim == 4096 && d.pooled_dim == 768 &&
                d.hidden == 3072 && d.mlp == 12288 && !d.guidance && d.sample_size == 0 &&
                d.axis_dim[0] == 16 && d.axis_dim[1] == 56 && d.axis_dim[2] == 56,
            "transformer: heads %lld, blocks %d and %d", (long long)d.heads, d.double_blocks,
            d.single_blocks);
    put_config("vae", "config.json", "{\"block_out_channels\": [64]}");
    T_OK(fx_vae_config_load(scratch, &v));
    T_CHECK(v.in_channels == 3 && v.out_channels == 3 && v.latent_channels == 4 && v.layers == 1 &&
                v.groups == 32 && v.sample_size == 0 && v.scaling == 0.18215 && v.shift == 0 &&
                v.quant_conv && v.post_quant_conv && v.mid_attention && v.levels == 1,
            "vae: groups %lld, scaling %g", (long long)v.groups, v.scaling);
    put_config("text_encoder", "config.json", "{}");
    T_OK(fx_clip_config_load(scratch, &c));
    T_CHECK(c.width == 512 && c.heads == 8 && c.ff == 2048 && c.layers == 12 && c.vocab == 49408 &&
                c.positions == 77 && c.eos == 49407 && c.act == FX_ACT_QUICK_GELU && c.eps == 1e-5,
            "clip: heads %lld, eos %d", (long long)c.heads, c.eos);
    put_config("text_encoder_2", "config.json", "{\"feed_forward_proj\": \"gated-gelu\"}");
    T_OK(fx_t5_config_load(scratch, &t));
    T_CHECK(t.width == 512 && t.heads == 8 && t.head_dim == 64 && t.ff == 2048 && t.layers == 6 &&
                t.vocab == 32128 && t.buckets == 32 && t.max_distance == 128 && t.eps == 1e-6,
            "t5: heads %lld, buckets %d", (long long)t.heads, t.buckets);
    put_config("scheduler", "scheduler_config.json", "{}");
    T_OK(fx_scheduler_load(scratch, &s));
    T_CHECK(!s.dynamic && !s.linear && s.shift == 1 && s.base_shift == 0.5 && s.max_shift == 1.15 &&
                s.base_tokens == 256 && s.max_tokens == 4096,
            "scheduler: shift %g", s.shift);
}

int main(void)
{
    if (!scratch_open()) return 1;
    t_limits();
    t_lists();
    t_defaults();
    scratch_close();
    return test_end("t_configs");
}
