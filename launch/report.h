/* --report FILE: the figures of a run as JSON, and the timings table for people. */
#ifndef FX_LAUNCH_REPORT_H
#define FX_LAUNCH_REPORT_H

#include "launch/options.h"
#include "parallel/groups.h"
#include "runtime/pipeline.h"
#include <jansson.h>

enum {
    FX_UNPLANNED_LIMIT = 150 << 20
}; /* bytes a rank may use beyond weights, arena, kept texts and file-backed pages */

/* One picture: what was asked, measured and written. */
typedef struct fx_picture {
    const fx_options *used; /* values used, with this picture's seed */
    const fx_result *result;
    const char *path;
    double png_s, total_s; /* total: process start to the picture on disk */
} fx_picture;

typedef struct fx_report {
    json_t *root, *images;
} fx_report;

fx_status fx_report_open(const fx_options *, const fx_model_facts *, const fx_groups *, int nodes,
                         double load_s, fx_report *out);
fx_status fx_report_add(fx_report *,
                        const fx_picture *); /* the last picture's figures also stand at the top level */
/* Before the work: can FILE be written. Then: written to a temporary name, synced, renamed. */
fx_status fx_report_check(const char *path, bool force);
fx_status fx_report_write(const fx_report *, const char *path);
void fx_report_close(fx_report *);

/* Bytes beyond the plan; negative is fine. */
int64_t fx_unplanned_bytes(const fx_rank_report *);
/* Warns about a rank that used more. */
void fx_report_check_memory(const fx_picture *);
/* The table at the end of a picture; ranks: of the run. */
void fx_report_print(const fx_picture *, double load_s, int ranks);

#endif
