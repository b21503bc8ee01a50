/* Opens the CUDA backend: device, stream, library handles, the table of ops. No other file creates or ends them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/internal.h"
#include "runtime/core/cache.h"

enum { SMALL = 1 << 20 }; /* bytes */

fx_status fx_cuda_failed(const char *what, const char *why)
{
    return FX_FAIL(FX_EDEVICE, "%.80s: %s", what, why);
}

fx_status fx_cuda_launched(const char *kernel)
{
    const cudaError_t e = cudaGetLastError();
    return e == cudaSuccess ? FX_OK : fx_cuda_failed(kernel, cudaGetErrorString(e));
}

cudaStream_t fx_cuda_stream(const fx_backend *be)
{
    return fx_cuda_of(be)->stream;
}

void *fx_cuda_small(fx_backend *be, size_t bytes)
{
    return bytes <= fx_cuda_of(be)->small_bytes ? fx_cuda_of(be)->small : NULL;
}

/* ---- between runs ---- */

enum { KEY_ROOM = 512, RULES = 3 }; /* RULES: another number whenever this folder chooses otherwise */

static size_t full_key(const fx_cuda *c, const void *key, size_t key_bytes, char out[KEY_ROOM])
{
    const int n = snprintf(out, KEY_ROOM / 2, "%s, %d processors, fluxpar " FX_VERSION ".%d", c->text,
                           c->processors, RULES);
    if (n < 0 || n >= KEY_ROOM / 2 || key_bytes > KEY_ROOM / 2) return 0;
    memcpy(out + n + 1, key, key_bytes);
    return (size_t)n + 1 + key_bytes;
}

bool fx_cuda_recall(const fx_cuda *c, const char *kind, const void *key, size_t key_bytes, void **data,
                    size_t *bytes)
{
    char all[KEY_ROOM];
    const size_t n = full_key(c, key, key_bytes, all);
    return n && fx_cache_read(kind, all, n, data, bytes);
}

void fx_cuda_remember(const fx_cuda *c, const char *kind, const void *key, size_t key_bytes, const void *data,
                      size_t bytes)
{
    char all[KEY_ROOM];
    const size_t n = full_key(c, key, key_bytes, all);
    if (n) fx_cache_write(kind, all, n, data, bytes);
}

/* ---- memory ---- */

fx_status fx_cuda_no_room(size_t bytes, const char *why)
{
    size_t have = 0, all = 0;
    (void)cudaGetLastError();
    (void)cudaMemGetInfo(&have, &all);
    return FX_FAIL(FX_ENOMEM,
                   "%.2f GiB are needed on the device%s and %.2f of its %.2f GiB are free; make the picture "
                   "smaller, use a smaller model or more ranks, or end what else runs there",
                   (double)bytes / 0x1p30, why, (double)have / 0x1p30, (double)all / 0x1p30);
}

fx_status fx_cuda_alloc(fx_backend *be, size_t bytes, void **out)
{
    (void)be;
    return cudaMalloc(out, bytes) == cudaSuccess ? FX_OK : fx_cuda_no_room(bytes, "");
}

void fx_cuda_free(fx_backend *be, void *data)
{
    fx_cuda_forget_bias(fx_cuda_of(be), data);
    (void)cudaFree(data);
}

fx_status fx_cuda_pinned(fx_backend *be, size_t bytes, void **out)
{
    const cudaError_t e = cudaMallocHost(out, bytes);
    (void)be;
    if (e == cudaSuccess) return FX_OK;
    (void)cudaGetLastError();
    return FX_FAIL(FX_ENOMEM, "%zu MiB of pinned host memory: %s", bytes >> 20, cudaGetErrorString(e));
}

void fx_cuda_unpin(fx_backend *be, void *data)
{
    (void)be;
    (void)cudaFreeHost(data);
}

fx_status fx_cuda_copy_bytes(fx_backend *be, void *to, const void *from, size_t bytes)
{
    FX_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, fx_cuda_stream(be)));
    return FX_OK;
}

void *fx_cuda_stream_of(const fx_backend *be)
{
    return fx_cuda_stream(be);
}

