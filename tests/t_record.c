/* A step that is recorded once and played: over a made-up recorder that notes ops of the CPU backend while recording, with
 * their addresses, and runs them when they are played. The pictures must be those of a run that calls every op of every step;
 * so nothing in a step may depend on its number but what it reads from memory. The session then runs one step ahead of its
 * watch: a bad number and a stop signal must still be found, at the right step. */
#include <math.h>

#include "tests/test.h"

#include "kernels/record.h"
#include "runtime/pipeline.h"

/* CMake puts this in the place of the real one. */
fx_status __real_fx_backend_open(const char *name, fx_dtype dtype, int threads, fx_backend **out);
fx_status __wrap_fx_backend_open(const char *name, fx_dtype dtype, int threads, fx_backend **out);

/* ---- the tape ---- */

typedef enum { LINEAR, ATTENTION, NORM_MOD, GATE_ADD, GATE_NORM, QK_NORM_ROPE, COPY, COUNT } op;
typedef struct call {
    op what;
    fx_tensor t[7];
    fx_weight w;
    fx_act act;
    float f[2];
    void *scratch;
} call;

enum { LONGEST = 4096 };
typedef struct tape {
    int n;
    call call[LONGEST];
} tape;

static fx_ops table;
static const fx_ops *real;
static tape *recording; /* ops go there */
static int64_t counted, slot[FX_RECORD_SLOTS];
static int begun, plays, drops, bad_play = -1, stop_play = -1;

static fx_status run(fx_backend *be, const call *c)
{
    const fx_tensor *t = c->t;
    switch (c->what) {
    case LINEAR: return real->linear(be, t[0], t[1], c->w, t[2], c->act, c->scratch);
    case ATTENTION: return real->attention(be, t[0], t[1], t[2], t[3], t[4], t[5], c->f[0], c->scratch);
    case NORM_MOD: return real->norm_mod(be, t[0], t[1], t[2], t[3], c->f[0]);
    case GATE_ADD: return real->gate_add(be, t[0], t[1], t[2]);
    case GATE_NORM: return real->gate_norm(be, t[0], t[1], t[2], t[3], t[4], t[5], c->f[0]);
    case QK_NORM_ROPE: return real->qk_norm_rope(be, t[0], t[1], t[2], t[3], c->f[0]);
    case COPY: return real->copy(be, t[0], t[1], c->f[0], c->f[1]);
    default: return real->count_nonfinite(be, t[0], &counted);
    }
}

static fx_status note(fx_backend *be, const call *c)
{
    if (!recording) return run(be, c);
    T_CHECK(recording->n < LONGEST, "a step has more than %d ops", LONGEST);
    if (recording->n < LONGEST) recording->call[recording->n++] = *c;
    return FX_OK;
}

static fx_status linear(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act act,
                        void *scratch)
{
    return note(be, &(call){LINEAR, {y, x, b}, w, act, {0}, scratch});
}
static fx_status attention(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k, fx_tensor v,
                           fx_tensor bias, float scale, void *scratch)
{
    return note(be, &(call){ATTENTION, {o, lse, q, k, v, bias}, {0}, FX_ACT_NONE, {scale}, scratch});
}
static fx_status norm_mod(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor shift, fx_tensor scale,
                          float eps)
{
    return note(be, &(call){.what = NORM_MOD, .t = {y, x, shift, scale}, .f = {eps}});
}
static fx_status gate_add(fx_backend *be, fx_tensor x, fx_tensor gate, fx_tensor y)
{
    return note(be, &(call){.what = GATE_ADD, .t = {x, gate, y}});
}
static fx_status gate_norm(fx_backend *be, fx_tensor h, fx_tensor x, fx_tensor gate, fx_tensor y,
                           fx_tensor shift, fx_tensor scale, float eps)
{
    return note(be, &(call){.what = GATE_NORM, .t = {h, x, gate, y, shift, scale}, .f = {eps}});
}
static fx_status qk_norm_rope(fx_backend *be, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor cs, float eps)
{
    return note(be, &(call){.what = QK_NORM_ROPE, .t = {y, x, w, cs}, .f = {eps}});
}
static fx_status copy(fx_backend *be, fx_tensor y, fx_tensor x, float mul, float add)
{
    return note(be, &(call){.what = COPY, .t = {y, x}, .f = {mul, add}});
}

