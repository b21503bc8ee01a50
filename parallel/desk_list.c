/* Rank 0 of the desk: which group gets which job, when groups merge, when all is over. Nothing here waits; contract in
 * desk.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "parallel/desk_internal.h"
#include "runtime/core/clock.h"

enum { PAUSE_US = 500 };

fx_status fx_desk_open_list(fx_desk *d)
{
    d->seats = d->groups;
    d->served_s = fx_now_s();
    d->seat = calloc((size_t)d->seats, sizeof *d->seat);
    FX_CHECK(d->seat, FX_ENOMEM, "no memory for a desk of %d groups", d->seats);
    for (int i = 0; i < d->seats; i++) {
        fx_desk_seat *s = &d->seat[i];
        s->rank = i * (d->policy.ranks / d->groups);
        s->groups = d->groups;
        if (i) FX_TRY(fx_link_open(d->line[(i - 1) / FX_LINK_PEERS], 1 + (i - 1) % FX_LINK_PEERS, &s->link));
    }
    return FX_OK;
}

void fx_desk_close_list(fx_desk *d)
{
    for (int i = 1; d->seat && i < d->seats; i++) fx_link_close(&d->seat[i].link);
    free(d->seat);
    d->seat = NULL;
}

static fx_status tell(fx_desk *d, fx_desk_seat *s, const fx_word *w, void *body)
{
    return s->rank ? fx_link_tell(&s->link, w, body) : fx_desk_queue(d, w, body);
}

/* ---- results ---- */

/* No more is handed out, and what was not begun comes back. */
static fx_status drop(fx_desk *d)
{
    d->over = true;
    for (int i = 0; i < d->seats; i++)
        if (d->seat[i].busy) FX_TRY(tell(d, &d->seat[i], &(fx_word){.kind = FX_WORD_DROP}, NULL));
    return FX_OK;
}

/* The first verdict stays. */
static fx_status stop(fx_desk *d, fx_status verdict, int blamed)
{
    if (d->verdict) return FX_OK;
    snprintf(d->verdict_text, sizeof d->verdict_text, "%s", fx_error());
    d->verdict = verdict;
    d->blamed = blamed;
    return drop(d);
}

static fx_status done(fx_desk *d, const fx_desk_seat *s, const fx_word *w, const void *body)
{
    const fx_desk_outcome out = {.number = w->number,
                                 .status = (fx_status)w->status,
                                 .text = w->text,
                                 .first = s->rank,
                                 .width = d->policy.ranks / s->groups,
                                 .body = body,
                                 .bytes = w->bytes};
    const fx_status st = d->calls.done(d->calls.ctx, &out);
    if (st) return stop(d, st, w->status && w->blamed >= 0 ? w->blamed : 0);
    return out.status == FX_ESIGNAL ? drop(d) : FX_OK;
}

fx_status fx_desk_heard(fx_desk *d, int seat, const fx_word *w, void *body)
{
    fx_desk_seat *s = &d->seat[seat];
    fx_status st = FX_OK;
    if (w->kind == FX_WORD_DONE || w->kind == FX_WORD_DROPPED) s->busy--;
    if (w->kind == FX_WORD_DONE) st = done(d, s, w, body);
    if (w->kind == FX_WORD_STOP) st = drop(d);
    free(body);
    return st;
}

static fx_status hear_all(fx_desk *d)
{
    for (int i = 1; i < d->seats; i++) {
        bool got = true;
        while (got) {
            fx_desk_word w = {.body = NULL};
            FX_TRY(fx_link_hear(&d->seat[i].link, &got, &w.word, &w.body));
            if (got) FX_TRY(fx_desk_heard(d, i, &w.word, w.body));
        }
    }
    return FX_OK;
}

/* While this rank did not listen nobody was silent. */
static fx_status check_silence(fx_desk *d)
{
    const double now = fx_now_s(), limit_s = fx_comm_timeout(d->world), gap_s = now - d->served_s;
    d->served_s = now;
    for (int i = 1; i < d->seats; i++) {
        fx_link *l = &d->seat[i].link;
        if (!l->listening) continue;
        if (gap_s > d->interval_s / 2) l->heard_s += gap_s;
        FX_CHECK(
            limit_s <= 0 || now - l->heard_s < limit_s, FX_ECOMM,
            "rank %d, which speaks for %d ranks, was not heard of for %.3g s; a rank is stopped, lost or "
            "slow; see its messages, or give more time with --timeout",
            d->seat[i].rank, d->seat[i].groups ? d->policy.ranks / d->seat[i].groups : 1, limit_s);
    }
    return FX_OK;
}

/* ---- decisions ---- */

static void next_stage(fx_desk *d)
{
    const int64_t waiting = d->calls.waiting(d->calls.ctx);
    d->over = waiting < 0;
    if (waiting <= 0) return; /* none, or none now */
    const fx_groups_stage next = fx_groups_next(&d->policy, d->stage, waiting);
    d->stage = next.groups;
    d->left = next.pictures;
}

