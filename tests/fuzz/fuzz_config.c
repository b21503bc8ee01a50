/* One JSON text given to every config loader of a model folder and to the typed getters. What a loader
 * accepts must be within the bounds that the rest of the program counts on. */
#include "tests/fuzz/fuzz.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "runtime/dit/config.h"
#include "runtime/io/json.h"
#include "runtime/sample/schedule.h"
#include "runtime/text/clip_encoder.h"
#include "runtime/text/t5_encoder.h"
#include "runtime/vae/vae.h"

#define FILE_NAME "transformer/config.json"

/* Each loader reads its own folder; they all see the same text. */
static void make_folders(void)
{
    static const char *const other[] = {"vae", "text_encoder", "text_encoder_2", "scheduler"};
    char path[80];
    fuzz_make_folder("transformer");
    for (int i = 0; i < 4; i++) {
        fuzz_make_folder(other[i]);
        snprintf(path, sizeof path, "%s/%s", other[i], i == 3 ? "scheduler_config.json" : "config.json");
        FUZZ_EXPECT(symlink("../" FILE_NAME, fuzz_path(path)) == 0 || access(fuzz_path(path), F_OK) == 0 ||
                    access(fuzz_path(FILE_NAME), F_OK) != 0);
    }
}

static void check_dit(const fx_dit_config *c)
{
    FUZZ_EXPECT(c->hidden == c->heads * c->head_dim && c->hidden > 0 && c->mlp > 0);
    FUZZ_EXPECT(c->axis_dim[0] + c->axis_dim[1] + c->axis_dim[2] == c->head_dim);
    FUZZ_EXPECT(c->in_channels > 0 && c->in_channels == c->out_channels && c->in_channels % 4 == 0);
    FUZZ_EXPECT(c->double_blocks >= 0 && c->single_blocks >= 0 && c->sample_size >= 0);
}

static void check_vae(const fx_vae_config *c)
{
    FUZZ_EXPECT(c->levels >= 1 && c->levels <= FX_VAE_LEVELS && fx_vae_factor(c) >= 1);
    FUZZ_EXPECT(c->groups > 0 && c->layers > 0 && c->latent_channels > 0 && isfinite(c->scaling));
    for (int i = 0; i < c->levels; i++) FUZZ_EXPECT(c->width[i] > 0 && c->width[i] % c->groups == 0);
}

static void check_schedule(const fx_scheduler_config *c)
{
    float sigma[5] = {0};
    if (fx_sigmas(c, 4, 256, sigma) != FX_OK) return;
    for (int i = 0; i < 5; i++) FUZZ_EXPECT(isfinite(sigma[i]));
}

static void load_all(const char *dir)
{
    fx_dit_config dit;
    fx_vae_config vae;
    fx_clip_config clip;
    fx_t5_config t5;
    fx_scheduler_config schedule;
    if (fx_dit_config_load(dir, &dit) == FX_OK) check_dit(&dit);
    if (fx_vae_config_load(dir, &vae) == FX_OK) check_vae(&vae);
    if (fx_clip_config_load(dir, &clip) == FX_OK)
        FUZZ_EXPECT(clip.width > 0 && clip.heads > 0 && clip.vocab > 0 && clip.positions > 0 &&
                    clip.layers > 0);
    if (fx_t5_config_load(dir, &t5) == FX_OK)
        FUZZ_EXPECT(t5.width > 0 && t5.heads > 0 && t5.head_dim > 0 && t5.layers > 0 && t5.buckets > 0 &&
                    fx_t5_bucket(-7, t5.buckets, t5.max_distance) < t5.buckets);
    if (fx_scheduler_load(dir, &schedule) == FX_OK) check_schedule(&schedule);
}

/* The getters beyond what the loaders ask for: no fallback, small buffers, the limits of the types. */
static void getters(const char *dir)
{
    static const char *const keys[] = {"a", "shift", "num_layers", "_class_name", "block_out_channels"};
    fx_config c;
    if (fx_config_open(dir, "transformer", "config.json", &c) != FX_OK) return;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int64_t n = 0, list[4];
        double x = 0;
        bool flag;
        char text[8];
        int count = 0;
        if (fx_config_int(&c, keys[i], -5, INT64_MAX, NULL, &n) == FX_OK) FUZZ_EXPECT(n >= -5);
        if (fx_config_int(&c, keys[i], INT64_MIN, 5, NULL, &n) == FX_OK) FUZZ_EXPECT(n <= 5);
        if (fx_config_real(&c, keys[i], -1, 1e300, NULL, &x) == FX_OK) FUZZ_EXPECT(x >= -1 && isfinite(x));
        (void)fx_config_bool(&c, keys[i], NULL, &flag);
        if (fx_config_string(&c, keys[i], NULL, text, sizeof text) == FX_OK) FUZZ_EXPECT(strlen(text) < 8);
        if (fx_config_ints(&c, keys[i], 4, 1, 9, &count, list) == FX_OK)
            for (int j = 0; j < count; j++) FUZZ_EXPECT(count <= 4 && list[j] >= 1 && list[j] <= 9);
        (void)fx_config_only_int(&c, keys[i], 1);
        (void)fx_config_only_bool(&c, keys[i], true);
        (void)fx_config_only_string(&c, keys[i], "b");
    }
    fx_config_close(&c);
}

FUZZ_TARGET(config)
{
    static int ready;
    if (!ready++) make_folders();
    fuzz_write(FILE_NAME, data, size);
    load_all(fuzz_folder());
    getters(fuzz_folder());
    return 0;
}
