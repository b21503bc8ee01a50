/* Internal to runtime/io: which safetensors files make up one component folder. */
#ifndef FX_IO_COMPONENT_H
#define FX_IO_COMPONENT_H

#include <jansson.h>

#include "runtime/core/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_component {
    char **files; /* names inside the folder, sorted */
    int count;
    json_t *weight_map;    /* tensor -> file, or NULL without an index */
    char index_path[1024]; /* "" without an index */
} fx_component;

/* The order of preference is the reference pipeline's: the index with the standard name, the only index, the
 * single file with the standard name, else every *.safetensors (all shards must be there). */
fx_status fx_component_scan(const char *dir, fx_component *out);
void fx_component_free(fx_component *);

#ifdef __cplusplus
}
#endif
#endif
