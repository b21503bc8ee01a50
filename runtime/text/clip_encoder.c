/* CLIP text encoder: token + position embedding, pre-norm blocks with causal attention, final norm, pooled at
 * the end of the text. Reads token ids of text/encode.c, feeds the transformer's modulation. Source:
 * CLIPTextModel of transformers. */
#include "runtime/text/clip_encoder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/json.h"

enum { MAX_WIDTH = 65536, MAX_HEADS = 1024, MAX_LAYERS = 256, MAX_VOCAB = 1 << 24, MAX_POSITIONS = 65536 };

static fx_status read_act(const fx_config *c, fx_act *act)
{
    char name[64];
    FX_TRY(fx_config_string(c, "hidden_act", "quick_gelu", name, sizeof name));
    if (!strcmp(name, "quick_gelu"))
        *act = FX_ACT_QUICK_GELU;
    else if (!strcmp(name, "gelu"))
        *act = FX_ACT_GELU_ERF;
    else
        return FX_FAIL(FX_EFORMAT, "%s: hidden_act is '%s'; implemented are 'gelu' and 'quick_gelu'", c->path,
                       name);
    return FX_OK;
}

static fx_status read_config(const fx_config *c, fx_clip_config *out)
{
    const int64_t width = 512, heads = 8, ff = 2048, layers = 12, vocab = 49408, positions = 77, eos = 49407;
    const double eps = 1e-5;
    int64_t n;
    FX_TRY(fx_config_int(c, "hidden_size", 1, MAX_WIDTH, &width, &out->width));
    FX_TRY(fx_config_int(c, "num_attention_heads", 1, MAX_HEADS, &heads, &out->heads));
    FX_TRY(fx_config_int(c, "intermediate_size", 1, 16 * MAX_WIDTH, &ff, &out->ff));
    FX_TRY(fx_config_int(c, "vocab_size", 1, MAX_VOCAB, &vocab, &out->vocab));
    FX_TRY(fx_config_int(c, "max_position_embeddings", 1, MAX_POSITIONS, &positions, &out->positions));
    FX_TRY(fx_config_int(c, "num_hidden_layers", 1, MAX_LAYERS, &layers, &n));
    out->layers = (int32_t)n;
    FX_TRY(fx_config_int(c, "eos_token_id", 0, MAX_VOCAB, &eos, &n));
    out->eos = (int32_t)n;
    FX_CHECK(out->width % out->heads == 0, FX_EFORMAT,
             "%s: hidden_size %lld must be a multiple of %lld heads", c->path, (long long)out->width,
             (long long)out->heads);
    FX_TRY(fx_config_real(c, "layer_norm_eps", 0, 1, &eps, &out->eps));
    return read_act(c, &out->act);
}

fx_status fx_clip_config_load(const char *model_dir, fx_clip_config *out)
{
    fx_config c;
    FX_TRY(fx_config_open(model_dir, "text_encoder", "config.json", &c));
    const fx_status st = read_config(&c, out);
    fx_config_close(&c);
    return st;
}

fx_clip_config fx_clip_config_large(int layers)
{
    return (fx_clip_config){.width = 768,
                            .heads = 12,
                            .ff = 3072,
                            .vocab = 49408,
                            .positions = 77,
                            .layers = layers,
                            .eos = 2,
                            .act = FX_ACT_QUICK_GELU,
                            .eps = 1e-5};
}

static fx_status declare_norm(fx_store *s, fx_checkpoint *k, int64_t n, const char *prefix, const char *name,
                              fx_tensor *w, fx_tensor *b)
{
    char full[FX_NAME_MAX + 32];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    FX_TRY(fx_declare_vector(s, k, w, n, full, ".weight"));
    return fx_declare_vector(s, k, b, n, full, ".bias");
}

static fx_status declare_layer(const fx_clip_config *c, fx_store *s, fx_checkpoint *k, const char *prefix,
                               fx_clip_layer *l)
{
    const int64_t C = c->width;
    FX_TRY(declare_norm(s, k, C, prefix, "layer_norm1", &l->norm1_w, &l->norm1_b));
    FX_TRY(fx_declare_dense1(s, k, &l->q, C, C, true, prefix, "self_attn.q_proj"));
    FX_TRY(fx_declare_dense1(s, k, &l->k, C, C, true, prefix, "self_attn.k_proj"));
    FX_TRY(fx_declare_dense1(s, k, &l->v, C, C, true, prefix, "self_attn.v_proj"));
    FX_TRY(fx_declare_dense1(s, k, &l->o, C, C, true, prefix, "self_attn.out_proj"));
    FX_TRY(declare_norm(s, k, C, prefix, "layer_norm2", &l->norm2_w, &l->norm2_b));
    FX_TRY(fx_declare_dense1(s, k, &l->fc1, c->ff, C, true, prefix, "mlp.fc1"));
    return fx_declare_dense1(s, k, &l->fc2, C, c->ff, true, prefix, "mlp.fc2");
}

