/* The guard backend (kernels/guard.c) over backends that misbehave: each of its complaints is made, by name, op and
 * number of the call, and what the contract allows passes. The misbehaving ones are ref with one slot replaced, and the
 * plan backend, whose ops write nothing. The whole pipeline under guard: sh_guard. */
#include "tests/test.h"

#include <math.h>

#include "kernels/guard.h"

enum { T = 3, C = 4 };
static fx_ops bad;     /* ref's table with what a test replaces */
static fx_ops ref_ops; /* as it was */
static fx_backend *be; /* guard over ref with table `bad` */
static fx_arena *arena;

static fx_tensor push(int64_t a, int64_t b)
{
    fx_tensor t;
    T_OK(fx_push2(be->arena, FX_F64, a, b, &t));
    for (int64_t i = 0; i < a * b; i++) ((double *)t.data)[i] = 0.25 * (double)(i % 7) - 0.5;
    return t;
}

static float ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
static double weights[C * C];

static fx_weight weight(void)
{
    for (int i = 0; i < C * C; i++) weights[i] = 0.125 * (i % 5);
    return (fx_weight){weights, C, C, 1, 1, FX_WEIGHT_LINEAR, FX_F64};
}

static void start(void)
{
    fx_backend *inner = NULL;
    fx_arena_close(&arena);
    fx_backend_close(&be);
    T_OK(fx_backend_open("ref", FX_F32, 1, &inner));
    ref_ops = bad = *inner->ops;
    inner->ops = &bad;
    T_OK(fx_backend_guard(inner, &be));
    T_OK(fx_arena_open(NULL, 1 << 15, &arena));
    be->arena = arena;
}

static void complains(fx_status st, fx_status want, const char *words)
{
    T_CHECK(st == want && strstr(fx_error(), words), "%s \"%s\", want %s with \"%s\"", fx_status_name(st),
            st ? fx_error() : "", fx_status_name(want), words);
    T_CHECK(st != want || !strncmp(fx_error(), "guard: call ", 12), "%s", fx_error());
}

/* ---- linear, which may do anything wrong ---- */

static enum { RIGHT, SHORT, GAP, INPUT, WEIGHT, NOT_A_NUMBER, BEFORE, BEHIND, REFUSES } mistake;
enum { SCRATCH = 99 };

static fx_status bad_scratch(fx_backend *b, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor bias, fx_act act,
                             size_t *bytes)
{
    (void)b, (void)y, (void)x, (void)w, (void)bias, (void)act;
    *bytes = SCRATCH;
    return FX_OK;
}

static fx_status bad_linear(fx_backend *b, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor bias, fx_act act,
                            void *scratch)
{
    double *out = (double *)y.data;
    unsigned char *own = (unsigned char *)scratch;
    const double kept = out[(T - 1) * y.stride[0] + C - 1];
    if (mistake == REFUSES) return FX_FAIL(FX_EDEVICE, "the device has gone");
    FX_TRY(ref_ops.linear(b, y, x, w, bias, act, NULL));
    memset(own, 0, SCRATCH); /* all of it is its own */
    switch (mistake) {
    case SHORT: out[(T - 1) * y.stride[0] + C - 1] = kept; break;
    case GAP: out[C] = 1; break;
    case INPUT: ((double *)x.data)[x.stride[0]] += 1e-12; break;
    case WEIGHT: ((double *)w.packed)[3] = 7; break; /* NOLINT: that is the mistake */
    case NOT_A_NUMBER: out[2 * y.stride[0] + 1] = NAN; break;
    case BEFORE: own[-1] = 0; break;
    case BEHIND: own[SCRATCH] = 0; break;
    default: break;
    }
    return FX_OK;
}

/* Reads scratch that this call did not write. */
static fx_status stale_linear(fx_backend *b, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor bias,
                              fx_act act, void *scratch)
{
    FX_TRY(ref_ops.linear(b, y, x, w, bias, act, NULL));
    memcpy(y.data, scratch, sizeof(double));
    return FX_OK;
}

