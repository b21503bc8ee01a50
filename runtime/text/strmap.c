/* Open addressing with linear probing at a load of at most one half; FNV-1a. Vocabularies have 10^2 to 10^5
 * keys and are filled once, when a tokenizer opens. */
#include "runtime/text/strmap.h"

#include <stdlib.h>
#include <string.h>

static uint32_t hash_bytes(const char *key, size_t len)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++) h = (h ^ (unsigned char)key[i]) * 0x100000001b3u;
    return (uint32_t)(h ^ (h >> 32));
}

/* The slot that holds the key, or the empty slot where it would go. */
static fx_strmap_slot *find(const fx_strmap *m, uint32_t hash, const char *key, size_t len)
{
    for (size_t i = hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
        fx_strmap_slot *s = &m->slot[i];
        if (s->value < 0) return s;
        if (s->hash == hash && s->len == len && !memcmp(m->keys.data + s->key, key, len)) return s;
    }
}

static fx_status grow(fx_strmap *m)
{
    fx_strmap bigger = *m;
    bigger.cap = m->cap ? m->cap * 2 : 256;
    bigger.slot = malloc(bigger.cap * sizeof *bigger.slot);
    FX_CHECK(bigger.slot, FX_ENOMEM, "vocabulary: cannot allocate %zu slots", bigger.cap);
    for (size_t i = 0; i < bigger.cap; i++) bigger.slot[i] = (fx_strmap_slot){.value = -1};
    for (size_t i = 0; i < m->cap; i++) {
        const fx_strmap_slot *s = &m->slot[i];
        if (s->value >= 0) *find(&bigger, s->hash, m->keys.data + s->key, s->len) = *s;
    }
    free(m->slot);
    *m = bigger;
    return FX_OK;
}

fx_status fx_strmap_set(fx_strmap *m, const char *key, size_t len, int32_t value)
{
    FX_CHECK(value >= 0, FX_ESHAPE, "vocabulary: negative id %d", value);
    if (2 * (m->count + 1) > m->cap) FX_TRY(grow(m));
    const uint32_t hash = hash_bytes(key, len);
    fx_strmap_slot *s = find(m, hash, key, len);
    if (s->value < 0) {
        const size_t at = m->keys.len;
        FX_TRY(fx_buf_put(&m->keys, key, len));
        *s = (fx_strmap_slot){.hash = hash, .key = at, .len = len};
        m->count++;
    }
    s->value = value;
    return FX_OK;
}

int32_t fx_strmap_get(const fx_strmap *m, const char *key, size_t len)
{
    return m->cap ? find(m, hash_bytes(key, len), key, len)->value : -1;
}

void fx_strmap_free(fx_strmap *m)
{
    free(m->slot);
    fx_buf_free(&m->keys);
    *m = (fx_strmap){0};
}