/* What stops a device or depends on the moment has no place in a recording. */
static fx_status upload(fx_backend *be, fx_tensor device, const void *host)
{
    T_CHECK(!recording, "an upload while a step is recorded");
    return real->upload(be, device, host);
}
static fx_status download(fx_backend *be, void *host, fx_tensor device)
{
    T_CHECK(!recording, "a download while a step is recorded");
    return real->download(be, host, device);
}
static fx_status sync(fx_backend *be)
{
    T_CHECK(!recording, "the host waits while a step is recorded");
    return real->sync(be);
}
static fx_status count_nonfinite(fx_backend *be, fx_tensor x, int64_t *count)
{
    T_CHECK(!recording, "the host looks at numbers while a step is recorded");
    return real->count_nonfinite(be, x, count);
}

/* ---- the recorder ---- */

static fx_status begin(fx_backend *be)
{
    (void)be;
    begun++;
    recording = (tape *)calloc(1, sizeof *recording);
    return recording ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for a tape");
}
static fx_status end(fx_backend *be, void **out)
{
    (void)be;
    *out = recording;
    recording = NULL;
    return FX_OK;
}
static fx_status play(fx_backend *be, void *what)
{
    const tape *t = (const tape *)what;
    for (int i = 0; i < t->n; i++) {
        if (plays == bad_play && t->call[i].what == COUNT) ((float *)t->call[i].t[0].data)[5] = NAN;
        FX_TRY(run(be, &t->call[i]));
    }
    if (plays == stop_play) fx_stop_request(15);
    plays++;
    return FX_OK;
}
static void drop(fx_backend *be, void *what)
{
    (void)be;
    drops += what != NULL;
    free(what);
}
static fx_status count(fx_backend *be, fx_tensor x)
{
    return note(be, &(call){.what = COUNT, .t = {x}});
}
static fx_status fetch(fx_backend *be, int n)
{
    (void)be;
    slot[n] = counted;
    return FX_OK;
}
static fx_status fetched(fx_backend *be, int n, int64_t *out)
{
    (void)be;
    *out = slot[n];
    return FX_OK;
}
static const fx_recorder recorder = {begin, end, play, drop, count, fetch, fetched};

fx_status __wrap_fx_backend_open(const char *name, fx_dtype dtype, int threads, fx_backend **out)
{
    FX_TRY(__real_fx_backend_open(name, dtype, threads, out));
    real = (*out)->ops;
    table = *real;
    table.linear = linear, table.attention = attention, table.norm_mod = norm_mod, table.gate_add = gate_add;
    table.gate_norm = gate_norm, table.qk_norm_rope = qk_norm_rope, table.copy = copy;
    table.upload = upload, table.download = download, table.sync = sync,
    table.count_nonfinite = count_nonfinite;
    (*out)->ops = &table;
    (*out)->recorder = &recorder;
    return FX_OK;
}

/* ---- pictures ---- */

static char model[1200];
static fx_comm *comm;

static fx_pipeline *open_pipe(bool record)
{
    fx_pipeline *pipe = NULL;
    fx_pipeline_options opt = fx_pipeline_default_options(model);
    opt.backend = "cpu", opt.threads = 1, opt.record = record;
    T_OK(fx_pipeline_open(&opt, comm, &pipe));
    begun = plays = drops = 0;
    return pipe;
}

static fx_status picture(fx_pipeline *pipe, int side, int steps, uint64_t seed, uint64_t *hash)
{
    fx_request q = fx_default_request("a red kite");
    fx_result r = {0};
    q.width = side, q.height = side, q.steps = steps, q.seed = seed, q.t5_len = 20;
    FX_TRY(fx_pipeline_generate(pipe, &q, &r));
    *hash = 1469598103934665603u;
    for (int i = 0; i < 3 * side * side; i++) *hash = (*hash ^ r.rgb[i]) * 1099511628211u;
    for (int i = 0; i < steps; i++) T_CHECK(r.time.step[i] > 0, "step %d took no time", i);
    return FX_OK;
}

