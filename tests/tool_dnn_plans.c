/* Which kernels cuDNN takes for a picture on a device that is not here: FLUX.1-dev's graph, as it is planned before every
 * picture, over the CUDA backend with a described device in the place of a real one.
 *   tool_dnn_plans DEVICE.json [all]                    all: convolutions of every rank count, not of one for each size
 *   tool_dnn_plans DEVICE.json QUERIES KEYS HEADS DIM   one attention
 *   tool_dnn_plans version                              the library's
 *   tool_dnn_plans device                               describes the first device that is here, for DEVICE.json
 * One line per plan: operation and shape | engine | kernel, or '-' where the engine is a binary of the library's own. Run by
 * sh_dnn_plans.sh, which has tests/cuda/loader.c loaded for the driver. Exit 1: a check failed, said on stderr. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/internal.h"
#include "runtime/session.h"

enum { TEXT = 512 };

static fx_cuda device = {.workspace_bytes = FX_CUDA_WORKSPACE};
static bool convolutions = true; /* are planned */
static int bad;

#define CHECK(ok, ...)                                                                                       \
    do {                                                                                                     \
        if (!(ok)) {                                                                                         \
            bad = 1;                                                                                         \
            fprintf(stderr, __VA_ARGS__);                                                                    \
            fputc('\n', stderr);                                                                             \
        }                                                                                                    \
    } while (0)

/* ---- a described device ---- */

static fx_status describe(const char *path)
{
    static char json[4096];
    FILE *f = fopen(path, "r");
    const size_t n = f ? fread(json, 1, sizeof json - 1, f) : 0;
    const char *version = strstr(json, "\"deviceVer\":");
    if (f) fclose(f);
    FX_CHECK(n && version, FX_EINVAL, "%s: no description of a device", path);
    device.sm = (int)strtol(strchr(version, ':') + 1, NULL, 10) / 10;
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &device.properties));
    FX_DNN(cudnnBackendSetAttribute(device.properties, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                    CUDNN_TYPE_CHAR, (int64_t)n, json));
    FX_DNN(cudnnBackendFinalize(device.properties));
    return FX_OK;
}

static fx_status print_device(void)
{
    static char json[4096];
    const int32_t first = 0;
    int64_t n = 0;
    FX_DNN(cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &device.properties));
    FX_DNN(cudnnBackendSetAttribute(device.properties, CUDNN_ATTR_DEVICEPROP_DEVICE_ID, CUDNN_TYPE_INT32, 1,
                                    &first));
    FX_DNN(cudnnBackendFinalize(device.properties));
    FX_DNN(cudnnBackendGetAttribute(device.properties, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                    CUDNN_TYPE_CHAR, (int64_t)sizeof json, &n, json));
    printf("%.*s\n", (int)n, json);
    return FX_OK;
}

/* ---- the backend: what planning asks for ---- */

static void show(const char *what, const fx_dnn_plan *plan)
{
    const fx_dnn_name *name = fx_dnn_named(plan);
    printf("%s | %lld | %s\n", what, (long long)name->engine, *name->kernel ? name->kernel : "-");
    fflush(stdout);
    CHECK(name->engine >= 0, "%s: the library does not say which engine it took", what);
}

static fx_status no_scratch(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act act,
                            size_t *bytes)
{
    (void)be, (void)y, (void)x, (void)w, (void)b, (void)act; /* cuBLASLt answers for real devices only */
    *bytes = 0;
    return FX_OK;
}

static fx_status convolution(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                             const int pad[4], size_t *bytes)
{
    const fx_dnn_plan *before = device.dnn_plans;
    char what[128];
    *bytes = 0;
    if (!convolutions) return FX_OK;
    FX_TRY(fx_cuda_conv2d_scratch(be, y, x, w, b, stride, pad, bytes));
    snprintf(what, sizeof what, "conv %d x %d, %lld x %lld x %lld -> %lld x %lld x %lld", w.kh, w.kw,
             (long long)x.shape[0], (long long)x.shape[1], (long long)x.shape[2], (long long)y.shape[0],
             (long long)y.shape[1], (long long)y.shape[2]);
    if (device.dnn_plans != before) show(what, device.dnn_plans);
    return FX_OK;
}

static fx_status attention(fx_backend *be, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k, fx_tensor v,
                           fx_tensor bias, size_t *bytes)
{
    const fx_dnn_plan *before = device.dnn_plans;
    fx_dnn_plan *plan = NULL;
    char what[128], native[16];
    FX_TRY(fx_cuda_attention_scratch(be, o, lse, q, k, v, bias, bytes));
    if (fx_present(bias)) return FX_OK; /* text encoders: two products */
    FX_TRY(fx_cuda_attention_plan(&device, o, lse, q, k, v, bias, &plan));
    snprintf(what, sizeof what, "attention %lld x %lld, %lld heads of %lld", (long long)q.shape[0],
             (long long)k.shape[0], (long long)q.shape[1], (long long)q.shape[2]);
    snprintf(native, sizeof native, "_sm%d_", device.sm);
    CHECK(!plan == (q.shape[2] == 512), "%s: only the VAE's head takes two products", what);
    if (!plan || device.dnn_plans == before) return FX_OK;
    show(what, plan);
    CHECK(strstr(fx_dnn_named(plan)->kernel, native), "%s: the kernel is not for sm_%d", what, device.sm);
    return FX_OK;
}

