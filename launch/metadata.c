/* The text chunks of a picture; see metadata.h. They depend on what changes pixels and on nothing else, so
 * that the same picture is the same file, whoever made it where and when. */
#include "launch/metadata.h"

#include "kernels/ops.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

void fx_metadata_free(fx_metadata *m)
{
    free(m->parameters);
    free(m->json);
    *m = (fx_metadata){0};
}
