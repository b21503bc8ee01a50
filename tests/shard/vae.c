/* A small random autoencoder by rows on several ranks against one rank, both ways: the pixels and latents must have
 * the bits of one rank. Row counts are odd, slabs uneven, thin (fewer rows than ranks) and empty. */
#include "runtime/vae/vae.h"
#include "tests/shard/shard.h"

#include <math.h>

enum { LATENTS = 3, COLUMNS = 5 };

typedef struct job {
    const fx_vae *vae;
    const fx_range *range;
    int64_t rows; /* of latents */
} job;

static void fill(fx_tensor t, int64_t first_row, int kind)
{
    const fx_tensor flat = fx_view2(t.data, t.dtype, t.shape[0], t.shape[1] * t.shape[2]);
    for (int64_t r = 0; r < flat.shape[0]; r++)
        for (int64_t c = 0; c < flat.shape[1]; c++)
            shard_store(flat, r, c, shard_noise((uint64_t)(first_row + r), (uint64_t)c, (uint64_t)kind));
}

static double *keep(fx_tensor t, double *out)
{
    const int64_t n = fx_numel(t);
    fx_convert(out, FX_F64, t.data, t.dtype, n);
    return out + n;
}

static fx_status decode_encode(fx_vae_run *r, fx_tensor z, fx_tensor pixels, fx_tensor picture,
                               fx_tensor mean)
{
    FX_TRY(fx_vae_decode(r, z, pixels));
    const int64_t factor = fx_vae_factor(&r->vae->cfg);
    T_CHECK(r->rows % factor == 0, "resolution after decoding");
    fx_vae_rescale(r, 1, (int)factor);
    return fx_vae_encode(r, picture, mean);
}

/* result: pixels of my rows, then the mean of my rows */
static fx_status graph(const void *ctx, fx_backend *be, fx_comm *comm, double *result)
{
    const job *j = ctx;
    const fx_vae_config *c = &j->vae->cfg;
    const fx_range mine = j->range[fx_comm_rank(comm)];
    const int64_t f = fx_vae_factor(c);
    fx_tensor z, pixels, picture, mean;
    fx_vae_run r;
    FX_TRY(fx_push3(be->arena, be->dtype, mine.count, COLUMNS, LATENTS, &z));
    FX_TRY(fx_push3(be->arena, be->dtype, mine.count * f, COLUMNS * f, 3, &pixels));
    FX_TRY(fx_push3(be->arena, be->dtype, mine.count * f, COLUMNS * f, 3, &picture));
    FX_TRY(fx_push3(be->arena, be->dtype, mine.count, COLUMNS, LATENTS, &mean));
    if (result) {
        fill(z, mine.begin, 1);
        fill(picture, mine.begin * f, 2);
    }
    FX_TRY(fx_vae_run_open(j->vae, be, comm, j->range, j->rows, &r));
    const fx_status st = decode_encode(&r, z, pixels, picture, mean);
    fx_vae_run_close(&r);
    if (!st && result) keep(mean, keep(pixels, result));
    return st;
}

/* Rows of rank i: as even as they can be; or all but a hole; or 3, 1, 0, 3, 1, 0, ... and the rest at the end. */
static void split(int kind, int64_t rows, int ranks, fx_range out[])
{
    int64_t begin = 0;
    for (int i = 0; i < ranks; i++) {
        const int64_t left = rows - begin, want = (int64_t[]){3, 1, 0}[i % 3];
        int64_t n = kind == 0 ? fx_split_even(rows, ranks, i).count : want < left ? want : left;
        if (kind == 1) n = i == ranks / 2 ? left : i > ranks / 2 ? 0 : left > 0 && i % 2 == 0 ? 1 : 0;
        if (kind == 2 && i == ranks - 1) n = left;
        out[i] = (fx_range){begin, n};
        begin += n;
    }
}

static void compare(fx_comm *comm, const job *j, const double *mine, const double *whole, const char *what)
{
    const fx_range at = j->range[fx_comm_rank(comm)];
    const int64_t f = fx_vae_factor(&j->vae->cfg), wide = COLUMNS * f * f * 3, thin = COLUMNS * LATENTS;
    const double *parts[2][2] = {{mine, whole + at.begin * wide},
                                 {mine + at.count * wide, whole + j->rows * wide + at.begin * thin}};
    for (int k = 0; k < 2; k++) {
        const int64_t n = at.count * (k ? thin : wide);
        int64_t bad = 0;
        for (int64_t i = 0; i < n; i++)
            bad += !isfinite(parts[k][0][i]) || memcmp(parts[k][0] + i, parts[k][1] + i, sizeof(double)) != 0;
        T_CHECK(bad == 0, "%s, %s, rank %d: %lld of %lld values differ", k ? "encode" : "decode", what,
                fx_comm_rank(comm), (long long)bad, (long long)n);
    }
}

static void test_rows(fx_comm *comm, fx_comm *self, const fx_vae *vae, fx_backend *be, int64_t rows)
{
    const int ranks = fx_comm_size(comm);
    const int64_t f = fx_vae_factor(&vae->cfg), values = COLUMNS * (f * f * 3 + LATENTS);
    const fx_range everything = {0, rows};
    job j = {vae, &everything, rows};
    double *whole = shard_run(be, self, graph, &j, rows * values);
    for (int kind = 0; kind < 3; kind++) {
        fx_range range[64];
        char what[120];
        split(kind, rows, ranks, range);
        j.range = range;
        snprintf(what, sizeof what, "%s %s, %d levels, %d rows, split %d", be->ops->name,
                 fx_dtype_name(be->dtype), vae->cfg.levels, (int)rows, kind);
        double *mine = shard_run(be, comm, graph, &j, range[fx_comm_rank(comm)].count * values);
        compare(comm, &j, mine, whole, what);
        free(mine);
    }
    free(whole);
}

static void test_config(fx_comm *comm, fx_comm *self, const char *backend, fx_dtype dtype,
                        const fx_vae_config *cfg, bool quick)
{
    static const int64_t rows[] = {11, 3, 23, 17};
    fx_vae vae = {0};
    fx_store *store = NULL;
    fx_checkpoint *generator = NULL;
    fx_backend *be;
    T_OK(fx_backend_open(backend, dtype, 1, &be));
    T_OK(fx_store_open(be, NULL, &store));
    T_OK(fx_checkpoint_synthetic("vae", 4, &generator));
    T_OK(fx_vae_declare(cfg, store, generator, &vae));
    T_OK(fx_store_load(store, NULL, NULL, NULL));
    fx_checkpoint_close(&generator);
    for (int i = 0; i < (quick ? 2 : 4); i++) test_rows(comm, self, &vae, be, rows[i]);
    fx_vae_free(&vae);
    fx_store_close(&store);
    fx_backend_close(&be);
}

void test_vae(fx_comm *comm, bool quick)
{
    static const fx_vae_config configs[] = {
        {3, 3, LATENTS, {8, 16, 16}, 3, 1, 4, 0, 1, 0, false, false, true},
        {3, 3, LATENTS, {8, 8}, 2, 2, 2, 0, 1, 0, true, true, true},
        {3, 3, LATENTS, {12}, 1, 1, 4, 0, 1, 0, true, true, false},
    };
    fx_comm *self;
    T_OK(fx_comm_open("self", 60, &self));
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < shard_subjects_count; k++)
            test_config(comm, self, shard_subjects[k].backend, shard_subjects[k].dtype, &configs[i], quick);
        if (!quick || i == 1) test_config(comm, self, "ref", FX_F32, &configs[i], true);
    }
    fx_comm_close(&self);
}
