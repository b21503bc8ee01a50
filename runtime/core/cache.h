/* Results that took time to find and hold for a machine, kept in files between runs: which algorithm is fastest, plans of a
 * library. Below $FLUXPAR_CACHE (empty: nothing is kept), else $XDG_CACHE_HOME/fluxpar, else $HOME/.cache/fluxpar. Whatever
 * goes wrong reads as "not there": the caller finds the result again. A file that another user owns, or whose key or
 * contents do not fit their sum, is not read. */
#ifndef FX_CORE_CACHE_H
#define FX_CORE_CACHE_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { FX_CACHE_MAX = 16 << 20 }; /* bytes of one result, and of its key */

/* kind: a word of [a-z0-9-]; key: all that the result depends on, versions and devices included. true: *data is a new block of
 * *bytes (and a zero byte behind them), for free(). */
bool fx_cache_read(const char *kind, const void *key, size_t key_bytes, void **data, size_t *bytes);
/* The file appears whole or not at all, also beside other processes that write it. */
void fx_cache_write(const char *kind, const void *key, size_t key_bytes, const void *data, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
