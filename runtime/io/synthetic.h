/* Internal to runtime/io: how large synthetic weights are. The generator itself is declared in checkpoint.h.
 */
#ifndef FX_IO_SYNTHETIC_H
#define FX_IO_SYNTHETIC_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Uniform values in mean +- amp for a tensor of this name and shape. */
void fx_synthetic_scale(const char *name, int ndim, const int64_t shape[], float *amp, float *mean);
/* What fx_synthetic_fill does where there are no vectors of 64-bit products; add: the mean, or -0. */
void fx_synthetic_plain(uint64_t key, uint64_t first, int64_t n, float amp, float add, float *out);
/* fx_synthetic_fill, rounded to bf16. */
void fx_synthetic_bf16(uint64_t key, uint64_t first, int64_t n, float amp, float mean, uint16_t *out);

#ifdef __cplusplus
}
#endif
#endif
