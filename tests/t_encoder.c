/* run by: sh_encoder.sh
 * The VAE's way in: t_encoder MODEL GOLDEN_DIR, alone or under mpirun. The reference's posterior mean of a
 * generated picture is compared on the picture split by rows over the ranks; the bytes must equal those of
 * one rank. f32 1e-4, bf16 1.5 times the reference's own bf16 error. */
#include <math.h>

#include "parallel/node_share.h"
#include "runtime/io/json.h"
#include "runtime/io/npy.h"
#include "runtime/model.h"
#include "tests/test.h"

typedef struct size {
    int64_t width, height;
} size;

/* One encode over this comm: rows split evenly; mean of the whole picture on every rank (malloc'ed). */
typedef struct job {
    fx_model *model;
    fx_backend *be;
    fx_comm *comm;
    size picture;
    const float *rgb; /* [height, width, 3] */
} job;

static fx_status graph(const job *j, fx_range *range, fx_tensor *all)
{
    const int ranks = fx_comm_size(j->comm), rank = fx_comm_rank(j->comm),
              factor = fx_vae_factor(&j->model->vae.cfg);
    const int64_t h = j->picture.height / factor, w = j->picture.width / factor,
                  z = j->model->vae.cfg.latent_channels;
    for (int i = 0; i < ranks; i++) {
        const fx_range pair = fx_split_even(h / 2, ranks, i);
        range[i] = (fx_range){2 * pair.begin, 2 * pair.count};
    }
    const fx_range mine = range[rank];
    fx_tensor raw, pixels, mean;
    fx_vae_run run;
    FX_TRY(fx_push3(j->be->arena, j->be->dtype, h, w, z, all));
    FX_TRY(fx_push3(j->be->arena, FX_F32, mine.count * factor, j->picture.width, 3, &raw));
    FX_TRY(fx_push3(j->be->arena, j->be->dtype, mine.count * factor, j->picture.width, 3, &pixels));
    FX_TRY(fx_push3(j->be->arena, j->be->dtype, mine.count, w, z, &mean));
    if (!fx_planning(j->be) && mine.count)
        FX_TRY(fx_upload(j->be, raw, j->rgb + mine.begin * factor * j->picture.width * 3));
    FX_TRY(fx_copy(j->be, pixels, raw, 1, 0));
    FX_TRY(fx_vae_run_open(&j->model->vae, j->be, j->comm, range, h, &run));
    fx_status st = fx_vae_encode(&run, pixels, mean);
    const fx_slabs slabs = {.comm = j->comm, .range = range, .rows = h};
    if (!st) st = fx_gather_rows(j->be, &slabs, mean, *all);
    fx_vae_run_close(&run);
    return st;
}

/* Measures with the plan backend, takes the memory, runs; *mean: f32 [h, w, z]. */
static fx_status encode(job *j, float **mean, int64_t *count)
{
    fx_backend *plan = NULL, *real = j->be;
    fx_comm *comm = j->comm, *nothing = NULL;
    fx_arena *arena = NULL, *memory = NULL;
    fx_range range[64];
    fx_tensor all;
    fx_status st;
    FX_TRY_OUT(fx_backend_plan(real, &plan));
    FX_TRY_OUT(fx_comm_open_plan(fx_comm_rank(comm), fx_comm_size(comm), &nothing));
    FX_TRY_OUT(fx_arena_measure(&arena));
    plan->arena = arena;
    j->be = plan;
    j->comm = nothing;
    st = graph(j, range, &all);
    j->be = real;
    j->comm = comm;
    if (st) goto out;
    FX_TRY_OUT(fx_arena_open(NULL, fx_peak(arena), &memory));
    real->arena = memory;
    FX_TRY_OUT(graph(j, range, &all));
    T_CHECK(fx_peak(memory) == fx_peak(arena), "planned %zu bytes, used %zu", fx_peak(arena),
            fx_peak(memory));
    *count = fx_numel(all);
    *mean = malloc((size_t)*count * sizeof **mean);
    fx_convert(*mean, FX_F32, all.data, all.dtype, *count);
out:
    fx_arena_close(&memory);
    fx_arena_close(&arena);
    fx_comm_close(&nothing);
    fx_backend_close(&plan);
    return st;
}

