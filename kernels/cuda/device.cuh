/* What a device kernel may use: indices, shared memory, barriers, shuffles, atomics, stores into other ranks' memory with
 * fences and flags, a clock, launches. Two twins of every word: under nvcc the real thing, otherwise kernels/twin/twin.cuh,
 * which runs grid, CTAs and threads on the CPU, so that every kernel is tested without a GPU from the very same source.
 * Kernels use nothing of CUDA but through this file; shared memory is one block per CTA; every loop that waits calls
 * fx_pause(). */
#ifndef FX_KERNELS_CUDA_DEVICE_CUH
#define FX_KERNELS_CUDA_DEVICE_CUH

#include "kernels/ops.h"
#include "kernels/rowfn.h"

#ifdef __CUDACC__
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define FX_KERNEL    static __global__ void
#define FX_DEVICE    __device__ __forceinline__
#define FX_METHOD    __device__ __forceinline__ /* of a struct */
#define FX_UNROLL    _Pragma("unroll")
#define FX_BOUNDS(n) __launch_bounds__(n)
#define FX_SLOT(op)  fx_cuda_##op /* the table's function of an op */
#define FX_RESTRICT  __restrict__
/* Launches kernel(...) on the backend's stream and returns the status of the launch. */
#define FX_LAUNCH(be, grid, block, shared, kernel, ...)                                                      \
    (kernel<<<(grid), (block), (shared), fx_cuda_stream(be)>>>(__VA_ARGS__), fx_cuda_launched(#kernel))

typedef dim3 fx_dim3;
extern "C" cudaStream_t fx_cuda_stream(const fx_backend *);
extern "C" fx_status fx_cuda_launched(const char *kernel);

FX_DEVICE int fx_tid()
{
    return (int)threadIdx.x;
}
FX_DEVICE int64_t fx_cta()
{
    return (int64_t)blockIdx.x;
}
FX_DEVICE int64_t fx_cta_y()
{
    return (int64_t)blockIdx.y;
}
FX_DEVICE int64_t fx_ctas()
{
    return (int64_t)gridDim.x;
}
FX_DEVICE void fx_barrier()
{
    __syncthreads();
}
template <class T> FX_DEVICE T *fx_shared()
{
    extern __shared__ __align__(16) unsigned char fx_shared_block[];
    return reinterpret_cast<T *>(fx_shared_block);
}
template <class T> FX_DEVICE T fx_swap_xor(T v, int lanes)
{
    return __shfl_xor_sync(0xffffffffu, v, lanes);
}
FX_DEVICE void fx_atomic_add(unsigned long long *p, unsigned long long v)
{
    atomicAdd(p, v);
}
/* 0, 1, ... last, 0, ...: the value before. */
FX_DEVICE uint32_t fx_ticket(uint32_t *p, uint32_t last)
{
    return atomicInc(p, last);
}
/* A store into another rank's memory; it has come there when its thread has passed a fence, or one of its CTA after a barrier. */
template <class T> FX_DEVICE void fx_put_far(T *p, const T &v)
{
    *p = v;
}
FX_DEVICE void fx_fence_system()
{
    __threadfence_system();
}
/* Flags that other devices and the host see: what came before a release is there after the acquire that reads it. */
FX_DEVICE uint32_t fx_load_acquire(const uint32_t *p)
{
    uint32_t v;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}
FX_DEVICE void fx_store_release(uint32_t *p, uint32_t v)
{
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}
FX_DEVICE uint64_t fx_clock_ns()
{
    uint64_t t;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
    return t;
}
FX_DEVICE void fx_pause()
{
    __nanosleep(32);
}
/* 1 / sqrt(x), off by 2 ulp at most; x is normal. */
FX_DEVICE float fx_rsqrt(float x)
{
    return rsqrtf(x);
}
/* One rounding each, never fused. */
FX_DEVICE float fx_mul(float a, float b)
{
    return __fmul_rn(a, b);
}
FX_DEVICE float fx_add(float a, float b)
{
    return __fadd_rn(a, b);
}
FX_DEVICE float fx_half_to_f32(uint16_t h)
{
    return __half2float(__ushort_as_half(h));
}
FX_DEVICE uint16_t fx_f32_to_half(float x)
{
    return __half_as_ushort(__float2half_rn(x));
}
#else
#include "kernels/twin/twin.cuh"
#define FX_SLOT(op) fx_twin_##op
#endif

/* ---- the same for both: values ---- */

FX_DEVICE float fx_get(const float *p, int64_t i)
{
    return p[i];
}
FX_DEVICE float fx_get(const uint16_t *p, int64_t i)
{
    return fx_widen_bf16(p[i]);
} /* 16 bits: bf16 */
FX_DEVICE void fx_put(float *p, int64_t i, float v)
{
    p[i] = v;
}
FX_DEVICE void fx_put(uint16_t *p, int64_t i, float v)
{
    p[i] = fx_round_bf16(v);
}

/* V neighbours at once, 16 or 8 bytes where V is 4; i counts elements and is a multiple of V. */
template <int V> struct fx_vec {
    float v[V];
};

struct alignas(16) fx_float4 {
    float v[4];
};
struct alignas(8) fx_half4 {
    uint32_t v[2]; /* two bf16 each */
};

template <int V> FX_DEVICE fx_vec<V> fx_get_vec(const float *p, int64_t i)
{
    fx_vec<V> r;
    if constexpr (V == 4) {
        const fx_float4 t = *reinterpret_cast<const fx_float4 *>(p + i);
        FX_UNROLL for (int k = 0; k < V; k++) r.v[k] = t.v[k];
    } else {
        r.v[0] = p[i];
    }
    return r;
}

template <int V> FX_DEVICE fx_vec<V> fx_get_vec(const uint16_t *p, int64_t i)
{
    fx_vec<V> r;
    if constexpr (V == 4) {
        const fx_half4 t = *reinterpret_cast<const fx_half4 *>(p + i);
        FX_UNROLL for (int k = 0; k < V; k += 2) fx_widen_two(t.v[k / 2], r.v + k);
    } else {
        r.v[0] = fx_widen_bf16(p[i]);
    }
    return r;
}

template <int V> FX_DEVICE void fx_put_vec(float *p, int64_t i, const fx_vec<V> &r)
{
    if constexpr (V == 4) {
        fx_float4 t;
        FX_UNROLL for (int k = 0; k < V; k++) t.v[k] = r.v[k];
        *reinterpret_cast<fx_float4 *>(p + i) = t;
    } else {
        p[i] = r.v[0];
    }
}

template <int V> FX_DEVICE void fx_put_vec(uint16_t *p, int64_t i, const fx_vec<V> &r)
{
    if constexpr (V == 4) {
        fx_half4 t;
        FX_UNROLL for (int k = 0; k < V; k += 2) t.v[k / 2] = fx_round_two(r.v[k], r.v[k + 1]);
        *reinterpret_cast<fx_half4 *>(p + i) = t;
    } else {
        p[i] = fx_round_bf16(r.v[0]);
    }
}

/* ---- the same for both: sums, in a fixed order ---- */

enum { FX_WARP = 32 };

template <class T> FX_DEVICE T fx_warp_sum(T v)
{
    FX_UNROLL for (int lanes = FX_WARP / 2; lanes; lanes /= 2) v += fx_swap_xor(v, lanes);
    return v;
}

template <class T> FX_DEVICE T fx_warp_max(T v)
{
    FX_UNROLL for (int lanes = FX_WARP / 2; lanes; lanes /= 2)
    {
        const T other = fx_swap_xor(v, lanes);
        v = other > v || other != other ? other : v; /* NaN wins */
    }
    return v;
}

/* Of all N threads of the CTA, to all of them. part: one T per warp, in shared memory; free again on return. */
template <int N, class T> FX_DEVICE T fx_cta_sum(T v, T *part)
{
    static_assert(N % FX_WARP == 0, "whole warps");
    v = fx_warp_sum(v);
    if (fx_tid() % FX_WARP == 0) part[fx_tid() / FX_WARP] = v;
    fx_barrier();
    T sum = part[0];
    FX_UNROLL for (int w = 1; w < N / FX_WARP; w++) sum += part[w];
    fx_barrier();
    return sum;
}

template <int N, class T> FX_DEVICE T fx_cta_max(T v, T *part)
{
    v = fx_warp_max(v);
    if (fx_tid() % FX_WARP == 0) part[fx_tid() / FX_WARP] = v;
    fx_barrier();
    T most = part[0];
    FX_UNROLL for (int w = 1; w < N / FX_WARP; w++) most =
        part[w] > most || part[w] != part[w] ? part[w] : most;
    fx_barrier();
    return most;
}

#endif
