/* From flags to what the library is asked for: the same for generate and selftest. */
#ifndef FX_LAUNCH_RECIPE_H
#define FX_LAUNCH_RECIPE_H

#include "launch/options.h"
#include "parallel/groups.h"
#include "runtime/pipeline.h"

/* --groups and --merge: automatic where they were not given; one group for a command that makes one picture, and where the mesh
 * of all ranks was given. FX_EINVAL: they do not divide the ranks. */
fx_status fx_recipe_groups(const fx_options *, int ranks, fx_groups *out);
/* What can be refused from the configs alone is refused before 30 GB are read: model, size, mesh. */
fx_status fx_recipe_check(const fx_options *, int ranks);
/* "auto" becomes cuda where every rank can have a usable device of its own and dtype is bf16, or where this build has nothing
 * else to compute with; otherwise the processor's best. Collective. */
fx_status fx_recipe_backend(fx_comm *, int ranks, int nodes, fx_options *);
fx_pipeline_options
fx_recipe_pipeline(const fx_options *); /* of one group: groups and at_once are the caller's */
/* The sizes of --warmup: requests like `like` but for width and height, at most FX_WARM_MOST; none without the flag. */
fx_status fx_recipe_warm_up(const fx_options *, const fx_request *like, fx_request out[], int *n);
fx_request fx_recipe_request(const fx_options *); /* defaults are filled in by fx_pipeline_complete */

#endif