static double golden_error(const float *mean, const fx_model *m, size s, fx_tensor want)
{
    const int factor = fx_vae_factor(&m->vae.cfg);
    const int64_t h = s.height / factor, w = s.width / factor, z = m->vae.cfg.latent_channels;
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < h * w * z; i++) {
        const double g = (double)((float *)want.data)[(i % z) * h * w + i / z], d = (double)mean[i] - g;
        diff += d * d;
        norm += g * g;
    }
    return isnan(diff) ? INFINITY : sqrt(diff / norm);
}

static double bf16_limit(const char *golden)
{
    char path[1200];
    json_t *root = NULL;
    snprintf(path, sizeof path, "%s/bf16_errors.json", golden);
    if (fx_json_load(path, 0, &root)) return 0;
    const double v = json_number_value(json_object_get(root, "encoder_mean"));
    json_decref(root);
    return 1.5 * v;
}

static fx_status run(const char *model, const char *golden, fx_dtype dtype, const char *backend,
                     fx_comm *comm, fx_comm *self)
{
    char path[1200];
    json_t *info = NULL;
    fx_tensor want = fx_none();
    fx_backend *be = NULL;
    fx_model m = {0};
    float *mean = NULL, *alone = NULL;
    int64_t n = 0, n1 = 0;
    fx_status st;
    snprintf(path, sizeof path, "%s/run.json", golden);
    FX_TRY(fx_json_load(path, 0, &info));
    const size s = {json_integer_value(json_object_get(info, "encoder_width")),
                    json_integer_value(json_object_get(info, "encoder_height"))};
    json_decref(info);
    snprintf(path, sizeof path, "%s/encoder_mean.npy", golden);
    FX_TRY(fx_npy_read(path, &want));
    float *chw = malloc((size_t)(3 * s.width * s.height) * 4),
          *hwc = malloc((size_t)(3 * s.width * s.height) * 4);
    fx_synthetic_fill(fx_synthetic_key("golden", "encoder_in", 0), 0, 3 * s.width * s.height, 1, 0, chw);
    for (int64_t i = 0; i < 3 * s.width * s.height; i++) hwc[i] = chw[(i % 3) * s.width * s.height + i / 3];
    FX_TRY_OUT(fx_backend_open(backend, dtype, 1, &be));
    FX_TRY_OUT(fx_model_open(model, be, NULL, &m));
    FX_TRY_OUT(fx_model_load(&m, NULL, NULL, NULL));
    job j = {&m, be, comm, s, hwc};
    FX_TRY_OUT(encode(&j, &mean, &n));
    j.comm = self;
    FX_TRY_OUT(encode(&j, &alone, &n1));
    const double err = golden_error(mean, &m, s, want),
                 limit = dtype == FX_BF16 && be->dtype == FX_BF16 ? bf16_limit(golden) : 1e-4;
    T_CHECK(err <= limit, "%s %s: error %.2e above %.2e", golden, backend, err, limit);
    T_CHECK(n == n1 && !memcmp(mean, alone, (size_t)n * 4), "%s %s %s: %d ranks differ from one", golden,
            backend, fx_dtype_name(dtype), fx_comm_size(comm));
out:
    free(want.data);
    free(chw);
    free(hwc);
    free(mean);
    free(alone);
    fx_model_close(&m);
    fx_backend_close(&be);
    return st;
}

int main(int argc, char **argv)
{
    fx_comm *world = NULL, *self = NULL;
    if (argc < 3 || fx_comm_open("auto", 60, &world) || fx_comm_open("self", 60, &self)) {
        printf("t_encoder: %s\n", argc < 3 ? "usage: t_encoder MODEL GOLDEN_DIR" : fx_error());
        return 1;
    }
    T_OK(run(argv[1], argv[2], FX_F32, "ref", world, self));
    if (strstr(fx_backend_list(), "cpu")) {
        T_OK(run(argv[1], argv[2], FX_F32, "cpu", world, self));
        T_OK(run(argv[1], argv[2], FX_BF16, "cpu", world, self));
    }
    char name[64];
    snprintf(name, sizeof name, "t_encoder rank %d", fx_comm_rank(world));
    const int rc = fx_comm_rank(world) == 0 || test_failed ? test_end(name) : 0;
    fx_comm_close(&self);
    fx_comm_finish(&world);
    return rc;
}
