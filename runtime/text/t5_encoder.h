/* T5 v1.1 encoder: token ids -> one vector per token. No mask: pad tokens attend and are attended to, as the
 * reference pipeline does. Runs on one rank; text/encode.c spreads the result. */
#ifndef FX_TEXT_T5_ENCODER_H
#define FX_TEXT_T5_ENCODER_H

#include "parallel/dense.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_t5_config {
    int64_t width, heads, head_dim, ff,
        vocab; /* d_model, num_heads, d_kv, d_ff; heads*head_dim may differ from width */
    int32_t layers, buckets, max_distance;
    double eps;
} fx_t5_config;

typedef struct fx_t5_layer {
    fx_tensor norm_attn, norm_ff;        /* [width] */
    fx_dense q, k, v, o, gate, up, down; /* gate = wi_0 (through GELU), up = wi_1, down = wo */
} fx_t5_layer;

typedef struct fx_t5 {
    fx_t5_config cfg;
    fx_tensor embed;    /* [vocab, width] */
    fx_tensor rel_bias; /* [buckets, heads] f32 */
    fx_tensor final_norm;
    fx_t5_layer *layer;
} fx_t5;

fx_status fx_t5_config_load(const char *model_dir,
                            fx_t5_config *out); /* FX_EFORMAT: ungated, unknown activation */
fx_t5_config fx_t5_config_xxl(int layers);
fx_status fx_t5_declare(const fx_t5_config *, fx_store *, fx_checkpoint *, fx_t5 *out);
/* ids[count] on the host, each < vocab; out[count, width] stream. */
fx_status fx_t5_forward(fx_backend *, const fx_t5 *, const int32_t *ids, int count, fx_tensor out);
void fx_t5_free(fx_t5 *);
/* The bucket of a key at `distance` = key - query. Source: T5Attention._relative_position_bucket. */
int fx_t5_bucket(int64_t distance, int buckets, int max_distance);

#ifdef __cplusplus
}
#endif
#endif
