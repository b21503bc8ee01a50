/* What `fluxpar plan` says about time: the ranked table, JSON, and pictures of the schedule. */
#ifndef FX_LAUNCH_PLAN_TABLE_H
#define FX_LAUNCH_PLAN_TABLE_H

#include "launch/options.h"
#include "runtime/predict/search.h"

/* Comment lines on the standard output. */
void fx_plan_print(const fx_options *, const fx_plan_query *, const fx_plans *);
/* {"plans": [...], "limit": {...}} on the standard output. */
fx_status fx_plan_print_json(const fx_plan_query *, const fx_plans *);
/* The best plan's step, event by event, in Chrome's trace format / one double and one single block as a picture. */
fx_status fx_plan_write_trace(const fx_graph *, const fx_plan_query *, const fx_plan_row *, const char *path);
fx_status fx_plan_write_svg(const fx_graph *, const fx_plan_query *, const fx_plan_row *, const char *path);

#endif
