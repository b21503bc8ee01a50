/* Attention: cuDNN's fused kernel for head dims of 64 and 128 in bf16 without a bias, which is the transformer;
 * otherwise (T5 and CLIP with their bias, small heads, the VAE's 512-wide head, f32) two matrix products with a
 * softmax between them (products.h). */
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/internal.h"
#include "kernels/cuda/products.h"

enum { SCORES = 128 << 20 }; /* bytes of scores at once */
enum { FIXED_HEADS = 24 };
enum { UID_Q = 1, UID_K, UID_V, UID_O, UID_LSE, UID_SCALE };

/* ---- the fused kernel ---- */

typedef struct sdpa_key {
    int64_t kind, tq, tk, heads, dim, stride[4][2], lse[2]; /* q k v o: token, head */
} sdpa_key;

#define DNN_SET(d, attribute, type, n, value)                                                                \
    FX_DNN(cudnnBackendSetAttribute(d, CUDNN_ATTR_##attribute, CUDNN_TYPE_##type, n, value))

static fx_status operand(int64_t uid, fx_tensor t, cudnnBackendDescriptor_t *out)
{
    const fx_dnn_tensor d = {.uid = uid,
                             .dims = {1, t.shape[1], t.shape[0], t.shape[2]},
                             .strides = {t.shape[0] * t.stride[0], t.stride[1], t.stride[0], 1},
                             .type = CUDNN_DATA_BFLOAT16};
    return fx_dnn_describe(&d, out);
}

static fx_status sdpa_ops(fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k, fx_tensor v, fx_dnn_ops *out)
{
    cudnnBackendDescriptor_t t[6] = {0}, op;
    const fx_dnn_tensor stats = {.uid = UID_LSE,
                                 .dims = {1, q.shape[1], q.shape[0], 1},
                                 .strides = {lse.stride[0] * q.shape[1], lse.stride[0], lse.stride[1], 1},
                                 .type = CUDNN_DATA_FLOAT},
                        scale = {.uid = UID_SCALE,
                                 .dims = {1, 1, 1, 1},
                                 .strides = {1, 1, 1, 1},
                                 .type = CUDNN_DATA_FLOAT,
                                 .by_value = 1};
    FX_TRY(operand(UID_Q, q, &t[0]));
    FX_TRY(operand(UID_K, k, &t[1]));
    FX_TRY(operand(UID_V, v, &t[2]));
    FX_TRY(operand(UID_O, o, &t[3]));
    FX_TRY(fx_dnn_describe(&scale, &t[4]));
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, &op));
    DNN_SET(op, OPERATION_SDPA_FWD_QDESC, BACKEND_DESCRIPTOR, 1, &t[0]);
    DNN_SET(op, OPERATION_SDPA_FWD_KDESC, BACKEND_DESCRIPTOR, 1, &t[1]);
    DNN_SET(op, OPERATION_SDPA_FWD_VDESC, BACKEND_DESCRIPTOR, 1, &t[2]);
    DNN_SET(op, OPERATION_SDPA_FWD_ODESC, BACKEND_DESCRIPTOR, 1, &t[3]);
    DNN_SET(op, OPERATION_SDPA_FWD_SCALEDESC, BACKEND_DESCRIPTOR, 1, &t[4]);
    if (fx_present(lse)) {
        FX_TRY(fx_dnn_describe(&stats, &t[5]));
        DNN_SET(op, OPERATION_SDPA_FWD_STATSDESC, BACKEND_DESCRIPTOR, 1, &t[5]);
    }
    FX_DNN(cudnnBackendFinalize(op));
    for (int i = 0; i < 6; i++)
        if (t[i]) cudnnBackendDestroyDescriptor(t[i]);
    *out = (fx_dnn_ops){1, {op}};
    return FX_OK;
}

/* The engine is that of as many queries as keys and of FIXED_HEADS heads, whatever rows and heads are here: with few of
 * both (4 queries x 5 heads over 4608 keys on an H100) the library would split the keys, and rows would have other bits.
 */
