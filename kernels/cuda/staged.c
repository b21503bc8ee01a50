/* Backend "cuda-staged": the CUDA backend for data in host memory. Every op copies its operands to the device, runs, and
 * copies the results back, so that tests of ops and whole pipelines written for host memory run on a GPU unchanged. For
 * tests: slow. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/internal.h"

enum { MOST = 8 }; /* tensors of one op */

typedef struct staged {
    fx_backend *cuda;
    char *pool; /* device */
    size_t pool_bytes, used;
    struct {
        fx_tensor host;
        char *device;
        size_t bytes;
    } copy[MOST];
    int copies;
} staged;

static staged *staged_of(const fx_backend *be)
{
    return (staged *)be->impl;
}

/* ---- to the device and back ---- */

/* Bytes from the first to behind the last element. */
static size_t extent(fx_tensor t)
{
    int64_t last = 0;
    for (int d = 0; d < t.ndim; d++) {
        if (!t.shape[d]) return 0;
        last += (t.shape[d] - 1) * t.stride[d];
    }
    return (size_t)(last + 1) * fx_dtype_size(t.dtype);
}

/* Device memory for this op with the host address's place in a line of 256 bytes. */
static fx_status take(staged *s, size_t bytes, uintptr_t like, char **out)
{
    const size_t begin = (s->used + 511) / 256 * 256 + like % 256;
    FX_CHECK(begin + bytes <= s->pool_bytes, FX_ENOMEM,
             "cuda-staged: an op needs more than %zu bytes on the device", s->pool_bytes);
    *out = s->pool + begin;
    s->used = begin + bytes;
    return FX_OK;
}

/* In the order of the ops' stream, which does not wait for the default one: the end of a plain cudaMemcpy from pageable
 * memory may still be under way when the call returns. */
static fx_status to_device(const staged *s, void *device, const void *host, size_t bytes)
{
    FX_CUDA(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, fx_cuda_stream(s->cuda)));
    return FX_OK;
}

static fx_status put(fx_backend *be, fx_tensor *t)
{
    staged *s = staged_of(be);
    if (!fx_present(*t)) return FX_OK;
    const size_t bytes = extent(*t);
    for (int i = 0; i < s->copies; i++)
        if (s->copy[i].host.data == t->data && s->copy[i].bytes == bytes) { /* in place */
            t->data = s->copy[i].device;
            return FX_OK;
        }
    FX_CHECK(s->copies < MOST, FX_ESHAPE, "cuda-staged: more than %d tensors", MOST);
    char *device = NULL;
    FX_TRY(take(s, bytes, (uintptr_t)t->data, &device));
    FX_TRY(to_device(s, device, t->data, bytes));
    s->copy[s->copies].host = *t;
    s->copy[s->copies].device = device;
    s->copy[s->copies++].bytes = bytes;
    t->data = device;
    return FX_OK;
}

/* The operands of one op; each view is changed to its copy's. */
static fx_status put_all(fx_backend *be, int n, fx_tensor *const t[])
{
    staged_of(be)->used = 0;
    staged_of(be)->copies = 0;
    for (int i = 0; i < n; i++) FX_TRY(put(be, t[i]));
    return FX_OK;
}
#define PUT(...)                                                                                             \
    FX_TRY(put_all(be, (int)(sizeof((fx_tensor *[]){__VA_ARGS__}) / sizeof(fx_tensor *)),                    \
                   (fx_tensor *[]){__VA_ARGS__}))

/* Waits for the op and brings a result back. */
static fx_status get(fx_backend *be, fx_tensor device)
{
    staged *s = staged_of(be);
    if (!fx_present(device)) return FX_OK;
    FX_TRY(s->cuda->ops->sync(s->cuda));
    for (int i = 0; i < s->copies; i++)
        if (s->copy[i].device == device.data)
            FX_CUDA(cudaMemcpy(s->copy[i].host.data, device.data, s->copy[i].bytes, cudaMemcpyDeviceToHost));
    return FX_OK;
}

static fx_status put_weight(fx_backend *be, fx_weight *w)
{
    staged *s = staged_of(be);
    const size_t bytes = fx_cuda_packed_bytes(be, w);
    char *device = NULL;
    FX_TRY(take(s, bytes, 0, &device));
    FX_TRY(to_device(s, device, w->packed, bytes));
    w->packed = device;
    return FX_OK;
}

/* ---- ops with weights or scratch ---- */

