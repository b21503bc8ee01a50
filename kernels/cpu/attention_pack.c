/* Keys and values of a head in panels: keys as columns over the head dim, values as columns over the keys.
 * Padding (head dim to the tile's step, keys to 32) is zero, so it adds nothing. */
#include "kernels/cpu/attention.h"
#include "kernels/cpu/multi.h"

/* Keys as columns. bf16: [dim_k / 2][32][2]; f32: strips of [dim_k]. */
static void pack_keys_bf16(const fx_attn *a, int64_t head, int64_t key0, uint16_t *dst)
{
    for (int64_t c = 0; c < FX_PANEL; c++) {
        const int64_t key = key0 + c;
        const uint16_t *src = key < a->tk ? fx_at(a->k, key * a->k.stride[0] + head * a->k.stride[1]) : NULL;
        for (int64_t d = 0; d < a->dim_k; d++)
            dst[d / 2 * 64 + c * 2 + d % 2] = src && d < a->dim ? src[d] : (uint16_t)0;
    }
}

static void pack_keys_f32(const fx_attn *a, int64_t head, int64_t key0, float *dst)
{
    for (int64_t c = 0; c < FX_PANEL; c++) {
        const int64_t key = key0 + c;
        const void *src = key < a->tk ? fx_at(a->k, key * a->k.stride[0] + head * a->k.stride[1]) : NULL;
        for (int64_t d = 0; d < a->dim; d++) /* f32 needs no padding of the head dim */
            dst[fx_strip_at(a->cpu->tile->width, a->dim, d, c)] = src ? fx_load(src, d, a->k.dtype) : 0.0f;
    }
}

/* Values as columns: panel p holds channels [32 p, +32) over all keys; f32 strips are as deep as the key block
 * that one product takes. */
static void pack_values(const fx_attn *a, int64_t head, int64_t key0, char *dst)
{
    const bool pairs = a->cpu->tile->operand == FX_BF16;
    const int width = a->cpu->tile->width;
    for (int64_t p = 0; p * FX_PANEL < a->dim_v; p++)
        for (int64_t r = 0; r < FX_PANEL; r++) {
            const int64_t key = key0 + r, block = key / FX_KEYS * FX_KEYS, at = p * a->keys * FX_PANEL;
            const int64_t depth = fx_least(FX_KEYS, a->keys - block);
            const void *src = key < a->tk ? fx_at(a->v, key * a->v.stride[0] + head * a->v.stride[1]) : NULL;
            for (int64_t c = 0; c < FX_PANEL; c++) {
                const int64_t d = p * FX_PANEL + c;
                const bool inside = src && d < a->dim;
                if (pairs)
                    ((uint16_t *)dst)[at + key / 2 * 64 + c * 2 + key % 2] =
                        inside ? ((const uint16_t *)src)[d] : (uint16_t)0;
                else
                    ((float *)dst)[at + block * FX_PANEL + fx_strip_at(width, depth, key - block, c)] =
                        inside ? fx_load(src, d, a->v.dtype) : 0.0f;
            }
        }
}

static void pack_pairs(const fx_attn *a, int64_t head, int64_t key0, uint16_t *keys, uint16_t *values)
{
#if FX_X86
    const int64_t count = fx_least(FX_PANEL, a->tk - key0);
    if (a->k.stride[0] < (1 << 24)) { /* offsets of 16 rows fit 32 bits */
        fx_cpu_pack_keys_avx512(fx_at(a->k, key0 * a->k.stride[0] + head * a->k.stride[1]), a->k.stride[0],
                                count, a->dim, a->dim_k, keys);
        fx_cpu_pack_values_avx512(fx_at(a->v, key0 * a->v.stride[0] + head * a->v.stride[1]), a->v.stride[0],
                                  count, a->dim, a->keys * FX_PANEL, values + key0 * FX_PANEL);
        return;
    }
#endif
    pack_keys_bf16(a, head, key0, keys);
    pack_values(a, head, key0, (char *)values);
}

void fx_cpu_attn_pack(const void *job, int64_t begin, int64_t end, int thread)
{
    const fx_attn *a = job;
    const int64_t groups = a->keys / FX_PANEL, es = (int64_t)fx_dtype_size(a->cpu->tile->operand);
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const int64_t slot = t / groups, key0 = t % groups * FX_PANEL, head = a->head0 + slot;
        char *keys = a->k_panels + slot * a->k_bytes + key0 * a->dim_k * es,
             *values = a->v_panels + slot * a->v_bytes;
        if (a->cpu->tile->operand == FX_BF16) {
            pack_pairs(a, head, key0, (uint16_t *)keys, (uint16_t *)values);
        } else {
            pack_keys_f32(a, head, key0, (float *)keys);
            pack_values(a, head, key0, values);
        }
    }
}
