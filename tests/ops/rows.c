/* The rows of one (backend, dtype, op): cases x input kinds x argument dtypes, run one after the other in a child process
 * (check_ops.c). Where it stands lies in shared memory, so that a crash or a hang is one failed row. */
#include "tests/ops/ops_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct op_row {
    int index; /* of the case */
    unsigned kind;
    int free_dtypes;
} op_row;

/* Each row has its own stream of numbers, so that it replays alone. */
static uint64_t row_seed(uint64_t seed, const op_row *r, fx_dtype dtype)
{
    return seed * 0x9e3779b97f4a7c15u + (uint64_t)r->index * 0x100000001b3u + r->kind * 64 +
           (unsigned)dtype * 8 + (unsigned)r->free_dtypes;
}

static bool case_runs(const op_job *j, const op_case *c)
{
    const unsigned other = j->dtype == FX_BF16 ? ONLY_F32 : ONLY_BF16;
    return strcmp(c->op, j->def->name) == 0 && !(c->kinds & other) &&
           (c->view != SAMPLED ||
            strcmp(j->backend, "twin") != 0) && /* a thread of a GPU at a time: too slow */
           (!(c->kinds & LONG) || getenv("FX_LONG") || j->only >= 0);
}

/* Calls fn for each row of the job with its number; numbers count all rows of the op, run or not. */
static void each_row(const op_job *j, void (*fn)(const op_job *, int number, const op_row *, void *),
                     void *ctx)
{
    int number = 0;
    for (int i = 0; i < op_case_count; i++)
        for (unsigned kind = 1; kind <= BROKEN; kind *= 2)
            for (int free_dtypes = 0; free_dtypes < 4; free_dtypes++, number++) {
                const bool possible = !(free_dtypes & ~j->def->free_dtypes) &&
                                      !(free_dtypes && (j->dtype != FX_BF16 || op_cases[i].view == SAMPLED));
                const op_row r = {i, kind, free_dtypes};
                if (!case_runs(j, &op_cases[i]) || !(op_cases[i].kinds & kind) || !possible) continue;
                if (number >= j->first && (j->only < 0 || number == j->only)) fn(j, number, &r, ctx);
            }
}

/* ---- running ---- */

typedef struct runner {
    fx_backend *be, *be1, *ref;
    op_progress *progress;
    bool stopped;
} runner;

static void make_trial(const op_job *j, const op_row *r, const runner *run, trial *t)
{
    *t = (trial){.c = &op_cases[r->index], .def = j->def, .kind = r->kind};
    t->be = run->be, t->be1 = run->be1, t->ref = run->ref;
    t->rng = row_seed(j->seed, r, run->be->dtype);
    t->y_dtype = r->free_dtypes & 1 ? t->be->stream : t->be->dtype;
    t->x_dtype = r->free_dtypes & 2 ? t->be->stream : t->be->dtype;
    make_label(t);
}

static void run_row(const op_job *j, int number, const op_row *r, void *ctx)
{
    runner *run = (runner *)ctx;
    op_progress *p = run->progress;
    trial t;
    if (run->stopped) return;
    make_trial(j, r, run, &t);
    snprintf(p->label, sizeof p->label, "%s", t.label);
    snprintf(p->again, sizeof p->again, "%s%s%s%s --op %s --backend %s --dtype %s --seed %llu --row %d",
             j->isa ? "ONEDNN_MAX_CPU_ISA=" : "", j->isa ? j->isa : "", j->isa ? " " : "", j->program,
             j->def->name, j->backend, fx_dtype_name(j->dtype), (unsigned long long)j->seed, number);
    p->row = number;
    alarm(j->limit_s);
    const bool ok = t.c->view == SAMPLED ? run_sampled(&t) : run_trial(&t);
    alarm(0);
    p->passed += ok;
    p->failed += !ok;
    if (!ok) printf("     again: %s\n", p->again);
    run->stopped = !ok && j->stop_early;
}

/* Partial results must not be stored in bf16: the wrapper refuses them for every backend. */
static bool merge_refuses_bf16(fx_backend *be)
{
    uint16_t o[4] = {0};
    float lse[2] = {0};
    const fx_tensor ot = fx_view3(o, FX_BF16, 1, 2, 2), lt = fx_view2(lse, FX_F32, 2, 1);
    if (be->stream != FX_F32 || fx_attention_merge(be, ot, lt, ot, lt) == FX_ESHAPE) return true;
    printf("FAIL attention_merge takes bf16 partial results\n");
    return false;
}

static fx_status open_backends(const op_job *j, runner *run)
{
    FX_TRY(fx_backend_open(j->backend, j->dtype, 2, &run->be));
    FX_TRY(fx_backend_open(j->backend, j->dtype, 1, &run->be1));
    FX_TRY(fx_backend_open("ref", FX_F32, 2, &run->ref));
    return fx_arena_open(NULL, 16 << 20, &run->ref->arena);
}

void run_rows(const op_job *j, op_progress *p)
{
    runner run = {.progress = p};
    op_scores = &p->score;
    if (open_backends(j, &run)) {
        printf("FAIL %s %s: %s\n", j->backend, fx_dtype_name(j->dtype), fx_error());
        p->failed++;
    } else {
        if (j->def == &op_attention_merge && j->first == 0 && !merge_refuses_bf16(run.be)) p->failed++;
        if (j->mutant) mutate(j->mutant, run.be), mutate(j->mutant, run.be1);
        each_row(j, run_row, &run);
        fx_arena_close(&run.ref->arena);
    }
    fx_backend_close(&run.be);
    fx_backend_close(&run.be1);
    fx_backend_close(&run.ref);
    p->finished = true;
}

/* ---- listing ---- */

static void print_row(const op_job *j, int number, const op_row *r, void *ctx)
{
    const op_case *c = &op_cases[r->index];
    printf("%-16s %-7s %-5s row %-6d [%lld,%lld,%lld,%lld] v%d view%d %s free%d  %s\n", j->def->name,
           j->backend, fx_dtype_name(j->dtype), number, (long long)c->t, (long long)c->c, (long long)c->k,
           (long long)c->h, c->variant, (int)c->view, kind_name(r->kind), r->free_dtypes, c->why);
    ++*(int *)ctx;
}

int list_rows(const op_job *j)
{
    int count = 0;
    each_row(j, print_row, &count);
    return count;
}

/* ---- timing: one line per case, of NORMAL inputs ---- */

static void time_row(const op_job *j, int number, const op_row *r, void *ctx)
{
    trial t;
    (void)number;
    if (r->kind != NORMAL || r->free_dtypes) return;
    make_trial(j, r, (runner *)ctx, &t);
    if (t.c->view == SAMPLED)
        time_sampled(&t);
    else
        time_trial(&t);
}

void time_rows(const op_job *j)
{
    runner run = {0};
    if (open_backends(j, &run))
        printf("%s\n", fx_error());
    else
        each_row(j, time_row, &run);
    if (run.ref) fx_arena_close(&run.ref->arena);
    fx_backend_close(&run.be);
    fx_backend_close(&run.be1);
    fx_backend_close(&run.ref);
}
