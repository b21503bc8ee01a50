/* One picture of a run: made by all ranks, written by the first, told to people. The same for generate and a batch. */
#ifndef FX_LAUNCH_PICTURE_H
#define FX_LAUNCH_PICTURE_H

#include "launch/batch.h"
#include "launch/bootstrap.h"
#include "launch/progress.h"
#include "launch/report.h"

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
} fx_work;

/* The callback for the pipeline; ctx is the work. When a signal has asked for the end, it lets a picture that can be finished
 * in time go on and stops any other. */
void fx_picture_progress(void *ctx, fx_phase, size_t done, size_t total, double seconds);

/* Makes the picture and writes it to path (rank 0). used: its values, for the metadata; *result is valid until the next
 * picture. Collective, ends with a vote. */
fx_status fx_picture_make(fx_work *, const fx_options *used, const fx_request *, const char *path,
                          fx_result *result, fx_made *made);
/* Rank 0, once it is written: memory check, timings (in a batch one line), report, its path on the standard output. */
fx_status fx_picture_tell(fx_work *, const fx_options *used, const fx_result *, const char *path,
                          const fx_made *);

/* All pictures of --batch; batch is rank 0's, else NULL. Collective. FX_EWRITE when some failed; FX_ESIGNAL after a signal. */
fx_status fx_pictures_of_batch(fx_work *, fx_batch *);

#endif
