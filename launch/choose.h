/* Mesh and layout by the predictor of `fluxpar plan`, where the machine has a file and the user names neither. */
#ifndef FX_LAUNCH_CHOOSE_H
#define FX_LAUNCH_CHOOSE_H

#include "runtime/pipeline.h"

/* For fx_pipeline_options.choose; ctx: the fx_options of the run. Leaves *out as it is where no file is for this device, where a
 * run is not exact, and where what the runtime takes by itself is predicted to be within 3 % of the best. */
fx_status fx_choose_layout(void *ctx, const char *device, int ranks, fx_pipeline_choice *out);

#endif
