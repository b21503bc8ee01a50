/* cuDNN's graph interface: tensors, plans by shape, execution. What runs is the first choice of the heuristics, at a size
 * that does not depend on the ranks, that the real size can be planned with; the fallback list only when there is none. */
#include "kernels/cuda/internal.h"

#include <stdlib.h>
#include <string.h>

struct fx_dnn_plan {
    fx_dnn_plan *next;
    cudnnBackendDescriptor_t plan;
    int64_t workspace;
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

fx_dnn_plan *fx_dnn_find(fx_cuda *c, const void *key, size_t key_bytes)
{
    for (fx_dnn_plan *p = c->dnn_plans; p; p = p->next)
        if (p->key_bytes == key_bytes && !memcmp(p->key, key, key_bytes)) return p;
    return NULL;
}

/* ---- planning ---- */

static fx_status graph_of(fx_cuda *c, fx_dnn_ops *ops, cudnnBackendDescriptor_t *graph)
{
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, graph));
    DNN_SET(*graph, OPERATIONGRAPH_OPS, BACKEND_DESCRIPTOR, ops->n, ops->op);
    DNN_SET(*graph, OPERATIONGRAPH_HANDLE, HANDLE, 1, &c->dnn);
    FX_DNN(cudnnBackendFinalize(*graph));
    for (int i = 0; i < ops->n; i++) cudnnBackendDestroyDescriptor(ops->op[i]);
    return FX_OK;
}

/* A finalised plan of this configuration that the workspace has room for, or NULL. */
static fx_status plan_of(fx_cuda *c, cudnnBackendDescriptor_t config, cudnnBackendDescriptor_t *plan)
{
    int64_t workspace = 0, got = 0;
    cudnnBackendDescriptor_t p;
    *plan = NULL;
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &p));
    DNN_SET(p, EXECUTION_PLAN_HANDLE, HANDLE, 1, &c->dnn);
    DNN_SET(p, EXECUTION_PLAN_ENGINE_CONFIG, BACKEND_DESCRIPTOR, 1, &config);
    if (cudnnBackendFinalize(p) == CUDNN_STATUS_SUCCESS &&
        cudnnBackendGetAttribute(p, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &got,
                                 &workspace) == CUDNN_STATUS_SUCCESS &&
        workspace <= (int64_t)c->workspace_bytes)
        *plan = p;
    else
        cudnnBackendDestroyDescriptor(p);
    return FX_OK;
}

/* The same engine with the same settings, for another graph of the same operations; NULL where it does not take it. */
static fx_status transfer(cudnnBackendDescriptor_t config, cudnnBackendDescriptor_t graph,
                          cudnnBackendDescriptor_t *out)
{
    cudnnBackendDescriptor_t theirs, engine, knob[KNOBS], mine = NULL;
    int64_t index = 0, got = 0, knobs = 0;
    *out = NULL;
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &theirs));
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine));
    for (int i = 0; i < KNOBS; i++)
        FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knob[i]));
    FX_DNN(cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                    &got, &theirs));
    FX_DNN(
        cudnnBackendGetAttribute(theirs, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &got, &index));
    FX_DNN(cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                    KNOBS, &knobs, knob));
    DNN_SET(engine, ENGINE_OPERATION_GRAPH, BACKEND_DESCRIPTOR, 1, &graph);
    DNN_SET(engine, ENGINE_GLOBAL_INDEX, INT64, 1, &index);
    if (cudnnBackendFinalize(engine) == CUDNN_STATUS_SUCCESS) {
        FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &mine));
        DNN_SET(mine, ENGINECFG_ENGINE, BACKEND_DESCRIPTOR, 1, &engine);
        if (knobs) DNN_SET(mine, ENGINECFG_KNOB_CHOICES, BACKEND_DESCRIPTOR, knobs, knob);
        if (cudnnBackendFinalize(mine) == CUDNN_STATUS_SUCCESS)
            *out = mine;
        else
            cudnnBackendDestroyDescriptor(mine);
    }
    for (int i = 0; i < KNOBS; i++) cudnnBackendDestroyDescriptor(knob[i]);
    cudnnBackendDestroyDescriptor(engine);
    cudnnBackendDestroyDescriptor(theirs);
    return FX_OK;
}

