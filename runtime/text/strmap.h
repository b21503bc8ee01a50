/* Token text -> id. Keys are copied; a key set twice keeps the later value, as the reference's tables do. */
#ifndef FX_TEXT_STRMAP_H
#define FX_TEXT_STRMAP_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/core/status.h"
#include "runtime/text/utf8.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_strmap_slot {
    uint32_t hash;
    int32_t value; /* -1: empty slot */
    size_t key, len;
} fx_strmap_slot;

typedef struct fx_strmap { /* zero-initialise */
    fx_strmap_slot *slot;
    size_t count, cap; /* cap: power of two */
    fx_buf keys;
} fx_strmap;

fx_status fx_strmap_set(fx_strmap *, const char *key, size_t len, int32_t value); /* value >= 0 */
int32_t fx_strmap_get(const fx_strmap *, const char *key, size_t len);            /* -1: absent */
void fx_strmap_free(fx_strmap *);

#ifdef __cplusplus
}
#endif
#endif
