/* tool_materialize GOLDEN_DIR OUT_DIR: a golden model folder holds configs and tokenizers, but no weights.
 * This copies it and writes the safetensors files that manifest.json lists, from the generator of
 * runtime/io/synthetic.c; the bytes are those of tests/goldens/rng.py. The folders golden/ and the manifest
 * itself are not copied. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/io/checkpoint.h"
#include "runtime/io/json.h"

enum { CHUNK = 1 << 16 };

static fx_status copy_file(const char *from, const char *to)
{
    char buf[1 << 14];
    size_t n;
    FILE *in = fopen(from, "rb"), *out = in ? fopen(to, "wb") : NULL;
    bool ok = in && out;
    while (ok && (n = fread(buf, 1, sizeof buf, in)) > 0) ok = fwrite(buf, 1, n, out) == n;
    if (in && ferror(in)) ok = false;
    if (in) fclose(in);
    if (out && fclose(out) != 0) ok = false;
    FX_CHECK(ok, FX_EWRITE, "cannot copy %s to %s; %s", from, to, strerror(errno));
    return FX_OK;
}

static fx_status make_folder(const char *path)
{
    FX_CHECK(mkdir(path, 0777) == 0 || errno == EEXIST, FX_EWRITE, "cannot create %s; %s", path,
             strerror(errno));
    return FX_OK;
}

/* Everything below `from`, except what belongs to the test alone. */
static fx_status copy_tree(const char *from, const char *to)
{
    char a[1024], b[1024];
    fx_status st = FX_OK;
    FX_TRY(make_folder(to));
    DIR *d = opendir(from);
    FX_CHECK(d, FX_EREAD, "cannot open %s; %s", from, strerror(errno));
    for (struct dirent *e = readdir(d); e && st == FX_OK; e = readdir(d)) {
        struct stat info;
        if (e->d_name[0] == '.' || strcmp(e->d_name, "golden") == 0 ||
            strcmp(e->d_name, "manifest.json") == 0)
            continue;
        const int n = snprintf(a, sizeof a, "%s/%s", from, e->d_name),
                  m = snprintf(b, sizeof b, "%s/%s", to, e->d_name);
        if (n >= (int)sizeof a || m >= (int)sizeof b)
            st = FX_FAIL(FX_EINVAL, "path too long: %s", from);
        else if (stat(a, &info) == 0 && S_ISDIR(info.st_mode))
            st = copy_tree(a, b);
        else
            st = copy_file(a, b);
    }
    closedir(d);
    return st;
}

static fx_dtype dtype_of(const char *tag)
{
    if (tag && strcmp(tag, "F32") == 0) return FX_F32;
    if (tag && strcmp(tag, "F16") == 0) return FX_F16;
    return tag && strcmp(tag, "BF16") == 0 ? FX_BF16 : FX_DTYPES;
}

static int64_t elements(const json_t *shape)
{
    int64_t n = 1;
    for (size_t i = 0; i < json_array_size(shape); i++) n *= json_integer_value(json_array_get(shape, i));
    return n;
}

/* The safetensors header of one file, padded to 8 bytes as other writers do; free the result. */
static char *make_header(const json_t *tensors, size_t *size)
{
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt"), *t;
    int64_t offset = 0;
    size_t i;
    json_array_foreach(tensors, i, t)
    {
        json_t *shape = json_object_get(t, "shape");
        const char *tag = json_string_value(json_object_get(t, "dtype"));
        const int64_t end = offset + elements(shape) * (int64_t)fx_dtype_size(dtype_of(tag));
        json_object_set_new(header, json_string_value(json_object_get(t, "name")),
                            json_pack("{s:s,s:O,s:[I,I]}", "dtype", tag, "shape", shape, "data_offsets",
                                      (json_int_t)offset, (json_int_t)end));
        offset = end;
    }
    char *text = json_dumps(header, JSON_COMPACT | JSON_ENSURE_ASCII);
    json_decref(header);
    const size_t n = text ? strlen(text) : 0;
    char *padded = text ? malloc(n + 8) : NULL;
    if (!padded) return NULL;
    memcpy(padded, text, n);
    memset(padded + n, ' ', 8);
    free(text);
    *size = (n + 7) / 8 * 8;
    return padded;
}

