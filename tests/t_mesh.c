/* run by: sh_mesh.sh
 * Same picture on any mesh: t_mesh MODEL [threads] [meshes: all|few], under mpirun on P ranks. Rank 0 makes
 * each picture alone; then all ranks make it on every mesh ulysses x ring = P that the heads allow, in both
 * layouts and both dtypes, with row counts that P does not divide, in landscape and portrait. The bytes must
 * be equal. With --exact off (K/V hop, partial results merge) ring meshes may differ: in f32 by 1/255, in
 * bf16 by what bf16 itself costs on this picture. */
#include <stdint.h>
#include <unistd.h>

#include "runtime/pipeline.h"
#include "tests/test.h"

typedef struct shape {
    int width, height, steps, t5_len; /* in units of the model's size multiple for the sides */
} shape;

static const shape shapes[] = {{7, 5, 2, 19}, {3, 11, 2, 7}};
static const char prompt[] = "a red kite above the harbour";

static fx_status picture(const char *model, fx_comm *comm, const fx_mesh *mesh, fx_layout_kind layout,
                         fx_exact exact, fx_dtype dtype, int threads, const shape *s, uint8_t **rgb,
                         size_t *bytes, bool *is_exact)
{
    fx_pipeline *pipe = NULL;
    fx_result result = {0};
    fx_pipeline_options opt = fx_pipeline_default_options(model);
    opt.dtype = dtype;
    opt.threads = threads;
    opt.layout = layout;
    opt.exact = exact;
    opt.ulysses = mesh->ulysses;
    opt.ring = mesh->ring;
    fx_status st = fx_pipeline_open(&opt, comm, &pipe);
    if (!st) {
        const int unit = fx_pipeline_facts(pipe)->size_multiple;
        fx_request r = fx_default_request(prompt);
        r.width = s->width * unit;
        r.height = s->height * unit;
        r.steps = s->steps;
        r.t5_len = s->t5_len;
        r.seed = 5;
        *is_exact = fx_pipeline_facts(pipe)->exact;
        st = fx_pipeline_generate(pipe, &r, &result);
    }
    if (!st && result.rgb) {
        *bytes = (size_t)result.width * (size_t)result.height * 3;
        *rgb = malloc(*bytes);
        if (*rgb) memcpy(*rgb, result.rgb, *bytes);
    }
    fx_pipeline_close(&pipe);
    return st;
}

static int largest_difference(const uint8_t *a, const uint8_t *b, size_t n)
{
    int most = 0;
    for (size_t i = 0; i < n; i++) {
        const int d = a[i] > b[i] ? a[i] - b[i] : b[i] - a[i];
        if (d > most) most = d;
    }
    return most;
}

/* Twice the largest difference between the bf16 picture and the f32 one: two bf16 runs whose sums round
 * differently are each that far from f32. */
static int bf16_noise(const char *model, fx_comm *self, const shape *s, const uint8_t *bf16)
{
    const fx_mesh alone = {1, 1, 1};
    uint8_t *f32 = NULL;
    size_t bytes = 0;
    bool exact;
    int most = 1;
    T_OK(picture(model, self, &alone, FX_LAYOUT_AUTO, FX_EXACT_AUTO, FX_F32, 1, s, &f32, &bytes, &exact));
    if (f32 && bf16) most = largest_difference(f32, bf16, bytes);
    free(f32);
    return 2 * most;
}

/* All meshes of this rank count for one picture. */
static void test_picture(const char *model, fx_comm *world, fx_comm *self, fx_dtype dtype, int threads,
                         const shape *s, bool few)
{
    const int ranks = fx_comm_size(world), rank = fx_comm_rank(world);
    const fx_mesh alone = {1, 1, 1};
    uint8_t *want = NULL, *got = NULL;
    size_t want_bytes = 0, bytes = 0;
    bool exact;
    if (rank == 0) /* one thread: bytes must not depend on threads either */
        T_OK(picture(model, self, &alone, FX_LAYOUT_AUTO, FX_EXACT_AUTO, dtype, 1, s, &want, &want_bytes,
                     &exact));
    const int noise = rank == 0 && dtype == FX_BF16 ? bf16_noise(model, self, s, want) : 1;
    fx_comm_barrier(world);
    for (int ring = 1; ring <= ranks; ring++) {
        const fx_mesh mesh = {ranks, ranks / ring, ring};
        fx_mesh possible;
        if (ranks % ring) continue;
        fx_pipeline_options probe = fx_pipeline_default_options(model);
        fx_pipeline *pipe = NULL;
        if (rank == 0) fx_pipeline_open(&probe, self, &pipe);
        int64_t heads = pipe ? fx_pipeline_facts(pipe)->heads : 0;
        fx_pipeline_close(&pipe);
        fx_comm_broadcast(world, 0, &heads, sizeof heads);
        if (fx_mesh_make(ranks, (int)heads, mesh.ulysses, mesh.ring, &possible)) continue;
        for (int variant = 0; variant < 4; variant++) {
            const fx_layout_kind layout = variant & 1 ? FX_LAYOUT_STREAM : FX_LAYOUT_EVEN;
            const fx_exact ask = variant & 2 ? FX_EXACT_OFF : ring % 2 ? FX_EXACT_AUTO : FX_EXACT_ON;
            if ((layout == FX_LAYOUT_STREAM && ranks < 2) || (ring == 1 && ask == FX_EXACT_OFF) ||
                (few && variant == 1))
                continue;
            const fx_status st =
                picture(model, world, &mesh, layout, ask, dtype, threads, s, &got, &bytes, &exact);
            T_CHECK(st == FX_OK, "%dx%d: %s", mesh.ulysses, mesh.ring, fx_error());
            if (rank == 0 && !st) {
                const int most = bytes == want_bytes ? largest_difference(want, got, bytes) : 255;
                T_CHECK(exact == (ring == 1 || ask != FX_EXACT_OFF), "%dx%d says exact %d", mesh.ulysses,
                        mesh.ring, exact);
                T_CHECK(most <= (exact ? 0 : noise),
                        "%s, %d ranks, mesh %dx%d, %s layout, %s, %dx%d, %d text, exact %d: differs by %d",
                        model, ranks, mesh.ulysses, mesh.ring, fx_layout_name(layout), fx_dtype_name(dtype),
                        s->width, s->height, s->t5_len, exact, most);
            }
            free(got);
            got = NULL;
        }
    }
    free(want);
}

int main(int argc, char **argv)
{
    fx_comm *world = NULL, *self = NULL;
    const char *model = argc > 1 ? argv[1] : "launch/demo/model";
    const int threads = argc > 2 ? atoi(argv[2]) : 1;
    const bool few = argc > 3 && !strcmp(argv[3], "few");
    if (fx_comm_open("auto", 60, &world) || fx_comm_open("self", 60, &self)) {
        printf("t_mesh: %s\n", fx_error());
        return 1;
    }
    const int rank = fx_comm_rank(world);
    const fx_dtype dtypes[] = {FX_BF16, FX_F32};
    for (size_t d = 0; d < 2; d++)
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
            if (!few || (d + i) % 2 == 0)
                test_picture(model, world, self, dtypes[d], threads, &shapes[i], few);
    char name[64];
    snprintf(name, sizeof name, "t_mesh rank %d", rank);
    const int rc = rank == 0 || test_failed ? test_end(name) : 0;
    fx_comm_close(&self);
    fx_comm_finish(&world);
    return rc;
}
