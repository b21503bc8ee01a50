/* Internal to runtime/io: the header of one safetensors file, fully validated. */
#ifndef FX_IO_SAFETENSORS_H
#define FX_IO_SAFETENSORS_H

#include "runtime/core/status.h"
#include "runtime/core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One tensor. Types that only other programs compute with (F8, integers) are listed, but have dtype
 * FX_DTYPES. */
typedef struct fx_st_tensor {
    char *name;      /* owned by the list */
    const char *tag; /* the type as the file spells it, "F8_E4M3"; static */
    fx_dtype dtype;
    int32_t ndim;
    int64_t shape[FX_MAX_DIMS];
    uint64_t offset, bytes; /* from the start of the file */
} fx_st_tensor;

typedef struct fx_st_header {
    fx_st_tensor *tensors; /* in file order */
    int64_t count;
    uint64_t hash; /* of the header's bytes and the file size (XXH3) */
} fx_st_header;

/* fd is an open regular file of `size` bytes; path is for messages. */
fx_status fx_safetensors_header(int fd, const char *path, uint64_t size, fx_st_header *out);
void fx_safetensors_free(fx_st_header *);

#ifdef __cplusplus
}
#endif
#endif
