/* Inside compat*.c only: dnnl.h, and what differs between oneDNN 2.x and 3.x: 3.x has opaque memory
 * descriptors and no operation descriptors. */
#ifndef FX_KERNELS_ONEDNN_COMPAT_API_H
#define FX_KERNELS_ONEDNN_COMPAT_API_H

#include "kernels/onednn/compat.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

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
#define MD_STRIDES             dnnl_memory_desc_init_by_strides
#define MD_TAG                 dnnl_memory_desc_init_by_tag
#define MD_CLONE(md, from)     (*(md) = *(from), dnnl_success)
#define APPEND_ELTWISE(p, ...) dnnl_post_ops_append_eltwise(p, 1.0f, __VA_ARGS__)

static inline fx_md_view md_view(const fx_md *md)
{
    return md;
}
static inline void md_free(fx_md *md)
{
    (void)md;
}

static inline dnnl_status_t matmul_desc(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, fx_md md[4],
                                        bool bias, dnnl_primitive_attr_t attr)
{
    dnnl_matmul_desc_t op;
    const dnnl_status_t status = dnnl_matmul_desc_init(&op, &md[0], &md[1], bias ? &md[2] : NULL, &md[3]);
    return status != dnnl_success ? status : dnnl_primitive_desc_create(pd, &op, attr, engine, NULL);
}

static inline dnnl_status_t conv_desc(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, fx_md md[4], bool bias,
                                      const fx_dnnl_shape *s, dnnl_primitive_attr_t attr)
{
    const dnnl_dims_t stride = {s->stride, s->stride}, begin = {s->pad[0], s->pad[2]},
                      end = {s->pad[1], s->pad[3]};
    dnnl_convolution_desc_t op;
    const dnnl_status_t status =
        dnnl_convolution_forward_desc_init(&op, dnnl_forward_inference, dnnl_convolution_direct, &md[0],
                                           &md[1], bias ? &md[2] : NULL, &md[3], stride, begin, end);
    return status != dnnl_success ? status : dnnl_primitive_desc_create(pd, &op, attr, engine, NULL);
}
#else
typedef dnnl_memory_desc_t fx_md;
typedef const_dnnl_memory_desc_t fx_md_view;
#define MD_STRIDES     dnnl_memory_desc_create_with_strides
#define MD_TAG         dnnl_memory_desc_create_with_tag
#define MD_CLONE       dnnl_memory_desc_clone
#define APPEND_ELTWISE dnnl_post_ops_append_eltwise

static inline fx_md_view md_view(const fx_md *md)
{
    return *md;
}
static inline void md_free(fx_md *md)
{
    if (*md) dnnl_memory_desc_destroy(*md);
    *md = NULL;
}

static inline dnnl_status_t matmul_desc(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, fx_md md[4],
                                        bool bias, dnnl_primitive_attr_t attr)
{
    return dnnl_matmul_primitive_desc_create(pd, engine, md[0], md[1], bias ? md[2] : NULL, md[3], attr);
}

static inline dnnl_status_t conv_desc(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, fx_md md[4], bool bias,
                                      const fx_dnnl_shape *s, dnnl_primitive_attr_t attr)
{
    const dnnl_dims_t stride = {s->stride, s->stride}, none = {0, 0}, begin = {s->pad[0], s->pad[2]},
                      end = {s->pad[1], s->pad[3]};
    return dnnl_convolution_forward_primitive_desc_create(
        pd, engine, dnnl_forward_inference, dnnl_convolution_direct, md[0], md[1], bias ? md[2] : NULL, md[3],
        stride, none, begin, end, attr);
}
#endif

/* ---- shared by compat.c and compat_op.c ---- */

typedef struct fx_dnnl_form {
    fx_weight w;
    fx_md md;
} fx_dnnl_form;

struct fx_dnnl {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int threads;
    fx_dnnl_form *form;
    size_t forms;
};

/* The library takes as many threads as a parallel region of this thread would get. */
static inline int fx_dnnl_enter(int threads)
{
    const int before = omp_get_max_threads();
    if (before != threads) omp_set_num_threads(threads);
    return before;
}

static inline void fx_dnnl_leave(int before)
{
    if (before != omp_get_max_threads()) omp_set_num_threads(before);
}

/* weights NULL: the library chooses. Destroy *pd with dnnl_primitive_desc_destroy. */
fx_status fx_dnnl_describe(fx_dnnl *, const fx_dnnl_shape *, fx_act, fx_md_view weights,
                           dnnl_primitive_desc_t *pd);
/* The form of the weights; belongs to fx_dnnl. Asked for with one thread: ranks of different widths agree. */
fx_status fx_dnnl_form_of(fx_dnnl *, const fx_weight *, fx_md *out);

static inline fx_md_view fx_dnnl_md(dnnl_primitive_desc_t pd, dnnl_query_t what, int index)
{
    return dnnl_primitive_desc_query_md(pd, what, index);
}

#endif
