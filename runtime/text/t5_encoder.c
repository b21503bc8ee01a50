/* T5 v1.1 encoder: pre-norm blocks, relative position bias shared by all layers, gated tanh-GELU
 * feed-forward, no biases, no attention scale. Reads token ids of text/encode.c, feeds the transformer's
 * context embedding. Source: T5EncoderModel of transformers. */
#include "runtime/text/t5_encoder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/json.h"

enum {
    MAX_WIDTH = 65536,
    MAX_HEADS = 1024,
    MAX_HEAD_DIM = 1024,
    MAX_LAYERS = 256,
    MAX_VOCAB = 1 << 24,
    MAX_BUCKETS = 4096
};

/* "gated-gelu" is what T5 v1.1 files say; it means the tanh approximation. */
static fx_status check_feed_forward(const fx_config *c)
{
    char kind[64], act[64];
    FX_TRY(fx_config_string(c, "feed_forward_proj", "relu", kind, sizeof kind));
    FX_CHECK(!strcmp(kind, "gated-gelu"), FX_EFORMAT,
             "%s: feed_forward_proj is '%s'; only 'gated-gelu' (T5 v1.1) is implemented; use FLUX.1's own "
             "text encoder",
             c->path, kind);
    FX_TRY(fx_config_string(c, "dense_act_fn", "gelu_new", act, sizeof act));
    FX_CHECK(!strcmp(act, "gelu_new"), FX_EFORMAT, "%s: dense_act_fn is '%s'; only 'gelu_new' is implemented",
             c->path, act);
    return FX_OK;
}

static fx_status read_config(const fx_config *c, fx_t5_config *out)
{
    const int64_t width = 512, heads = 8, d_kv = 64, ff = 2048, layers = 6, vocab = 32128, buckets = 32,
                  distance = 128;
    const double eps = 1e-6;
    int64_t n;
    FX_TRY(fx_config_only_string(c, "model_type", "t5"));
    FX_TRY(check_feed_forward(c));
    FX_TRY(fx_config_int(c, "d_model", 1, MAX_WIDTH, &width, &out->width));
    FX_TRY(fx_config_int(c, "num_heads", 1, MAX_HEADS, &heads, &out->heads));
    FX_TRY(fx_config_int(c, "d_kv", 1, MAX_HEAD_DIM, &d_kv, &out->head_dim));
    FX_TRY(fx_config_int(c, "d_ff", 1, 16 * MAX_WIDTH, &ff, &out->ff));
    FX_TRY(fx_config_int(c, "vocab_size", 1, MAX_VOCAB, &vocab, &out->vocab));
    FX_TRY(fx_config_int(c, "num_layers", 1, MAX_LAYERS, &layers, &n));
    out->layers = (int32_t)n;
    FX_TRY(fx_config_int(c, "relative_attention_num_buckets", 4, MAX_BUCKETS, &buckets, &n));
    out->buckets = (int32_t)n;
    FX_TRY(fx_config_int(c, "relative_attention_max_distance", 2, 1 << 20, &distance, &n));
    out->max_distance = (int32_t)n;
    FX_CHECK(
        out->max_distance > out->buckets / 4, FX_EFORMAT,
        "%s: relative_attention_max_distance %d must be above a quarter of relative_attention_num_buckets %d",
        c->path, out->max_distance, out->buckets);
    return fx_config_real(c, "layer_norm_epsilon", 0, 1, &eps, &out->eps);
}

fx_status fx_t5_config_load(const char *model_dir, fx_t5_config *out)
{
    fx_config c;
    FX_TRY(fx_config_open(model_dir, "text_encoder_2", "config.json", &c));
    const fx_status st = read_config(&c, out);
    fx_config_close(&c);
    return st;
}

fx_t5_config fx_t5_config_xxl(int layers)
{
    return (fx_t5_config){.width = 4096,
                          .heads = 64,
                          .head_dim = 64,
                          .ff = 10240,
                          .vocab = 32128,
                          .layers = layers,
                          .buckets = 32,
                          .max_distance = 128,
                          .eps = 1e-6};
}

