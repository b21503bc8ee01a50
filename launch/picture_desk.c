/* All pictures of a run, over groups of ranks: rank 0 gives orders from its source (-n: one prompt with seeds counted up, or
 * --batch), groups make and write them, rank 0 records and tells. parallel/desk.h brings the orders to the groups. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/picture.h"
#include "launch/picture_told.h"
#include "launch/recipe.h"
#include "launch/signals.h"
#include "launch/talk.h"

/* ---- rank 0: orders ---- */

/* The next pictures of -n. */
static fx_status next_of_series(fx_orders *o, fx_desk_job *out)
{
    const fx_options *used = &o->w->used;
    const size_t prompt_bytes = strlen(used->prompt) + 1, bytes = sizeof *o->order + prompt_bytes;
    if (o->given == used->count) return FX_OK;
    if (!o->order) o->order = malloc(bytes);
    FX_CHECK(o->order, FX_ENOMEM, "no memory for a job of %zu bytes", bytes);
    *o->order = (fx_task){.kind = FX_TASK_PICTURE,
                          .number = o->given,
                          .width = used->width,
                          .height = used->height,
                          .steps = used->steps,
                          .t5_len = used->t5_len,
                          .guidance = used->guidance,
                          .seed = used->seed + (uint64_t)o->given,
                          .prompt_bytes = prompt_bytes};
    memcpy(o->order + 1, used->prompt, prompt_bytes);
    fx_outputs_name(used, o->order->seed, o->order->path);
    *out = (fx_desk_job){o->given++, o->order, bytes};
    return FX_OK;
}

/* A line of the batch that is held until it is handed out: only reading says whether a pipe has one. */
static fx_status look_at_batch(fx_orders *o)
{
    if (o->over || o->held) return FX_OK;
    FX_TRY(fx_batch_next(o->batch, 0, &o->held, &o->held_bytes));
    o->over = o->held->kind == FX_TASK_END;
    if (o->held->kind != FX_TASK_PICTURE) o->held = NULL;
    return FX_OK;
}

static int64_t waiting(void *ctx)
{
    fx_orders *o = ctx;
    if (!o->batch) return o->w->used.count - o->given > 0 ? o->w->used.count - o->given : -1;
    const int64_t left = fx_batch_waiting(o->batch);
    if (!o->failed) o->failed = look_at_batch(o);
    if (o->over || o->failed) return o->held || o->failed ? 1 : -1; /* next brings the failure */
    if (o->unknown) return o->held ? INT_MAX : 0;
    return left > 0 ? left : o->held ? 1 : 0;
}

static fx_status next(void *ctx, fx_desk_job *out)
{
    fx_orders *o = ctx;
    if (!o->batch) return next_of_series(o, out);
    if (!o->failed) o->failed = look_at_batch(o);
    FX_TRY(o->failed);
    if (!o->held) return FX_OK;
    *out = (fx_desk_job){o->held->number, o->held, o->held_bytes};
    o->open[o->open_count++] = o->held->number;
    o->held = NULL;
    return FX_OK;
}

/* It is in nobody's hands any more. */
static void forget(fx_orders *o, int64_t number)
{
    int i = 0;
    while (i < o->open_count && o->open[i] != number) i++;
    if (i < o->open_count) o->open[i] = o->open[--o->open_count];
}

/* A signal asked this rank for the end. */
static bool stopped(void *ctx)
{
    (void)ctx;
    return fx_signals_asked(NULL) != 0;
}

/* ---- rank 0: results ---- */

static bool survivable(fx_status st)
{
    return st == FX_EINVAL || st == FX_ENUMERIC || st == FX_EWRITE || st == FX_ENOMEM;
}

static fx_status done(void *ctx, const fx_desk_outcome *out)
{
    fx_orders *o = ctx;
    forget(o, out->number);
    if (out->status) {
        if (o->batch) FX_TRY(fx_batch_done(o->batch, out->number, out->status, out->text, NULL));
        return o->batch && (survivable(out->status) || out->status == FX_ESIGNAL)
                   ? FX_OK
                   : FX_FAIL(out->status, "%s", out->text);
    }
    fx_told told;
    FX_TRY(fx_told_read(out->body, out->bytes, &told));
    const fx_options used = fx_task_options(&o->w->used, &told.task, "");
    if (o->batch) FX_TRY(fx_batch_done(o->batch, out->number, FX_OK, "", &told.made));
    return fx_picture_tell(o->w, &used, &told.result, told.task.path, &told.made);
}