/* The first configuration of one list of like's heuristics that can be finalised for the graph; none: *plan stays NULL.
 */
static fx_status try_mode(fx_cuda *c, cudnnBackendDescriptor_t graph, cudnnBackendDescriptor_t like,
                          cudnnBackendHeurMode_t mode, cudnnBackendDescriptor_t *plan)
{
    cudnnBackendDescriptor_t heuristics, config[CHOICES], moved;
    int64_t n = 0;
    *plan = NULL;
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristics));
    DNN_SET(heuristics, ENGINEHEUR_OPERATION_GRAPH, BACKEND_DESCRIPTOR, 1, &like);
    DNN_SET(heuristics, ENGINEHEUR_MODE, HEUR_MODE, 1, &mode);
    if (cudnnBackendFinalize(heuristics) != CUDNN_STATUS_SUCCESS) {
        cudnnBackendDestroyDescriptor(heuristics);
        return FX_OK;
    }
    for (int i = 0; i < CHOICES; i++)
        FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &config[i]));
    FX_DNN(cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                    CHOICES, &n, config));
    for (int64_t i = 0; i < n && !*plan; i++) {
        FX_TRY(transfer(config[i], graph, &moved));
        if (!moved) continue;
        FX_TRY(plan_of(c, moved, plan));
        cudnnBackendDestroyDescriptor(moved);
    }
    for (int i = 0; i < CHOICES; i++) cudnnBackendDestroyDescriptor(config[i]);
    cudnnBackendDestroyDescriptor(heuristics);
    return FX_OK;
}

fx_status fx_dnn_make(fx_cuda *c, const void *key, size_t key_bytes, fx_dnn_ops *real, fx_dnn_ops *like,
                      fx_dnn_plan **out)
{
    cudnnBackendDescriptor_t graph, model, plan = NULL;
    fx_dnn_plan *p = calloc(1, sizeof *p);
    FX_CHECK(p && key_bytes <= sizeof p->key, FX_ENOMEM, "no memory for a plan of cuDNN");
    FX_TRY(graph_of(c, real, &graph));
    FX_TRY(graph_of(c, like, &model));
    FX_TRY(try_mode(c, graph, model, CUDNN_HEUR_MODE_A, &plan));
    if (!plan) FX_TRY(try_mode(c, graph, graph, CUDNN_HEUR_MODE_A, &plan));
    if (!plan) FX_TRY(try_mode(c, graph, graph, CUDNN_HEUR_MODE_FALLBACK, &plan));
    cudnnBackendDestroyDescriptor(graph);
    cudnnBackendDestroyDescriptor(model);
    if (!plan) {
        free(p);
        return FX_FAIL(FX_EDEVICE, "cuDNN %zu has no kernel for this shape", cudnnGetVersion());
    }
    *p = (fx_dnn_plan){.next = c->dnn_plans, .plan = plan, .key_bytes = key_bytes};
    memcpy(p->key, key, key_bytes);
    c->dnn_plans = *out = p;
    return FX_OK;
}

fx_status fx_dnn_run(fx_backend *be, const fx_dnn_plan *plan, int n, const int64_t uid[], void *const data[])
{
    fx_cuda *c = fx_cuda_of(be);
    cudnnBackendDescriptor_t pack;
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack));
    DNN_SET(pack, VARIANT_PACK_UNIQUE_IDS, INT64, n, uid);
    DNN_SET(pack, VARIANT_PACK_DATA_POINTERS, VOID_PTR, n, data);
    DNN_SET(pack, VARIANT_PACK_WORKSPACE, VOID_PTR, 1, &c->workspace);
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
