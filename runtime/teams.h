/* Which ranks make a picture together: the teams of fx_sizes. Team 0 is all ranks; the others are groups of neighbours, one team
 * of each width for a rank, over communicators of their own. */
#ifndef FX_TEAMS_H
#define FX_TEAMS_H

#include "runtime/pipeline.h"
#include "runtime/sizes.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Numbers and meshes, before there are weights. FX_EINVAL: groups that do not divide the ranks, meshes that are not possible. */
fx_status fx_teams_plan(fx_sizes *, const fx_pipeline_options *, int heads);
/* Their communicators, on devices with their own for rows. Collective over all ranks, which have voted. */
fx_status fx_teams_open(fx_sizes *, fx_wire);
/* NULL: there are not so many groups. */
fx_team *fx_teams_find(fx_sizes *, int groups);
void fx_teams_close(fx_sizes *); /* after fx_sizes_close, which still needs them */

#ifdef __cplusplus
}
#endif
#endif
