/* NumPy .npy (format 1.0, little endian, C order) for --dump and for golden files. */
#ifndef FX_IO_NPY_H
#define FX_IO_NPY_H

#include "runtime/core/status.h"
#include "runtime/core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* f64, f32, i32, u8 as they are; bf16 is written as f32. The tensor must be contiguous host memory. */
fx_status fx_npy_write(const char *path, fx_tensor);
/* Reads f8, f4, f2 (as F16), i4, i8 (as I32), u1, u2 (as F16-sized raw: dtype FX_F16). *out owns malloc'ed
 * data (free(out->data)). */
fx_status fx_npy_read(const char *path, fx_tensor *out);

#ifdef __cplusplus
}
#endif
#endif
