/* The whole pipeline on one rank against the reference's tensors (tests/goldens): token ids, text encoders,
 * every block of the first step, latents after each step, pixels. Models are materialised into a temporary
 * folder. t_golden [--backend cpu|onednn|ref|twin|cuda-staged|cuda] [--dtype f32|bf16] [--model FOLDER] [name ...]
 * FOLDER holds weights and golden/.
 * Error of a stage = ||y - g|| / ||g||. f32: text and blocks 1e-4, latents 1e-3, rgb8 within 1. bf16: at
 * most 1.5 times the reference's own bf16 error against the same golden. */
#include <dirent.h>
#include <math.h>
#include <unistd.h>

#include "runtime/io/json.h"
#include "runtime/io/npy.h"
#include "runtime/pipeline.h"
#include "tests/scratch.h"
#include "tests/test.h"

static char tests_dir[1024], tool[1100];

typedef struct golden_run {
    char prompt[2048];
    fx_request request;
} golden_run;

static bool read_run(const char *golden, golden_run *out)
{
    char path[1200];
    json_t *root = NULL;
    snprintf(path, sizeof path, "%s/run.json", golden);
    if (fx_json_load(path, 0, &root)) return false;
    snprintf(out->prompt, sizeof out->prompt, "%s", json_string_value(json_object_get(root, "prompt")));
    out->request = fx_default_request(out->prompt);
    out->request.seed = (uint64_t)json_integer_value(json_object_get(root, "seed"));
    out->request.width = (int)json_integer_value(json_object_get(root, "width"));
    out->request.height = (int)json_integer_value(json_object_get(root, "height"));
    out->request.steps = (int)json_integer_value(json_object_get(root, "steps"));
    out->request.t5_len = (int)json_integer_value(json_object_get(root, "t5_len"));
    const json_t *g = json_object_get(root, "guidance");
    if (json_is_number(g)) out->request.guidance = json_number_value(g);
    json_decref(root);
    return true;
}