static const fx_ops planning = {.name = "cuda",
                                .packed_bytes = fx_cuda_packed_bytes,
                                .linear_scratch = no_scratch,
                                .conv2d_scratch = convolution,
                                .attention_scratch = attention};

/* ---- on 9.0 a single query has a kernel for 8.0 alone (kernels/cuda/attention.c takes it twice) ---- */

static void older_kernels(void)
{
    const fx_tensor q = fx_view3(NULL, FX_BF16, 1, 24, 128), k = fx_view3(NULL, FX_BF16, TEXT, 24, 128);
    fx_dnn_plan *plan = NULL;
    unsetenv("FLUXPAR_ALLOW_SM80");
    const fx_status st = fx_cuda_attention_plan(&device, q, fx_none(), q, k, k, fx_none(), &plan);
    CHECK(st == FX_EDEVICE && strstr(fx_error(), "attention of 1 x 512 (queries x keys), 24 heads of 128") &&
              strstr(fx_error(), "_sm80_") && strstr(fx_error(), "FLUXPAR_ALLOW_SM80=1"),
          "a kernel for sm_80 is not refused: %d, %s", (int)st, st ? fx_error() : fx_dnn_named(plan)->kernel);
    setenv("FLUXPAR_ALLOW_SM80", "1", 1);
    CHECK(fx_cuda_attention_plan(&device, q, fx_none(), q, k, k, fx_none(), &plan) == FX_OK && plan &&
              strstr(fx_dnn_named(plan)->kernel, "_sm80_"),
          "FLUXPAR_ALLOW_SM80=1 has no effect: %s", plan ? fx_dnn_named(plan)->kernel : fx_error());
    unsetenv("FLUXPAR_ALLOW_SM80");
}

/* ---- all ranks' parts of two pictures ---- */

static fx_status plan_pictures(fx_backend *be, bool all)
{
    static const fx_size sizes[] = {{1024, 1024, 1, TEXT}, {1360, 768, 1, TEXT}};
    const fx_share alone = {.local_size = 1};
    fx_session_options opt = {.noise_dtype = FX_BF16};
    fx_model m;
    size_t bytes;
    FX_TRY(fx_model_open("synthetic:flux-dev:1+1", be, &alone, &m));
    for (int i = 0; i < 2; i++)
        for (int ranks = 1; ranks <= 8; ranks *= 2) {
            convolutions = all || ranks == (i ? 8 : 1);
            FX_TRY(fx_mesh_make(ranks, (int)m.dit_config.heads, 0, 0, &opt.mesh));
            for (int rank = 0; rank < ranks; rank++)
                FX_TRY(fx_session_plan(&m, be, rank, ranks, &opt, sizes[i], NULL, &bytes));
        }
    fx_model_close(&m);
    return FX_OK;
}

static fx_status plan_one(char **text)
{
    int64_t n[4];
    fx_dnn_plan *plan = NULL;
    for (int i = 0; i < 4; i++) n[i] = strtoll(text[i], NULL, 10);
    const fx_tensor q = fx_view3(NULL, FX_BF16, n[0], n[2], n[3]),
                    k = fx_view3(NULL, FX_BF16, n[1], n[2], n[3]);
    FX_TRY(fx_cuda_attention_plan(&device, q, fx_view2(NULL, FX_F32, n[2], n[0]), q, k, k, fx_none(), &plan));
    if (plan) show("attention", plan);
    return FX_OK;
}

int main(int argc, char **argv)
{
    fx_backend be = {.ops = &planning, .dtype = FX_BF16, .stream = FX_F32, .threads = 1, .impl = &device};
    if (argc == 2 && !strcmp(argv[1], "device")) {
        CHECK(print_device() == FX_OK, "%s", fx_error());
        return bad;
    }
    const bool all = argc == 3 && !strcmp(argv[2], "all");
    if (argc != 2 && argc != 6 && !all) return 2;
    if (!strcmp(argv[1], "version")) {
        printf("cuDNN %zu\n", cudnnGetVersion());
        return 0;
    }
    be.rows_exact = true;
    setenv("FLUXPAR_CACHE", "", 1); /* what an earlier run found is not what is asked */
    fx_status st = describe(argv[1]);
    if (!st) st = argc == 6 ? plan_one(argv + 2) : plan_pictures(&be, all);
    CHECK(!st, "%s", fx_error());
    if (!st && argc < 6 && device.sm == 90) older_kernels();
    fx_dnn_close(&device);
    return bad;
}
