/* oneDNN primitives of one shape: one per activation, sharing memory objects; addresses are set per run. */
#include "kernels/onednn/compat_api.h"

#include <stdlib.h>
#include <string.h>

enum { ACTS = FX_ACT_SILU + 1, ALIGN = 64 };

typedef struct variant {
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t primitive;
    dnnl_memory_t scratch;
} variant;

struct fx_dnnl_op {
    fx_dnnl *d;
    variant act[ACTS];
    dnnl_memory_t x, w, b, y;
    dnnl_primitive_t reorder; /* where no fast kernel of this shape takes the packed form */
    dnnl_memory_t packed;
    size_t reorder_bytes, scratch_bytes;
};

/* ---- making ---- */

static bool is_plain_loops(dnnl_primitive_desc_t pd)
{
    const char *name = NULL;
    dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&name);
    return name && strncmp(name, "ref", 3) == 0;
}

/* The packed form if a fast kernel takes it, else the form that one wants. */
static fx_status describe_fast(fx_dnnl *d, const fx_dnnl_shape *s, fx_md_view packed,
                               dnnl_primitive_desc_t *out)
{
    dnnl_primitive_desc_t own = NULL;
    const fx_status st = fx_dnnl_describe(d, s, FX_ACT_NONE, packed, out);
    if (!st && !is_plain_loops(*out)) return FX_OK;
    const fx_status again = fx_dnnl_describe(d, s, FX_ACT_NONE, NULL, &own);
    if (st) {
        *out = own;
        return again;
    }
    if (again) return FX_OK;
    const bool better = !is_plain_loops(own);
    dnnl_primitive_desc_destroy(better ? *out : own);
    if (better) *out = own;
    return FX_OK;
}

static fx_status make_reorder(fx_dnnl_op *op, fx_md_view packed, fx_md_view wanted)
{
    const dnnl_engine_t engine = op->d->engine;
    dnnl_primitive_desc_t pd;
    if (dnnl_memory_desc_equal(packed, wanted)) return FX_OK;
    op->reorder_bytes = (dnnl_memory_desc_get_size(wanted) + ALIGN - 1) / ALIGN * ALIGN;
    DNNL_TRY(dnnl_memory_create(&op->packed, packed, engine, DNNL_MEMORY_NONE));
    DNNL_TRY(dnnl_reorder_primitive_desc_create(&pd, packed, engine, wanted, engine, NULL));
    const dnnl_status_t status = dnnl_primitive_create(&op->reorder, pd);
    dnnl_primitive_desc_destroy(pd);
    DNNL_TRY(status);
    return FX_OK;
}

static fx_status make_memory(fx_dnnl_op *op, bool bias)
{
    const dnnl_engine_t engine = op->d->engine;
    const dnnl_primitive_desc_t pd = op->act[0].pd;
    fx_md_view x = fx_dnnl_md(pd, dnnl_query_src_md, 0), w = fx_dnnl_md(pd, dnnl_query_weights_md, 0),
               b = fx_dnnl_md(pd, dnnl_query_weights_md, 1), y = fx_dnnl_md(pd, dnnl_query_dst_md, 0);
    DNNL_TRY(dnnl_memory_create(&op->x, x, engine, DNNL_MEMORY_NONE));
    DNNL_TRY(dnnl_memory_create(&op->w, w, engine, DNNL_MEMORY_NONE));
    if (bias) DNNL_TRY(dnnl_memory_create(&op->b, b, engine, DNNL_MEMORY_NONE));
    DNNL_TRY(dnnl_memory_create(&op->y, y, engine, DNNL_MEMORY_NONE));
    return FX_OK;
}

static fx_status measure_scratch(fx_dnnl_op *op, variant *v, size_t *most)
{
    fx_md_view md = fx_dnnl_md(v->pd, dnnl_query_scratchpad_md, 0);
    const size_t bytes = dnnl_memory_desc_get_size(md);
    DNNL_TRY(dnnl_memory_create(&v->scratch, md, op->d->engine, DNNL_MEMORY_NONE));
    if (bytes > *most) *most = bytes;
    return FX_OK;
}

