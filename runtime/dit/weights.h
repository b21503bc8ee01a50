/* The transformer's weights in the shape the graph wants them, declared to the weight store from a
 * checkpoint. Q and K | V are a pair, so that K and V can travel while Q is computed where that hides anything; a single block's
 * MLP is two thirds of it and the rest, for the same reason. This is the one place that knows diffusers' tensor names. */
#ifndef FX_DIT_WEIGHTS_H
#define FX_DIT_WEIGHTS_H

#include "parallel/dense.h"
#include "runtime/dit/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What attention needs of one stream. */
typedef struct fx_qkv_weights {
    fx_dense_pair q_kv;       /* [C, C], [2C, C] */
    fx_tensor norm_q, norm_k; /* [head_dim] */
} fx_qkv_weights;

typedef struct fx_stream_weights {
    fx_qkv_weights qkv;
    fx_dense out;             /* [C, C] */
    fx_dense mlp_in, mlp_out; /* [4C, C], [C, 4C] */
    fx_dense mod;             /* [6C, C]: shift, scale, gate of attention; shift, scale, gate of the MLP */
} fx_stream_weights;

typedef struct fx_double_weights {
    fx_stream_weights txt, img;
} fx_double_weights;

typedef struct fx_single_weights {
    fx_qkv_weights qkv;
    fx_dense_pair mlp_in; /* [8C/3, C], [4C/3, C], rounded: what may be computed before and after attention */
    fx_dense out;         /* [C, 5C]: input columns attention | mlp */
    fx_dense mod;         /* [3C, C]: shift, scale, gate */
} fx_single_weights;

typedef struct fx_embed_mlp {
    fx_dense in, out; /* silu between */
} fx_embed_mlp;

typedef struct fx_dit_weights {
    fx_dense x_embed, context_embed;   /* [C, in_channels], [C, joint_dim] */
    fx_embed_mlp time, guidance, text; /* [C, 256], [C, 256], [C, pooled_dim] -> [C, C] */
    fx_double_weights *double_blocks;
    fx_single_weights *single_blocks;
    fx_dense final_mod; /* [2C, C]: scale, shift (diffusers order) */
    fx_dense proj_out;  /* [out_channels, C] */
} fx_dit_weights;

fx_status fx_dit_weights_declare(const fx_dit_config *, fx_store *, fx_checkpoint *, fx_dit_weights *out);
void fx_dit_weights_free(fx_dit_weights *);

#ifdef __cplusplus
}
#endif
#endif
