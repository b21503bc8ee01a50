/* Weights without files: element i of a tensor is a pure function of (component, name, seed, i), so every
 * rank and every thread makes its part alone and all agree. Used by `-m synthetic:...` and by the golden
 * models, whose Python side (tests/goldens/rng.py) computes the same bits. Source: SplitMix64 finaliser
 * (Steele, Lea, Flood 2014), FNV-1a for names. */
#include "runtime/io/synthetic.h"

#include <math.h>
#include <string.h>

#include "runtime/io/checkpoint.h"

static const uint64_t golden = 0x9E3779B97F4A7C15u;

static uint64_t fnv1a(uint64_t hash, const char *text)
{
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 0x100000001B3u;
    return hash;
}

uint64_t fx_synthetic_key(const char *component, const char *name, uint64_t seed)
{
    return fnv1a(fnv1a(fnv1a(0xCBF29CE484222325u, component), "/"), name) ^ (seed * golden);
}

/* 24 random bits -> [-amp, amp) + mean. Single f32 operations, no fused ones: numpy must agree. */
static inline float value(uint64_t key, uint64_t i, float amp, float add)
{
    uint64_t z = key + (i + 1) * golden;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    /* splitmix64's last step, z ^ (z >> 31), changes no bit that is used; the signed conversion is the cheap one */
    const float u = (float)(int32_t)(z >> 40) * 0x1p-24f;
    return (2.0f * u - 1.0f) * amp + add;
}

void fx_synthetic_plain(uint64_t key, uint64_t first, int64_t n, float amp, float add, float *out)
{
    for (int64_t i = 0; i < n; i++) out[i] = value(key, first + (uint64_t)i, amp, add);
}

#if defined(__x86_64__)
/* The same loop for compilers to vectorise where there is a 64-bit vector multiply: three times as fast. */
__attribute__((target("avx512f,avx512dq,avx512vl"))) static void
fill_wide(uint64_t key, uint64_t first, int64_t n, float amp, float add, float *out)
{
    for (int64_t i = 0; i < n; i++) out[i] = value(key, first + (uint64_t)i, amp, add);
}

static bool have_wide(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

void fx_synthetic_fill(uint64_t key, uint64_t first, int64_t n, float amp, float mean, float *out)
{
    const float add = mean != 0 ? mean : -0.0f; /* x + -0 is x for every x: no addition without a mean */
    void (*fill)(uint64_t, uint64_t, int64_t, float, float, float *) = fx_synthetic_plain;
#if defined(__x86_64__)
    if (have_wide()) fill = fill_wide;
#endif
    fill(key, first, n, amp, add, out);
}

void fx_synthetic_bf16(uint64_t key, uint64_t first, int64_t n, float amp, float mean, uint16_t *out)
{
    enum { STEP = 1024 };
    float part[STEP]; /* two simple loops are vectorised, one mixed loop is not */
    for (int64_t done = 0; done < n; done += STEP) {
        const int64_t m = n - done < STEP ? n - done : STEP;
        fx_synthetic_fill(key, first + (uint64_t)done, m, amp, mean, part);
        fx_convert(out + done, FX_BF16, part, FX_F32, m);
    }
}

/* Scales are chosen so that activations stay of order one through 57 blocks and 24 encoder layers: a matrix
 * keeps the variance of its input (amp = gain * sqrt(3 / fan_in)), except where a residual stream or a gate
 * needs less. The first rule that matches wins; amp < 0 means "gain -amp". */
typedef struct scale_rule {
    const char *part;   /* in the name; NULL matches all */
    const char *suffix; /* of the name */
    int min_dims, max_dims;
    float amp, mean;
} scale_rule;

static const scale_rule rules[] = {
    {NULL, ".bias", 1, 1, 0.02f, 0.0f},
    {"norm", ".weight", 1, 1, 0.1f, 1.0f},                    /* layer, group, RMS and q/k norms */
    {"relative_attention_bias", ".weight", 2, 2, 0.5f, 0.0f}, /* T5: added to scores */
    {"SelfAttention.q", ".weight", 2, 2, -0.125f, 0.0f},      /* T5 has no 1/sqrt(64) of its own */
    {"position_embedding", ".weight", 2, 2, 0.02f, 0.0f},
    {"token_embedding", ".weight", 2, 2, 0.05f, 0.0f}, /* CLIP */
    {"embed_tokens", ".weight", 2, 2, 1.0f, 0.0f},     /* T5 */
    {"shared", ".weight", 2, 2, 1.0f, 0.0f},
    {"norm", ".linear.weight", 2, 2, -0.3f, 0.0f},       /* adaLN: small shifts, scales and gates */
    {"DenseReluDense.wo", ".weight", 2, 2, -0.5f, 0.0f}, /* into the T5 residual stream */
    {"SelfAttention.o", ".weight", 2, 2, -0.5f, 0.0f},
    {"conv_out", ".weight", 4, 4, -0.5f, 0.0f}, /* VAE: pixels of order one */
    {NULL, "", 2, FX_MAX_DIMS, -1.0f, 0.0f},
    {NULL, "", 0, 1, 0.02f, 0.0f},
};

static int matches(const scale_rule *r, const char *name, int ndim)
{
    const size_t n = strlen(name), m = strlen(r->suffix);
    if (ndim < r->min_dims || ndim > r->max_dims || n < m || strcmp(name + n - m, r->suffix) != 0) return 0;
    return !r->part || strstr(name, r->part) != NULL;
}

void fx_synthetic_scale(const char *name, int ndim, const int64_t shape[], float *amp, float *mean)
{
    const scale_rule *r = rules;
    double fan_in = 1;
    while (!matches(r, name, ndim)) r++; /* the last two rules match every shape */
    for (int d = 1; d < ndim; d++) fan_in *= (double)shape[d];
    *mean = r->mean;
    *amp = r->amp >= 0 ? r->amp : (float)(-(double)r->amp * sqrt(3.0 / (fan_in > 0 ? fan_in : 1)));
}
