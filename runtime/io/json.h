/* Configuration files: jansson behind bounded sizes and typed getters whose errors name file, key, wanted and
 * found. */
#ifndef FX_IO_JSON_H
#define FX_IO_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/core/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* max_bytes bounds the file (0: 16 MiB). FX_EREAD missing/unreadable, FX_EFORMAT not JSON / too large /
 * git-lfs pointer. */
fx_status fx_json_load(const char *path, size_t max_bytes, json_t **out);

/* The text as JSON: no duplicate keys, at most FX_JSON_DEPTH brackets deep. NULL: *error (may be NULL) says why. */
enum { FX_JSON_DEPTH = 64 };
json_t *fx_json_parse(const char *text, size_t size, json_error_t *error);

/* A config file being read: remembers the path for messages. */
typedef struct fx_config {
    json_t *root;
    char path[1024];
} fx_config;
fx_status fx_config_open(const char *model_dir, const char *component, const char *file, fx_config *out);
void fx_config_close(fx_config *);
/* Required when `fallback` is NULL, else *fallback when the key is absent or null. Ranges are inclusive. */
fx_status fx_config_int(const fx_config *, const char *key, int64_t lo, int64_t hi, const int64_t *fallback,
                        int64_t *out);
fx_status fx_config_real(const fx_config *, const char *key, double lo, double hi, const double *fallback,
                         double *out);
fx_status fx_config_bool(const fx_config *, const char *key, const bool *fallback, bool *out);
fx_status fx_config_string(const fx_config *, const char *key, const char *fallback, char *out, size_t size);
/* Integer list of 1..max entries. */
fx_status fx_config_ints(const fx_config *, const char *key, int max, int64_t lo, int64_t hi, int *count,
                         int64_t out[]);
bool fx_config_has(const fx_config *, const char *key); /* present and not null */
/* Refuses, FX_EFORMAT by name, a key whose value is present and differs from `want` (an implemented
 * constant). */
fx_status fx_config_only_int(const fx_config *, const char *key, int64_t want);
fx_status fx_config_only_bool(const fx_config *, const char *key, bool want);
fx_status fx_config_only_string(const fx_config *, const char *key, const char *want);

#ifdef __cplusplus
}
#endif
#endif
