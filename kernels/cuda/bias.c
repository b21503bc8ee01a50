/* Biases that bf16 holds exactly, found by the address of their f32 vector. cuBLASLt adds a bias in its last step only in the
 * result's dtype; with these it saves a pass over the result. */
#include <stdlib.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/internal.h"

static size_t place_of(const fx_cuda *c, const void *f32)
{
    size_t i = ((uintptr_t)f32 >> 8) * 0x9e3779b97f4a7c15u % c->bias_places;
    while (c->biases[i].f32 && c->biases[i].f32 != f32) i = (i + 1) % c->bias_places;
    return i;
}

const void *fx_cuda_bf16_bias(const fx_cuda *c, const void *f32)
{
    return c->bias_places ? c->biases[place_of(c, f32)].bf16 : NULL;
}

static fx_status grow(fx_cuda *c)
{
    fx_cuda_bias *old = c->biases;
    const size_t places = c->bias_places;
    if (places && 2 * (c->bias_count + 1) <= places) return FX_OK;
    fx_cuda_bias *larger = calloc(places ? 2 * places : 256, sizeof *larger);
    FX_CHECK(larger, FX_ENOMEM, "no memory for the list of biases");
    c->biases = larger;
    c->bias_places = places ? 2 * places : 256;
    for (size_t i = 0; i < places; i++)
        if (old[i].f32) c->biases[place_of(c, old[i].f32)] = old[i];
    free(old);
    return FX_OK;
}

fx_status fx_cuda_keep_bias(fx_backend *be, const void *device, const float *host, int64_t n)
{
    fx_cuda *c = fx_cuda_of(be);
    uint16_t *narrow = malloc((size_t)n * sizeof *narrow + 1);
    void *bf16 = NULL;
    fx_status st = narrow ? grow(c) : FX_FAIL(FX_ENOMEM, "no memory for a bias");
    bool exact = true;
    for (int64_t i = 0; !st && i < n; i++) {
        narrow[i] = fx_f32_to_bf16(host[i]);
        exact &= fx_bf16_to_f32(narrow[i]) == host[i];
    }
    if (!st && exact) st = fx_cuda_alloc(be, (size_t)n * sizeof *narrow, &bf16);
    if (!st && exact &&
        cudaMemcpyAsync(bf16, narrow, (size_t)n * sizeof *narrow, cudaMemcpyHostToDevice, c->stream) !=
            cudaSuccess)
        st = FX_FAIL(FX_EDEVICE, "a bias of %lld values cannot be copied to the device", (long long)n);
    free(narrow);
    if (st || !exact) {
        if (bf16) (void)cudaFree(bf16);
        return st;
    }
    fx_cuda_bias *b = &c->biases[place_of(c, device)];
    c->bias_count += !b->f32;
    if (b->bf16) (void)cudaFree(b->bf16);
    *b = (fx_cuda_bias){device, bf16};
    return FX_OK;
}

void fx_cuda_forget_bias(fx_cuda *c, const void *f32)
{
    if (!c->bias_places) return;
    fx_cuda_bias *b = &c->biases[place_of(c, f32)];
    if (b->bf16) (void)cudaFree(b->bf16);
    b->bf16 = NULL; /* the place stays taken, so that what lies behind it is still found */
}

void fx_cuda_bias_close(fx_cuda *c)
{
    for (size_t i = 0; i < c->bias_places; i++)
        if (c->biases[i].bf16) (void)cudaFree(c->biases[i].bf16);
    free(c->biases);
}
