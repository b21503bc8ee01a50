/* What the exchange costs on one block of attention: put (norm, rotation, packing), waiting, collecting; demo
 * and FLUX.1 sizes. One rank: build/bench/bench_exchange; more: mpirun -np 2 build/bench/bench_exchange */
#include "parallel/exchange.h"
#include "runtime/core/clock.h"
#include "tests/test_ranks.h"

static void measure(fx_comm *comm, fx_backend *be, int ranks, int64_t text, int64_t image, int dim)
{
    fx_layout l;
    fx_exchange *ex;
    fx_tensor qkv, o, w, cs;
    const int heads = 24, me = fx_comm_rank(comm);
    T_OK(fx_arena_open(NULL, (size_t)2 << 30, &be->arena));
    T_OK(fx_layout_open(FX_LAYOUT_EVEN, ranks, (const int64_t[]){text, image, 0}, &l));
    const int64_t rows = fx_layout_local(&l, me), width = (int64_t)heads * dim;
    T_OK(fx_push2(be->arena, be->dtype, rows, width, &o));
    const fx_exchange_options opt = {{ranks, ranks, 1}, FX_EXACT_AUTO, heads, dim, 1e-6f, false, o};
    T_OK(fx_exchange_open(be, comm, &l, &opt, &ex));
    T_OK(fx_push2(be->arena, be->dtype, rows, 3 * width, &qkv));
    T_OK(fx_push1(be->arena, FX_F32, dim, &w));
    T_OK(fx_push3(be->arena, FX_F32, rows, dim / 2, 2, &cs));
    memset(qkv.data, 0x3c, fx_bytes(qkv));
    for (int64_t i = 0; i < dim; i++) ((float *)w.data)[i] = 1;
    for (int64_t i = 0; i < rows * dim; i++) ((float *)cs.data)[i] = 0.5f;
    double best[4] = {1e9, 1e9, 1e9, 1e9}; /* put, attend, collect, waits: the least of 20, each alone */
    for (int i = 0; i < 22; i++) {
        T_OK(fx_comm_barrier(comm));
        fx_comm_reset_statistics(comm);
        double t[4] = {fx_now_s()};
        T_OK(fx_exchange_put(ex, FX_ALL, FX_Q | FX_K | FX_V, qkv, w, w, cs));
        t[1] = fx_now_s();
        T_OK(fx_exchange_attend(ex, false));
        t[2] = fx_now_s();
        T_OK(fx_exchange_collect(ex, FX_ALL));
        t[3] = fx_now_s();
        for (int k = 0; k < 3; k++)
            if (t[k + 1] - t[k] < best[k]) best[k] = t[k + 1] - t[k];
        const double waits = fx_comm_statistics(comm).wait_s;
        if (waits < best[3]) best[3] = waits;
    }
    if (me == 0)
        printf("%s %s, %d ranks, %lld rows, %d heads of %d: put %.3f attend %.3f collect %.3f waits %.3f ms; "
               "%.2f MB sent per rank and block\n",
               be->ops->name, fx_dtype_name(be->dtype), ranks, (long long)(text + image), heads, dim,
               best[0] * 1e3, best[1] * 1e3, best[2] * 1e3, best[3] * 1e3,
               (double)fx_comm_statistics(comm).bytes_sent / 1e6);
    fx_exchange_close(&ex);
    fx_layout_close(&l);
    fx_arena_close(&be->arena);
}

int main(void)
{
    fx_comm *comm;
    fx_backend *be;
    if (fx_comm_open("auto", 60, &comm) != FX_OK) {
        printf("cannot open: %s\n", fx_error());
        return 2;
    }
    const int ranks = fx_comm_size(comm);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        T_OK(fx_backend_open("auto", bf16 ? FX_BF16 : FX_F32, ranks > 1 ? 1 : 2, &be));
        measure(comm, be, ranks, 24, 64, 16);
        measure(comm, be, ranks, 512, 4096, 128);
        fx_backend_close(&be);
    }
    const int rc = test_end_ranks(comm, "exchange");
    fx_comm_finish(&comm);
    return rc;
}
