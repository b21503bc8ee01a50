/* What ranks can move: all-to-all, a ring hop and the border rows of pictures over the transport that pictures use (MPI between
 * hosts' memory; between devices NCCL or copies into the peer's memory), and one block of attention with its exchange.
 *   mpirun -np 2 bench_comm [--op all|alltoall|ring|halo|attention] [--min 64] [--max 16777216] [--factor 4] [--runs 5]
 *                           [--backend auto] [--exchange auto|peer|nccl|lsa] [--dtype bf16|f32] [--threads 1] [--json FILE]
 * Before and after the timed transfers every byte is checked. Columns: METRICS.md. */
#include "bench/attend.h"
#include "bench/bench.h"
#include "parallel/comm_nccl.h"
#include "parallel/halo.h"
#include "parallel/node_share.h"

/* Bytes that one rank sends to or gets from another, in the block. */
typedef struct piece {
    int peer, tag; /* tag: what the sender wrote, word(from, tag, ...) */
    size_t at, bytes;
} piece;

typedef struct job {
    bench b;
    fx_comm *comm;
    fx_backend *be;
    int ranks, me, runs;
    char *block;     /* of the backend's memory: what is sent, then what comes */
    uint32_t *host;  /* as large as the largest piece */
    piece *out, *in; /* [ranks] */
    int n_out, n_in;
} job;

typedef struct kind {
    const char *name;
    /* Lists the pieces of `bytes`, and returns what crosses the busiest rank's link, in `bytes`. */
    double (*lay_out)(job *, size_t *bytes);
    fx_status (*run)(job *, size_t bytes);
} kind;

/* ---- what is moved ---- */

static double lay_out_alltoall(job *j, size_t *bytes)
{
    const size_t n = (size_t)j->ranks, chunk = *bytes / n / 4 ? *bytes / n / 4 * 4 : 4;
    *bytes = chunk * n;
    for (int r = 0; r < j->ranks; r++) {
        j->out[r] = (piece){r, r, (size_t)r * chunk, chunk};
        j->in[r] = (piece){r, j->me, *bytes + (size_t)r * chunk, chunk};
    }
    j->n_out = j->n_in = j->ranks;
    return (double)(j->ranks - 1) / j->ranks;
}

static double lay_out_ring(job *j, size_t *bytes)
{
    const int next = (j->me + 1) % j->ranks, before = (j->me + j->ranks - 1) % j->ranks;
    j->out[0] = (piece){next, 0, 0, *bytes};
    j->in[0] = (piece){before, 0, *bytes, *bytes};
    j->n_out = j->n_in = 1;
    return j->ranks > 1 ? 1 : 0;
}

/* A row of the picture on each rank, with room above and below. */
static double lay_out_halo(job *j, size_t *bytes)
{
    j->n_out = j->n_in = 0;
    j->out[j->n_out++] = (piece){j->me, 0, *bytes, *bytes};
    if (j->me > 0) j->in[j->n_in++] = (piece){j->me - 1, 0, 0, *bytes};
    if (j->me + 1 < j->ranks) j->in[j->n_in++] = (piece){j->me + 1, 0, 2 * *bytes, *bytes};
    return j->ranks > 2 ? 2 : j->ranks - 1;
}

static fx_status run_transfer(job *j, size_t bytes)
{
    fx_ticket ticket;
    fx_xfer send[64], recv[64];
    (void)bytes;
    for (int i = 0; i < j->n_out; i++)
        send[i] = (fx_xfer){j->out[i].peer, j->block + j->out[i].at, j->out[i].bytes};
    for (int i = 0; i < j->n_in; i++)
        recv[i] = (fx_xfer){j->in[i].peer, j->block + j->in[i].at, j->in[i].bytes};
    FX_TRY(fx_comm_transfer(fx_comm_rows(j->comm), j->n_out, send, j->n_in, recv, &ticket));
    return fx_comm_wait(fx_comm_rows(j->comm), &ticket);
}

static fx_status run_halo(job *j, size_t bytes)
{
    const int64_t es = (int64_t)fx_dtype_size(j->be->dtype);
    fx_range range[64];
    for (int r = 0; r < j->ranks; r++) range[r] = (fx_range){r, 1};
    const fx_slabs slabs = {j->comm, range, j->ranks};
    return fx_halo_fill(j->be, &slabs, fx_view3(j->block, j->be->dtype, 3, (int64_t)bytes / es, 1), 1, 1);
}

/* ---- every byte ---- */

static uint32_t word(int from, int tag, int round, size_t i)
{
    const uint64_t x = ((uint64_t)from << 48 ^ (uint64_t)tag << 32 ^ (uint64_t)round << 26 ^ i) + 1;
    return (uint32_t)(x * 0x9e3779b97f4a7c15u >> 24);
}

