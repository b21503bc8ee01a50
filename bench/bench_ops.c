/* Every op of kernels/ops.h at FLUX.1's sizes (C 3072, heads of 128, 512 text rows), on any backend, each alone; a few rows of
 * each result against f64 loops; and what a step of D double + S single blocks composes to.
 *   bench_ops [--backend auto] [--dtype bf16|f32] [--threads N] [--rows 4096: image rows] [--double 19] [--single 38] [--runs 5]
 *             [--only WORD,...: ops whose name has one] [--linear MxNxK: only this product] [--ceilings yes: only a large product
 *             and a large copy] [--rings yes: also few heads, and the parts of rings] [--spoil yes: a value of each result is
 *             made wrong before it is checked] [--json FILE]
 * Columns: METRICS.md. */
#include "bench/ops_list.h"
#include "parallel/cores.h"

enum { TEXT = 512, C = 3072, MLP = 4 * C, SAMPLE = 2, COLUMNS = 64 };

typedef struct job {
    bench b;
    fx_backend *be, *ref;
    const char *only;
    bool spoil; /* the results that are checked are made wrong: is it seen? */
    int runs;
    double step_s;
} job;

/* ---- a few rows against f64 loops ---- */

static fx_status to_doubles(fx_backend *be, fx_tensor t, double **out)
{
    const int64_t n = fx_numel(t);
    void *host = malloc(fx_bytes(t) + 1);
    *out = malloc((size_t)n * sizeof **out + 1);
    FX_CHECK(host && *out, FX_ENOMEM, "no memory to compare");
    const fx_status st = fx_download(be, host, t);
    if (t.dtype == FX_U8)
        for (int64_t i = 0; i < n; i++) (*out)[i] = ((const uint8_t *)host)[i];
    else
        fx_convert(*out, FX_F64, host, t.dtype, n);
    free(host);
    return st;
}

/* mine[rows, last], want[rows, fewer]: the first columns. A value is wrong when it is off by more than what roundings of its
 * dtype and of a long sum can do: gross errors; tests/check_ops has the budgets. */
static int64_t count_wrong(const double *mine, int64_t last, const double *want, int64_t rows, int64_t fewer,
                           fx_dtype y)
{
    double square = 0;
    int64_t wrong = 0;
    for (int64_t i = 0; i < rows * fewer; i++) square += want[i] * want[i];
    const double size = sqrt(square / (double)(rows * fewer)), part = y == FX_BF16 ? 0.02 : 0.002;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < fewer; i++) {
            const double w = want[r * fewer + i], off = fabs(mine[r * last + i] - w);
            wrong += !(off <= (y == FX_U8 ? 1 : part * (fabs(w) + size)));
        }
    return wrong;
}

static fx_status check(job *j, const spec *p, const call *mine, int64_t *wrong)
{
    side s = {.be = j->ref, .begin = p->rows / 3, .rows = SAMPLE, .cols = COLUMNS};
    call c = {0};
    double *a = NULL, *b = NULL;
    if (s.begin + s.rows > p->rows) s.begin = 0, s.rows = p->rows;
    fx_status st;
    FX_TRY_OUT(p->kind->make(&s, p, &c));
    FX_TRY_OUT(p->kind->run(j->ref, p, &c));
    const int64_t grown = p->kind->out_rows, last = mine->y.shape[mine->y.ndim - 1],
                  fewer = c.y.shape[c.y.ndim - 1];
    FX_TRY_OUT(to_doubles(j->be, fx_rows(mine->y, grown * s.begin, grown * s.rows), &a));
    FX_TRY_OUT(to_doubles(j->ref, c.y, &b));
    if (j->spoil) a[0] += 3 + fabs(a[0]);
    *wrong = count_wrong(a, last, b, fx_numel(c.y) / fewer, fewer, mine->y.dtype);
out:
    if (p->kind == &upload || p->kind == &download) free(c.e.data);
    free(a);
    free(b);
    side_clear(&s);
    return st;
}

/* ---- a row ---- */

static double flop_of(const spec *p)
{
    const double rows = (double)p->rows, n = (double)p->n, k = (double)p->k, width = (double)p->width;
    if (p->kind == &linear) return 2 * rows * n * k;
    if (p->kind == &conv2d) return 18 * rows * width * n * k;
    if (p->kind == &attention) return 4 * rows * width * n;
    return 0;
}

