/* NumPy arrays on disk: --dump writes the stages of a run, tests read the goldens they are compared with.
 * Format: numpy.lib.format, version 1.0: magic, header length, a Python dict as text, then the data. */
#include "runtime/io/npy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/io/file.h"

static const char magic[8] = {(char)0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0};
#define NPY_MAX_BYTES ((size_t)1 << 40)

/* ---- write ---- */

static const char *descr_of(fx_dtype dtype)
{
    switch (dtype) {
    case FX_F64: return "<f8";
    case FX_F32:
    case FX_BF16: return "<f4"; /* NumPy has no bf16; f32 holds it exactly */
    case FX_F16: return "<f2";
    case FX_I32: return "<i4";
    case FX_U8: return "|u1";
    case FX_DTYPES: break;
    }
    return NULL;
}

/* Magic, length and dict, padded with spaces to a multiple of 64; returns the size. */
static size_t make_header(fx_tensor t, char buf[256])
{
    size_t n = 10;
    memcpy(buf, magic, 8);
    n += (size_t)snprintf(buf + n, 256 - n, "{'descr': '%s', 'fortran_order': False, 'shape': (",
                          descr_of(t.dtype));
    for (int d = 0; d < t.ndim; d++)
        n += (size_t)snprintf(buf + n, 256 - n, "%s%lld", d ? ", " : "", (long long)t.shape[d]);
    n += (size_t)snprintf(buf + n, 256 - n, "%s), }", t.ndim == 1 ? "," : "");
    while (n % 64 != 63) buf[n++] = ' ';
    buf[n++] = '\n';
    buf[8] = (char)((n - 10) & 255);
    buf[9] = (char)((n - 10) >> 8);
    return n;
}

static bool write_bf16(FILE *f, const uint16_t *data, int64_t n)
{
    enum { STEP = 1024 };
    float part[STEP];
    bool ok = true;
    for (int64_t i = 0; i < n && ok; i += STEP) {
        const int64_t left = n - i, m = left < STEP ? left : STEP;
        fx_convert(part, FX_F32, data + i, FX_BF16, m);
        ok = fwrite(part, sizeof(float), (size_t)m, f) == (size_t)m;
    }
    return ok;
}

fx_status fx_npy_write(const char *path, fx_tensor t)
{
    char header[256];
    FX_CHECK(descr_of(t.dtype) && fx_contiguous(t), FX_ESHAPE, "%s: only contiguous tensors are written",
             path);
    const size_t n = make_header(t, header), bytes = fx_bytes(t);
    FILE *f = fopen(path, "wbe");
    FX_CHECK(f, FX_EWRITE, "cannot write %s; %s", path, strerror(errno));
    bool ok = fwrite(header, 1, n, f) == n;
    if (ok && t.dtype == FX_BF16)
        ok = write_bf16(f, t.data, fx_numel(t));
    else if (ok && bytes)
        ok = fwrite(t.data, 1, bytes, f) == bytes;
    int error = errno;
    if (fclose(f) != 0 && ok) {
        ok = false;
        error = errno;
    }
    if (ok) return FX_OK;
    struct stat info;
    if (lstat(path, &info) == 0 && S_ISREG(info.st_mode)) remove(path); /* nothing half written stays */
    return FX_FAIL(FX_EWRITE, "cannot write %s; %s; make room or give another folder", path, strerror(error));
}

/* ---- read ---- */

typedef struct npy_type {
    const char *descr;
    fx_dtype dtype;
    size_t size; /* in the file */
} npy_type;

static const npy_type types[] = {
    {"<f8", FX_F64, 8}, {"<f4", FX_F32, 4}, {"<f2", FX_F16, 2}, {"<i4", FX_I32, 4},
    {"<i8", FX_I32, 8}, {"|u1", FX_U8, 1},  {"<u2", FX_F16, 2}, {"|b1", FX_U8, 1},
};