static fx_status declare_layer(const fx_t5_config *c, fx_store *s, fx_checkpoint *k, int i, fx_t5_layer *l)
{
    char p[64];
    const int64_t inner = c->heads * c->head_dim;
    snprintf(p, sizeof p, "encoder.block.%d.layer.", i);
    FX_TRY(fx_declare_vector(s, k, &l->norm_attn, c->width, p, "0.layer_norm.weight"));
    FX_TRY(fx_declare_dense1(s, k, &l->q, inner, c->width, false, p, "0.SelfAttention.q"));
    FX_TRY(fx_declare_dense1(s, k, &l->k, inner, c->width, false, p, "0.SelfAttention.k"));
    FX_TRY(fx_declare_dense1(s, k, &l->v, inner, c->width, false, p, "0.SelfAttention.v"));
    FX_TRY(fx_declare_dense1(s, k, &l->o, c->width, inner, false, p, "0.SelfAttention.o"));
    FX_TRY(fx_declare_vector(s, k, &l->norm_ff, c->width, p, "1.layer_norm.weight"));
    FX_TRY(fx_declare_dense1(s, k, &l->gate, c->ff, c->width, false, p, "1.DenseReluDense.wi_0"));
    FX_TRY(fx_declare_dense1(s, k, &l->up, c->ff, c->width, false, p, "1.DenseReluDense.wi_1"));
    return fx_declare_dense1(s, k, &l->down, c->width, c->ff, false, p, "1.DenseReluDense.wo");
}

fx_status fx_t5_declare(const fx_t5_config *c, fx_store *s, fx_checkpoint *k, fx_t5 *out)
{
    const char *shared = "shared.weight", *tied = "encoder.embed_tokens.weight";
    *out = (fx_t5){.cfg = *c};
    out->layer = calloc((size_t)c->layers, sizeof *out->layer);
    FX_CHECK(out->layer, FX_ENOMEM, "no memory for the list of T5 layers");
    FX_TRY(fx_store_table(s, k, &out->embed, c->vocab, c->width, fx_checkpoint_has(k, shared) ? shared : tied,
                          false));
    FX_TRY(fx_store_table(s, k, &out->rel_bias, c->buckets, c->heads,
                          "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", true));
    for (int i = 0; i < c->layers; i++) FX_TRY(declare_layer(c, s, k, i, &out->layer[i]));
    return fx_declare_vector(s, k, &out->final_norm, c->width, "", "encoder.final_layer_norm.weight");
}

void fx_t5_free(fx_t5 *t)
{
    free(t->layer);
    *t = (fx_t5){0};
}

int fx_t5_bucket(int64_t distance, int buckets, int max_distance)
{
    const int half = buckets / 2, exact = half / 2, last = half - 1;
    const int side = distance > 0 ? half : 0;
    const int64_t d = llabs(distance);
    if (d < exact) return side + (int)d;
    /* f32 as the reference, so that bucket borders fall on the same distance */
    const float scale = (float)log((double)max_distance / exact);
    const int large = exact + (int)(logf((float)d / (float)exact) / scale * (float)(half - exact));
    return side + (large < last ? large : last);
}

/* bias[heads, 2T-1]: entry (h, j - i + T - 1) for query i and key j. */
static fx_status relative_bias(fx_backend *be, const fx_t5 *t, int64_t count, fx_tensor bias)
{
    if (fx_planning(be)) return FX_OK;
    const fx_t5_config *c = &t->cfg;
    const int64_t span = 2 * count - 1;
    float *host = malloc(fx_bytes(bias)), *table = malloc(fx_bytes(t->rel_bias));
    fx_status st = host && table ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for T5's position bias");
    if (!st) st = fx_download(be, table, t->rel_bias);
    for (int64_t i = 0; !st && i < span; i++) {
        const int bucket = fx_t5_bucket(i - (count - 1), c->buckets, c->max_distance);
        for (int64_t h = 0; h < c->heads; h++) host[h * span + i] = table[bucket * c->heads + h];
    }
    if (!st) st = fx_upload(be, bias, host);
    free(host);
    free(table);
    return st;
}

