/* A linear layer as the graph sees it (matrix and bias), and printf-style declaration to the weight store. */
#ifndef FX_PARALLEL_DENSE_H
#define FX_PARALLEL_DENSE_H

#include "parallel/store.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_dense {
    fx_weight w; /* [N, K] */
    fx_tensor b; /* [N] f32, absent when the layer has no bias */
} fx_dense;

/* Two layers of the same input that may be computed as one: less work is lost at the edges of a product. Where weights are plain
 * (fx_backend.plain_rows) they lie one below the other in `whole`; elsewhere each is packed for itself and whole.w.n is 0. */
typedef struct fx_dense_pair {
    fx_dense whole; /* [n[0] + n[1], K] */
    fx_dense part[2];
    int64_t n[2];
} fx_dense_pair;

enum { FX_NAME_MAX = 160 }; /* longest tensor name this program asks for */

/* Stacks <prefix><part i>.weight (and .bias) by rows: n rows in all. parts: NULL-terminated suffixes; {"",
 * NULL} for one. */
fx_status fx_declare_dense(fx_store *, fx_checkpoint *, fx_dense *out, int64_t n, int64_t k, bool bias,
                           const char *prefix, const char *const parts[]);
/* One layer: prefix + suffix. */
fx_status fx_declare_dense1(fx_store *, fx_checkpoint *, fx_dense *out, int64_t n, int64_t k, bool bias,
                            const char *prefix, const char *suffix);
/* Rows row0.. of one layer. */
fx_status fx_declare_dense_rows(fx_store *, fx_checkpoint *, fx_dense *out, int64_t row0, int64_t n,
                                int64_t k, bool bias, const char *prefix, const char *suffix);
fx_status fx_declare_vector(fx_store *, fx_checkpoint *, fx_tensor *out, int64_t n, const char *prefix,
                            const char *suffix);

/* y = act(x W^T + b) */
fx_status fx_dense_apply(fx_backend *, fx_tensor y, fx_tensor x, const fx_dense *, fx_act);
/* The same of one of two: y[M, n[i]]. */
fx_status fx_dense_apply_part(fx_backend *, fx_tensor y, fx_tensor x, const fx_dense_pair *, int i, fx_act);

#ifdef __cplusplus
}
#endif
#endif
