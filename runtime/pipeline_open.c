/* Opens and closes a pipeline and says which team makes pictures; contract in pipeline.h. The pictures are in pipeline.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/comm_nccl.h"
#include "parallel/cores.h"
#include "runtime/core/clock.h"
#include "runtime/pipeline_internal.h"
#include "runtime/request.h"
#include "runtime/teams.h"

typedef struct load_progress {
    const fx_pipeline_options *opt;
    double begin_s;
} load_progress;

static void on_load(void *ctx, size_t done, size_t total)
{
    const load_progress *l = ctx;
    if (l->opt->progress)
        l->opt->progress(l->opt->progress_ctx, FX_PHASE_LOAD, done, total, fx_now_s() - l->begin_s);
}

static void fill_facts(fx_pipeline *p)
{
    fx_model_facts *f = &p->facts;
    fx_request_facts(&p->model, f);
    f->layout = p->opt.layout;
    f->threads = p->be->threads;
    f->backend = fx_backend_describe(p->be);
}

static void fill_team_facts(fx_pipeline *p, const fx_team *team)
{
    fx_model_facts *f = &p->facts;
    f->mesh = team->mesh;
    f->exact =
        f->mesh.ranks == 1 || (p->be->rows_exact && (f->mesh.ring == 1 || p->opt.exact != FX_EXACT_OFF));
    f->exchange = fx_comm_rows_text(team->comm);
}

/* Ranks of a node take its devices in order. */
static fx_status open_backend(fx_pipeline *p)
{
    char name[32];
    const int devices = strcmp(p->opt.backend, "cuda") ? 0 : fx_device_count();
    snprintf(name, sizeof name, "cuda:%d", devices > 0 ? p->share.local_rank % devices : 0);
    return fx_backend_open(devices > 0 ? name : p->opt.backend, p->opt.dtype, p->opt.threads, &p->be);
}

static fx_status open_model(fx_pipeline *p)
{
    FX_TRY(open_backend(p));
    p->sizes.be = p->be;
    FX_CHECK(p->opt.exact != FX_EXACT_ON || p->be->rows_exact || fx_comm_size(p->comm) == 1, FX_EINVAL,
             "the %s backend does not keep rows' bits; on %d ranks the picture would not be that of one; use "
             "--backend cpu, or --exact auto",
             p->be->ops->name, fx_comm_size(p->comm));
    FX_TRY(fx_model_open(p->opt.model, p->be, &p->share, &p->model));
    fill_facts(p);
    return FX_OK;
}

/* Rank 0 chooses for all: what it knows of the machine may lie in a file that others lack. */
static fx_status choose(fx_pipeline *p)
{
    fx_pipeline_choice c = {p->opt.ulysses, p->opt.ring, p->opt.layout};
    const int ranks = fx_comm_size(p->comm);
    if (!p->opt.choose || ranks == 1 || p->opt.groups > 1 || c.ulysses || c.ring ||
        c.layout != FX_LAYOUT_AUTO)
        return FX_OK;
    const fx_status st = fx_comm_rank(p->comm) == 0
                             ? p->opt.choose(p->opt.choose_ctx, fx_backend_describe(p->be), ranks, &c)
                             : FX_OK;
    FX_TRY(fx_comm_vote(p->comm, st, NULL));
    FX_TRY(fx_comm_broadcast(p->comm, 0, &c, sizeof c));
    p->opt.ulysses = c.ulysses, p->opt.ring = c.ring;
    p->opt.layout = p->sizes.opt.layout = p->facts.layout = c.layout;
    return FX_OK;
}

static fx_status plan_teams(fx_pipeline *p)
{
    return fx_teams_plan(&p->sizes, &p->opt, (int)p->model.dit_config.heads);
}

