/* Ops of the CUDA backend that are kernels of our own; the table (open.c; in tests kernels/twin/open.cc) puts them in its
 * slots. FX_SLOT(op) is fx_cuda_op under nvcc and fx_twin_op in the CPU twin, so that both fit in one program.
 * Arguments were checked by kernels/ops.c; contract there. */
#ifndef FX_KERNELS_CUDA_SLOTS_H
#define FX_KERNELS_CUDA_SLOTS_H

#include "kernels/ops.h"
#include "kernels/window.h"

#ifdef __cplusplus
extern "C" {
#endif

/* finish: y[M,N] = act(sums[M,N] f32 + bias[N]) with one rounding; bias may be NULL. */
#define FX_SLOTS_OF(prefix)                                                                                              \
    fx_status prefix##norm_mod(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor shift, fx_tensor scale,                 \
                               float eps);                                                                               \
    fx_status prefix##layer_norm(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor b,                       \
                                 float eps);                                                                             \
    fx_status prefix##rms_norm(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor w, float eps);                          \
    fx_status prefix##qk_norm_rope(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor cs,                    \
                                   float eps);                                                                           \
    fx_status prefix##gate_add(fx_backend *, fx_tensor x, fx_tensor gate, fx_tensor y);                                  \
    fx_status prefix##gate_norm(fx_backend *, fx_tensor h, fx_tensor x, fx_tensor gate, fx_tensor y,                     \
                                fx_tensor shift, fx_tensor scale, float eps);                                            \
    fx_status prefix##axpy(fx_backend *, fx_tensor x, fx_tensor y, float a);                                             \
    fx_status prefix##activate(fx_backend *, fx_tensor y, fx_tensor x, fx_act);                                          \
    fx_status prefix##glu(fx_backend *, fx_tensor y, fx_tensor a, fx_tensor b, fx_act);                                  \
    fx_status prefix##embed(fx_backend *, fx_tensor y, fx_tensor table, fx_tensor ids);                                  \
    fx_status prefix##copy(fx_backend *, fx_tensor y, fx_tensor x, float mul, float add);                                \
    fx_status prefix##attention_merge(fx_backend *, fx_tensor o, fx_tensor lse, fx_tensor o2,                            \
                                      fx_tensor lse2);                                                                   \
    fx_status prefix##row_stats(fx_backend *, fx_tensor stats, fx_tensor x);                                             \
    fx_status prefix##group_norm(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor stats, fx_tensor w,                   \
                                 fx_tensor b, int64_t width, float eps, fx_act);                                         \
    fx_status prefix##upsample2x(fx_backend *, fx_tensor y, fx_tensor x);                                                \
    fx_status prefix##to_rgb8(fx_backend *, fx_tensor y, fx_tensor x);                                                   \
    fx_status prefix##count_nonfinite(fx_backend *, fx_tensor x, int64_t *count);                                        \
    /* the same number into device memory */                                                                             \
    fx_status prefix##count_into(fx_backend *, fx_tensor x, int64_t *count);                                             \
    fx_status prefix##finish(fx_backend *, fx_tensor y, const float *sums, const float *bias, fx_act);                   \
    /* s[H,R,1] f32 = scale q k^T for a single key (the library would sum a row otherwise for other R) */                \
    fx_status prefix##dots(fx_backend *, fx_tensor s, fx_tensor q, fx_tensor k, float scale);                            \
    /* p[H,R,Tk] (row stride free) = softmax of s[H,R,Tk] f32 + bias; lse[H,R] or absent. first: number of row 0  \
     * among the Tq queries, which the bias[1 or H, Tq+Tk-1] counts from. Rows without a finite score: p = 0,     \
     * lse = -inf. */      \
    fx_status prefix##softmax(fx_backend *, fx_tensor p, fx_tensor lse, fx_tensor s, fx_tensor bias,                     \
                              int64_t first, int64_t queries);                                                           \
    /* x[n] (bf16 or f32) = elements first.. of the synthetic stream `key` (runtime/io/synthetic.c), rounded to bf16;  \
     * *sum = a digest of n words of 16 bits */ \
    fx_status prefix##draw(fx_backend *, void *x, fx_dtype, int64_t n, uint64_t key, uint64_t first,                     \
                           float amp, float mean);                                                                       \
    /* kernels/window.h */                                                                                               \
    fx_status prefix##window_put(fx_backend *, const fx_window *, const fx_window_run run[], int n,                      \
                                 float eps);                                                                             \
    fx_status prefix##window_wait(fx_backend *, const fx_window *, int what);                                            \
    fx_status prefix##window_give_back(fx_backend *, const fx_window *, fx_tensor o,                                     \
                                       const fx_window_owner *owners, int n);                                            \
    fx_status prefix##window_pack(fx_backend *, const fx_window *, const fx_window_run run[], int n,                     \
                                  float eps, fx_tensor staged);                                                          \
    fx_status prefix##window_send(fx_backend *, const fx_window_copy copies[], int n);                                   \
    fx_status prefix##window_join(fx_backend *);                                                                         \
    bool prefix##window_under_way(const fx_backend *); /* sent and not joined */                                         \
    fx_status prefix##digest(fx_backend *, const uint16_t *x, int64_t n, unsigned long long *sum);

FX_SLOTS_OF(fx_cuda_)
FX_SLOTS_OF(fx_twin_)

/* Small memory of the backend that kernels use between two launches of one op: at least `bytes`, or NULL. */
void *fx_cuda_small(fx_backend *, size_t bytes);
void *fx_twin_small(fx_backend *, size_t bytes);

/* The tensor can be read four neighbours at a time: last dimension dense and a multiple of 4, rows aligned to it. */
bool fx_in_packs(fx_tensor);

/* A device of compute capability sm / 10 . sm % 10 runs code for this list, as CMake spells it: 90a is for 9.0 alone, 100f and
 * 100-real for 10.x, 90-virtual and 90 for all from there on. */
bool fx_cuda_has_code(const char *archs, int sm);

#ifdef __cplusplus
}
#endif
#endif
