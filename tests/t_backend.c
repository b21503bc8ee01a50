/* What stands in front of every backend: the wrappers' checks (kernels/ops.c, check.c), the plan backend
 * (plan.c) and the registry. On ref, so that a wrong argument that slips through meets plain loops under the
 * sanitizers. */
#include "tests/test.h"

#include "kernels/plan.h"

static fx_backend *be;
static uint64_t state = 12345;

static double rnd(void) /* in [-1, 1) */
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)state / 9223372036854775808.0;
}

static fx_tensor push(int ndim, int64_t a, int64_t b, int64_t c)
{
    fx_tensor t;
    const int64_t shape[] = {a, b, c};
    T_OK(fx_push(be->arena, FX_F64, ndim, shape, &t));
    for (int64_t i = 0; i < fx_numel(t); i++) ((double *)t.data)[i] = rnd();
    return t;
}

static fx_weight weight(fx_weight_kind kind, int64_t n, int64_t k, int taps, const double *src)
{
    fx_weight w = {.n = n, .k = k, .kh = taps, .kw = taps, .kind = kind, .dtype = FX_F64};
    fx_tensor bytes;
    T_OK(fx_push1(be->arena, FX_U8, (int64_t)fx_packed_bytes(be, &w), &bytes));
    T_OK(fx_pack(be, &w, src, bytes.data));
    w.packed = bytes.data;
    return w;
}

static void refused(fx_status st, const char *words)
{
    T_CHECK(st == FX_ESHAPE && strstr(fx_error(), words), "%s \"%s\", want FX_ESHAPE with \"%s\"",
            fx_status_name(st), st ? fx_error() : "", words);
}

/* The wrappers refuse, with values; views that interleave without meeting pass. */
static void t_checks(void)
{
    double w[6] = {0};
    const fx_weight wt = weight(FX_WEIGHT_LINEAR, 2, 3, 1, w);
    fx_tensor x = push(2, 4, 5, 0), y = push(2, 4, 2, 0), wide = push(2, 4, 8, 0);
    refused(fx_linear(be, y, x, wt, fx_none(), FX_ACT_NONE), "linear: x is [4,5] f64; want [*,3] f64");
    refused(fx_linear(be, y, fx_cols(fx_view2(w, FX_F32, 1, 6), 0, 3), wt, fx_none(), FX_ACT_NONE),
            "f32; want");
    refused(fx_linear(be, fx_cols(wide, 2, 2), fx_cols(wide, 0, 3), wt, fx_none(), FX_ACT_NONE), "overlaps");
    T_OK(fx_linear(be, fx_cols(wide, 3, 2), fx_cols(wide, 0, 3), wt, fx_none(), FX_ACT_NONE));
    T_OK(fx_linear(be, fx_cols(wide, 0, 2), fx_cols(wide, 5, 3), wt, fx_none(), FX_ACT_NONE));
    refused(fx_activate(be, fx_cols(wide, 1, 4), fx_cols(wide, 0, 4), FX_ACT_SILU), "overlaps");
    T_OK(fx_activate(be, fx_cols(wide, 1, 4), fx_cols(wide, 1, 4), FX_ACT_SILU));
    refused(fx_copy(be, fx_rows(wide, 0, 3), fx_rows(wide, 1, 3), 1, 0), "overlaps");
    T_OK(fx_copy(be, fx_rows(wide, 0, 2), fx_rows(wide, 2, 2), 1, 0));
    /* head slices of one buffer: [4, 2 heads of 4], halves of the head dim */
    const fx_tensor heads = fx_heads(wide, 2);
    T_OK(fx_copy(be, fx_cols(heads, 0, 2), fx_cols(heads, 2, 2), 1, 0));
    refused(fx_copy(be, fx_cols(heads, 0, 2), fx_cols(heads, 1, 2), 1, 0), "overlaps");
    refused(fx_attention(be, push(3, 4, 2, 4), fx_none(), heads, heads, fx_rows(heads, 0, 3), fx_none(), 1),
            "v is");
    refused(fx_row_stats(be, push(3, 4, 3, 2), push(3, 4, 2, 4)), "4 channels in 3 groups");
    /* a rank without rows: nothing happens */
    T_OK(fx_linear(be, fx_rows(y, 0, 0), fx_cols(fx_rows(x, 0, 0), 0, 3), wt, fx_none(), FX_ACT_NONE));
    fx_weight missing = wt;
    missing.packed = NULL;
    refused(fx_linear(be, y, fx_cols(x, 0, 3), missing, fx_none(), FX_ACT_NONE), "not loaded");
}

static fx_tensor floats(int64_t n)
{
    fx_tensor t;
    T_OK(fx_push1(be->arena, FX_F32, n, &t));
    memset(t.data, 0, fx_bytes(t));
    return t;
}

