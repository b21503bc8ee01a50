/* y = mul * x + add between any strides and float dtypes, and the count of values that are not finite. */
#include "kernels/ref/ref_ops.h"

#include <math.h>

fx_status fx_ref_copy(fx_backend *be, fx_tensor y, fx_tensor x, float mul, float add)
{
    (void)be;
    for (int64_t i = 0; i < fx_numel(y); i++)
        ref_store(y, ref_offset(y, i), (double)mul * ref_load(x, ref_offset(x, i)) + (double)add);
    return FX_OK;
}

fx_status fx_ref_count_nonfinite(fx_backend *be, fx_tensor x, int64_t *count)
{
    (void)be;
    *count = 0;
    for (int64_t i = 0; i < x.shape[0]; i++)
        for (int64_t c = 0; c < x.shape[1]; c++) *count += !isfinite(ref_row(x, i)[c]);
    return FX_OK;
}
