/* Whole blocks of a small random transformer on several ranks against one rank: two double blocks, two single
 * blocks, each from its own random rows, then a whole step from the embedded inputs to the final layer. Every
 * mesh whose ulysses divides the heads, both layouts, row counts that no rank count divides, ranks without rows.
 *
 * Exact meshes must give the bits of one rank. Rings that merge partial results (--exact off) sum in another
 * order; their budget is measured, not chosen: with E the largest error of one rank's block against the same block
 * in f64 (ref), two results whose sums round differently are both within E of f64, so within 2 E of each other.
 * On ref itself the ring differs from one rank by rounding of f64 only. */
#include <math.h>

#include "runtime/dit/dit.h"
#include "tests/shard/shard.h"

enum {
    DOUBLES = 2,
    SINGLES = 2,
    STAGES = DOUBLES + SINGLES + 1,
    CHANNELS = 12,
    JOINT = 20,
    POOLED = 9,
    STEPS = 2
};

/* Weights of the counter generator on one backend. */
typedef struct model {
    fx_dit_config cfg;
    fx_dit_weights w;
    fx_backend *be;
    fx_store *store;
} model;

static fx_status open_model(const char *backend, fx_dtype dtype, int heads, int dim, model *m)
{
    fx_checkpoint *generator = NULL;
    *m = (model){.cfg = {.in_channels = CHANNELS,
                         .out_channels = CHANNELS,
                         .heads = heads,
                         .head_dim = dim,
                         .hidden = (int64_t)heads * dim,
                         .mlp = 4 * (int64_t)heads * dim,
                         .joint_dim = JOINT,
                         .pooled_dim = POOLED,
                         .axis_dim = {dim - (dim - 2) / 4 * 4, (dim - 2) / 4 * 2, (dim - 2) / 4 * 2},
                         .double_blocks = DOUBLES,
                         .single_blocks = SINGLES,
                         .guidance = true}};
    FX_TRY(fx_backend_open(backend, dtype, 1, &m->be));
    FX_TRY(fx_store_open(m->be, NULL, &m->store));
    FX_TRY(fx_checkpoint_synthetic("transformer", 3, &generator));
    fx_status st = fx_dit_weights_declare(&m->cfg, m->store, generator, &m->w);
    if (!st) st = fx_store_load(m->store, NULL, NULL, NULL);
    fx_checkpoint_close(&generator);
    return st;
}

static void close_model(model *m)
{
    fx_dit_weights_free(&m->w);
    fx_store_close(&m->store);
    fx_backend_close(&m->be);
}

typedef struct job {
    const model *m;
    fx_layout layout;
    fx_dit_options opt;
} job;

static void fill(fx_tensor t, const int64_t *joint, int kind)
{
    for (int64_t r = 0; r < t.shape[0]; r++)
        for (int64_t c = 0; c < t.shape[1]; c++) /* f32 values: the same input on every backend */
            shard_store(
                t, r, c,
                (float)(2 * shard_noise((uint64_t)(joint ? joint[r] : r), (uint64_t)c, (uint64_t)kind)));
}

static void keep(fx_tensor t, int64_t rows_before, double *out)
{
    for (int64_t r = 0; r < t.shape[0]; r++)
        for (int64_t c = 0; c < t.shape[1]; c++)
            out[(rows_before + r) * t.shape[1] + c] = shard_load(t, r, c);
}

static fx_status each_block(fx_dit *d, const int64_t *joint, double *result)
{
    const int64_t rows = d->x.shape[0], stage = rows * d->cfg->hidden;
    for (int i = 0; i < DOUBLES + SINGLES; i++) {
        if (result) fill(d->x, joint, 100 + i);
        FX_TRY(fx_dit_select(d, i % STEPS));
        FX_TRY(i < DOUBLES ? fx_double_block(d, i) : fx_single_block(d, i - DOUBLES));
        FX_TRY(fx_dit_settle(d));
        if (result) keep(d->x, 0, result + i * stage);
    }
    return FX_OK;
}

