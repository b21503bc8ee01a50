/* Placement; see place.h. */
#include "launch/place/place.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/talk.h"
#include "parallel/cores.h"
#include "runtime/core/log.h"

/* Equal blocks of all ranks -> all[ranks]. Collective. */
static fx_status gather(fx_run *s, const void *mine, void *all, size_t bytes)
{
    size_t *where = calloc(2 * (size_t)s->ranks, sizeof *where);
    fx_status st = fx_run_vote(s, where ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory to compare the ranks"));
    for (int r = 0; where && r < s->ranks; r++) {
        where[r] = bytes;
        where[s->ranks + r] = (size_t)r * bytes;
    }
    if (st == FX_OK && where) st = fx_comm_all_gather(s->comm, mine, all, where, where + s->ranks);
    free(where);
    return st;
}

static void count_neighbours(fx_surround *of, int ranks)
{
    for (int r = 0; r < ranks; r++) {
        of[r].local_rank = of[r].local_ranks = 0;
        for (int q = 0; q < ranks; q++) {
            const bool here = !strcmp(of[q].host, of[r].host);
            of[r].local_ranks += here;
            of[r].local_rank += here && q < r;
        }
    }
}

/* ---- binding ---- */

static void bind_rank(const fx_scene *s, int rank, const char *bind, fx_bound *out)
{
    const fx_binding b = fx_binding_of(s, rank, bind);
    memset(out, 0, sizeof *out); /* it travels */
    if (b.parts > 0)
        fx_bind_share(b.number, b.parts, out);
    else if (b.parts == 0)
        fx_bind_node(b.number, out);
    else
        snprintf(out->text, sizeof out->text, "not bound: %.60s", b.why);
    out->cores = fx_cores_allowed();
}

/* ---- links between the devices of a node ---- */

typedef struct links {
    int32_t worst, best;
} links;

/* As the first rank of a node sees them; a device that it does not see is reached through host memory, as far as it can tell. */
static links links_of(const fx_scene *s, int first)
{
    links l = {FX_LINK_NVLINK, FX_LINK_SELF};
    for (int a = 0; a < s->ranks; a++)
        for (int b = 0; b < s->ranks; b++) {
            const fx_device_facts *x = &s->of[a].card, *y = &s->of[b].card;
            if (a == b || strcmp(s->of[a].host, s->of[first].host) ||
                strcmp(s->of[b].host, s->of[first].host))
                continue;
            const int32_t kind = (int32_t)fx_device_link(x, y);
            if (kind < l.worst) l.worst = kind;
            if (kind > l.best) l.best = kind;
        }
    return l;
}

static fx_status find_links(fx_run *s, fx_place *p)
{
    const fx_surround *me = &p->of[s->rank];
    int64_t worst = FX_LINK_NVLINK, best = FX_LINK_SELF;
    if (me->local_rank == 0 && me->local_ranks > 1) {
        const links l = links_of(&p->scene, s->rank);
        worst = l.worst;
        best = l.best;
    }
    FX_TRY(fx_comm_all_reduce_i64(s->comm, FX_MIN, &worst, 1));
    FX_TRY(fx_comm_all_reduce_i64(s->comm, FX_MAX, &best, 1));
    p->worst = (fx_device_link_kind)worst;
    p->best = (fx_device_link_kind)best;
    return FX_OK;
}

/* ---- all ---- */

fx_status fx_place_open(fx_run *s, bool devices, const char *bind, int threads, fx_place *p)
{
    const fx_roots roots = fx_roots_default();
    const size_t n = (size_t)s->ranks;
    fx_surround mine;
    fx_bound bound;
    *p = (fx_place){.worst = FX_LINK_SELF, .best = FX_LINK_SELF};
    p->of = calloc(n, sizeof *p->of);
    p->bound = calloc(n, sizeof *p->bound);
    fx_status st = p->of && p->bound ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory to compare the ranks");
    FX_TRY(fx_run_vote(s, st));
    if (!p->of || !p->bound) return FX_ENOMEM; /* the vote has failed then */
    fx_surround_look(&roots, devices ? s->share.local_rank : -1, &mine);
    mine.rank = s->rank;
    FX_TRY(gather(s, &mine, p->of, sizeof mine));
    count_neighbours(p->of, s->ranks);
    p->scene = (fx_scene){.ranks = s->ranks,
                          .devices = devices,
                          .threads = threads,
                          .node_bytes = 0,
                          .rank_bytes = 0,
                          .device_bytes = 0,
                          .of = p->of};
    bind_rank(&p->scene, s->rank, bind, &bound);
    FX_TRY(gather(s, &bound, p->bound, sizeof bound));
    return devices && s->ranks > 1 ? find_links(s, p) : FX_OK;
}

void fx_place_close(fx_place *p)
{
    free(p->of);
    free(p->bound);
    p->of = NULL;
    p->bound = NULL;
}

static void devices_text(const fx_place *p, int first, char *out, size_t size)
{
    const fx_surround *me = &p->of[first];
    static const char *const link[] = {"none, one device", "through host memory", "peer access", "NVLink"};
    out[0] = 0;
    if (!p->scene.devices) {
        snprintf(out, size, "computed on the CPU%s", me->local_ranks > 1 ? "; link shared memory" : "");
        return;
    }
    const int n =
        snprintf(out, size, "%d x %.40s", me->local_ranks, me->card.name[0] ? me->card.name : "no device");
    if (me->local_ranks < 2 || n < 0 || (size_t)n >= size) return;
    snprintf(out + n, size - (size_t)n, "; link %s%s", link[p->worst],
             p->worst == p->best ? "" : " at the slowest");
}

void fx_place_line(const fx_place *p, int first, char *out, size_t size)
{
    const fx_surround *me = &p->of[first];
    char ranks[128], devices[128];
    const fx_bound *b = &p->bound[first];
    fx_ranks_of_node(&p->scene, first, ranks, sizeof ranks);
    devices_text(p, first, devices, sizeof devices);
    snprintf(out, size, "%s: rank%s %s; %s; %d of %d core%s allowed, rank %d %s%s", me->host,
             me->local_ranks > 1 ? "s" : "", ranks, devices, me->allowed, me->online,
             me->online == 1 ? "" : "s", first, b->text, b->memory ? ", memory too" : "");
}

fx_status fx_place_run(fx_run *s, const fx_options *o)
{
    fx_place p;
    char line[512];
    const bool devices = !strcmp(o->backend, "cuda");
    fx_status st = fx_place_open(s, devices, o->bind, (int)o->threads, &p);
    if (st == FX_OK) fx_judge_scene(&p.scene, &p.found);
    for (int r = 0; st == FX_OK && r < s->ranks; r++) {
        if (fx_first_of_node(&p.scene, r) != r) continue;
        fx_place_line(&p, r, line, sizeof line);
        fx_talk("node     %s", line);
    }
    for (int i = 0; st == FX_OK && i < p.found.n; i++) {
        const fx_finding *f = &p.found.list[i];
        if (f->level != FX_FOUND_FAILURE && s->rank == 0)
            fx_log(f->level == FX_FOUND_WARNING ? FX_LOG_WARN : FX_LOG_DETAIL, "%s; %s; %s", f->what, f->why,
                   f->fix);
    }
    if (st == FX_OK) st = fx_run_vote(s, s->rank == 0 ? fx_findings_status(&p.found) : FX_OK);
    fx_place_close(&p);
    return st;
}
