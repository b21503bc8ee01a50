/* Compares rows one by one; see difference.h. A row is judged by itself, because one wrong row among thousands hides in
 * the norm of a whole tensor. NaN counts as a difference everywhere: every comparison below is false for it. */
#include "runtime/difference.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void larger(double *most, double value)
{
    if (isnan(value) || value > *most) *most = value;
}

/* Returns the row's relative error; *most grows to its largest difference. */
static double row_error(const double *want, const double *got, int64_t n, double *most)
{
    double apart = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        const double d = fabs(got[i] - want[i]);
        larger(most, d);
        apart += d * d;
        size += want[i] * want[i];
    }
    return apart == 0 ? 0 : sqrt(apart) / sqrt(size > 0 ? size : DBL_MIN);
}

fx_status fx_difference_rows(const void *want, const void *got, fx_dtype dtype, int64_t rows, int64_t columns,
                             double tolerance, fx_difference *out)
{
    const size_t row_bytes = (size_t)columns * fx_dtype_size(dtype);
    double *a = malloc(2 * (size_t)columns * sizeof *a + 1), *b = a + columns;
    *out = (fx_difference){.first = -1};
    FX_CHECK(a, FX_ENOMEM, "no memory to compare rows of %lld values", (long long)columns);
    for (int64_t r = 0; r < rows; r++) {
        const char *w = (const char *)want + (size_t)r * row_bytes,
                   *g = (const char *)got + (size_t)r * row_bytes;
        if (!memcmp(w, g, row_bytes)) continue;
        fx_convert(a, FX_F64, w, dtype, columns);
        fx_convert(b, FX_F64, g, dtype, columns);
        const double error = row_error(a, b, columns, &out->max_diff);
        larger(&out->relative, error);
        if (error <= tolerance) continue;
        if (out->first < 0) out->first = r;
        out->rows++;
    }
    free(a);
    return FX_OK;
}