/* Whole operands that are read and written; in place: both. */
static double bytes_of(const spec *p, const call *c)
{
    double sum = (double)fx_bytes(c->y) + (double)fx_bytes(c->a) + (double)fx_bytes(c->e);
    if (p->kind == &glu) sum += (double)fx_bytes(c->b);
    if (p->kind == &embed) sum += (double)fx_bytes(c->y) / 2 - (double)fx_bytes(c->a);
    if (p->kind == &gate_add || p->kind == &attention_merge || p->kind == &axpy)
        sum += (double)fx_bytes(c->y);
    if (p->kind == &gate_norm) sum += (double)fx_bytes(c->a);
    if (p->kind == &count_nonfinite) sum = (double)fx_bytes(c->y);
    return sum;
}

static fx_status time_run(job *j, const spec *p, call *c, int calls, double *each)
{
    const double begin = fx_now_s();
    for (int i = 0; i < calls; i++) FX_TRY(p->kind->run(j->be, p, c));
    FX_TRY(fx_sync(j->be));
    *each = (fx_now_s() - begin) / calls;
    return FX_OK;
}

static void print(job *j, const spec *p, const call *c, double t[], int calls, int64_t wrong)
{
    char name[80];
    int at = snprintf(name, sizeof name, "%s %lld", p->kind->name, (long long)p->rows);
    if (p->width) at += snprintf(name + at, sizeof name - (size_t)at, " x %lld", (long long)p->width);
    at += snprintf(name + at, sizeof name - (size_t)at, " x %lld", (long long)p->n);
    if (p->k)
        at += snprintf(name + at, sizeof name - (size_t)at, p->kind == &attention ? " into f%lld" : " x %lld",
                       (long long)p->k);
    if (p->act) snprintf(name + at, sizeof name - (size_t)at, " %s", p->act == FX_ACT_SILU ? "silu" : "gelu");
    json_t *samples = bench_samples(t, j->runs);
    const double s = bench_median(t, j->runs), flop = flop_of(p), bytes = bytes_of(p, c);
    char rate[24], moved[24];
    snprintf(rate, sizeof rate, flop > 0 ? "%.3f" : "-", flop / s * 1e-12);
    snprintf(moved, sizeof moved, flop > 0 ? "-" : "%.1f", bytes / s * 1e-9);
    printf("  %-44s %11.1f %11.1f %9s %9s %6.0f %10.3f %8lld\n", name, s * 1e6, t[0] * 1e6, rate, moved,
           p->count, p->count * s * 1e3, (long long)wrong);
    j->step_s += p->count * s;
    bench_row(&j->b,
              json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:i, s:I, s:{s:o}}", "op",
                        p->kind->name, "shape", name, "rows", (json_int_t)p->rows, "width",
                        (json_int_t)p->width, "n", (json_int_t)p->n, "k", (json_int_t)p->k, "time_us",
                        s * 1e6, "best_us", t[0] * 1e6, "tflops", flop / s * 1e-12, "gbs", bytes / s * 1e-9,
                        "count", p->count, "calls", calls, "wrong", (json_int_t)wrong, "samples", "time_s",
                        samples),
              wrong);
}

/* --only WORD,WORD: no list, or a word of it is in the name. */
static bool is_wanted(const char *only, const char *name)
{
    char list[200], *next = NULL;
    snprintf(list, sizeof list, "%s", only ? only : "");
    for (char *w = strtok_r(list, ",", &next); w; w = strtok_r(NULL, ",", &next))
        if (strstr(name, w)) return true;
    return !only;
}

static void measure(job *j, const spec *p)
{
    side s = {.be = j->be, .rows = p->rows};
    call c = {0};
    double t[BENCH_RUNS], once;
    int64_t wrong = 0;
    if (!is_wanted(j->only, p->kind->name)) return;
    bench_must(&j->b, p->kind->make(&s, p, &c));
    bench_must(&j->b, p->kind->run(j->be, p, &c));
    bench_must(&j->b, fx_sync(j->be));
    bench_must(&j->b, check(j, p, &c, &wrong));
    bench_must(&j->b, time_run(j, p, &c, 1, &once));
    const int calls = once > 0.01 ? 1 : once > 0.001 ? 5 : 20;
    for (int r = 0; r < j->runs; r++) bench_must(&j->b, time_run(j, p, &c, calls, &t[r]));
    print(j, p, &c, t, calls, wrong);
    if (p->kind == &upload || p->kind == &download) free(c.e.data);
    side_clear(&s);
}

/* ---- what is measured ---- */

