/* One component of a model as a table of named tensors, whatever the source: the safetensors files of a
 * folder, or the generator of synthetic models. The weight store (parallel/store.c) asks for shapes while the
 * graph is declared and reads row ranges while it loads. Files stay open in between; nothing is mapped, since
 * page faults on network file systems read in small pieces. */
#include "runtime/io/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "runtime/io/component.h"
#include "runtime/io/file.h"
#include "runtime/io/safetensors.h"
#include "runtime/io/synthetic.h"

enum { SLAB_BYTES = 256 << 10, SAMPLE_BYTES = 4096 }; /* a slab and its conversion stay in a level 2 cache */

typedef struct source_file {
    char path[1024];
    int fd;
    fx_st_header header;
} source_file;

typedef struct named {
    const fx_st_tensor *tensor;
    int32_t file;
} named;

struct fx_checkpoint {
    char label[1024]; /* for messages: the folder, or "synthetic:<component>" */
    char *component;
    bool synthetic;
    uint64_t seed;
    source_file *files;
    int count;
    named *table; /* sorted by name */
    int64_t tensors;
};

/* ---- open ---- */

static fx_status open_files(fx_checkpoint *c, const char *dir, const fx_component *parts)
{
    c->files = calloc((size_t)parts->count, sizeof *c->files);
    FX_CHECK(c->files, FX_ENOMEM, "no memory to open %s", dir);
    for (int i = 0; i < parts->count; i++) {
        source_file *f = &c->files[i];
        uint64_t size = 0;
        FX_TRY(fx_file_join(f->path, sizeof f->path, dir, NULL, parts->files[i]));
        FX_TRY(fx_file_open(f->path, &f->fd, &size));
        c->count = i + 1; /* from here on close() has work to do for this file */
        FX_TRY(fx_safetensors_header(f->fd, f->path, size, &f->header));
        c->tensors += f->header.count;
    }
    return FX_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const named *)a)->tensor->name, ((const named *)b)->tensor->name);
}

static fx_status build_table(fx_checkpoint *c)
{
    int64_t n = 0;
    c->table = calloc((size_t)c->tensors + 1, sizeof *c->table);
    FX_CHECK(c->table, FX_ENOMEM, "no memory for the tensor names of %s", c->label);
    for (int f = 0; f < c->count; f++)
        for (int64_t i = 0; i < c->files[f].header.count; i++)
            c->table[n++] = (named){&c->files[f].header.tensors[i], f};
    qsort(c->table, (size_t)n, sizeof *c->table, by_name);
    for (int64_t i = 1; i < n; i++)
        FX_CHECK(by_name(&c->table[i - 1], &c->table[i]) != 0, FX_EFORMAT,
                 "tensor %s is in %s and in %s; keep one", c->table[i].tensor->name,
                 c->files[c->table[i - 1].file].path, c->files[c->table[i].file].path);
    return FX_OK;
}

static const named *lookup(const fx_checkpoint *c, const char *name)
{
    fx_st_tensor key;
    key.name = (char *)name; /* read only by strcmp */
    const named wanted = {&key, 0};
    return bsearch(&wanted, c->table, (size_t)c->tensors, sizeof *c->table, by_name);
}

/* What the index promises must be where it says. */
static fx_status check_index(const fx_checkpoint *c, const fx_component *parts)
{
    const char *tensor;
    json_t *value;
    json_object_foreach(parts->weight_map, tensor, value)
    {
        const named *found = lookup(c, tensor);
        const char *want = json_string_value(value);
        FX_CHECK(found, FX_EFORMAT, "%s names tensor %s in %s, but that file does not hold it",
                 parts->index_path, tensor, want);
        const char *path = c->files[found->file].path;
        FX_CHECK(strcmp(strrchr(path, '/') + 1, want) == 0, FX_EFORMAT,
                 "%s names tensor %s in %s, but it is in %s", parts->index_path, tensor, want, path);
    }
    return FX_OK;
}

static fx_status checkpoint_new(const char *component, fx_checkpoint **out)
{
    fx_checkpoint *c = calloc(1, sizeof *c);
    *out = c;
    if (c) c->component = strdup(component ? component : "");
    if (c && c->component) return FX_OK;
    fx_checkpoint_close(out);
    return FX_FAIL(FX_ENOMEM, "no memory for a checkpoint");
}

static fx_status open_folder(fx_checkpoint *c, const char *model_dir)
{
    fx_component parts;
    fx_status st;
    const bool part = c->component[0];
    const int n = snprintf(c->label, sizeof c->label, "%s%s%s", model_dir, part ? "/" : "", c->component);
    FX_CHECK(n >= 0 && (size_t)n < sizeof c->label, FX_EINVAL, "path too long: %s", model_dir);
    FX_TRY(fx_component_scan(c->label, &parts));
    FX_TRY_OUT(open_files(c, c->label, &parts));
    FX_TRY_OUT(build_table(c));
    st = check_index(c, &parts);
out:
    fx_component_free(&parts);
    return st;
}

