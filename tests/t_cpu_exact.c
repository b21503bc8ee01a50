/* The CPU backend's promise: a row has the same bits however rows are split into calls and however many
 * threads run, on every instruction set. Each level runs in a child process (ONEDNN_MAX_CPU_ISA is read
 * once); `t_cpu_exact LEVEL few` runs the small cases of one here. Values are also compared with plain f64 loops,
 * because exact nonsense is still nonsense. */
#include "kernels/ops.h"
#include "tests/test.h"

#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

static uint32_t state = 1;
static float random_value(void)
{
    state = state * 1664525u + 1013904223u;
    return (float)(int32_t)(state >> 8 & 0xffff) / 32768.0f - 1.0f;
}

static fx_tensor random_tensor(fx_dtype dtype, int ndim, const int64_t shape[], float scale)
{
    fx_tensor t = fx_view(NULL, dtype, ndim, shape);
    t.data = aligned_alloc(64, (fx_bytes(t) + 127) / 64 * 64);
    for (int64_t i = 0; i < fx_numel(t); i++) {
        const float v = random_value() * scale;
        if (dtype == FX_F32)
            ((float *)t.data)[i] = v;
        else if (dtype == FX_BF16)
            ((uint16_t *)t.data)[i] = fx_f32_to_bf16(v);
        else
            ((double *)t.data)[i] = (double)v;
    }
    return t;
}
#define RANDOM(dtype, scale, ...)                                                                            \
    random_tensor(dtype, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (const int64_t[]){__VA_ARGS__}, \
                  scale)

static double value(fx_tensor t, int64_t at)
{
    return t.dtype == FX_F32    ? (double)((const float *)t.data)[at]
           : t.dtype == FX_BF16 ? (double)fx_bf16_to_f32(((const uint16_t *)t.data)[at])
                                : ((const double *)t.data)[at];
}

/* Are rows [from, from + n) of whole equal to part? */
static int differing_rows(fx_tensor whole, int64_t from, fx_tensor part)
{
    const size_t row = fx_bytes(part) / (size_t)part.shape[0];
    int bad = 0;
    for (int64_t i = 0; i < part.shape[0]; i++)
        bad += memcmp((char *)whole.data + (size_t)(from + i) * row, (char *)part.data + (size_t)i * row,
                      row) != 0;
    return bad;
}

static fx_weight pack(fx_backend *be, fx_tensor w, fx_weight_kind kind)
{
    fx_weight out = {.n = w.shape[0], .k = w.shape[1], .kh = 1, .kw = 1, .kind = kind, .dtype = w.dtype};
    if (kind == FX_WEIGHT_CONV) out.kh = (int32_t)w.shape[2], out.kw = (int32_t)w.shape[3];
    void *blob = aligned_alloc(256, (fx_packed_bytes(be, &out) + 511) / 256 * 256);
    T_OK(fx_pack(be, &out, w.data, blob));
    out.packed = blob;
    return out;
}

static const int64_t splits[] = {1, 2, 3, 7, 12, 16, 17, 31, 32, 33, 48, 64, 100};
enum { SPLITS = sizeof splits / sizeof *splits };

/* ---- linear ---- */

static void check_linear_values(fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor b)
{
    double worst = 0;
    const double u = y.dtype == FX_BF16 ? 0x1p-8 : 0x1p-24;
    for (int64_t i = 0; i < y.shape[0]; i += 13)
        for (int64_t n = 0; n < y.shape[1]; n += 1 + y.shape[1] / 37) {
            double sum = value(b, n), size = fabs(sum);
            for (int64_t k = 0; k < x.shape[1]; k++) {
                const double term = value(x, i * x.stride[0] + k) * value(w, n * w.shape[1] + k);
                sum += term;
                size += fabs(term);
            }
            const double budget = u * fabs(sum) + 2 * sqrt((double)x.shape[1]) * 0x1p-24 * size + 1e-30;
            const double off = fabs(value(y, i * y.shape[1] + n) - sum) / budget;
            if (!(off <= worst)) worst = off;
        }
    T_CHECK(worst <= 1, "linear M %d N %d K %d: %g of the budget", (int)y.shape[0], (int)y.shape[1],
            (int)w.shape[1], worst);
}

