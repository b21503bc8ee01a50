/* Walks all arrangements and ranks them; see search.h. Called by launch/cmd_plan.c and choose.c. */
#include "runtime/predict/search.h"

#include <math.h>
#include <stdlib.h>

const char *fx_plan_by_text(const fx_plan_row *r)
{
    return r->how.mesh.ranks == 1 ? "none" : fx_by_name(r->by);
}

/* ---- one arrangement ---- */

/* Groups lie side by side; the one that reaches into the most domains is the one all wait for. */
static int worst_offset(int64_t domain, int ranks, int groups)
{
    for (int g = 0; g < groups; g++) {
        const int64_t offset = (int64_t)g * ranks % domain;
        if (offset + ranks > domain && ranks <= domain) return (int)offset;
    }
    return 0;
}

static fx_binds most_of(const double us[FX_BINDS])
{
    int most = 0;
    for (int i = 1; i < FX_BINDS; i++)
        if (us[i] > us[most]) most = i;
    return (fx_binds)most;
}

static void finish_row(const fx_graph *g, const fx_plan_query *q, fx_plan_row *r)
{
    const fx_machine *m = q->machine;
    const double pixels = (double)q->request.width * q->request.height, steps = q->request.steps;
    r->step_ms = r->p.step_us * 1e-3;
    r->tail_s = m->png_ms_per_mpixel * 1e-3 * pixels * 1e-6;
    r->image_s = steps * r->step_ms * 1e-3 + (r->p.text_us + r->p.vae_us) * 1e-6 + r->tail_s;
    r->images_per_s = r->groups / r->image_s;
    r->limit_ms = r->p.limit_us * 1e-3;
    r->limit_image_s = steps * r->limit_ms * 1e-3;
    r->memory_bytes =
        r->p.arena_bytes + (size_t)((double)fx_graph_facts(g)->weight_bytes * fx_cost_weight_share(r->dtype));
    r->binds = most_of(r->p.binds_us);
}

/* A node's memory holds the weights once and an arena per rank. */
static bool fits(const fx_graph *g, const fx_plan_query *q, const fx_plan_row *r)
{
    const double room = q->machine->memory_gib * 0x1p30;
    if (!q->machine->cpu) return (double)r->memory_bytes <= room;
    return (double)fx_graph_facts(g)->weight_bytes + (double)r->p.arena_bytes * q->devices <= room;
}

static fx_status add_row(fx_plans *all, const fx_plan_row *r)
{
    if (all->n == all->room) {
        const int room = all->room ? 2 * all->room : 64;
        fx_plan_row *grown = realloc(all->row, (size_t)room * sizeof *grown);
        FX_CHECK(grown, FX_ENOMEM, "no memory for %d plans", room);
        all->row = grown;
        all->room = room;
    }
    all->row[all->n++] = *r;
    return FX_OK;
}

static bool wished(const fx_plan_query *q, const fx_plan_row *r)
{
    return (q->images_per_s <= 0 || r->images_per_s >= q->images_per_s) &&
           (q->latency_s <= 0 || r->image_s <= q->latency_s);
}

/* All precisions and transports that share one graph. */
static fx_status try_work(const fx_graph *g, const fx_plan_query *q, fx_plan_row *r, unsigned bys,
                          fx_plans *all)
{
    fx_work w = {0};
    fx_status st;
    const int ranks = r->how.mesh.ranks;
    FX_TRY_OUT(fx_work_open(g, &q->request, &r->how, &w));
    r->layout = w.layout;
    for (int by = 0; by < FX_BYS; by++)
        for (int d = 0; d < FX_RATE_DTYPES; d++) {
            if (!(bys & 1u << by) || !(q->dtypes & 1u << d)) continue;
            const fx_cost_model c = fx_cost_of(q->machine, (fx_rate_dtype)d, ranks * r->groups);
            r->by = (fx_by)by;
            r->dtype = (fx_rate_dtype)d;
            FX_TRY_OUT(fx_simulate(&w, &c, r->by, NULL, &r->p));
            finish_row(g, q, r);
            all->tried++;
            if (r->limit_ms < all->limit_ms)
                all->limit_ms = r->limit_ms, all->limit_image_s = r->limit_image_s;
            if (!fits(g, q, r))
                all->too_large++;
            else if (wished(q, r))
                FX_TRY_OUT(add_row(all, r));
        }
    st = FX_OK;
out:
    fx_work_close(&w);
    return st;
}