static fx_status sdpa_plan(fx_cuda *c, const sdpa_key *key, fx_tensor o, fx_tensor lse, fx_tensor q,
                           fx_tensor k, fx_tensor v, fx_dnn_plan **out)
{
    char what[128];
    fx_dnn_ops real, like;
    const fx_dnn_key name = {key, sizeof *key, true};
    const fx_tensor all = fx_view3(NULL, q.dtype, key->tk, FIXED_HEADS, key->dim);
    const fx_tensor sums = fx_present(lse) ? fx_view2(lse.data, FX_F32, FIXED_HEADS, key->tk) : fx_none();
    FX_TRY(sdpa_ops(o, lse, q, k, v, &real));
    FX_TRY(sdpa_ops(all, sums, all, all, all, &like));
    snprintf(what, sizeof what, "attention of %lld x %lld (queries x keys), %lld heads of %lld",
             (long long)key->tq, (long long)key->tk, (long long)key->heads, (long long)key->dim);
    return fx_dnn_make(c, &name, what, &real, &like, out);
}

static fx_status fused_plan(fx_cuda *c, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k, fx_tensor v,
                            fx_dnn_plan **out)
{
    const fx_tensor all[4] = {q, k, v, o};
    sdpa_key key;
    memset(&key, 0, sizeof key);
    key.kind = 'a', key.tq = q.shape[0], key.tk = k.shape[0], key.heads = q.shape[1], key.dim = q.shape[2];
    for (int i = 0; i < 4; i++) key.stride[i][0] = all[i].stride[0], key.stride[i][1] = all[i].stride[1];
    if (fx_present(lse)) key.lse[0] = lse.stride[0], key.lse[1] = lse.stride[1];
    *out = fx_dnn_find(c, &(fx_dnn_key){&key, sizeof key, true});
    return *out ? FX_OK : sdpa_plan(c, &key, o, lse, q, k, v, out);
}

static fx_status fused(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k, fx_tensor v,
                       float scale)
{
    fx_dnn_plan *plan;
    FX_TRY(fused_plan(fx_cuda_of(be), o, lse, q, k, v, &plan));
    const int64_t uid[6] = {UID_Q, UID_K, UID_V, UID_O, UID_SCALE, UID_LSE};
    void *const data[6] = {q.data, k.data, v.data, o.data, &scale, lse.data};
    return fx_dnn_run(be, plan, fx_present(lse) ? 6 : 5, uid, data);
}

/* On 9.0 the kernels want two queries at least, and for one there is only that for compute capability 8.0; on 10.0 another
 * one takes it. Both have other bits: a single query is taken twice, side by side in scratch. */
static size_t twice_bytes(fx_tensor q)
{
    return (size_t)(4 * q.shape[1] * q.shape[2]) * fx_dtype_size(q.dtype) + (size_t)(2 * q.shape[1]) * 4;
}

static fx_status fused_twice(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k,
                             fx_tensor v, float scale, void *scratch)
{
    const int64_t heads = q.shape[1], dim = q.shape[2];
    const fx_tensor q2 = fx_view3(scratch, q.dtype, 2, heads, dim),
                    o2 = fx_view3((char *)scratch + fx_bytes(q2), o.dtype, 2, heads, dim),
                    sums = fx_view2((char *)o2.data + fx_bytes(o2), FX_F32, heads, 2);
    for (int i = 0; i < 2; i++) FX_TRY(fx_cuda_copy(be, fx_rows(q2, i, 1), q, 1, 0));
    FX_TRY(fused(be, o2, fx_present(lse) ? sums : lse, q2, k, v, scale));
    FX_TRY(fx_cuda_copy(be, o, fx_rows(o2, 0, 1), 1, 0));
    return fx_present(lse) ? fx_cuda_copy(be, lse, fx_slice(sums, 1, 0, 1), 1, 0) : FX_OK;
}

static bool by_packs_of_8(fx_tensor t)
{
    return t.stride[0] % 8 == 0 && t.stride[1] % 8 == 0 && (uintptr_t)t.data % 16 == 0;
}

static bool is_fused(fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k, fx_tensor v, fx_tensor bias)
{
    return q.dtype == FX_BF16 && o.dtype == FX_BF16 && !fx_present(bias) && k.shape[0] > 0 &&
           (q.shape[2] == 64 || q.shape[2] == 128) && by_packs_of_8(q) && by_packs_of_8(k) &&
           by_packs_of_8(v) && by_packs_of_8(o) && (!fx_present(lse) || lse.dtype == FX_F32);
}

