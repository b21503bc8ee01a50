/* The CPU backend, op by op, at FLUX.1's sizes (1024x1024: 4096 image + 512 text rows, C 3072, 24 heads x
 * 128), and what a step of 1 double + 2 single blocks composes to. Yardstick: oneDNN's own matmul, 4608 x
 * 21504 x 3072, same process and threads, rows of both printed by turns. Best and median of the repeats: a
 * shared machine only ever adds time. bench_cpu [--threads N] [--repeat N] [--dtype bf16|f32] [--heads N]
 * [--backend cpu|onednn] [--only WORD: rows whose name has it, no composed step] */
#include "bench/dnnl_rate.h"
#include "kernels/ops.h"
#include "runtime/core/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { IMAGE = 4096, TEXT = 512, ROWS = IMAGE + TEXT, C = 3072, MLP = 4 * C, HEAD = 128, MAX_REPEAT = 99 };

static fx_backend *be;
static int repeat = 5;
static double step_s;    /* best times, composed */
static const char *only; /* NULL: all rows */

static void must(fx_status st)
{
    if (st == FX_OK) return;
    fprintf(stderr, "bench_cpu: %s\n", fx_error());
    exit(1);
}

static void *pages(size_t bytes)
{
    void *p = mmap(NULL, bytes + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) exit(1);
    (void)madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

/* Values in (-1, 1) * scale. */
static fx_tensor filled(fx_dtype dtype, int64_t rows, int64_t cols, float scale)
{
    fx_tensor t = fx_view2(pages((size_t)(rows * cols) * 8), dtype, rows, cols);
    uint32_t state = 12345;
    for (int64_t i = 0; i < rows * cols; i++) {
        state = state * 1664525u + 1013904223u;
        const float v = ((float)(state >> 8) / 8388608.0f - 1.0f) * scale;
        if (dtype == FX_F32)
            ((float *)t.data)[i] = v;
        else
            ((uint16_t *)t.data)[i] = fx_f32_to_bf16(v);
    }
    return t;
}

static void release(fx_tensor t)
{
    munmap(t.data, (size_t)fx_numel(t) * 8 + 4096);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef void (*timed_fn)(void *);

static bool wanted(const char *name)
{
    return !only || strstr(name, only);
}

static double report(const char *name, double tflop, double gbytes, double count, timed_fn fn, void *arg)
{
    double t[MAX_REPEAT];
    if (!wanted(name)) return 0;
    fn(arg);
    for (int r = 0; r < repeat; r++) {
        const double start = fx_now_s();
        fn(arg);
        t[r] = fx_now_s() - start;
    }
    qsort(t, (size_t)repeat, sizeof *t, by_value);
    printf("%-44s %9.2f %9.2f", name, t[0] * 1e3, t[repeat / 2] * 1e3);
    if (tflop > 0)
        printf(" %9.3f TFLOP/s", tflop / t[0]);
    else
        printf(" %9.1f GB/s   ", gbytes / t[0]);
    printf("  x %.0f per step\n", count);
    fflush(stdout);
    step_s += count * t[0];
    return t[0];
}

/* ---- linear ---- */

typedef struct linear_arg {
    fx_tensor y, x, b;
    fx_weight w;
    fx_act act;
} linear_arg;

static void run_linear(void *arg)
{
    const linear_arg *a = arg;
    must(fx_linear(be, a->y, a->x, a->w, a->b, a->act));
}

static void bench_linear(int64_t m, int64_t n, int64_t k, fx_act act, double count)
{
    char name[64];
    snprintf(name, sizeof name, "linear %d x %d x %d%s", (int)m, (int)n, (int)k, act ? " gelu" : "");
    if (!wanted(name)) return;
    const fx_tensor w = filled(be->dtype, n, k, 0.03f);
    linear_arg a = {.x = filled(be->dtype, m, k, 1),
                    .y = filled(be->dtype, m, n, 0),
                    .b = filled(FX_F32, 1, n, 1),
                    .act = act};
    a.b = fx_row(a.b, 0);
    a.w = (fx_weight){.n = n, .k = k, .kh = 1, .kw = 1, .kind = FX_WEIGHT_LINEAR, .dtype = be->dtype};
    const size_t bytes = fx_packed_bytes(be, &a.w);
    void *packed = pages(bytes);
    must(fx_pack(be, &a.w, w.data, packed));
    a.w.packed = packed;
    release(w);
    report(name, 2e-12 * (double)m * (double)n * (double)k, 0, count, run_linear, &a);
    munmap(packed, bytes + 4096);
    release(a.x);
    release(a.y);
}

/* ---- attention and row ops ---- */

typedef struct rows_arg {
    fx_tensor x, y, z, c, h; /* x residual [T,C]; y [T,3C] or [T,C]; z [T,C]; c vectors */
    int64_t heads;
} rows_arg;

static void run_attention(void *arg)
{
    const rows_arg *a = arg;
    const int64_t n = a->heads * HEAD;
    must(fx_attention(be, fx_heads(a->z, a->heads), fx_none(), fx_heads(fx_cols(a->y, 0, n), a->heads),
                      fx_heads(fx_cols(a->y, n, n), a->heads), fx_heads(fx_cols(a->y, 2 * n, n), a->heads),
                      fx_none(), 1 / sqrtf(HEAD)));
}

static void run_norm_mod(void *arg)
{
    const rows_arg *a = arg;
    must(fx_norm_mod(be, a->z, a->x, fx_row(a->c, 0), fx_row(a->c, 1), 1e-6f));
}

static void run_gate_add(void *arg)
{
    const rows_arg *a = arg;
    must(fx_gate_add(be, a->x, fx_row(a->c, 0), a->z));
}

static void run_gate_norm(void *arg)
{
    const rows_arg *a = arg;
    must(fx_gate_norm(be, a->h, a->x, fx_row(a->c, 0), a->z, fx_row(a->c, 0), fx_row(a->c, 1), 1e-6f));
}

static void run_rope(void *arg)
{
    const rows_arg *a = arg;
    const fx_tensor q = fx_heads(fx_cols(a->y, 0, C), C / HEAD), w = fx_view1(a->c.data, FX_F32, HEAD);
    const fx_tensor cs = fx_view3(a->x.data, FX_F32, ROWS, HEAD / 2, 2);
    must(fx_qk_norm_rope(be, fx_heads(a->z, C / HEAD), q, w, cs, 1e-6f));
}

static void bench_rows(int64_t heads)
{
    rows_arg a = {.x = filled(FX_F32, ROWS, C, 1), .c = filled(FX_F32, 2, C, 1), .heads = heads};
    a.y = filled(be->dtype, ROWS, 3 * heads * HEAD, 1);
    a.z = filled(be->dtype, ROWS, heads * HEAD, 0);
    const double flop = 4e-12 * ROWS * (double)ROWS * (double)(heads * HEAD),
                 es = be->dtype == FX_BF16 ? 2 : 4;
    report("attention 4608 tokens", flop, 0, 3, run_attention, &a);
    release(a.y);
    release(a.z);
    a.y = filled(be->dtype, ROWS, 3 * C, 1);
    a.z = filled(be->dtype, ROWS, C, 0);
    const double gb = 1e-9 * ROWS * (double)C;
    report("norm_mod 4608 x 3072", 0, gb * (4 + es), 2, run_norm_mod, &a);
    report("gate_add 4608 x 3072", 0, gb * (8 + es), 2, run_gate_add, &a);
    a.h = filled(be->dtype, ROWS, C, 0);
    report("gate_norm 4608 x 3072", 0, gb * (8 + 2 * es), 2, run_gate_norm, &a);
    release(a.h);
    report("qk_norm_rope 4608 x 24 x 128", 0, gb * 2 * es, 6, run_rope, &a);
    release(a.x);
    release(a.y);
    release(a.z);
}

/* ---- yardstick ---- */

static void run_yard(void *arg)
{
    (void)yardstick_run_s(arg);
}

/* TFLOP/s; 0 without oneDNN. */
static double yardstick_rate(void)
{
    yardstick y;
    char name[64];
    double rate = 0;
    if (!wanted("oneDNN")) return 0;
    if (yardstick_open(&y, ROWS, 21504, C, be->dtype, be->threads))
        must(FX_FAIL(FX_EDEVICE, "%s", fx_error()));
    snprintf(name, sizeof name, "%s matmul 4608 x 21504 x 3072", y.name);
    if (y.flop > 0) rate = 1e-12 * y.flop / report(name, 1e-12 * y.flop, 0, 0, run_yard, &y);
    yardstick_close(&y);
    return rate;
}

static const char *option(int argc, char **argv, const char *name, const char *otherwise)
{
    for (int i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], name)) otherwise = argv[i + 1];
    return otherwise;
}