/* result[STAGES][rows][hidden]: the rows after each block, then after a whole step; then noise[image rows][CHANNELS] */
static fx_status graph(const void *ctx, fx_backend *be, fx_comm *comm, double *result)
{
    static const float sigma[STEPS] = {1, 0.25f};
    const job *j = ctx;
    const int me = fx_comm_rank(comm);
    const fx_range image = j->layout.part[me][FX_IMAGE];
    const int64_t rows = fx_layout_local(&j->layout, me);
    int64_t joint[256];
    fx_tensor t5, pooled, latents, noise;
    fx_dit d;
    for (int64_t r = 0; r < rows; r++) joint[r] = shard_joint_row(&j->layout, me, r);
    FX_TRY(fx_push2(be->arena, be->stream, j->opt.text_tokens, JOINT, &t5));
    FX_TRY(fx_push2(be->arena, be->stream, 1, POOLED, &pooled));
    FX_TRY(fx_push2(be->arena, be->stream, image.count, CHANNELS, &latents));
    FX_TRY(fx_push2(be->arena, be->stream, image.count, CHANNELS, &noise));
    if (result) {
        fill(t5, NULL, 1);
        fill(pooled, NULL, 2);
        fill(latents, joint + j->layout.part[me][FX_TEXT].count, 3);
    }
    fx_status st = fx_dit_open(&j->m->cfg, &j->m->w, be, comm, &j->layout, &j->opt, &d);
    if (!st) st = fx_dit_prepare(&d, t5, pooled, sigma, 3.5);
    if (!st) st = each_block(&d, joint, result);
    if (!st) st = fx_dit_select(&d, 1);
    const uint64_t before = fx_comm_statistics(comm).bytes_sent;
    if (!st) st = fx_dit_step(&d, latents, noise);
    if (!st && result) {
        const int64_t stage = rows * j->m->cfg.hidden;
        keep(d.x, 0, result + (STAGES - 1) * stage);
        keep(noise, 0, result + STAGES * stage);
        const uint64_t sent = fx_comm_statistics(comm).bytes_sent - before,
                       want = shard_rows_sent(&j->layout, &j->opt.mesh, me, fx_exchange_exact(d.exchange)) *
                              (DOUBLES + SINGLES) * (uint64_t)(j->m->cfg.hidden / j->opt.mesh.ulysses) *
                              fx_dtype_size(be->dtype);
        T_CHECK(sent == want, "mesh %dx%d: a step sent %llu bytes, want %llu", j->opt.mesh.ulysses,
                j->opt.mesh.ring, (unsigned long long)sent, (unsigned long long)want);
        T_CHECK(fx_exchange_exact(d.exchange) == (j->opt.mesh.ring == 1 || j->opt.exact != FX_EXACT_OFF),
                "mesh %dx%d says exact %d", j->opt.mesh.ulysses, j->opt.mesh.ring,
                fx_exchange_exact(d.exchange));
    }
    fx_dit_close(&d);
    return st;
}

static double *run(const job *j, fx_comm *comm)
{
    const int me = fx_comm_rank(comm);
    const int64_t values = STAGES * fx_layout_local(&j->layout, me) * j->m->cfg.hidden +
                           j->layout.part[me][FX_IMAGE].count * CHANNELS;
    return shard_run(j->m->be, comm, graph, j, values);
}

static double *run_alone(job *j, const model *m, fx_comm *self, const int64_t rows[FX_SEGMENTS])
{
    double *whole = NULL;
    j->m = m;
    j->opt.mesh = (fx_mesh){1, 1, 1};
    j->opt.exact = FX_EXACT_AUTO;
    T_OK(fx_layout_open(FX_LAYOUT_EVEN, 1, rows, &j->layout));
    whole = run(j, self);
    fx_layout_close(&j->layout);
    return whole;
}

/* E per stage (and of the noise, last). */
static void errors(const double *one, const double *f64, int64_t stage, int64_t values, double e[STAGES + 1])
{
    memset(e, 0, (STAGES + 1) * sizeof *e);
    for (int64_t i = 0; i < values; i++) {
        const double d = fabs(one[i] - f64[i]);
        const int64_t s = i / stage < STAGES ? i / stage : STAGES;
        if (!(d <= e[s])) e[s] = d;
    }
}

typedef struct tally {
    double worst; /* largest difference in budgets; exact: any difference counts as infinite */
    int64_t bad, seen;
} tally;

static void judge(tally *t, double mine, double whole, double budget)
{
    const double d = fabs(mine - whole);
    const double part = budget > 0 ? d / budget : memcmp(&mine, &whole, sizeof mine) != 0 ? INFINITY : 0;
    t->seen++;
    if (!isfinite(mine) || !(part <= 1)) t->bad++;
    if (!(part <= t->worst)) t->worst = part;
}

static void compare(const job *j, int me, const double *mine, const double *whole,
                    const double budget[STAGES + 1], const char *what)
{
    const int64_t rows = fx_layout_local(&j->layout, me), all = fx_layout_total(&j->layout),
                  C = j->m->cfg.hidden;
    const fx_range image = j->layout.part[me][FX_IMAGE];
    tally t = {0};
    for (int s = 0; s < STAGES; s++)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < C; c++)
                judge(&t, mine[(s * rows + r) * C + c],
                      whole[(s * all + shard_joint_row(&j->layout, me, r)) * C + c], budget[s]);
    for (int64_t i = 0; i < image.count * CHANNELS; i++)
        judge(&t, mine[STAGES * rows * C + i], whole[STAGES * all * C + image.begin * CHANNELS + i],
              budget[STAGES]);
    T_CHECK(t.bad == 0, "%s, rank %d: %lld of %lld values differ, worst %.3g budgets", what, me,
            (long long)t.bad, (long long)t.seen, t.worst);
}

enum { COARSE = FX_EXACT_OFF + 1 }; /* as off, and the ring's parts come rounded to bf16, as from a GPU */

