/* Argument checks shared by the fx_<op> wrappers: shapes, dtypes, density, overlap. Looks at the views only,
 * never at the data, so that it works while planning. Messages carry the values: "linear: x is [8,4] f32;
 * want [*,5] bf16". */
#ifndef FX_KERNELS_CHECK_H
#define FX_KERNELS_CHECK_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Allowed dtypes (or-ed), and how many trailing dimensions must be dense (1 unless said otherwise). */
enum {
    FX_W_DTYPE = 1,  /* backend dtype */
    FX_W_STREAM = 2, /* backend stream */
    FX_W_WORK = 3,   /* either */
    FX_W_F32 = 4,
    FX_W_F64 = 8,
    FX_W_I32 = 16,
    FX_W_U8 = 32,
    FX_W_FLOAT = 64, /* any float */
    FX_W_DENSE2 = 128,
    FX_W_STRIDED = 256
};
enum { FX_W_ANY = -1 }; /* any size in want_shape */

/* t has `ndim` dimensions with want_shape[] (FX_W_ANY is free) and meets `flags`. */
fx_status fx_want(const fx_backend *, const char *op, const char *arg, fx_tensor t, unsigned flags, int ndim,
                  const int64_t want_shape[]);
/* y and x have equal shapes, 1 to 5 dims. */
fx_status fx_want_same_shape(const char *op, const char *yn, fx_tensor y, const char *xn, fx_tensor x);
/* No element of y lies on an element of x. Interleaved views (column and head slices of one buffer) are
 * recognised. */
fx_status fx_want_apart(const char *op, const char *yn, fx_tensor y, const char *xn, fx_tensor x);
/* Apart, or exactly the same view. */
fx_status fx_want_apart_or_same(const char *op, const char *yn, fx_tensor y, const char *xn, fx_tensor x);
/* A weight of this kind and of the backend's dtype; packed unless planning. */
fx_status fx_want_weight(const fx_backend *, const char *op, const fx_weight *w, fx_weight_kind kind);

#ifdef __cplusplus
}
#endif
#endif
