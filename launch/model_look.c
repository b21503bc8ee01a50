/* Recognises a diffusers folder and what is missing from it; see model_look.h. Kinds: guidance_embeds tells
 * dev from schnell, in_channels tells the editing models (Canny/Depth see two pictures, Fill a picture and a
 * mask), the pipeline class in model_index.json tells Kontext and everything that is not FLUX.1. */
#include "launch/model_look.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/io/checkpoint.h"
#include "runtime/io/json.h"

static const char *const part_names[FX_LOOK_PARTS] = {"transformer", "vae", "text_encoder", "text_encoder_2"};

void fx_look_problem(fx_look *l, const char *fmt, ...)
{
    va_list args;
    if (l->problems == FX_LOOK_PROBLEMS) return;
    va_start(args, fmt);
    vsnprintf(l->problem[l->problems++], sizeof l->problem[0], fmt, args);
    va_end(args);
}

static bool exists(const char *dir, const char *name)
{
    char path[2048];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return !access(path, F_OK);
}

static void refuse(fx_look *l, const char *kind, const char *title)
{
    snprintf(l->kind, sizeof l->kind, "%s", kind);
    snprintf(l->title, sizeof l->title, "%s", title);
    fx_look_problem(
        l, "this is %s; it is not supported yet; use FLUX.1-dev, FLUX.1-schnell or a model trained from them",
        title);
}

/* Other pipelines by class name. FluxPipeline itself says nothing about dev or schnell. */
static void look_at_class(const char *dir, fx_look *l)
{
    static const struct {
        const char *class_name, *kind, *title;
    } known[] = {
        {"FluxKontextPipeline", "flux-kontext", "FLUX.1-Kontext (edits a picture)"},
        {"FluxFillPipeline", "flux-fill", "FLUX.1-Fill (paints into a picture)"},
        {"FluxControlPipeline", "flux-control", "FLUX.1-Canny or FLUX.1-Depth (follows a control picture)"},
        {"Flux2Pipeline", "flux2", "FLUX.2"}};
    char name[128], title[160];
    fx_config config;
    if (!exists(dir, "model_index.json")) {
        fx_look_problem(l, "model_index.json is missing; every diffusers folder has it; copy it from where "
                           "the model came from");
        return;
    }
    if (fx_config_open(dir, NULL, "model_index.json", &config) != FX_OK ||
        fx_config_string(&config, "_class_name", NULL, name, sizeof name) != FX_OK) {
        fx_look_problem(l, "%s", fx_error());
        fx_config_close(&config);
        return;
    }
    fx_config_close(&config);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(name, known[i].class_name)) {
            refuse(l, known[i].kind, known[i].title);
            return;
        }
    if (!strncmp(name, "Flux", 4)) return;
    snprintf(title, sizeof title, "a model for %s, not FLUX.1", name);
    refuse(l, "other", title);
}

static void kind_by_channels(fx_look *l, int64_t latent)
{
    if (l->kind[0]) return;
    if (l->in_channels == 24 * latent && latent)
        refuse(l, "flux-fill", "FLUX.1-Fill (paints into a picture)");
    else if (l->in_channels == 8 * latent && latent)
        refuse(l, "flux-control", "FLUX.1-Canny or FLUX.1-Depth (follows a control picture)");
    else {
        snprintf(l->kind, sizeof l->kind, "%s", l->guidance ? "flux-dev" : "flux-schnell");
        snprintf(l->title, sizeof l->title, "a FLUX.1 text-to-image model %s guidance embedding",
                 l->guidance ? "with" : "without");
    }
}