static fx_status cuda_upload(fx_backend *be, fx_tensor device, const void *host)
{
    /* pageable memory: the call returns when `host` has been read; pinned memory: at once */
    FX_CUDA(cudaMemcpyAsync(device.data, host, fx_bytes(device), cudaMemcpyDefault, fx_cuda_stream(be)));
    return FX_OK;
}

static fx_status cuda_download(fx_backend *be, void *host, fx_tensor device)
{
    FX_CUDA(cudaMemcpyAsync(host, device.data, fx_bytes(device), cudaMemcpyDefault, fx_cuda_stream(be)));
    FX_CUDA(cudaStreamSynchronize(fx_cuda_stream(be)));
    return FX_OK;
}

static fx_status cuda_sync(fx_backend *be)
{
    FX_CUDA(cudaStreamSynchronize(fx_cuda_stream(be)));
    return FX_OK;
}

static void cuda_close(fx_backend *be)
{
    fx_cuda *c = fx_cuda_of(be);
    if (!c) return;
    if (c->stream) (void)cudaStreamSynchronize(c->stream);
    fx_cuda_gemm_close(c);
    fx_dnn_close(c);
    fx_cuda_bias_close(c);
    fx_cuda_looks_close(c);
    fx_cuda_beside_close(c);
    if (c->dnn) (void)cudnnDestroy(c->dnn);
    if (c->lt) (void)cublasLtDestroy(c->lt);
    if (c->workspace) (void)cudaFree(c->workspace);
    if (c->small) (void)cudaFree(c->small);
    if (c->stream) (void)cudaStreamDestroy(c->stream);
    free(c);
    be->impl = NULL;
}

static const fx_ops cuda_ops = {
    .name = "cuda",
    .packed_bytes = fx_cuda_packed_bytes,
    .pack = fx_cuda_pack,
    .linear_scratch = fx_cuda_linear_scratch,
    .conv2d_scratch = fx_cuda_conv2d_scratch,
    .attention_scratch = fx_cuda_attention_scratch,
    .linear = fx_cuda_linear,
    .conv2d = fx_cuda_conv2d,
    .attention = fx_cuda_attention,
    .attention_merge = fx_cuda_attention_merge,
    .norm_mod = fx_cuda_norm_mod,
    .layer_norm = fx_cuda_layer_norm,
    .rms_norm = fx_cuda_rms_norm,
    .gate_add = fx_cuda_gate_add,
    .gate_norm = fx_cuda_gate_norm,
    .qk_norm_rope = fx_cuda_qk_norm_rope,
    .axpy = fx_cuda_axpy,
    .activate = fx_cuda_activate,
    .glu = fx_cuda_glu,
    .embed = fx_cuda_embed,
    .copy = fx_cuda_copy,
    .row_stats = fx_cuda_row_stats,
    .group_norm = fx_cuda_group_norm,
    .upsample2x = fx_cuda_upsample2x,
    .to_rgb8 = fx_cuda_to_rgb8,
    .count_nonfinite = fx_cuda_count_nonfinite,
    .upload = cuda_upload,
    .download = cuda_download,
    .sync = cuda_sync,
    .close = cuda_close,
};

/* ---- open ---- */

static fx_status check_device(int device, struct cudaDeviceProp *prop)
{
    int count = 0;
    const cudaError_t e = cudaGetDeviceCount(&count);
    FX_CHECK(e == cudaSuccess && count > 0, FX_EDEVICE, "no CUDA device; %s; " FX_CUDA_INSTEAD,
             e == cudaSuccess ? "the driver shows none" : cudaGetErrorString(e));
    FX_CHECK(device >= 0 && device < count, FX_EDEVICE, "CUDA device %d of %d does not exist", device, count);
    FX_CUDA(cudaGetDeviceProperties(prop, device));
    FX_CHECK(fx_cuda_has_code(FX_CUDA_ARCHS_TEXT, 10 * prop->major + prop->minor), FX_EDEVICE,
             "%s has compute capability %d.%d and this build has code for " FX_CUDA_ARCHS_TEXT
             "; build with -DFX_CUDA_ARCHS=all (9.0 and later); " FX_CUDA_INSTEAD,
             prop->name, prop->major, prop->minor);
    return FX_OK;
}

