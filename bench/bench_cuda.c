/* The CUDA backend, op by op, at FLUX.1's sizes (1024x1024: 4096 image + 512 text rows, C 3072, 24 heads x 128), and what
 * a step of 19 double + 38 single blocks composes to, on one device without a graph. Times are per call over a run of
 * calls, device to device. Operands are random: zeros would run faster. Needs a build with FX_CUDA=ON and a GPU.
 *   bench_cuda [--calls N] [--rows N]      rows: image rows, 4096 (text stays 512)
 *   bench_cuda --linear MxNxK ...          only these products, with bias
 *   bench_cuda --ceilings yes              only a large product and a large copy: what the machine gives at best */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"
#include "runtime/core/clock.h"

enum { TEXT = 512, C = 3072, MLP = 4 * C, HEAD = 128, HEADS = C / HEAD, DOUBLE = 19, SINGLE = 38 };

static fx_backend *be;
static int calls = 20;
static double step_s;
static bool keep_biases = true; /* false: the bias takes a pass of its own */

static void must(fx_status st)
{
    if (st == FX_OK) return;
    fprintf(stderr, "bench_cuda: %s\n", fx_error());
    exit(1);
}

/* Random in (-1, 1) * scale, on the device; f32 vectors are biases as bf16 checkpoints have them. */
static fx_tensor filled(fx_dtype dtype, int64_t rows, int64_t cols, float scale)
{
    const int64_t n = rows * cols;
    void *host = malloc((size_t)n * 4), *device;
    uint32_t state = 12345;
    if (!host) exit(1);
    for (int64_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        const float v = ((float)(state >> 8) / 8388608.0f - 1.0f) * scale;
        if (dtype == FX_F32)
            ((float *)host)[i] = rows == 1 ? fx_bf16_to_f32(fx_f32_to_bf16(v)) : v;
        else
            ((uint16_t *)host)[i] = fx_f32_to_bf16(v);
    }
    must(fx_cuda_alloc(be, (size_t)n * fx_dtype_size(dtype), &device));
    const fx_tensor t = fx_view2(device, dtype, rows, cols);
    must(fx_upload(be, t, host));
    must(fx_sync(be));
    if (dtype == FX_F32 && rows == 1 && keep_biases) must(fx_cuda_keep_bias(be, device, host, n));
    free(host);
    return t;
}

typedef struct call {
    fx_tensor y, x, z, c, b, h;
    fx_weight w;
    fx_act act;
} call;
typedef void (*timed)(const call *);

static void report(const char *name, double flop, double bytes, double count, timed fn, const call *c)
{
    fn(c);
    must(fx_sync(be));
    const double begin = fx_now_s();
    for (int i = 0; i < calls; i++) fn(c);
    must(fx_sync(be));
    const double each = (fx_now_s() - begin) / calls;
    if (flop > 0)
        printf("%-40s %9.1f us %8.1f TFLOP/s  x %3.0f  %8.2f ms\n", name, each * 1e6, flop / each * 1e-12,
               count, each * count * 1e3);
    else
        printf("%-40s %9.1f us %8.1f GB/s     x %3.0f  %8.2f ms\n", name, each * 1e6, bytes / each * 1e-9,
               count, each * count * 1e3);
    fflush(stdout);
    step_s += each * count;
}

static void run_linear(const call *a)
{
    must(fx_linear(be, a->y, a->x, a->w, a->b, a->act));
}

static void linear(int64_t m, int64_t n, int64_t k, fx_act act, bool bias, double count)
{
    char name[64];
    call a = {.x = filled(FX_BF16, m, k, 1), .y = filled(FX_BF16, m, n, 1), .b = fx_none(), .act = act};
    const fx_tensor w = filled(FX_BF16, n, k, 0.03f), b = filled(FX_F32, 1, n, 1);
    if (bias) a.b = fx_row(b, 0);
    a.w = (fx_weight){
        .packed = w.data, .n = n, .k = k, .kh = 1, .kw = 1, .kind = FX_WEIGHT_LINEAR, .dtype = FX_BF16};
    snprintf(name, sizeof name, "linear %d x %d x %d%s%s", (int)m, (int)n, (int)k, bias ? " bias" : "",
             act ? " gelu" : "");
    report(name, 2.0 * (double)m * (double)n * (double)k, 0, count, run_linear, &a);
    fx_cuda_free(be, a.x.data), fx_cuda_free(be, a.y.data), fx_cuda_free(be, w.data),
        fx_cuda_free(be, b.data);
}