fx_status fx_cuda_attention_plan(fx_cuda *c, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k,
                                 fx_tensor v, fx_tensor bias, fx_dnn_plan **out)
{
    *out = NULL;
    return is_fused(o, lse, q, k, v, bias) ? fused_plan(c, o, lse, q, k, v, out) : FX_OK;
}

/* ---- two products ---- */

static int32_t type_of(fx_dtype dtype)
{
    return dtype == FX_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

static int32_t alignment(fx_tensor a, fx_tensor b, fx_tensor c)
{
    uintptr_t bits = 0;
    const fx_tensor all[3] = {a, b, c};
    for (int i = 0; i < 3; i++) {
        const uintptr_t size = fx_dtype_size(all[i].dtype);
        bits |=
            (uintptr_t)all[i].data | (uintptr_t)all[i].stride[0] * size | (uintptr_t)all[i].stride[1] * size;
    }
    int32_t align = 16;
    while (align > 2 && bits % (uintptr_t)align) align /= 2;
    return align;
}

static fx_status scores(fx_backend *be, fx_tensor s, fx_tensor q, fx_tensor k, float scale)
{
    if (k.shape[0] == 1) return fx_cuda_dots(be, s, q, k, scale);
    fx_lt_key key;
    memset(&key, 0, sizeof key);
    key.m = q.shape[0], key.n = k.shape[0], key.k = q.shape[2], key.batch = q.shape[1];
    key.ldw = k.stride[0], key.ldx = q.stride[0], key.ldy = s.stride[1];
    key.stride_w = k.stride[1], key.stride_x = q.stride[1], key.stride_y = s.stride[0];
    key.in = type_of(q.dtype), key.out = CUDA_R_32F, key.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    key.align = alignment(s, q, k);
    return fx_cuda_gemm(be, &key, scale, s.data, q.data, k.data, NULL);
}

static fx_status values(fx_backend *be, fx_tensor o, fx_tensor p, fx_tensor v)
{
    if (!v.shape[0]) { /* o[R,H,D]: zeros, row by row of each head */
        for (int64_t h = 0; h < o.shape[1]; h++)
            FX_CUDA(cudaMemset2DAsync((char *)o.data + (size_t)(h * o.stride[1]) * fx_dtype_size(o.dtype),
                                      (size_t)o.stride[0] * fx_dtype_size(o.dtype), 0,
                                      (size_t)o.shape[2] * fx_dtype_size(o.dtype), (size_t)o.shape[0],
                                      fx_cuda_stream(be)));
        return FX_OK;
    }
    fx_lt_key key;
    memset(&key, 0, sizeof key);
    key.m = o.shape[0], key.n = o.shape[2], key.k = v.shape[0], key.batch = o.shape[1];
    key.ldw = v.stride[0], key.ldx = p.stride[1], key.ldy = o.stride[0], key.w_plain = 1;
    key.stride_w = v.stride[1], key.stride_x = p.stride[0], key.stride_y = o.stride[1];
    key.in = type_of(p.dtype), key.out = type_of(o.dtype), key.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    key.align = alignment(o, p, v);
    return fx_cuda_gemm(be, &key, 1, o.data, p.data, v.data, NULL);
}

static const fx_products products = {scores, fx_cuda_softmax, values};

fx_status fx_cuda_attention_scratch(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k,
                                    fx_tensor v, fx_tensor bias, size_t *bytes)
{
    fx_dnn_plan *plan;
    *bytes = is_fused(o, lse, q, k, v, bias) ? 0 : fx_products_scratch(q, k, SCORES);
    if (*bytes || q.shape[0] != 1)
        return *bytes ? FX_OK : fx_cuda_attention_plan(fx_cuda_of(be), o, lse, q, k, v, bias, &plan);
    *bytes = twice_bytes(q);
    return FX_OK;
}

fx_status fx_cuda_attention(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k, fx_tensor v,
                            fx_tensor bias, float scale, void *scratch)
{
    if (is_fused(o, lse, q, k, v, bias))
        return q.shape[0] == 1 ? fused_twice(be, o, lse, q, k, v, scale, scratch)
                               : fused(be, o, lse, q, k, v, scale);
    return fx_products_attention(be, &products, o, lse, q, k, v, bias, scale, scratch, SCORES);
}
