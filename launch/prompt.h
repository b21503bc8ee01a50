/* Where the prompt comes from: -p or --prompt-file (read by rank 0, given to all). */
#ifndef FX_LAUNCH_PROMPT_H
#define FX_LAUNCH_PROMPT_H

#include "launch/bootstrap.h"

/* Collective. *out is malloc'ed, UTF-8, checked. FX_EINVAL: not UTF-8, too long, file missing. */
fx_status fx_prompt_get(fx_run *, const fx_options *, char **out);

#endif