/* ---- all ranks of a group ---- */

static fx_status move(void *ctx, int groups, fx_comm **team)
{
    fx_orders *o = ctx;
    const int before = o->now;
    FX_TRY(fx_pipeline_select(o->w->pipe, groups));
    *team = fx_pipeline_team(o->w->pipe);
    o->now = groups;
    if (before && before != groups)
        fx_talk("groups   merged: %d of %d rank%s", groups, fx_comm_size(*team),
                fx_comm_size(*team) == 1 ? "" : "s");
    return FX_OK;
}

static fx_status make(void *ctx, const fx_desk_job *job, fx_desk_buffer *out)
{
    fx_orders *o = ctx;
    const fx_task *task = job->body;
    const fx_options used = fx_task_options(&o->w->used, task, fx_task_prompt(task));
    fx_request request = fx_recipe_request(&used);
    fx_result result = {0};
    fx_made made;
    if (task->number > 0) request.dump_dir = NULL; /* the first picture's tensors only */
    if (!used.batch) fx_talk("seed     %llu", (unsigned long long)used.seed);
    FX_TRY(fx_picture_make(o->w, &used, &request, task->path, &result, &made));
    fx_comm *team = fx_pipeline_team(o->w->pipe);
    return fx_comm_vote(team, fx_comm_rank(team) ? FX_OK : fx_told_pack(task, &result, &made, out), NULL);
}

/* ---- the run ---- */

/* FX_ESIGNAL on all ranks when any was asked to end. */
static fx_status check_asked(fx_work *w)
{
    int64_t asked = fx_signals_asked(NULL);
    FX_TRY(fx_comm_all_reduce_i64(w->s->comm, FX_MAX, &asked, 1));
    if (!asked) return FX_OK;
    fx_stop_request((int)asked);
    return FX_FAIL(FX_ESIGNAL, "stopped by signal %d between two pictures", (int)asked);
}

static fx_status run(fx_work *w, fx_orders *o)
{
    const fx_desk_calls calls = {.ctx = o,
                                 .waiting = waiting,
                                 .next = next,
                                 .stopped = stopped,
                                 .done = done,
                                 .move = move,
                                 .make = make};
    FX_TRY(check_asked(w));
    FX_TRY(fx_desk_open(w->s->comm, &w->groups, w->at_once, &calls, &w->desk));
    FX_TRY(fx_desk_run(w->desk));
    o->open_count = 0; /* what was not made was not begun */
    FX_TRY(check_asked(w));
    const bool first = w->s->rank == 0;
    if (w->used.report)
        FX_TRY(fx_run_vote(w->s, first ? fx_report_write(&w->report, w->used.report) : FX_OK));
    return FX_OK;
}

fx_status fx_pictures_run(fx_work *w, fx_batch *batch)
{
    fx_orders o = {.w = w, .batch = batch, .unknown = w->unknown};
    char text[1024];
    o.open = calloc((size_t)w->groups.groups, FX_DESK_AHEAD * sizeof *o.open);
    fx_status st =
        fx_run_vote(w->s, o.open ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for the orders of a batch"));
    if (batch) fx_batch_begin(batch, &w->used, w->pipe);
    if (st == FX_OK) st = run(w, &o);
    fx_desk_close(&w->desk);
    if (st != FX_OK) snprintf(text, sizeof text, "%s", fx_error());
    while (batch && st == FX_ESIGNAL && o.open_count) /* a signal that left no time to hear of them */
        (void)fx_batch_done(batch, o.open[--o.open_count], st, text, NULL);
    free(o.order);
    free(o.open);
    if (st != FX_OK) {
        if (batch) (void)fx_batch_summary(batch); /* told; the news is what ended it */
        return FX_FAIL(st, "%s", text);
    }
    return w->used.batch ? fx_run_vote(w->s, batch ? fx_batch_summary(batch) : FX_OK) : FX_OK;
}
