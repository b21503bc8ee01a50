/* Fair shares by filling up: all flows grow together until a link is full; those through it stay as they are, the rest grows
 * on (max-min fairness). See flows.h. Called by simulate.c. */
#include "runtime/predict/flows.h"

#include <math.h>
#include <stdlib.h>

enum { LINK_OUT, LINK_IN, NETWORK_OUT, NETWORK_IN, SIDES };
static const double over = 1e-3; /* bytes: less than that is nothing */

static int domain_members(const fx_machine *m, const fx_work *w)
{
    return w->ranks < m->domain_ranks ? w->ranks : (int)m->domain_ranks;
}

fx_status fx_flows_open(const fx_machine *m, fx_by by, const fx_work *w, fx_flows *out)
{
    *out = (fx_flows){.classes = w->classes, .link = m->by[by].gbps * 1e3};
    const double shared = m->network_domain_gbps / domain_members(m, w);
    out->network = 1e3 * (shared < m->network_gbps ? shared : m->network_gbps);
    out->load = calloc(2 * SIDES * (size_t)w->classes, sizeof *out->load);
    FX_CHECK(out->load, FX_ENOMEM, "no memory for flows");
    out->free = out->load + SIDES * w->classes;
    return FX_OK;
}

void fx_flows_close(fx_flows *f)
{
    free(f->flow);
    free(f->load);
    *f = (fx_flows){0};
}

fx_status fx_flows_add(fx_flows *f, fx_flow x)
{
    if (f->n == f->room) {
        const int room = f->room ? 2 * f->room : 32;
        fx_flow *grown = realloc(f->flow, (size_t)room * sizeof *grown);
        FX_CHECK(grown, FX_ENOMEM, "no memory for flows");
        f->flow = grown;
        f->room = room;
    }
    x.rate = -1;
    f->changed = true;
    f->flow[f->n++] = x;
    return FX_OK;
}

/* The links of a flow, and how much of each one byte per peer takes. */
static int links_of(const fx_flow *x, int link[2], double weight[2])
{
    const int out = x->far ? NETWORK_OUT : LINK_OUT, in = x->far ? NETWORK_IN : LINK_IN;
    link[0] = SIDES * x->from + out, weight[0] = x->peers;
    link[1] = SIDES * x->to + in, weight[1] = x->peers * x->senders;
    return 2;
}

static bool running(const fx_flows *f, const fx_flow *x)
{
    return x->start_us <= f->now_us;
}

/* The level at which the fullest link is full: bytes per microsecond of a flow to one peer. */
static double next_level(const fx_flows *f, int *full)
{
    double level = INFINITY;
    for (int l = 0; l < SIDES * f->classes; l++) {
        if (f->load[l] <= 0 || f->free[l] / f->load[l] >= level) continue;
        level = f->free[l] / f->load[l];
        *full = l;
    }
    return level;
}

static void share(fx_flows *f)
{
    int link[2], full = 0;
    double weight[2];
    for (int l = 0; l < SIDES * f->classes; l++) {
        f->load[l] = 0;
        f->free[l] = l % SIDES < NETWORK_OUT ? f->link : f->network;
    }
    for (int i = 0; i < f->n; i++) {
        f->flow[i].rate = -1;
        const int n = running(f, &f->flow[i]) ? links_of(&f->flow[i], link, weight) : 0;
        for (int k = 0; k < n; k++) f->load[link[k]] += weight[k];
    }
    for (;;) {
        const double level = next_level(f, &full);
        if (!isfinite(level)) return;
        for (int i = 0; i < f->n; i++) { /* those through the full link keep this level */
            fx_flow *x = &f->flow[i];
            bool through = false;
            if (x->rate >= 0 || !running(f, x)) continue;
            const int n = links_of(x, link, weight);
            for (int k = 0; k < n; k++) through = through || link[k] == full;
            if (!through) continue;
            x->rate = level * x->peers;
            for (int k = 0; k < n; k++) {
                f->load[link[k]] -= weight[k];
                f->free[link[k]] -= level * weight[k];
                if (f->load[link[k]] < 1e-9) f->load[link[k]] = 0;
            }
        }
        f->load[full] = 0;
    }
}

double fx_flows_next(fx_flows *f)
{
    double next = INFINITY;
    if (f->n && f->changed) share(f);
    f->changed = false;
    for (int i = 0; i < f->n; i++) {
        const fx_flow *x = &f->flow[i];
        const double at = !running(f, x)    ? x->start_us
                          : x->left <= over ? f->now_us
                                            : f->now_us + x->left / x->rate;
        if (at < next) next = at;
    }
    return next;
}

void fx_flows_advance(fx_flows *f, double now_us)
{
    const double d = now_us - f->now_us;
    for (int i = 0; i < f->n && d > 0; i++) {
        fx_flow *x = &f->flow[i];
        if (!running(f, x)) {
            f->changed = f->changed || x->start_us <= now_us;
            continue;
        }
        if (x->rate > 0) x->left -= x->rate * d;
        if (x->rate > 0 && x->left / x->rate < 1e-6) x->left = 0; /* what rounding leaves would never end */
    }
    if (d > 0) f->now_us = now_us;
}

bool fx_flows_take(fx_flows *f, fx_flow *out)
{
    for (int i = 0; i < f->n; i++) {
        if (!running(f, &f->flow[i]) || f->flow[i].left > over) continue;
        *out = f->flow[i];
        f->flow[i] = f->flow[--f->n];
        f->changed = true;
        return true;
    }
    return false;
}
