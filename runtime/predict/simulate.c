/* The event loop: the stream that is furthest behind does its next job, unless a flow ends or begins before. See simulate.h.
 * Called by search.c. */
#include "runtime/predict/simulate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/predict/flows.h"

/* What a class has of an exchange. */
typedef struct side {
    double begun_us;    /* its transfers may move since then; -1: not yet */
    double arrived_us;  /* the last arrival */
    int arrived, left;  /* flows that came; flows of its own that are not over */
    int expected;       /* flows that will come */
    bool takes;         /* it has a place for them */
    const fx_job *post; /* of which it sends */
} side;

typedef enum { GOES, STORES, AWAITS, WAITS, ENDED } state;

/* The compute stream of a class. */
typedef struct stream {
    const fx_program *p;
    int at, end;
    state is;
    double now_us, host_us, since_us; /* since: when it began to wait, or its own part of a store ends */
    fx_prediction sum;
} stream;

typedef struct simulation {
    const fx_work *w;
    const fx_cost_model *c;
    const fx_by_rate *by;
    const fx_span_sink *sink;
    bool recorded; /* the host does not launch */
    stream *stream;
    side *side; /* [exchanges * classes] */
    fx_flows flows;
} simulation;

static side *side_of(const simulation *s, int exchange, int class)
{
    return &s->side[(size_t)exchange * (size_t)s->w->classes + (size_t) class];
}

static int class_of(const simulation *s, const stream *t)
{
    return (int)(t - s->stream);
}

static void tell(const simulation *s, const stream *t, bool wire, fx_time_kind kind, const fx_job *j,
                 double begin, double end)
{
    const fx_span x = {class_of(s, t), j->box, wire, kind, j->name, begin, end};
    if (s->sink && end > begin) s->sink->span(s->sink->ctx, &x);
}

/* Time passes in a stream, and it is known for what. */
static void spend(const simulation *s, stream *t, fx_time_kind kind, fx_binds binds, const fx_job *j,
                  double us)
{
    tell(s, t, false, kind, j, t->now_us, t->now_us + us);
    t->sum.time_us[kind] += us;
    t->sum.binds_us[binds] += us;
    t->now_us += us;
}

/* ---- flows ---- */

static double latency(const simulation *s, bool far)
{
    return far ? s->c->m->network_latency_us : s->c->m->domain_latency_us;
}

static fx_status send_to(simulation *s, int from, int exchange, const fx_work_peers *to, double start_us)
{
    const double sizes = (double)s->w->program[from].size / s->w->program[to->who].size;
    return fx_flows_add(&s->flows, (fx_flow){.from = from,
                                             .to = to->who,
                                             .exchange = exchange,
                                             .far = to->far,
                                             .peers = to->count,
                                             .senders = sizes,
                                             .left = to->bytes,
                                             .start_us = start_us});
}

static void deliver(simulation *s)
{
    fx_flow f;
    while (fx_flows_take(&s->flows, &f)) {
        side *to = side_of(s, f.exchange, f.to), *from = side_of(s, f.exchange, f.from);
        to->arrived++;
        to->arrived_us = fmax(to->arrived_us, s->flows.now_us + latency(s, f.far));
        from->left--;
        if (from->post) {
            const stream *t = &s->stream[f.from];
            tell(s, t, true, FX_TIME_EXPOSED, from->post, f.start_us, s->flows.now_us);
        }
    }
}

/* A transfer moves as soon as both sides are ready for it. */
static fx_status begin_transfers(simulation *s, int exchange, int class, double now_us)
{
    side *mine = side_of(s, exchange, class);
    if (mine->begun_us >= 0) return FX_OK;
    mine->begun_us = now_us;
    for (int a = 0; a < s->w->classes; a++) {
        const side *from = side_of(s, exchange, a);
        const fx_program *p = &s->w->program[a];
        if (from->begun_us < 0 || !from->post) continue;
        for (int i = from->post->out; i < from->post->out + from->post->outs; i++) {
            const int b = p->peers[i].who;
            if ((a != class && b != class) || side_of(s, exchange, b)->begun_us < 0) continue;
            FX_TRY(send_to(s, a, exchange, &p->peers[i], now_us + s->by->start_us));
        }
    }
    return FX_OK;
}

/* ---- jobs ---- */

static const fx_time_kind time_of[FX_WORK_KINDS] = {[FX_WORK_GEMM] = FX_TIME_GEMM,
                                                    [FX_WORK_ATTENTION] = FX_TIME_ATTENTION,
                                                    [FX_WORK_CONV] = FX_TIME_GEMM,
                                                    [FX_WORK_ROWS] = FX_TIME_ROWS};

/* Without a recorded step a launch begins no sooner than the host has come to it. */
static void host_reaches(const simulation *s, stream *t, const fx_job *j)
{
    if (s->recorded) return;
    t->host_us += j->kind == FX_JOB_POST ? s->c->m->host_post_us : s->c->m->host_launch_us;
    if (t->host_us > t->now_us) spend(s, t, FX_TIME_LAUNCH, FX_BINDS_LATENCY, j, t->host_us - t->now_us);
}