/* The text after "'key':", or NULL. */
static const char *value_of(const char *dict, const char *key)
{
    const char *p = strstr(dict, key);
    p = p ? strchr(p, ':') : NULL;
    return p ? p + 1 + strspn(p + 1, " ") : NULL;
}

static const npy_type *find_type(const char *dict)
{
    const char *descr = value_of(dict, "'descr'");
    for (size_t i = 0; descr && i < sizeof types / sizeof *types; i++)
        if (descr[0] == '\'' && strncmp(descr + 1, types[i].descr, 3) == 0 && descr[4] == '\'')
            return &types[i];
    return NULL;
}

/* "(2, 3)" -> shape; "()" is one element. */
static bool parse_shape(const char *dict, fx_tensor *t)
{
    int64_t shape[FX_MAX_DIMS] = {1}, total = 1;
    int ndim = 0;
    const char *p = value_of(dict, "'shape'");
    if (!p || *p++ != '(') return false;
    for (p += strspn(p, " "); *p != ')'; p += strspn(p, " ,")) {
        char *end;
        const long long n = strtoll(p, &end, 10);
        if (end == p || ndim == FX_MAX_DIMS || n < 0 || __builtin_mul_overflow(total, n, &total))
            return false;
        shape[ndim++] = n;
        p = end;
    }
    if (__builtin_mul_overflow(total, 8, &total)) return false;
    *t = fx_view(NULL, t->dtype, ndim ? ndim : 1, shape);
    return true;
}

/* i8 -> i32 in place, front to back. */
static fx_status narrow(const char *path, void *data, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t wide;
        memcpy(&wide, (char *)data + i * 8, 8);
        FX_CHECK(wide >= INT32_MIN && wide <= INT32_MAX, FX_EFORMAT, "%s: element %lld does not fit 32 bits",
                 path, (long long)i);
        const int32_t small = (int32_t)wide;
        memcpy((char *)data + i * 4, &small, 4);
    }
    return FX_OK;
}

/* Splits the file image: the dict is cut out as a string, the payload is moved to the front. */
static fx_status parse(const char *path, char *bytes, size_t size, fx_tensor *out)
{
    FX_CHECK(size >= 10 && memcmp(bytes, magic, 6) == 0 && bytes[6] == 1, FX_EFORMAT,
             "%s is not a version 1 .npy file", path);
    const size_t length = (size_t)(unsigned char)bytes[8] | (size_t)(unsigned char)bytes[9] << 8,
                 start = 10 + length;
    FX_CHECK(length > 0 && start <= size, FX_EFORMAT, "%s: its header is cut", path);
    bytes[start - 1] = 0; /* the newline */
    const char *dict = bytes + 10, *order = value_of(dict, "'fortran_order'");
    const npy_type *type = find_type(dict);
    FX_CHECK(type, FX_EFORMAT, "%s: its dtype is not one of f8 f4 f2 i4 i8 u1 u2 (little endian)", path);
    out->dtype = type->dtype;
    FX_CHECK(order && strncmp(order, "False", 5) == 0, FX_EFORMAT, "%s: wanted C order", path);
    FX_CHECK(parse_shape(dict, out), FX_EFORMAT, "%s: its shape is not understood", path);
    const size_t want = (size_t)fx_numel(*out) * type->size;
    FX_CHECK(size - start == want, FX_EFORMAT, "%s: wanted %zu bytes of data, found %zu", path, want,
             size - start);
    memmove(bytes, bytes + start, want);
    if (type->size == 8 && type->dtype == FX_I32) FX_TRY(narrow(path, bytes, fx_numel(*out)));
    return FX_OK;
}

fx_status fx_npy_read(const char *path, fx_tensor *out)
{
    char *bytes;
    size_t size;
    *out = fx_none();
    FX_TRY(fx_file_load(path, NPY_MAX_BYTES, &bytes, &size));
    const fx_status st = parse(path, bytes, size, out);
    if (st != FX_OK) {
        free(bytes);
        *out = fx_none();
        return st;
    }
    out->data = bytes;
    return FX_OK;
}
