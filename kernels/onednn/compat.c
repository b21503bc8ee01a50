/* oneDNN 2.x and 3.x behind one matrix product: 3.x has opaque memory descriptors and no operation
 * descriptors. */
#include "kernels/cpu/dnnl_compat.h"

#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>

enum { NOMINAL_ROWS = 512 }; /* the M for which the library chooses its form of the weights */

struct fx_dnnl {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
};

struct fx_dnnl_matmul {
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_memory_t x, w, b, y, scratch;
    size_t scratch_bytes;
};

#define DNNL_TRY(call)                                                                                       \
    do {                                                                                                     \
        const dnnl_status_t dnnl_status_ = (call);                                                           \
        if (dnnl_status_ != dnnl_success)                                                                    \
            return FX_FAIL(FX_EDEVICE, "oneDNN: %s: status %d", #call, (int)dnnl_status_);                   \
    } while (0)

/* ---- the differences ---- */

#if DNNL_VERSION_MAJOR < 3
typedef dnnl_memory_desc_t fx_md;             /* a value */
typedef const dnnl_memory_desc_t *fx_md_view; /* as queries return it */

static dnnl_status_t md_strided(fx_md *md, const dnnl_dims_t dims, dnnl_data_type_t type,
                                const dnnl_dims_t strides, int n)
{
    return dnnl_memory_desc_init_by_strides(md, n, dims, type, strides);
}

static dnnl_status_t md_any(fx_md *md, const dnnl_dims_t dims, dnnl_data_type_t type)
{
    return dnnl_memory_desc_init_by_tag(md, 2, dims, type, dnnl_format_tag_any);
}

static fx_md_view md_view(const fx_md *md)
{
    return md;
}
static dnnl_status_t md_clone(fx_md *md, fx_md_view from)
{
    *md = *from;
    return dnnl_success;
}
static void md_free(fx_md *md)
{
    (void)md;
}

static dnnl_status_t matmul_desc(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, fx_md_view x, fx_md_view w,
                                 fx_md_view b, fx_md_view y, dnnl_primitive_attr_t attr)
{
    dnnl_matmul_desc_t op;
    const dnnl_status_t status = dnnl_matmul_desc_init(&op, x, w, b, y);
    return status != dnnl_success ? status : dnnl_primitive_desc_create(pd, &op, attr, engine, NULL);
}
#else
typedef dnnl_memory_desc_t fx_md;
typedef const_dnnl_memory_desc_t fx_md_view;

static dnnl_status_t md_strided(fx_md *md, const dnnl_dims_t dims, dnnl_data_type_t type,
                                const dnnl_dims_t strides, int n)
{
    return dnnl_memory_desc_create_with_strides(md, n, dims, type, strides);
}

static dnnl_status_t md_any(fx_md *md, const dnnl_dims_t dims, dnnl_data_type_t type)
{
    return dnnl_memory_desc_create_with_tag(md, 2, dims, type, dnnl_format_tag_any);
}

static fx_md_view md_view(const fx_md *md)
{
    return *md;
}
static dnnl_status_t md_clone(fx_md *md, fx_md_view from)
{
    return dnnl_memory_desc_clone(md, from);
}
static void md_free(fx_md *md)
{
    if (*md) dnnl_memory_desc_destroy(*md);
    *md = NULL;
}

static dnnl_status_t matmul_desc(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, fx_md_view x, fx_md_view w,
                                 fx_md_view b, fx_md_view y, dnnl_primitive_attr_t attr)
{
    return dnnl_matmul_primitive_desc_create(pd, engine, x, w, b, y, attr);
}
#endif

/* ---- engine ---- */

fx_status fx_dnnl_open(fx_dnnl **out)
{
    fx_dnnl *d = *out = calloc(1, sizeof *d);
    FX_CHECK(d, FX_ENOMEM, "oneDNN: no memory");
    DNNL_TRY(dnnl_engine_create(&d->engine, dnnl_cpu, 0));
    DNNL_TRY(dnnl_stream_create(&d->stream, d->engine, dnnl_stream_default_flags));
    return FX_OK;
}

void fx_dnnl_close(fx_dnnl **d)
{
    if (!*d) return;
    if ((*d)->stream) dnnl_stream_destroy((*d)->stream);
    if ((*d)->engine) dnnl_engine_destroy((*d)->engine);
    free(*d);
    *d = NULL;
}

const char *fx_dnnl_version_text(void)
{
    static _Thread_local char text[32];
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, sizeof text, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
    return text;
}

bool fx_dnnl_uses_openmp(void)
{
    return dnnl_version()->cpu_runtime == DNNL_RUNTIME_OMP;
}

/* ---- matrix product ---- */

static dnnl_data_type_t type_of(fx_dtype dtype)
{
    return dtype == FX_BF16 ? dnnl_bf16 : dnnl_f32;
}

/* weights NULL: the library chooses. Destroy *pd with dnnl_primitive_desc_destroy. */
static fx_status describe_with(fx_dnnl *d, const fx_dnnl_shape *s, fx_md md[4], fx_md_view weights,
                               dnnl_primitive_attr_t attr, dnnl_primitive_desc_t *pd)
{
    const dnnl_dims_t x = {s->m, s->k}, w = {s->k, s->n}, b = {1, s->n}, y = {s->m, s->n};
    const dnnl_dims_t x_stride = {s->x_stride, 1}, b_stride = {s->n, 1}, y_stride = {s->y_stride, 1};
    DNNL_TRY(md_strided(&md[0], x, type_of(s->dtype), x_stride, 2));
    DNNL_TRY(weights ? md_clone(&md[1], weights) : md_any(&md[1], w, type_of(s->dtype)));
    DNNL_TRY(md_strided(&md[2], b, dnnl_f32, b_stride, 2));
    DNNL_TRY(md_strided(&md[3], y, type_of(s->out), y_stride, 2));
    DNNL_TRY(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
    DNNL_TRY(matmul_desc(pd, d->engine, md_view(&md[0]), md_view(&md[1]), s->bias ? md_view(&md[2]) : NULL,
                         md_view(&md[3]), attr));
    return FX_OK;
}

static fx_status describe(fx_dnnl *d, const fx_dnnl_shape *s, fx_md_view weights, dnnl_primitive_desc_t *pd)
{
    fx_md md[4] = {0};
    dnnl_primitive_attr_t attr;
    DNNL_TRY(dnnl_primitive_attr_create(&attr));
    const fx_status st = describe_with(d, s, md, weights, attr, pd);
    for (int i = 0; i < 4; i++) md_free(&md[i]);
    dnnl_primitive_attr_destroy(attr);
    return st;
}

/* The form of the weights, as a descriptor that md_free frees. */
static fx_status weight_form(fx_dnnl *d, int64_t n, int64_t k, fx_dtype dtype, fx_md *out)
{
    const fx_dnnl_shape nominal = {NOMINAL_ROWS, n, k, k, n, dtype, FX_F32, true};
    dnnl_primitive_desc_t pd;
    FX_TRY(describe(d, &nominal, NULL, &pd));
    const dnnl_status_t status = md_clone(out, dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0));
    dnnl_primitive_desc_destroy(pd);
    DNNL_TRY(status);
    return FX_OK;
}

fx_status fx_dnnl_weight_bytes(fx_dnnl *d, int64_t n, int64_t k, fx_dtype dtype, size_t *bytes)
{
    fx_md form;
    FX_TRY(weight_form(d, n, k, dtype, &form));
    *bytes = dnnl_memory_desc_get_size(md_view(&form));
    md_free(&form);
    return FX_OK;
}

static fx_status reorder(fx_dnnl *d, fx_md_view from, fx_md_view to, const void *src, void *dst)
{
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t primitive;
    dnnl_memory_t memory[2];
    DNNL_TRY(dnnl_reorder_primitive_desc_create(&pd, from, d->engine, to, d->engine, NULL));
    DNNL_TRY(dnnl_primitive_create(&primitive, pd));
    DNNL_TRY(dnnl_memory_create(&memory[0], from, d->engine, (void *)(uintptr_t)src));
    DNNL_TRY(dnnl_memory_create(&memory[1], to, d->engine, dst));
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, memory[0]}, {DNNL_ARG_TO, memory[1]}};
    DNNL_TRY(dnnl_primitive_execute(primitive, d->stream, 2, args));
    DNNL_TRY(dnnl_stream_wait(d->stream));
    dnnl_memory_destroy(memory[0]);
    dnnl_memory_destroy(memory[1]);
    dnnl_primitive_destroy(primitive);
    dnnl_primitive_desc_destroy(pd);
    return FX_OK;
}