static fx_status no_scratch_linear(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b,
                                   fx_act act, size_t *bytes)
{
    (void)be, (void)y, (void)x, (void)w, (void)b, (void)act;
    *bytes = 0;
    return FX_OK;
}
static fx_status no_scratch_conv(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b,
                                 int stride, const int pad[4], size_t *bytes)
{
    (void)be, (void)y, (void)x, (void)w, (void)b, (void)stride, (void)pad;
    *bytes = 0;
    return FX_OK;
}
static fx_status no_scratch_attention(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k,
                                      fx_tensor v, fx_tensor bias, size_t *bytes)
{
    (void)be, (void)o, (void)lse, (void)q, (void)k, (void)v, (void)bias;
    *bytes = 0;
    return FX_OK;
}

static fx_status linear(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act act,
                        void *unused)
{
    fx_backend *cuda = staged_of(be)->cuda;
    size_t bytes;
    char *scratch = NULL;
    (void)unused;
    PUT(&y, &x, &b);
    FX_TRY(put_weight(be, &w));
    FX_TRY(fx_cuda_linear_scratch(cuda, y, x, w, b, act, &bytes));
    FX_TRY(take(staged_of(be), bytes, 0, &scratch));
    FX_TRY(fx_cuda_linear(cuda, y, x, w, b, act, scratch));
    return get(be, y);
}

static fx_status conv2d(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                        const int pad[4], void *unused)
{
    fx_backend *cuda = staged_of(be)->cuda;
    size_t bytes;
    char *scratch = NULL;
    (void)unused;
    PUT(&y, &x, &b);
    FX_TRY(put_weight(be, &w));
    FX_TRY(fx_cuda_conv2d_scratch(cuda, y, x, w, b, stride, pad, &bytes));
    FX_TRY(take(staged_of(be), bytes, 0, &scratch));
    FX_TRY(fx_cuda_conv2d(cuda, y, x, w, b, stride, pad, scratch));
    return get(be, y);
}

static fx_status attention(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k, fx_tensor v,
                           fx_tensor bias, float scale, void *unused)
{
    fx_backend *cuda = staged_of(be)->cuda;
    size_t bytes;
    char *scratch = NULL;
    (void)unused;
    PUT(&o, &lse, &q, &k, &v, &bias);
    FX_TRY(fx_cuda_attention_scratch(cuda, o, lse, q, k, v, bias, &bytes));
    FX_TRY(take(staged_of(be), bytes, 0, &scratch));
    FX_TRY(fx_cuda_attention(cuda, o, lse, q, k, v, bias, scale, scratch));
    FX_TRY(get(be, o));
    return get(be, lse);
}

/* ---- the rest: put all, call, get the results ---- */

#define CUDA staged_of(be)->cuda
#define ONE(call, y)                                                                                         \
    FX_TRY(call);                                                                                            \
    return get(be, y)

static fx_status merge(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor o2, fx_tensor lse2)
{
    PUT(&o, &lse, &o2, &lse2);
    FX_TRY(fx_cuda_attention_merge(CUDA, o, lse, o2, lse2));
    FX_TRY(get(be, o));
    return get(be, lse);
}
static fx_status norm_mod(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor shift, fx_tensor scale,
                          float eps)
{
    PUT(&y, &x, &shift, &scale);
    ONE(fx_cuda_norm_mod(CUDA, y, x, shift, scale, eps), y);
}
static fx_status layer_norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor b, float eps)
{
    PUT(&y, &x, &w, &b);
    ONE(fx_cuda_layer_norm(CUDA, y, x, w, b, eps), y);
}
static fx_status rms_norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, float eps)
{
    PUT(&y, &x, &w);
    ONE(fx_cuda_rms_norm(CUDA, y, x, w, eps), y);
}
static fx_status gate_add(fx_backend *be, fx_tensor x, fx_tensor gate, fx_tensor y)
{
    PUT(&x, &gate, &y);
    ONE(fx_cuda_gate_add(CUDA, x, gate, y), x);
}
static fx_status gate_norm(fx_backend *be, fx_tensor h, fx_tensor x, fx_tensor gate, fx_tensor y,
                           fx_tensor shift, fx_tensor scale, float eps)
{
    PUT(&h, &x, &gate, &y, &shift, &scale);
    FX_TRY(fx_cuda_gate_norm(CUDA, h, x, gate, y, shift, scale, eps));
    FX_TRY(get(be, h));
    return get(be, x);
}
static fx_status qk_norm_rope(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor cs, float eps)
{
    PUT(&y, &x, &w, &cs);
    ONE(fx_cuda_qk_norm_rope(CUDA, y, x, w, cs, eps), y);
}
static fx_status axpy(fx_backend *be, fx_tensor x, fx_tensor y, float a)
{
    PUT(&x, &y);
    ONE(fx_cuda_axpy(CUDA, x, y, a), x);
}
static fx_status activate(fx_backend *be, fx_tensor y, fx_tensor x, fx_act act)
{
    PUT(&y, &x);
    ONE(fx_cuda_activate(CUDA, y, x, act), y);
}
static fx_status glu(fx_backend *be, fx_tensor y, fx_tensor a, fx_tensor b, fx_act act)
{
    PUT(&y, &a, &b);
    ONE(fx_cuda_glu(CUDA, y, a, b, act), y);
}
static fx_status embed(fx_backend *be, fx_tensor y, fx_tensor table, fx_tensor ids)
{
    PUT(&y, &table, &ids);
    ONE(fx_cuda_embed(CUDA, y, table, ids), y);
}
static fx_status copy(fx_backend *be, fx_tensor y, fx_tensor x, float mul, float add)
{
    PUT(&y, &x);
    ONE(fx_cuda_copy(CUDA, y, x, mul, add), y);
}
static fx_status row_stats(fx_backend *be, fx_tensor stats, fx_tensor x)
{
    PUT(&stats, &x);
    ONE(fx_cuda_row_stats(CUDA, stats, x), stats);
}
static fx_status group_norm(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor stats, fx_tensor w,
                            fx_tensor b, int64_t width, float eps, fx_act act)
{
    PUT(&y, &x, &stats, &w, &b);
    ONE(fx_cuda_group_norm(CUDA, y, x, stats, w, b, width, eps, act), y);
}
static fx_status upsample2x(fx_backend *be, fx_tensor y, fx_tensor x)
{
    PUT(&y, &x);
    ONE(fx_cuda_upsample2x(CUDA, y, x), y);
}
static fx_status to_rgb8(fx_backend *be, fx_tensor y, fx_tensor x)
{
    PUT(&y, &x);
    ONE(fx_cuda_to_rgb8(CUDA, y, x), y);
}
static fx_status count_nonfinite(fx_backend *be, fx_tensor x, int64_t *count)
{
    PUT(&x);
    return fx_cuda_count_nonfinite(CUDA, x, count);
}

