/* Sharding against one rank, for every mesh of this rank count and both layouts: attention (here), whole blocks
 * (shard/blocks.c), the VAE by rows (shard/vae.c), attention by kernels (shard/window.c). check_shard [quick|all]
 * [every|attention|window|blocks|vae] [BACKEND]; quick takes about a third of the cases. BACKEND: in the CPU backend's place, for
 * data in host memory: twin, cuda-staged. Run under mpirun by tests/sh_mpi.sh, and on GPUs by tests/gpu/run.sh.
 *
 * Attention: every rank computes the whole alone, then all do it together, with odd and empty row counts and
 * three blocks in a row (a buffer used too early shows). Exact meshes must give the same bits. The one-rank
 * result itself is checked against the formula. */
#include <math.h>

#include "tests/shard/shard.h"

void *shard_arena;
shard_subject shard_subjects[2] = {{"cpu", FX_F32}, {"cpu", FX_BF16}};
int shard_subjects_count = 2;

enum { BLOCKS = 3, DIM = 16, SPARE = 8 /* columns beside q, k, v, as in a single block */ };

typedef struct job {
    fx_comm *comm;
    fx_backend *be; /* or the plan backend around it */
    fx_layout layout;
    fx_exchange_options opt;
    int style; /* how the rows are put */
} job;

static double turn(int64_t row, int i, int sine)
{
    const double angle = (double)row * exp(-(double)i);
    return (float)(sine ? sin(angle) : cos(angle));
}

static float norm_weight(int part, int i)
{
    return part == 0 ? 1 + 0.1f * (float)i : 2 - 0.1f * (float)i;
}

/* This rank's rows of q | k | v of a block, and its rotations: functions of the joint row only. */
static void fill(const job *j, fx_tensor qkv, fx_tensor cs, int block)
{
    const int me = fx_comm_rank(j->comm);
    for (int64_t r = 0; r < qkv.shape[0]; r++) {
        const int64_t row = shard_joint_row(&j->layout, me, r);
        for (int64_t c = 0; c < qkv.shape[1]; c++)
            shard_store(qkv, r, c, 2 * shard_noise((uint64_t)row, (uint64_t)c, (uint64_t)block));
        for (int64_t i = 0; i < DIM / 2; i++) {
            float *p = (float *)cs.data + (r * DIM / 2 + i) * 2;
            p[0] = (float)turn(row, (int)i, 0);
            p[1] = (float)turn(row, (int)i, 1);
        }
    }
}

typedef struct weights {
    float q[DIM], k[DIM];
} weights;

static fx_status put_one(const job *j, fx_exchange *ex, int seg, unsigned parts, fx_tensor qkv, fx_tensor cs)
{
    static weights w;
    for (int i = 0; i < DIM; i++) {
        w.q[i] = norm_weight(0, i);
        w.k[i] = norm_weight(1, i);
    }
    const int64_t width = (int64_t)j->opt.heads * DIM;
    const int me = fx_comm_rank(j->comm), first = parts & FX_Q ? 0 : parts & FX_K ? 1 : 2;
    const int n = ((parts & FX_Q) != 0) + ((parts & FX_K) != 0) + ((parts & FX_V) != 0);
    const int64_t begin = seg == FX_ALL ? 0 : fx_layout_local_start(&j->layout, me, seg);
    const int64_t count = seg == FX_ALL ? qkv.shape[0] : j->layout.part[me][seg].count;
    return fx_exchange_put(ex, seg, parts, fx_cols(fx_rows(qkv, begin, count), first * width, n * width),
                           fx_view1(w.q, FX_F32, DIM), fx_view1(w.k, FX_F32, DIM), fx_rows(cs, begin, count));
}

/* Rows of all ranks. */
static int64_t total(const fx_layout *l, int segment)
{
    const fx_range last = l->part[l->ranks - 1][segment];
    return last.begin + last.count;
}

/* Orders a graph may use; style 2 puts Q first, style 3 skips segments that no rank has rows of. */
static fx_status put_all(const job *j, fx_exchange *ex, fx_tensor qkv, fx_tensor cs)
{
    static const unsigned two[] = {FX_K | FX_V, FX_Q}, three[] = {FX_Q, FX_V, FX_K};
    if (j->style == 0) return put_one(j, ex, FX_ALL, FX_Q | FX_K | FX_V, qkv, cs);
    const unsigned *order = j->style == 2 ? three : two;
    for (int i = 0; i < (j->style == 2 ? 3 : 2); i++)
        for (int s = 0; s < FX_SEGMENTS; s++) {
            if (j->style == 3 && !total(&j->layout, s)) continue;
            FX_TRY(put_one(j, ex, s, order[i], qkv, cs));
        }
    return FX_OK;
}