/* No op reads what it has written: each output laid over each input, by one row. */
static void t_apart(void)
{
    const fx_act act = FX_ACT_NONE;
    const fx_tensor none = fx_none(), both = push(2, 5, 8, 0), up = fx_rows(both, 0, 4),
                    low = fx_rows(both, 1, 4);
    const fx_tensor o = fx_heads(up, 2), at = fx_heads(low, 2), far = push(3, 4, 2, 4),
                    row = push(1, 8, 0, 0);
    const fx_tensor lses = push(2, 3, 4, 0), lse = fx_rows(lses, 0, 2), lse2 = fx_rows(lses, 1, 2);
    const fx_tensor apart = push(2, 2, 4, 0), w = floats(8), near = fx_view2(o.data, FX_F64, 2, 4);
    refused(fx_attention(be, o, none, at, far, far, none, 1), "attention: o [4,2,4] f64 at");
    refused(fx_attention(be, o, none, far, at, far, none, 1), "overlaps k");
    refused(fx_attention(be, o, none, far, far, at, none, 1), "overlaps v");
    refused(fx_attention(be, o, near, far, far, far, none, 1), "overlaps o");
    refused(fx_attention_merge(be, o, lse, at, apart), "overlaps o2");
    refused(fx_attention_merge(be, o, lse, far, lse2), "overlaps lse2");
    refused(fx_norm_mod(be, up, low, row, row, 0), "overlaps x");
    refused(fx_layer_norm(be, up, low, w, w, 0), "overlaps x");
    refused(fx_rms_norm(be, up, low, w, 0), "overlaps x");
    refused(fx_gate_add(be, up, row, low), "overlaps y");
    refused(fx_gate_add(be, up, fx_row(low, 1), push(2, 4, 8, 0)), "overlaps gate");
    refused(fx_qk_norm_rope(be, o, at, none, none, 0), "overlaps x");
    refused(fx_axpy(be, up, low, 1), "overlaps y");
    refused(fx_glu(be, up, low, push(2, 4, 8, 0), act), "overlaps a");
    refused(fx_glu(be, up, push(2, 4, 8, 0), low, act), "overlaps b");
    refused(fx_row_stats(be, fx_view3(o.data, FX_F64, 4, 2, 2), at), "overlaps x");
    refused(fx_group_norm(be, o, at, push(3, 4, 2, 2), fx_slice(w, 0, 0, 4), fx_slice(w, 0, 0, 4), 2, 0, act),
            "overlaps x");
    refused(fx_upsample2x(be, fx_view3(o.data, FX_F64, 4, 4, 2), fx_view3(at.data, FX_F64, 2, 2, 2)),
            "overlaps x");
    refused(fx_embed(be, up, low, fx_view1(w.data, FX_I32, 4)), "overlaps table");
    refused(fx_embed(be, up, push(2, 4, 8, 0), fx_view1(up.data, FX_I32, 4)), "overlaps ids");
    refused(fx_to_rgb8(be, fx_view3(o.data, FX_U8, 2, 2, 3), fx_view3(o.data, FX_F64, 2, 2, 3)),
            "overlaps x");
}

/* Plan: the same peak as the real run, flops counted, no data touched (the measuring arena's addresses would
 * fault). */
static fx_status small_graph(fx_backend *b, fx_weight w)
{
    fx_tensor x, y, o;
    const size_t mark = fx_mark(b->arena);
    FX_TRY(fx_push2(b->arena, b->dtype, 7, 12, &x));
    FX_TRY(fx_push2(b->arena, b->dtype, 7, 12, &y));
    FX_TRY(fx_push2(b->arena, b->dtype, 7, 12, &o));
    if (!fx_planning(b)) memset(x.data, 0, fx_bytes(x));
    FX_TRY(fx_linear(b, y, x, w, fx_none(), FX_ACT_GELU_TANH));
    fx_plan_box(b, "double", 3);
    FX_TRY(fx_attention(b, fx_heads(o, 3), fx_none(), fx_heads(y, 3), fx_heads(x, 3), fx_heads(x, 3),
                        fx_none(), 1));
    int64_t bad = -1;
    FX_TRY(fx_count_nonfinite(b, o, &bad));
    FX_CHECK(bad == 0, FX_ENUMERIC, "%lld not finite", (long long)bad);
    FX_TRY(fx_sync(b));
    fx_rewind(b->arena, mark);
    return FX_OK;
}