static fx_status put(const job *j, const piece *p)
{
    FX_TRY(fx_upload(j->be, fx_view1(j->block + p->at, FX_U8, (int64_t)p->bytes), j->host));
    return fx_sync(j->be);
}

static fx_status write_pieces(const job *j, int round)
{
    for (int k = 0; k < j->n_in; k++) {
        memset(j->host, 0xa5, j->in[k].bytes);
        FX_TRY(put(j, &j->in[k]));
    }
    for (int k = 0; k < j->n_out; k++) {
        for (size_t i = 0; i < j->out[k].bytes / 4; i++) j->host[i] = word(j->me, j->out[k].tag, round, i);
        FX_TRY(put(j, &j->out[k]));
    }
    return FX_OK;
}

static fx_status count_wrong(const job *j, int round, int64_t *wrong)
{
    for (int k = 0; k < j->n_in; k++) {
        const piece *p = &j->in[k];
        FX_TRY(fx_download(j->be, j->host, fx_view1(j->block + p->at, FX_U8, (int64_t)p->bytes)));
        for (size_t i = 0; i < p->bytes / 4; i++) *wrong += j->host[i] != word(p->peer, p->tag, round, i);
    }
    return FX_OK;
}

static fx_status check(job *j, const kind *k, size_t bytes, int round, int64_t *wrong)
{
    FX_TRY(write_pieces(j, round));
    FX_TRY(fx_comm_barrier(j->comm));
    FX_TRY(k->run(j, bytes));
    FX_TRY(fx_comm_settle(j->comm));
    FX_TRY(fx_sync(j->be));
    return count_wrong(j, round, wrong);
}

/* ---- a row ---- */

static fx_status time_run(job *j, const kind *k, size_t bytes, int times, double *each)
{
    FX_TRY(fx_comm_barrier(j->comm));
    const double begin = fx_now_s();
    for (int i = 0; i < times; i++) FX_TRY(k->run(j, bytes));
    FX_TRY(fx_comm_settle(j->comm));
    FX_TRY(fx_sync(j->be));
    *each = (fx_now_s() - begin) / times;
    return FX_OK;
}

static fx_status measure(job *j, const kind *k, size_t bytes)
{
    double t[BENCH_RUNS];
    int64_t wrong = 0;
    const double crossing = k->lay_out(j, &bytes);
    const size_t fit = ((size_t)64 << 20) / bytes;
    const int times = fit < 3 ? 3 : fit > 200 ? 200 : (int)fit;
    FX_TRY(check(j, k, bytes, 1, &wrong));
    for (int r = 0; r < j->runs; r++) FX_TRY(time_run(j, k, bytes, times, &t[r]));
    FX_TRY(check(j, k, bytes, 2, &wrong));
    FX_TRY(fx_comm_all_reduce_f64(j->comm, FX_MAX, t, j->runs));
    FX_TRY(fx_comm_all_reduce_i64(j->comm, FX_SUM, &wrong, 1));
    json_t *samples = bench_samples(t, j->runs);
    const double s = bench_median(t, j->runs), rate = 1e-9 * (double)bytes / s;
    if (j->b.speaks)
        printf("  %-10s %12zu %8d %10.2f %9.3f %9.3f %8lld\n", k->name, bytes, times, s * 1e6, rate,
               rate * crossing, (long long)wrong);
    bench_row(&j->b,
              json_pack("{s:s, s:I, s:i, s:f, s:f, s:f, s:I, s:{s:o}}", "op", k->name, "bytes",
                        (json_int_t)bytes, "times", times, "time_us", s * 1e6, "algbw_gbs", rate, "busbw_gbs",
                        rate * crossing, "wrong", (json_int_t)wrong, "samples", "time_s", samples),
              wrong);
    return FX_OK;
}

static const kind kinds[] = {{"alltoall", lay_out_alltoall, run_transfer},
                             {"ring", lay_out_ring, run_transfer},
                             {"halo", lay_out_halo, run_halo}};

static bool is_wanted(const char *op, const char *name)
{
    return !strcmp(op, "all") || !strcmp(op, name);
}

static fx_status transfers(job *j, const char *op, size_t least, size_t most, int factor)
{
    if (j->b.speaks) {
        printf("# %-10s %12s %8s %10s %9s %9s %8s\n", "op", "size", "times", "time", "algbw", "busbw",
               "#wrong");
        printf("# %-10s %12s %8s %10s %9s %9s %8s\n", "", "(B)", "", "(us)", "(GB/s)", "(GB/s)", "(words)");
    }
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
        for (size_t bytes = least; is_wanted(op, kinds[k].name) && bytes <= most; bytes *= (size_t)factor)
            FX_TRY(measure(j, &kinds[k], bytes));
    return FX_OK;
}