/* Bits of the transports that are possible, by_kernels or not. */
static unsigned possible(const fx_plan_query *q, const fx_plan_row *r, bool by_kernels)
{
    const fx_machine *m = q->machine;
    const int ranks = r->how.mesh.ranks;
    const bool near = r->how.offset + ranks <= m->domain_ranks;
    unsigned bys = 0;
    if (ranks == 1) return by_kernels ? 0 : 1u << FX_BY_PEER; /* any: nothing travels */
    for (int by = 0; by < FX_BYS; by++) {
        const bool reach = near || (m->network_gbps > 0 && by != FX_BY_LSA && by != FX_BY_PEER);
        if (m->by[by].given && reach && by_kernels == (by == FX_BY_LSA) && (q->by < 0 || q->by == by))
            bys |= 1u << by;
    }
    return bys;
}

static fx_status try_mesh(const fx_graph *g, const fx_plan_query *q, fx_plan_row *r, fx_plans *all)
{
    static const fx_layout_kind kinds[2] = {FX_LAYOUT_EVEN, FX_LAYOUT_STREAM};
    for (int k = 0; k < 2; k++)
        for (int kernels = 0; kernels < 2; kernels++) {
            r->how.layout = kinds[k];
            r->how.by_kernels = kernels != 0;
            if ((q->layout != FX_LAYOUT_AUTO && q->layout != kinds[k]) || (k && r->how.mesh.ranks == 1))
                continue;
            if (kernels && r->how.exact == FX_EXACT_OFF && r->how.mesh.ring > 1)
                continue; /* hops go by transfers */
            const unsigned bys = possible(q, r, kernels != 0);
            if (bys) FX_TRY(try_work(g, q, r, bys, all));
        }
    return FX_OK;
}

static fx_status try_groups(const fx_graph *g, const fx_plan_query *q, int groups, fx_plans *all)
{
    const int ranks = q->devices / groups, heads = fx_graph_facts(g)->heads;
    for (int u = 1; u <= ranks; u++) {
        if (ranks % u || heads % u || (q->ulysses && q->ulysses != u) || (q->ring && q->ring != ranks / u))
            continue;
        fx_plan_row r = {.groups = groups};
        r.how = (fx_arrangement){.mesh = {ranks, u, ranks / u},
                                 .exact = q->exact,
                                 .domain = (int)q->machine->domain_ranks,
                                 .offset = worst_offset(q->machine->domain_ranks, ranks, groups)};
        FX_TRY(try_mesh(g, q, &r, all));
    }
    return FX_OK;
}

/* ---- order ---- */

/* Shortest time of a picture first; equal times (of fewer devices beside each other) by throughput. */
static int by_time(const void *a, const void *b)
{
    const fx_plan_row *x = a, *y = b;
    if (x->image_s != y->image_s) return x->image_s < y->image_s ? -1 : 1;
    return x->images_per_s > y->images_per_s ? -1 : x->images_per_s < y->images_per_s;
}

static int by_throughput(const void *a, const void *b)
{
    const fx_plan_row *x = a, *y = b;
    if (x->images_per_s != y->images_per_s) return x->images_per_s > y->images_per_s ? -1 : 1;
    return by_time(a, b);
}

fx_status fx_plans_open(const fx_graph *g, const fx_plan_query *q, fx_plans *out)
{
    *out = (fx_plans){.limit_ms = INFINITY, .limit_image_s = INFINITY};
    for (int groups = 1; groups <= q->devices; groups++) {
        if (q->devices % groups || (q->groups && q->groups != groups)) continue;
        const fx_status st = try_groups(g, q, groups, out);
        if (st) fx_plans_close(out);
        FX_TRY(st);
    }
    if (out->n) qsort(out->row, (size_t)out->n, sizeof *out->row, q->latency_s > 0 ? by_throughput : by_time);
    return FX_OK;
}

void fx_plans_close(fx_plans *p)
{
    free(p->row);
    *p = (fx_plans){0};
}

fx_status fx_plan_show(const fx_graph *g, const fx_plan_query *q, const fx_plan_row *r, fx_work *w,
                       const fx_span_sink *sink, fx_prediction *p)
{
    const fx_cost_model c = fx_cost_of(q->machine, r->dtype, r->how.mesh.ranks * r->groups);
    FX_TRY(fx_work_open(g, &q->request, &r->how, w));
    return fx_simulate(w, &c, r->by, sink, p);
}