static void linear_case(fx_dtype dtype, fx_dtype out, int64_t m, int64_t n, int64_t k, fx_act act)
{
    fx_backend *one, *two;
    T_OK(fx_backend_open("cpu", dtype, 1, &one));
    T_OK(fx_backend_open("cpu", dtype, 2, &two));
    const fx_tensor wide = RANDOM(dtype, 1, m, k + 24), w = RANDOM(dtype, 1, n, k), b = RANDOM(FX_F32, 1, n);
    const fx_tensor x = fx_cols(wide, 8, k), y = RANDOM(out, 1, m, n), part = RANDOM(out, 1, m, n);
    const fx_weight packed = pack(one, w, FX_WEIGHT_LINEAR), packed2 = pack(two, w, FX_WEIGHT_LINEAR);
    T_CHECK(!memcmp(packed.packed, packed2.packed, fx_packed_bytes(one, &packed)),
            "packing depends on threads");
    T_OK(fx_linear(one, y, x, packed, b, act));
    if (act == FX_ACT_NONE) check_linear_values(y, x, w, b);
    int bad = 0;
    for (int s = 0; s < SPLITS; s++)
        for (int64_t at = 0; at < m; at += splits[s] * (splits[s] < 12 ? 9 : 1)) {
            const int64_t rows = m - at < splits[s] ? m - at : splits[s];
            T_OK(fx_linear(s % 2 ? two : one, fx_rows(part, 0, rows), fx_rows(x, at, rows), packed, b, act));
            bad += differing_rows(y, at, fx_rows(part, 0, rows));
        }
    T_OK(fx_linear(two, part, x, packed, b, act));
    bad += differing_rows(y, 0, part);
    T_CHECK(!bad, "linear %s M %d N %d K %d: %d rows differ", fx_dtype_name(dtype), (int)m, (int)n, (int)k,
            bad);
    void *blocks[] = {
        wide.data, w.data, b.data, y.data, part.data, (void *)packed.packed, (void *)packed2.packed};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free(blocks[i]);
    fx_backend_close(&one);
    fx_backend_close(&two);
}

/* ---- conv2d ---- */

static void check_conv_values(fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor b, int stride,
                              const int pad[4])
{
    double worst = 0;
    const double u = y.dtype == FX_BF16 ? 0x1p-8 : 0x1p-24;
    const int64_t channels = x.shape[2];
    for (int64_t at = 0; at < fx_numel(y); at += 1 + fx_numel(y) / 400) {
        const int64_t n = at % y.shape[2], ox = at / y.shape[2] % y.shape[1],
                      oy = at / y.shape[2] / y.shape[1];
        double sum = value(b, n), size = fabs(sum);
        for (int64_t ty = 0; ty < w.shape[2]; ty++)
            for (int64_t tx = 0; tx < w.shape[3]; tx++) {
                const int64_t iy = oy * stride - pad[0] + ty, ix = ox * stride - pad[2] + tx;
                if (iy < 0 || iy >= x.shape[0] || ix < 0 || ix >= x.shape[1]) continue;
                for (int64_t c = 0; c < channels; c++) {
                    const double term = value(x, iy * x.stride[0] + ix * channels + c) *
                                        value(w, ((n * channels + c) * w.shape[2] + ty) * w.shape[3] + tx);
                    sum += term;
                    size += fabs(term);
                }
            }
        const double k = (double)(channels * w.shape[2] * w.shape[3]);
        const double off = fabs(value(y, at) - sum) / (u * fabs(sum) + 2 * sqrt(k) * 0x1p-24 * size + 1e-30);
        if (!(off <= worst)) worst = off;
    }
    T_CHECK(worst <= 1, "conv %dx%d %d->%d taps %d stride %d: %g of the budget", (int)x.shape[0],
            (int)x.shape[1], (int)channels, (int)y.shape[2], (int)w.shape[2], stride, worst);
}