typedef struct t5_buffers {
    fx_tensor h, q, k, v, a, gate, up, y;
} t5_buffers;

static fx_status push_buffers(fx_backend *be, const fx_t5_config *c, int64_t T, t5_buffers *b)
{
    const int64_t inner = c->heads * c->head_dim;
    FX_TRY(fx_push2(be->arena, be->dtype, T, c->width, &b->h));
    FX_TRY(fx_push2(be->arena, be->dtype, T, inner, &b->q));
    FX_TRY(fx_push2(be->arena, be->dtype, T, inner, &b->k));
    FX_TRY(fx_push2(be->arena, be->dtype, T, inner, &b->v));
    FX_TRY(fx_push2(be->arena, be->dtype, T, inner, &b->a));
    FX_TRY(fx_push2(be->arena, be->dtype, T, c->ff, &b->gate));
    FX_TRY(fx_push2(be->arena, be->dtype, T, c->ff, &b->up));
    return fx_push2(be->arena, be->stream, T, c->width, &b->y);
}

static fx_status encode_layer(fx_backend *be, const fx_t5 *t, const fx_t5_layer *l, t5_buffers *b,
                              fx_tensor bias, fx_tensor x)
{
    const int64_t H = t->cfg.heads;
    const float eps = (float)t->cfg.eps;
    FX_TRY(fx_rms_norm(be, b->h, x, l->norm_attn, eps));
    FX_TRY(fx_dense_apply(be, b->q, b->h, &l->q, FX_ACT_NONE));
    FX_TRY(fx_dense_apply(be, b->k, b->h, &l->k, FX_ACT_NONE));
    FX_TRY(fx_dense_apply(be, b->v, b->h, &l->v, FX_ACT_NONE));
    FX_TRY(fx_attention(be, fx_heads(b->a, H), fx_none(), fx_heads(b->q, H), fx_heads(b->k, H),
                        fx_heads(b->v, H), bias, 1));
    FX_TRY(fx_dense_apply(be, b->y, b->a, &l->o, FX_ACT_NONE));
    FX_TRY(fx_axpy(be, x, b->y, 1));
    FX_TRY(fx_rms_norm(be, b->h, x, l->norm_ff, eps));
    FX_TRY(fx_dense_apply(be, b->gate, b->h, &l->gate, FX_ACT_NONE));
    FX_TRY(fx_dense_apply(be, b->up, b->h, &l->up, FX_ACT_NONE));
    FX_TRY(fx_glu(be, b->gate, b->gate, b->up, FX_ACT_GELU_TANH));
    FX_TRY(fx_dense_apply(be, b->y, b->gate, &l->down, FX_ACT_NONE));
    return fx_axpy(be, x, b->y, 1);
}

fx_status fx_t5_forward(fx_backend *be, const fx_t5 *t, const int32_t *ids, int count, fx_tensor out)
{
    const size_t mark = fx_mark(be->arena);
    const int64_t T = count;
    fx_tensor id, x, bias;
    t5_buffers b;
    FX_TRY(fx_push1(be->arena, FX_I32, T, &id));
    FX_TRY(fx_push2(be->arena, be->stream, T, t->cfg.width, &x));
    FX_TRY(fx_push2(be->arena, FX_F32, t->cfg.heads, 2 * T - 1, &bias));
    FX_TRY(push_buffers(be, &t->cfg, T, &b));
    if (!fx_planning(be)) FX_TRY(fx_upload(be, id, ids));
    FX_TRY(relative_bias(be, t, T, bias));
    FX_TRY(fx_embed(be, x, t->embed, id));
    for (int i = 0; i < t->cfg.layers; i++) FX_TRY(encode_layer(be, t, &t->layer[i], &b, bias, x));
    FX_TRY(fx_rms_norm(be, out, x, t->final_norm, (float)t->cfg.eps));
    fx_rewind(be->arena, mark);
    return FX_OK;
}
