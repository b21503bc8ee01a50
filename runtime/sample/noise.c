/* Seed -> normal noise, before packing. Mersenne twister MT19937, 24-bit uniforms, Box-Muller in blocks of 16
 * with the Cephes single-precision logarithm, sine and cosine. The fused multiply-adds stand where torch's
 * compiler puts them: only so do the bits agree. Fewer than 16 values take torch's other path, in f64.
 * Sources: Matsumoto and Nishimura 1998; Cephes logf.c, sinf.c (S. Moshier); ATen's normal distribution on
 * the CPU. */
#include "runtime/sample/noise.h"

#include <math.h>
#include <string.h>

enum { MT_N = 624, MT_M = 397, BLOCK = 16 };
#define PI 3.14159265358979323846

typedef struct twister {
    uint32_t state[MT_N];
    int next;
} twister;

/* Only the low 32 bits of a seed count, in torch as well. */
static void seed_twister(twister *t, uint64_t seed)
{
    t->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < MT_N; i++)
        t->state[i] = 1812433253u * (t->state[i - 1] ^ (t->state[i - 1] >> 30)) + i;
    t->next = MT_N;
}

static void refill(twister *t)
{
    for (int i = 0; i < MT_N; i++) {
        const uint32_t y = (t->state[i] & 0x80000000u) | (t->state[(i + 1) % MT_N] & 0x7FFFFFFFu);
        t->state[i] = t->state[(i + MT_M) % MT_N] ^ (y >> 1) ^ (y & 1 ? 0x9908B0DFu : 0);
    }
    t->next = 0;
}

static uint32_t draw32(twister *t)
{
    if (t->next == MT_N) refill(t);
    uint32_t y = t->state[t->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9D2C5680u;
    y ^= (y << 15) & 0xEFC60000u;
    return y ^ (y >> 18);
}

static float uniform24(twister *t)
{
    return (float)(draw32(t) & 0xFFFFFF) * 0x1p-24f;
}

static double uniform53(twister *t)
{
    const uint64_t high = draw32(t);
    return (double)((high << 32 | draw32(t)) & 0x1FFFFFFFFFFFFFu) * 0x1p-53;
}

/* x in (0, 1], a multiple of 2^-24: normal numbers only. */
static float log_f32(float x)
{
    static const float p[9] = {7.0376836292E-2f,  -1.1514610310E-1f, 1.1676998740E-1f,
                               -1.2420140846E-1f, 1.4249322787E-1f,  -1.6668057665E-1f,
                               2.0000714765E-1f,  -2.4999993993E-1f, 3.3333331174E-1f};
    int exponent;
    float m = frexpf(x, &exponent); /* [0.5, 1) */
    if (m < 0.707106781186547524f) {
        exponent--;
        m = m + m;
    }
    m -= 1.0f;
    const float z = m * m, e = (float)exponent;
    float y = p[0];
    for (int i = 1; i < 9; i++) y = fmaf(y, m, p[i]);
    y = fmaf(y * m, z, e * -2.12194440e-4f);
    y = fmaf(-z, 0.5f, y);
    return fmaf(e, 0.693359375f, m + y);
}

/* x in [0, 2 pi). */
static void sin_cos_f32(float x, float *sine, float *cosine)
{
    const int octant = ((int)(x * 1.27323954473516f) + 1) & ~1; /* 4 / pi */
    const float k = (float)octant;
    /* x - k pi/4, with pi/4 in three parts */
    x = fmaf(k, -0.78515625f, x);
    x = fmaf(k, -2.4187564849853515625e-4f, x);
    x = fmaf(k, -3.77489497744594108e-8f, x);
    const float z = x * x;
    float c = fmaf(fmaf(2.443315711809948E-5f, z, -1.388731625493765E-3f), z, 4.166664568298827E-2f);
    c = fmaf(c * z, z, -(z * 0.5f)) + 1.0f;
    float s = fmaf(fmaf(-1.9515295891E-4f, z, 8.3321608736E-3f), z, -1.6666654611E-1f);
    s = fmaf(s * z, x, x);
    const int swapped = octant & 2; /* odd quadrants */
    const float sin_abs = swapped ? c : s, cos_abs = swapped ? s : c;
    *sine = octant & 4 ? -sin_abs : sin_abs;
    *cosine = (octant - 2) & 4 ? cos_abs : -cos_abs;
}

/* 16 uniforms in place: v[i] and v[i + 8] make a pair. */
static void box_muller(float *v)
{
    for (int i = 0; i < BLOCK / 2; i++) {
        const float radius = sqrtf(-2.0f * log_f32(1.0f - v[i]));
        float s, c;
        sin_cos_f32((float)(2 * PI) * v[i + 8], &s, &c);
        v[i] = fmaf(radius, c, 0.0f);
        v[i + 8] = fmaf(radius, s, 0.0f);
    }
}

static void draw_block(twister *t, float *v)
{
    for (int i = 0; i < BLOCK; i++) v[i] = uniform24(t);
    box_muller(v);
}

/* f32 draws all uniforms first, one for each value; bf16 draws block by block. Both then draw the last 16
 * values anew when n is not a multiple of 16. */
static void fill_blocks(twister *t, fx_dtype variant, int64_t n, float *out)
{
    const int64_t whole = n - n % BLOCK;
    for (int64_t i = 0; i < (variant == FX_F32 ? n : whole); i++) out[i] = uniform24(t);
    for (int64_t i = 0; i < whole; i += BLOCK) box_muller(out + i);
    if (whole < n) draw_block(t, out + n - BLOCK);
}

static void fill_few(twister *t, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i += 2) {
        const double turn = uniform53(t), radius = sqrt(-2.0 * log1p(-uniform53(t)));
        out[i] = (float)(radius * cos(2.0 * PI * turn));
        if (i + 1 < n) out[i + 1] = (float)(radius * sin(2.0 * PI * turn));
    }
}

fx_status fx_noise_normal(uint64_t seed, fx_dtype variant, int64_t n, float *out)
{
    FX_CHECK(variant == FX_F32 || variant == FX_BF16, FX_EINVAL, "noise: dtype %s; wanted f32 or bf16",
             fx_dtype_name(variant));
    FX_CHECK(n >= 0 && (out || !n), FX_EINVAL, "noise: %lld values", (long long)n);
    twister t;
    seed_twister(&t, seed);
    if (n < BLOCK)
        fill_few(&t, n, out);
    else
        fill_blocks(&t, variant, n, out);
    if (variant == FX_BF16)
        for (int64_t i = 0; i < n; i++) out[i] = fx_bf16_to_f32(fx_f32_to_bf16(out[i]));
    return FX_OK;
}
