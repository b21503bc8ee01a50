/* The way by which ranks reach each other's device memory; contract in comm_reach.h. Compiled empty without NCCL. */
#include "parallel/comm_reach.h"

#if FX_HAVE_NCCL
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/comm_cards.h"

/* Rank 0's environment is that of all. */
static fx_status learn(fx_comm *host, bool alone, fx_way_facts *f)
{
    const char *text = getenv("FLUXPAR_WINDOWS");
    int32_t force = text && !strcmp(text, "1");
    bool one = false;
    FX_TRY(fx_comm_broadcast(host, 0, &force, sizeof force));
    FX_TRY(fx_cards_one_node(host, &one));
    f->force_windows = force != 0;
    if (!one) f->no_ipc = "more than one node";
    f->alone = one && alone;
    return FX_OK;
}

typedef struct search {
    fx_comm *host;
    struct ncclComm *nccl;
    void *compute, *wire;
    fx_way_facts facts;
    bool asked; /* for windows: only when they may be used */
    char why[FX_WAY_TEXT];
} search;

/* Tries one way; it may turn out not to be there, which is one fact more. */
static fx_status try_way(search *s, fx_open_way *w, fx_way *way)
{
    fx_way_facts *f = &s->facts;
    if (!s->asked && (f->no_ipc || f->force_windows)) {
        s->asked = true;
        FX_TRY(fx_windows_open(s->host, s->nccl, &w->windows, &f->team, &f->no_windows));
    }
    FX_TRY(fx_way_choose(f, way, s->why));
    if (*way == FX_WAY_IPC) return fx_peers_open(s->host, NULL, s->compute, s->wire, &w->peers, &f->no_ipc);
    if (*way == FX_WAY_WINDOWS)
        return fx_peers_open(s->host, w->windows, s->compute, s->wire, &w->peers, &f->no_windows);
    return FX_OK;
}

/* Memory that others took is a window, which CUDA's handles do not know, or it is none. */
static void follow(search *s, const fx_open_way *of_all)
{
    s->facts.force_windows = of_all->windows != NULL;
    s->asked = !of_all->windows;
    if (!of_all->windows) s->facts.no_windows = "the memory of all ranks is no window of NCCL";
}

fx_status fx_reach_open(fx_comm *host, struct ncclComm *nccl, fx_wire want, bool alone,
                        const fx_open_way *of_all, void *compute, void *wire, fx_open_way *out)
{
    search s = {.host = host, .nccl = nccl, .compute = compute, .wire = wire};
    fx_way way = FX_WAY_NCCL;
    s.facts = (fx_way_facts){.want = want, .ranks = fx_comm_size(host)};
    if (want != FX_WIRE_NCCL) FX_TRY(learn(host, alone, &s.facts));
    if (of_all && want != FX_WIRE_NCCL) follow(&s, of_all);
    while (want != FX_WIRE_NCCL && !out->peers) {
        FX_TRY(try_way(&s, out, &way));
        if (way == FX_WAY_NCCL) break;
    }
    if (way != FX_WAY_WINDOWS) fx_windows_close(&out->windows);
    out->kernels = out->peers && want != FX_WIRE_PEER;
    snprintf(out->text, sizeof out->text, s.why[0] ? "%s (%s)" : "%s%s", fx_way_name(way, out->kernels),
             s.why);
    return FX_OK;
}

void fx_reach_close(fx_open_way *way)
{
    fx_peers_close(&way->peers);
    fx_windows_close(&way->windows);
}

fx_status fx_reach_take(fx_open_way *way, fx_comm *host, fx_backend *be, size_t *bytes, void **out)
{
    if (way && way->windows) return fx_windows_take(way->windows, bytes, out);
    return fx_comm_vote(host, fx_device_alloc(be, *bytes, out), NULL);
}

void fx_reach_give(fx_open_way *way, fx_backend *be, void *data)
{
    if (way && way->windows && fx_windows_took(way->windows, data))
        fx_windows_give(way->windows, data);
    else
        fx_device_free(be, data);
}
#endif