static bool look_at_transformer(const char *dir, fx_look *l)
{
    const int64_t patch = 1, no_channels = 64;
    const bool no = false;
    fx_config c;
    bool good = false;
    if (fx_config_open(dir, "transformer", "config.json", &c) != FX_OK) return false;
    good = fx_config_int(&c, "in_channels", 1, 1 << 20, &no_channels, &l->in_channels) == FX_OK &&
           fx_config_int(&c, "num_attention_heads", 1, 65536, NULL, &l->heads) == FX_OK &&
           fx_config_int(&c, "attention_head_dim", 1, 65536, NULL, &l->head_dim) == FX_OK &&
           fx_config_int(&c, "num_layers", 0, 4096, NULL, &l->double_blocks) == FX_OK &&
           fx_config_int(&c, "num_single_layers", 0, 4096, NULL, &l->single_blocks) == FX_OK &&
           fx_config_bool(&c, "guidance_embeds", &no, &l->guidance) == FX_OK &&
           fx_config_int(&c, "patch_size", 1, 16, &patch, &(int64_t){0}) == FX_OK;
    fx_config_close(&c);
    return good;
}

static bool look_at_vae(const char *dir, fx_look *l, int64_t *latent)
{
    int64_t widths[16];
    int levels = 0;
    fx_config c;
    if (fx_config_open(dir, "vae", "config.json", &c) != FX_OK) return false;
    const bool good = fx_config_ints(&c, "block_out_channels", 16, 1, 1 << 20, &levels, widths) == FX_OK &&
                      fx_config_int(&c, "latent_channels", 1, 1 << 16, NULL, latent) == FX_OK;
    fx_config_close(&c);
    l->factor = good ? (int64_t)1 << (levels - 1) : 0;
    l->multiple = 2 * l->factor;
    return good;
}

static bool has_weights(const char *dir, const char *part)
{
    char path[2048];
    bool found = false;
    snprintf(path, sizeof path, "%s/%s", dir, part);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        const size_t n = strlen(e->d_name);
        found |= n > 12 && !strcmp(e->d_name + n - 12, ".safetensors");
    }
    if (d) closedir(d);
    return found;
}

static void look_for_parts(const char *dir, fx_look *l)
{
    for (int i = 0; i < FX_LOOK_PARTS; i++) {
        char config[64];
        const char *name = part_names[i];
        snprintf(config, sizeof config, "%s/config.json", name);
        l->part[i].name = name;
        if (!exists(dir, name))
            fx_look_problem(l,
                            "the folder %s is missing; the model needs it; download the whole model, or copy "
                            "the folder from one of its kind",
                            name);
        else if (!exists(dir, config))
            fx_look_problem(l, "%s is missing; it holds the sizes; download it again", config);
        else if (!has_weights(dir, name))
            fx_look_problem(l,
                            "%s holds no .safetensors file; the weights are missing; download them (pickle "
                            "files, .bin and .pt, are not read)",
                            name);
    }
    if (!exists(dir, "scheduler/scheduler_config.json"))
        fx_look_problem(
            l, "scheduler/scheduler_config.json is missing; it holds the noise schedule; download it");
    if (!exists(dir, "tokenizer/tokenizer.json") &&
        !(exists(dir, "tokenizer/vocab.json") && exists(dir, "tokenizer/merges.txt")))
        fx_look_problem(l, "tokenizer holds neither vocab.json and merges.txt nor tokenizer.json; CLIP needs "
                           "them; download them");
    if (!exists(dir, "tokenizer_2/tokenizer.json") && !exists(dir, "tokenizer_2/spiece.model"))
        fx_look_problem(
            l, "tokenizer_2 holds neither spiece.model nor tokenizer.json; T5 needs one; download it");
}

static void look_at_folder(const char *dir, fx_look *l)
{
    int64_t latent = 0;
    bool component = exists(dir, "config.json") && !exists(dir, "transformer");
    snprintf(l->layout, sizeof l->layout, "diffusers folder");
    if (component || (!exists(dir, "transformer") && !exists(dir, "model_index.json"))) {
        snprintf(l->layout, sizeof l->layout, component ? "one component of a model" : "folder");
        fx_look_problem(l,
                        component ? "%s holds one component (config.json but no transformer/); a model is "
                                    "the folder above; give that one"
                                  : "%s is no model folder (no model_index.json, no transformer/); a "
                                    "diffusers folder is needed; correct -m",
                        dir);
        return;
    }
    look_at_class(dir, l);
    look_for_parts(dir, l);
    if (exists(dir, "vae/config.json") && !look_at_vae(dir, l, &latent)) fx_look_problem(l, "%s", fx_error());
    if (!exists(dir, "transformer/config.json")) return;
    if (!look_at_transformer(dir, l))
        fx_look_problem(l, "%s", fx_error());
    else {
        l->configs = l->multiple > 0;
        kind_by_channels(l, latent);
    }
}