static void run_attention(const call *a)
{
    must(fx_attention(be, fx_heads(a->z, HEADS), fx_none(), fx_heads(fx_cols(a->y, 0, C), HEADS),
                      fx_heads(fx_cols(a->y, C, C), HEADS), fx_heads(fx_cols(a->y, 2 * C, C), HEADS),
                      fx_none(), 1 / sqrtf(HEAD)));
}
/* As many heads as a rank of several has. */
static int64_t some_heads;
static void run_some_heads(const call *a)
{
    const int64_t width = some_heads * HEAD;
    must(fx_attention(be, fx_heads(a->z, some_heads), fx_none(),
                      fx_heads(fx_cols(a->y, 0, width), some_heads),
                      fx_heads(fx_cols(a->y, width, width), some_heads),
                      fx_heads(fx_cols(a->y, 2 * width, width), some_heads), fx_none(), 1 / sqrtf(HEAD)));
}
static void few_heads(int64_t rows)
{
    for (some_heads = HEADS / 2; some_heads >= 3; some_heads /= 2) {
        char name[64];
        const int64_t width = some_heads * HEAD;
        const call a = {.y = filled(FX_BF16, rows, 3 * width, 1), .z = filled(FX_BF16, rows, width, 1)};
        snprintf(name, sizeof name, "attention, %d rows, %d heads x 128", (int)rows, (int)some_heads);
        report(name, 4.0 * (double)rows * (double)rows * (double)width, 0, 0, run_some_heads, &a);
        fx_cuda_free(be, a.y.data), fx_cuda_free(be, a.z.data);
    }
}
/* As a ring asks for it without exactness: part of the keys, into f32 with the log-sum-exp, merged with what was before. */
static void run_part(const call *a)
{
    must(fx_attention(be, fx_heads(a->h, HEADS), a->b, fx_heads(fx_cols(a->y, 0, C), HEADS),
                      fx_heads(fx_cols(a->y, C, C), HEADS), fx_heads(fx_cols(a->y, 2 * C, C), HEADS),
                      fx_none(), 1 / sqrtf(HEAD)));
}
static void run_merge(const call *a)
{
    must(fx_attention_merge(be, fx_heads(a->x, HEADS), a->c, fx_heads(a->h, HEADS), a->b));
}
static void ring_parts(int64_t rows, int ring)
{
    const int64_t n = rows / ring;
    const double flop = 4.0 * (double)n * (double)n * C;
    char name[64];
    call a = {.x = filled(FX_F32, n, C, 1),
              .y = filled(FX_BF16, n, 3 * C, 1),
              .z = filled(FX_BF16, n, C, 1),
              .c = filled(FX_F32, HEADS, n, 1),
              .b = filled(FX_F32, HEADS, n, 1),
              .h = filled(FX_F32, n, C, 1)};
    snprintf(name, sizeof name, "attention, %d rows", (int)n);
    report(name, flop, 0, 0, run_attention, &a);
    snprintf(name, sizeof name, "attention, %d rows into f32", (int)n);
    report(name, flop, 0, 0, run_part, &a);
    report("attention_merge", 0, 12.0 * (double)n * C, 0, run_merge, &a);
    fx_cuda_free(be, a.x.data), fx_cuda_free(be, a.y.data), fx_cuda_free(be, a.z.data);
    fx_cuda_free(be, a.c.data), fx_cuda_free(be, a.b.data), fx_cuda_free(be, a.h.data);
}
static void run_norm_mod(const call *a)
{
    must(fx_norm_mod(be, a->z, a->x, fx_row(a->c, 0), fx_row(a->c, 1), 1e-6f));
}
static void run_gate_add(const call *a)
{
    must(fx_gate_add(be, a->x, fx_row(a->c, 0), a->z));
}
static void run_gate_norm(const call *a)
{
    must(fx_gate_norm(be, a->h, a->x, fx_row(a->c, 0), a->z, fx_row(a->c, 0), fx_row(a->c, 1), 1e-6f));
}
static void run_rope(const call *a)
{
    must(fx_qk_norm_rope(be, fx_heads(a->z, HEADS), fx_heads(fx_cols(a->y, 0, C), HEADS),
                         fx_view1(a->c.data, FX_F32, HEAD),
                         fx_view3(a->x.data, FX_F32, a->x.shape[0], HEAD / 2, 2), 1e-6f));
}
static void run_copy(const call *a)
{
    must(fx_copy(be, a->z, fx_cols(a->y, 2 * C, C), 1, 0));
}