/* The whole picture at once against slabs of rows with their halo. */
static void conv_case(fx_dtype dtype, int64_t h, int64_t wide, int64_t c, int64_t n, int taps, int stride)
{
    fx_backend *one, *two;
    T_OK(fx_backend_open("cpu", dtype, 1, &one));
    T_OK(fx_backend_open("cpu", dtype, 2, &two));
    const int p = taps / 2, low = stride == 2 ? 0 : p;
    const int pad[4] = {low, p, low, p};
    const int64_t ho = (h + low + p - taps) / stride + 1, wo = (wide + low + p - taps) / stride + 1;
    const fx_tensor x = RANDOM(dtype, 1, h, wide, c), w = RANDOM(dtype, 1, n, c, taps, taps),
                    b = RANDOM(FX_F32, 1, n);
    const fx_tensor y = RANDOM(dtype, 1, ho, wo, n), part = RANDOM(dtype, 1, ho, wo, n);
    const fx_weight packed = pack(two, w, FX_WEIGHT_CONV);
    T_OK(fx_conv2d(one, y, x, packed, b, stride, pad));
    check_conv_values(y, x, w, b, stride, pad);
    T_OK(fx_conv2d(two, part, x, packed, b, stride, pad));
    int bad = differing_rows(y, 0, part);
    for (int64_t rows = 1; rows < ho; rows = rows * 2 + 1)
        for (int64_t at = 0; at < ho; at += rows) {
            const int64_t count = ho - at < rows ? ho - at : rows;
            int64_t from = at * stride - low, to = (at + count - 1) * stride - low + taps;
            const int cut[4] = {from < 0 ? (int)-from : 0, to > h ? (int)(to - h) : 0, low, p};
            from += cut[0];
            to -= cut[1];
            T_OK(fx_conv2d(rows % 2 ? one : two, fx_rows(part, 0, count), fx_rows(x, from, to - from), packed,
                           b, stride, cut));
            bad += differing_rows(y, at, fx_rows(part, 0, count));
        }
    T_CHECK(!bad, "conv %s %dx%d %d->%d taps %d stride %d: %d rows differ", fx_dtype_name(dtype), (int)h,
            (int)wide, (int)c, (int)n, taps, stride, bad);
    void *blocks[] = {x.data, w.data, b.data, y.data, part.data, (void *)packed.packed};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free(blocks[i]);
    fx_backend_close(&one);
    fx_backend_close(&two);
}

/* Outside of the picture stands nothing at all: not even the smallest number meets large weights there. */
static void empty_conv(fx_dtype dtype)
{
    fx_backend *be;
    int bad = 0;
    const int pad[4] = {1, 1, 1, 1};
    T_OK(fx_backend_open("cpu", dtype, 1, &be));
    const fx_tensor x = RANDOM(dtype, 0, 4, 5, 3), w = RANDOM(dtype, 1e38f, 8, 3, 3, 3),
                    y = RANDOM(dtype, 1, 4, 5, 8);
    const fx_weight packed = pack(be, w, FX_WEIGHT_CONV);
    T_OK(fx_conv2d(be, y, x, packed, fx_none(), 1, pad));
    for (int64_t i = 0; i < fx_numel(y); i++) bad += value(y, i) != 0;
    T_CHECK(!bad, "conv of an empty picture: %d values", bad);
    void *blocks[] = {x.data, w.data, y.data, (void *)packed.packed};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free(blocks[i]);
    fx_backend_close(&be);
}

/* ---- attention ---- */

typedef struct attention_case {
    int64_t tq, tk, heads, dim;
    bool biased;
    float spread;
} attention_case;

static void check_attention_values(fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k, fx_tensor v,
                                   fx_tensor bias, float scale, double accuracy)
{
    double worst = 0, worst_lse = 0;
    const int64_t tq = q.shape[0], tk = k.shape[0], heads = q.shape[1], dim = q.shape[2];
    double *p = malloc((size_t)tk * sizeof *p);
    for (int64_t i = 0; i < tq; i += 1 + tq / 11)
        for (int64_t h = 0; h < heads; h++) {
            double top = -INFINITY, sum = 0;
            for (int64_t j = 0; j < tk; j++) {
                p[j] = fx_present(bias) ? value(bias, h * bias.stride[0] + j - i + tq - 1) : 0;
                for (int64_t d = 0; d < dim; d++)
                    p[j] += (double)scale * value(q, i * q.stride[0] + h * q.stride[1] + d) *
                            value(k, j * k.stride[0] + h * k.stride[1] + d);
                if (p[j] > top) top = p[j];
            }
            for (int64_t j = 0; j < tk; j++) sum += p[j] = top == -INFINITY ? 0 : exp(p[j] - top);
            for (int64_t d = 0; d < dim; d++) {
                double want = 0, size = 0;
                for (int64_t j = 0; j < tk; j++) {
                    want += p[j] / (sum > 0 ? sum : 1) * value(v, j * v.stride[0] + h * v.stride[1] + d);
                    size +=
                        p[j] / (sum > 0 ? sum : 1) * fabs(value(v, j * v.stride[0] + h * v.stride[1] + d));
                }
                const double tolerance =
                    q.dtype == FX_BF16 ? 0x1p-8 * fabs(want) + 0x1p-8 * size + 1e-6 : accuracy * size + 1e-9;
                const double off = fabs(value(o, i * o.stride[0] + h * o.stride[1] + d) - want) / tolerance;
                if (!(off <= worst)) worst = off;
            }
            const double l = value(lse, h * tq + i), want_lse = top + log(sum);
            const double off = sum > 0 ? fabs(l - want_lse) / (1 + fabs(want_lse)) : l == -INFINITY ? 0 : 1;
            if (!(off <= worst_lse)) worst_lse = off;
        }
    free(p);
    T_CHECK(worst <= 1 && worst_lse < 2e-6,
            "attention %s Tq %d Tk %d H %d D %d: o %g of the tolerance, lse %g", fx_dtype_name(q.dtype),
            (int)tq, (int)tk, (int)heads, (int)dim, worst, worst_lse);
}