static void products(job *j, int64_t image, double d, double s)
{
    const int64_t all = image + TEXT;
    const spec list[] = {
        {&linear, all, 3 * C, C, 0, FX_ACT_NONE, s}, {&linear, all, MLP, C, 0, FX_ACT_GELU_TANH, s},
        {&linear, all, C, 5 * C, 0, FX_ACT_NONE, s}, {&linear, image, 3 * C, C, 0, FX_ACT_NONE, d},
        {&linear, image, C, C, 0, FX_ACT_NONE, d},   {&linear, image, MLP, C, 0, FX_ACT_GELU_TANH, d},
        {&linear, image, C, MLP, 0, FX_ACT_NONE, d}, {&linear, TEXT, 3 * C, C, 0, FX_ACT_NONE, d},
        {&linear, TEXT, C, C, 0, FX_ACT_NONE, d},    {&linear, TEXT, MLP, C, 0, FX_ACT_GELU_TANH, d},
        {&linear, TEXT, C, MLP, 0, FX_ACT_NONE, d}};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) measure(j, &list[i]);
}

static void row_kernels(job *j, int64_t image, double d, double s)
{
    const int64_t all = image + TEXT;
    const spec list[] = {{&attention, all, C, 0, all, FX_ACT_NONE, d + s},
                         {&norm_mod, all, C, 0, 0, FX_ACT_NONE, 3},
                         {&gate_add, all, C, 0, 0, FX_ACT_NONE, 2},
                         {&gate_norm, all, C, 0, 0, FX_ACT_NONE, 2 * d + s > 2 ? 2 * d + s - 2 : 0},
                         {&qk_norm_rope, all, C, 0, 0, FX_ACT_NONE, 2 * (d + s)},
                         {&copy, all, C, 0, 0, FX_ACT_NONE, d + s},
                         {&axpy, image, 64, 0, 0, FX_ACT_NONE, 1},
                         {&count_nonfinite, image, 64, 0, 0, FX_ACT_NONE, 1}};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) measure(j, &list[i]);
}

/* Of text encoders and decoder: once per picture. h: rows and columns of the latents. */
static void once_per_picture(job *j, int64_t image)
{
    const int64_t h = 2 * (int64_t)sqrt((double)image);
    const spec list[] = {{&layer_norm, 77, 768, 0, 0, FX_ACT_NONE, 0},
                         {&rms_norm, TEXT, 4096, 0, 0, FX_ACT_NONE, 0},
                         {&glu, TEXT, 10240, 0, 0, FX_ACT_GELU_TANH, 0},
                         {&activate, 77, 3072, 0, 0, FX_ACT_QUICK_GELU, 0},
                         {&embed, TEXT, 4096, 2048, 0, FX_ACT_NONE, 0},
                         {&conv2d, h, 512, 512, h, FX_ACT_NONE, 0},
                         {&conv2d, 4 * h, 256, 256, 4 * h, FX_ACT_NONE, 0},
                         {&conv2d, 8 * h, 128, 128, 8 * h, FX_ACT_NONE, 0},
                         {&row_stats, 4 * h, 256, 0, 4 * h, FX_ACT_NONE, 0},
                         {&group_norm, 4 * h, 256, 0, 4 * h, FX_ACT_SILU, 0},
                         {&upsample2x, 2 * h, 512, 0, 2 * h, FX_ACT_NONE, 0},
                         {&to_rgb8, 8 * h, 3, 0, 8 * h, FX_ACT_NONE, 0},
                         {&upload, image, 4096, 0, 0, FX_ACT_NONE, 0},
                         {&download, image, 4096, 0, 0, FX_ACT_NONE, 0}};
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) measure(j, &list[i]);
}

/* As many heads as a rank of several has; parts of the keys into f32, as a ring that is not exact asks for. */
static void rings(job *j, int64_t all)
{
    for (int64_t heads = 12; heads >= 3; heads /= 2)
        measure(j, &(spec){&attention, all, heads * HEAD, 0, all, FX_ACT_NONE, 0});
    for (int ring = 1; ring <= 8; ring *= 2) {
        measure(j, &(spec){&attention, all / ring, C, 0, all / ring, FX_ACT_NONE, 0});
        measure(j, &(spec){&attention, all / ring, C, 32, all / ring, FX_ACT_NONE, 0});
        measure(j, &(spec){&attention_merge, all / ring, C, 0, 0, FX_ACT_NONE, 0});
    }
}