fx_status fx_checkpoint_open(const char *model_dir, const char *component, fx_checkpoint **out)
{
    FX_TRY(checkpoint_new(component, out));
    const fx_status st = open_folder(*out, model_dir);
    if (st != FX_OK) fx_checkpoint_close(out);
    return st;
}

fx_status fx_checkpoint_synthetic(const char *component, uint64_t seed, fx_checkpoint **out)
{
    FX_TRY(checkpoint_new(component, out));
    (*out)->synthetic = true;
    (*out)->seed = seed;
    snprintf((*out)->label, sizeof(*out)->label, "synthetic:%.200s", component);
    return FX_OK;
}

void fx_checkpoint_close(fx_checkpoint **out)
{
    fx_checkpoint *c = *out;
    *out = NULL;
    if (!c) return;
    for (int i = 0; i < c->count; i++) {
        close(c->files[i].fd);
        fx_safetensors_free(&c->files[i].header);
    }
    free(c->files);
    free(c->table);
    free(c->component);
    free(c);
}

bool fx_checkpoint_is_synthetic(const fx_checkpoint *c)
{
    return c->synthetic;
}

/* ---- find ---- */

static void entry_of(const named *n, fx_entry *out)
{
    memset(out, 0, sizeof *out);
    memcpy(out->shape, n->tensor->shape, sizeof out->shape);
    out->ndim = n->tensor->ndim;
    out->dtype = n->tensor->dtype;
    out->tag = n->tensor->tag;
    out->file = n->file;
    out->offset = n->tensor->offset;
}

bool fx_checkpoint_has(const fx_checkpoint *c, const char *name)
{
    return c->synthetic || lookup(c, name);
}

/* "[3072,64]", with ? for any size. */
static const char *shape_text(char buf[140], int ndim, const int64_t shape[])
{
    size_t used = (size_t)snprintf(buf, 140, "[");
    for (int d = 0; d < ndim; d++)
        used += (size_t)(shape[d] < 0
                             ? snprintf(buf + used, 140 - used, "%s?", d ? "," : "")
                             : snprintf(buf + used, 140 - used, "%s%lld", d ? "," : "", (long long)shape[d]));
    snprintf(buf + used, 140 - used, "]");
    return buf;
}

/* Does `found` satisfy the wanted shape? Sizes past the end of either count as 1. Then `found` takes the
 * wanted form. */
static bool fit_shape(int ndim, const int64_t shape[], fx_entry *found)
{
    for (int d = 0; d < FX_MAX_DIMS; d++) {
        const int64_t have = d < found->ndim ? found->shape[d] : 1;
        const int64_t want = d < ndim ? shape[d] : 1;
        if (want >= 0 && have != want) return false;
        found->shape[d] = d < ndim ? have : 0;
    }
    found->ndim = ndim;
    return true;
}

static fx_status find_synthetic(const fx_checkpoint *c, const char *name, int ndim, const int64_t shape[],
                                fx_entry *out)
{
    char text[140];
    memset(out, 0, sizeof *out);
    for (int d = 0; d < ndim; d++) {
        FX_CHECK(shape[d] >= 0, FX_EINVAL,
                 "%s: tensor %s: a synthetic tensor needs its whole shape, asked for %s", c->label, name,
                 shape_text(text, ndim, shape));
        out->shape[d] = shape[d];
    }
    out->ndim = ndim;
    out->dtype = FX_BF16; /* rounded to bf16 once, so that every backend computes with the same weights */
    out->tag = "BF16";
    out->file = -1;
    out->key = fx_synthetic_key(c->component, name, c->seed);
    fx_synthetic_scale(name, ndim, shape, &out->amp, &out->mean);
    return FX_OK;
}

fx_status fx_checkpoint_find(const fx_checkpoint *c, const char *name, int ndim, const int64_t shape[],
                             fx_entry *out)
{
    char want[140], have[140];
    if (c->synthetic) return find_synthetic(c, name, ndim, shape, out);
    const named *n = lookup(c, name);
    FX_CHECK(n, FX_EFORMAT, "%s: tensor %s is missing, wanted %s", c->label, name,
             shape_text(want, ndim, shape));
    entry_of(n, out);
    const char *path = c->files[n->file].path;
    FX_CHECK(out->dtype != FX_DTYPES, FX_EFORMAT,
             "%s: tensor %s: wanted F32, F16 or BF16, file has %s, which is not implemented", path, name,
             out->tag);
    FX_CHECK(fit_shape(ndim, shape, out), FX_EFORMAT, "%s: tensor %s: wanted %s, file has %s", path, name,
             shape_text(want, ndim, shape), shape_text(have, n->tensor->ndim, n->tensor->shape));
    return FX_OK;
}

