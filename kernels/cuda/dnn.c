/* cuDNN's graph interface: tensors, plans by shape, execution. What runs is the first choice of the heuristics, at a size
 * that does not depend on the ranks, that the real size can be planned with; the fallback list only when there is none. A
 * plan made once is read back by later runs. */
#include "kernels/cuda/internal.h"
#include "runtime/core/cache.h"

#include <stdlib.h>
#include <string.h>

struct fx_dnn_plan {
    fx_dnn_plan *next;
    cudnnBackendDescriptor_t plan;
    fx_dnn_name name;
    size_t workspace; /* bytes */
    size_t key_bytes;
    unsigned char key[256];
};

enum { CHOICES = 16, KNOBS = 32 };

#define DNN_SET(d, attribute, type, n, value)                                                                \
    FX_DNN(cudnnBackendSetAttribute(d, CUDNN_ATTR_##attribute, CUDNN_TYPE_##type, n, value))

fx_status fx_dnn_describe(const fx_dnn_tensor *t, cudnnBackendDescriptor_t *out)
{
    const int64_t align = t->by_value ? 4 : 16;
    const bool is_virtual = t->is_virtual, by_value = t->by_value;
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_TENSOR_DESCRIPTOR, out));
    DNN_SET(*out, TENSOR_UNIQUE_ID, INT64, 1, &t->uid);
    DNN_SET(*out, TENSOR_DATA_TYPE, DATA_TYPE, 1, &t->type);
    DNN_SET(*out, TENSOR_DIMENSIONS, INT64, 4, t->dims);
    DNN_SET(*out, TENSOR_STRIDES, INT64, 4, t->strides);
    DNN_SET(*out, TENSOR_BYTE_ALIGNMENT, INT64, 1, &align);
    DNN_SET(*out, TENSOR_IS_VIRTUAL, BOOLEAN, 1, &is_virtual);
    DNN_SET(*out, TENSOR_IS_BY_VALUE, BOOLEAN, 1, &by_value);
    FX_DNN(cudnnBackendFinalize(*out));
    return FX_OK;
}

/* The device that is planned for: the handle's, or the described one. */
static fx_status set_device(const fx_cuda *c, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t handle,
                            cudnnBackendAttributeName_t described)
{
    if (c->properties)
        FX_DNN(cudnnBackendSetAttribute(d, described, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &c->properties));
    else
        FX_DNN(cudnnBackendSetAttribute(d, handle, CUDNN_TYPE_HANDLE, 1, &c->dnn));
    return FX_OK;
}

const fx_dnn_name *fx_dnn_named(const fx_dnn_plan *plan)
{
    return &plan->name;
}

/* Bytes; more than there are: the library does not say. */
static size_t workspace_of(cudnnBackendDescriptor_t plan)
{
    int64_t bytes = 0, got = 0;
    if (cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &got,
                                 &bytes) != CUDNN_STATUS_SUCCESS ||
        bytes < 0)
        return SIZE_MAX;
    return (size_t)bytes;
}

/* Files the plan in the list; NULL: no memory. */
static fx_dnn_plan *keep(fx_cuda *c, const fx_dnn_key *key, cudnnBackendDescriptor_t plan,
                         const fx_dnn_name *name)
{
    fx_dnn_plan *p = calloc(1, sizeof *p);
    if (!p || key->bytes > sizeof p->key) {
        free(p);
        cudnnBackendDestroyDescriptor(plan);
        return NULL;
    }
    *p = (fx_dnn_plan){.next = c->dnn_plans,
                       .plan = plan,
                       .name = *name,
                       .workspace = workspace_of(plan),
                       .key_bytes = key->bytes};
    memcpy(p->key, key->data, key->bytes);
    c->dnn_plans = p;
    return p;
}

/* ---- between runs: the library's own text of a plan, compiled kernels included ---- */

static const char kind[] = "cudnn";

static bool restore(const fx_cuda *c, const char *json, size_t bytes, cudnnBackendDescriptor_t *plan)
{
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, plan) != CUDNN_STATUS_SUCCESS)
        return false;
    if (set_device(c, *plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP) ==
            FX_OK &&
        cudnnBackendSetAttribute(*plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                                 (int64_t)bytes, json) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendFinalize(*plan) == CUDNN_STATUS_SUCCESS && workspace_of(*plan) <= c->workspace_bytes)
        return true;
    cudnnBackendDestroyDescriptor(*plan);
    return false;
}

