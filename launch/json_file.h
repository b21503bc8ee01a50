/* JSON into a file: whole, or not there. */
#ifndef FX_LAUNCH_JSON_FILE_H
#define FX_LAUNCH_JSON_FILE_H

#include "runtime/core/status.h"
#include <jansson.h>
#include <stdbool.h>

/* Before the work: can it be written. flag: whose value the path is ("report"), for the message. */
fx_status fx_json_check(const char *path, bool overwrite, const char *flag);
/* Written to a temporary name, synced, renamed; what was there is replaced. */
fx_status fx_json_write(const json_t *, const char *path, const char *flag);

#endif