static void ceilings(job *j)
{
    const int64_t n = fx_on_device(j->be) ? 8192 : 2048;
    measure(j, &(spec){&linear, n, n, n, 0, FX_ACT_NONE, 0});
    measure(j, &(spec){&copy, 2 * n, 4 * n, 0, 0, FX_ACT_NONE, 0});
}

static bool is_yes(int argc, char **argv, const char *name)
{
    return !strcmp(bench_option(argc, argv, name, "no"), "yes");
}

static fx_status open_backends(job *j, const char *name, fx_dtype dtype, int threads, void **base,
                               fx_arena *arena[2])
{
    const size_t room = (size_t)2 << 30;
    FX_TRY(fx_backend_open(name, dtype, threads, &j->be));
    if (fx_on_device(j->be)) FX_TRY(fx_device_alloc(j->be, room, base));
    FX_TRY(fx_arena_open(*base, *base ? room : room / 4, &arena[0]));
    j->be->arena = arena[0];
    FX_TRY(fx_backend_open("ref", dtype, threads, &j->ref));
    FX_TRY(fx_arena_open(NULL, (size_t)64 << 20, &arena[1]));
    j->ref->arena = arena[1];
    return FX_OK;
}

int main(int argc, char **argv)
{
    job j = {.b = {.name = "bench_ops"}};
    int m, n, k;
    char text[200], end;
    void *base = NULL;
    fx_arena *arena[2] = {NULL, NULL};
    if (!bench_known(argc, argv,
                     "|--backend|--dtype|--threads|--rows|--double|--single|--runs|--only|--linear|--"
                     "ceilings|--rings|--spoil|--json|"))
        return 2;
    const int64_t image = bench_number(argc, argv, "--rows", 4096, 16, 65536);
    const int threads = (int)bench_number(argc, argv, "--threads", fx_cores_allowed(), 1, 1024);
    const double d = (double)bench_number(argc, argv, "--double", 19, 0, 1000),
                 s = (double)bench_number(argc, argv, "--single", 38, 0, 1000);
    const char *dtype = bench_option(argc, argv, "--dtype", "bf16"),
               *product = bench_option(argc, argv, "--linear", NULL);
    j.runs = (int)bench_number(argc, argv, "--runs", 5, 1, BENCH_RUNS);
    j.only = bench_option(argc, argv, "--only", NULL);
    j.spoil = is_yes(argc, argv, "--spoil");
    if (product && (sscanf(product, "%dx%dx%d%c", &m, &n, &k, &end) != 3 || m < 1 || n < 1 || k < 1 ||
                    m > 65536 || n > 65536 || k > 65536)) {
        fprintf(stderr, "bench_ops: '%s' is no MxNxK of 1 to 65536 each\n", product);
        return 2;
    }
    bench_must(&j.b, open_backends(&j, bench_option(argc, argv, "--backend", "auto"),
                                   strcmp(dtype, "f32") ? FX_BF16 : FX_F32, threads, &base, arena));
    snprintf(text, sizeof text,
             "%lld image + %d text rows, %s, %d threads, %d runs (median), %d rows of each result checked",
             (long long)image, TEXT, dtype, j.be->threads, j.runs, SAMPLE);
    bench_begin(&j.b, "bench_ops", NULL, bench_option(argc, argv, "--json", NULL), fx_backend_describe(j.be),
                text);
    printf("# %-44s %11s %11s %9s %9s %6s %10s %8s\n", "op", "time", "best", "rate", "moved", "count",
           "in a step", "#wrong");
    printf("# %-44s %11s %11s %9s %9s %6s %10s %8s\n", "", "(us)", "(us)", "(TFLOP/s)", "(GB/s)", "", "(ms)",
           "(values)");
    if (product)
        measure(&j, &(spec){&linear, m, n, k, 0, FX_ACT_NONE, 0});
    else if (is_yes(argc, argv, "--ceilings"))
        ceilings(&j);
    else {
        products(&j, image, d, s);
        row_kernels(&j, image, d, s);
        once_per_picture(&j, image);
        if (is_yes(argc, argv, "--rings")) rings(&j, image + TEXT);
        if (!j.only)
            printf("# step of %.0f double + %.0f single blocks, ops one after the other: %.2f ms\n", d, s,
                   j.step_s * 1e3);
    }
    const int code = bench_end(&j.b);
    if (base) fx_device_free(j.be, base);
    for (int i = 0; i < 2; i++) fx_arena_close(&arena[i]);
    fx_backend_close(&j.be);
    fx_backend_close(&j.ref);
    return code;
}
