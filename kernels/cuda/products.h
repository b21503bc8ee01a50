/* Attention as two matrix products with a softmax between them, a block of queries at a time, so that scores of
 * Tq x Tk are never kept: what the fused kernels do not take (a bias by distance, other head dims than 64 and 128,
 * f32). The products are the caller's: cuBLASLt on a GPU, plain loops in the CPU twin. */
#ifndef FX_KERNELS_CUDA_PRODUCTS_H
#define FX_KERNELS_CUDA_PRODUCTS_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_products {
    /* s[H,R,Tk] f32 = scale q[R,H,D] k[Tk,H,D]^T per head */
    fx_status (*scores)(fx_backend *, fx_tensor s, fx_tensor q, fx_tensor k, float scale);
    /* p (backend dtype), lse = softmax(s + bias), as in slots.h */
    fx_status (*softmax)(fx_backend *, fx_tensor p, fx_tensor lse, fx_tensor s, fx_tensor bias, int64_t first,
                         int64_t queries);
    /* o[R,H,D] = p[H,R,Tk] v[Tk,H,D] per head; Tk = 0 gives zeros */
    fx_status (*values)(fx_backend *, fx_tensor o, fx_tensor p, fx_tensor v);
} fx_products;

/* Bytes for the scores of one block of queries, at most about `limit` (one query at least). */
size_t fx_products_scratch(fx_tensor q, fx_tensor k, size_t limit);
/* Arguments as fx_attention; scratch of fx_products_scratch with the same limit. A query row has the same bits in any
 * split of the queries if the products' rows have. */
fx_status fx_products_attention(fx_backend *, const fx_products *, fx_tensor o, fx_tensor lse, fx_tensor q,
                                fx_tensor k, fx_tensor v, fx_tensor bias, float scale, void *scratch,
                                size_t limit);

#ifdef __cplusplus
}
#endif
#endif