fx_status fx_dnnl_weight_pack(fx_dnnl *d, int64_t n, int64_t k, fx_dtype dtype, const void *src, void *dst)
{
    fx_md form, plain;
    const dnnl_dims_t dims = {k, n}, strides = {1, k};
    FX_TRY(weight_form(d, n, k, dtype, &form));
    DNNL_TRY(md_strided(&plain, dims, type_of(dtype), strides, 2));
    const fx_status st = reorder(d, md_view(&plain), md_view(&form), src, dst);
    md_free(&form);
    md_free(&plain);
    return st;
}

static fx_status make_memory(fx_dnnl *d, fx_dnnl_matmul *m, dnnl_primitive_desc_t pd, bool bias)
{
    fx_md_view scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    m->scratch_bytes = dnnl_memory_desc_get_size(scratch);
    DNNL_TRY(dnnl_primitive_create(&m->primitive, pd));
    DNNL_TRY(
        dnnl_memory_create(&m->x, dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0), d->engine, NULL));
    DNNL_TRY(dnnl_memory_create(&m->w, dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0), d->engine,
                                NULL));
    if (bias)
        DNNL_TRY(dnnl_memory_create(&m->b, dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 1),
                                    d->engine, NULL));
    DNNL_TRY(
        dnnl_memory_create(&m->y, dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0), d->engine, NULL));
    DNNL_TRY(dnnl_memory_create(&m->scratch, scratch, d->engine, NULL));
    return FX_OK;
}

