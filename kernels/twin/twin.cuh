/* The CPU twin of CUDA's execution model, for tests: a launch runs its CTAs here, every CUDA thread a fiber, in an
 * order drawn at random; barriers and shuffles block the fiber, shared memory is one poisoned block per CTA. A rank
 * is an OS thread. What a GPU leaves undefined is an error here: a barrier that not all threads of the CTA reach, a
 * shuffle with lanes missing, a launch with more threads than a CTA holds. Needs no toolkit. Included by device.cuh. */
#ifndef FX_KERNELS_TWIN_TWIN_CUH
#define FX_KERNELS_TWIN_TWIN_CUH

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#include "kernels/ops.h"

#define FX_KERNEL static void
#define FX_DEVICE static inline __attribute__((always_inline, unused))
#define FX_METHOD inline __attribute__((always_inline))
#define FX_UNROLL
#define FX_BOUNDS(n)
#define FX_RESTRICT
#define FX_LAUNCH(be, grid, block, shared, kernel, ...)                                                      \
    ((void)(be), fx_twin_run(#kernel, (grid), (block), (shared), kernel, ##__VA_ARGS__))

struct fx_dim3 {
    unsigned x, y, z;
    fx_dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

/* ---- the host's side ---- */

fx_status fx_twin_launch(const char *kernel, fx_dim3 grid, unsigned threads, size_t shared_bytes,
                         const std::function<void()> &body);
/* Arguments go by value, as to a GPU. */
template <class K, class... A>
fx_status fx_twin_run(const char *name, fx_dim3 grid, unsigned threads, size_t shared_bytes, K kernel,
                      A... args)
{
    return fx_twin_launch(name, grid, threads, shared_bytes, [=] { kernel(args...); });
}
/* Order of threads and CTAs, and the poison, from here on; equal seeds repeat a run of one OS thread. */
void fx_twin_seed(uint64_t seed);
/* Launches and fiber switches of this OS thread so far. */
typedef struct fx_twin_counts {
    uint64_t launches, ctas, switches;
} fx_twin_counts;
fx_twin_counts fx_twin_count(void);

/* ---- the kernel's side; only inside a launch ---- */

struct fx_twin_thread {
    int tid, threads;
    int64_t cta, cta_y, ctas;
    unsigned char *shared;
};
const fx_twin_thread &fx_twin_self();
void fx_twin_barrier();
/* Brings this lane's 8 bytes, takes those of lane ^ lanes, when all lanes of the warp have come. */
uint64_t fx_twin_swap(uint64_t mine, int lanes);
void fx_twin_pause();
/* Stores into other ranks' memory wait here until their thread passes a fence, or one of its CTA that has met it at a barrier
 * since; some until the launch has ended: what a missing fence would leave to chance is late. */
void fx_twin_far(void *to, const void *from, size_t bytes);
void fx_twin_fence();
uint64_t fx_twin_clock_ns();

FX_DEVICE int fx_tid()
{
    return fx_twin_self().tid;
}
FX_DEVICE int64_t fx_cta()
{
    return fx_twin_self().cta;
}
FX_DEVICE int64_t fx_cta_y()
{
    return fx_twin_self().cta_y;
}
FX_DEVICE int64_t fx_ctas()
{
    return fx_twin_self().ctas;
}
FX_DEVICE void fx_barrier()
{
    fx_twin_barrier();
}
FX_DEVICE void fx_pause()
{
    fx_twin_pause();
}
template <class T> FX_DEVICE T *fx_shared()
{
    return reinterpret_cast<T *>(fx_twin_self().shared);
}
template <class T> FX_DEVICE T fx_swap_xor(T v, int lanes)
{
    static_assert(sizeof(T) <= 8, "a shuffle moves 8 bytes at most");
    uint64_t word = 0;
    T other;
    memcpy(&word, &v, sizeof v);
    word = fx_twin_swap(word, lanes);
    memcpy(&other, &word, sizeof other);
    return other;
}
FX_DEVICE void fx_atomic_add(unsigned long long *p, unsigned long long v)
{
    __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
FX_DEVICE uint32_t fx_ticket(uint32_t *p, uint32_t last)
{
    uint32_t seen = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(p, &seen, seen >= last ? 0 : seen + 1, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
    }
    return seen;
}
template <class T> FX_DEVICE void fx_put_far(T *p, const T &v)
{
    fx_twin_far(p, &v, sizeof v);
}
FX_DEVICE void fx_fence_system()
{
    fx_twin_fence();
}
FX_DEVICE uint32_t fx_load_acquire(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
FX_DEVICE void fx_store_release(uint32_t *p, uint32_t v)
{
    fx_twin_fence();
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}
FX_DEVICE uint64_t fx_clock_ns()
{
    return fx_twin_clock_ns();
}
FX_DEVICE float fx_rsqrt(float x)
{
    return 1.0f / sqrtf(x);
}
FX_DEVICE float fx_mul(float a, float b)
{
    return a * b; /* -ffp-contract=off */
}
FX_DEVICE float fx_add(float a, float b)
{
    return a + b;
}
FX_DEVICE float fx_half_to_f32(uint16_t h)
{
    return fx_f16_to_f32(h);
}
FX_DEVICE uint16_t fx_f32_to_half(float x)
{
    return fx_f32_to_f16(x);
}

#endif
