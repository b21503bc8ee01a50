/* One denoise step of a synthetic FLUX model against the yardstick: the rate that oneDNN reaches on 4608 x
 * 21504 x 3072 in the same process, measured alternately with the steps so that a busy machine hits both.
 *   bench_step [--model synthetic:flux-dev:1+2] [--size 1024] [--threads 2] [--runs 5]        alone or under
 * mpirun Columns: step = slowest rank; rate = flop / step over all ranks; of oneDNN = rate / yardstick (1
 * rank only). */
#include <stdio.h>
#include <string.h>

#include "bench/dnnl_rate.h"
#include "runtime/pipeline.h"

enum { MAX_RUNS = 64 };

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, ascending);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* Linear layers and attention of the blocks: 2 operations per weight and row, 4 T^2 C per attention. */
static double step_flop(const fx_model_facts *f, double text, double image)
{
    const double C = 3072, rows = text + image, d = f->double_blocks, s = f->single_blocks;
    const double linear = 24 * C * C * rows * d + 24 * C * C * rows * s;
    return linear + 4 * rows * rows * C * (d + s);
}

int main(int argc, char **argv)
{
    fx_comm *comm = NULL;
    fx_pipeline *pipe = NULL;
    fx_pipeline_options opt = fx_pipeline_default_options("synthetic:flux-dev:1+2");
    fx_request req = fx_default_request("a benchmark");
    fx_result res;
    yardstick yard;
    double step[MAX_RUNS], unit[MAX_RUNS];
    int runs = 5;
    req.steps = 2;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--model"))
            opt.model = argv[i + 1];
        else if (!strcmp(argv[i], "--size"))
            req.width = req.height = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--threads"))
            opt.threads = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--runs"))
            runs = atoi(argv[i + 1]) < MAX_RUNS ? atoi(argv[i + 1]) : MAX_RUNS;
    }
    if (fx_comm_open("auto", 600, &comm) || fx_pipeline_open(&opt, comm, &pipe) ||
        fx_pipeline_complete(pipe, &req)) {
        fprintf(stderr, "bench_step: %s\n", fx_error());
        return 1;
    }
    const int ranks = fx_comm_size(comm), rank = fx_comm_rank(comm);
    const fx_model_facts *f = fx_pipeline_facts(pipe);
    const double image = (double)(req.width / 16) * (double)(req.height / 16),
                 flop = step_flop(f, req.t5_len, image);
    if (ranks == 1 && yardstick_open(&yard, 4608, 21504, 3072, FX_BF16, f->threads)) {
        fprintf(stderr, "bench_step: %s\n", fx_error());
        return 1;
    }
    if (ranks == 1) yardstick_run_s(&yard);
    for (int i = 0; i < runs; i++) {
        /* the second step of each run: the first one touches memory for the first time */
        if (fx_pipeline_denoise_only(pipe, &req, &res)) {
            fprintf(stderr, "bench_step: %s\n", fx_error());
            return 1;
        }
        step[i] = res.time.step[req.steps - 1];
        unit[i] = ranks == 1 ? yardstick_run_s(&yard) : 0;
    }
    if (rank == 0) {
        const double s = median(step, runs), rate = flop / s * 1e-12,
                     yard_rate = ranks == 1 ? yard.flop / median(unit, runs) * 1e-12 : 0;
        printf("# %s %dx%d, %d text rows, %s, %d runs (median), %s\n", opt.model, req.width, req.height,
               req.t5_len, fx_dtype_name(opt.dtype), runs, f->backend);
        printf("# ranks threads     flop     step     rate  oneDNN 4608x21504x3072  of oneDNN\n");
        printf("#                (TFLOP)      (s) (TFLOP/s)        %4s (TFLOP/s)        (%%)\n",
               ranks == 1 ? fx_dtype_name(yard.dtype) : "");
        printf("%7d %7d %8.3f %8.4f %9.3f %22.3f %10.1f\n", ranks, f->threads, flop * 1e-12, s, rate,
               yard_rate, yard_rate > 0 ? 100 * rate / yard_rate : 0.0);
    }
    if (ranks == 1) yardstick_close(&yard);
    fx_pipeline_close(&pipe);
    fx_comm_finish(&comm);
    return 0;
}
