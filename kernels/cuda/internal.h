/* Private to kernels/cuda: the backend's state, vendor calls with their error macros, and the finishing kernel.
 * Only this folder sees CUDA's headers. */
#ifndef FX_KERNELS_CUDA_INTERNAL_H
#define FX_KERNELS_CUDA_INTERNAL_H

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#include "kernels/cuda/slots.h"
#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One GEMM form with the algorithm that was chosen for it; key compared as bytes. */
typedef struct fx_lt_key {
    int64_t m, n, k, ldw, ldx, ldy, batch, stride_w, stride_x, stride_y;
    int32_t in, out, epilogue, w_plain, align; /* cudaDataType_t; w_plain: w is [k,n], not transposed */
} fx_lt_key;
typedef struct fx_lt_plan {
    struct fx_lt_plan *next;
    fx_lt_key key;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulAlgo_t algo;
} fx_lt_plan;
typedef struct fx_dnn_plan fx_dnn_plan;
typedef struct fx_cuda_bias {
    const void *f32; /* on the device */
    void *bf16;      /* the same values */
    int64_t n;
} fx_cuda_bias;

typedef struct fx_cuda_looks fx_cuda_looks;
enum { FX_CUDA_WORKSPACE = 64 << 20 }; /* bytes: what products and plans may use */
typedef struct fx_cuda {
    int device, sm; /* sm: 90 for compute capability 9.0 */
    cudaStream_t stream;
    cublasLtHandle_t lt;
    cudnnHandle_t dnn;
    cudnnBackendDescriptor_t
        properties; /* NULL; else cuDNN plans for this described device and runs nothing (tests) */
    void *workspace, *small;
    size_t workspace_bytes, small_bytes;
    fx_lt_plan *lt_plans;   /* list */
    fx_dnn_plan *dnn_plans; /* list */
    fx_cuda_bias *biases;   /* by rising address */
    size_t bias_places, bias_count;
    char text[160];
    int processors; /* of the device */
    fx_cuda_looks *looks;
    cudaStream_t beside; /* copies to other ranks */
    cudaEvent_t fork, joined;
    bool sending; /* since the last join */
} fx_cuda;

static inline fx_cuda *fx_cuda_of(const fx_backend *be)
{
    return (fx_cuda *)be->impl;
}