static void launch(const simulation *s, stream *t, const fx_job *j)
{
    const fx_cost x = fx_cost_job(s->c, j);
    host_reaches(s, t, j);
    const double fixed = x.us > 0 ? x.fixed_us + s->c->m->launch_us : 0;
    spend(s, t, FX_TIME_LAUNCH, FX_BINDS_LATENCY, j, fixed);
    spend(s, t, time_of[j->work], x.binds, j, x.us > 0 ? x.us - x.fixed_us : 0);
    t->sum.weights_us += x.floor_us;
    t->sum.flop += x.flop;
}

static bool has_rows(const fx_job *j)
{
    return j->exchange >= 0 && j->outs;
}

/* Rows leave for the other ranks' memory. */
static fx_status set_out(simulation *s, const stream *t, const fx_job *j, double begin)
{
    const int class = class_of(s, t);
    if (!has_rows(j)) return FX_OK;
    side *mine = side_of(s, j->exchange, class);
    mine->post = j;
    mine->begun_us = begin;
    mine->left = j->outs;
    for (int i = j->out; i < j->out + j->outs; i++)
        FX_TRY(send_to(s, class, j->exchange, &t->p->peers[i], begin));
    return FX_OK;
}

static fx_status store(simulation *s, stream *t, const fx_job *j)
{
    const fx_cost x = fx_cost_job(s->c, j);
    spend(s, t, FX_TIME_LAUNCH, FX_BINDS_LATENCY, j, s->c->m->launch_us + s->c->m->op_us + s->by->start_us);
    const double begin = t->now_us;
    spend(s, t, FX_TIME_ROWS, x.binds, j, x.us > 0 ? x.us - x.fixed_us : 0);
    FX_TRY(set_out(s, t, j, begin));
    if (has_rows(j)) t->is = STORES;
    return FX_OK;
}

static fx_status copy(simulation *s, const stream *t, const fx_job *j)
{
    return set_out(s, t, j, t->now_us + s->by->start_us);
}

static fx_status post(simulation *s, stream *t, const fx_job *j)
{
    side *mine = side_of(s, j->exchange, class_of(s, t));
    host_reaches(s, t, j);
    mine->post = j;
    for (int i = j->out; i < j->out + j->outs; i++)
        mine->left += side_of(s, j->exchange, t->p->peers[i].who)->takes;
    return s->by->overlap ? begin_transfers(s, j->exchange, class_of(s, t), t->now_us) : FX_OK;
}

static fx_status wait(simulation *s, stream *t, const fx_job *j)
{
    host_reaches(s, t, j);
    if (j->exchange < 0) return FX_OK; /* nothing was posted */
    t->is = WAITS;
    t->since_us = t->now_us;
    return s->by->overlap ? FX_OK : begin_transfers(s, j->exchange, class_of(s, t), t->now_us);
}

static void host(const simulation *s, stream *t, const fx_job *j)
{
    if (s->recorded || strcmp(j->name, "count_nonfinite") != 0) return;
    spend(s, t, FX_TIME_LAUNCH, FX_BINDS_LATENCY, j, s->c->m->host_step_us);
}

/* The next job; of those that concern nobody else, all that follow. */
static fx_status go_on(simulation *s, stream *t)
{
    bool alone = true;
    while (alone && t->is == GOES && t->at < t->end) {
        const fx_job *j = &t->p->job[t->at];
        alone = j->kind == FX_JOB_OP || j->kind == FX_JOB_HOST;
        switch (j->kind) {
        case FX_JOB_OP: launch(s, t, j); break;
        case FX_JOB_HOST: host(s, t, j); break;
        case FX_JOB_STORE: FX_TRY(store(s, t, j)); break;
        case FX_JOB_COPY: FX_TRY(copy(s, t, j)); break;
        case FX_JOB_POST: FX_TRY(post(s, t, j)); break;
        case FX_JOB_WAIT: FX_TRY(wait(s, t, j)); break;
        case FX_JOB_AWAIT:
            t->is = AWAITS;
            t->since_us = t->now_us;
            break;
        }
        t->at += t->is == GOES; /* who waits comes back to the job */
        if (t->at < t->end && t->is == GOES && alone) {
            const fx_job_kind next = t->p->job[t->at].kind;
            alone = next == FX_JOB_OP || next == FX_JOB_HOST;
        }
    }
    if (t->at >= t->end) t->is = ENDED;
    return FX_OK;
}

/* What a stream waits for has happened. */
static bool released(const simulation *s, const stream *t)
{
    const fx_job *j = &t->p->job[t->at];
    const side *mine = side_of(s, j->exchange, class_of(s, t));
    if (t->is == STORES) return mine->left == 0;
    if (t->is == AWAITS) return mine->arrived >= mine->expected;
    return t->is == WAITS && mine->left == 0 && mine->arrived >= mine->expected;
}

