/* The lines of a batch (--batch): one JSON object each, read into what the picture shall be. The text is untrusted. */
#ifndef FX_LAUNCH_JOBS_H
#define FX_LAUNCH_JOBS_H

#include "runtime/core/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of a line, lines of a file. Objects are flat: a value within a value is refused (and JSON deeper than
 * FX_JSON_DEPTH before it is read). */
enum { FX_JOB_BYTES = 2 << 20, FX_JOB_LINES = 1000000 };

typedef struct fx_job {
    char *prompt;                        /* UTF-8, checked; owned */
    char *output;                        /* owned; NULL: not given */
    int64_t width, height, steps, count; /* 0: not given */
    double guidance;                     /* negative: not given */
    bool has_seed;
    uint64_t seed;
} fx_job;

/* A null is as good as nothing. FX_EINVAL: no object, no prompt, an unknown field, a value that cannot be; the message
 * names field and value. *out is to be freed in any case. */
fx_status fx_job_parse(const char *text, size_t size, fx_job *out);
void fx_job_free(fx_job *);
/* Only blanks. */
bool fx_job_blank(const char *text, size_t size);

#endif
