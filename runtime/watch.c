/* Called by the pipeline after each step; see watch.h. */
#include "runtime/watch.h"

#include <stdio.h>
#include <string.h>

/* What the second run of a bad step found on this rank. */
typedef struct finding {
    fx_backend *be;
    int64_t order; /* blocks seen */
    int64_t first; /* number of the first bad one, or INT64_MAX */
    int64_t count;
    char name[64];
} finding;

static fx_status scan_block(void *ctx, const char *name, int segment, fx_tensor rows)
{
    finding *f = ctx;
    int64_t bad = 0;
    (void)segment;
    FX_TRY(fx_count_nonfinite(f->be, rows, &bad));
    if (bad && f->first == INT64_MAX) {
        f->first = f->order;
        f->count = bad;
        snprintf(f->name, sizeof f->name, "%s", name);
    }
    f->order++;
    return FX_OK;
}

/* Runs the step again and makes the same message on every rank. */
static fx_status locate(fx_session *s, int step)
{
    finding f = {.be = s->be, .first = INT64_MAX};
    const fx_observer before = s->dit.observe;
    void *const before_ctx = s->dit.observe_ctx;
    s->dit.observe = scan_block;
    s->dit.observe_ctx = &f;
    fx_status st = fx_session_rewind(s, step);
    if (!st) st = fx_dit_step(&s->dit, s->latents, s->noise);
    s->dit.observe = before;
    s->dit.observe_ctx = before_ctx;
    FX_TRY(fx_comm_vote(s->comm, st, NULL));

    int64_t first = f.first, rank;
    FX_TRY(fx_comm_all_reduce_i64(s->comm, FX_MIN, &first, 1));
    rank = f.first == first ? fx_comm_rank(s->comm) : fx_comm_size(s->comm);
    FX_TRY(fx_comm_all_reduce_i64(s->comm, FX_MIN, &rank, 1));
    if (first == INT64_MAX)
        return FX_FAIL(
            FX_ENUMERIC,
            "step %d: the noise prediction is not finite after the final layer; no picture is written; "
            "try --dtype f32, or check the model files",
            step + 1);
    struct {
        char name[64];
        int64_t count;
    } what = {.count = f.count};
    memcpy(what.name, f.name, sizeof what.name);
    FX_TRY(fx_comm_broadcast(s->comm, (int)rank, &what, sizeof what));
    return FX_FAIL(FX_ENUMERIC,
                   "step %d, block %s, rank %d: %lld values are not finite; no picture is written; "
                   "try --dtype f32, or check the model files",
                   step + 1, what.name, fx_comm_job_rank(s->comm, (int)rank), (long long)what.count);
}

/* Waits until the step is over. */
static fx_status count_bad(fx_session *s, int step, int64_t *bad)
{
    if (!s->ahead) {
        FX_TRY(fx_comm_settle(s->comm));
        return fx_count_nonfinite(s->be, s->noise, bad);
    }
    /* the device gives up waiting for other ranks by itself: its step ends in any case */
    FX_TRY(s->be->recorder->fetched(s->be, step % FX_RECORD_SLOTS, bad));
    return fx_comm_check(s->comm);
}

fx_status fx_watch_step(fx_session *s, int step)
{
    int64_t bad = 0;
    fx_plan_box(s->be, "watch", -1);
    fx_status st = count_bad(s, step, &bad);
    const bool plan = fx_planning(s->be);
    int64_t seen[4] = {bad, plan ? 0 : fx_stop_signal(), st, plan ? 0 : fx_stop_wished()};
    FX_TRY(fx_comm_all_reduce_i64(s->comm, FX_MAX, seen, 4));
    if (seen[2]) return fx_comm_vote(s->comm, st, NULL); /* all get its message */
    if (seen[1]) {
        fx_stop_request((int)seen[1]);
        return FX_FAIL(FX_ESIGNAL, "stopped by signal %d after step %d; no picture is written", (int)seen[1],
                       step + 1);
    }
    if (seen[3])
        return fx_comm_vote(s->comm,
                            FX_FAIL(FX_ESIGNAL, "stopped by signal %d after step %d; no picture is written",
                                    (int)seen[3], step + 1),
                            NULL);
    return seen[0] ? fx_comm_vote(s->comm, locate(s, step), NULL) : FX_OK;
}

fx_status fx_watch_pixels(fx_session *s, fx_tensor pixels)
{
    int64_t bad = 0;
    const fx_tensor rows =
        fx_view2(pixels.data, pixels.dtype, pixels.shape[0], pixels.shape[1] * pixels.shape[2]);
    fx_status st = fx_comm_settle(s->comm);
    if (!st) st = fx_count_nonfinite(s->be, rows, &bad);
    if (st == FX_OK && bad)
        st = FX_FAIL(
            FX_ENUMERIC,
            "vae decoder, rank %d: %lld values are not finite; no picture is written; try --dtype f32, "
            "or check the model files",
            fx_comm_job_rank(s->comm, fx_comm_rank(s->comm)), (long long)bad);
    return fx_comm_vote(s->comm, st, NULL);
}