/* The seat of the first rank of group `group` of this stage; the others that merge into it follow. */
static fx_desk_seat *first_seat(const fx_desk *d, int group)
{
    return &d->seat[group * (d->seats / d->stage)];
}

/* Groups that become group `group` move when all of them are idle. */
static fx_status form(fx_desk *d, int group)
{
    fx_desk_seat *s = first_seat(d, group);
    const int n = d->seats / d->stage;
    if (s->groups == d->stage) return FX_OK;
    for (int i = 0; i < n; i++)
        if (s[i].busy) return FX_OK;
    for (int i = 0; i < n; i++) {
        const fx_word w = {.kind = FX_WORD_MOVE, .groups = d->stage};
        if (s[i].groups) FX_TRY(tell(d, &s[i], &w, NULL));
        s[i].groups = i ? 0 : d->stage;
    }
    return FX_OK;
}

static fx_status hand(fx_desk *d, fx_desk_seat *s)
{
    fx_desk_job job = {.number = -1};
    const fx_status st = d->calls.next(d->calls.ctx, &job);
    if (st) return stop(d, st, 0);
    if (job.number < 0) { /* fewer than were said to wait: they are counted again, the next time */
        d->left = 0;
        return FX_OK;
    }
    FX_CHECK(job.bytes <= FX_DESK_BODY, FX_EINVAL, "a job of %zu bytes; at most %d", job.bytes, FX_DESK_BODY);
    void *body = job.bytes ? malloc(job.bytes) : NULL;
    FX_CHECK(body || !job.bytes, FX_ENOMEM, "no memory for a job of %zu bytes", job.bytes);
    if (body) memcpy(body, job.body, job.bytes);
    s->busy++;
    d->left--;
    const fx_word w = {.kind = FX_WORD_JOB, .number = job.number, .bytes = job.bytes};
    return tell(d, s, &w, body);
}

/* The group that has least to do, or NULL: all have enough, or one that has nothing is not there yet. */
static fx_desk_seat *least_busy(const fx_desk *d)
{
    const int most = d->stage > 1 ? FX_DESK_AHEAD : 1; /* rank 0's own group asks without a message */
    fx_desk_seat *least = NULL;
    bool missing = false;
    for (int g = 0; g < d->stage; g++) {
        fx_desk_seat *s = first_seat(d, g);
        if (s->groups != d->stage)
            missing = true;
        else if (!least || s->busy < least->busy)
            least = s;
    }
    return least && least->busy < (missing ? 1 : most) ? least : NULL;
}

static bool all_idle(const fx_desk *d)
{
    for (int i = 0; i < d->seats; i++)
        if (d->seat[i].busy) return false;
    return true;
}

static fx_status tell_end(fx_desk *d)
{
    fx_word w = {.kind = FX_WORD_END, .status = d->verdict, .blamed = d->blamed};
    snprintf(w.text, sizeof w.text, "%s", d->verdict ? d->verdict_text : "");
    d->ended = true;
    for (int i = 0; i < d->seats; i++)
        if (d->seat[i].groups) FX_TRY(tell(d, &d->seat[i], &w, NULL));
    return FX_OK;
}

/* Jobs to groups that can take one; when a stage is handed out, the next one begins. */
static fx_status hand_out(fx_desk *d)
{
    bool more = true;
    while (more && !d->over) {
        if (!d->left) next_stage(d);
        for (int g = 0; g < d->stage && !d->over; g++) FX_TRY(form(d, g));
        fx_desk_seat *s = d->left && !d->over ? least_busy(d) : NULL;
        if (s) FX_TRY(hand(d, s));
        more = s && d->left;
    }
    return FX_OK;
}

static fx_status decide(fx_desk *d)
{
    FX_TRY(hand_out(d));
    return d->over && !d->ended && all_idle(d) ? tell_end(d) : FX_OK;
}

fx_status fx_desk_serve(fx_desk *d)
{
    FX_TRY(hear_all(d));
    FX_TRY(check_silence(d));
    FX_TRY(decide(d));
    for (int i = 1; i < d->seats; i++)
        if (d->seat[i].groups && !d->ended) FX_TRY(fx_link_sign(&d->seat[i].link, d->interval_s));
    return FX_OK;
}

fx_status fx_desk_wait_byes(fx_desk *d)
{
    for (int i = 1; i < d->seats; i++) {
        while (d->seat[i].link.listening) {
            if (fx_stop_signal())
                return FX_FAIL(FX_ESIGNAL, "stopped by signal %d after the last picture", fx_stop_signal());
            FX_TRY(hear_all(d));
            FX_TRY(check_silence(d));
            if (d->seat[i].link.listening) usleep(PAUSE_US);
        }
        FX_TRY(fx_link_flush(&d->seat[i].link));
    }
    return FX_OK;
}
