/* A component folder of a checkpoint, as downloads leave it: one safetensors file, shards with an index,
 * shards without one, variants beside the standard file. This decides which files are the model; checkpoint.c
 * opens them. Names from an index are untrusted: none may lead out of the folder. */
#include "runtime/io/component.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/file.h"
#include "runtime/io/json.h"

enum { INDEX_MAX_BYTES = 64 << 20 };

static const char *const stems[] = {"diffusion_pytorch_model.safetensors", "model.safetensors"};

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static fx_status add_name(char ***list, int *count, const char *name)
{
    char **grown = realloc(*list, ((size_t)*count + 1) * sizeof **list);
    FX_CHECK(grown, FX_ENOMEM, "no memory for a list of files");
    *list = grown;
    (*list)[*count] = strdup(name);
    FX_CHECK((*list)[*count], FX_ENOMEM, "no memory for a list of files");
    (*count)++;
    return FX_OK;
}

static void free_names(char **list, int count)
{
    for (int i = 0; i < count; i++) free(list[i]);
    free(list);
}

/* Sorted names in dir; hidden ones are left out (downloaders keep their state there). */
static fx_status list_folder(const char *dir, char ***list, int *count)
{
    fx_status st = FX_OK;
    DIR *d = opendir(dir);
    FX_CHECK(d, FX_EREAD, "cannot open folder %s; %s; is this a FLUX.1 model folder in diffusers layout?",
             dir, strerror(errno));
    for (struct dirent *e = readdir(d); e && st == FX_OK; e = readdir(d))
        if (e->d_name[0] != '.') st = add_name(list, count, e->d_name);
    closedir(d);
    if (*count) qsort(*list, (size_t)*count, sizeof **list, by_name);
    return st;
}

static bool contains(char *const *list, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(list[i], name) == 0) return true;
    return false;
}

/* The index to use, or NULL; several without a standard name cannot be told apart. */
static fx_status pick_index(const char *dir, char *const *names, int count, const char **out)
{
    char standard[80];
    int found = 0;
    *out = NULL;
    for (int i = 0; i < count; i++) {
        if (!ends_with(names[i], ".safetensors.index.json")) continue;
        found++;
        *out = names[i];
    }
    for (size_t i = 0; i < 2 && found > 1; i++) {
        snprintf(standard, sizeof standard, "%s.index.json", stems[i]);
        for (int j = 0; j < count; j++)
            if (strcmp(names[j], standard) == 0) {
                *out = names[j];
                return FX_OK;
            }
    }
    FX_CHECK(found <= 1, FX_EFORMAT, "%s holds %d *.safetensors.index.json files; keep one", dir, found);
    return FX_OK;
}

/* "x-00002-of-00003.safetensors" -> 3; 0 for any other name. */
static int shard_total(const char *name, int *number)
{
    int total = 0;
    const char *p = strstr(name, "-of-");
    if (!p || p - name < 6) return 0;
    return sscanf(p - 6, "-%5d-of-%5d.safetensors", number, &total) == 2 ? total : 0;
}

/* Without an index the file names are the only sign of a shard that was not downloaded. */
static fx_status check_shards(const char *dir, const fx_component *c)
{
    for (int i = 0; i < c->count; i++) {
        int number = 0, present = 0;
        const int total = shard_total(c->files[i], &number);
        for (int j = 0; j < c->count; j++) present += shard_total(c->files[j], &number) == total;
        FX_CHECK(!total || present == total, FX_EREAD,
                 "%s: %d of %d shards are there (like %s); download incomplete", dir, present, total,
                 c->files[i]);
    }
    return FX_OK;
}

static fx_status nothing_found(const char *dir, char *const *names, int count)
{
    static const char *const others[] = {".bin", ".ckpt", ".pt", ".pth", ".gguf", ".msgpack"};
    for (int i = 0; i < count; i++)
        for (size_t j = 0; j < sizeof others / sizeof *others; j++)
            if (ends_with(names[i], others[j]))
                return FX_FAIL(
                    FX_EREAD,
                    "no *.safetensors in %s; %s is a format that is not read; convert it to safetensors", dir,
                    names[i]);
    return FX_FAIL(FX_EREAD, "no *.safetensors in %s; the weights are missing; download incomplete?", dir);
}

static fx_status files_without_index(const char *dir, char *const *names, int count, fx_component *c)
{
    for (size_t i = 0; i < 2; i++)
        if (contains(names, count, stems[i])) return add_name(&c->files, &c->count, stems[i]);
    for (int i = 0; i < count; i++)
        if (ends_with(names[i], ".safetensors")) FX_TRY(add_name(&c->files, &c->count, names[i]));
    if (!c->count) return nothing_found(dir, names, count);
    return check_shards(dir, c);
}

static fx_status files_of_index(const char *dir, const char *index, char *const *names, int count,
                                fx_component *c)
{
    const char *tensor;
    json_t *value, *root = NULL;
    FX_TRY(fx_file_join(c->index_path, sizeof c->index_path, dir, NULL, index));
    FX_TRY(fx_json_load(c->index_path, INDEX_MAX_BYTES, &root));
    c->weight_map = json_incref(json_object_get(root, "weight_map"));
    json_decref(root);
    FX_CHECK(json_is_object(c->weight_map) && json_object_size(c->weight_map), FX_EFORMAT,
             "%s: wanted an object \"weight_map\" that names a file for each tensor", c->index_path);
    json_object_foreach(c->weight_map, tensor, value)
    {
        const char *file = json_string_value(value);
        FX_CHECK(file && file[0] && file[0] != '.' && !strchr(file, '/') && !strchr(file, '\\'), FX_EFORMAT,
                 "%s: tensor %s: wanted the name of a file in this folder, found \"%s\"", c->index_path,
                 tensor, file ? file : "(not a string)");
        FX_CHECK(contains(names, count, file), FX_EREAD,
                 "%s names %s, which is not in the folder; download incomplete", c->index_path, file);
        if (!contains(c->files, c->count, file)) FX_TRY(add_name(&c->files, &c->count, file));
    }
    qsort(c->files, (size_t)c->count, sizeof *c->files, by_name);
    return FX_OK;
}

fx_status fx_component_scan(const char *dir, fx_component *out)
{
    char **names = NULL;
    const char *index = NULL;
    int count = 0;
    fx_status st;
    memset(out, 0, sizeof *out);
    FX_TRY_OUT(list_folder(dir, &names, &count));
    FX_TRY_OUT(pick_index(dir, names, count, &index));
    st = index ? files_of_index(dir, index, names, count, out) : files_without_index(dir, names, count, out);
out:
    free_names(names, count);
    if (st != FX_OK) fx_component_free(out);
    return st;
}

void fx_component_free(fx_component *c)
{
    free_names(c->files, c->count);
    json_decref(c->weight_map);
    memset(c, 0, sizeof *c);
}
