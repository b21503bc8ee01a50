/* Biases that bf16 holds exactly, found by the address of their f32 vector or of a part of it. cuBLASLt adds a bias in its last
 * step only in the result's dtype; with these it saves a pass over the result. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/internal.h"

/* The first that begins after the address: they rise and do not overlap. */
static size_t after(const fx_cuda *c, const void *f32)
{
    size_t low = 0, high = c->bias_count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if ((uintptr_t)c->biases[middle].f32 <= (uintptr_t)f32)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const void *fx_cuda_bf16_bias(const fx_cuda *c, const void *f32)
{
    const size_t next = after(c, f32);
    if (!next) return NULL;
    const fx_cuda_bias *b = &c->biases[next - 1];
    const size_t at = ((uintptr_t)f32 - (uintptr_t)b->f32) / sizeof(float);
    return at < (size_t)b->n && at % 8 == 0 ? (const uint16_t *)b->bf16 + at
                                            : NULL; /* in chunks of 16 bytes */
}

/* Those that lie in these n values, if only in part: their memory has become another vector's. */
static void forget(fx_cuda *c, const void *f32, int64_t n)
{
    size_t last = after(c, (const float *)f32 + n - 1), first = last;
    while (first && (const float *)c->biases[first - 1].f32 + c->biases[first - 1].n > (const float *)f32)
        (void)cudaFree(c->biases[--first].bf16);
    memmove(&c->biases[first], &c->biases[last], (c->bias_count - last) * sizeof *c->biases);
    c->bias_count -= last - first;
}

/* A new one at its place in the list. */
static fx_status insert(fx_cuda *c, fx_cuda_bias b)
{
    if (c->bias_count == c->bias_places) {
        const size_t places = c->bias_places ? 2 * c->bias_places : 256;
        fx_cuda_bias *larger = realloc(c->biases, places * sizeof *larger);
        FX_CHECK(larger, FX_ENOMEM, "no memory for the list of biases");
        c->biases = larger;
        c->bias_places = places;
    }
    const size_t at = after(c, b.f32);
    memmove(&c->biases[at + 1], &c->biases[at], (c->bias_count - at) * sizeof b);
    c->biases[at] = b;
    c->bias_count++;
    return FX_OK;
}

fx_status fx_cuda_keep_bias(fx_backend *be, const void *device, const float *host, int64_t n)
{
    fx_cuda *c = fx_cuda_of(be);
    uint16_t *narrow = malloc((size_t)n * sizeof *narrow + 1);
    void *bf16 = NULL;
    fx_status st = narrow ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for a bias");
    bool exact = true;
    forget(c, device, n);
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
    if (!st && exact) st = insert(c, (fx_cuda_bias){device, bf16, n});
    if (st && bf16) (void)cudaFree(bf16);
    return st;
}

void fx_cuda_forget_bias(fx_cuda *c, const void *f32)
{
    if (f32) forget(c, f32, 1);
}

void fx_cuda_bias_close(fx_cuda *c)
{
    for (size_t i = 0; i < c->bias_count; i++) (void)cudaFree(c->biases[i].bf16);
    free(c->biases);
}
