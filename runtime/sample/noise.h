/* The starting noise of an image, equal to what torch draws on the CPU for the same seed, so that a seed
 * gives the picture that the reference pipeline gives. */
#ifndef FX_SAMPLE_NOISE_H
#define FX_SAMPLE_NOISE_H

#include <stdint.h>

#include "runtime/core/status.h"
#include "runtime/core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out[n] = torch.randn(n, generator=torch.Generator('cpu').manual_seed(seed), dtype=variant), variant FX_F32
 * or FX_BF16 (values that fit bf16, stored as f32). Bit-equal to torch 2.15 on x86-64 with AVX2; older
 * versions and other processors differ in the last bits of f32. */
fx_status fx_noise_normal(uint64_t seed, fx_dtype variant, int64_t n, float *out);

#ifdef __cplusplus
}
#endif
#endif