static fx_status run_linear(void)
{
    const size_t mark = fx_mark(be->arena);
    const fx_tensor x = push(T, C), y = fx_cols(push(T, C + 3), 0, C); /* three columns are another's */
    const fx_status st = fx_linear(be, y, x, weight(), fx_view1(ones, FX_F32, C), FX_ACT_GELU_TANH);
    fx_rewind(be->arena, mark);
    return st;
}

static void t_linear(void)
{
    start();
    bad.linear = bad_linear;
    bad.linear_scratch = bad_scratch;
    mistake = RIGHT;
    T_OK(run_linear());
    const struct {
        int mistake;
        fx_status st;
        const char *words;
    } rows[] = {
        {SHORT, FX_ESHAPE, "linear: 1 elements of the output y [3,4] f64 were not written"},
        {SHORT, FX_ESHAPE, "the first is [2,3]"},
        {GAP, FX_ESHAPE, "linear: wrote between the rows of its output y [3,4] f64, "},
        {INPUT, FX_ESHAPE, "linear: changed its input x [3,4] f64"},
        {WEIGHT, FX_ESHAPE, "linear: changed its weight"},
        {NOT_A_NUMBER, FX_ENUMERIC,
         "linear: finite inputs gave 1 NaN or infinities in y [3,4] f64, the first at [2,1]"},
        {BEFORE, FX_ESHAPE, "linear: wrote before its scratch of 99 bytes"},
        {BEHIND, FX_ESHAPE, "linear: wrote behind its scratch of 99 bytes"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char call[40];
        mistake = rows[i].mistake;
        complains(run_linear(), rows[i].st, rows[i].words);
        snprintf(call, sizeof call, "guard: call %zu, linear", i + 2);
        T_CHECK(strstr(fx_error(), call), "%s; want %s", fx_error(), call);
    }
    mistake = REFUSES;
    T_CHECK(run_linear() == FX_EDEVICE && strstr(fx_error(), "gone"), "an op's own error stays: %s",
            fx_error());
    bad.linear = stale_linear;
    complains(run_linear(), FX_ESHAPE, "or made from scratch that was not");
    T_CHECK(fx_exit_code(FX_ESHAPE) == 4 && fx_exit_code(FX_ENUMERIC) == 6, "exit codes");
}

/* ---- the caller: memory that nothing wrote, ids outside the table ---- */

static void t_caller(void)
{
    fx_tensor x, y, left;
    start();
    bad.linear = bad_linear;
    bad.linear_scratch = bad_scratch;
    mistake = RIGHT;
    const size_t mark = fx_mark(be->arena);
    x = push(T, C), y = push(T, C);
    const size_t over = fx_mark(be->arena);
    T_OK(fx_linear(be, y, x, weight(), fx_none(), FX_ACT_NONE));
    fx_rewind(be->arena, over); /* where the scratch was */
    T_OK(fx_push2(be->arena, FX_F64, 1, C, &left));
    complains(fx_activate(be, fx_rows(y, 0, 1), left, FX_ACT_SILU), FX_ESHAPE,
              "activate: 4 elements of the input x [1,4] f64 were never written, the first is [0,0]");
    ((double *)left.data)[0] = ((double *)left.data)[1] = ((double *)left.data)[3] = 1;
    complains(fx_axpy(be, left, fx_rows(x, 0, 1), 2), FX_ESHAPE,
              "axpy: 1 elements of the input x [1,4] f64 were never written, the first is [0,2]");
    int32_t ids[] = {0, 3, 2};
    complains(fx_embed(be, y, x, fx_view1(ids, FX_I32, 3)), FX_ESHAPE,
              "embed: id 3 at 1 of a table of 3 rows");
    fx_rewind(be->arena, mark);
}

/* ---- ops that write nothing ---- */

static const char unwritten[] = "were not written";

static void t_idle_rows(fx_tensor x, fx_tensor y)
{
    const fx_tensor v = fx_view1(ones, FX_F32, C), row = fx_row(x, 1);
    int32_t ids[T] = {0, 1, 2};
    complains(fx_linear(be, y, x, weight(), fx_none(), FX_ACT_NONE), FX_ESHAPE, unwritten);
    complains(fx_norm_mod(be, y, x, row, row, 1e-6f), FX_ESHAPE, unwritten);
    complains(fx_layer_norm(be, y, x, v, v, 1e-6f), FX_ESHAPE, unwritten);
    complains(fx_rms_norm(be, y, x, v, 1e-6f), FX_ESHAPE, unwritten);
    complains(fx_activate(be, y, x, FX_ACT_SILU), FX_ESHAPE, unwritten);
    complains(fx_glu(be, y, x, x, FX_ACT_SILU), FX_ESHAPE, unwritten);
    complains(fx_copy(be, y, x, 1, 0), FX_ESHAPE, unwritten);
    complains(fx_embed(be, y, x, fx_view1(ids, FX_I32, T)), FX_ESHAPE, unwritten);
    complains(fx_qk_norm_rope(be, fx_heads(y, 2), fx_heads(x, 2), fx_none(), fx_none(), 1e-6f), FX_ESHAPE,
              unwritten);
    complains(fx_attention(be, fx_heads(y, 2), fx_none(), fx_heads(x, 2), fx_heads(x, 2), fx_heads(x, 2),
                           fx_none(), 1),
              FX_ESHAPE, "attention: 12 elements of the output o");
}

static void t_idle_pictures(fx_tensor x, fx_tensor y)
{
    const fx_tensor picture = fx_view3(x.data, FX_F64, 2, 2, 3), v = fx_view1(ones, FX_F32, 3);
    const int pad[4] = {0, 0, 0, 0};
    fx_weight w = weight();
    w.kind = FX_WEIGHT_CONV, w.k = 3, w.n = 3;
    complains(fx_conv2d(be, fx_view3(y.data, FX_F64, 2, 2, 3), picture, w, fx_none(), 1, pad), FX_ESHAPE,
              unwritten);
    const fx_tensor stats = fx_view3(y.data, FX_F64, 2, 3, 2);
    complains(fx_row_stats(be, stats, picture), FX_ESHAPE, unwritten);
    fx_tensor big;
    T_OK(fx_push3(be->arena, FX_F64, 4, 4, 3, &big));
    complains(fx_upsample2x(be, big, picture), FX_ESHAPE, unwritten);
    memset(y.data, 0, fx_bytes(y));
    complains(
        fx_group_norm(be, fx_view3(big.data, FX_F64, 2, 2, 3), picture, stats, v, v, 2, 1e-6f, FX_ACT_NONE),
        FX_ESHAPE, unwritten);
    complains(fx_to_rgb8(be, fx_view3(big.data, FX_U8, 2, 2, 3), picture), FX_ESHAPE, unwritten);
}

/* The plan backend's ops compute nothing: every output op is found idle. */
static void t_idle(void)
{
    fx_backend *ref = NULL, *plan = NULL, *watched;
    fx_arena *own = NULL;
    T_OK(fx_backend_open("ref", FX_F32, 1, &ref));
    T_OK(fx_backend_plan(ref, &plan));
    T_OK(fx_backend_guard(plan, &watched));
    T_OK(fx_arena_open(NULL, 1 << 15, &own));
    fx_backend *before = be;
    be = watched;
    be->arena = own;
    const fx_tensor x = push(T, C), y = push(T, C);
    t_idle_rows(x, y);
    t_idle_pictures(x, y);
    double host[C] = {9, 9, 9, 9};
    complains(fx_upload(be, fx_row(x, 0), host), FX_ESHAPE, "upload: 32 bytes did not arrive");
    complains(fx_download(be, host, fx_row(x, 0)), FX_ESHAPE, "download: 32 bytes did not arrive");
    int64_t count;
    ((double *)x.data)[5] = INFINITY;
    complains(fx_count_nonfinite(be, x, &count), FX_ESHAPE, "counted 0 NaN and infinities, there are 1");
    be = before;
    fx_backend_close(&watched);
    fx_arena_close(&own);
    fx_backend_close(&ref);
}

/* ---- pack, merge, lse ---- */

static fx_status bad_pack(fx_backend *b, const fx_weight *w, const void *src, void *dst)
{
    FX_TRY(ref_ops.pack(b, w, src, dst));
    ((unsigned char *)dst)[ref_ops.packed_bytes(b, w)] = 0;
    return FX_OK;
}

static fx_status bad_merge(fx_backend *b, fx_tensor o, fx_tensor lse, fx_tensor o2, fx_tensor lse2)
{
    FX_TRY(ref_ops.attention_merge(b, o, lse, o2, lse2));
    ((double *)lse2.data)[0] = 0;
    return FX_OK;
}

static void t_others(void)
{
    double packed[C * C + 40] = {0};
    start();
    const fx_weight w = weight();
    T_OK(fx_pack(be, &w, weights, packed));
    T_CHECK(!memcmp(packed, weights, sizeof weights) && packed[C * C] == 0, "pack hands its bytes on");
    bad.pack = bad_pack;
    complains(fx_pack(be, &w, weights, packed), FX_ESHAPE,
              "pack: wrote behind the 128 bytes of the weight [4,4]");
    const fx_tensor o = fx_heads(push(T, C), 2), o2 = fx_heads(push(T, C), 2), lse = push(2, T),
                    lse2 = push(2, T);
    bad.attention_merge = bad_merge;
    complains(fx_attention_merge(be, o, lse, o2, lse2), FX_ESHAPE, "attention_merge: changed its input lse2");
}

/* ---- what is allowed ---- */

static void t_allowed(void)
{
    start();
    const fx_tensor x = push(T, C), y = push(T, C), lse = push(2, T);
    fx_tensor bias;
    T_OK(fx_push2(be->arena, FX_F32, 1, 2 * T - 1, &bias));
    for (int i = 0; i < 2 * T - 1; i++) ((float *)bias.data)[i] = -INFINITY;
    T_OK(fx_attention(be, fx_heads(y, 2), lse, fx_heads(x, 2), fx_heads(x, 2), fx_heads(x, 2), bias, 1));
    T_CHECK(((double *)lse.data)[0] == -INFINITY && ((double *)y.data)[0] == 0, "no key: lse -inf, o 0");
    T_OK(fx_activate(be, x, x, FX_ACT_SILU)); /* in place: not filled */
    T_CHECK(((double *)x.data)[1] != 0 && isfinite(((double *)x.data)[1]), "%g", ((double *)x.data)[1]);
    T_OK(fx_axpy(be, x, y, 2));
    T_OK(fx_activate(be, fx_rows(y, 0, 0), fx_rows(x, 0, 0), FX_ACT_SILU)); /* no rows */
    ((double *)x.data)[5] = NAN; /* bad latents go through, and are counted by the watch of each step */
    T_OK(fx_activate(be, y, x, FX_ACT_SILU));
    int64_t count = 0;
    T_OK(fx_count_nonfinite(be, y, &count));
    T_CHECK(count == 1 && isnan(((double *)y.data)[5]), "%lld", (long long)count);
}

static void t_registry(void)
{
    fx_backend *b = NULL;
    T_OK(fx_backend_open("guard", FX_F32, 1, &b));
    char words[80];
    snprintf(words, sizeof words, "every op of %s is watched: ", fx_backend_auto());
    T_CHECK(fx_guarding(b) && !strncmp(fx_backend_describe(b), words, strlen(words)), "%s",
            fx_backend_describe(b));
    fx_backend_close(&b);
    T_OK(fx_backend_open("guard:ref", FX_BF16, 1, &b));
    T_CHECK(strstr(fx_backend_describe(b), "every op of ref is watched: f64"), "%s", fx_backend_describe(b));
    T_CHECK(b->dtype == FX_F64 && b->rows_exact, "guard has the dtypes of what it watches");
    fx_backend_close(&b);
    T_CHECK(fx_backend_open("guard:tpu", FX_F32, 1, &b) == FX_EINVAL && !b, "%s", fx_error());
    T_CHECK(fx_backend_open("guardian", FX_F32, 1, &b) == FX_EINVAL && !b, "%s", fx_error());
    T_CHECK(!strcmp(fx_backend_computing("guard"), fx_backend_auto()) &&
                !strcmp(fx_backend_computing("guard:ref"), "ref") &&
                !strcmp(fx_backend_computing("ref"), "ref"),
            "whose numbers");
}

int main(void)
{
    t_linear();
    t_caller();
    t_others();
    t_allowed();
    t_idle();
    t_registry();
    fx_arena_close(&arena);
    fx_backend_close(&be);
    return test_end("t_guard");
}
