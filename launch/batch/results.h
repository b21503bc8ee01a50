/* The results file of a batch: one line of JSON per picture, synced when it is written, and what an earlier run wrote there
 * (--resume). Rank 0 only. Lines begin with "status": "ok", "failed", "stopped", or "drawn", which is no picture: it holds the
 * number from which the seeds of lines without one follow. */
#ifndef FX_LAUNCH_RESULTS_H
#define FX_LAUNCH_RESULTS_H

#include "runtime/core/status.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { FX_RESULT_BYTES = 1 << 17 }; /* of a line */

typedef struct fx_results fx_results;

/* Creates the file or, with resume, reads it: a line that a killed writer left half is cut off. force without resume: what was
 * there is gone. FX_EINVAL: it is there and neither was said, is no results file, or another run writes it; FX_EWRITE. */
fx_status fx_results_open(const char *path, bool resume, bool force, fx_results **out);
void fx_results_close(fx_results **);

/* An earlier run made this picture, from the same values (key: fx_metadata_key). */
bool fx_results_has(const fx_results *, const char *path, const char *key);
/* The drawn number: the earlier run's, or a new one, which is then written. FX_EDEVICE, FX_EWRITE. */
fx_status fx_results_drawn(fx_results *, uint64_t *out);
/* Takes the row; written and synced when this returns. FX_EWRITE: the file ends with the row before. */
fx_status fx_results_add(fx_results *, json_t *row);

/* text for a row or a person: what is not UTF-8, and control characters, become '?'. */
void fx_results_clean(char *text);

#endif
