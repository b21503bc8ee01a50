/* run by: sh_plan.sh
 * The memory plan is exact: what the plan backend measures for a rank is the real arena's peak after a real picture, to
 * the byte. t_plan [--seed N] [--count N] under mpirun on P ranks: random models (widths, heads, depths, groups, optional
 * parts; weights generated), sizes, text lengths, meshes, layouts, dtypes and backends, the same draw on all ranks; then the
 * demo model through the pipeline. Each rank checks itself. */
#include <math.h>
#include <time.h>

#include "parallel/node_share.h"
#include "runtime/session.h"
#include "runtime/watch.h"
#include "tests/test_ranks.h"

static uint64_t state;

static int64_t draw(int64_t lo, int64_t hi) /* lo to hi, both included */
{
    state += 0x9e3779b97f4a7c15u; /* splitmix64 */
    uint64_t z = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return lo + (int64_t)((z ^ (z >> 31)) % (uint64_t)(hi - lo + 1));
}

#define PICK(...)                                                                                            \
    ((const int64_t[]){                                                                                      \
        __VA_ARGS__})[draw(0, (int64_t)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)) - 1)]

/* ---- a random model ---- */

typedef struct configs {
    fx_dit_config dit;
    fx_vae_config vae;
    fx_clip_config clip;
    fx_t5_config t5;
} configs;

static void draw_configs(configs *c)
{
    fx_dit_config *d = &c->dit;
    fx_vae_config *v = &c->vae;
    *c = (configs){0};
    v->latent_channels = PICK(4, 8, 16);
    v->in_channels = v->out_channels = 3;
    v->groups = PICK(2, 4, 8);
    v->levels = (int32_t)draw(2, 4);
    for (int i = 0; i < v->levels; i++) v->width[i] = v->groups * draw(1, 3);
    v->layers = (int32_t)draw(1, 2);
    v->scaling = 0.5, v->shift = 0.1;
    v->quant_conv = draw(0, 1), v->post_quant_conv = draw(0, 1), v->mid_attention = draw(0, 1);
    for (int i = 0; i < FX_ROPE_AXES; i++) d->head_dim += d->axis_dim[i] = PICK(2, 4, 6);
    d->heads = PICK(1, 2, 3, 4, 5, 6, 8, 12, 24);
    d->in_channels = d->out_channels = 4 * v->latent_channels;
    d->hidden = d->heads * d->head_dim;
    d->mlp = 4 * d->hidden;
    d->double_blocks = (int32_t)draw(0, 3);
    d->single_blocks = (int32_t)draw(d->double_blocks ? 0 : 1, 3);
    d->guidance = draw(0, 1);
    c->clip = (fx_clip_config){.heads = PICK(1, 2, 4), .ff = PICK(24, 50, 400), .vocab = 100, .eos = 99};
    c->clip.positions = draw(5, 77), c->clip.layers = (int32_t)draw(1, 3), c->clip.eps = 1e-5;
    d->pooled_dim = c->clip.width = c->clip.heads * PICK(8, 12, 40);
    c->t5 = (fx_t5_config){.heads = draw(1, 5), .head_dim = PICK(4, 6, 10, 16), .ff = PICK(20, 48, 700)};
    d->joint_dim = c->t5.width = PICK(16, 24, 40, 200);
    c->t5.vocab = 100, c->t5.buckets = 8, c->t5.max_distance = 20, c->t5.eps = 1e-6;
    c->t5.layers = (int32_t)draw(1, 3);
}

