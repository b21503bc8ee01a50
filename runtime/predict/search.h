/* All ways to lay pictures over so many devices, each predicted: groups of ranks, ulysses x ring in a group, rows even or by
 * stream, how they travel, precision. The best of them for a wish. */
#ifndef FX_PREDICT_SEARCH_H
#define FX_PREDICT_SEARCH_H

#include "runtime/predict/simulate.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_plan_query {
    const fx_machine *machine;
    fx_request request; /* complete */
    int devices;
    int groups, ulysses, ring; /* 0: any */
    fx_layout_kind layout;     /* AUTO: both */
    fx_exact exact;
    int by;                         /* an fx_by, -1: any that is possible */
    unsigned dtypes;                /* bit per fx_rate_dtype */
    double images_per_s, latency_s; /* > 0: the wish; else the shortest time of one picture */
} fx_plan_query;

typedef struct fx_plan_row {
    int groups;
    fx_arrangement how;
    fx_layout_kind layout; /* as chosen */
    fx_by by;
    fx_rate_dtype dtype;
    fx_prediction p;
    double step_ms, image_s, images_per_s;
    double tail_s;       /* PNG */
    size_t memory_bytes; /* of a device: weights and the planned arena, without scratch */
    fx_binds binds;
    double limit_ms, limit_image_s;
} fx_plan_row;

typedef struct fx_plans {
    int n, room, tried, too_large;  /* too_large: do not fit into the memory of a device */
    fx_plan_row *row;               /* best first */
    double limit_ms, limit_image_s; /* the least of all arrangements */
} fx_plans;

fx_status fx_plans_open(const fx_graph *, const fx_plan_query *, fx_plans *out);
void fx_plans_close(fx_plans *);
/* One arrangement again, with its work (to be closed in any case) and spans. */
fx_status fx_plan_show(const fx_graph *, const fx_plan_query *, const fx_plan_row *, fx_work *,
                       const fx_span_sink *, fx_prediction *);
const char *fx_plan_by_text(const fx_plan_row *); /* "lsa"; of one rank "none" */

#ifdef __cplusplus
}
#endif
#endif
