/* Does this machine make the same picture on these ranks as on one? The picture is made twice with the same seed: by rank
 * 0 alone, which records what the pipeline shows of itself (fx_sight), then by all ranks, whose rows are gathered and
 * compared with the record. Both runs are whole ones, weights loaded anew, through the pipeline's only graph. */
#ifndef FX_SELFTEST_H
#define FX_SELFTEST_H

#include "runtime/pipeline.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Largest relative error of a row (difference.h) in runs that are not exact; derivation and measurements in selftest.c. */
#define FX_SELFTEST_F32  1e-3
#define FX_SELFTEST_BF16 0.1

typedef struct fx_selftest_step {
    double max_diff, relative; /* of the latents after the step; relative: worst row */
    double block_relative;     /* worst row of all blocks of the step, where these were compared */
    bool blocks;               /* they were */
    bool good;                 /* latents and blocks of this step are within the tolerance */
} fx_selftest_step;

typedef struct fx_selftest_options {
    fx_pipeline_options pipeline; /* of all ranks; rank 0 alone differs in mesh and threads only */
    fx_request request;           /* its onlooker is not used */
    double timeout_s; /* of the comm; a wait for rank 0 alone has ranks times as long (<= 0: for ever) */
    /* Both may be NULL. begin: on every rank before each of the two runs. after_step: rank 0, second run. */
    void (*begin)(void *ctx, bool alone);
    void (*after_step)(void *ctx, int step, const fx_selftest_step *); /* step from 0 */
    void *ctx;
} fx_selftest_options;

/* Complete on rank 0 when both runs ended, whatever they found; elsewhere steps is NULL. */
typedef struct fx_selftest_result {
    fx_model_facts facts; /* of the run on all ranks */
    fx_request request;   /* defaults filled in */
    fx_layout_kind layout;
    bool exact;       /* equal bits were demanded */
    double tolerance; /* else this */
    int steps_done, block_steps;
    fx_selftest_step *steps; /* [request.steps] */
    int pixel_diff;          /* largest difference of the pictures, in 1/255; -1: the second was not made */
    struct {
        bool found;
        int step; /* from 1; 0: after the steps */
        char block[32];
        int rank; /* owner of the first row that is too far away */
        double max_diff, relative;
        int64_t rows, of;
    } first;
} fx_selftest_result;

/* Collective. FX_OK: all within the tolerance. FX_ENUMERIC: the message names step, block and rank. On one rank the two
 * runs are one thread against the threads asked for. */
fx_status fx_selftest_run(const fx_selftest_options *, fx_comm *, fx_selftest_result *out);
void fx_selftest_free(fx_selftest_result *);

#ifdef __cplusplus
}
#endif
#endif
