/* The table of cases: each line is multiplied by backends, dtypes, input kinds and argument dtypes (check_ops.c).
 * What t, c, k, h and the variant mean is said per op in ops_*.c. */
#include "tests/ops/ops_test.h"

#include <string.h>

enum {
    NONE = FX_ACT_NONE,
    TANH = FX_ACT_GELU_TANH,
    ERF = FX_ACT_GELU_ERF,
    QUICK = FX_ACT_QUICK_GELU,
    SILU = FX_ACT_SILU
};

/* clang-format off */
const op_case op_cases[] = {
/*  op               t/M    c/N    k/K  h  variant  view   kinds                      why */
    {"linear",        1,     1,     1,  1, NONE,    PLAIN, NORMAL,                    "smallest"},
    {"linear",       33,    65,    40,  1, TANH,    ROWS,  ALL_KINDS,                 "odd everything, tails"},
    {"linear",        7,    31,    33,  0, ERF,     ROWS,  NORMAL | OUTLIER,          "odd K: bf16 pairs"},
    {"linear",       17,    64,   129,  1, QUICK,   WIDE,  NORMAL | TINY,             "column slices"},
    {"linear",       64,    96,    64,  1, SILU,    PLAIN, NORMAL | PEAKY,            "even everything"},
    {"linear",       97,    48,    32,  0, NONE,    PLAIN, NORMAL,                    "many rows"},
    {"linear",      259,    40,    72,  1, NONE,    ROWS,  NORMAL,                    "row blocks and a tail"},
    {"linear",      533,   545,   300,  1, TANH,    ROWS,  NORMAL,                    "one over the blocks of rows and columns"},
    {"linear",       24,   700,    40,  0, NONE,    PLAIN, NORMAL,                    "several panels without bias"},
    {"linear",        5,  3072,  3072,  1, NONE,    WIDE,  NORMAL | OUTLIER,          "FLUX attention output"},
    {"linear",        3,    64, 15360,  1, NONE,    PLAIN, NORMAL | NEARCONST,        "FLUX single_block linear2: K"},
    {"linear",        3, 21504,    64,  1, TANH,    PLAIN, NORMAL,                    "FLUX single_block linear1: N"},
    {"linear",        2,   512, 12288,  1, NONE,    PLAIN, NORMAL,                    "FLUX feed-forward: K"},
    {"linear",        1,  9216,   256,  1, SILU,    PLAIN, NORMAL,                    "one row: modulation, time embedding"},
    {"linear",       70,   256,  4096,  0, NONE,    PLAIN, NORMAL,                    "T5 width"},
    {"linear",      512,  9216,  3072,  1, NONE,    SAMPLED, NORMAL | ONLY_F32,         "FLUX double_block qkv, text rows"},
    {"linear",     4608,  3072,  3072,  1, NONE,    SAMPLED, NORMAL | ONLY_BF16,        "FLUX attention output, all rows"},
    {"linear",     4608,  9216,  3072,  1, NONE,    SAMPLED, NORMAL | LONG,             "FLUX qkv"},
    {"linear",     4608, 21504,  3072,  1, NONE,    SAMPLED, NORMAL | LONG,             "FLUX single_block linear1"},
    {"linear",     4608,  3072, 15360,  1, NONE,    SAMPLED, NORMAL | LONG,             "FLUX single_block linear2"},
    {"linear",     4096,  3072, 12288,  1, NONE,    SAMPLED, NORMAL | LONG,             "FLUX feed-forward out, image rows"},
    {"linear",     4608,  3072, 12288,  1, NONE,    SAMPLED, NORMAL | LONG,             "FLUX feed-forward out"},
    {"linear",      512,  3072, 12288,  1, NONE,    SAMPLED, NORMAL | LONG,             "FLUX feed-forward out, text rows"},
    {"linear",     4096,  9216,  3072,  1, NONE,    SAMPLED, NORMAL | LONG,             "FLUX double_block qkv, image rows"},
    {"conv2d",        5,     7,     3,  6, 0,       PLAIN, ALL_KINDS,                 "odd everything"},
    {"conv2d",        9,    16,    16, 11, 0,       ROWS,  NORMAL | OUTLIER,          "vae conv_in channels"},
    {"conv2d",        8,    24,    32, 10, 1,       PLAIN, NORMAL,                    "encoder downsampling"},
    {"conv2d",        7,    24,    32,  9, 1,       ROWS,  NORMAL,                    "encoder downsampling, odd size"},
    {"conv2d",        6,    64,    33,  5, 2,       PLAIN, NORMAL | TINY,             "1x1 shortcut"},
    {"conv2d",        6,    32,    64,  9, 3,       ROWS,  NORMAL,                    "slab with halo rows"},
    {"conv2d",        3,    32,    64,  9, 3,       PLAIN, NORMAL,                    "slab of one row"},
    {"conv2d",        4,    32,    48,  9, 4,       PLAIN, NORMAL,                    "topmost slab"},
    {"conv2d",        6,     8,     8,  7, 5,       PLAIN, NORMAL,                    "stride 2, pad 1"},
    {"conv2d",        4,   512,   512,  5, 0,       PLAIN, NORMAL,                    "FLUX vae mid width"},
    {"conv2d",        4,     3,   128, 70, 0,       PLAIN, NORMAL | NEARCONST,        "vae conv_out"},
    {"conv2d",       23,    40,    24, 25, 0,       ROWS,  NORMAL,                    "more pixels than a block of rows"},
    {"conv2d",        1,     4,     4,  1, 0,       PLAIN, NORMAL,                    "one pixel"},
    {"conv2d",       10,   128,   128, 1024, 3,     SAMPLED, NORMAL,                    "FLUX vae at 1024 wide, a slab"},
    {"conv2d",      128,   512,   512, 128, 0,      SAMPLED, NORMAL | LONG,             "FLUX vae at the latents' size"},
    {"attention",    13,    17,     6,  3, 0,       PLAIN, ALL_KINDS,                 "odd, tiny head"},
    {"attention",    20,    20,     8,  4, 2,       ROWS,  NORMAL | PEAKY | BROKEN,   "causal"},
    {"attention",     9,    33,    10,  2, 1,       HEADS, NORMAL | PEAKY | OUTLIER,  "relative bias, head dim 10"},
    {"attention",    33,    65,    16,  5, 0,       WIDE,  NORMAL | PEAKY | TINY,     "one over the blocks"},
    {"attention",    21,   130,    24,  3, 0,       MAJOR, NORMAL | NEARCONST,        "head-major"},
    {"attention",    77,    77,    64, 12, 2,       WIDE,  NORMAL | PEAKY,            "CLIP, causal"},
    {"attention",    40,    40,    64,  8, 1,       PLAIN, NORMAL,                    "T5, relative bias"},
    {"attention",    19,   531,   128,  6, 0,       WIDE,  NORMAL | PEAKY | BROKEN,   "FLUX head"},
    {"attention",     4,  4608,   128,  5, 0,       PLAIN, NORMAL | PEAKY,            "1024x1024 keys, few queries"},
    {"attention",   130,    40,   128,  2, 8,       PLAIN, NORMAL,                    "many queries, no lse"},
    {"attention",    35,    70,   512,  1, 0,       PLAIN, NORMAL | PEAKY | NEARCONST, "vae mid attention"},
    {"attention",     6,     5,  1024,  1, 0,       PLAIN, NORMAL,                    "largest head"},
    {"attention",     1,     1,     2,  1, 0,       PLAIN, NORMAL,                    "smallest"},
    {"attention",    18,    18,    16,  2, 3,       PLAIN, NORMAL,                    "first query sees nothing"},
    {"attention",     5,     0,    16,  2, 0,       PLAIN, NORMAL,                    "no keys"},
    {"attention",  1152,  4608,   128,  6, 0,       SAMPLED, NORMAL | ONLY_BF16,        "FLUX, a quarter of heads and rows"},
    {"attention",  4608,  4608,   128, 24, 0,       SAMPLED, NORMAL | PEAKY | LONG,     "FLUX 1024x1024"},
    {"attention_parts", 11, 50,    64,  3, 16,      HEADS, NORMAL | PEAKY | OUTLIER | NEARCONST | BROKEN, "ring of 2"},
    {"attention_parts", 30, 96,   128,  4, 32,      WIDE,  NORMAL | PEAKY,            "ring of 3, one rank without keys"},
    {"attention_merge", 13,  0,    10,  3, 0,       HEADS, NORMAL | OUTLIER | TINY | BROKEN, "odd"},
    {"attention_merge", 31,  0,   128, 24, 1,       PLAIN, NORMAL,                    "FLUX, parts without keys"},
    {"attention_merge", 29,  0,    12,  2, 2,       PLAIN, NORMAL,                    "one part outweighs the other"},
    {"norm_mod",     16,  3072,     0,  0, 0,       PLAIN, ALL_KINDS,                 "FLUX width: eps and cancellation"},
    {"norm_mod",   4608,  3072,     0,  0, 0,       SAMPLED, NORMAL | TINY,             "FLUX, all rows"},
    {"norm_mod",      7,    33,     0,  0, 0,       ROWS,  ALL_KINDS,                 "odd"},
    {"norm_mod",     40,     1,     0,  0, 0,       ROWS,  NORMAL,                    "one channel: variance 0"},
    {"layer_norm",   19,   768,     0,  0, 0,       PLAIN, ALL_KINDS,                 "CLIP width"},
    {"layer_norm",    5,    45,     0,  0, 0,       ROWS,  ALL_KINDS,                 "odd"},
    {"layer_norm",    3,  4101,     0,  0, 0,       ROWS,  NORMAL | OUTLIER,          "wider than a CTA keeps, odd"},
    {"rms_norm",     11,  4096,     0,  0, 0,       PLAIN, ALL_KINDS,                 "T5 width"},
    {"rms_norm",      9,    37,     0,  0, 0,       ROWS,  ALL_KINDS,                 "odd"},
    {"rms_norm",      3,  5120,     0,  0, 0,       PLAIN, NORMAL | TINY,             "wider than a CTA keeps"},
    {"gate_add",     12,  3072,     0,  0, 0,       PLAIN, NORMAL | OUTLIER,          "FLUX width"},
    {"gate_add",   4608,  3072,     0,  0, 0,       SAMPLED, NORMAL | OUTLIER,          "FLUX, all rows"},
    {"gate_add",     31,    35,     0,  0, 0,       ROWS,  ALL_KINDS,                 "odd"},
    {"gate_norm",    12,  3072,     0,  0, 0,       PLAIN, ALL_KINDS,                 "FLUX width"},
    {"gate_norm",  4608,  3072,     0,  0, 0,       SAMPLED, NORMAL | OUTLIER,          "FLUX, all rows"},
    {"gate_norm",    31,    35,     0,  0, 0,       ROWS,  ALL_KINDS,                 "odd"},
    {"gate_norm",     3,  4100,     0,  0, 0,       PLAIN, NORMAL,                    "wider than a CTA keeps"},
    {"qk_norm_rope", 13,     0,   128, 24, 3,       WIDE,  NORMAL | OUTLIER | TINY,   "FLUX, slices of qkv"},
    {"qk_norm_rope", 13,     0,   128,  6, 7,       WIDE,  NORMAL,                    "in place"},
    {"qk_norm_rope", 4608,   0,   128, 24, 3,       SAMPLED, NORMAL | OUTLIER,          "FLUX, all rows"},
    {"qk_norm_rope", 13,     0,   128,  6, 3,       PLAIN, ALL_KINDS,                 "in chunks; heads left over"},
    {"qk_norm_rope",  7,     0,    64,  5, 7,       PLAIN, NORMAL | OUTLIER,          "in chunks, in place"},
    {"qk_norm_rope",  9,     0,   256,  4, 1,       PLAIN, NORMAL,                    "in chunks, norm only"},
    {"qk_norm_rope",  5,     0,     8,  9, 2,       PLAIN, NORMAL | TINY,             "one chunk, rotation only"},
    {"qk_norm_rope", 21,     0,    10,  3, 3,       HEADS, ALL_KINDS,                 "odd"},
    {"qk_norm_rope", 21,     0,     6,  3, 6,       HEADS, NORMAL | OUTLIER,          "rotation only, in place"},
    {"qk_norm_rope", 21,     0,    16,  3, 1,       MAJOR, NORMAL | TINY,             "norm only"},
    {"qk_norm_rope", 21,     0,    24,  3, 0,       HEADS, NORMAL,                    "a copy"},
    {"axpy",         12,     9,    35,  0, 0,       HEADS, NORMAL | OUTLIER | BROKEN, "odd, strided"},
    {"axpy",         64,     4,    64,  0, 1,       PLAIN, NORMAL,                    "residual sum"},
    {"activate",     15,    70,     0,  0, NONE,    ROWS,  NORMAL,                    "identity"},
    {"activate",     15,    70,     0,  0, TANH,    ROWS,  ALL_KINDS,                 "odd"},
    {"activate",     15,    70,     0,  0, ERF,     ROWS,  ALL_KINDS,                 "odd"},
    {"activate",     15,    70,     0,  0, QUICK,   WIDE,  ALL_KINDS,                 "odd"},
    {"activate",     15,    70,     0,  0, SILU,    ROWS,  ALL_KINDS,                 "odd"},
    {"activate",      9,  3072,     0,  0, TANH + 8, PLAIN, NORMAL | OUTLIER | BROKEN, "in place"},
    {"glu",          14,    51,     0,  0, TANH,    ROWS,  ALL_KINDS,                 "T5 gated feed-forward"},
    {"glu",          14,  1024,     0,  0, TANH + 8, WIDE, NORMAL,                    "over the first input"},
    {"glu",          14,    51,     0,  0, SILU + 16, ROWS, NORMAL | OUTLIER,         "over the second input"},
    {"embed",        23,    40,    50,  0, 0,       ROWS,  NORMAL,                    "odd"},
    {"embed",        77,   768,   300,  0, 0,       PLAIN, NORMAL | OUTLIER,          "CLIP width"},
    {"copy",         13,    35,     9,  0, 0,       REVERSED, NORMAL | OUTLIER | TINY | BROKEN, "transposed"},
    {"copy",         13,    35,     9,  0, 4,       REVERSED, NORMAL,                 "transposed, to f16"},
    {"copy",         13,    35,     9,  0, 64,      REVERSED, NORMAL,                 "transposed, to bf16"},
    {"copy",         13,    35,     9,  0, 1,       HEADS, NORMAL | OUTLIER | NEARCONST, "latent scale and shift"},
    {"copy",         13,    35,     9,  0, 0,       INNER, NORMAL,                    "a cut of the columns of three dims"},
    {"copy",         64,    64,     0,  0, 0,       PLAIN, NORMAL,                    "dense"},
    {"copy",         70,  1024,     0,  0, 0,       PLAIN, NORMAL,                    "dense and long"},
    {"copy",         64,  1024,     0,  0, 1,       PLAIN, NORMAL,                    "dense and long, a multiple of the piece"},
    {"copy",         21,    64,     0,  0, 0,       GAPS,  NORMAL,                    "rows that begin off a piece of 16 bytes"},
    {"copy",         33,    70,     0,  0, 2,       ROWS,  NORMAL | TINY,             "from f16"},
    {"copy",         33,    70,     0,  0, 4,       ROWS,  NORMAL | TINY,             "to f16"},
    {"copy",         33,    70,     0,  0, 8,       ROWS,  NORMAL,                    "from f64"},
    {"copy",         33,    70,     0,  0, 16,      ROWS,  NORMAL,                    "to f64"},
    {"copy",         33,    70,     0,  0, 32,      WIDE,  NORMAL,                    "from bf16"},
    {"copy",         33,    70,     0,  0, 64,      WIDE,  NORMAL | OUTLIER | BROKEN, "to bf16"},
    {"copy",         33,    70,     0,  0, 24,      REVERSED, NORMAL,                 "f64 to f64"},
    {"row_stats",     6,    64,    32,  9, 0,       PLAIN, ALL_KINDS,                 "two channels per group"},
    {"row_stats",     5,    33,    11,  7, 0,       ROWS,  ALL_KINDS,                 "odd"},
    {"row_stats",     3,   512,    32, 64, 0,       PLAIN, NORMAL | NEARCONST,        "FLUX vae width"},
    {"group_norm",    6,    64,    32,  9, SILU,    PLAIN, ALL_KINDS,                 "two channels per group"},
    {"group_norm",    5,    33,    11,  7, NONE,    ROWS,  ALL_KINDS,                 "odd"},
    {"group_norm",    3,   512,    32, 16, SILU + 8, PLAIN, NORMAL | NEARCONST,       "FLUX vae width, in place"},
    {"upsample2x",    5,    33,     0,  7, 0,       ROWS,  NORMAL | BROKEN,           "odd"},
    {"upsample2x",    8,    64,     0,  8, 0,       PLAIN, NORMAL,                    "even"},
    {"to_rgb8",      17,     0,     0, 61, 0,       PLAIN, NORMAL | OUTLIER | TINY,   "halves and borders"},
    {"to_rgb8",      17,     0,     0, 61, 0,       ROWS,  NORMAL,                    "strided rows"},
    {"count_nonfinite", 33, 70,     0,  0, 0,       ROWS,  NORMAL,                    "none; canaries are NaN"},
    {"count_nonfinite", 33, 70,     0,  0, 1,       PLAIN, NORMAL,                    "the last"},
    {"count_nonfinite", 33, 70,     0,  0, 19,      WIDE,  NORMAL | OUTLIER,          "several"},
};
/* clang-format on */
const int op_case_count = sizeof op_cases / sizeof op_cases[0];

static const op_def *const ops[] = {
    &op_linear,          &op_conv2d,     &op_attention,    &op_attention_parts,
    &op_attention_merge, &op_norm_mod,   &op_layer_norm,   &op_rms_norm,
    &op_gate_add,        &op_gate_norm,  &op_qk_norm_rope, &op_axpy,
    &op_activate,        &op_glu,        &op_embed,        &op_copy,
    &op_row_stats,       &op_group_norm, &op_upsample2x,   &op_to_rgb8,
    &op_count_nonfinite};

const op_def *op_at(int i)
{
    return i < (int)(sizeof ops / sizeof ops[0]) ? ops[i] : NULL;
}

/* Every case's op is in the list: a typing mistake must not leave a case out. */
bool op_cases_known(void)
{
    for (int c = 0; c < op_case_count; c++) {
        int i = 0;
        while (op_at(i) && strcmp(op_at(i)->name, op_cases[c].op) != 0) i++;
        if (!op_at(i)) return false;
    }
    return true;
}
