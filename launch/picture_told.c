/* A picture's result as bytes: the struct, then the times of its steps, then the reports of its ranks. See picture_told.h. */
#include "launch/picture_told.h"

#include <stdlib.h>
#include <string.h>

static size_t size_of(const fx_told *t)
{
    return sizeof *t + (size_t)t->task.steps * sizeof(double) +
           (size_t)t->result.ranks * sizeof(fx_rank_report);
}

fx_status fx_told_pack(const fx_task *task, const fx_result *result, const fx_made *made, fx_desk_buffer *out)
{
    const fx_told t = {*task, *made, *result};
    const size_t steps = (size_t)task->steps * sizeof(double);
    char *at = out->data = malloc(size_of(&t));
    FX_CHECK(at, FX_ENOMEM, "no memory for the report of a picture");
    out->bytes = size_of(&t);
    memcpy(at, &t, sizeof t);
    memcpy(at + sizeof t, result->time.step, steps);
    memcpy(at + sizeof t + steps, result->rank, (size_t)result->ranks * sizeof(fx_rank_report));
    return FX_OK;
}

fx_status fx_told_read(const void *data, size_t bytes, fx_told *out)
{
    FX_CHECK(bytes >= sizeof *out, FX_ESHAPE, "the report of a picture has %zu bytes", bytes);
    memcpy(out, data, sizeof *out);
    FX_CHECK(out->task.steps >= 0 && out->result.ranks >= 0 && bytes == size_of(out), FX_ESHAPE,
             "the report of a picture has %zu bytes", bytes);
    const char *at = (const char *)data + sizeof *out;
    out->result.time.step = (const double *)(const void *)at;
    out->result.rank = (const fx_rank_report *)(const void *)(at + (size_t)out->task.steps * sizeof(double));
    out->result.rgb = NULL; /* pointers of another process */
    out->result.cut = NULL;
    return FX_OK;
}

fx_options fx_task_options(const fx_options *run, const fx_task *task, const char *prompt)
{
    fx_options used = *run;
    used.prompt = prompt;
    used.width = task->width;
    used.height = task->height;
    used.steps = task->steps;
    used.t5_len = task->t5_len;
    used.guidance = task->guidance;
    used.seed = task->seed;
    used.count = 1;
    return used;
}