/* All at once; styles 1 and 3 by segments, from the last and from the first one on; style 2 the first and the rest. */
static fx_status collect_all(const job *j, fx_exchange *ex)
{
    for (int i = 0; j->style % 2 && i < FX_SEGMENTS; i++)
        FX_TRY(fx_exchange_collect(ex, j->style == 1 ? FX_SEGMENTS - 1 - i : i));
    if (j->style == 2) FX_TRY(fx_exchange_collect(ex, FX_TEXT));
    return fx_exchange_collect(ex, FX_ALL);
}

/* BLOCKS exchanges; result[BLOCKS * local, heads * DIM] f64 unless planning. */
static fx_status run(const job *j, double *result)
{
    fx_arena *a = j->be->arena;
    fx_exchange *ex = NULL;
    const int64_t rows = fx_layout_local(&j->layout, fx_comm_rank(j->comm)),
                  width = (int64_t)j->opt.heads * DIM;
    fx_exchange_options opt = j->opt;
    fx_tensor o;
    fx_status st;
    FX_TRY(fx_push2(a, j->be->dtype, rows, width + SPARE, &o));
    opt.output = o = fx_cols(o, 0, width);
    FX_TRY(fx_exchange_open(j->be, j->comm, &j->layout, &opt, &ex));
    const uint64_t before = fx_comm_statistics(j->comm).bytes_sent;
    for (int b = 0; b < BLOCKS; b++) {
        const size_t mark = fx_mark(a);
        fx_tensor qkv, cs;
        FX_TRY_OUT(fx_push2(a, j->be->dtype, rows, 3 * width + SPARE, &qkv));
        FX_TRY_OUT(fx_push3(a, FX_F32, rows, DIM / 2, 2, &cs));
        if (result) fill(j, qkv, cs, b);
        if ((b + j->style + fx_comm_rank(j->comm) / 2) % 3)
            fx_exchange_beside(ex); /* each rank as it likes */
        FX_TRY_OUT(put_all(j, ex, qkv, cs));
        FX_TRY_OUT(fx_exchange_attend(ex, j->style >= 2));
        if (result) memset(qkv.data, 0xff, fx_bytes(qkv)); /* attend has read it */
        FX_TRY_OUT(collect_all(j, ex));
        for (int64_t r = 0; result && r < rows; r++)
            for (int64_t c = 0; c < width; c++) result[((b * rows) + r) * width + c] = shard_load(o, r, c);
        fx_rewind(a, mark);
    }
    const uint64_t sent = fx_comm_statistics(j->comm).bytes_sent - before,
                   want = shard_rows_sent(&j->layout, &j->opt.mesh, fx_comm_rank(j->comm),
                                          fx_exchange_exact(ex)) *
                          BLOCKS * (uint64_t)(j->opt.heads / j->opt.mesh.ulysses * DIM) *
                          fx_dtype_size(j->be->dtype);
    T_CHECK(!result || sent == want, "sent %llu bytes, want %llu", (unsigned long long)sent,
            (unsigned long long)want);
out:
    fx_exchange_close(&ex);
    return st;
}

/* Measures with the plan backend and a plan comm, then runs; both peaks must agree. */
static double *plan_and_run(job *j)
{
    fx_backend *real = j->be, *plan;
    fx_comm *comm = j->comm, *dry = NULL;
    size_t peak = 0;
    const int64_t rows = fx_layout_local(&j->layout, fx_comm_rank(comm));
    double *result = malloc((size_t)(BLOCKS * rows * j->opt.heads * DIM + 1) * sizeof *result);
    T_OK(fx_comm_open_plan(fx_comm_rank(comm), fx_comm_size(comm), &dry));
    T_OK(fx_backend_plan(real, &plan));
    j->be = plan;
    T_OK(fx_arena_measure(&plan->arena));
    T_CHECK(run(j, NULL) == FX_ESHAPE, "a plan that would send rows from addresses that are not there");
    j->comm = dry;
    T_OK(run(j, NULL));
    peak = fx_peak(plan->arena);
    fx_arena_close(&plan->arena);
    fx_backend_close(&plan);
    fx_comm_close(&dry);
    j->be = real;
    j->comm = comm;
    T_OK(fx_arena_open(fx_comm_size(comm) > 1 ? shard_arena : NULL, peak, &real->arena));
    fx_tensor all;
    T_OK(fx_push1(real->arena, FX_U8, (int64_t)peak, &all));
    memset(all.data, 0xff, peak); /* NaN: rows read before they came show */
    fx_rewind(real->arena, 0);
    T_OK(run(j, result));
    T_CHECK(fx_peak(real->arena) == peak, "planned %zu bytes, used %zu", peak, fx_peak(real->arena));
    fx_arena_close(&real->arena);
    return result;
}

