/* Convolution of NHWC pictures through cuDNN: sums and bias in f32, one rounding. Its kernels want channels in multiples of
 * 8, addresses in multiples of 16 bytes and rows without gaps (with gaps cuDNN 9.19 on an H100 leaves as many elements at the
 * end unwritten as the gaps have): pictures that are otherwise (3 colours) go through filled copies in scratch. Contract:
 * kernels/ops.h. */
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/internal.h"

enum { FIXED_ROWS = 64 };
enum { UID_X = 1, UID_W, UID_BIAS, UID_Y, UID_SUMS };

typedef struct conv_key {
    int64_t kind, height, width, channels, outputs, kh, kw, stride, pad[4], bias, out;
} conv_key;

#define DNN_SET(d, attribute, type, n, value)                                                                \
    FX_DNN(cudnnBackendSetAttribute(d, CUDNN_ATTR_##attribute, CUDNN_TYPE_##type, n, value))

static int64_t filled(int64_t channels)
{
    return (channels + FX_CUDA_CHANNELS - 1) / FX_CUDA_CHANNELS * FX_CUDA_CHANNELS;
}

static bool fits(fx_tensor t)
{
    return t.shape[2] % FX_CUDA_CHANNELS == 0 && (uintptr_t)t.data % 16 == 0 &&
           (t.shape[0] == 1 || t.stride[0] == t.shape[1] * t.shape[2]);
}

/* The picture with its channels filled up, dense. */
static fx_tensor copy_of(fx_tensor t, void *data)
{
    return fx_view3(data, t.dtype, t.shape[0], t.shape[1], filled(t.shape[2]));
}

static size_t padded(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

/* Where the copies that are needed lie in scratch: x, y, bias. Arenas align, while planning too. */
typedef struct copies {
    size_t y, bias, bytes;
} copies;

static copies places(fx_tensor y, fx_tensor x)
{
    copies p;
    p.y = fits(x) ? 0 : padded(fx_bytes(copy_of(x, NULL)));
    p.bias = p.y + (fits(y) ? 0 : padded(fx_bytes(copy_of(y, NULL))));
    p.bytes = p.bias + padded((size_t)filled(y.shape[2]) * 4);
    return p;
}

/* A picture [rows, columns, channels] as N, C, H, W. */
static fx_status picture(int64_t uid, fx_tensor t, cudnnDataType_t type, int is_virtual,
                         cudnnBackendDescriptor_t *out)
{
    const int64_t c = t.shape[2], row = t.shape[1] * c;
    const fx_dnn_tensor d = {.uid = uid,
                             .dims = {1, c, t.shape[0], t.shape[1]},
                             .strides = {t.shape[0] * row, 1, row, c},
                             .type = type,
                             .is_virtual = is_virtual};
    return fx_dnn_describe(&d, out);
}

static fx_status convolution(const conv_key *k, cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t w,
                             cudnnBackendDescriptor_t y, cudnnBackendDescriptor_t *op)
{
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t dims = 2, one[2] = {1, 1}, strides[2] = {k->stride, k->stride},
                  before[2] = {k->pad[0], k->pad[2]}, after[2] = {k->pad[1], k->pad[3]};
    const float alpha = 1, beta = 0;
    cudnnBackendDescriptor_t conv;
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, &conv));
    DNN_SET(conv, CONVOLUTION_COMP_TYPE, DATA_TYPE, 1, &f32);
    DNN_SET(conv, CONVOLUTION_CONV_MODE, CONVOLUTION_MODE, 1, &mode);
    DNN_SET(conv, CONVOLUTION_SPATIAL_DIMS, INT64, 1, &dims);
    DNN_SET(conv, CONVOLUTION_DILATIONS, INT64, 2, one);
    DNN_SET(conv, CONVOLUTION_FILTER_STRIDES, INT64, 2, strides);
    DNN_SET(conv, CONVOLUTION_PRE_PADDINGS, INT64, 2, before);
    DNN_SET(conv, CONVOLUTION_POST_PADDINGS, INT64, 2, after);
    FX_DNN(cudnnBackendFinalize(conv));
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, op));
    DNN_SET(*op, OPERATION_CONVOLUTION_FORWARD_CONV_DESC, BACKEND_DESCRIPTOR, 1, &conv);
    DNN_SET(*op, OPERATION_CONVOLUTION_FORWARD_X, BACKEND_DESCRIPTOR, 1, &x);
    DNN_SET(*op, OPERATION_CONVOLUTION_FORWARD_W, BACKEND_DESCRIPTOR, 1, &w);
    DNN_SET(*op, OPERATION_CONVOLUTION_FORWARD_Y, BACKEND_DESCRIPTOR, 1, &y);
    DNN_SET(*op, OPERATION_CONVOLUTION_FORWARD_ALPHA, FLOAT, 1, &alpha);
    DNN_SET(*op, OPERATION_CONVOLUTION_FORWARD_BETA, FLOAT, 1, &beta);
    FX_DNN(cudnnBackendFinalize(*op));
    cudnnBackendDestroyDescriptor(conv);
    return FX_OK;
}

