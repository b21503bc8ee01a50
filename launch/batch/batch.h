/* A batch as rank 0 sees it: jobs come out of a file (or the standard input) one picture after the other, results go into the
 * results file. Nothing here is collective, and nothing waits longer than told, so that several pictures can be under way on
 * groups of ranks. Lines that cannot be made are recorded here and not handed out. */
#ifndef FX_LAUNCH_BATCH_H
#define FX_LAUNCH_BATCH_H

#include "launch/metadata.h"
#include "launch/options.h"
#include "launch/outputs.h"
#include "runtime/pipeline.h"

typedef struct fx_batch fx_batch;

typedef enum { FX_TASK_PICTURE, FX_TASK_WAIT, FX_TASK_END } fx_task_kind;

/* A picture to make: plain data with the prompt behind it (fx_task_prompt), to be sent to other ranks as it is. */
typedef struct fx_task {
    int64_t kind;        /* fx_task_kind; the rest is for PICTURE */
    int64_t number;      /* 0, 1, ... of the pictures handed out */
    int64_t line, image; /* of the jobs file from 1, of the line from 0 */
    int64_t width, height, steps, t5_len;
    double guidance;
    uint64_t seed;
    uint64_t prompt_bytes; /* with its zero byte */
    char key[24];          /* fx_metadata_key */
    char path[FX_OUTPUTS_MAX];
} fx_task;

/* What the ranks that made it say of it. Seconds; total: from the order to the name. */
typedef struct fx_made {
    double text_s, denoise_s, vae_s, png_s, total_s;
    int64_t text_kept; /* 1: the prompt had been encoded before */
} fx_made;

static inline const char *fx_task_prompt(const fx_task *o)
{
    return (const char *)(o + 1);
}

/* Opens jobs and results (--batch, --results, --resume), before anything is loaded. FX_EINVAL, FX_EWRITE, FX_ENOMEM. */
fx_status fx_batch_open(const fx_options *, fx_batch **out);
/* The model is there: `used` (defaults filled in, borrowed) has what a line leaves out. */
void fx_batch_begin(fx_batch *, const fx_options *used, const fx_pipeline *);
/* A picture, or WAIT: nothing came within wait_s, or many lines were skipped; END. *out is valid until the next call and has
 * *bytes bytes. A failure ends the batch. */
fx_status fx_batch_next(fx_batch *, double wait_s, const fx_task **out, size_t *bytes);
/* The picture has its name on the disk, or could not be made (text says why): its line in the results file. made: NULL
 * after a failure. */
fx_status fx_batch_done(fx_batch *, int64_t number, fx_status, const char *text, const fx_made *made);
/* How many pictures next may still have; lines that were not read count as one each, a pipe's not at all. */
int64_t fx_batch_waiting(const fx_batch *);
/* Says what became of it. FX_EWRITE when a picture or a line failed. */
fx_status fx_batch_summary(const fx_batch *);
void fx_batch_close(fx_batch **);

#endif
