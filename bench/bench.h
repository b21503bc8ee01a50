/* What the bench programs share: the voice ('#' lines, names, units, rows), samples and their medians, and the same rows as JSON.
 * A program keeps one `bench`, adds a row per measurement, and ends with bench_end. Columns: METRICS.md. */
#ifndef FX_BENCH_BENCH_H
#define FX_BENCH_BENCH_H

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/ops.h"
#include "parallel/comm.h"
#include "runtime/core/clock.h"
#include "runtime/core/host.h"

enum { BENCH_RUNS = 99 };

typedef struct bench {
    const char *name; /* "bench_comm" */
    fx_comm *comm;    /* NULL: one process */
    json_t *root, *rows;
    const char *json_path; /* NULL: none */
    int64_t wrong;
    bool speaks; /* rank 0 */
} bench;

/* Ends the program, and with it the job. */
static inline void bench_must(const bench *b, fx_status st)
{
    if (st == FX_OK) return;
    fprintf(stderr, "%s: %s\n", b->name, fx_error());
    fflush(NULL);
    if (b->comm && fx_comm_size(b->comm) > 1) fx_comm_abort(b->comm, fx_exit_code(st));
    exit(fx_exit_code(st));
}

/* The value of --name, or otherwise. Unknown words are refused by bench_known. */
static inline const char *bench_option(int argc, char **argv, const char *name, const char *otherwise)
{
    for (int i = 1; i + 1 < argc; i += 2)
        if (!strcmp(argv[i], name)) otherwise = argv[i + 1];
    return otherwise;
}

/* names: "|--runs|--json|". Every second word is one of them and has a value. */
static inline bool bench_known(int argc, char **argv, const char *names)
{
    for (int i = 1; i < argc; i += 2) {
        char key[40];
        if (snprintf(key, sizeof key, "|%s|", argv[i]) < (int)sizeof key && strstr(names, key) &&
            i + 1 < argc)
            continue;
        fprintf(stderr, "%s: %s is no option, or has no value; options: %s\n", argv[0], argv[i], names);
        return false;
    }
    return true;
}

static inline int64_t bench_number(int argc, char **argv, const char *name, int64_t otherwise, int64_t lo,
                                   int64_t hi)
{
    const char *text = bench_option(argc, argv, name, NULL);
    char *end;
    if (!text) return otherwise;
    const long long v = strtoll(text, &end, 10);
    if (*text && !*end && v >= lo && v <= hi) return v;
    fprintf(stderr, "%s: %s %s is not a whole number from %lld to %lld\n", argv[0], name, text, (long long)lo,
            (long long)hi);
    exit(2);
}

static inline int bench_ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts v. */
static inline double bench_median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, bench_ascending);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static inline json_t *bench_samples(const double *v, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(list, json_real(v[i]));
    return list;
}

static inline json_t *bench_real(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

/* The first '#' lines and the head of the JSON. what: backend and libraries; parameters: as text. */
static inline void bench_begin(bench *b, const char *name, fx_comm *comm, const char *json_path,
                               const char *what, const char *parameters)
{
    const fx_host h = fx_host_read();
    const time_t now = time(NULL);
    struct tm utc;
    char date[32] = "";
    const int ranks = comm ? fx_comm_size(comm) : 1;
    *b = (bench){
        .name = name, .comm = comm, .json_path = json_path, .speaks = !comm || fx_comm_rank(comm) == 0};
    if (gmtime_r(&now, &utc)) strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    b->rows = json_array();
    b->root = json_pack("{s:s, s:s, s:s, s:{s:s, s:s, s:i, s:I, s:f}, s:{s:s, s:s}, s:{s:s, s:i}, s:o}",
                        "bench", name, "version", FX_VERSION, "date", date, "machine", "processor",
                        h.processor, "system", h.system, "cores", h.cores, "memory_bytes",
                        (json_int_t)h.memory_bytes, "load", h.load, "libraries", "mpi", fx_comm_describe(),
                        "backend", what, "parameters", "text", parameters, "ranks", ranks, "rows", b->rows);
    if (!b->root) bench_must(b, FX_FAIL(FX_ENOMEM, "no memory for the table, or a text in it is not UTF-8"));
    if (!b->speaks) return;
    printf("# %s %s; %s; %s\n", name, FX_VERSION, fx_comm_describe(), what);
    printf("# machine %s, %d cores, %.1f GiB, %s; load %.2f before; %d rank%s\n", h.processor, h.cores,
           (double)h.memory_bytes / 0x1p30, h.system, h.load, ranks, ranks == 1 ? "" : "s");
    printf("# %s\n#\n", parameters);
}

/* A row for the JSON; takes it over. */
static inline void bench_row(bench *b, json_t *row, int64_t wrong)
{
    if (!row || json_array_append_new(b->rows, row)) bench_must(b, FX_FAIL(FX_ENOMEM, "no memory for a row"));
    b->wrong += wrong;
    fflush(stdout);
}

/* Prints the verdict and writes the JSON. Returns the exit code: 6 when values were wrong. */
static inline int bench_end(bench *b)
{
    int code = b->wrong ? 6 : 0;
    if (b->speaks) {
        printf("# wrong values: %lld%s\n", (long long)b->wrong, b->wrong ? "" : " OK");
        if (b->json_path && json_dump_file(b->root, b->json_path, JSON_INDENT(2) | JSON_REAL_PRECISION(10))) {
            fprintf(stderr, "%s: cannot write %s\n", b->name, b->json_path);
            code = 7;
        }
    }
    json_decref(b->root);
    return code;
}

#endif
