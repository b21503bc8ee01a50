/* Every op of every backend against ref (f64), by the error budgets of kernels/ops.h.
 *   check_ops [--op PATTERN] [--backend NAME] [--dtype f32|bf16] [--seed N] [--row N] [--bench] [--list] [--selftest]
 * PATTERN as in the shell ('attention*'); NAME also ref (checks the checker) or guard:cpu. A failure prints the command
 * that repeats its row bit for bit. Each (backend, dtype, op) runs in a child process: a crash or a hang is one failed row.
 * --bench: then the time of each case, if nothing failed. --selftest: only the wrong ops that must be found (they run with
 * the whole table too). ONEDNN_MAX_CPU_ISA=AVX2 (AVX512_CORE, SSE41) tries other instruction sets; FX_LONG adds the large
 * shapes and draws a seed. Structure: tests/ops/ops_test.h. */
#include "tests/ops/ops_test.h"
#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef struct options {
    const char *op, *backend, *dtype;
    uint64_t seed;
    int row;
    bool bench, list, selftest;
} options;

static op_progress *shared; /* with the child */
static const char *program;

/* ---- children ---- */

/* Runs fn in a child; its exit status as of wait. */
static int in_child(void (*fn)(const op_job *, op_progress *), const op_job *j, bool quiet)
{
    int status = 0;
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
        const int null = quiet ? open("/dev/null", O_WRONLY) : -1;
        if (null >= 0) dup2(null, STDOUT_FILENO);
        fn(j, shared);
        exit(0);
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return pid < 0 ? -1 : status;
}

