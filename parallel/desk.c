/* What every rank does between pictures: the next word of the desk, heard by the first rank of its group and told to all of
 * it. Contract in desk.h; what rank 0 decides is in desk_list.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "parallel/desk_internal.h"
#include "runtime/core/clock.h"

enum { PAUSE_US = 500 }; /* of rank 0, while there is nothing to do */

static bool first_of_group(const fx_desk *d)
{
    return fx_comm_rank(d->team) == 0;
}

/* ---- words for this group ---- */

fx_status fx_desk_queue(fx_desk *d, const fx_word *w, void *body)
{
    if (w->kind == FX_WORD_DROP) d->drop = true;
    if (w->kind == FX_WORD_DROP || w->kind == FX_WORD_SIGN) return FX_OK;
    if (d->queued == FX_DESK_QUEUE) {
        free(body);
        return FX_FAIL(FX_ECOMM, "the desk: more than %d words wait for a group", FX_DESK_QUEUE);
    }
    d->queue[d->queued++] = (fx_desk_word){*w, body};
    return FX_OK;
}

/* Words that have come meanwhile. */
static fx_status drain(fx_desk *d)
{
    bool got = d->rank != 0;
    while (got) {
        fx_desk_word w = {.body = NULL};
        FX_TRY(fx_link_hear(&d->link, &got, &w.word, &w.body));
        if (got) FX_TRY(fx_desk_queue(d, &w.word, w.body));
    }
    return FX_OK;
}

static fx_status answer(fx_desk *d, const fx_word *w, void *body)
{
    return d->rank ? fx_link_tell(&d->link, w, body) : fx_desk_heard(d, 0, w, body);
}

static fx_desk_word pop(fx_desk *d)
{
    const fx_desk_word w = d->queue[0];
    memmove(d->queue, d->queue + 1, (size_t)--d->queued * sizeof d->queue[0]);
    return w;
}

/* Jobs that nobody wants any more go back. */
static fx_status drop_jobs(fx_desk *d)
{
    FX_TRY(drain(d));
    while (d->drop && d->queued && d->queue[0].word.kind == FX_WORD_JOB) {
        const fx_desk_word w = pop(d);
        const fx_word back = {.kind = FX_WORD_DROPPED, .number = w.word.number};
        free(w.body);
        FX_TRY(answer(d, &back, NULL));
    }
    return FX_OK;
}

/* *quiet: nothing was decided for so long that the group needs a sign. */
static fx_status wait_for_word(fx_desk *d, bool *quiet)
{
    const double begin_s = fx_now_s();
    fx_desk_word w = {.body = NULL};
    *quiet = false;
    if (d->rank) {
        FX_TRY(fx_link_wait(&d->link, &w.word, &w.body));
        *quiet = w.word.kind == FX_WORD_SIGN;
        return fx_desk_queue(d, &w.word, w.body);
    }
    FX_TRY(fx_desk_serve(d));
    while (!d->queued && !*quiet) {
        if (fx_stop_signal())
            return FX_FAIL(FX_ESIGNAL, "stopped by signal %d between pictures", fx_stop_signal());
        usleep(PAUSE_US);
        FX_TRY(fx_desk_serve(d));
        *quiet = fx_now_s() - begin_s > d->interval_s;
    }
    return FX_OK;
}

static fx_status take(fx_desk *d, fx_desk_word *out)
{
    bool quiet = false;
    FX_TRY(drop_jobs(d));
    while (!d->queued && !quiet) {
        FX_TRY(wait_for_word(d, &quiet));
        FX_TRY(drop_jobs(d));
    }
    *out = d->queued ? pop(d) : (fx_desk_word){.word = {.kind = FX_WORD_SIGN}};
    return FX_OK;
}

/* From the first rank to all of the group. */
static fx_status share(fx_desk *d, fx_desk_word *w)
{
    FX_TRY(fx_comm_broadcast(d->team, 0, &w->word, sizeof w->word));
    if (!w->word.bytes) return FX_OK;
    if (!first_of_group(d)) w->body = malloc(w->word.bytes);
    FX_CHECK(w->body, FX_ENOMEM, "no memory for a job of %llu bytes", (unsigned long long)w->word.bytes);
    return fx_comm_broadcast(d->team, 0, w->body, w->word.bytes);
}

/* Any rank of the group may have been asked to stop; rank 0 decides for all groups. */
static fx_status look_for_stop(fx_desk *d)
{
    int64_t stop = d->calls.stopped && d->calls.stopped(d->calls.ctx);
    FX_TRY(fx_comm_all_reduce_i64(d->team, FX_MAX, &stop, 1));
    if (!stop || d->stopping || !first_of_group(d)) return FX_OK;
    d->stopping = true;
    return answer(d, &(fx_word){.kind = FX_WORD_STOP}, NULL);
}

static fx_status next_word(fx_desk *d, fx_desk_word *w)
{
    *w = (fx_desk_word){.body = NULL};
    fx_comm_set_phase(d->team, "next picture");
    FX_TRY(look_for_stop(d));
    if (first_of_group(d)) FX_TRY(take(d, w));
    return share(d, w);
}

/* ---- acting on them ---- */

