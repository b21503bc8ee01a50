/* Noise against torch's CPU generator: every seed and size of goldens/noise (bit-equal), the golden models'
 * first latents, the moments, and what is refused. */
#include "tests/test.h"

#include <jansson.h>
#include <math.h>

#include "runtime/io/npy.h"
#include "runtime/sample/noise.h"

static const char *in_tests(const char *name)
{
    static char path[4][1024];
    static int next;
    const char *root = getenv("FX_TESTS_DIR");
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/goldens/%s", root ? root : "tests", name);
    return p;
}

static void check_row(const json_t *row, const float *f32, const uint16_t *bf16, int64_t total)
{
    const uint64_t seed = strtoull(json_string_value(json_object_get(row, "seed")), NULL, 10);
    const int64_t n = json_integer_value(json_object_get(row, "size"));
    const int64_t at = json_integer_value(json_object_get(row, "offset"));
    float *got = malloc((size_t)n * sizeof *got);
    int wrong = 0, wrong_bits = 0;
    double worst = 0;
    T_CHECK(got && at + n <= total, "index.json");
    if (!got || at + n > total) return;
    T_OK(fx_noise_normal(seed, FX_F32, n, got));
    for (int64_t i = 0; i < n; i++) {
        const double d = fabs((double)got[i] - (double)f32[at + i]);
        wrong += memcmp(&got[i], &f32[at + i], sizeof *got) != 0;
        if (!(d <= worst)) worst = d;
    }
    T_CHECK(worst <= 2e-6, "seed %llu, n %lld: f32 off by %g", (unsigned long long)seed, (long long)n, worst);
    T_CHECK(!wrong, "seed %llu, n %lld: %d f32 values not bit-equal", (unsigned long long)seed, (long long)n,
            wrong);
    T_OK(fx_noise_normal(seed, FX_BF16, n, got));
    for (int64_t i = 0; i < n; i++) wrong_bits += fx_f32_to_bf16(got[i]) != bf16[at + i];
    T_CHECK(!wrong_bits, "seed %llu, n %lld: %d bf16 values differ", (unsigned long long)seed, (long long)n,
            wrong_bits);
    free(got);
}

static void t_torch(void)
{
    json_t *index = json_load_file(in_tests("noise/index.json"), 0, NULL);
    fx_tensor f32 = {0}, bf16 = {0};
    T_OK(fx_npy_read(in_tests("noise/f32.npy"), &f32));
    T_OK(fx_npy_read(in_tests("noise/bf16.npy"), &bf16));
    T_CHECK(json_array_size(index) > 0, "no golden noise");
    size_t i;
    json_t *row;
    if (f32.data && bf16.data)
        json_array_foreach(index, i, row) check_row(row, f32.data, bf16.data, f32.shape[0]);
    free(f32.data);
    free(bf16.data);
    json_decref(index);
}

static void t_moments(void)
{
    enum { N = 1 << 18 };
    static float v[N];
    double sum = 0, square = 0;
    T_OK(fx_noise_normal(7, FX_F32, N, v));
    for (int i = 0; i < N; i++) {
        sum += v[i];
        square += (double)v[i] * v[i];
    }
    T_CHECK(fabs(sum / N) < 0.01 && fabs(square / N - 1) < 0.02, "mean %g, variance %g", sum / N, square / N);
}

static void t_edges(void)
{
    float a[40], b[40];
    T_OK(fx_noise_normal(1, FX_F32, 0, NULL));
    T_CHECK(fx_noise_normal(1, FX_F32, -1, a) == FX_EINVAL, "negative size");
    T_CHECK(fx_noise_normal(1, FX_F16, 4, a) == FX_EINVAL, "f16");
    T_OK(fx_noise_normal(5, FX_F32, 40, a));
    T_OK(fx_noise_normal(5 + (1ull << 32), FX_F32, 40, b));
    T_CHECK(!memcmp(a, b, sizeof a), "only 32 bits of the seed count, as in torch");
}

int main(void)
{
    t_torch();
    t_moments();
    t_edges();
    return test_end("t_noise");
}
