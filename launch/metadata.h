/* What a picture says about its making: the text chunks fluxpar writes, and their printing. */
#ifndef FX_LAUNCH_METADATA_H
#define FX_LAUNCH_METADATA_H

#include "launch/options.h"
#include "runtime/pipeline.h"
#include <jansson.h>

/* Made by fx_metadata_make: the values of the two chunks. */
typedef struct fx_metadata {
    char *parameters; /* tEXt "parameters", the widespread A1111 form */
    char *json;       /* tEXt "fluxpar" */
} fx_metadata;

/* `used` holds the values that were used (defaults filled in): the rows of the flag table that change pixels
 * go in, and nothing else but the model's hash, the version and, when the run is not exact, the mesh. */
fx_status fx_metadata_make(const fx_options *used, const fx_model_facts *, fx_metadata *out);
void fx_metadata_free(fx_metadata *);
/* What was asked for, as 16 hexadecimal digits: of prompt, seed, size, steps, guidance, text length, dtype and model. Not of
 * backend, version and mesh: a picture need not be made again because another machine goes on. FX_ENOMEM. */
enum { FX_METADATA_KEY = 17 };
fx_status fx_metadata_key(const fx_options *used, const fx_model_facts *, char out[FX_METADATA_KEY]);
/* The picture in this file says the same of itself. False as well when it cannot be read. */
bool fx_metadata_is_of(const char *path, const char key[FX_METADATA_KEY]);

/* The model's name for people: the last part of its real path. */
void fx_model_name(const char *model, char *out, size_t size);
/* The value of a flag as JSON (a seed above 2^63-1 becomes a string). */
json_t *fx_flag_json(const fx_options *, const fx_flag *);

#endif