/* Before minutes go into reading weights. With several groups the picture is made by one of them, whose plan comes later. */
static fx_status check_first(fx_pipeline *p)
{
    if (!p->opt.first) return FX_OK;
    fx_request r = *p->opt.first;
    p->opt.first = NULL; /* the caller's, for this call alone */
    FX_TRY(fx_comm_vote(p->comm, fx_request_complete(&p->facts, &r), NULL));
    if (p->sizes.teams > 1) return FX_OK;
    return fx_sizes_check(&p->sizes, (fx_size){r.width, r.height, r.steps, r.t5_len});
}

static fx_status open_records(fx_pipeline *p)
{
    p->reports = calloc((size_t)fx_comm_size(p->comm), sizeof *p->reports);
    FX_CHECK(p->reports, FX_ENOMEM, "no memory for the report");
    return fx_text_kept_open(p->opt.text_bytes, &p->kept);
}

fx_status fx_pipeline_open(const fx_pipeline_options *opt, fx_comm *comm, fx_pipeline **out)
{
    const double begin_s = fx_now_s();
    fx_status st;
    fx_pipeline *p = calloc(1, sizeof *p);
    *out = NULL;
    FX_CHECK(p, FX_ENOMEM, "no memory for a pipeline");
    p->opt = *opt;
    p->comm = comm;
    p->sizes = (fx_sizes){.model = &p->model,
                          .whole = comm,
                          .share = &p->share,
                          .opt = {.layout = opt->layout, .exact = opt->exact, .noise_dtype = opt->dtype},
                          .record = opt->record};
    load_progress progress = {&p->opt, begin_s};
    fx_comm_set_phase(comm, "load");
    FX_TRY_OUT(fx_cores_threads(comm, opt->threads, &p->opt.threads));
    FX_TRY_OUT(fx_node_share_open(comm, &p->share));
    FX_TRY_OUT(fx_comm_vote(comm, open_model(p), NULL));
    FX_TRY_OUT(choose(p));
    FX_TRY_OUT(fx_comm_vote(comm, plan_teams(p), NULL));
    FX_TRY_OUT(fx_comm_vote(comm, fx_comm_open_rows(comm, p->be, opt->exchange), NULL));
    FX_TRY_OUT(check_first(p));
    FX_TRY_OUT(fx_comm_vote(comm, fx_model_load(&p->model, comm, on_load, &progress), NULL));
    FX_TRY_OUT(fx_comm_vote(comm, open_records(p), NULL));
    FX_TRY_OUT(fx_teams_open(&p->sizes, opt->exchange));
    fill_team_facts(p, p->sizes.now);
    p->load_s = fx_now_s() - begin_s;
    *out = p;
    return FX_OK;
out:
    fx_pipeline_close(&p);
    return st;
}

fx_status fx_pipeline_select(fx_pipeline *p, int groups)
{
    fx_team *team = fx_teams_find(&p->sizes, groups);
    FX_CHECK(team, FX_EINVAL, "there are no %d groups", groups);
    fx_sizes_select(&p->sizes, team);
    p->comm = team->comm;
    fill_team_facts(p, team);
    return FX_OK;
}

fx_comm *fx_pipeline_team(const fx_pipeline *p)
{
    return p->comm;
}

const fx_model_facts *fx_pipeline_facts(const fx_pipeline *p)
{
    return &p->facts;
}

fx_status fx_pipeline_complete(const fx_pipeline *p, fx_request *r)
{
    return fx_request_complete(&p->facts, r);
}

void fx_pipeline_close(fx_pipeline **pp)
{
    fx_pipeline *p = *pp;
    if (!p) return;
    fx_sizes_close(&p->sizes);
    fx_teams_close(&p->sizes);
    free(p->rgb);
    fx_text_ids_free(&p->ids);
    fx_text_kept_close(&p->kept);
    fx_model_close(&p->model);
    fx_node_share_close(&p->share);
    fx_comm_close_rows(p->sizes.whole);
    fx_backend_close(&p->be);
    free(p->reports);
    free(p);
    *pp = NULL;
}