/* The step composed of the rows' best times, beside the yardstick before and after them. */
static void print_step(double before, int heads)
{
    const double composed = step_s, yard = (before + yardstick_rate()) / 2,
                 tflop = 3.13 + 0.78 * heads / 24.0;
    printf("step of 1 double + 2 single blocks: %.2f s, %.3f TFLOP/s; oneDNN %.3f TFLOP/s; ratio %.2f\n",
           composed, tflop / composed, yard, yard > 0 ? tflop / composed / yard : 0);
}

int main(int argc, char **argv)
{
    const int threads = atoi(option(argc, argv, "--threads", "2")),
              heads = atoi(option(argc, argv, "--heads", "24"));
    const bool bf16 = strcmp(option(argc, argv, "--dtype", "bf16"), "f32") != 0;
    repeat = atoi(option(argc, argv, "--repeat", "5"));
    only = option(argc, argv, "--only", NULL);
    if (repeat < 1 || repeat > MAX_REPEAT || threads < 1 || heads < 1 || heads > 24) return 2;
    fx_arena *arena;
    must(fx_arena_open(NULL, (size_t)1 << 30, &arena));
    must(fx_backend_open(option(argc, argv, "--backend", "cpu"), bf16 ? FX_BF16 : FX_F32, threads, &be));
    be->arena = arena;
    printf("# bench_cpu: %s, %s; best and median of %d, wall clock\n", fx_backend_describe(be),
           bf16 ? "bf16" : "f32", repeat);
    printf("# %-42s %9s %9s\n", "op", "best ms", "median ms");
    const double before = yardstick_rate();
    bench_linear(ROWS, 21504, C, FX_ACT_NONE, 0); /* the yardstick's shape */
    step_s = 0;
    bench_linear(ROWS, 3 * C, C, FX_ACT_NONE, 2); /* single blocks */
    bench_linear(ROWS, MLP, C, FX_ACT_GELU_TANH, 2);
    bench_linear(ROWS, C, 5 * C, FX_ACT_NONE, 2);
    bench_linear(IMAGE, 3 * C, C, FX_ACT_NONE, 1); /* double block */
    bench_linear(IMAGE, C, C, FX_ACT_NONE, 1);
    bench_linear(IMAGE, MLP, C, FX_ACT_GELU_TANH, 1);
    bench_linear(IMAGE, C, MLP, FX_ACT_NONE, 1);
    bench_linear(TEXT, 3 * C, C, FX_ACT_NONE, 1);
    bench_linear(TEXT, C, C, FX_ACT_NONE, 1);
    bench_linear(TEXT, MLP, C, FX_ACT_GELU_TANH, 1);
    bench_linear(TEXT, C, MLP, FX_ACT_NONE, 1);
    bench_rows(heads);
    if (!only) print_step(before, heads);
    fx_backend_close(&be);
    fx_arena_close(&arena);
    return 0;
}
