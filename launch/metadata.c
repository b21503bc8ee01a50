/* The text chunks of a picture; see metadata.h. They depend on what changes pixels and on nothing else, so
 * that the same picture is the same file, whoever made it where and when. */
#include "launch/metadata.h"

#include "kernels/ops.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/json.h"
#include "runtime/io/png.h"

void fx_model_name(const char *model, char *out, size_t size)
{
    char *real = strncmp(model, "synthetic:", 10) ? realpath(model, NULL) : NULL;
    const char *from = real ? real : model;
    const char *slash = strrchr(from, '/');
    snprintf(out, size, "%s", slash && slash[1] ? slash + 1 : from);
    free(real);
}

json_t *fx_flag_json(const fx_options *o, const fx_flag *f)
{
    const void *at = (const char *)o + f->offset;
    char number[64];
    if (f->kind == FX_FLAG_INT) return json_integer(*(const int64_t *)at);
    if (f->kind == FX_FLAG_REAL) return json_real(*(const double *)at);
    if (f->kind == FX_FLAG_SWITCH) return json_boolean(*(const bool *)at);
    if (f->kind == FX_FLAG_SEED && *(const uint64_t *)at <= INT64_MAX)
        return json_integer(*(const int64_t *)at);
    return json_string(fx_flag_text(o, f, number, sizeof number));
}

static json_t *make_object(const fx_options *used, const fx_model_facts *facts)
{
    json_t *root = json_object();
    char hash[24], mesh[32];
    for (int i = 0; root && i < fx_flag_count; i++) {
        char key[32];
        if (!fx_flags[i].pixels) continue;
        snprintf(key, sizeof key, "%s", fx_flags[i].name);
        for (char *c = key; *c; c++) *c = *c == '-' ? '_' : *c; /* t5-len -> t5_len */
        json_object_set_new(root, key, fx_flag_json(used, &fx_flags[i]));
    }
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)facts->hash);
    snprintf(mesh, sizeof mesh, "%dx%d", facts->mesh.ulysses, facts->mesh.ring);
    /* guard looks on and computes nothing: its pictures are those of what it watches */
    json_object_set_new(root, "backend", json_string(fx_backend_computing(used->backend)));
    json_object_set_new(root, "model", json_string(facts->kind));
    json_object_set_new(root, "model_hash", json_string(hash));
    json_object_set_new(root, "version", json_string(FX_VERSION));
    if (!facts->guidance) json_object_del(root, "guidance");
    if (!facts->exact) json_object_set_new(root, "mesh", json_string(mesh));
    return root;
}

fx_status fx_metadata_make(const fx_options *used, const fx_model_facts *facts, fx_metadata *out)
{
    char guidance[64] = "";
    json_t *root = make_object(used, facts);
    if (facts->guidance) snprintf(guidance, sizeof guidance, ", Distilled CFG Scale: %.10g", used->guidance);
    *out = (fx_metadata){.json = root ? json_dumps(root, JSON_ENSURE_ASCII | JSON_REAL_PRECISION(10)) : NULL};
    json_decref(root);
    const int n = asprintf(&out->parameters,
                           "%s\nSteps: %lld, Sampler: Euler, CFG scale: 1%s, Seed: %llu, Size: %lldx%lld, "
                           "Model hash: %016llx, Model: %s, Version: fluxpar %s",
                           used->prompt, (long long)used->steps, guidance, (unsigned long long)used->seed,
                           (long long)used->width, (long long)used->height, (unsigned long long)facts->hash,
                           facts->kind, FX_VERSION);
    if (n < 0) out->parameters = NULL;
    if (out->json && out->parameters) return FX_OK;
    fx_metadata_free(out);
    return FX_FAIL(FX_ENOMEM, "no memory for the metadata of the picture");
}

/* ---- the same picture again? ---- */

/* Of the text that is (or would be) in the picture, so that both are read alike. */
static bool key_of(const char *text, char out[FX_METADATA_KEY])
{
    static const char *const fields[] = {"prompt",   "seed",   "width", "height",    "steps",
                                         "guidance", "t5_len", "dtype", "model_hash"};
    json_t *made = fx_json_parse(text, strlen(text), NULL), *asked = json_object();
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        json_t *value = json_object_get(made, fields[i]);
        if (value) json_object_set(asked, fields[i], value);
    }
    char *line = json_object_size(asked) ? json_dumps(asked, JSON_COMPACT | JSON_REAL_PRECISION(10)) : NULL;
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (const char *c = line; c && *c; c++) hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
    snprintf(out, FX_METADATA_KEY, "%016llx", (unsigned long long)hash);
    json_decref(made);
    json_decref(asked);
    free(line);
    return line != NULL;
}

fx_status fx_metadata_key(const fx_options *used, const fx_model_facts *facts, char out[FX_METADATA_KEY])
{
    fx_metadata meta;
    FX_TRY(fx_metadata_make(used, facts, &meta));
    const bool ok = key_of(meta.json, out);
    fx_metadata_free(&meta);
    FX_CHECK(ok, FX_ENOMEM, "no memory for the metadata of the picture");
    return FX_OK;
}

static void take_key(void *ctx, const char *name, const char *text)
{
    if (!strcmp(name, "fluxpar") && !key_of(text, ctx)) *(char *)ctx = 0;
}

bool fx_metadata_is_of(const char *path, const char key[FX_METADATA_KEY])
{
    char found[FX_METADATA_KEY] = "";
    int width, height;
    return fx_png_read_text(path, &width, &height, take_key, found) == FX_OK && !strcmp(found, key);
}

void fx_metadata_free(fx_metadata *m)
{
    free(m->parameters);
    free(m->json);
    *m = (fx_metadata){0};
}
