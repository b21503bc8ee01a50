/* cuDNN's graph interface: tensors, plans by shape, execution. The heuristics' first choice that finalises is taken;
 * their fallback list only when they have none. */
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

enum { CHOICES = 16 };

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

/* The first plan of one list of the heuristics that can be finalised; none: *plan stays NULL. */
static fx_status try_mode(fx_cuda *c, cudnnBackendDescriptor_t graph, cudnnBackendHeurMode_t mode,
                          cudnnBackendDescriptor_t *plan)
{
    cudnnBackendDescriptor_t heuristics, config[CHOICES];
    int64_t n = 0;
    *plan = NULL;
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristics));
    DNN_SET(heuristics, ENGINEHEUR_OPERATION_GRAPH, BACKEND_DESCRIPTOR, 1, &graph);
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
        int64_t workspace = 0, got = 0;
        cudnnBackendDescriptor_t p;
        FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &p));
        DNN_SET(p, EXECUTION_PLAN_HANDLE, HANDLE, 1, &c->dnn);
        DNN_SET(p, EXECUTION_PLAN_ENGINE_CONFIG, BACKEND_DESCRIPTOR, 1, &config[i]);
        if (cudnnBackendFinalize(p) == CUDNN_STATUS_SUCCESS &&
            cudnnBackendGetAttribute(p, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &got,
                                     &workspace) == CUDNN_STATUS_SUCCESS &&
            workspace <= (int64_t)c->workspace_bytes)
            *plan = p;
        else
            cudnnBackendDestroyDescriptor(p);
    }
    for (int i = 0; i < CHOICES; i++) cudnnBackendDestroyDescriptor(config[i]);
    cudnnBackendDestroyDescriptor(heuristics);
    return FX_OK;
}

fx_status fx_dnn_make(fx_cuda *c, const void *key, size_t key_bytes, int ops, cudnnBackendDescriptor_t op[],
                      fx_dnn_plan **out)
{
    cudnnBackendDescriptor_t graph, plan = NULL;
    fx_dnn_plan *p = calloc(1, sizeof *p);
    FX_CHECK(p && key_bytes <= sizeof p->key, FX_ENOMEM, "no memory for a plan of cuDNN");
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, &graph));
    DNN_SET(graph, OPERATIONGRAPH_OPS, BACKEND_DESCRIPTOR, ops, op);
    DNN_SET(graph, OPERATIONGRAPH_HANDLE, HANDLE, 1, &c->dnn);
    FX_DNN(cudnnBackendFinalize(graph));
    FX_TRY(try_mode(c, graph, CUDNN_HEUR_MODE_A, &plan));
    if (!plan) FX_TRY(try_mode(c, graph, CUDNN_HEUR_MODE_FALLBACK, &plan));
    cudnnBackendDestroyDescriptor(graph);
    for (int i = 0; i < ops; i++) cudnnBackendDestroyDescriptor(op[i]);
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
