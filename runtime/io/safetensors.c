/* The safetensors container: 8 bytes of header length (little endian), a JSON header {"name": {"dtype",
 * "shape", "data_offsets"}}, then the tensors without gaps. Files come from downloads and are not trusted:
 * after this file has accepted a header, every (offset, bytes) lies inside the file and belongs to one tensor
 * alone. Format: github.com/huggingface/safetensors, README "Format" */
#include "runtime/io/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "runtime/io/file.h"
#include "runtime/io/json.h"

enum { MAX_HEADER = 100 * 1000 * 1000 };

typedef struct type_info {
    const char *tag;
    unsigned bits;
    fx_dtype dtype;
} type_info;

static const type_info types[] = {
    {"F32", 32, FX_F32},           {"BF16", 16, FX_BF16},     {"F16", 16, FX_F16},
    {"F64", 64, FX_F64},           {"I64", 64, FX_DTYPES},    {"I32", 32, FX_DTYPES},
    {"I16", 16, FX_DTYPES},        {"I8", 8, FX_DTYPES},      {"U64", 64, FX_DTYPES},
    {"U32", 32, FX_DTYPES},        {"U16", 16, FX_DTYPES},    {"U8", 8, FX_DTYPES},
    {"BOOL", 8, FX_DTYPES},        {"F8_E4M3", 8, FX_DTYPES}, {"F8_E5M2", 8, FX_DTYPES},
    {"F8_E8M0", 8, FX_DTYPES},     {"F6_E2M3", 6, FX_DTYPES}, {"F6_E3M2", 6, FX_DTYPES},
    {"F4", 4, FX_DTYPES},          {"C64", 64, FX_DTYPES},    {"F8_E4M3FNUZ", 8, FX_DTYPES},
    {"F8_E5M2FNUZ", 8, FX_DTYPES},
};

static fx_status parse_type(const char *path, const char *name, const json_t *info, const type_info **out)
{
    const char *tag = json_string_value(json_object_get(info, "dtype"));
    for (size_t i = 0; tag && i < sizeof types / sizeof *types; i++)
        if (strcmp(types[i].tag, tag) == 0) {
            *out = &types[i];
            return FX_OK;
        }
    return FX_FAIL(FX_EFORMAT, "%s: tensor %s: unknown dtype \"%.40s\"", path, name, tag ? tag : "(none)");
}

/* Fills shape and the number of bits the tensor takes, which must not overflow. */
static fx_status parse_shape(const char *path, const json_t *info, unsigned bits, fx_st_tensor *t,
                             uint64_t *total)
{
    const json_t *shape = json_object_get(info, "shape");
    const size_t ndim = json_array_size(shape);
    *total = bits;
    FX_CHECK(json_is_array(shape) && ndim <= FX_MAX_DIMS, FX_EFORMAT,
             "%s: tensor %s: wanted a shape of at most %d sizes, found %zu", path, t->name, FX_MAX_DIMS,
             ndim);
    for (size_t d = 0; d < ndim; d++) {
        const json_t *size = json_array_get(shape, d);
        const int64_t n = json_is_integer(size) ? json_integer_value(size) : -1;
        FX_CHECK(n >= 0, FX_EFORMAT, "%s: tensor %s: size %zu of its shape is not a number from 0", path,
                 t->name, d);
        FX_CHECK(!__builtin_mul_overflow(*total, (uint64_t)n, total), FX_EFORMAT,
                 "%s: tensor %s: its shape overflows 64 bits", path, t->name);
        t->shape[d] = n;
    }
    t->ndim = (int32_t)ndim;
    return FX_OK;
}

/* [begin, end) relative to the data section, both non-negative integers in order. */
static bool parse_offsets(const json_t *info, uint64_t *begin, uint64_t *end)
{
    const json_t *pair = json_object_get(info, "data_offsets");
    const json_t *a = json_array_get(pair, 0), *b = json_array_get(pair, 1);
    if (json_array_size(pair) != 2 || !json_is_integer(a) || !json_is_integer(b)) return false;
    if (json_integer_value(a) < 0 || json_integer_value(b) < json_integer_value(a)) return false;
    *begin = (uint64_t)json_integer_value(a);
    *end = (uint64_t)json_integer_value(b);
    return true;
}

static fx_status parse_tensor(const char *path, const char *name, const json_t *info, fx_st_tensor *t)
{
    const type_info *type = NULL;
    uint64_t bits = 0, begin = 0, end = 0;
    t->name = strdup(name);
    FX_CHECK(t->name, FX_ENOMEM, "no memory for the header of %s", path);
    FX_CHECK(json_is_object(info), FX_EFORMAT, "%s: tensor %s: its header entry is not an object", path,
             name);
    FX_TRY(parse_type(path, name, info, &type));
    FX_TRY(parse_shape(path, info, type->bits, t, &bits));
    FX_CHECK(parse_offsets(info, &begin, &end), FX_EFORMAT,
             "%s: tensor %s: data_offsets are not [begin, end]", path, name);
    FX_CHECK(bits % 8 == 0 && end - begin == bits / 8, FX_EFORMAT,
             "%s: tensor %s: shape and dtype %s make %llu bytes, data_offsets span %llu", path, name,
             type->tag, (unsigned long long)(bits / 8), (unsigned long long)(end - begin));
    t->tag = type->tag;
    t->dtype = type->dtype;
    t->offset = begin;
    t->bytes = end - begin;
    return FX_OK;
}