static fx_status make(fx_dnnl_op *op, const fx_dnnl_shape *s)
{
    const fx_weight w = {.n = s->n,
                         .k = s->k,
                         .kh = s->kind == FX_WEIGHT_CONV ? s->kh : 1,
                         .kw = s->kind == FX_WEIGHT_CONV ? s->kw : 1,
                         .kind = s->kind,
                         .dtype = s->dtype};
    const int acts = s->kind == FX_WEIGHT_CONV ? 1 : ACTS;
    size_t most = 0;
    fx_md form;
    FX_TRY(fx_dnnl_form_of(op->d, &w, &form));
    FX_TRY(describe_fast(op->d, s, md_view(&form), &op->act[0].pd));
    fx_md_view wanted = fx_dnnl_md(op->act[0].pd, dnnl_query_weights_md, 0);
    FX_TRY(make_reorder(op, md_view(&form), wanted));
    FX_TRY(make_memory(op, s->bias != 0));
    for (int a = 0; a < acts; a++) {
        if (a) FX_TRY(fx_dnnl_describe(op->d, s, (fx_act)a, wanted, &op->act[a].pd));
        FX_TRY(measure_scratch(op, &op->act[a], &most));
    }
    op->scratch_bytes = op->reorder_bytes + most;
    return FX_OK;
}

fx_status fx_dnnl_op_new(fx_dnnl *d, const fx_dnnl_shape *s, fx_dnnl_op **out)
{
    fx_dnnl_op *op = *out = calloc(1, sizeof *op);
    FX_CHECK(op, FX_ENOMEM, "oneDNN: no memory");
    op->d = d;
    const int before = fx_dnnl_enter(d->threads);
    const fx_status st = make(op, s);
    fx_dnnl_leave(before);
    if (st) fx_dnnl_op_free(out);
    return st;
}

void fx_dnnl_op_free(fx_dnnl_op **opp)
{
    fx_dnnl_op *op = *opp;
    if (!op) return;
    const dnnl_memory_t memory[] = {op->x, op->w, op->b, op->y, op->packed};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        if (memory[i]) dnnl_memory_destroy(memory[i]);
    for (int a = 0; a < ACTS; a++) {
        if (op->act[a].scratch) dnnl_memory_destroy(op->act[a].scratch);
        if (op->act[a].primitive) dnnl_primitive_destroy(op->act[a].primitive);
        if (op->act[a].pd) dnnl_primitive_desc_destroy(op->act[a].pd);
    }
    if (op->reorder) dnnl_primitive_destroy(op->reorder);
    free(op);
    *opp = NULL;
}

size_t fx_dnnl_op_scratch(const fx_dnnl_op *op)
{
    return op->scratch_bytes;
}

/* ---- running ---- */

static fx_status run_reorder(fx_dnnl_op *op, const void *w, void *to)
{
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, op->packed}, {DNNL_ARG_TO, op->w}};
    DNNL_TRY(dnnl_memory_set_data_handle(op->packed, (void *)(uintptr_t)w));
    DNNL_TRY(dnnl_memory_set_data_handle(op->w, to));
    DNNL_TRY(dnnl_primitive_execute(op->reorder, op->d->stream, 2, args));
    return FX_OK;
}

static fx_status run(fx_dnnl_op *op, variant *v, const void *x, const void *w, const float *b, void *y,
                     void *scratch)
{
    if (!v->primitive) DNNL_TRY(dnnl_primitive_create(&v->primitive, v->pd));
    if (op->reorder)
        FX_TRY(run_reorder(op, w, scratch));
    else
        DNNL_TRY(dnnl_memory_set_data_handle(op->w, (void *)(uintptr_t)w));
    void *pad = scratch ? (char *)scratch + op->reorder_bytes : NULL;
    DNNL_TRY(dnnl_memory_set_data_handle(op->x, (void *)(uintptr_t)x));
    if (op->b) DNNL_TRY(dnnl_memory_set_data_handle(op->b, (void *)(uintptr_t)b));
    DNNL_TRY(dnnl_memory_set_data_handle(op->y, y));
    DNNL_TRY(dnnl_memory_set_data_handle(v->scratch, pad));
    const dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, op->x},  {DNNL_ARG_WEIGHTS, op->w},
        {DNNL_ARG_DST, op->y},  {DNNL_ARG_SCRATCHPAD, v->scratch},
        {DNNL_ARG_BIAS, op->b},
    };
    DNNL_TRY(dnnl_primitive_execute(v->primitive, op->d->stream, op->b ? 5 : 4, args));
    DNNL_TRY(dnnl_stream_wait(op->d->stream));
    return FX_OK;
}

fx_status fx_dnnl_op_run(fx_dnnl_op *op, fx_act act, const void *x, const void *w, const float *b, void *y,
                         void *scratch)
{
    const int before = fx_dnnl_enter(op->d->threads);
    const fx_status st = run(op, &op->act[act], x, w, b, y, scratch);
    fx_dnnl_leave(before);
    return st;
}