static fx_status add_bias(cudnnBackendDescriptor_t sums, cudnnBackendDescriptor_t bias,
                          cudnnBackendDescriptor_t y, cudnnBackendDescriptor_t *op)
{
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    const cudnnPointwiseMode_t mode = CUDNN_POINTWISE_ADD;
    cudnnBackendDescriptor_t add;
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_POINTWISE_DESCRIPTOR, &add));
    DNN_SET(add, POINTWISE_MODE, POINTWISE_MODE, 1, &mode);
    DNN_SET(add, POINTWISE_MATH_PREC, DATA_TYPE, 1, &f32);
    FX_DNN(cudnnBackendFinalize(add));
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, op));
    DNN_SET(*op, OPERATION_POINTWISE_PW_DESCRIPTOR, BACKEND_DESCRIPTOR, 1, &add);
    DNN_SET(*op, OPERATION_POINTWISE_XDESC, BACKEND_DESCRIPTOR, 1, &sums);
    DNN_SET(*op, OPERATION_POINTWISE_BDESC, BACKEND_DESCRIPTOR, 1, &bias);
    DNN_SET(*op, OPERATION_POINTWISE_YDESC, BACKEND_DESCRIPTOR, 1, &y);
    FX_DNN(cudnnBackendFinalize(*op));
    cudnnBackendDestroyDescriptor(add);
    return FX_OK;
}

static cudnnDataType_t type_of(fx_dtype dtype)
{
    return dtype == FX_F32 ? CUDNN_DATA_FLOAT : CUDNN_DATA_BFLOAT16;
}

/* Convolution and bias of x to y; both may be shapes without data. */
static fx_status conv_ops(const conv_key *k, fx_tensor y, fx_tensor x, fx_weight w, fx_dnn_ops *out)
{
    cudnnBackendDescriptor_t t[5] = {0};
    const int64_t in = x.shape[2], n = y.shape[2];
    const fx_dnn_tensor filter = {.uid = UID_W,
                                  .dims = {n, in, w.kh, w.kw},
                                  .strides = {in * w.kh * w.kw, 1, in * w.kw, in},
                                  .type = type_of(w.dtype)},
                        bias = {.uid = UID_BIAS,
                                .dims = {1, n, 1, 1},
                                .strides = {n, 1, n, n},
                                .type = CUDNN_DATA_FLOAT};
    out->n = k->bias ? 2 : 1;
    FX_TRY(picture(UID_X, x, type_of(x.dtype), 0, &t[0]));
    FX_TRY(fx_dnn_describe(&filter, &t[1]));
    FX_TRY(picture(UID_Y, y, type_of(y.dtype), 0, &t[2]));
    if (k->bias) {
        FX_TRY(picture(UID_SUMS, y, CUDNN_DATA_FLOAT, 1, &t[3]));
        FX_TRY(fx_dnn_describe(&bias, &t[4]));
        FX_TRY(convolution(k, t[0], t[1], t[3], &out->op[0]));
        FX_TRY(add_bias(t[3], t[4], t[2], &out->op[1]));
    } else {
        FX_TRY(convolution(k, t[0], t[1], t[2], &out->op[0]));
    }
    for (int i = 0; i < 5; i++)
        if (t[i]) cudnnBackendDestroyDescriptor(t[i]);
    return FX_OK;
}

