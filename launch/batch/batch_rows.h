/* The lines of a batch's results file: what stands in them. */
#ifndef FX_LAUNCH_BATCH_ROWS_H
#define FX_LAUNCH_BATCH_ROWS_H

#include <jansson.h>

#include "launch/batch/batch.h"

/* What was asked for. NULL: no memory. */
json_t *fx_row_of(const char *status, const fx_task *);
/* A picture that was made. */
json_t *fx_row_made(const fx_task *, const fx_made *);
/* Adds why there is none, and the exit code that the failure alone would have given. */
void fx_row_error(json_t *row, fx_status, const char *text);
/* The seed of a line without one. Fixed for a results file: the line has the same seed when the batch goes on later. */
uint64_t fx_row_seed(uint64_t drawn, int64_t line);

#endif