static fx_dnn_plan *recall(fx_cuda *c, const fx_dnn_key *key)
{
    cudnnBackendDescriptor_t plan;
    void *json;
    size_t bytes;
    if (!fx_cuda_recall(c, kind, key->data, key->bytes, &json, &bytes)) return NULL;
    const fx_dnn_name name = fx_dnn_name_of(json, bytes); /* it may come from a run that was allowed more */
    const bool good = !(key->native && fx_dnn_refused(c, &name)) && restore(c, json, bytes, &plan);
    free(json);
    return good ? keep(c, key, plan, &name) : NULL;
}

fx_dnn_plan *fx_dnn_find(fx_cuda *c, const fx_dnn_key *key)
{
    for (fx_dnn_plan *p = c->dnn_plans; p; p = p->next)
        if (p->key_bytes == key->bytes && !memcmp(p->key, key->data, key->bytes)) return p;
    return recall(c, key);
}

/* ---- planning ---- */

static fx_status graph_of(fx_cuda *c, fx_dnn_ops *ops, cudnnBackendDescriptor_t *graph)
{
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, graph));
    DNN_SET(*graph, OPERATIONGRAPH_OPS, BACKEND_DESCRIPTOR, ops->n, ops->op);
    if (!c->properties) DNN_SET(*graph, OPERATIONGRAPH_HANDLE, HANDLE, 1, &c->dnn);
    FX_DNN(cudnnBackendFinalize(*graph));
    for (int i = 0; i < ops->n; i++) cudnnBackendDestroyDescriptor(ops->op[i]);
    return FX_OK;
}

/* A plan to be made: of which kind, for errors, and the last kernel that was refused. */
typedef struct search {
    fx_cuda *c;
    bool native;
    fx_dnn_name refused;
} search;

static bool is_wanted(search *s, cudnnBackendDescriptor_t plan)
{
    size_t bytes = 0;
    char *text = s->native ? fx_dnn_text(plan, &bytes) : NULL;
    if (!text) return true;
    const fx_dnn_name name = fx_dnn_name_of(text, bytes);
    free(text);
    if (!fx_dnn_refused(s->c, &name)) return true;
    s->refused = name;
    return false;
}

/* A finalised plan of this configuration that is wanted and that the workspace has room for, or NULL. */
static fx_status plan_of(search *s, cudnnBackendDescriptor_t config, cudnnBackendDescriptor_t *plan)
{
    const fx_cuda *c = s->c;
    cudnnBackendDescriptor_t p;
    *plan = NULL;
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &p));
    FX_TRY(set_device(c, p, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP));
    DNN_SET(p, EXECUTION_PLAN_ENGINE_CONFIG, BACKEND_DESCRIPTOR, 1, &config);
    if (cudnnBackendFinalize(p) == CUDNN_STATUS_SUCCESS && workspace_of(p) <= c->workspace_bytes &&
        is_wanted(s, p))
        *plan = p;
    else
        cudnnBackendDestroyDescriptor(p);
    return FX_OK;
}

/* ---- the heuristics' list ---- */

/* A configuration and what tells it from others. */
typedef struct choice {
    cudnnBackendDescriptor_t config;
    int64_t engine, knobs, knob[KNOBS][2]; /* type, value */
} choice;

static fx_status read_choice(cudnnBackendDescriptor_t config, choice *out)
{
    cudnnBackendDescriptor_t engine, knob[KNOBS];
    int64_t got = 0;
    memset(out, 0, sizeof *out);
    out->config = config;
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine));
    for (int i = 0; i < KNOBS; i++)
        FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knob[i]));
    FX_DNN(cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                    &got, &engine));
    FX_DNN(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &got,
                                    &out->engine));
    FX_DNN(cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                    KNOBS, &out->knobs, knob));
    for (int64_t i = 0; i < out->knobs && i < KNOBS; i++) {
        cudnnBackendKnobType_t type = 0;
        FX_DNN(cudnnBackendGetAttribute(knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1,
                                        &got, &type));
        FX_DNN(cudnnBackendGetAttribute(knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &got,
                                        &out->knob[i][1]));
        out->knob[i][0] = type;
    }
    for (int i = 0; i < KNOBS; i++) cudnnBackendDestroyDescriptor(knob[i]);
    cudnnBackendDestroyDescriptor(engine);
    return FX_OK;
}