static fx_status make(fx_desk *d, const fx_desk_word *w)
{
    const fx_desk_job job = {w->word.number, w->body, w->word.bytes};
    fx_desk_buffer result = {NULL, 0};
    const fx_status st = d->calls.make(d->calls.ctx, &job, &result);
    fx_word answered = {.kind = FX_WORD_DONE, .number = job.number, .status = st, .blamed = -1};
    const bool own =
        st == FX_ECOMM || (st == FX_ESIGNAL && fx_stop_signal()) || (st && !fx_comm_agreed(d->team));
    fx_comm_forgive(d->team);
    if (own || d->failed || !first_of_group(d)) {
        free(result.data);
        if (own) return st;
        return d->failed ? FX_FAIL(d->failed, "%s", d->failed_text) : FX_OK;
    }
    if (st) {
        snprintf(answered.text, sizeof answered.text, "%s", fx_error());
        answered.blamed = fx_comm_blamed(d->team);
    }
    answered.bytes = result.data ? result.bytes : 0;
    return answer(d, &answered, result.data);
}

static fx_status say_bye(fx_desk *d)
{
    FX_TRY(fx_link_tell(&d->link, &(fx_word){.kind = FX_WORD_BYE}, NULL));
    return fx_link_flush(&d->link);
}

static fx_status move(fx_desk *d, int groups)
{
    const bool was_first = first_of_group(d) && d->rank;
    d->groups = groups;
    if (was_first && d->rank % (d->policy.ranks / groups)) FX_TRY(say_bye(d)); /* another speaks for it */
    return d->calls.move(d->calls.ctx, groups, &d->team);
}

static fx_status end(fx_desk *d, const fx_word *w)
{
    if (d->rank == 0)
        FX_TRY(fx_desk_wait_byes(d));
    else if (first_of_group(d))
        FX_TRY(say_bye(d));
    d->finished = true;
    const bool mine = w->status && d->rank == w->blamed;
    return fx_comm_vote(d->world, mine ? FX_FAIL((fx_status)w->status, "%s", w->text) : FX_OK, NULL);
}

fx_status fx_desk_run(fx_desk *d)
{
    FX_TRY(d->calls.move(d->calls.ctx, d->groups, &d->team));
    for (;;) {
        fx_desk_word w;
        fx_status st = next_word(d, &w);
        if (!st && w.word.kind == FX_WORD_JOB) st = make(d, &w);
        if (!st && w.word.kind == FX_WORD_MOVE) st = move(d, w.word.groups);
        free(w.body);
        if (st) return st;
        if (w.word.kind == FX_WORD_END) return end(d, &w.word);
    }
}

static fx_status tick(fx_desk *d)
{
    if (d->rank == 0) return fx_desk_serve(d);
    FX_TRY(drain(d));
    return fx_link_sign(&d->link, d->interval_s);
}

void fx_desk_tick(fx_desk *d)
{
    if (!d || !d->team || d->failed || !first_of_group(d)) return;
    d->failed = tick(d);
    if (d->failed) snprintf(d->failed_text, sizeof d->failed_text, "%s", fx_error());
}

/* ---- open and close ---- */

/* Rank 0 with the first ranks of FX_LINK_PEERS groups, again and again: so many tickets a communicator has. */
static fx_status open_lines(fx_desk *d)
{
    const int width = d->policy.ranks / d->groups, mine = d->rank / width;
    d->lines = (d->groups - 1 + FX_LINK_PEERS - 1) / FX_LINK_PEERS; /* group 0 is rank 0's */
    d->line = calloc((size_t)d->lines + 1, sizeof(fx_comm *));
    FX_TRY(fx_comm_vote(d->world, d->line ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for the desk"), NULL));
    if (!d->line) return FX_ENOMEM; /* the vote has failed then */
    for (int i = 0; i < d->lines; i++) {
        const bool in = d->rank == 0 || (d->rank % width == 0 && (mine - 1) / FX_LINK_PEERS == i);
        FX_TRY(fx_comm_split(d->world, in ? 0 : -1, d->rank, &d->line[i]));
        if (in && d->rank) FX_TRY(fx_link_open(d->line[i], 0, &d->link));
    }
    return FX_OK;
}

static fx_status open_desk(fx_desk *d)
{
    const double limit_s = fx_comm_timeout(d->world);
    d->interval_s = limit_s > 0 && limit_s < 4 ? limit_s / 4 : 1;
    FX_TRY(open_lines(d));
    return d->rank == 0 ? fx_desk_open_list(d) : FX_OK;
}

fx_status fx_desk_open(fx_comm *world, const fx_groups *policy, int groups, const fx_desk_calls *calls,
                       fx_desk **out)
{
    fx_desk *d = *out = calloc(1, sizeof *d);
    FX_TRY(fx_comm_vote(world, d ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for the desk"), NULL));
    if (!d) return FX_ENOMEM; /* the vote has failed then */
    d->world = world;
    d->rank = fx_comm_rank(world);
    d->policy = *policy;
    d->groups = d->stage = groups;
    d->calls = *calls;
    d->blamed = -1;
    return fx_comm_vote(world, open_desk(d), NULL);
}

void fx_desk_close(fx_desk **desk)
{
    fx_desk *d = *desk;
    *desk = NULL;
    if (!d || !d->finished) return; /* words may be under way */
    for (int i = 0; i < d->queued; i++) free(d->queue[i].body);
    fx_link_close(&d->link);
    fx_desk_close_list(d);
    for (int i = 0; d->line && i < d->lines; i++) fx_comm_close(&d->line[i]);
    free(d->line);
    free(d);
}
