/* The yardstick of the CPU benches: what oneDNN itself reaches on one large bf16 matmul in this process. */
#ifndef FX_BENCH_DNNL_RATE_H
#define FX_BENCH_DNNL_RATE_H

#include <dnnl.h>
#include <stdint.h>
#include <stdlib.h>

#include "runtime/core/clock.h"
#include "runtime/core/tensor.h"

typedef struct yardstick {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t matmul;
    dnnl_exec_arg_t args[3];
    double flop;
} yardstick;

static inline void make_matmul_desc(yardstick *y, const dnnl_dims_t a, const dnnl_dims_t b,
                                    const dnnl_dims_t c, dnnl_primitive_desc_t *pd)
{
#if DNNL_VERSION_MAJOR >= 3
    dnnl_memory_desc_t ma, mb, mc;
    dnnl_memory_desc_create_with_tag(&ma, 2, a, dnnl_bf16, dnnl_ab);
    dnnl_memory_desc_create_with_tag(&mb, 2, b, dnnl_bf16, dnnl_format_tag_any);
    dnnl_memory_desc_create_with_tag(&mc, 2, c, dnnl_bf16, dnnl_ab);
    dnnl_matmul_primitive_desc_create(pd, y->engine, ma, mb, NULL, mc, NULL);
    dnnl_memory_desc_destroy(ma);
    dnnl_memory_desc_destroy(mb);
    dnnl_memory_desc_destroy(mc);
#else
    dnnl_memory_desc_t ma, mb, mc;
    dnnl_matmul_desc_t op;
    dnnl_memory_desc_init_by_tag(&ma, 2, a, dnnl_bf16, dnnl_ab);
    dnnl_memory_desc_init_by_tag(&mb, 2, b, dnnl_bf16, dnnl_format_tag_any);
    dnnl_memory_desc_init_by_tag(&mc, 2, c, dnnl_bf16, dnnl_ab);
    dnnl_matmul_desc_init(&op, &ma, &mb, NULL, &mc);
    dnnl_primitive_desc_create(pd, &op, NULL, y->engine, NULL);
#endif
}

/* bf16 x[M,K] w[N,K]^T with weights in the library's own packed layout (values do not matter, zeros would).
 */
static inline int yardstick_open(yardstick *y, int64_t M, int64_t N, int64_t K)
{
    const dnnl_dims_t a = {M, K}, b = {K, N}, c = {M, N};
    const int names[3] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    const dnnl_query_t query[3] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md};
    dnnl_primitive_desc_t pd = NULL;
    *y = (yardstick){.flop = 2.0 * (double)M * (double)N * (double)K};
    if (dnnl_engine_create(&y->engine, dnnl_cpu, 0) ||
        dnnl_stream_create(&y->stream, y->engine, dnnl_stream_default_flags))
        return 1;
    make_matmul_desc(y, a, b, c, &pd);
    if (!pd || dnnl_primitive_create(&y->matmul, pd)) return 1;
    for (int i = 0; i < 3; i++) {
        dnnl_memory_t m;
        void *data = NULL;
        const_dnnl_primitive_desc_t cpd = pd;
#if DNNL_VERSION_MAJOR >= 3
        const_dnnl_memory_desc_t md = dnnl_primitive_desc_query_md(cpd, query[i], 0);
#else
        const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(cpd, query[i], 0);
#endif
        if (dnnl_memory_create(&m, md, y->engine, DNNL_MEMORY_ALLOCATE)) return 1;
        dnnl_memory_get_data_handle(m, &data);
        uint16_t *bits = data;
        for (size_t j = 0; j < dnnl_memory_desc_get_size(md) / 2; j++)
            bits[j] = fx_f32_to_bf16((float)((int)(j * 2654435761u >> 16 & 255) - 128) / 128.0f);
        y->args[i] = (dnnl_exec_arg_t){names[i], m};
    }
    dnnl_primitive_desc_destroy(pd);
    return 0;
}

static inline double yardstick_run_s(yardstick *y)
{
    const double begin = fx_now_s();
    dnnl_primitive_execute(y->matmul, y->stream, 3, y->args);
    dnnl_stream_wait(y->stream);
    return fx_now_s() - begin;
}

#endif