static fx_status list_choices(const fx_cuda *c, cudnnBackendDescriptor_t graph, cudnnBackendHeurMode_t mode,
                              choice list[], int64_t *n)
{
    cudnnBackendDescriptor_t heuristics, config[CHOICES];
    *n = 0;
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristics));
    DNN_SET(heuristics, ENGINEHEUR_OPERATION_GRAPH, BACKEND_DESCRIPTOR, 1, &graph);
    DNN_SET(heuristics, ENGINEHEUR_MODE, HEUR_MODE, 1, &mode);
    if (c->properties) DNN_SET(heuristics, ENGINEHEUR_DEVICEPROP, BACKEND_DESCRIPTOR, 1, &c->properties);
    if (cudnnBackendFinalize(heuristics) == CUDNN_STATUS_SUCCESS) {
        for (int i = 0; i < CHOICES; i++)
            FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &config[i]));
        FX_DNN(cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, CHOICES, n, config));
        for (int64_t i = 0; i < CHOICES; i++) {
            if (i < *n)
                FX_TRY(read_choice(config[i], &list[i]));
            else
                cudnnBackendDestroyDescriptor(config[i]);
        }
    }
    cudnnBackendDestroyDescriptor(heuristics);
    return FX_OK;
}

/* The same engine with the same settings for another graph; *config NULL: the library refuses. */
static fx_status config_for(const fx_cuda *c, cudnnBackendDescriptor_t graph, const choice *like,
                            cudnnBackendDescriptor_t *config)
{
    cudnnBackendDescriptor_t engine, knob[KNOBS], made;
    const int64_t knobs = like->knobs < KNOBS ? like->knobs : KNOBS;
    bool ok = true;
    *config = NULL;
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine));
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &made));
    DNN_SET(engine, ENGINE_OPERATION_GRAPH, BACKEND_DESCRIPTOR, 1, &graph);
    DNN_SET(engine, ENGINE_GLOBAL_INDEX, INT64, 1, &like->engine);
    if (c->properties) DNN_SET(engine, ENGINE_DEVICEPROP, BACKEND_DESCRIPTOR, 1, &c->properties);
    for (int64_t i = 0; i < knobs; i++) {
        const cudnnBackendKnobType_t type = (cudnnBackendKnobType_t)like->knob[i][0];
        FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knob[i]));
        DNN_SET(knob[i], KNOB_CHOICE_KNOB_TYPE, KNOB_TYPE, 1, &type);
        DNN_SET(knob[i], KNOB_CHOICE_KNOB_VALUE, INT64, 1, &like->knob[i][1]);
        ok = ok && cudnnBackendFinalize(knob[i]) == CUDNN_STATUS_SUCCESS;
    }
    ok = ok && cudnnBackendFinalize(engine) == CUDNN_STATUS_SUCCESS &&
         cudnnBackendSetAttribute(made, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                  &engine) == CUDNN_STATUS_SUCCESS &&
         (!knobs ||
          cudnnBackendSetAttribute(made, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                   knobs, knob) == CUDNN_STATUS_SUCCESS) &&
         cudnnBackendFinalize(made) == CUDNN_STATUS_SUCCESS;
    for (int64_t i = 0; i < knobs; i++) cudnnBackendDestroyDescriptor(knob[i]);
    cudnnBackendDestroyDescriptor(engine);
    if (ok)
        *config = made;
    else
        cudnnBackendDestroyDescriptor(made);
    return FX_OK;
}

static fx_status plan_like(search *s, cudnnBackendDescriptor_t graph, const choice *like,
                           cudnnBackendDescriptor_t *plan)
{
    cudnnBackendDescriptor_t config;
    *plan = NULL;
    FX_TRY(config_for(s->c, graph, like, &config));
    if (!config) return FX_OK;
    FX_TRY(plan_of(s, config, plan));
    cudnnBackendDestroyDescriptor(config);
    return FX_OK;
}