static void run_attention(fx_dtype dtype, attention_case c)
{
    fx_backend *be[2];
    fx_arena *arena;
    T_OK(fx_arena_open(NULL, 64 << 20, &arena));
    for (int t = 0; t < 2; t++) {
        T_OK(fx_backend_open("cpu", dtype, t + 1, &be[t]));
        be[t]->arena = arena;
    }
    const int64_t width = c.heads * c.dim;
    const fx_tensor qkv = RANDOM(dtype, c.spread, c.tq > c.tk ? c.tq : c.tk, 3 * width);
    const fx_tensor q = fx_heads(fx_cols(fx_rows(qkv, 0, c.tq), 0, width), c.heads);
    const fx_tensor k = fx_heads(fx_cols(fx_rows(qkv, 0, c.tk), width, width), c.heads);
    const fx_tensor v = fx_heads(fx_cols(fx_rows(qkv, 0, c.tk), 2 * width, width), c.heads);
    const fx_tensor o = RANDOM(dtype, 1, c.tq, c.heads, c.dim), part = RANDOM(dtype, 1, c.tq, c.heads, c.dim);
    const fx_tensor lse = RANDOM(FX_F32, 1, c.heads, c.tq), none = fx_none();
    fx_tensor bias = none;
    if (c.biased) {
        bias = RANDOM(FX_F32, 1, c.heads, c.tq + c.tk - 1);
        for (int64_t i = 0; i < fx_numel(bias);
             i++) /* nothing after the diagonal, and one distance masked too */
            if (i % (c.tq + c.tk - 1) > c.tq - 1 || i % (c.tq + c.tk - 1) == c.tq - 3)
                ((float *)bias.data)[i] = -INFINITY;
    }
    const float scale = 1 / sqrtf((float)c.dim);
    T_OK(fx_attention(be[0], o, lse, q, k, v, bias, scale));
    /* f32: the sums behind a score of s are right to about s * 2^-22 */
    check_attention_values(o, lse, q, k, v, bias, scale, 3e-6 * (1.0 + (double)(c.spread * c.spread) / 4));
    T_OK(fx_attention(be[1], part, none, q, k, v, bias, scale));
    int bad = differing_rows(o, 0, part);
    for (int s = 0; s < SPLITS && !c.biased; s += 2)
        for (int64_t at = 0; at < c.tq; at += splits[s] * (splits[s] < 12 ? 9 : 1)) {
            const int64_t rows = c.tq - at < splits[s] ? c.tq - at : splits[s];
            T_OK(fx_attention(be[s / 2 % 2], fx_rows(part, 0, rows), none, fx_rows(q, at, rows), k, v, none,
                              scale));
            bad += differing_rows(o, at, fx_rows(part, 0, rows));
        }
    for (int64_t h = 0; h < c.heads && !c.biased; h++) { /* heads alone, as after an exchange */
        const fx_tensor out = fx_view3(part.data, dtype, c.tq, 1, c.dim);
        T_OK(fx_attention(be[1], out, none, fx_slice(q, 1, h, 1), fx_slice(k, 1, h, 1), fx_slice(v, 1, h, 1),
                          none, scale));
        for (int64_t i = 0; i < c.tq; i++)
            bad += memcmp((char *)out.data + (size_t)(i * c.dim) * fx_dtype_size(dtype),
                          (char *)o.data + (size_t)(i * width + h * c.dim) * fx_dtype_size(dtype),
                          (size_t)c.dim * fx_dtype_size(dtype)) != 0;
    }
    T_CHECK(!bad, "attention %s Tq %d Tk %d H %d D %d: %d rows differ", fx_dtype_name(dtype), (int)c.tq,
            (int)c.tk, (int)c.heads, (int)c.dim, bad);
    void *blocks[] = {qkv.data, o.data, part.data, lse.data, bias.data};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) free(blocks[i]);
    fx_backend_close(&be[0]);
    fx_backend_close(&be[1]);
    fx_arena_close(&arena);
}