static bool write_header(FILE *f, const json_t *tensors)
{
    unsigned char length[8];
    size_t n = 0;
    char *header = make_header(tensors, &n);
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)(n >> (8 * i));
    const bool ok = header && fwrite(length, 1, 8, f) == 8 && fwrite(header, 1, n, f) == n;
    free(header);
    return ok;
}

static bool write_tensor(FILE *f, const char *component, uint64_t seed, json_t *t)
{
    static float values[CHUNK];
    static char bytes[CHUNK * 4];
    const fx_dtype dtype = dtype_of(json_string_value(json_object_get(t, "dtype")));
    const uint64_t key = fx_synthetic_key(component, json_string_value(json_object_get(t, "name")), seed);
    const float amp = (float)json_number_value(json_object_get(t, "amp"));
    const float mean = (float)json_number_value(json_object_get(t, "mean"));
    const int64_t n = elements(json_object_get(t, "shape"));
    bool ok = true;
    for (int64_t i = 0; i < n && ok; i += CHUNK) {
        const int64_t m = n - i < CHUNK ? n - i : CHUNK;
        fx_synthetic_fill(key, (uint64_t)i, m, amp, mean, values);
        fx_convert(bytes, dtype, values, FX_F32, m);
        ok = fwrite(bytes, fx_dtype_size(dtype), (size_t)m, f) == (size_t)m;
    }
    return ok;
}

static fx_status check_tensors(const char *path, const json_t *tensors)
{
    size_t i;
    json_t *t;
    FX_CHECK(json_array_size(tensors) > 0, FX_EFORMAT, "manifest: %s has no tensors", path);
    json_array_foreach(tensors, i, t)
    {
        const bool ok =
            json_is_string(json_object_get(t, "name")) && json_is_array(json_object_get(t, "shape")) &&
            json_is_number(json_object_get(t, "amp")) && json_is_number(json_object_get(t, "mean")) &&
            dtype_of(json_string_value(json_object_get(t, "dtype"))) != FX_DTYPES;
        FX_CHECK(ok, FX_EFORMAT, "manifest: %s: tensor %zu is incomplete", path, i);
    }
    return FX_OK;
}

static fx_status write_file(const char *out_dir, uint64_t seed, json_t *file)
{
    char full[1024], component[256] = "";
    const char *path = json_string_value(json_object_get(file, "path"));
    const json_t *tensors = json_object_get(file, "tensors");
    const char *slash = path ? strchr(path, '/') : NULL;
    size_t i;
    json_t *t;
    FX_CHECK(slash && slash - path < 256, FX_EFORMAT, "manifest: a path must be component/file.safetensors");
    memcpy(component, path, (size_t)(slash - path));
    FX_TRY(check_tensors(path, tensors));
    snprintf(full, sizeof full, "%s/%s", out_dir, component);
    FX_TRY(make_folder(full));
    snprintf(full, sizeof full, "%s/%s", out_dir, path);
    FILE *f = fopen(full, "wb");
    FX_CHECK(f, FX_EWRITE, "cannot write %s; %s", full, strerror(errno));
    bool ok = write_header(f, tensors);
    json_array_foreach(tensors, i, t) ok = ok && write_tensor(f, component, seed, t);
    if (fclose(f) != 0) ok = false;
    FX_CHECK(ok, FX_EWRITE, "cannot write %s; %s", full, strerror(errno));
    return FX_OK;
}

static fx_status materialize(const char *golden, const char *out_dir)
{
    char path[1024];
    json_t *manifest, *file;
    size_t i;
    fx_status st = FX_OK;
    FX_TRY(copy_tree(golden, out_dir));
    snprintf(path, sizeof path, "%s/manifest.json", golden);
    FX_TRY(fx_json_load(path, 0, &manifest));
    const uint64_t seed = (uint64_t)json_integer_value(json_object_get(manifest, "seed"));
    json_array_foreach(json_object_get(manifest, "files"), i, file)
    {
        if (st == FX_OK) st = write_file(out_dir, seed, file);
    }
    json_decref(manifest);
    return st;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: tool_materialize GOLDEN_DIR OUT_DIR\n");
        return 2;
    }
    const fx_status st = materialize(argv[1], argv[2]);
    if (st != FX_OK) fprintf(stderr, "tool_materialize: %s\n", fx_error());
    return fx_exit_code(st);
}
