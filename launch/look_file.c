/* Recognises a single file given as a model by its first bytes and tensor names; see model_look.h. None of
 * these can be run yet, so the answer is a name and what to do. */
#include "launch/model_look.h"

#include <endian.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/json.h"

enum { HEADER_MAX = 64 << 20 };

static const char advice[] =
    "is not supported yet; give the folder in diffusers layout (model_index.json, transformer/, vae/ ...)";

/* The header of a safetensors file; NULL when it is none. */
static json_t *read_header(FILE *file)
{
    uint64_t length = 0;
    json_t *root = NULL;
    rewind(file);
    if (fread(&length, 1, sizeof length, file) != sizeof length) return NULL;
    length = le64toh(length);
    if (length < 2 || length > HEADER_MAX) return NULL;
    char *text = malloc(length);
    if (text && fread(text, 1, length, file) == length) root = fx_json_parse(text, length, NULL);
    free(text);
    if (root && !json_is_object(root)) json_decref(root), root = NULL;
    return root;
}

static bool has_key(const json_t *header, const char *key)
{
    static const char *const prefixes[] = {"", "model.diffusion_model."};
    char name[256];
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        snprintf(name, sizeof name, "%s%s", prefixes[i], key);
        if (json_object_get(header, name)) return true;
    }
    return false;
}

static bool has_prefix(json_t *header, const char *prefix)
{
    const char *key;
    json_t *value;
    json_object_foreach(header, key, value) if (!strncmp(key, prefix, strlen(prefix))) return true;
    return false;
}

static int64_t columns(const json_t *header, const char *key)
{
    char name[256];
    snprintf(name, sizeof name, "model.diffusion_model.%s", key);
    const json_t *entry = json_object_get(header, key);
    if (!entry) entry = json_object_get(header, name);
    return json_integer_value(json_array_get(json_object_get(entry, "shape"), 1));
}

static const char *bfl_title(const json_t *header)
{
    const int64_t in = columns(header, "img_in.weight");
    if (in == 384) return "the transformer of FLUX.1-Fill";
    if (in == 128) return "the transformer of FLUX.1-Canny or FLUX.1-Depth";
    return has_key(header, "guidance_in.in_layer.weight") ? "the transformer of FLUX.1-dev (or Kontext, Krea)"
                                                          : "the transformer of FLUX.1-schnell";
}

static void name_it(fx_look *l, const char *layout, const char *title)
{
    snprintf(l->layout, sizeof l->layout, "%s", layout);
    snprintf(l->title, sizeof l->title, "%s", title);
}

static void count_tensors(json_t *header, fx_look *l)
{
    const char *key;
    json_t *value, *size;
    size_t i;
    l->part[0].name = "file";
    l->part[0].files = 1;
    json_object_foreach(header, key, value)
    {
        if (!strcmp(key, "__metadata__")) continue;
        int64_t count = 1;
        json_array_foreach(json_object_get(value, "shape"), i,
                           size) if (__builtin_mul_overflow(count, json_integer_value(size), &count)) count =
            0;
        const json_t *at = json_object_get(value, "data_offsets");
        l->part[0].tensors++;
        l->part[0].parameters += count;
        l->part[0].bytes +=
            json_integer_value(json_array_get(at, 1)) - json_integer_value(json_array_get(at, 0));
    }
}

static void look_at_safetensors(json_t *h, fx_look *l)
{
    const bool bfl = has_key(h, "double_blocks.0.img_attn.norm.key_norm.scale") ||
                     has_key(h, "double_blocks.0.img_attn.qkv.weight");
    count_tensors(h, l);
    if (bfl && (has_prefix(h, "vae.") || has_prefix(h, "first_stage_model.")))
        name_it(l, "ComfyUI all-in-one file", bfl_title(h));
    else if (bfl)
        name_it(l, "BFL single file", bfl_title(h));
    else if (has_prefix(h, "transformer_blocks.0.attn.to_q"))
        name_it(l, "diffusers weight file", "a FLUX.1 transformer, or a part of it");
    else if (has_prefix(h, "decoder.conv_in") || has_prefix(h, "encoder.conv_in"))
        name_it(l, "VAE file", "an autoencoder");
    else if (has_prefix(h, "text_model.") || has_prefix(h, "encoder.block.") ||
             has_prefix(h, "shared.weight"))
        name_it(l, "text encoder file", "a CLIP or T5 text encoder");
    else if (has_prefix(h, "lora_") || has_prefix(h, "transformer."))
        name_it(l, "LoRA file", "changes to a model, not a model");
    else
        name_it(l, "safetensors file", "no model that is known here");
    fx_look_problem(l, "this is a %s (%s); a single file %s", l->layout, l->title, advice);
}

void fx_look_file(const char *path, fx_look *l)
{
    unsigned char head[64] = {0};
    FILE *file = fopen(path, "rb");
    const size_t n = file ? fread(head, 1, sizeof head - 1, file) : 0;
    json_t *header = NULL;
    name_it(l, "file", "unknown");
    if (!file)
        fx_look_problem(l, "%s cannot be opened; check its permissions", path);
    else if (n >= 4 && !memcmp(head, "GGUF", 4)) {
        name_it(l, "GGUF file", "quantised weights");
        fx_look_problem(l, "this is a GGUF file; it %s", advice);
    } else if (strstr((char *)head, "version https://git-lfs")) {
        name_it(l, "git-lfs pointer", "a stand-in for a file that was not downloaded");
        fx_look_problem(l, "%s is a git-lfs pointer; the file itself was not downloaded; run 'git lfs pull'",
                        path);
    } else if (!memcmp(head, "PK\003\004", 4) || head[0] == 0x80) {
        name_it(l, "pickle file", "PyTorch weights");
        fx_look_problem(l, "this is a pickle file (.ckpt, .pt, .bin); it can run code when opened, so it is "
                           "not read; give safetensors in diffusers layout");
    } else if ((header = read_header(file)))
        look_at_safetensors(header, l);
    else
        fx_look_problem(l, "%s is no model file that is known here; a diffusers folder is needed; correct -m",
                        path);
    json_decref(header);
    if (file) fclose(file);
}
