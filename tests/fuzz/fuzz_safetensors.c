/* A component folder: safetensors files and their index. Part 0 is a whole file; parts 1, 2 and 4 are header
 * texts, to which the length before and the data after are added, since mutations seldom keep those in step;
 * part 3 is the index. Whatever is accepted is listed, found, read and hashed; a file beside the folder must
 * never be part of it. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "runtime/io/checkpoint.h"
#include "runtime/io/component.h"

#define DECOY "decoy.outside"
enum { COUNT = 5, INDEX = 3, MAX_DATA = 1 << 14 };

static const char *const names[COUNT] = {
    "model/diffusion_pytorch_model.safetensors", "model/m-00001-of-00002.safetensors",
    "model/m-00002-of-00002.safetensors", "model/model.safetensors.index.json", "model/model.safetensors"};

/* The largest end of "data_offsets":[begin,end], for as many bytes of data. */
static size_t data_bytes(const char *text)
{
    static const char key[] = "\"data_offsets\":[";
    size_t most = 0;
    for (const char *p = text; (p = strstr(p, key));) {
        char *end;
        p += sizeof key - 1;
        strtoull(p, &end, 10);
        const size_t n = *end == ',' ? strtoull(end + 1, &end, 10) : 0;
        if (n > most && n <= MAX_DATA) most = n;
    }
    return most;
}

/* length, header, data */
static void write_framed(const char *name, const void *text, size_t size)
{
    uint8_t *file = calloc(1, 8 + size + 1 + MAX_DATA);
    FUZZ_EXPECT(file);
    for (int i = 0; i < 8; i++) file[i] = (uint8_t)((uint64_t)size >> 8 * i);
    memcpy(file + 8, text, size);
    const size_t data = data_bytes((const char *)file + 8);
    memset(file + 8 + size, 0x3c, data);
    fuzz_write(name, file, 8 + size + data);
    free(file);
}

static void read_entry(const fx_checkpoint *c, const char *name, const fx_entry *listed)
{
    int64_t any[FX_MAX_DIMS], count = 1, rows;
    fx_entry e;
    for (int d = 0; d < FX_MAX_DIMS; d++) any[d] = -1;
    if (fx_checkpoint_find(c, name, listed->ndim, any, &e) != FX_OK) return;
    FUZZ_EXPECT(e.ndim == listed->ndim && e.offset == listed->offset && e.file == listed->file);
    for (int d = 0; d < e.ndim; d++) count *= e.shape[d];
    rows = e.ndim > 0 ? e.shape[0] : 1;
    if (count > MAX_DATA) return;
    float *out = malloc((size_t)count * sizeof *out + 1);
    FUZZ_EXPECT(out);
    FUZZ_EXPECT(e.dtype > FX_F16 || fx_checkpoint_read(c, &e, 0, rows, FX_F32, out) == FX_OK);
    FUZZ_EXPECT(fx_checkpoint_read(c, &e, 0, rows + 1, FX_F32, out) != FX_OK);
    free(out);
}

static void use(const fx_checkpoint *c)
{
    fx_entry e;
    uint64_t hash;
    const char *name;
    for (int64_t i = 0; (name = fx_checkpoint_name(c, i, &e)); i++) {
        FUZZ_EXPECT(strcmp(name, DECOY) != 0);
        FUZZ_EXPECT(fx_checkpoint_has(c, name));
        read_entry(c, name, &e);
    }
    FUZZ_EXPECT(fx_checkpoint_bytes(c) >= 0);
    FUZZ_EXPECT(fx_checkpoint_hash(c, &hash) == FX_OK);
}

static void check_names(const char *folder)
{
    fx_component parts;
    if (fx_component_scan(folder, &parts) != FX_OK) return;
    for (int i = 0; i < parts.count; i++)
        FUZZ_EXPECT(!strchr(parts.files[i], '/') && strcmp(parts.files[i], "..") != 0);
    fx_component_free(&parts);
}

FUZZ_TARGET(safetensors)
{
    static const char decoy[] = "{\"" DECOY "\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
    fuzz_part parts[FUZZ_PARTS];
    fx_checkpoint *c = NULL;
    static int ready;
    if (!ready++) {
        fuzz_make_folder("model");
        write_framed("outside.safetensors", decoy, sizeof decoy - 1);
    }
    fuzz_split(data, size, parts);
    for (int i = 0; i < COUNT; i++) {
        if (parts[i].data && memmem(parts[i].data, parts[i].size, "decoy", 5)) return 0;
        if (!parts[i].data)
            fuzz_remove(names[i]);
        else if (i == 0 || i == INDEX)
            fuzz_write(names[i], parts[i].data, parts[i].size);
        else
            write_framed(names[i], parts[i].data, parts[i].size);
    }
    check_names(fuzz_path("model"));
    if (fx_checkpoint_open(fuzz_folder(), "model", &c) == FX_OK) use(c);
    FUZZ_EXPECT(c || fx_error()[0]);
    fx_checkpoint_close(&c);
    return 0;
}