static void t_same_pictures(void)
{
    static const struct {
        int side, steps;
        uint64_t seed;
    } list[] = {{64, 4, 1}, {64, 4, 2}, {32, 3, 1}, {64, 4, 1},
                {64, 1, 1}, {64, 2, 1}, {96, 2, 1}, {64, 4, 2}};
    enum { N = sizeof list / sizeof *list };
    uint64_t plain[N] = {0}, played[N] = {0};
    for (int record = 0; record < 2; record++) {
        fx_pipeline *pipe = open_pipe(record);
        for (int i = 0; pipe && i < N; i++)
            T_OK(picture(pipe, list[i].side, list[i].steps, list[i].seed, record ? &played[i] : &plain[i]));
        fx_pipeline_close(&pipe);
        if (!record) T_CHECK(begun == 0 && plays == 0, "recorded although it was told not to");
    }
    for (int i = 0; i < N; i++)
        T_CHECK(played[i] == plain[i] && played[i], "picture %d is another when its steps are recorded", i);
    T_CHECK(played[0] != played[1] && played[0] == played[3], "seeds make no difference, or more than that");
    /* The first step of a size runs, the others are played; a size that comes back is played from its first step. 96x96 needs
     * another block of memory, so all are recorded anew. */
    T_CHECK(plays == 3 + 4 + 2 + 4 + 0 + 1 + 1 + 4, "%d steps were played", plays);
    T_CHECK(begun == 5 && drops == 5, "%d recordings, %d given back", begun, drops);
}

/* More sizes than are kept: the first is recorded again, and all memory comes back. */
static void t_many_sizes(void)
{
    uint64_t first = 0, again = 0, other;
    fx_pipeline *pipe = open_pipe(true);
    T_OK(picture(pipe, 32, 12, 1, &first));
    for (int steps = 11; steps > 1; steps--) T_OK(picture(pipe, 32, steps, 1, &other));
    T_CHECK(begun == 11 && drops >= 2, "%d recordings of 11 sizes, %d given back", begun, drops);
    T_OK(picture(pipe, 32, 12, 1, &again));
    T_CHECK(begun == 12 && first == again, "%d recordings after the first size came back", begun);
    fx_pipeline_close(&pipe);
    T_CHECK(drops == 12, "%d of 12 recordings given back", drops);
}

/* The warm-up takes memory for the largest size once, and the first picture of each is played from its first step. */
static void t_warm_up(void)
{
    uint64_t plain[2] = {0}, warm[2] = {0};
    for (int record = 0; record < 2; record++) {
        fx_pipeline *pipe = open_pipe(record);
        fx_request q[2] = {fx_default_request("other words"), fx_default_request("")};
        q[0].width = q[0].height = 32, q[1].width = q[1].height = 64;
        q[0].steps = q[1].steps = 3, q[0].t5_len = q[1].t5_len = 20;
        if (record) T_OK(fx_pipeline_warm_up(pipe, q, 2));
        if (record)
            T_CHECK(begun == 2 && plays == 2 && drops == 0, "%d recordings, %d plays, %d dropped", begun,
                    plays, drops);
        for (int i = 0; i < 2; i++) T_OK(picture(pipe, q[i].width, 3, 1, record ? &warm[i] : &plain[i]));
        if (record)
            T_CHECK(begun == 2 && plays == 2 + 3 + 3, "%d recordings, %d plays after two pictures", begun,
                    plays);
        T_CHECK(fx_pipeline_warm_up(pipe, q, FX_WARM_MOST + 1) == FX_EINVAL, "more sizes than are kept");
        fx_pipeline_close(&pipe);
    }
    T_CHECK(plain[0] == warm[0] && plain[1] == warm[1], "the warm-up changes pictures");
}

static void t_watched(void)
{
    uint64_t hash;
    fx_pipeline *pipe = open_pipe(true);
    bad_play = 1; /* the third step */
    fx_status st = picture(pipe, 64, 6, 1, &hash);
    T_CHECK(st == FX_ENUMERIC && strstr(fx_error(), "step 3:"), "a NaN in step 3: %s",
            st ? fx_error() : "not found");
    T_CHECK(plays == 3, "%d steps were played until it was found", plays);
    bad_play = -1, plays = 0,
    stop_play = 2; /* the recording of the first picture is there: plays begin with step 1 */
    st = picture(pipe, 64, 6, 1, &hash);
    T_CHECK(st == FX_ESIGNAL, "a signal during step 3: %s", st ? fx_error() : "not seen");
    fx_pipeline_close(&pipe);
}

int main(void)
{
    const char *root = getenv("FX_TESTS_DIR");
    snprintf(model, sizeof model, "%s/../launch/demo/model", root ? root : "tests");
    if (fx_comm_open("self", 60, &comm)) {
        printf("t_record: %s\n", fx_error());
        return 1;
    }
    t_same_pictures();
    t_many_sizes();
    t_warm_up();
    t_watched();
    fx_comm_finish(&comm);
    return test_end("t_record");
}
