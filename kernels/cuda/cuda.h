/* The CUDA backend: cuBLASLt and cuDNN for products, convolution and attention, own kernels for the rest. bf16 with an
 * f32 stream. Tensors' data are device addresses. */
#ifndef FX_KERNELS_CUDA_CUDA_H
#define FX_KERNELS_CUDA_CUDA_H

#include "kernels/devices.h"
#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* device: number among those that the process sees and this build has code for. FX_EDEVICE: no driver, no such device, or an
 * architecture this build has no code for; the text says which and what to do. FX_EINVAL: dtype. */
fx_status fx_cuda_open(fx_dtype dtype, int device, fx_backend **out);
/* The same for data in host memory: every op copies to the device and back through a pool of that many bytes. For tests
 * (backend "cuda-staged"). */
fx_status fx_cuda_open_staged(fx_dtype dtype, int device, size_t pool_bytes, fx_backend **out);
/* Device memory, aligned to 256 bytes. FX_ENOMEM: names need and free. */
fx_status fx_cuda_alloc(fx_backend *, size_t bytes, void **out);
/* FX_ENOMEM with need, free and what helps, when the library has refused memory of the device that is current. why: "" or words
 * behind the need. */
fx_status fx_cuda_no_room(size_t bytes, const char *why);
void fx_cuda_free(fx_backend *, void *);
fx_status fx_cuda_pinned(fx_backend *, size_t bytes, void **out); /* host memory */
void fx_cuda_unpin(fx_backend *, void *);
fx_status fx_cuda_copy_bytes(fx_backend *, void *to, const void *from,
                             size_t bytes);  /* device to device, in order */
void *fx_cuda_stream_of(const fx_backend *); /* its cudaStream_t */
/* Says that the f32 vector of n values at `device` holds `host` from now on and will not change. Where bf16 holds every
 * value exactly (biases of bf16 checkpoints), matrix products may then add it in the library's own last step. */
fx_status fx_cuda_keep_bias(fx_backend *, const void *device, const float *host, int64_t n);
/* Devices of a supported architecture; 0 without a driver (why: fx_error). */
int fx_cuda_devices(void);
/* "code for 90a,100a, CUDA 13.0, cuBLASLt 13.1.0, cuDNN 9.19.0": needs no device */
const char *fx_cuda_libraries(void);
const char *
fx_cuda_describe(const fx_backend *); /* "NVIDIA H100 80GB HBM3, sm_90, cuBLASLt 13.1, cuDNN 9.19" */
/* For kernels/devices.h. */
extern const fx_device_calls fx_cuda_device_calls;

#ifdef __cplusplus
}
#endif
#endif
