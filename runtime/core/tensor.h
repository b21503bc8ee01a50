/* A tensor is a view by value: bytes belong to an arena, to the weight store or to the caller. Strides are in
 * elements, outermost dimension first. "rank" always means an MPI rank in this project, never a dimension
 * count. */
#ifndef FX_CORE_TENSOR_H
#define FX_CORE_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { FX_F64, FX_F32, FX_BF16, FX_F16, FX_I32, FX_U8, FX_DTYPES } fx_dtype;
enum { FX_MAX_DIMS = 5 };

/* For qsort: -1, 0 or 1. */
static inline int fx_order(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}
/* The next multiple of unit. */
static inline int64_t fx_round_up(int64_t x, int64_t unit)
{
    return (x + unit - 1) / unit * unit;
}

typedef struct fx_tensor {
    void *data; /* NULL data with ndim 0 is "absent" (optional arguments) */
    int64_t shape[FX_MAX_DIMS], stride[FX_MAX_DIMS];
    int32_t ndim;
    fx_dtype dtype;
} fx_tensor;

size_t fx_dtype_size(fx_dtype);
const char *fx_dtype_name(fx_dtype); /* "bf16" */

fx_tensor fx_none(void);                                                  /* the absent tensor */
bool fx_present(fx_tensor);                                               /* ndim > 0 */
fx_tensor fx_view(void *data, fx_dtype, int ndim, const int64_t shape[]); /* contiguous */
fx_tensor fx_view1(void *data, fx_dtype, int64_t n);
fx_tensor fx_view2(void *data, fx_dtype, int64_t rows, int64_t cols);
fx_tensor fx_view3(void *data, fx_dtype, int64_t a, int64_t b, int64_t c);
int64_t fx_numel(fx_tensor);
size_t fx_bytes(fx_tensor); /* numel * element size */
bool fx_contiguous(fx_tensor);
/* A slice beyond the tensor's end, or of an absent one, is absent: no op takes it. */
fx_tensor fx_slice(fx_tensor, int dim, int64_t begin, int64_t count); /* any dimension */
fx_tensor fx_rows(fx_tensor, int64_t begin, int64_t count);           /* dim 0 */
fx_tensor fx_cols(fx_tensor, int64_t begin, int64_t count);           /* last dim */
fx_tensor fx_row(fx_tensor, int64_t i);                               /* drops dim 0 */
/* [T, H*D] -> [T, H, D]; keeps the row stride (the last dim must be dense). */
fx_tensor fx_heads(fx_tensor, int64_t heads);
/* [T, H, D] with dense heads -> [T, H*D]; keeps the row stride. */
fx_tensor fx_flat(fx_tensor);
/* Picture [H, W, C] with dense rows -> [H*W, C]. */
fx_tensor fx_pixels(fx_tensor);
fx_tensor fx_permute(fx_tensor, const int order[]);
/* Writes "[3,4] bf16" into buf, for messages. */
const char *fx_shape_str(fx_tensor, char *buf, size_t size);

/* Round to nearest even, the only rounding used for storage. NaN stays NaN. */
uint16_t fx_f32_to_bf16(float);
float fx_bf16_to_f32(uint16_t);
uint16_t fx_f32_to_f16(float);
float fx_f16_to_f32(uint16_t);
/* n elements from one float dtype to another (F64 F32 BF16 F16, any pair). */
void fx_convert(void *dst, fx_dtype dst_dtype, const void *src, fx_dtype src_dtype, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