static int by_offset(const void *a, const void *b)
{
    const fx_st_tensor *x = a, *y = b;
    int order = fx_order(x->offset, y->offset);
    if (!order) order = fx_order(x->bytes, y->bytes); /* empty tensors share an offset */
    return order ? order : strcmp(x->name, y->name);
}

/* Tensors must tile the data section [0, data_bytes) exactly; then offsets become offsets in the file. */
static fx_status check_tiling(const char *path, uint64_t data_start, uint64_t data_bytes, fx_st_header *h)
{
    uint64_t end = 0;
    qsort(h->tensors, (size_t)h->count, sizeof *h->tensors, by_offset);
    for (int64_t i = 0; i < h->count; i++) {
        fx_st_tensor *t = &h->tensors[i];
        FX_CHECK(t->offset >= end, FX_EFORMAT, "%s: tensors %s and %s overlap; the file is damaged", path,
                 t[-1].name, t->name);
        FX_CHECK(t->offset == end, FX_EFORMAT,
                 "%s: %llu bytes before tensor %s belong to no tensor; the file is damaged", path,
                 (unsigned long long)(t->offset - end), t->name);
        end += t->bytes;
        t->offset += data_start;
    }
    FX_CHECK(data_bytes >= end, FX_EFORMAT, "%s is %llu bytes, its header says %llu; download incomplete",
             path, (unsigned long long)(data_start + data_bytes), (unsigned long long)(data_start + end));
    FX_CHECK(data_bytes == end, FX_EFORMAT,
             "%s has %llu trailing bytes after its last tensor; the file is damaged", path,
             (unsigned long long)(data_bytes - end));
    return FX_OK;
}

static fx_status parse_tensors(const char *path, json_t *root, fx_st_header *h)
{
    const char *name;
    json_t *info;
    FX_CHECK(json_is_object(root), FX_EFORMAT, "%s: its header is not a JSON object", path);
    h->tensors = calloc(json_object_size(root) + 1, sizeof *h->tensors);
    FX_CHECK(h->tensors, FX_ENOMEM, "no memory for the header of %s", path);
    json_object_foreach(root, name, info)
    {
        if (strcmp(name, "__metadata__") == 0) continue;
        FX_TRY(parse_tensor(path, name, info, &h->tensors[h->count++]));
    }
    return FX_OK;
}

/* The header's text: length and first bytes are judged before memory is taken for it. */
static fx_status read_text(int fd, const char *path, uint64_t size, char **text, uint64_t *length)
{
    unsigned char head[64];
    const size_t n = size < sizeof head ? (size_t)size : sizeof head;
    FX_TRY(fx_file_read_at(fd, path, 0, head, n));
    FX_TRY(fx_file_refuse_lfs(path, (const char *)head, n, size));
    FX_CHECK(n > 8, FX_EFORMAT, "%s is %llu bytes, too short for a safetensors file; download incomplete?",
             path, (unsigned long long)size);
    *length = 0;
    for (int i = 7; i >= 0; i--) *length = *length << 8 | head[i];
    FX_CHECK(head[8] == '{' && *length >= 2 && *length <= MAX_HEADER, FX_EFORMAT,
             "%s is not a safetensors file (a header of %llu bytes)", path, (unsigned long long)*length);
    FX_CHECK(*length <= size - 8, FX_EFORMAT,
             "%s is %llu bytes, its header alone takes %llu; download incomplete", path,
             (unsigned long long)size, (unsigned long long)(*length + 8));
    *text = malloc((size_t)*length);
    FX_CHECK(*text, FX_ENOMEM, "no memory for the header of %s (%llu bytes)", path,
             (unsigned long long)*length);
    return fx_file_read_at(fd, path, 8, *text, (size_t)*length);
}

fx_status fx_safetensors_header(int fd, const char *path, uint64_t size, fx_st_header *out)
{
    char *text = NULL;
    json_t *root = NULL;
    json_error_t error;
    uint64_t length = 0;
    fx_status st;
    memset(out, 0, sizeof *out);
    FX_TRY_OUT(read_text(fd, path, size, &text, &length));
    out->hash = XXH3_64bits_withSeed(text, (size_t)length, size);
    root = fx_json_parse(text, (size_t)length, &error);
    if (!root) {
        st = FX_FAIL(FX_EFORMAT, "%s: its header is not valid JSON; byte %d: %s", path, error.position,
                     error.text);
        goto out;
    }
    FX_TRY_OUT(parse_tensors(path, root, out));
    st = check_tiling(path, length + 8, size - 8 - length, out);
out:
    json_decref(root);
    free(text);
    if (st != FX_OK) fx_safetensors_free(out);
    return st;
}

void fx_safetensors_free(fx_st_header *h)
{
    for (int64_t i = 0; i < h->count; i++) free(h->tensors[i].name);
    free(h->tensors);
    memset(h, 0, sizeof *h);
}
