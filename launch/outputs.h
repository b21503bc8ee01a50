/* Names of the files a run writes, and the checks made before any work. */
#ifndef FX_LAUNCH_OUTPUTS_H
#define FX_LAUNCH_OUTPUTS_H

#include "launch/options.h"

enum { FX_OUTPUTS_MAX = 4096 };

/* fluxpar-SEED.png; -o NAME; with -n above 1 NAME-SEED.png. */
void fx_outputs_name(const fx_options *, uint64_t seed, char out[FX_OUTPUTS_MAX]);
/* -o NAME.png of a batch with {line}, {seed} and {image} in it; without them "-LINE" comes before the ending, and in a line of
 * several images "-LINE-SEED". FX_EINVAL: longer than a name may be. */
fx_status fx_outputs_batch_name(const char *pattern, int64_t line, int64_t image, int64_t images,
                                uint64_t seed, char out[FX_OUTPUTS_MAX]);
/* NAME.png -> NAME-SEED.png where a job of its own name has several images. */
fx_status fx_outputs_job_name(const char *name, int64_t images, uint64_t seed, char out[FX_OUTPUTS_MAX]);
/* The path without links and detours in its folder, so that two names of one file are found; as it is where there is no such
 * folder. */
void fx_outputs_real_name(const char *path, char out[FX_OUTPUTS_MAX]);
/* FX_EINVAL: a name that can be no picture's; what: "-o" or "output", for the message. */
fx_status fx_outputs_check_name(const char *what, const char *name);
/* Rank 0: what a batch can be refused for before any line is read: -o, report and dump folder. */
fx_status fx_outputs_check_batch(const fx_options *);
/* Rank 0: pictures, report and dump folder can be written. FX_EINVAL: exists without -f, or a name that
 * cannot be; FX_EWRITE: the place is not writable. Makes the dump folder. */
fx_status fx_outputs_check(const fx_options *);

#endif
