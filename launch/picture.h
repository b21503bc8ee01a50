/* One picture of a run: made by a group of ranks, written by its first, told to people. The same for -n and a batch. */
#ifndef FX_LAUNCH_PICTURE_H
#define FX_LAUNCH_PICTURE_H

#include "launch/batch/batch.h"
#include "launch/bootstrap.h"
#include "launch/progress.h"
#include "launch/report.h"
#include "parallel/desk.h"

/* What the pictures of a run share. */
typedef struct fx_work {
    fx_run *s;
    fx_options used; /* as given, then with the model's defaults filled in */
    fx_pipeline *pipe;
    const fx_model_facts *facts;
    fx_progress_state progress;
    double load_s;
    double tail_s; /* the last picture's time after its last step */
    fx_report report;
    fx_groups groups; /* the policy */
    int at_once;      /* groups at the beginning */
    bool unknown; /* how many pictures come, because a pipe brings them: groups do not merge before its end */
    fx_desk *desk; /* while pictures are made */
} fx_work;

/* Rank 0's source of pictures and what its group knows. */
typedef struct fx_orders {
    fx_work *w;
    fx_batch *batch; /* rank 0's, or NULL */
    int64_t given;   /* of -n */
    fx_task *order;
    const fx_task *held; /* of the batch: read, not handed out */
    size_t held_bytes;
    fx_status failed; /* of reading */
    bool over, unknown;
    int now;       /* groups */
    int64_t *open; /* pictures of a batch that groups have */
    int open_count;
} fx_orders;

/* The callback for the pipeline; ctx is the work. When a signal has asked for the end, it lets a picture that can be finished
 * in time go on and stops any other. */
void fx_picture_progress(void *ctx, fx_phase, size_t done, size_t total, double seconds);

/* Makes the picture and writes it to path (the group's first rank). used: its values, for the metadata; *result is valid until
 * the next picture. Collective over the group, ends with its vote. */
fx_status fx_picture_make(fx_work *, const fx_options *used, const fx_request *, const char *path,
                          fx_result *result, fx_made *made);
/* Rank 0, once it is written: memory check, timings (in a batch one line), report, its path on the standard output. */
fx_status fx_picture_tell(fx_work *, const fx_options *used, const fx_result *, const char *path,
                          const fx_made *);

/* All pictures of -n or --batch; batch is rank 0's, else NULL. Collective. FX_EWRITE when some of a batch failed; FX_ESIGNAL
 * after a signal. */
fx_status fx_pictures_run(fx_work *, fx_batch *);

#endif