static bool load(const char *dir, const char *name, fx_tensor *out)
{
    char path[1300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return fx_npy_read(path, out) == FX_OK;
}

static double value(fx_tensor t, int64_t i)
{
    switch (t.dtype) {
    case FX_F64: return ((double *)t.data)[i];
    case FX_F32: return (double)((float *)t.data)[i];
    case FX_I32: return ((int32_t *)t.data)[i];
    default: return ((uint8_t *)t.data)[i];
    }
}

/* Golden vae_in is [c, h, w], ours [h, w, c]. */
static int64_t golden_index(const char *name, fx_tensor mine, int64_t i)
{
    if (strcmp(name, "vae_in.npy")) return i;
    const int64_t w = mine.shape[1], c = mine.shape[2];
    return (i % c) * mine.shape[0] * w + i / c;
}

/* Relative error, and the largest absolute difference. NaN counts as infinite. */
static double error_of(const char *name, fx_tensor mine, fx_tensor want, double *most)
{
    double diff = 0, norm = 0;
    *most = 0;
    for (int64_t i = 0; i < fx_numel(mine); i++) {
        const double g = value(want, golden_index(name, mine, i)), d = value(mine, i) - g;
        diff += d * d;
        norm += g * g;
        if (!(fabs(d) <= *most)) *most = isnan(d) ? INFINITY : fabs(d);
    }
    return isnan(diff) ? INFINITY : norm > 0 ? sqrt(diff / norm) : sqrt(diff);
}

static double limit_of(const char *name, const json_t *bf16)
{
    char stage[64];
    snprintf(stage, sizeof stage, "%.*s", (int)(strlen(name) - 4), name);
    if (!strncmp(name, "ids_", 4)) return 0;
    if (!strcmp(stage, "sigmas")) return 1e-6;
    if (bf16) return 1.5 * json_number_value(json_object_get(bf16, stage));
    if (!strncmp(name, "latents", 7) || !strcmp(stage, "vae_in") || !strcmp(stage, "pixels")) return 1e-3;
    return 1e-4;
}

static void compare(const char *what, const char *golden, const char *mine_dir, const char *name,
                    const json_t *bf16)
{
    fx_tensor mine = fx_none(), want = fx_none();
    double most = 0;
    if (!load(golden, name, &want) || !load(mine_dir, name, &mine)) {
        T_CHECK(0, "%s %s: %s", what, name, fx_error());
    } else if (fx_numel(mine) != fx_numel(want)) {
        T_CHECK(0, "%s %s: %lld values, golden has %lld", what, name, (long long)fx_numel(mine),
                (long long)fx_numel(want));
    } else {
        const double err = error_of(name, mine, want, &most), limit = limit_of(name, bf16);
        if (getenv("FX_VERBOSE"))
            printf("  %-10s %-22s error %.2e limit %.2e largest %.2e\n", what, name, err, limit, most);
        if (!strcmp(name, "rgb8.npy"))
            T_CHECK(bf16 || most <= 1, "%s rgb8 differs by %g", what, most);
        else
            T_CHECK(err <= limit, "%s %s: error %.3e above %.3e (largest %.3e)", what, name, err, limit,
                    most);
    }
    free(mine.data);
    free(want.data);
}

/* Files of golden/ that are not stages of a text-to-image run. */
static bool skipped(const char *name)
{
    return strncmp(name, "encoder_", 8) == 0 || !strcmp(name, "noise_bf16.npy") || strlen(name) < 5 ||
           strcmp(name + strlen(name) - 4, ".npy") != 0;
}

static void compare_all(const char *what, const char *golden, const char *mine_dir, bool bf16)
{
    char path[1200];
    json_t *errors = NULL;
    snprintf(path, sizeof path, "%s/bf16_errors_exact_time.json", golden);
    if (bf16 && fx_json_load(path, 0, &errors)) T_CHECK(0, "%s: %s", what, fx_error());
    DIR *dir = opendir(golden);
    T_CHECK(dir != NULL, "%s: no folder %s", what, golden);
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (!skipped(e->d_name)) compare(what, golden, mine_dir, e->d_name, errors);
    if (dir) closedir(dir);
    json_decref(errors);
}

static fx_status run_model(const char *model, const golden_run *run, const char *backend, fx_dtype dtype,
                           const char *dump)
{
    fx_comm *comm = NULL;
    fx_pipeline *pipe = NULL;
    fx_pipeline_options opt = fx_pipeline_default_options(model);
    fx_request request = run->request;
    fx_result result;
    opt.backend = backend;
    opt.dtype = dtype;
    request.dump_dir = dump;
    fx_status st = fx_comm_open("self", 60, &comm);
    if (!st) st = fx_pipeline_open(&opt, comm, &pipe);
    if (!st) st = fx_pipeline_generate(pipe, &request, &result);
    fx_pipeline_close(&pipe);
    fx_comm_finish(&comm);
    return st;
}

static void test_model(const char *name, const char *model, const char *golden, const char *backend,
                       fx_dtype dtype)
{
    char dump[700], what[128], command[1600];
    golden_run run;
    snprintf(what, sizeof what, "%s/%s/%s", name, backend, fx_dtype_name(dtype));
    snprintf(dump, sizeof dump, "%s/dump-%s-%s", scratch, backend, fx_dtype_name(dtype));
    snprintf(command, sizeof command, "rm -rf '%s' && mkdir -p '%s'", dump, dump);
    T_CHECK(system(command) == 0, "%s: cannot make %s", what, dump);
    T_CHECK(read_run(golden, &run), "%s: %s", what, fx_error());
    const fx_status st = run_model(model, &run, backend, dtype, dump);
    T_CHECK(st == FX_OK, "%s: %s", what, fx_error());
    if (!st) compare_all(what, golden, dump, dtype == FX_BF16 && strcmp(backend, "ref"));
}

/* Every backend that is built, in each of its dtypes; --backend and --dtype narrow it. */
static void test_backends(const char *name, const char *model, const char *golden, const char *backend,
                          const char *dtype)
{
    const bool all = !backend;
    if ((all || !strcmp(backend, "ref")) && !dtype) test_model(name, model, golden, "ref", FX_F32);
    static const char *const fast[] = {"cpu", "onednn", "twin", "cuda-staged", "cuda"};
    for (int i = 0; i < 5; i++) {
        const bool built = strstr(fx_backend_list(), fast[i]) != NULL;
        if (all ? !built : strcmp(backend, fast[i]) != 0) continue; /* the last three: when asked for */
        if (i < 3 && (!dtype || !strcmp(dtype, "f32"))) test_model(name, model, golden, fast[i], FX_F32);
        if (!dtype || !strcmp(dtype, "bf16")) test_model(name, model, golden, fast[i], FX_BF16);
    }
}

static void test_named(const char *name, const char *backend, const char *dtype)
{
    char command[4000], model[700], golden[1200];
    snprintf(model, sizeof model, "%s/%s", scratch, name);
    snprintf(golden, sizeof golden, "%s/goldens/%s/golden", tests_dir, name);
    snprintf(command, sizeof command, "'%s' '%s/goldens/%s' '%s' >/dev/null", tool, tests_dir, name, model);
    T_CHECK(system(command) == 0, "%s: cannot materialise the model", name);
    test_backends(name, model, golden, backend, dtype);
}

/* The bundled demo model: its folder has weights. */
static void test_demo(const char *backend, const char *dtype)
{
    char model[1100], golden[1200];
    snprintf(model, sizeof model, "%s/../launch/demo/model", tests_dir);
    snprintf(golden, sizeof golden, "%s/goldens/demo/golden", tests_dir);
    test_backends("demo", model, golden, backend, dtype);
}

static const char *const models[] = {"h4dev", "h6schnell", "h10shards", "h24dev", "h4shift", "h5odd"};

int main(int argc, char **argv)
{
    const char *env = getenv("FX_TESTS_DIR"), *backend = NULL, *dtype = NULL, *folder = NULL;
    int names = 0;
    snprintf(tests_dir, sizeof tests_dir, "%s", env ? env : "tests");
    const char *slash = strrchr(argv[0], '/');
    snprintf(tool, sizeof tool, "%.*s/tool_materialize", slash ? (int)(slash - argv[0]) : 1,
             slash ? argv[0] : ".");
    if (!scratch_open()) return 1;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--backend") && i + 1 < argc)
            backend = argv[++i];
        else if (!strcmp(argv[i], "--dtype") && i + 1 < argc)
            dtype = argv[++i];
        else if (!strcmp(argv[i], "--model") && i + 1 < argc)
            folder = argv[++i];
        else {
            test_named(argv[i], backend, dtype);
            names++;
        }
    }
    if (folder) {
        char golden[1200];
        snprintf(golden, sizeof golden, "%s/golden", folder);
        test_backends("folder", folder, golden, backend, dtype);
    } else if (!names) {
        for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) test_named(models[i], backend, dtype);
        test_demo(backend, dtype);
    }
    scratch_close();
    return test_end("t_golden");
}
