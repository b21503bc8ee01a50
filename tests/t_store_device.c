/* Weights on their way to a device: a made-up one, whose uploads and draws happen when it is waited for and not before, as a
 * GPU's may. What arrives must be what a load into host memory gives, from files and from the generator, with buffers of any
 * size, on one rank and (run by sh_mpi.sh) on several that swap their shares. */
#include "tests/test.h"

#include "parallel/comm_nccl.h"
#include "parallel/store_internal.h"
#include "tests/scratch.h"

/* ---- the device: CMake puts these in the place of the real ones ---- */

bool __wrap_fx_on_device(const fx_backend *);
fx_status __wrap_fx_device_alloc(fx_backend *, size_t bytes, void **out);
void __wrap_fx_device_free(fx_backend *, void *);
fx_status __wrap_fx_device_pinned(fx_backend *, size_t bytes, void **out);
void __wrap_fx_device_unpin(fx_backend *, void *);
fx_status __wrap_fx_device_draw(fx_backend *, void *x, fx_dtype, int64_t n, uint64_t key, uint64_t first,
                                float amp, float mean);
fx_status __wrap_fx_device_constant(fx_backend *, const void *device, const float *host, int64_t n);

typedef struct pending {
    void *to;
    const void *from; /* NULL: drawn */
    size_t bytes;
    fx_dtype dtype;
    int64_t n;
    uint64_t key, first;
    float amp, mean;
} pending;

static bool on_device;
static pending queue[4096];
static int waiting, constants, bad_constants;

bool __wrap_fx_on_device(const fx_backend *be)
{
    (void)be;
    return on_device;
}

fx_status __wrap_fx_device_alloc(fx_backend *be, size_t bytes, void **out)
{
    (void)be;
    *out = malloc(bytes);
    memset(*out, 0x77, bytes);
    return FX_OK;
}

void __wrap_fx_device_free(fx_backend *be, void *data)
{
    (void)be;
    free(data);
}

fx_status __wrap_fx_device_pinned(fx_backend *be, size_t bytes, void **out)
{
    return __wrap_fx_device_alloc(be, bytes, out);
}

void __wrap_fx_device_unpin(fx_backend *be, void *data)
{
    (void)be;
    T_CHECK(waiting == 0, "pinned memory is given back while %d transfers read it", waiting);
    free(data);
}

static void later(pending p)
{
    T_CHECK(waiting < (int)(sizeof queue / sizeof *queue), "too many transfers");
    queue[waiting++] = p;
}

fx_status __wrap_fx_device_draw(fx_backend *be, void *x, fx_dtype dtype, int64_t n, uint64_t key,
                                uint64_t first, float amp, float mean)
{
    (void)be;
    later((pending){x, NULL, 0, dtype, n, key, first, amp, mean});
    return FX_OK;
}

fx_status __wrap_fx_device_constant(fx_backend *be, const void *device, const float *host, int64_t n)
{
    (void)be;
    constants++;
    bad_constants += memcmp(device, host, (size_t)n * sizeof *host) != 0;
    return FX_OK;
}

static void draw_now(const pending *p)
{
    float *values = malloc((size_t)p->n * sizeof *values);
    uint16_t *narrow = malloc((size_t)p->n * sizeof *narrow);
    fx_synthetic_fill(p->key, p->first, p->n, p->amp, p->mean, values);
    fx_convert(narrow, FX_BF16, values, FX_F32, p->n);
    fx_convert(p->to, p->dtype, narrow, FX_BF16, p->n);
    free(values);
    free(narrow);
}

static fx_status fake_sync(fx_backend *be)
{
    (void)be;
    for (int i = 0; i < waiting; i++) {
        if (queue[i].from)
            memcpy(queue[i].to, queue[i].from, queue[i].bytes);
        else
            draw_now(&queue[i]);
    }
    waiting = 0;
    return FX_OK;
}

static fx_status fake_upload(fx_backend *be, fx_tensor device, const void *host)
{
    (void)be;
    later((pending){.to = device.data, .from = host, .bytes = fx_bytes(device)});
    return FX_OK;
}

static fx_status fake_download(fx_backend *be, void *host, fx_tensor device)
{
    FX_TRY(fake_sync(be));
    memcpy(host, device.data, fx_bytes(device));
    return FX_OK;
}

/* Linear weights as they are, convolutions backwards. */
static size_t fake_bytes(fx_backend *be, const fx_weight *w)
{
    (void)be;
    return (size_t)(w->n * w->k * w->kh * w->kw) * fx_dtype_size(w->dtype);
}

static fx_status fake_pack(fx_backend *be, const fx_weight *w, const void *src, void *dst)
{
    const size_t bytes = fake_bytes(be, w);
    for (size_t i = 0; i < bytes; i++)
        ((char *)dst)[i] = ((const char *)src)[w->kind == FX_WEIGHT_CONV ? bytes - 1 - i : i];
    return FX_OK;
}

static const fx_ops fake_ops = {.name = "fake",
                                .packed_bytes = fake_bytes,
                                .pack = fake_pack,
                                .upload = fake_upload,
                                .download = fake_download,
                                .sync = fake_sync};

/* ---- a model of all kinds of items; small ones between large ones, so that gaps and windows meet ---- */

enum { ROWS = 90, COLS = 33, BLOCKS = 6 };