static void compare(const job *j, const double *mine, const double *whole, bool exact, const char *what)
{
    const int me = fx_comm_rank(j->comm);
    const int64_t rows = fx_layout_local(&j->layout, me), all = fx_layout_total(&j->layout);
    const int64_t width = (int64_t)j->opt.heads * DIM;
    const double limit = exact ? 0 : j->be->dtype == FX_BF16 ? 0x1p-7 : j->be->dtype == FX_F32 ? 2e-6 : 1e-14;
    double worst = 0;
    int64_t bad = 0;
    for (int b = 0; b < BLOCKS; b++)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < width; c++) {
                const double x = mine[(b * rows + r) * width + c];
                const double y = whole[(b * all + shard_joint_row(&j->layout, me, r)) * width + c];
                const double d = fabs(x - y) / (1 + fabs(y));
                if (d > worst) worst = d;
                bad += !(d <= limit);
            }
    T_CHECK(bad == 0, "%s, rank %d: %lld wrong values, worst %.3g", what, me, (long long)bad, worst);
}

enum { COARSE = FX_EXACT_OFF + 1 }; /* as off, and the ring's parts come rounded to bf16, as from a GPU */

void shard_attention(fx_comm *comm, fx_backend *be, int heads, const int64_t rows[FX_SEGMENTS])
{
    fx_comm *self;
    job one = {.be = be, .opt = {{1, 1, 1}, FX_EXACT_AUTO, heads, DIM, 1e-6f, false, fx_none()}};
    T_OK(fx_comm_open("self", 60, &self));
    one.comm = self;
    T_OK(fx_layout_open(FX_LAYOUT_EVEN, 1, rows, &one.layout));
    double *whole = plan_and_run(&one);
    const int ranks = fx_comm_size(comm);
    for (int u = 1, style = 0; u <= ranks; u++) {
        if (ranks % u || heads % u) continue;
        for (int kind = FX_LAYOUT_EVEN; kind <= FX_LAYOUT_STREAM; kind++)
            for (int e = FX_EXACT_AUTO; e <= COARSE; e++, style++) {
                char what[160];
                const fx_exact mode = e < COARSE ? (fx_exact)e : FX_EXACT_OFF;
                const bool was = be->coarse_parts;
                job j = {comm, be, {0}, {{0, 0, 0}, mode, heads, DIM, 1e-6f, false, fx_none()}, style % 4};
                if (e == COARSE && (was || be->dtype != FX_BF16 || u == ranks)) continue;
                if (fx_layout_open((fx_layout_kind)kind, ranks, rows, &j.layout) != FX_OK) continue;
                T_OK(fx_mesh_make(ranks, heads, u, 0, &j.opt.mesh));
                const bool exact = u == ranks || mode != FX_EXACT_OFF;
                be->coarse_parts = was || e == COARSE;
                snprintf(what, sizeof what,
                         "%s %s, %d heads, rows %d %d %d, mesh %dx%d, %s, exact %d, style %d", be->ops->name,
                         fx_dtype_name(be->dtype), heads, (int)rows[0], (int)rows[1], (int)rows[2], u,
                         ranks / u, fx_layout_name(j.layout.kind), e, j.style);
                double *mine = plan_and_run(&j);
                compare(&j, mine, whole, exact, what);
                be->coarse_parts = was;
                free(mine);
                fx_layout_close(&j.layout);
            }
    }
    free(whole);
    fx_layout_close(&one.layout);
    fx_comm_close(&self);
}

/* ---- the formula ---- */

/* q or k of a row and head: rotate(x / rms(x) * w). */
static void normed(int64_t row, int part, int h, int heads, int block, double y[DIM])
{
    double x[DIM], sum = 0;
    for (int i = 0; i < DIM; i++) {
        x[i] = 2 * shard_noise((uint64_t)row, (uint64_t)((part * heads + h) * DIM + i), (uint64_t)block);
        sum += x[i] * x[i];
    }
    for (int i = 0; i < DIM; i++) x[i] *= norm_weight(part, i) / sqrt(sum / DIM + (double)1e-6f);
    for (int i = 0; i < DIM / 2; i++) {
        const double a = x[2 * i], b = x[2 * i + 1], c = turn(row, i, 0), s = turn(row, i, 1);
        y[2 * i] = a * c - b * s;
        y[2 * i + 1] = b * c + a * s;
    }
}