static void release(simulation *s, stream *t)
{
    const fx_job *j = &t->p->job[t->at];
    const side *mine = side_of(s, j->exchange, class_of(s, t));
    const double over_us =
        t->is == STORES ? s->flows.now_us : fmax(mine->arrived_us, t->is == WAITS ? s->flows.now_us : 0);
    if (over_us > t->now_us) spend(s, t, FX_TIME_EXPOSED, FX_BINDS_LINK, j, over_us - t->now_us);
    if (t->is != STORES) spend(s, t, FX_TIME_LAUNCH, FX_BINDS_LATENCY, j, s->by->wait_us);
    t->is = GOES;
    t->at++;
    if (t->at >= t->end) t->is = ENDED;
}

/* ---- the loop ---- */

static stream *furthest_behind(const simulation *s)
{
    stream *first = NULL;
    for (int i = 0; i < s->w->classes; i++) {
        stream *t = &s->stream[i];
        if (t->is == GOES && (!first || t->now_us < first->now_us)) first = t;
    }
    return first;
}

static fx_status run(simulation *s)
{
    for (;;) {
        bool waits = false;
        for (int i = 0; i < s->w->classes; i++) {
            stream *t = &s->stream[i];
            if (t->is == GOES || t->is == ENDED) continue;
            if (released(s, t))
                release(s, t);
            else
                waits = true;
        }
        stream *t = furthest_behind(s);
        const double flow_us = fx_flows_next(&s->flows);
        if (!t && !isfinite(flow_us)) {
            FX_CHECK(!waits, FX_ESHAPE, "simulation: ranks wait for each other for ever");
            return FX_OK;
        }
        if (!t || flow_us <= t->now_us) {
            fx_flows_advance(&s->flows, flow_us);
            deliver(s);
            continue;
        }
        fx_flows_advance(&s->flows, t->now_us);
        FX_TRY(go_on(s, t));
    }
}

/* A class stands for ranks that are nearly alike; what its first rank has no part in does not reach it. */
static void expect(simulation *s)
{
    for (int pass = 0; pass < 2; pass++)
        for (int c = 0; c < s->w->classes; c++) {
            const fx_program *p = &s->w->program[c];
            for (int n = 0; n < p->n; n++) {
                const fx_job *j = &p->job[n];
                if (j->exchange < 0 || j->part != FX_PART_STEP) continue;
                if (!pass)
                    side_of(s, j->exchange, c)->takes |= j->kind == FX_JOB_AWAIT || j->kind == FX_JOB_POST;
                for (int i = j->out; pass && i < j->out + j->outs; i++) {
                    side *to = side_of(s, j->exchange, p->peers[i].who);
                    to->expected += to->takes;
                }
            }
        }
}

static void find_step(const fx_program *p, stream *t)
{
    t->at = 0;
    while (t->at < p->n && p->job[t->at].part == FX_PART_TEXT) t->at++;
    t->end = t->at;
    while (t->end < p->n && p->job[t->end].part == FX_PART_STEP) t->end++;
    t->is = t->at < t->end ? GOES : ENDED;
}

static void sum_up(const simulation *s, fx_prediction *out)
{
    double first = INFINITY;
    const stream *last = &s->stream[0];
    for (int i = 0; i < s->w->classes; i++) {
        const stream *t = &s->stream[i];
        if (t->now_us > last->now_us) last = t;
        if (t->now_us < first) first = t->now_us;
    }
    *out = last->sum;
    out->step_us = last->now_us;
    out->idle_us = last->now_us - first;
    out->flop = 0;
    for (int i = 0; i < s->w->classes; i++) out->flop += s->stream[i].sum.flop * s->w->program[i].size;
}

fx_status fx_simulate_once(const fx_work *w, const fx_cost_model *c, fx_by by, const fx_span_sink *sink,
                           fx_prediction *out)
{
    static const fx_by_rate nothing = {.overlap = true, .gbps = 1};
    simulation s = {.w = w, .c = c, .by = w->ranks > 1 ? &c->m->by[by] : &nothing, .sink = sink};
    const size_t sides = (size_t)w->exchanges * (size_t)w->classes;
    fx_status st;
    s.recorded = !c->m->cpu && (w->ranks == 1 || by == FX_BY_LSA);
    s.stream = calloc((size_t)w->classes, sizeof *s.stream);
    s.side = calloc(sides + 1, sizeof *s.side);
    st = s.stream && s.side ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for a simulation of %d ranks", w->ranks);
    FX_TRY_OUT(st);
    FX_TRY_OUT(fx_flows_open(c->m, by, w, &s.flows));
    for (size_t i = 0; i < sides; i++) s.side[i].begun_us = -1;
    expect(&s);
    for (int i = 0; i < w->classes; i++) {
        s.stream[i].p = &w->program[i];
        find_step(&w->program[i], &s.stream[i]);
    }
    FX_TRY_OUT(run(&s));
    sum_up(&s, out);
    out->clock = c->clock;
out:
    fx_flows_close(&s.flows);
    free(s.stream);
    free(s.side);
    return st;
}