static fx_status open_model(const configs *c, fx_backend *be, const fx_share *share, fx_model *m)
{
    static const char *const part[FX_COMPONENTS] = {"transformer", "vae", "text_encoder", "text_encoder_2"};
    *m = (fx_model){.dit_config = c->dit, .scheduler = {.shift = 1}};
    for (int i = 0; i < FX_COMPONENTS; i++) FX_TRY(fx_checkpoint_synthetic(part[i], 1, &m->checkpoint[i]));
    FX_TRY(fx_store_open(be, share, &m->store));
    FX_TRY(fx_dit_weights_declare(&m->dit_config, m->store, m->checkpoint[0], &m->dit));
    FX_TRY(fx_vae_declare(&c->vae, m->store, m->checkpoint[1], &m->vae));
    FX_TRY(fx_text_open("random", true, &c->clip, &c->t5, m->store, m->checkpoint[2], m->checkpoint[3],
                        &m->text));
    return fx_model_load(m, NULL, NULL, NULL);
}

/* ---- one picture, as fx_pipeline_generate makes it ---- */

static fx_status generate(fx_session *s, const fx_text_ids *ids, uint8_t *rgb)
{
    FX_TRY(fx_text_encode(s->be, s->comm, &s->model->text, ids, s->t5, s->pooled));
    FX_TRY(fx_session_set_noise(s, 7));
    FX_TRY(fx_dit_prepare(&s->dit, s->t5, s->pooled, s->sigma, 3.5));
    for (int step = 0; step < s->size.steps; step++) {
        FX_TRY(fx_session_step(s, step));
        FX_TRY(fx_watch_step(s, step));
    }
    FX_TRY(fx_session_decode(s));
    return fx_session_gather_rgb(s, rgb);
}

typedef struct result {
    size_t planned, peak;
} result;

static fx_status picture(const fx_model *m, fx_backend *be, fx_comm *comm, const fx_session_options *opt,
                         fx_size size, result *out)
{
    fx_session s = {0};
    fx_text_ids ids = {0};
    fx_status st;
    uint8_t *rgb = (uint8_t *)malloc((size_t)size.width * (size_t)size.height * 3);
    FX_TRY_OUT(
        fx_session_plan(m, be, fx_comm_rank(comm), fx_comm_size(comm), opt, size, NULL, &out->planned));
    FX_TRY_OUT(fx_arena_open(NULL, out->planned, &be->arena));
    FX_TRY_OUT(fx_session_open(m, be, comm, opt, size, &s));
    FX_TRY_OUT(fx_text_tokenize(&m->text, "a red kite above the harbour", size.t5_len, &ids));
    FX_TRY_OUT(generate(&s, &ids, rgb));
    out->peak = fx_peak(be->arena);
out:
    fx_text_ids_free(&ids);
    fx_session_close(&s);
    fx_arena_close(&be->arena);
    free(rgb);
    return st;
}

/* ---- the draws around a model ---- */

static const char *draw_backend(void)
{
    static char list[80];
    char *save = NULL, *name[6] = {NULL};
    int n = 0;
    snprintf(list, sizeof list, "%s", fx_backend_list());
    for (char *p = strtok_r(list, " ", &save); p && n < 6; p = strtok_r(NULL, " ", &save)) name[n++] = p;
    return name[draw(0, n - 1)];
}

static fx_mesh draw_mesh(int ranks, int64_t heads)
{
    fx_mesh mesh;
    for (;;)
        if (!fx_mesh_make(ranks, (int)heads, (int)draw(0, ranks), 0, &mesh)) return mesh;
}

