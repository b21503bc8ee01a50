/* What must be the same on all ranks before anything is computed: program, arguments, model files. */
#ifndef FX_LAUNCH_AGREE_H
#define FX_LAUNCH_AGREE_H

#include "launch/bootstrap.h"

/* Collective. FX_EINVAL names the rank whose version, build or arguments differ from rank 0's. Counts the
 * nodes of the run. */
fx_status fx_agree_program(fx_run *, const fx_options *);
/* Collective. Compares names, sizes and header hashes of the model's files; FX_EFORMAT names rank and file. */
fx_status fx_agree_model(fx_run *, const char *model);

#endif