/* ---- memory: all of it is the host's ---- */

static fx_status upload(fx_backend *be, fx_tensor device, const void *host)
{
    (void)be;
    memcpy(device.data, host, fx_bytes(device));
    return FX_OK;
}
static fx_status download(fx_backend *be, void *host, fx_tensor device)
{
    (void)be;
    memcpy(host, device.data, fx_bytes(device));
    return FX_OK;
}
static fx_status sync(fx_backend *be)
{
    return CUDA->ops->sync(CUDA);
}
static void close_staged(fx_backend *be)
{
    staged *s = staged_of(be);
    if (!s) return;
    if (s->pool) (void)cudaFree(s->pool);
    fx_backend_close(&s->cuda);
    free(s);
    be->impl = NULL;
}

static const fx_ops staged_ops = {
    .name = "cuda-staged",
    .packed_bytes = fx_cuda_packed_bytes,
    .pack = fx_cuda_pack,
    .linear_scratch = no_scratch_linear,
    .conv2d_scratch = no_scratch_conv,
    .attention_scratch = no_scratch_attention,
    .linear = linear,
    .conv2d = conv2d,
    .attention = attention,
    .attention_merge = merge,
    .norm_mod = norm_mod,
    .layer_norm = layer_norm,
    .rms_norm = rms_norm,
    .gate_add = gate_add,
    .gate_norm = gate_norm,
    .qk_norm_rope = qk_norm_rope,
    .axpy = axpy,
    .activate = activate,
    .glu = glu,
    .embed = embed,
    .copy = copy,
    .row_stats = row_stats,
    .group_norm = group_norm,
    .upsample2x = upsample2x,
    .to_rgb8 = to_rgb8,
    .count_nonfinite = count_nonfinite,
    .upload = upload,
    .download = download,
    .sync = sync,
    .close = close_staged,
};

fx_status fx_cuda_open_staged(fx_dtype dtype, int device, size_t pool_bytes, fx_backend **out)
{
    *out = NULL;
    fx_backend *be = calloc(1, sizeof *be);
    staged *s = calloc(1, sizeof *s);
    fx_status st =
        be && s ? fx_cuda_open(dtype, device, &s->cuda) : FX_FAIL(FX_ENOMEM, "cuda-staged: no memory");
    if (!st) {
        *be = (fx_backend){.ops = &staged_ops, .dtype = dtype, .stream = FX_F32, .threads = 1, .impl = s};
        be->rows_exact = s->cuda->rows_exact;
        be->coarse_parts = s->cuda->coarse_parts;
        s->pool_bytes = pool_bytes;
        if (cudaMalloc((void **)&s->pool, pool_bytes) != cudaSuccess)
            st = FX_FAIL(FX_ENOMEM, "cuda-staged: %zu bytes are not free on the device", pool_bytes);
    }
    if (st) {
        if (be && be->impl)
            close_staged(be);
        else
            free(s);
        free(be);
        return st;
    }
    *out = be;
    return FX_OK;
}