/* ---- the program ---- */

static fx_status open_job(job *j, const char *backend, const char *dtype, const char *exchange, int threads,
                          size_t most)
{
    const fx_wire wire = !strcmp(exchange, "peer")   ? FX_WIRE_PEER
                         : !strcmp(exchange, "nccl") ? FX_WIRE_NCCL
                         : !strcmp(exchange, "lsa")  ? FX_WIRE_LSA
                                                     : FX_WIRE_AUTO;
    char name[32];
    int local, size, nodes;
    size_t bytes = 3 * most + 4096;
    void *block = NULL;
    FX_CHECK(j->ranks <= 64, FX_EINVAL, "bench_comm is for at most 64 ranks");
    FX_TRY(fx_node_ranks(j->comm, &local, &size, &nodes));
    snprintf(name, sizeof name, "%s", backend);
    if (!strcmp(backend, "cuda")) snprintf(name, sizeof name, "cuda:%d", local);
    FX_TRY(fx_backend_open(name, strcmp(dtype, "f32") ? FX_BF16 : FX_F32, threads, &j->be));
    FX_TRY(fx_comm_open_rows(j->comm, j->be, wire));
    if (fx_on_device(j->be)) FX_TRY(fx_comm_take_rows(j->comm, j->be, &bytes, &block));
    j->block = block ? block : aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    j->host = malloc(most + 4096);
    j->out = calloc((size_t)j->ranks + 1, sizeof *j->out);
    j->in = calloc((size_t)j->ranks + 1, sizeof *j->in);
    FX_CHECK(j->block && j->host && j->out && j->in, FX_ENOMEM, "no memory for blocks of %zu bytes", bytes);
    if (!block) memset(j->block, 0, bytes); /* touched before anything is timed */
    return FX_OK;
}

static void close_job(job *j)
{
    if (fx_on_device(j->be))
        fx_comm_give_rows(j->comm, j->be, j->block);
    else
        free(j->block);
    free(j->host), free(j->out), free(j->in);
    fx_comm_close_rows(j->comm);
    fx_backend_close(&j->be);
    fx_comm_finish(&j->comm);
}

int main(int argc, char **argv)
{
    job j = {.b = {.name = "bench_comm"}};
    char text[256], what[256];
    if (!bench_known(argc, argv,
                     "|--op|--min|--max|--factor|--runs|--backend|--exchange|--dtype|--threads|--json|"))
        return 2;
    const char *op = bench_option(argc, argv, "--op", "all"),
               *dtype = bench_option(argc, argv, "--dtype", "bf16");
    const char *backend = bench_option(argc, argv, "--backend", "auto");
    const size_t least = (size_t)bench_number(argc, argv, "--min", 64, 64, (int64_t)1 << 32);
    const size_t most = (size_t)bench_number(argc, argv, "--max", 16 << 20, 64, (int64_t)1 << 32);
    const int factor = (int)bench_number(argc, argv, "--factor", 4, 2, 1 << 20);
    const int threads = (int)bench_number(argc, argv, "--threads", 1, 1, 1024);
    const char *exchange = bench_option(argc, argv, "--exchange", "auto");
    j.runs = (int)bench_number(argc, argv, "--runs", 5, 1, BENCH_RUNS);
    bench_must(&j.b, fx_comm_open("auto", 120, &j.comm));
    j.b.comm = j.comm;
    j.ranks = fx_comm_size(j.comm), j.me = fx_comm_rank(j.comm);
    bench_must(&j.b, fx_comm_vote(j.comm, open_job(&j, backend, dtype, exchange, threads, most), NULL));
    snprintf(what, sizeof what, "%s%s%s", fx_backend_describe(j.be),
             fx_on_device(j.be) ? ", exchange by " : "", fx_comm_rows_text(j.comm));
    snprintf(text, sizeof text, "op %s, %zu to %zu bytes by %d, %d runs (median), %s, %d thread%s per rank",
             op, least, most, factor, j.runs, dtype, threads, threads == 1 ? "" : "s");
    bench_begin(&j.b, "bench_comm", j.comm, bench_option(argc, argv, "--json", NULL), what, text);
    if (strcmp(op, "attention") != 0) bench_must(&j.b, transfers(&j, op, least, most, factor));
    if (is_wanted(op, "attention")) bench_must(&j.b, bench_attend(&j.b, j.comm, j.be, j.runs));
    const int code = bench_end(&j.b);
    close_job(&j);
    return code;
}