fx_status fx_dnnl_matmul_new(fx_dnnl *d, const fx_dnnl_shape *s, fx_dnnl_matmul **out)
{
    fx_md form;
    dnnl_primitive_desc_t pd;
    FX_TRY(weight_form(d, s->n, s->k, s->dtype, &form));
    fx_status st = describe(d, s, md_view(&form), &pd);
    md_free(&form);
    FX_TRY(st);
    fx_dnnl_matmul *m = *out = calloc(1, sizeof *m);
    st = m ? FX_OK : FX_FAIL(FX_ENOMEM, "oneDNN: no memory");
    if (!st) {
        m->stream = d->stream;
        st = make_memory(d, m, pd, s->bias);
    }
    dnnl_primitive_desc_destroy(pd);
    if (st) fx_dnnl_matmul_free(out);
    return st;
}

void fx_dnnl_matmul_free(fx_dnnl_matmul **m)
{
    if (!*m) return;
    const dnnl_memory_t memory[] = {(*m)->x, (*m)->w, (*m)->b, (*m)->y, (*m)->scratch};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
        if (memory[i]) dnnl_memory_destroy(memory[i]);
    if ((*m)->primitive) dnnl_primitive_destroy((*m)->primitive);
    free(*m);
    *m = NULL;
}

size_t fx_dnnl_matmul_scratch(const fx_dnnl_matmul *m)
{
    return m->scratch_bytes;
}

fx_status fx_dnnl_matmul_run(fx_dnnl_matmul *m, const void *x, const void *w, const float *b, void *y,
                             void *scratch)
{
    DNNL_TRY(dnnl_memory_set_data_handle(m->x, (void *)(uintptr_t)x));
    DNNL_TRY(dnnl_memory_set_data_handle(m->w, (void *)(uintptr_t)w));
    if (m->b) DNNL_TRY(dnnl_memory_set_data_handle(m->b, (void *)(uintptr_t)b));
    DNNL_TRY(dnnl_memory_set_data_handle(m->y, y));
    DNNL_TRY(dnnl_memory_set_data_handle(m->scratch, scratch));
    const dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, m->x},  {DNNL_ARG_WEIGHTS, m->w},
        {DNNL_ARG_DST, m->y},  {DNNL_ARG_SCRATCHPAD, m->scratch},
        {DNNL_ARG_BIAS, m->b},
    };
    DNNL_TRY(dnnl_primitive_execute(m->primitive, m->stream, m->b ? 5 : 4, args));
    DNNL_TRY(dnnl_stream_wait(m->stream));
    return FX_OK;
}
