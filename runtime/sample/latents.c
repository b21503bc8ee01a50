/* Packing and unpacking of latents; between the noise and the first step, and between the last step and the
 * VAE. */
#include "runtime/sample/latents.h"

void fx_pack_noise(const float *noise, int64_t c, int64_t h, int64_t w, int64_t begin, int64_t count,
                   float *tokens)
{
    for (int64_t t = begin; t < begin + count; t++) {
        const int64_t y = 2 * (t / (w / 2)), x = 2 * (t % (w / 2));
        for (int64_t ch = 0; ch < c; ch++)
            for (int64_t dy = 0; dy < 2; dy++)
                for (int64_t dx = 0; dx < 2; dx++) *tokens++ = noise[(ch * h + y + dy) * w + x + dx];
    }
}

fx_status fx_unpack_latents(fx_backend *be, fx_tensor tokens, fx_tensor picture, float mul, float add)
{
    const int64_t w = picture.shape[1] / 2, rows = picture.shape[0] / 2, c = picture.shape[2];
    const int64_t patch[] = {rows, w, c, 2, 2}, pixel[] = {rows, 2, w, 2, c};
    const int order[] = {0, 2, 4, 1, 3}; /* rows, columns, c, dy, dx */
    const fx_tensor from = fx_view(tokens.data, tokens.dtype, 5, patch);
    const fx_tensor to = fx_permute(fx_view(picture.data, picture.dtype, 5, pixel), order);
    return fx_copy(be, to, from, mul, add);
}
