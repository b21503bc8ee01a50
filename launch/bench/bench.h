/* Inside `fluxpar bench`: what is compared (bench_cases.c), how it is timed (bench_run.c), and the table (bench_table.c). */
#ifndef FX_LAUNCH_BENCH_H
#define FX_LAUNCH_BENCH_H

#include <jansson.h>

#include "launch/bootstrap.h"
#include "launch/options.h"
#include "runtime/pipeline.h"

enum { FX_BENCH_CASES = 64, FX_BENCH_REPLAYS = 5 };

/* A mesh, and what differs from the command line. */
typedef struct fx_bench_case {
    char name[96]; /* "2x1:layout=stream" */
    int ranks;     /* the first ones of the job */
    int base; /* the earlier case, of one rank and the same numbers, that its bytes and its speed are compared with;
                      itself where it is one; -1: none */
    fx_options used;
} fx_bench_case;

/* The cases of --meshes, one rank first. heads: of the model. FX_EINVAL: what is wrong with LIST. */
fx_status fx_bench_cases(const fx_options *, int ranks, int heads, fx_bench_case **out, int *n);
/* Sets every case's base; after the backends are known. */
void fx_bench_bases(fx_bench_case *, int n);

/* What was measured of a case; complete on rank 0. Times in seconds, the slowest rank's. */
typedef struct fx_bench_row {
    const fx_bench_case *of;
    fx_model_facts facts;
    char backend[192], exchange[96];
    fx_layout_kind layout;                /* the one used */
    int kept_texts;                       /* runs that found the prompt encoded: none should */
    int runs, steps;                      /* runs done so far */
    double *image, *text, *denoise, *vae; /* [runs] */
    double *exposed; /* [runs] per step, mean over ranks; NaN where the host does not wait */
    double *step;    /* [runs, steps] */
    double comm[FX_BENCH_REPLAYS], load; /* comm: the transfers of a step by themselves */
    uint64_t weights, arena, process;    /* bytes of the rank that has most; process: peak of all so far */
    uint64_t sent; /* bytes per step, of the rank that sends most; text and VAE are in it */
    int64_t bad_pictures, bad_latents; /* bytes unlike the base's, the worst run; -1: not compared */
    int diff;                   /* largest difference from the first case's picture, in 1/255; -1: none */
    uint8_t *picture, *latents; /* of a base: what others are compared with */
    size_t picture_bytes, latents_bytes;
} fx_bench_row;

typedef struct fx_bench {
    fx_run *s;
    const fx_options *used; /* of the command line, defaults filled in */
    const fx_bench_case *cases;
    fx_bench_row *rows; /* [n] */
    int n;
    fx_request request; /* sizes filled in after the first opening */
} fx_bench;

/* Times all cases by turns. Collective. */
fx_status fx_bench_run(fx_bench *);
void fx_bench_free(fx_bench *);

/* Rank 0. The lines before the table, and the table. */
void fx_bench_print_header(const fx_bench *);
void fx_bench_print_rows(const fx_bench *);
json_t *fx_bench_json(const fx_bench *);
/* Does a row's comparison say that bytes differ which must not? */
bool fx_bench_wrong(const fx_bench_row *);

/* The value that fraction p of v[n] do not exceed (nearest rank), and the middle one; NaN of no values. */
double fx_bench_percentile(const double *v, int n, double p);
double fx_bench_median(const double *v, int n);

#endif