static void one(uint64_t seed, int number, fx_comm *comm)
{
    configs c;
    fx_backend *be = NULL;
    fx_share share = {0};
    fx_model m = {0};
    result r = {0};
    state = seed * 1000003u + (uint64_t)number;
    const int ranks = fx_comm_size(comm), rank = fx_comm_rank(comm);
    draw_configs(&c);
    const char *backend = draw_backend();
    const fx_dtype dtype = draw(0, 1) ? FX_F32 : FX_BF16;
    const int threads = (int)draw(1, 2), unit = 2 * fx_vae_factor(&c.vae);
    const fx_size size = {unit * (int)draw(1, 11), unit * (int)draw(1, 11), (int)draw(1, 3),
                          (int)draw(1, 40)};
    fx_session_options opt = {.mesh = draw_mesh(ranks, c.dit.heads), .noise_dtype = dtype};
    opt.layout = (fx_layout_kind)draw(0, ranks > 1 ? 2 : 1);
    opt.exact = (fx_exact)draw(0, 2);
    fx_status st = fx_backend_open(backend, dtype, threads, &be);
    if (!st) st = fx_node_share_open(comm, &share);
    if (!st) st = open_model(&c, be, &share, &m);
    st = fx_comm_vote(comm, st, NULL);
    if (!st) st = picture(&m, be, comm, &opt, size, &r);
    T_CHECK(
        !st && r.planned == r.peak && r.peak > 0,
        "rank %d of %d, configuration %d: planned %zu bytes, used %zu; %s; %s %s, mesh %dx%d, %s, exact %d, "
        "%dx%d, %d text tokens; again: mpirun -np %d t_plan --seed %llu --only %d",
        rank, ranks, number, r.planned, r.peak, st ? fx_error() : "no error", backend, fx_dtype_name(dtype),
        opt.mesh.ulysses, opt.mesh.ring, fx_layout_name(opt.layout), (int)opt.exact, size.width, size.height,
        size.t5_len, ranks, (unsigned long long)seed, number);
    fx_model_close(&m);
    fx_node_share_close(&share);
    fx_backend_close(&be);
}

/* The demo model through the front door: three sizes on one pipeline, so that the arena is planned three times. */
static void demo(const char *model, fx_comm *comm)
{
    fx_pipeline *pipe = NULL;
    fx_pipeline_options opt = fx_pipeline_default_options(model);
    opt.threads = 1;
    opt.backend = draw(0, 1) ? "guard" : "auto";
    fx_status st = fx_pipeline_open(&opt, comm, &pipe);
    for (int i = 0; !st && i < 3; i++) {
        fx_request q = fx_default_request("a slice of pizza");
        fx_result r = {0};
        q.width = 16 * (int)draw(1, 9), q.height = 16 * (int)draw(1, 9);
        q.steps = 2, q.t5_len = (int)draw(1, 40);
        st = fx_pipeline_generate(pipe, &q, &r);
        for (int k = 0; !st && fx_comm_rank(comm) == 0 && k < fx_comm_size(comm); k++)
            T_CHECK(r.rank[k].arena_bytes == r.rank[k].arena_peak_bytes,
                    "demo model, %dx%d, %d text tokens, rank %d of %d: planned %llu bytes, used %llu",
                    q.width, q.height, q.t5_len, k, fx_comm_size(comm),
                    (unsigned long long)r.rank[k].arena_bytes,
                    (unsigned long long)r.rank[k].arena_peak_bytes);
    }
    T_CHECK(!st, "demo model: %s", fx_error());
    fx_pipeline_close(&pipe);
}

int main(int argc, char **argv)
{
    fx_comm *comm = NULL;
    uint64_t seed = 1837;
    int count = 30, only = -1;
    const char *model = NULL;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--seed")) seed = strtoull(argv[i + 1], NULL, 10);
        if (!strcmp(argv[i], "--count")) count = atoi(argv[i + 1]);
        if (!strcmp(argv[i], "--only")) only = atoi(argv[i + 1]);
        if (!strcmp(argv[i], "--demo")) model = argv[i + 1];
    }
    if (fx_comm_open("auto", 60, &comm)) {
        printf("t_plan: %s\n", fx_error());
        return 1;
    }
    if (fx_comm_rank(comm) == 0)
        printf("t_plan: %d ranks, seed %llu\n", fx_comm_size(comm), (unsigned long long)seed);
    for (int i = 0; i < count; i++)
        if (only < 0 || only == i) one(seed, i, comm);
    state = seed;
    if (model) demo(model, comm);
    const int rc = test_end_ranks(comm, "t_plan");
    fx_comm_finish(&comm);
    return rc;
}
