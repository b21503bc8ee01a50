/* Asks the predictor before a run; see choose.h. Called by the pipeline on rank 0. */
#include "launch/choose.h"

#include <string.h>
#include <unistd.h>

#include "launch/recipe.h"
#include "runtime/core/log.h"
#include "runtime/predict/search.h"
#include "runtime/request.h"

/* The machine file of a device: shipped, by its name; of a processor the one that was measured here. */
static bool find_machine(const char *device, bool gpu, fx_machine *m)
{
    static const char *const name[][2] = {
        {"GB200", "gb200"}, {"B200", "b200"}, {"H200", "h200"}, {"H100", "h100"}, {"A100", "a100"}};
    char path[1024];
    for (size_t i = 0; gpu && i < sizeof name / sizeof name[0]; i++)
        if (strstr(device, name[i][0])) return fx_machine_open(name[i][1], m) == FX_OK;
    if (gpu || !fx_machine_this(path, sizeof path) || access(path, R_OK) != 0) return false;
    if (fx_machine_open("this", m) == FX_OK) return m->cpu;
    fx_log(FX_LOG_WARN, "%s; mesh and layout are the defaults", fx_error());
    return false;
}

/* How the runtime would let rows travel. */
static int way_of(const fx_options *o, const fx_machine *m, int ranks)
{
    if (m->cpu) return FX_BY_MPI;
    if (!strcmp(o->exchange, "auto")) return ranks <= m->domain_ranks ? FX_BY_LSA : FX_BY_NCCL;
    return !strcmp(o->exchange, "peer") ? FX_BY_PEER : !strcmp(o->exchange, "nccl") ? FX_BY_NCCL : FX_BY_LSA;
}

static bool is_default(const fx_plan_row *r, const fx_mesh *mesh, fx_layout_kind layout)
{
    return r->how.mesh.ulysses == mesh->ulysses && r->layout == layout;
}

static fx_status pick(const fx_graph *g, const fx_plan_query *q, fx_pipeline_choice *out)
{
    const fx_request *r = &q->request;
    const int side = fx_graph_facts(g)->size_multiple; /* of a token, in pixels */
    const int64_t rows[FX_SEGMENTS] = {
        [FX_TEXT] = r->t5_len, [FX_IMAGE] = (int64_t)(r->height / side) * (r->width / side)};
    const fx_layout_kind layout = fx_layout_choose(q->devices, rows, FX_LAYOUT_WEIGHT_ROWS);
    fx_mesh mesh;
    fx_plans all;
    FX_TRY(fx_mesh_make(q->devices, fx_graph_facts(g)->heads, 0, 0, &mesh));
    FX_TRY(fx_plans_open(g, q, &all));
    const fx_plan_row *best = all.n ? &all.row[0] : NULL;
    for (int i = 0; best && i < all.n; i++)
        if (is_default(&all.row[i], &mesh, layout) && all.row[i].image_s < 1.03 * best->image_s) best = NULL;
    if (best) {
        *out = (fx_pipeline_choice){best->how.mesh.ulysses, best->how.mesh.ring, best->layout};
        fx_log(FX_LOG_NOTE, "mesh %dx%d, layout %s: chosen by prediction, %.1f ms per step", out->ulysses,
               out->ring, fx_layout_name(out->layout), best->step_ms);
    }
    fx_plans_close(&all);
    return FX_OK;
}

fx_status fx_choose_layout(void *ctx, const char *device, int ranks, fx_pipeline_choice *out)
{
    static fx_machine m;
    const fx_options *o = ctx;
    const fx_pipeline_options p = fx_recipe_pipeline(o);
    fx_graph *g = NULL;
    fx_request r = fx_recipe_request(o);
    if (p.exact == FX_EXACT_OFF || !find_machine(device, !strcmp(o->backend, "cuda"), &m)) return FX_OK;
    if (!r.prompt) r.prompt = "";
    FX_TRY(fx_graph_open(o->model, &g));
    fx_status st = fx_request_complete(fx_graph_facts(g), &r);
    const fx_plan_query q = {.machine = &m,
                             .request = r,
                             .devices = ranks,
                             .groups = 1,
                             .by = way_of(o, &m, ranks),
                             .dtypes = p.dtype == FX_F32 ? 1u << FX_RATE_F32 : 1u << FX_RATE_BF16};
    if (!st) st = pick(g, &q, out);
    fx_graph_close(&g);
    return st;
}