/* All rows of a job: when the child dies in one, the next child goes on behind it. */
static void run_job(op_job j, bool quiet)
{
    *shared = (op_progress){.row = -1};
    for (;;) {
        const int status = in_child(run_rows, &j, quiet), row = shared->row;
        if (shared->finished && WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
        shared->failed++;
        if (!quiet) {
            printf("FAIL %s: ", row < 0 ? "before the first row" : shared->label);
            if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
                printf("not done after %u s\n", j.limit_s);
            else if (WIFSIGNALED(status))
                printf("ended by signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
            else
                printf("the process ended with %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
            if (row >= 0) printf("     again: %s\n", shared->again);
        }
        if (row < 0 || shared->finished || (j.stop_early && shared->failed)) return;
        j.first = row + 1;
    }
}

/* ---- the table ---- */

static void print_score(const op_job *j)
{
    const op_score *s = &shared->score;
    if (s->trials)
        printf("%-16s %-7s %-5s %6d %8.3f %8.3f  %s%s\n", j->def->name, j->backend, fx_dtype_name(j->dtype),
               s->trials, s->ratio, s->rms, s->beyond > 0.9 ? "MARGINAL " : "", s->at);
}

/* Backend onednn is backend cpu but for the ops with weights. */
static bool own_op(const char *backend, const char *op)
{
    return !strstr(backend, "onednn") || strcmp(op, "linear") == 0 || strcmp(op, "conv2d") == 0;
}

static void describe(const op_job *j, op_progress *p)
{
    fx_backend *be = NULL;
    (void)p;
    if (fx_backend_open(j->backend, j->dtype, 2, &be) == FX_OK)
        printf("%s %s: %s\n", j->backend, fx_dtype_name(j->dtype), fx_backend_describe(be));
    fx_backend_close(&be);
}

static void bench_rows(const op_job *j, op_progress *p)
{
    (void)p;
    time_rows(j);
}

typedef enum { RUN, BENCH, LIST, DESCRIBE } what;

static void one_dtype(const options *o, const char *backend, fx_dtype dtype, what w)
{
    op_job j = {.backend = backend, .dtype = dtype, .seed = o->seed, .only = o->row, .program = program};
    j.limit_s = getenv("FX_LONG") ? 600 : 120;
    j.isa = getenv("ONEDNN_MAX_CPU_ISA");
    if (o->dtype && strcmp(o->dtype, fx_dtype_name(dtype)) != 0) return;
    if (w == DESCRIBE) (void)in_child(describe, &j, false);
    for (int i = 0; w != DESCRIBE && (j.def = op_at(i)); i++) {
        if (fnmatch(o->op, j.def->name, 0) != 0 || !own_op(backend, j.def->name)) continue;
        if (w == LIST) test_passed += list_rows(&j);
        if (w == BENCH) (void)in_child(bench_rows, &j, false);
        if (w != RUN) continue;
        run_job(j, false);
        print_score(&j);
        test_passed += shared->passed;
        test_failed += shared->failed;
    }
}

/* The backend that was named, or all but ref (the judge) and guard (which watches one of the others). */
static int each_backend(const options *o, what w)
{
    char names[200], *save = NULL;
    int count = 0;
    snprintf(names, sizeof names, "%s", o->backend ? o->backend : fx_backend_list());
    for (char *name = strtok_r(names, " ", &save); name; name = strtok_r(NULL, " ", &save)) {
        if (!o->backend && (!strcmp(name, "ref") || !strcmp(name, "guard"))) continue;
        one_dtype(o, name, FX_F32, w);
        one_dtype(o, name, FX_BF16, w);
        count++;
    }
    return count;
}

/* ---- wrong ops ---- */

static const op_def *def_named(const char *name)
{
    int i = 0;
    while (op_at(i) && strcmp(op_at(i)->name, name) != 0) i++;
    return op_at(i);
}

static void one_mutant(const options *o, const char *backend, const op_mutant *m)
{
    op_job j = {.backend = backend, .seed = o->seed, .only = -1, .program = program, .mutant = m};
    j.def = def_named(m->op);
    j.stop_early = true;
    j.limit_s = 120;
    int found = 0;
    for (int d = 0; d < 2 && !found; d++) { /* some show in one dtype only */
        j.dtype = d ? FX_BF16 : FX_F32;
        run_job(j, true);
        found = shared->failed;
    }
    T_CHECK(found, "%s: %s: no row found it", m->op, m->name);
}

/* A row that crashes or hangs is one failed row; the others still run. */
static void one_accident(const options *o, const char *backend, const op_mutant *m)
{
    op_job j = {.backend = backend, .seed = o->seed, .only = -1, .program = program};
    j.def = def_named(m->op);
    j.dtype = FX_F32;
    j.limit_s = 120;
    run_job(j, true);
    const int passed = shared->passed, failed = shared->failed;
    j.mutant = m;
    j.limit_s = 2;
    run_job(j, true);
    T_CHECK(!failed && shared->passed > 0 && shared->failed > 0 && shared->passed + shared->failed == passed,
            "%s in %s: %d passed and %d failed of %d rows", m->name, m->op, shared->passed, shared->failed,
            passed);
}

static void selftest(const options *o)
{
    const char *backend = strstr(fx_backend_list(), "cpu") ? "cpu" : "ref";
    const int before = test_passed;
    if (!strcmp(backend, "ref")) {
        T_SKIP("wrong ops: no f32 backend to make wrong");
        return;
    }
    for (int i = 0; i < op_mutant_count; i++)
        if (fnmatch(o->op, op_mutants[i].op, 0) == 0) one_mutant(o, backend, &op_mutants[i]);
    if (fnmatch(o->op, op_mutant_crash.op, 0) == 0) {
        one_accident(o, backend, &op_mutant_crash);
        one_accident(o, backend, &op_mutant_hang);
    }
    printf("wrong ops and accidents found: %d\n", test_passed - before);
}

/* ---- options ---- */

static int usage(const char *wrong)
{
    fprintf(stderr,
            "check_ops: %s\nusage: check_ops [--op PATTERN] [--backend NAME] [--dtype f32|bf16] [--seed N] "
            "[--row N] "
            "[--bench] [--list] [--selftest]\n",
            wrong);
    return 2;
}

static bool flag(const char *arg, const char *name, bool *set)
{
    if (strcmp(arg, name) != 0) return false;
    *set = true;
    return true;
}

static bool parse(int argc, char **argv, options *o)
{
    /* The suite repeats itself, so that a red run means a change; the long target draws new numbers each time. */
    *o = (options){.op = "*", .seed = getenv("FX_LONG") ? (uint64_t)time(NULL) % 100000 : 1837, .row = -1};
    for (int i = 1; i < argc; i++) {
        if (flag(argv[i], "--bench", &o->bench) || flag(argv[i], "--list", &o->list) ||
            flag(argv[i], "--selftest", &o->selftest))
            continue;
        if (i + 1 == argc) return false;
        const char *name = argv[i++];
        if (!strcmp(name, "--op"))
            o->op = argv[i];
        else if (!strcmp(name, "--backend"))
            o->backend = argv[i];
        else if (!strcmp(name, "--dtype"))
            o->dtype = argv[i];
        else if (!strcmp(name, "--seed"))
            o->seed = strtoull(argv[i], NULL, 10);
        else if (!strcmp(name, "--row"))
            o->row = atoi(argv[i]);
        else
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    options o;
    program = argv[0];
    if (!parse(argc, argv, &o)) return usage("unknown option, or one without its value");
    if (o.dtype && strcmp(o.dtype, "f32") != 0 && strcmp(o.dtype, "bf16") != 0) return usage("unknown dtype");
    if (!op_cases_known()) return usage("a case names an op that is not in the list");
    shared =
        (op_progress *)mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return usage("no shared memory");
    if (o.list) {
        each_backend(&o, LIST);
        return test_passed ? 0 : usage("no such row");
    }
    printf("check_ops: seed %llu\n", (unsigned long long)o.seed);
    if (!o.selftest) {
        each_backend(&o, DESCRIBE);
        printf("%-16s %-7s %-5s %6s %8s %8s  worst at\n", "op", "backend", "dtype", "rows", "err/B", "rms");
        if (!each_backend(&o, RUN)) T_SKIP("no backend besides ref was built");
        if (!test_passed && !test_failed && !test_skipped)
            T_CHECK(false, "no row has such an op, dtype or number");
    }
    if (o.selftest || (!o.backend && !o.dtype && o.row < 0)) selftest(&o);
    if (o.bench && test_failed) printf("no times: something failed\n");
    if (o.bench && !test_failed) each_backend(&o, BENCH);
    return test_end("check_ops");
}