static void t_plan(void)
{
    double src[144] = {0};
    const fx_weight w = weight(FX_WEIGHT_LINEAR, 12, 12, 1, src);
    fx_weight planned = w;
    planned.packed = NULL;
    fx_backend *plan = NULL, *real = NULL;
    T_OK(fx_backend_plan(be, &plan));
    T_OK(fx_arena_measure(&plan->arena));
    T_CHECK(fx_planning(plan) && !fx_planning(be), "planning flags");
    T_OK(small_graph(plan, planned));
    const size_t peak = fx_peak(plan->arena);
    T_CHECK(plan->counts.linear_flop == 2.0 * 7 * 12 * 12 && plan->counts.attention_flop == 4.0 * 7 * 7 * 12,
            "flops %g %g", plan->counts.linear_flop, plan->counts.attention_flop);
    T_CHECK(fx_packed_bytes(plan, &planned) == 144 * sizeof(double), "packed bytes come from inner");
    T_OK(fx_backend_open("ref", FX_BF16, 1, &real));
    T_OK(fx_arena_open(NULL, peak, &real->arena));
    T_OK(small_graph(real, w));
    T_CHECK(fx_peak(real->arena) == peak, "real peak %zu, planned %zu", fx_peak(real->arena), peak);
    fx_arena_close(&plan->arena);
    fx_arena_close(&real->arena);
    fx_backend_close(&plan);
    fx_backend_close(&real);
}

/* What a watcher of a plan sees of small_graph. */
typedef struct seen {
    int ops, wrong;
    char box[32];
} seen;

static void on_op(void *ctx, const fx_plan_op *op)
{
    static const struct {
        const char *name, *box;
        int writes, reads;
        bool host;
    } want[] = {{"linear", "", 1, 1, false},
                {"attention", "double_03", 1, 3, false},
                {"count_nonfinite", "double_03", 0, 1, true},
                {"sync", "double_03", 0, 0, true}};
    seen *s = ctx;
    int writes = 0, reads = 0;
    for (int i = 0; i < 2; i++) writes += fx_present(op->write[i]);
    for (int i = 0; i < 5; i++) reads += fx_present(op->read[i]);
    const int n = s->ops++ % 5;
    s->wrong += n > 3 || strcmp(op->name, want[n].name) || strcmp(s->box, want[n].box) ||
                writes != want[n].writes || reads != want[n].reads || op->host != want[n].host ||
                (op->weight.n == 12) != (n == 0);
}

static void on_box(void *ctx, const char *name)
{
    seen *s = ctx;
    snprintf(s->box, sizeof s->box, "%s", name);
}

/* Without a backend inside: the graph of a device. */
static void t_plan_watch(void)
{
    seen s = {0};
    const fx_plan_watch watch = {on_op, on_box, &s};
    const fx_weight w = {NULL, 12, 12, 1, 1, FX_WEIGHT_LINEAR, FX_BF16};
    fx_backend *plan = NULL;
    T_OK(fx_backend_plan(NULL, &plan));
    T_OK(fx_arena_measure(&plan->arena));
    T_CHECK(plan->dtype == FX_BF16 && plan->stream == FX_F32 && plan->rows_exact &&
                fx_packed_bytes(plan, &w) == 288,
            "a device's");
    T_CHECK(strlen(fx_backend_describe(plan)) > 0, "describe");
    fx_plan_box(plan, "nobody", 1);
    T_OK(small_graph(plan, w));
    T_CHECK(fx_peak(plan->arena) == 3 * 256 && s.ops == 0, "no scratch, nobody watched");
    fx_plan_observe(plan, &watch);
    T_OK(small_graph(plan, w));
    T_CHECK(s.ops == 4 && s.wrong == 0 && !strcmp(s.box, "double_03"), "%d ops, %d wrong, box %s", s.ops,
            s.wrong, s.box);
    fx_plan_box(plan, "final", -1);
    T_CHECK(!strcmp(s.box, "final"), "box %s", s.box);
    fx_plan_observe(plan, NULL);
    T_OK(small_graph(plan, w));
    T_CHECK(s.ops == 4, "nobody watches any more");
    fx_plan_box(be, "final", -1); /* nothing on others */
    fx_arena_close(&plan->arena);
    fx_backend_close(&plan);
}

static void t_registry(void)
{
    fx_backend *b = NULL;
    T_CHECK(fx_backend_open("gpu9", FX_F32, 1, &b) == FX_EINVAL && !b && strstr(fx_error(), "ref"), "%s",
            fx_error());
    T_CHECK(fx_backend_open("ref", FX_F16, 1, &b) == FX_EINVAL && !b, "f16 is refused");
    T_CHECK(fx_backend_open("ref", FX_F32, 0, &b) == FX_EINVAL && !b, "0 threads are refused");
    T_CHECK(strstr(fx_backend_list(), "ref") != NULL, "%s", fx_backend_list());
    T_CHECK(strlen(fx_backend_describe(be)) > 0, "describe");
    fx_backend_close(&b);
}

int main(void)
{
    T_OK(fx_backend_open("ref", FX_F32, 2, &be));
    T_OK(fx_arena_open(NULL, 1 << 20, &be->arena));
    void (*const tests[])(void) = {t_checks, t_apart, t_plan, t_plan_watch, t_registry};
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        const size_t mark = fx_mark(be->arena);
        tests[i]();
        fx_rewind(be->arena, mark);
    }
    fx_arena_close(&be->arena);
    fx_backend_close(&be);
    return test_end("t_backend");
}