static void put_model(void)
{
    char header[1024];
    static _Alignas(8) unsigned char file[65536];
    const int w = ROWS * COLS * 2, b = ROWS * 4, conv = 8 * 5 * 9 * 4, small = 3 * 4;
    const int at[5] = {0, w, w + b, w + b + conv, w + b + conv + small};
    const int n = snprintf(header, sizeof header,
                           "{\"w\":{\"dtype\":\"BF16\",\"shape\":[%d,%d],\"data_offsets\":[%d,%d]},"
                           "\"b\":{\"dtype\":\"F32\",\"shape\":[%d],\"data_offsets\":[%d,%d]},"
                           "\"conv\":{\"dtype\":\"F32\",\"shape\":[8,5,3,3],\"data_offsets\":[%d,%d]},"
                           "\"small\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[%d,%d]}}",
                           ROWS, COLS, at[0], at[1], ROWS, at[1], at[2], at[2], at[3], at[3], at[4]);
    for (int i = 0; i < 8; i++) file[i] = (unsigned char)((uint64_t)n >> (8 * i));
    memcpy(file + 8, header, (size_t)n);
    float *values = malloc((size_t)at[4] * 2);
    fx_synthetic_fill(99, 0, at[4] / 2, 1, 0, values);
    uint16_t narrow[ROWS * COLS];
    fx_convert(narrow, FX_BF16, values, FX_F32, w / 2);
    memcpy(file + 8 + n, narrow, sizeof narrow);
    memcpy(file + 8 + n + w, values, (size_t)(at[4] - w));
    put_file(in_scratch("model.safetensors"), file, (size_t)(8 + n + at[4]));
    free(values);
}

typedef struct model {
    fx_weight w[BLOCKS], twice[BLOCKS], conv[BLOCKS];
    fx_tensor b[BLOCKS], small[BLOCKS], table;
} model;

static fx_status declare(fx_store *s, fx_checkpoint *c, model *m)
{
    const fx_part w = {"w", 0, -1}, b = {"b", 0, -1}, small = {"small", 0, -1};
    const fx_part twice[] = {{"w", 7, 50}, {"w", 0, 11}};
    for (int i = 0; i < BLOCKS; i++) {
        FX_TRY(fx_store_vector(s, c, &m->small[i], 3, 1, &small));
        FX_TRY(fx_store_conv(s, c, &m->conv[i], 8, 5, 3, 3, "conv"));
        FX_TRY(fx_store_linear(s, c, &m->w[i], ROWS, COLS, 1, &w));
        FX_TRY(fx_store_vector(s, c, &m->b[i], ROWS, 1, &b));
        FX_TRY(fx_store_linear(s, c, &m->twice[i], 61, COLS, 2, twice));
    }
    return fx_store_table(s, c, &m->table, ROWS, COLS, "w", false);
}

static fx_status open_model(fx_backend *be, bool synthetic, fx_store **s, fx_checkpoint **c, model *m)
{
    FX_TRY(synthetic ? fx_checkpoint_synthetic("transformer", 1, c) : fx_checkpoint_open(scratch, "", c));
    FX_TRY(fx_store_open(be, NULL, s));
    return declare(*s, *c, m);
}

static void t_load(fx_comm *comm, bool synthetic, size_t half, size_t chunk)
{
    fx_backend be = {.ops = &fake_ops, .dtype = FX_BF16, .stream = FX_F32, .threads = 2};
    fx_checkpoint *c[2];
    fx_store *host, *device;
    model m[2];
    on_device = false;
    T_OK(open_model(&be, synthetic, &host, &c[0], &m[0]));
    T_OK(fx_store_load(host, NULL, NULL, NULL));
    on_device = true;
    constants = bad_constants = 0;
    T_OK(open_model(&be, synthetic, &device, &c[1], &m[1]));
    device->half = half;
    device->chunk = chunk;
    T_OK(fx_store_load(device, comm, NULL, NULL));
    T_CHECK(waiting == 0, "%d transfers are still to come", waiting);
    T_CHECK(constants == 2 * BLOCKS && bad_constants == 0, "%d constants, %d of them wrong", constants,
            bad_constants);
    for (int i = 0; i < host->count; i++) {
        const fx_store_item *it = &host->items[i];
        T_CHECK(memcmp(host->block + it->offset, device->device + it->offset, it->bytes) == 0,
                "%s, buffers of %zu, rows of %zu: item %d of %d differs", synthetic ? "drawn" : "from files",
                half, chunk, i, host->count);
    }
    T_CHECK(m[1].w[1].packed == device->device + host->items[7].offset, "published addresses");
    fx_store_close(&device);
    on_device = false;
    fx_store_close(&host);
    for (int i = 0; i < 2; i++) fx_checkpoint_close(&c[i]);
}

int main(void)
{
    fx_comm *comm = NULL;
    const size_t sizes[][2] = {{64 << 20, 16 << 20}, {8192, 1000}, {4096, 4096}, {3000, 66}, {20000, 1}};
    T_OK(fx_comm_open("auto", 30, &comm));
    T_CHECK(scratch_open(), "no scratch folder");
    put_model();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        t_load(comm, false, sizes[i][0], sizes[i][1]);
        t_load(comm, true, sizes[i][0], sizes[i][1]);
    }
    scratch_close();
    fx_comm_finish(&comm);
    return test_end("t_store_device");
}