fx_status fx_cuda_usable(int device)
{
    struct cudaDeviceProp prop;
    return check_device(device, &prop);
}

int fx_cuda_devices(void)
{
    struct cudaDeviceProp prop;
    int count = 0, usable = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) count = 0;
    for (int d = 0; d < count; d++) usable += check_device(d, &prop) == FX_OK;
    if (!count) (void)check_device(0, &prop); /* says why */
    return usable;
}

/* Beside devices that this build has no code for; with fewer than that, the number as it is: check_device says why not. */
int fx_cuda_ordinal(int nth)
{
    struct cudaDeviceProp prop;
    int count = 0, usable = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) count = 0;
    for (int d = 0; d < count; d++)
        if (check_device(d, &prop) == FX_OK && usable++ == nth) return d;
    return nth;
}

static fx_status open_libraries(fx_cuda *c, const struct cudaDeviceProp *prop)
{
    FX_CUDA(cudaSetDevice(c->device));
    FX_CUDA(cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking));
    FX_CUDA(cudaMalloc(&c->workspace, FX_CUDA_WORKSPACE));
    FX_CUDA(cudaMalloc(&c->small, SMALL));
    c->workspace_bytes = FX_CUDA_WORKSPACE;
    c->small_bytes = SMALL;
    FX_TRY(fx_cuda_looks_open(c));
    FX_TRY(fx_cuda_beside_open(c));
    FX_LT(cublasLtCreate(&c->lt));
    FX_DNN(cudnnCreate(&c->dnn));
    FX_DNN(cudnnSetStream(c->dnn, c->stream));
    c->sm = prop->major * 10 + prop->minor;
    c->processors = prop->multiProcessorCount;
    snprintf(c->text, sizeof c->text, "%.60s, sm_%d, cuBLASLt %zu, cuDNN %zu", prop->name, c->sm,
             cublasLtGetVersion(), cudnnGetVersion());
    return FX_OK;
}

fx_status fx_cuda_open(fx_dtype dtype, int device, fx_backend **out)
{
    struct cudaDeviceProp prop;
    *out = NULL;
    FX_CHECK(dtype == FX_BF16, FX_EINVAL, "the cuda backend computes in bf16; not in %s",
             fx_dtype_name(dtype));
    device = fx_cuda_ordinal(device);
    FX_TRY(check_device(device, &prop));
    fx_backend *be = calloc(1, sizeof *be);
    fx_cuda *c = calloc(1, sizeof *c);
    if (!be || !c) {
        free(be);
        free(c);
        return FX_FAIL(FX_ENOMEM, "cuda backend: no memory");
    }
    *be = (fx_backend){.ops = &cuda_ops, .dtype = dtype, .stream = FX_F32, .threads = 1, .impl = c};
    be->rows_exact = true;
    be->plain_rows = true;
    be->coarse_parts = dtype == FX_BF16; /* cuDNN's fused attention writes bf16 */
    be->recorder = &fx_cuda_recorder;
    c->device = device;
    const fx_status st = open_libraries(c, &prop);
    if (st) {
        cuda_close(be);
        free(be);
        return st;
    }
    *out = be;
    return FX_OK;
}

const char *fx_cuda_libraries(void)
{
    static char text[192];
    int runtime = 0;
    const size_t lt = cublasLtGetVersion(), dnn = cudnnGetVersion();
    (void)cudaRuntimeGetVersion(&runtime);
    snprintf(text, sizeof text,
             "code for " FX_CUDA_ARCHS_TEXT ", CUDA %d.%d, cuBLASLt %zu.%zu.%zu, cuDNN %zu.%zu.%zu",
             runtime / 1000, runtime / 10 % 100, lt / 10000, lt / 100 % 100, lt % 100, dnn / 10000,
             dnn / 100 % 100, dnn % 100);
    return text;
}

const char *fx_cuda_describe(const fx_backend *be)
{
    return be ? fx_cuda_of(be)->text : "cuda";
}