/* The engine is that of FIXED_ROWS rows, whatever rows are here. */
static fx_status conv_plan(fx_cuda *c, const conv_key *k, fx_tensor y, fx_tensor x, fx_weight w,
                           fx_dnn_plan **out)
{
    char what[160];
    fx_dnn_ops real, like;
    const fx_dnn_key name = {k, sizeof *k, false};
    fx_tensor few_y = y, few_x = x;
    few_y.shape[0] = FIXED_ROWS;
    few_x.shape[0] = (FIXED_ROWS - 1) * k->stride + k->kh - k->pad[0] - k->pad[1];
    FX_TRY(conv_ops(k, y, x, w, &real));
    FX_TRY(conv_ops(k, few_y, few_x, w, &like));
    snprintf(what, sizeof what, "convolution %lld x %lld of %lld x %lld x %lld to %lld channels",
             (long long)k->kh, (long long)k->kw, (long long)k->height, (long long)k->width,
             (long long)k->channels, (long long)k->outputs);
    return fx_dnn_make(c, &name, what, &real, &like, out);
}

/* The plan for filled and aligned operands (shapes), made at the first call: while planning. */
static fx_status plan_of(fx_cuda *c, fx_tensor y, fx_tensor x, fx_weight w, bool bias, int stride,
                         const int pad[4], fx_dnn_plan **out)
{
    conv_key key;
    memset(&key, 0, sizeof key);
    key.kind = 'c', key.height = x.shape[0], key.width = x.shape[1], key.channels = x.shape[2];
    key.outputs = y.shape[2];
    key.kh = w.kh, key.kw = w.kw, key.stride = stride;
    for (int i = 0; i < 4; i++) key.pad[i] = pad[i];
    key.bias = bias, key.out = y.dtype;
    *out = fx_dnn_find(c, &(fx_dnn_key){&key, sizeof key, false});
    return *out ? FX_OK : conv_plan(c, &key, y, x, w, out);
}

fx_status fx_cuda_conv2d_scratch(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b,
                                 int stride, const int pad[4], size_t *bytes)
{
    fx_dnn_plan *plan;
    *bytes = places(y, x).bytes;
    return plan_of(fx_cuda_of(be), fits(y) ? y : copy_of(y, NULL), fits(x) ? x : copy_of(x, NULL), w,
                   fx_present(b), stride, pad, &plan);
}

/* Filled and aligned operands. */
static fx_status convolve(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                          const int pad[4])
{
    fx_dnn_plan *plan;
    const bool bias = fx_present(b);
    const int64_t uid[4] = {UID_X, UID_W, UID_Y, UID_BIAS};
    void *const data[4] = {x.data, (void *)(uintptr_t)w.packed, y.data, b.data};
    FX_TRY(plan_of(fx_cuda_of(be), y, x, w, bias, stride, pad, &plan));
    return fx_dnn_run(be, plan, bias ? 4 : 3, uid, data);
}

static fx_status zeros(fx_backend *be, fx_tensor t)
{
    FX_CUDA(cudaMemsetAsync(t.data, 0, fx_bytes(t), fx_cuda_stream(be)));
    return FX_OK;
}

fx_status fx_cuda_conv2d(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                         const int pad[4], void *scratch)
{
    const copies at = places(y, x);
    fx_tensor in = x, out = y, bias = b;
    if (!fits(x)) {
        in = copy_of(x, scratch);
        FX_TRY(zeros(be, in));
        FX_TRY(fx_cuda_copy(be, fx_cols(in, 0, x.shape[2]), x, 1, 0));
    }
    if (!fits(y)) out = copy_of(y, (char *)scratch + at.y);
    if (fx_present(b) && (out.shape[2] != w.n || (uintptr_t)b.data % 16)) {
        bias = fx_view1((char *)scratch + at.bias, FX_F32, out.shape[2]);
        FX_TRY(zeros(be, bias));
        FX_TRY(fx_cuda_copy(be, fx_slice(bias, 0, 0, w.n), b, 1, 0));
    }
    FX_TRY(convolve(be, out, in, w, bias, stride, pad));
    return out.data == y.data ? FX_OK : fx_cuda_copy(be, y, fx_cols(out, 0, w.n), 1, 0);
}
