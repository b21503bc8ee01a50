/* Which views a kernel may read in packs of four; see slots.h. */
#include "kernels/cuda/slots.h"

bool fx_in_packs(fx_tensor t)
{
    const size_t bytes = 4 * fx_dtype_size(t.dtype);
    if (t.ndim < 1 || t.shape[t.ndim - 1] % 4 || t.stride[t.ndim - 1] != 1 || (uintptr_t)t.data % bytes)
        return false;
    for (int d = 0; d < t.ndim - 1; d++)
        if (t.stride[d] % 4 && t.shape[d] != 1) return false;
    return true;
}