static void row_ops(int64_t rows)
{
    call a = {.x = filled(FX_F32, rows, C, 1),
              .y = filled(FX_BF16, rows, 3 * C, 1),
              .z = filled(FX_BF16, rows, C, 1)};
    const double n = (double)rows * C, blocks = DOUBLE + SINGLE;
    a.c = filled(FX_F32, 2, C, 1);
    report("attention, 24 heads x 128", 4.0 * (double)rows * (double)rows * C, 0, blocks, run_attention, &a);
    a.h = filled(FX_BF16, rows, C, 1);
    report("norm_mod", 0, 6 * n, 3, run_norm_mod, &a);
    report("gate_add", 0, 10 * n, 2, run_gate_add, &a);
    report("gate_norm", 0, 12 * n, 2 * DOUBLE + SINGLE - 2, run_gate_norm, &a);
    fx_cuda_free(be, a.h.data);
    report("qk_norm_rope", 0, 4 * n, 2 * blocks, run_rope, &a);
    report("copy of v", 0, 4 * n, blocks, run_copy, &a);
    fx_cuda_free(be, a.x.data), fx_cuda_free(be, a.y.data), fx_cuda_free(be, a.z.data),
        fx_cuda_free(be, a.c.data);
}

static void run_plain_copy(const call *a)
{
    must(fx_copy(be, a->y, a->x, 1, 0));
}

static void ceilings(void)
{
    const int64_t rows = 16384, cols = 32768; /* 1 GiB of bf16 */
    linear(8192, 8192, 8192, FX_ACT_NONE, false, 0);
    const call a = {.x = filled(FX_BF16, rows, cols, 1), .y = filled(FX_BF16, rows, cols, 1)};
    report("copy of 1 GiB, read and written", 0, 4.0 * (double)rows * (double)cols, 0, run_plain_copy, &a);
    fx_cuda_free(be, a.x.data), fx_cuda_free(be, a.y.data);
}

/* The products that were asked for; false: none was. */
static bool only_linear(int argc, char **argv)
{
    bool any = false;
    for (int i = 1; i + 1 < argc; i += 2) {
        int m, n, k;
        if (strcmp(argv[i], "--linear")) continue;
        if (sscanf(argv[i + 1], "%dx%dx%d", &m, &n, &k) != 3 || m < 1 || n < 1 || k < 1 || m > 65536 ||
            n > 65536 || k > 65536) {
            fprintf(stderr, "bench_cuda: '%s' is no MxNxK of 1 to 65536 each\n", argv[i + 1]);
            exit(2);
        }
        linear(m, n, k, FX_ACT_NONE, true, 0);
        any = true;
    }
    return any;
}

int main(int argc, char **argv)
{
    bool only_ceilings = false;
    int64_t image = 4096;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--calls")) calls = atoi(argv[i + 1]);
        if (!strcmp(argv[i], "--ceilings")) only_ceilings = true;
        if (!strcmp(argv[i], "--rows")) image = atoi(argv[i + 1]);
    }
    if (calls < 1 || image < 1 || image > 65536) return 2;
    must(fx_cuda_open(FX_BF16, 0, &be));
    fx_arena *arena;
    void *base;
    const size_t scratch = (size_t)2 << 30;
    must(fx_cuda_alloc(be, scratch, &base));
    must(fx_arena_open(base, scratch, &arena));
    be->arena = arena;
    const int64_t rows = image + TEXT;
    printf("# bench_cuda: %s; %lld rows, bf16, %d calls\n", fx_cuda_describe(be), (long long)rows, calls);
    if (only_linear(argc, argv)) goto out;
    if (only_ceilings) {
        ceilings();
        goto out;
    }
    linear(rows, 3 * C, C, FX_ACT_NONE, true, SINGLE);
    linear(rows, MLP, C, FX_ACT_GELU_TANH, true, SINGLE);
    linear(rows, C, 5 * C, FX_ACT_NONE, true, SINGLE);
    linear(image, 3 * C, C, FX_ACT_NONE, true, DOUBLE);
    linear(image, C, C, FX_ACT_NONE, true, DOUBLE);
    linear(image, MLP, C, FX_ACT_GELU_TANH, true, DOUBLE);
    linear(image, C, MLP, FX_ACT_NONE, true, DOUBLE);
    linear(TEXT, 3 * C, C, FX_ACT_NONE, true, DOUBLE);
    linear(TEXT, C, C, FX_ACT_NONE, true, DOUBLE);
    linear(TEXT, MLP, C, FX_ACT_GELU_TANH, true, DOUBLE);
    linear(TEXT, C, MLP, FX_ACT_NONE, true, DOUBLE);
    row_ops(rows);
    printf("step of %d double + %d single blocks, ops one after the other: %.2f ms\n", DOUBLE, SINGLE,
           step_s * 1e3);
    few_heads(rows);
    few_heads(1024 + TEXT);
    for (int ring = 1; ring <= 8; ring *= 2) ring_parts(rows, ring);
    keep_biases = false;
    linear(rows, MLP, C, FX_ACT_GELU_TANH, true, 0); /* with a last pass of its own, then with none */
    linear(rows, MLP, C, FX_ACT_NONE, false, 0);
    linear(rows, C, 5 * C, FX_ACT_NONE, false, 0);
    ceilings();
out:
    fx_cuda_free(be, base);
    fx_arena_close(&arena);
    fx_backend_close(&be);
    return 0;
}