static void attend_row(int64_t row, int64_t rows, int h, int heads, int block, double o[DIM])
{
    double q[DIM], k[DIM], total = 0;
    normed(row, 0, h, heads, block, q);
    memset(o, 0, DIM * sizeof *o);
    for (int64_t j = 0; j < rows; j++) {
        double dot = 0;
        normed(j, 1, h, heads, block, k);
        for (int i = 0; i < DIM; i++) dot += q[i] * k[i];
        const double p = exp(dot / sqrt(DIM)); /* |dot| stays below 100 here: no need for the maximum */
        total += p;
        for (int i = 0; i < DIM; i++)
            o[i] += p * 2 * shard_noise((uint64_t)j, (uint64_t)((2 * heads + h) * DIM + i), (uint64_t)block);
    }
    for (int i = 0; i < DIM; i++) o[i] /= total;
}

static void test_formula(fx_comm *self)
{
    const int64_t rows[FX_SEGMENTS] = {3, 8, 2};
    job j = {.comm = self, .opt = {{1, 1, 1}, FX_EXACT_AUTO, 4, DIM, 1e-6f, false, fx_none()}};
    T_OK(fx_backend_open("ref", FX_F32, 1, &j.be));
    T_OK(fx_layout_open(FX_LAYOUT_EVEN, 1, rows, &j.layout));
    for (j.style = 0; j.style < 3; j.style++) {
        double *got = plan_and_run(&j), worst = 0, o[DIM];
        for (int b = 0; b < BLOCKS; b++)
            for (int64_t r = 0; r < 13; r++)
                for (int h = 0; h < 4; h++) {
                    attend_row(r, 13, h, 4, b, o);
                    for (int i = 0; i < DIM; i++) {
                        const double d = fabs(o[i] - got[((b * 13 + r) * 4 + h) * DIM + i]);
                        if (!(d <= worst)) worst = d;
                    }
                }
        T_CHECK(worst < 1e-7, "style %d: one rank differs from the formula by %.3g", j.style, worst);
        free(got);
    }
    fx_layout_close(&j.layout);
    fx_backend_close(&j.be);
}

static void test_backend(fx_comm *comm, const char *name, fx_dtype dtype, bool quick)
{
    static const int64_t rows[][3] = {{7, 13, 0}, {3, 6, 5}, {1, 1, 0}, {0, 9, 2}, {2, 17, 1}, {77, 260, 0}};
    static const int heads[] = {4, 6, 24};
    fx_backend *be;
    T_OK(fx_backend_open(name, dtype, 1, &be));
    for (int h = 0; h < 3; h++)
        for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++)
            if (!quick || (k + (size_t)h) % 3 == 0) shard_attention(comm, be, heads[h], rows[k]);
    fx_backend_close(&be);
}

static void test_attention(fx_comm *comm, bool quick)
{
    fx_comm *self;
    T_OK(fx_comm_open("self", 60, &self));
    test_formula(self);
    fx_comm_close(&self);
    for (int k = 0; k < shard_subjects_count; k++)
        test_backend(comm, shard_subjects[k].backend, shard_subjects[k].dtype, quick);
    test_backend(comm, "ref", FX_F32, true);
}

int main(int argc, char **argv)
{
    fx_comm *comm;
    char name[64];
    if (fx_comm_open("auto", 60, &comm) != FX_OK) {
        printf("cannot open: %s\n", fx_error());
        return 2;
    }
    const bool quick = argc > 1 && !strcmp(argv[1], "quick");
    const char *part = argc > 2 && strcmp(argv[2], "every") ? argv[2] : "";
    if (argc > 3) {
        shard_subjects[0] = (shard_subject){argv[3], FX_BF16};
        shard_subjects_count = 1;
    } else if (!strstr(fx_backend_list(), "cpu"))
        shard_subjects_count = 0;
    if (!*part || !strcmp(part, "attention")) test_attention(comm, quick);
    if (!*part || !strcmp(part, "window")) test_window(comm, quick);
    if (!*part || !strcmp(part, "blocks")) test_blocks(comm, quick);
    if (!*part || !strcmp(part, "vae")) test_vae(comm, quick);
    snprintf(name, sizeof name, "shard on %d ranks", fx_comm_size(comm));
    const int rc = test_end_ranks(comm, name);
    fx_comm_finish(&comm);
    return rc;
}