/* ---- one instruction set ---- */

/* Products of more multiply-adds than this are left out: plain C takes long, an emulated processor longer. */
static int64_t most_of(const char *level, bool few)
{
    return few ? 4000000 : strcmp(level, "PORTABLE") ? INT64_MAX : 200000000;
}

static int run_level(const char *level, bool few)
{
    static const struct {
        int64_t m, n, k;
        bool to_f32;
        fx_act act;
    } products[] = {
        {130, 96, 15360, false, FX_ACT_NONE},     {300, 384, 384, true, FX_ACT_NONE},
        {96, 1152, 384, false, FX_ACT_GELU_TANH}, {70, 3, 384, false, FX_ACT_SILU},
        {64, 37, 101, true, FX_ACT_GELU_ERF},     {40, 16, 7, false, FX_ACT_NONE},
        {33, 64, 16, false, FX_ACT_QUICK_GELU},   {1, 1, 1, false, FX_ACT_NONE},
        {39, 96, 645, false, FX_ACT_NONE},        {530, 640, 3072, false, FX_ACT_NONE},
    };
    static const struct {
        int64_t h, w, c, n;
        int taps, stride;
    } convs[] = {
        {17, 19, 16, 64, 3, 1}, {16, 16, 64, 3, 3, 1}, {12, 40, 3, 32, 3, 1},   {18, 14, 32, 32, 3, 2},
        {9, 33, 128, 64, 1, 1}, {11, 7, 5, 9, 3, 1},   {8, 24, 512, 256, 3, 1},
    };
    const attention_case cases[] = {
        {96, 96, 3, 16, false, 1},   {77, 77, 2, 64, true, 1},   {130, 300, 2, 128, false, 4},
        {1, 1, 1, 2, false, 1},      {40, 513, 1, 24, true, 1},  {64, 257, 1, 80, false, 1},
        {33, 700, 1, 512, false, 1}, {300, 31, 2, 32, false, 2},
    };
    const int64_t most = most_of(level, few);
    for (int d = 0; d < 2; d++) {
        const fx_dtype dtype = d ? FX_BF16 : FX_F32;
        empty_conv(dtype);
        for (size_t i = 0; i < sizeof products / sizeof *products; i++)
            if (products[i].m * products[i].n * products[i].k <= most)
                linear_case(dtype, products[i].to_f32 ? FX_F32 : dtype, products[i].m, products[i].n,
                            products[i].k, products[i].act);
        for (size_t i = 0; i < sizeof convs / sizeof *convs; i++)
            if (convs[i].h * convs[i].w * convs[i].c * convs[i].n * convs[i].taps * convs[i].taps <= most)
                conv_case(dtype, convs[i].h, convs[i].w, convs[i].c, convs[i].n, convs[i].taps,
                          convs[i].stride);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
            if (cases[i].tq * cases[i].tk * cases[i].heads * cases[i].dim <= most)
                run_attention(dtype, cases[i]);
    }
    printf("%s: ", level);
    return test_end("t_cpu_exact");
}

int main(int argc, char **argv)
{
    if (argc > 1) return run_level(argv[1], argc > 2);
#if defined(__x86_64__)
    const char *const levels[] = {"AVX512_CORE_AMX", "AVX512_CORE_BF16", "AVX512_CORE", "AVX2", "PORTABLE"};
#else
    const char *const levels[] = {"ALL", "PORTABLE"};
#endif
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        fflush(stdout);
        const pid_t child = fork();
        if (child == 0) {
            setenv("ONEDNN_MAX_CPU_ISA", levels[i], 1);
            execl("/proc/self/exe", argv[0], levels[i], (char *)NULL);
            _exit(127);
        }
        int status = 0;
        waitpid(child, &status, 0);
        T_CHECK(child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0, "level %s: status %d", levels[i],
                status);
    }
    return test_end("t_cpu_exact");
}