fx_status fx_clip_declare(const fx_clip_config *c, fx_store *s, fx_checkpoint *k, fx_clip *out)
{
    /* Files written by older and newer transformers differ in this prefix. */
    const char *base =
        fx_checkpoint_has(k, "text_model.embeddings.token_embedding.weight") ? "text_model." : "";
    char p[FX_NAME_MAX];
    *out = (fx_clip){.cfg = *c};
    out->layer = calloc((size_t)c->layers, sizeof *out->layer);
    FX_CHECK(out->layer, FX_ENOMEM, "no memory for the list of CLIP layers");
    snprintf(p, sizeof p, "%sembeddings.token_embedding.weight", base);
    FX_TRY(fx_store_table(s, k, &out->embed, c->vocab, c->width, p, false));
    snprintf(p, sizeof p, "%sembeddings.position_embedding.weight", base);
    FX_TRY(fx_store_table(s, k, &out->position, c->positions, c->width, p, false));
    for (int i = 0; i < c->layers; i++) {
        snprintf(p, sizeof p, "%sencoder.layers.%d.", base, i);
        FX_TRY(declare_layer(c, s, k, p, &out->layer[i]));
    }
    return declare_norm(s, k, c->width, base, "final_layer_norm", &out->final_w, &out->final_b);
}

void fx_clip_free(fx_clip *m)
{
    free(m->layer);
    *m = (fx_clip){0};
}

/* Which row is the pooled one. */
static int pooled_row(const fx_clip_config *c, const int32_t *ids, int count)
{
    int best = 0;
    if (c->eos != 2) {
        for (int i = 0; i < count; i++)
            if (ids[i] == c->eos) return i;
        return 0;
    }
    for (int i = 1; i < count; i++)
        if (ids[i] > ids[best]) best = i;
    return best;
}

/* bias[1, 2T-1]: 0 for keys up to the query, -inf after it. */
static fx_status causal_bias(fx_backend *be, int64_t count, fx_tensor bias)
{
    if (fx_planning(be)) return FX_OK;
    float *host = malloc(fx_bytes(bias));
    FX_CHECK(host, FX_ENOMEM, "no memory for CLIP's causal mask");
    for (int64_t i = 0; i < 2 * count - 1; i++) host[i] = i > count - 1 ? -INFINITY : 0.0f;
    const fx_status st = fx_upload(be, bias, host);
    free(host);
    return st;
}

typedef struct clip_buffers {
    fx_tensor h, q, k, v, a, f, y;
} clip_buffers;

static fx_status push_buffers(fx_backend *be, const fx_clip_config *c, int64_t T, clip_buffers *b)
{
    fx_tensor *const narrow[] = {&b->h, &b->q, &b->k, &b->v, &b->a};
    for (size_t i = 0; i < sizeof narrow / sizeof narrow[0]; i++)
        FX_TRY(fx_push2(be->arena, be->dtype, T, c->width, narrow[i]));
    FX_TRY(fx_push2(be->arena, be->dtype, T, c->ff, &b->f));
    return fx_push2(be->arena, be->stream, T, c->width, &b->y);
}

static fx_status encode_layer(fx_backend *be, const fx_clip_config *c, const fx_clip_layer *l,
                              clip_buffers *b, fx_tensor bias, fx_tensor x)
{
    const int64_t H = c->heads;
    const float eps = (float)c->eps, scale = 1.0f / sqrtf((float)(c->width / H));
    FX_TRY(fx_layer_norm(be, b->h, x, l->norm1_w, l->norm1_b, eps));
    FX_TRY(fx_dense_apply(be, b->q, b->h, &l->q, FX_ACT_NONE));
    FX_TRY(fx_dense_apply(be, b->k, b->h, &l->k, FX_ACT_NONE));
    FX_TRY(fx_dense_apply(be, b->v, b->h, &l->v, FX_ACT_NONE));
    FX_TRY(fx_attention(be, fx_heads(b->a, H), fx_none(), fx_heads(b->q, H), fx_heads(b->k, H),
                        fx_heads(b->v, H), bias, scale));
    FX_TRY(fx_dense_apply(be, b->y, b->a, &l->o, FX_ACT_NONE));
    FX_TRY(fx_axpy(be, x, b->y, 1));
    FX_TRY(fx_layer_norm(be, b->h, x, l->norm2_w, l->norm2_b, eps));
    FX_TRY(fx_dense_apply(be, b->f, b->h, &l->fc1, c->act));
    FX_TRY(fx_dense_apply(be, b->y, b->f, &l->fc2, FX_ACT_NONE));
    return fx_axpy(be, x, b->y, 1);
}

fx_status fx_clip_pool(fx_backend *be, const fx_clip *m, const int32_t *ids, int count, fx_tensor out)
{
    const fx_clip_config *c = &m->cfg;
    const size_t mark = fx_mark(be->arena);
    const int64_t T = count;
    const int row = fx_planning(be) ? 0 : pooled_row(c, ids, count);
    fx_tensor id, x, bias;
    clip_buffers b;
    FX_TRY(fx_push1(be->arena, FX_I32, T, &id));
    FX_TRY(fx_push2(be->arena, be->stream, T, c->width, &x));
    FX_TRY(fx_push2(be->arena, FX_F32, 1, 2 * T - 1, &bias));
    FX_TRY(push_buffers(be, c, T, &b));
    if (!fx_planning(be)) FX_TRY(fx_upload(be, id, ids));
    FX_TRY(causal_bias(be, T, bias));
    FX_TRY(fx_embed(be, x, m->embed, id));
    FX_TRY(fx_axpy(be, x, fx_rows(m->position, 0, T), 1));
    for (int i = 0; i < c->layers; i++) FX_TRY(encode_layer(be, c, &m->layer[i], &b, bias, x));
    FX_TRY(fx_layer_norm(be, out, fx_rows(x, row, 1), m->final_w, m->final_b, (float)c->eps));
    fx_rewind(be->arena, mark);
    return FX_OK;
}
