/* Latents between their two shapes: packed tokens [T, 4c] (2x2 patches in raster order, what the transformer
 * sees) and a picture [h, w, c] (what the VAE sees). Source: FluxPipeline._pack_latents and _unpack_latents.
 */
#ifndef FX_SAMPLE_LATENTS_H
#define FX_SAMPLE_LATENTS_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Host: noise[c, h, w] -> tokens[count, 4c] for the tokens begin .. begin+count. Channel order c, dy, dx. */
void fx_pack_noise(const float *noise, int64_t c, int64_t h, int64_t w, int64_t begin, int64_t count,
                   float *tokens);
/* tokens[rows * w/2, 4c] -> picture[2 rows, w, c] = mul * value + add. */
fx_status fx_unpack_latents(fx_backend *, fx_tensor tokens, fx_tensor picture, float mul, float add);

#ifdef __cplusplus
}
#endif
#endif
