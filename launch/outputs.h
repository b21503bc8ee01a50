/* Names of the files a run writes, and the checks made before any work. */
#ifndef FX_LAUNCH_OUTPUTS_H
#define FX_LAUNCH_OUTPUTS_H

#include "launch/options.h"

enum { FX_OUTPUTS_MAX = 4096 };

/* fluxpar-SEED.png; -o NAME; with -n above 1 NAME-SEED.png. */
void fx_outputs_name(const fx_options *, uint64_t seed, char out[FX_OUTPUTS_MAX]);
/* Rank 0: pictures, report and dump folder can be written. FX_EINVAL: exists without -f, or a name that
 * cannot be; FX_EWRITE: the place is not writable. Makes the dump folder. */
fx_status fx_outputs_check(const fx_options *);

#endif
