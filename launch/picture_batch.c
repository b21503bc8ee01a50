/* The loop of a batch over all ranks: rank 0 hands out, all make, rank 0 records. A picture that fails is recorded and the
 * next one is made, when all ranks know of the failure and it is the picture's own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/picture.h"
#include "launch/recipe.h"
#include "launch/signals.h"
#include "launch/talk.h"

typedef struct orders {
    fx_task *room; /* of ranks that get it from rank 0 */
    size_t bytes;
    const fx_task *now;
} orders;

/* Room on the ranks that get it. */
static fx_status make_room(orders *o, uint64_t bytes)
{
    if (bytes > o->bytes) {
        free(o->room);
        o->room = malloc(bytes);
        o->bytes = o->room ? bytes : 0;
    }
    o->now = o->room;
    FX_CHECK(o->now, FX_ENOMEM, "no memory for a job of %llu bytes", (unsigned long long)bytes);
    return FX_OK;
}

/* Every rank gets rank 0's next order. */
static fx_status next_order(fx_work *w, fx_batch *b, orders *o)
{
    fx_run *s = w->s;
    const double wait_s = s->timeout_s < 4 ? s->timeout_s / 4 : 1; /* the others wait meanwhile */
    size_t size = 0;
    FX_TRY(fx_run_vote(s, b ? fx_batch_next(b, wait_s, &o->now, &size) : FX_OK));
    uint64_t bytes = size;
    FX_TRY(fx_comm_broadcast(s->comm, 0, &bytes, sizeof bytes));
    FX_TRY(fx_run_vote(s, b ? FX_OK : make_room(o, bytes)));
    if (!o->now) return FX_ENOMEM; /* the vote has failed then */
    return fx_comm_broadcast(s->comm, 0, (void *)(uintptr_t)o->now, bytes);
}

/* FX_ESIGNAL on all ranks when any was asked to end. */
static fx_status check_asked(fx_work *w)
{
    int64_t asked = fx_signals_asked(NULL);
    FX_TRY(fx_comm_all_reduce_i64(w->s->comm, FX_MAX, &asked, 1));
    if (!asked) return FX_OK;
    fx_stop_request((int)asked);
    return FX_FAIL(FX_ESIGNAL, "stopped by signal %d between two pictures", (int)asked);
}

static fx_options options_of(const fx_work *w, const fx_task *o)
{
    fx_options used = w->used;
    used.prompt = fx_task_prompt(o);
    used.width = o->width;
    used.height = o->height;
    used.steps = o->steps;
    used.t5_len = o->t5_len;
    used.guidance = o->guidance;
    used.seed = o->seed;
    used.count = 1;
    return used;
}

static bool survivable(const fx_work *w, fx_status st)
{
    return fx_comm_agreed(w->s->comm) &&
           (st == FX_EINVAL || st == FX_ENUMERIC || st == FX_EWRITE || st == FX_ENOMEM);
}

/* Recorded, and forgotten when the others can go on. */
static fx_status after_failure(fx_work *w, fx_batch *b, const fx_task *o, fx_status st)
{
    char text[1024];
    snprintf(text, sizeof text, "%s", fx_error());
    const fx_status recorded = b ? fx_batch_done(b, o->number, st, text, NULL) : FX_OK;
    if (!survivable(w, st)) return FX_FAIL(st, "%s", text);
    fx_comm_forgive(w->s->comm);
    return fx_run_vote(w->s, recorded);
}

static fx_status one_order(fx_work *w, fx_batch *b, const fx_task *o)
{
    const fx_options used = options_of(w, o);
    fx_request request = fx_recipe_request(&used);
    fx_result result = {0};
    fx_made made;
    if (o->number > 0) request.dump_dir = NULL; /* the first picture's tensors only */
    const fx_status st = fx_picture_make(w, &used, &request, o->path, &result, &made);
    if (st != FX_OK) return after_failure(w, b, o, st);
    FX_TRY(fx_run_vote(w->s, b ? fx_batch_done(b, o->number, FX_OK, "", &made) : FX_OK));
    return fx_run_vote(w->s, b ? fx_picture_tell(w, &used, &result, o->path, &made) : FX_OK);
}

static fx_status all_orders(fx_work *w, fx_batch *b, orders *o)
{
    for (;;) {
        fx_comm_set_phase(w->s->comm, "next picture");
        FX_TRY(check_asked(w));
        FX_TRY(next_order(w, b, o));
        if (o->now->kind == FX_TASK_END) return FX_OK;
        if (o->now->kind == FX_TASK_PICTURE) FX_TRY(one_order(w, b, o->now));
    }
}

fx_status fx_pictures_of_batch(fx_work *w, fx_batch *b)
{
    orders o = {0};
    char text[1024];
    if (b) fx_batch_begin(b, &w->used, w->pipe);
    const fx_status st = all_orders(w, b, &o);
    free(o.room);
    if (st != FX_OK) {
        snprintf(text, sizeof text, "%s", fx_error());
        if (b) (void)fx_batch_summary(b); /* told; the news is what ended it */
        return FX_FAIL(st, "%s", text);
    }
    if (w->used.report) FX_TRY(fx_run_vote(w->s, b ? fx_report_write(&w->report, w->used.report) : FX_OK));
    return fx_run_vote(w->s, b ? fx_batch_summary(b) : FX_OK);
}
