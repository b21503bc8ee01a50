/* oneDNN's C API as this project uses it: one matrix product y[M,N] = x[M,K] w[N,K]^T + b, weights in the
 * library's own blocked form. The only file pair that sees dnnl.h, and the only place where 2.x and 3.x
 * differ. */
#ifndef FX_KERNELS_CPU_DNNL_COMPAT_H
#define FX_KERNELS_CPU_DNNL_COMPAT_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_dnnl fx_dnnl; /* engine and stream */
typedef struct fx_dnnl_matmul fx_dnnl_matmul;

typedef struct fx_dnnl_shape {
    int64_t m, n, k, x_stride, y_stride; /* row strides in elements */
    fx_dtype dtype, out;
    bool bias;
} fx_dnnl_shape;

fx_status fx_dnnl_open(fx_dnnl **out);
void fx_dnnl_close(fx_dnnl **);
const char *fx_dnnl_version_text(void); /* "oneDNN 2.6.3" */
bool fx_dnnl_uses_openmp(void);         /* else its threads are not ours to count */

/* Weights: the form depends on n, k and dtype alone. src[n][k]. */
fx_status fx_dnnl_weight_bytes(fx_dnnl *, int64_t n, int64_t k, fx_dtype, size_t *bytes);
fx_status fx_dnnl_weight_pack(fx_dnnl *, int64_t n, int64_t k, fx_dtype, const void *src, void *dst);

fx_status fx_dnnl_matmul_new(fx_dnnl *, const fx_dnnl_shape *, fx_dnnl_matmul **out);
void fx_dnnl_matmul_free(fx_dnnl_matmul **);
size_t fx_dnnl_matmul_scratch(const fx_dnnl_matmul *);
fx_status fx_dnnl_matmul_run(fx_dnnl_matmul *, const void *x, const void *w, const float *b, void *y,
                             void *scratch);

#ifdef __cplusplus
}
#endif
#endif
