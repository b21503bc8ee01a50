/* The character map of a SentencePiece model (nmt_nfkc for T5): text -> normalised text, cluster by cluster.
 */
#ifndef FX_TEXT_CHARSMAP_H
#define FX_TEXT_CHARSMAP_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/core/status.h"
#include "runtime/text/utf8.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes that one prompt may become: maps are untrusted, and a value may be as long as the file. */
enum { FX_NORMAL_MAX = 16 << 20 };

typedef struct fx_charsmap { /* all zero: no map, text passes unchanged */
    uint32_t *unit;          /* double-array trie */
    size_t units;
    char *value; /* zero-terminated strings */
    size_t value_bytes;
} fx_charsmap;

/* blob: the precompiled_charsmap field; empty is allowed. name is for messages. */
fx_status fx_charsmap_open(const void *blob, size_t size, const char *name, fx_charsmap *out);
void fx_charsmap_close(fx_charsmap *);
/* Appends; FX_EFORMAT when out would exceed FX_NORMAL_MAX. */
fx_status fx_charsmap_apply(const fx_charsmap *, const char *text, size_t len, fx_buf *out);

#ifdef __cplusplus
}
#endif
#endif