const char *fx_checkpoint_name(const fx_checkpoint *c, int64_t i, fx_entry *entry)
{
    for (int f = 0; f < c->count && i >= 0; f++) {
        const fx_st_header *h = &c->files[f].header;
        if (i < h->count) {
            const named n = {&h->tensors[i], f};
            if (entry) entry_of(&n, entry);
            return h->tensors[i].name;
        }
        i -= h->count;
    }
    return NULL;
}

int64_t fx_checkpoint_bytes(const fx_checkpoint *c)
{
    int64_t bytes = 0;
    for (int64_t i = 0; i < c->tensors; i++) bytes += (int64_t)c->table[i].tensor->bytes;
    return bytes;
}

/* ---- read ---- */

/* n elements from element `first` of the tensor, in the stored dtype. */
static fx_status fetch(const fx_checkpoint *c, const fx_entry *e, int64_t first, int64_t n, void *dst)
{
    const size_t size = fx_dtype_size(e->dtype);
    const source_file *f = &c->files[e->file];
    return fx_file_read_at(f->fd, f->path, e->offset + (uint64_t)first * size, dst, (size_t)n * size);
}

/* Slab by slab: source bytes, then the conversion. */
static fx_status read_slabs(const fx_checkpoint *c, const fx_entry *e, int64_t first, int64_t n,
                            fx_dtype dtype, char *dst)
{
    const int64_t per = SLAB_BYTES / 8;
    fx_status st = FX_OK;
    char *slab = malloc((size_t)(n < per ? n : per) * 8);
    FX_CHECK(slab || n == 0, FX_ENOMEM, "no memory to read %s", c->label);
    for (int64_t done = 0; done < n && st == FX_OK; done += per) {
        const int64_t m = n - done < per ? n - done : per;
        void *out = dst + (size_t)done * fx_dtype_size(dtype);
        if (e->file < 0)
            fx_synthetic_bf16(e->key, (uint64_t)(first + done), m, e->amp, e->mean, (uint16_t *)slab);
        else
            st = fetch(c, e, first + done, m, slab);
        if (st == FX_OK) fx_convert(out, dtype, slab, e->dtype, m);
    }
    free(slab);
    return st;
}

fx_status fx_checkpoint_read(const fx_checkpoint *c, const fx_entry *e, int64_t row0, int64_t rows,
                             fx_dtype dtype, void *dst)
{
    int64_t per_row = 1;
    const int64_t all = e->ndim > 0 ? e->shape[0] : 1;
    for (int d = 1; d < e->ndim; d++) per_row *= e->shape[d];
    FX_CHECK(dtype <= FX_F16 && e->dtype <= FX_F16, FX_ESHAPE, "%s: cannot read %s as %s", c->label,
             fx_dtype_name(e->dtype), fx_dtype_name(dtype));
    FX_CHECK(row0 >= 0 && rows >= 0 && row0 <= all - rows, FX_ESHAPE, "%s: rows %lld+%lld of %lld", c->label,
             (long long)row0, (long long)rows, (long long)all);
    if (e->file >= 0 && e->dtype == dtype) return fetch(c, e, row0 * per_row, rows * per_row, dst);
    return read_slabs(c, e, row0 * per_row, rows * per_row, dtype, dst);
}

/* ---- hash ---- */

static fx_status hash_samples(const fx_checkpoint *c, XXH3_state_t *state)
{
    char sample[SAMPLE_BYTES];
    for (int f = 0; f < c->count; f++) {
        const source_file *file = &c->files[f];
        XXH3_64bits_update(state, &file->header.hash, sizeof file->header.hash);
        for (int64_t i = 0; i < file->header.count; i++) {
            const fx_st_tensor *t = &file->header.tensors[i];
            const size_t n = t->bytes < sizeof sample ? (size_t)t->bytes : sizeof sample;
            const uint64_t middle =
                (t->bytes - n) / 2; /* the edges of trained matrices are as good, of padded ones not */
            FX_TRY(fx_file_read_at(file->fd, file->path, t->offset + middle, sample, n));
            XXH3_64bits_update(state, sample, n);
        }
    }
    return FX_OK;
}

fx_status fx_checkpoint_hash(const fx_checkpoint *c, uint64_t *hash)
{
    XXH3_state_t *state = XXH3_createState();
    FX_CHECK(state, FX_ENOMEM, "no memory to hash %s", c->label);
    XXH3_64bits_reset(state);
    if (c->synthetic) {
        XXH3_64bits_update(state, c->label, strlen(c->label));
        XXH3_64bits_update(state, &c->seed, sizeof c->seed);
    }
    const fx_status st = hash_samples(c, state);
    *hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return st;
}
