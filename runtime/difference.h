/* How far two versions of the same rows are apart: arithmetic of the selftest, in f64 on the host. */
#ifndef FX_DIFFERENCE_H
#define FX_DIFFERENCE_H

#include "runtime/core/status.h"
#include "runtime/core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_difference {
    double max_diff; /* largest |got - want|; NaN when one of them is NaN */
    double relative; /* of the worst row: |got - want| / |want|, both as Euclidean norms; NaN as above */
    int64_t first;   /* first row that is too far away, -1: none */
    int64_t rows;    /* how many are */
} fx_difference;

/* tolerance: how large a row's relative error may be; negative: the bits must be equal. want, got[rows, columns] of any
 * float dtype. FX_ENOMEM. */
fx_status fx_difference_rows(const void *want, const void *got, fx_dtype, int64_t rows, int64_t columns,
                             double tolerance, fx_difference *out);

#ifdef __cplusplus
}
#endif
#endif