/* The plan for the graph by the first of like's choices that can do it, with the same settings; none can: the graph's own first.
 * Nothing at all: *plan stays NULL. */
static fx_status try_mode(search *s, cudnnBackendDescriptor_t graph, cudnnBackendDescriptor_t like,
                          cudnnBackendHeurMode_t mode, cudnnBackendDescriptor_t *plan)
{
    static choice mine[CHOICES], theirs[CHOICES];
    int64_t n = 0, m = 0;
    *plan = NULL;
    FX_TRY(list_choices(s->c, like, mode, theirs, &m));
    for (int64_t i = 0; i < m; i++) {
        if (!*plan) FX_TRY(plan_like(s, graph, &theirs[i], plan));
        cudnnBackendDestroyDescriptor(theirs[i].config);
    }
    if (*plan) return FX_OK;
    FX_TRY(list_choices(s->c, graph, mode, mine, &n));
    for (int64_t j = 0; j < n; j++) {
        if (!*plan) FX_TRY(plan_of(s, mine[j].config, plan));
        cudnnBackendDestroyDescriptor(mine[j].config);
    }
    return FX_OK;
}

/* Files a new plan, in the list and for later runs; NULL: no memory. */
static fx_dnn_plan *file(fx_cuda *c, const fx_dnn_key *key, cudnnBackendDescriptor_t plan)
{
    size_t bytes = 0;
    char *text = fx_dnn_text(plan, &bytes);
    const fx_dnn_name name = fx_dnn_name_of(text ? text : "", bytes);
    if (text) fx_cuda_remember(c, kind, key->data, key->bytes, text, bytes);
    free(text);
    return keep(c, key, plan, &name);
}

fx_status fx_dnn_make(fx_cuda *c, const fx_dnn_key *key, const char *what, fx_dnn_ops *real, fx_dnn_ops *like,
                      fx_dnn_plan **out)
{
    search s = {.c = c, .native = key->native};
    cudnnBackendDescriptor_t graph, model, plan = NULL;
    FX_TRY(graph_of(c, real, &graph));
    FX_TRY(graph_of(c, like, &model));
    FX_TRY(try_mode(&s, graph, model, CUDNN_HEUR_MODE_A, &plan));
    if (!plan) FX_TRY(try_mode(&s, graph, model, CUDNN_HEUR_MODE_FALLBACK, &plan));
    cudnnBackendDestroyDescriptor(graph);
    cudnnBackendDestroyDescriptor(model);
    FX_CHECK(plan || !s.refused.kernel[0], FX_EDEVICE,
             "%s: cuDNN %zu offers this sm_%d device only %s, which is slow here; take another cuDNN, or set "
             "FLUXPAR_ALLOW_SM80=1",
             what, cudnnGetVersion(), c->sm, s.refused.kernel);
    FX_CHECK(plan, FX_EDEVICE, "%s: cuDNN %zu has no kernel for it", what, cudnnGetVersion());
    *out = file(c, key, plan);
    FX_CHECK(*out, FX_ENOMEM, "no memory for a plan of cuDNN");
    return FX_OK;
}

fx_status fx_dnn_run(fx_backend *be, const fx_dnn_plan *plan, int n, const int64_t uid[], void *const data[])
{
    const fx_cuda *c = fx_cuda_of(be);
    void *const workspace = fx_cuda_own_workspace(c, plan->workspace);
    cudnnBackendDescriptor_t pack;
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack));
    DNN_SET(pack, VARIANT_PACK_UNIQUE_IDS, INT64, n, uid);
    DNN_SET(pack, VARIANT_PACK_DATA_POINTERS, VOID_PTR, n, data);
    DNN_SET(pack, VARIANT_PACK_WORKSPACE, VOID_PTR, 1, &workspace);
    FX_DNN(cudnnBackendFinalize(pack));
    FX_DNN(cudnnBackendExecute(c->dnn, plan->plan, pack));
    cudnnBackendDestroyDescriptor(pack);
    return FX_OK;
}

void fx_dnn_close(fx_cuda *c)
{
    while (c->dnn_plans) {
        fx_dnn_plan *p = c->dnn_plans;
        c->dnn_plans = p->next;
        cudnnBackendDestroyDescriptor(p->plan);
        free(p);
    }
}