/* All meshes, layouts and exact modes of this rank count on one backend. e: E of one rank on this backend. */
static void test_meshes(fx_comm *comm, job *j, const double *whole, const int64_t rows[FX_SEGMENTS],
                        const double e[STAGES + 1])
{
    static const double exact[STAGES + 1];
    const int ranks = fx_comm_size(comm), heads = (int)j->m->cfg.heads;
    double budget[STAGES + 1];
    for (int s = 0; s <= STAGES; s++) budget[s] = 2 * e[s];
    for (int u = 1; u <= ranks; u++) {
        if (ranks % u || heads % u) continue;
        for (int kind = FX_LAYOUT_EVEN; kind <= FX_LAYOUT_STREAM; kind++)
            for (int mode = FX_EXACT_ON; mode <= COARSE; mode++) {
                char what[200];
                const bool was = j->m->be->coarse_parts;
                if (mode >= FX_EXACT_OFF && u == ranks) continue; /* no ring */
                if (mode == COARSE && (was || j->m->be->dtype != FX_BF16)) continue;
                if (fx_layout_open((fx_layout_kind)kind, ranks, rows, &j->layout) != FX_OK) {
                    T_CHECK(kind == FX_LAYOUT_STREAM && ranks == 1, "%s", fx_error());
                    continue;
                }
                T_OK(fx_mesh_make(ranks, heads, u, 0, &j->opt.mesh));
                j->opt.exact = mode == COARSE ? FX_EXACT_OFF : (fx_exact)mode;
                j->m->be->coarse_parts = was || mode == COARSE;
                snprintf(what, sizeof what,
                         "blocks, %s %s, %d heads of %d, %d text, %dx%d image, mesh %dx%d, %s%s%s",
                         j->m->be->ops->name, fx_dtype_name(j->m->be->dtype), heads, (int)j->m->cfg.head_dim,
                         (int)rows[FX_TEXT], (int)j->opt.grid_height, (int)j->opt.grid_width, u, ranks / u,
                         fx_layout_name(j->layout.kind), mode >= FX_EXACT_OFF ? ", merged" : "",
                         mode == COARSE ? " from bf16" : "");
                double *mine = run(j, comm);
                compare(j, fx_comm_rank(comm), mine, whole, mode >= FX_EXACT_OFF ? budget : exact, what);
                j->m->be->coarse_parts = was;
                free(mine);
                fx_layout_close(&j->layout);
            }
    }
}

typedef struct shape {
    int64_t text, height, width;
} shape;

/* 11, 13, 49 and 23 rows: odd, and no multiple of 2 to 8 (49: of 7); 3 and 1 + 3: ranks without rows. */
static const shape shapes[] = {{13, 1, 23}, {11, 7, 7}, {3, 5, 5}, {1, 3, 1}};

/* One shape on ref and on the subjects; f64: E of each against ref on one rank. */
static void test_shape(fx_comm *comm, fx_comm *self, const model m[3], int models, const shape *s)
{
    const int64_t rows[FX_SEGMENTS] = {s->text, s->height * s->width, 0}, all = rows[0] + rows[1];
    const int64_t stage = all * m[0].cfg.hidden, values = STAGES * stage + rows[1] * CHANNELS;
    job j = {
        .opt = {.steps = STEPS, .text_tokens = s->text, .grid_height = s->height, .grid_width = s->width}};
    double *f64 = NULL, e[STAGES + 1];
    if (fx_comm_rank(comm) == 0) /* slow: once for all */
        f64 = run_alone(&j, &m[0], self, rows);
    else
        f64 = malloc((size_t)values * sizeof *f64);
    T_OK(fx_comm_broadcast(comm, 0, f64, (size_t)values * sizeof *f64));
    for (int k = 0; k < models; k++) {
        double *one = k ? run_alone(&j, &m[k], self, rows) : f64;
        j.m = &m[k];
        if (k)
            errors(one, f64, stage, values, e);
        else
            for (int i = 0; i <= STAGES; i++)
                e[i] = 0x1p-42; /* values of order 1 to 10, 1e3 roundings of 2^-52 */
        test_meshes(comm, &j, one, rows, e);
        if (k) free(one);
    }
    free(f64);
}

void test_blocks(fx_comm *comm, bool quick)
{
    /* Together they have every ulysses of 1 to 8 ranks. */
    static const int heads[] = {24, 10, 14}, dims[] = {8, 16, 8};
    const int ranks = fx_comm_size(comm), best = ranks == 5 ? 1 : ranks == 7 ? 2 : 0;
    const int models = 1 + shard_subjects_count;
    fx_comm *self;
    T_OK(fx_comm_open("self", 60, &self));
    for (int h = 0; h < 3; h++) {
        model m[3] = {0};
        if (quick && h != best) continue;
        for (int k = 0; k < models; k++)
            T_OK(open_model(k ? shard_subjects[k - 1].backend : "ref",
                            k ? shard_subjects[k - 1].dtype : FX_F32, heads[h], dims[h], &m[k]));
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
            if (!quick || (int)i == ranks % 2 || i == 3) test_shape(comm, self, m, models, &shapes[i]);
        for (int k = 0; k < models; k++) close_model(&m[k]);
    }
    fx_comm_close(&self);
}
