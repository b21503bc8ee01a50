/* CLIP text encoder: token ids -> the pooled vector at the end-of-text token. Causal attention. Runs on one
 * rank. */
#ifndef FX_TEXT_CLIP_ENCODER_H
#define FX_TEXT_CLIP_ENCODER_H

#include "parallel/dense.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_clip_config {
    int64_t width, heads, ff, vocab, positions;
    int32_t layers, eos; /* eos 2 (old files): pool at the largest id; else at the first eos */
    fx_act act;          /* gelu or quick_gelu */
    double eps;
} fx_clip_config;

typedef struct fx_clip_layer {
    fx_tensor norm1_w, norm1_b, norm2_w, norm2_b;
    fx_dense q, k, v, o, fc1, fc2;
} fx_clip_layer;

typedef struct fx_clip {
    fx_clip_config cfg;
    fx_tensor embed, position; /* [vocab, width], [positions, width] */
    fx_tensor final_w, final_b;
    fx_clip_layer *layer;
} fx_clip;

fx_status fx_clip_config_load(const char *model_dir, fx_clip_config *out);
fx_clip_config fx_clip_config_large(int layers);
fx_status fx_clip_declare(const fx_clip_config *, fx_store *, fx_checkpoint *, fx_clip *out);
/* ids[count] on the host, each < vocab, count <= positions; out[1, width] stream: the pooled vector. */
fx_status fx_clip_pool(fx_backend *, const fx_clip *, const int32_t *ids, int count, fx_tensor out);
void fx_clip_free(fx_clip *);

#ifdef __cplusplus
}
#endif
#endif