static void look_at_synthetic(const char *name, fx_look *l)
{
    const bool dev = !strncmp(name, "synthetic:flux-dev", 18),
               schnell = !strncmp(name, "synthetic:flux-schnell", 22);
    const char *rest = name + (dev ? 18 : 22);
    int doubles = 19, singles = 38, used = 0;
    snprintf(l->layout, sizeof l->layout, "synthetic");
    const bool depth = (dev || schnell) &&
                       (!*rest || (sscanf(rest, ":%d+%d%n", &doubles, &singles, &used) == 2 && !rest[used]));
    if (!depth || doubles < 0 || singles < 0 || doubles + singles < 1) {
        fx_look_problem(l,
                        "%s is not known; synthetic models are synthetic:flux-dev and "
                        "synthetic:flux-schnell, with a depth such as :1+2; correct -m",
                        name);
        return;
    }
    *l = (fx_look){.configs = true,
                   .guidance = dev,
                   .in_channels = 64,
                   .heads = 24,
                   .head_dim = 128,
                   .factor = 8,
                   .multiple = 16,
                   .double_blocks = doubles,
                   .single_blocks = singles};
    snprintf(l->layout, sizeof l->layout, "synthetic");
    snprintf(l->kind, sizeof l->kind, "%s", dev ? "flux-dev" : "flux-schnell");
    snprintf(l->title, sizeof l->title, "random numbers in the sizes of FLUX.1-%s, for measurements",
             dev ? "dev" : "schnell");
}

fx_status fx_look_at(const char *path, fx_look *l)
{
    struct stat info;
    *l = (fx_look){0};
    if (!strncmp(path, "synthetic:", 10)) {
        look_at_synthetic(path, l);
        return FX_OK;
    }
    FX_CHECK(!stat(path, &info), FX_EREAD, "model %s cannot be read; %s; correct the path", path,
             strerror(errno));
    if (S_ISDIR(info.st_mode))
        look_at_folder(path, l);
    else
        fx_look_file(path, l);
    return FX_OK;
}

static fx_status count_part(const char *path, fx_look_part *part, uint64_t *hash)
{
    fx_checkpoint *file = NULL;
    fx_entry entry;
    FX_TRY(fx_checkpoint_open(path, part->name, &file));
    for (int64_t i = 0; fx_checkpoint_name(file, i, &entry); i++) {
        int64_t count = 1;
        for (int d = 0; d < entry.ndim; d++) count *= entry.shape[d];
        part->tensors++;
        part->parameters += count;
        if ((unsigned)entry.dtype < FX_DTYPES) part->of_dtype[entry.dtype]++;
        if (entry.file >= part->files) part->files = entry.file + 1;
    }
    part->bytes = fx_checkpoint_bytes(file);
    const fx_status st = fx_checkpoint_hash(file, hash);
    fx_checkpoint_close(&file);
    return st;
}

/* The model's hash as runtime/model.c makes it, so that it can be compared with the one in a picture. */
void fx_look_weights(const char *path, fx_look *l)
{
    uint64_t hash = 0;
    bool whole = true;
    for (int i = 0; i < FX_LOOK_PARTS; i++) {
        uint64_t part = 0;
        whole = whole && l->part[i].name && has_weights(path, l->part[i].name);
        if (!l->part[i].name || !has_weights(path, l->part[i].name)) continue;
        const fx_status st = count_part(path, &l->part[i], &part);
        if (st != FX_OK) fx_look_problem(l, "%s", fx_error());
        whole = whole && st == FX_OK;
        hash = (hash ^ part) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    if (whole) l->hash = hash;
}