/* FX_EDEVICE: fx_cuda_open would refuse it, and why. */
fx_status fx_cuda_usable(int device);
int fx_cuda_ordinal(int nth); /* of devices that there is code for */
fx_status fx_cuda_failed(const char *what, const char *why);
#define FX_CUDA(call)                                                                                        \
    do {                                                                                                     \
        const cudaError_t e_ = (call);                                                                       \
        if (e_ != cudaSuccess) return fx_cuda_failed(#call, cudaGetErrorString(e_));                         \
    } while (0)
#define FX_LT(call)                                                                                          \
    do {                                                                                                     \
        const cublasStatus_t e_ = (call);                                                                    \
        if (e_ != CUBLAS_STATUS_SUCCESS) return fx_cuda_failed(#call, cublasLtGetStatusString(e_));          \
    } while (0)
#define FX_DNN(call)                                                                                         \
    do {                                                                                                     \
        const cudnnStatus_t e_ = (call);                                                                     \
        if (e_ != CUDNN_STATUS_SUCCESS) return fx_cuda_failed(#call, cudnnGetErrorString(e_));               \
    } while (0)

cudaStream_t fx_cuda_stream(const fx_backend *);
fx_status fx_cuda_launched(const char *kernel); /* after a launch: its status */

/* ---- open.c: between runs (runtime/core/cache.h), for this device and these libraries; key: at most 256 bytes ---- */
bool fx_cuda_recall(const fx_cuda *, const char *kind, const void *key, size_t key_bytes, void **data,
                    size_t *bytes);
void fx_cuda_remember(const fx_cuda *, const char *kind, const void *key, size_t key_bytes, const void *data,
                      size_t bytes);

/* ---- gemm.c: y = alpha x w^T, or x w with w_plain; row-major, batched by strides; epilogue of cuBLASLt ---- */
fx_status fx_cuda_gemm(fx_backend *, const fx_lt_key *, float alpha, void *y, const void *x, const void *w,
                       const void *bias);
/* Chooses the algorithm, unless it is chosen: while planning, so that the trials of large products are over before ranks
 * wait for each other. */
fx_status fx_cuda_gemm_prepare(fx_backend *, const fx_lt_key *);
void fx_cuda_gemm_close(fx_cuda *);
/* The product by an algorithm, on the state's stream. */
fx_status fx_lt_run(const fx_cuda *, const fx_lt_plan *, const cublasLtMatmulAlgo_t *, float alpha, void *y,
                    const void *x, const void *w, const void *bias);

/* ---- tune.c: p->algo becomes the fastest of n algorithms and itself that gives its bits; tried: there was room ---- */
bool fx_lt_worth_a_trial(const fx_lt_key *);
fx_status fx_lt_tune(fx_cuda *, fx_lt_plan *p, const cublasLtMatmulAlgo_t algo[], int n, bool *tried);

/* ---- bias.c: biases that bf16 holds exactly ---- */
const void *fx_cuda_bf16_bias(const fx_cuda *,
                              const void *f32); /* of a vector or from inside of one; or NULL */
void fx_cuda_forget_bias(fx_cuda *, const void *f32);
void fx_cuda_bias_close(fx_cuda *);

/* ---- dnn.c: plans of cuDNN's graph interface ---- */
typedef struct fx_dnn_tensor {
    int64_t uid, dims[4], strides[4];
    cudnnDataType_t type;
    int is_virtual, by_value;
} fx_dnn_tensor;
/* What a plan is filed under. native: never a kernel for compute capability 8.0 on a later device, where it is several
 * times slower than what belongs there, unless the environment has FLUXPAR_ALLOW_SM80=1. */
typedef struct fx_dnn_key {
    const void *data;
    size_t bytes;
    bool native;
} fx_dnn_key;
/* Finds the plan of a shape in the list, or one that an earlier run left; else NULL. */
fx_dnn_plan *fx_dnn_find(fx_cuda *, const fx_dnn_key *);
/* One operation graph: finalised operations. */
typedef struct fx_dnn_ops {
    int n;
    cudnnBackendDescriptor_t op[2];
} fx_dnn_ops;
/* Plans the operations (destroyed here) and keeps the plan under the key. The engine and its settings are those that the
 * library would take for `like` (the same operations at a size that all ranks agree on; destroyed too), so that a row's
 * bits do not depend on how many rows or heads a rank has. what: the operation and its shape, for errors. FX_EDEVICE:
 * nothing fits, or only what `native` refuses, which is named. */
fx_status fx_dnn_make(fx_cuda *, const fx_dnn_key *, const char *what, fx_dnn_ops *real, fx_dnn_ops *like,
                      fx_dnn_plan **out);
/* What a plan launches: the library's number of the engine, and the kernel's name where the engine compiled it ("": the
 * library's own binary, which does not say). */
typedef struct fx_dnn_name {
    int64_t engine;
    char kernel[176];
} fx_dnn_name;
const fx_dnn_name *fx_dnn_named(const fx_dnn_plan *);
/* dnn_name.c: the library's text of a plan (a 0 follows; to be freed; NULL: none), what it says, and whether `native` refuses. */
char *fx_dnn_text(cudnnBackendDescriptor_t plan, size_t *bytes);
fx_dnn_name fx_dnn_name_of(const char *text, size_t bytes);
bool fx_dnn_refused(const fx_cuda *, const fx_dnn_name *);
fx_status fx_dnn_describe(const fx_dnn_tensor *, cudnnBackendDescriptor_t *out);
fx_status fx_dnn_run(fx_backend *, const fx_dnn_plan *, int n, const int64_t uid[], void *const data[]);
void fx_dnn_close(fx_cuda *);

/* ---- record.c ---- */
extern const fx_recorder fx_cuda_recorder;
fx_status fx_cuda_looks_open(fx_cuda *);
void fx_cuda_looks_close(fx_cuda *);
bool fx_cuda_recording(const fx_cuda *);
/* While recording: a workspace of that many bytes that no other call of the recording has, if they are few; otherwise the
 * state's, which all calls have one after the other. */
void *fx_cuda_own_workspace(const fx_cuda *, size_t bytes);

/* ---- beside.c ---- */
fx_status fx_cuda_beside_open(fx_cuda *);
void fx_cuda_beside_close(fx_cuda *);

/* ---- attention.c: the plan of cuDNN's fused kernel, found or made; *out NULL: these operands take two products ---- */
fx_status fx_cuda_attention_plan(fx_cuda *, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k, fx_tensor v,
                                 fx_tensor bias, fx_dnn_plan **out);

/* ---- slots of the table ---- */
enum { FX_CUDA_CHANNELS = 8 }; /* convolutions: channels of packed weights are multiples of it */
size_t fx_cuda_packed_bytes(fx_backend *, const fx_weight *);
fx_status fx_cuda_pack(fx_backend *, const fx_weight *, const void *src, void *dst);
fx_status fx_cuda_linear_scratch(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act,
                                 size_t *bytes);
fx_status fx_cuda_linear(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act,
                         void *scratch);
fx_status fx_cuda_conv2d_scratch(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                                 const int pad[4], size_t *bytes);
fx_status fx_cuda_conv2d(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                         const int pad[4], void *scratch);
fx_status fx_cuda_attention_scratch(fx_backend *, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k,
                                    fx_tensor v, fx_tensor bias, size_t *bytes);
fx_status fx_cuda_attention(fx_backend *, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k, fx_tensor v,
                            fx_tensor bias, float scale, void *scratch);

#ifdef __cplusplus
}
#endif
#endif
