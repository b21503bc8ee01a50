/* The FLUX.1 transformer (MMDiT) over this rank's rows: the same text for 1 or 72 ranks. Only the exchange
 * knows about other ranks. Order of calls: declare/load weights once; then per picture size open, per picture
 * prepare, per step step.
 *
 * Rows: x[T_local, C] holds this rank's text rows, then its image rows (joint order text | image). */
#ifndef FX_DIT_H
#define FX_DIT_H

#include "parallel/exchange.h"
#include "runtime/dit/weights.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Modulation of all blocks for all steps, made once per picture. Stream dtype. What a step computes with lies in `now`, at
 * the same addresses in every step, so that a step's work is the same each time. */
typedef struct fx_mod_table {
    fx_tensor *img, *txt; /* [double_blocks] of [6C], of the selected step */
    fx_tensor *single;    /* [single_blocks] of [3C] */
    fx_tensor final;      /* [2C] */
    fx_tensor all;        /* [ranks, steps, width]: block r is made by rank r, its matrices side by side */
    fx_tensor now;        /* [ranks, width]: the selected step's rows */
    struct fx_mod_task *task; /* one per matrix; owners by number modulo ranks */
    int tasks;
    fx_xfer *send, *recv;
} fx_mod_table;

/* Sees the state after each block: rows[T_local(segment), C]; segment FX_TEXT, FX_IMAGE or FX_ALL. */
typedef fx_status (*fx_observer)(void *ctx, const char *name, int segment, fx_tensor rows);

/* What a stream's rows still owe when a block ends: x += gate * y. The next norm of the rows does both in one pass. */
typedef struct fx_debt {
    fx_tensor gate, y; /* absent: nothing; [C], [rows, C] dtype */
} fx_debt;

typedef struct fx_dit {
    const fx_dit_config *cfg; /* borrowed */
    const fx_dit_weights *w;  /* borrowed */
    fx_backend *be;           /* borrowed; buffers live in its arena until the caller rewinds it */
    fx_comm *comm;            /* borrowed */
    const fx_layout *layout;  /* borrowed */
    fx_exchange *exchange;
    int rank, steps;
    int64_t text_rows, image_rows; /* local */
    fx_tensor x;                   /* [T_local, C] stream */
    fx_tensor branch;              /* [T_local, C] dtype: the rows of y in debts */
    fx_tensor wide; /* [T_local, C + mlp] dtype: attention's output, then a single block's MLP columns */
    fx_debt owed[FX_SEGMENTS + 1]; /* by segment, or all rows in [FX_ALL] */
    fx_tensor context;             /* [text_rows, C] stream: embedded text */
    fx_tensor cs;                  /* [T_local, head_dim/2, 2] f32 */
    fx_mod_table mod;
    fx_observer observe; /* may be NULL */
    void *observe_ctx;
} fx_dit;

typedef struct fx_dit_options {
    fx_mesh mesh;
    fx_exact exact;
    bool by_kernels; /* parallel/exchange.h */
    int steps;
    int64_t text_tokens, grid_height, grid_width; /* image tokens = grid_height * grid_width, raster order */
} fx_dit_options;

fx_status fx_dit_open(const fx_dit_config *, const fx_dit_weights *, fx_backend *, fx_comm *,
                      const fx_layout *, const fx_dit_options *, fx_dit *out);
void fx_dit_close(fx_dit *);

/* Embeds the text (t5[text_tokens, joint_dim] and pooled[1, pooled_dim], stream, whole on every rank) and
 * makes the modulation table. sigma[steps]: timesteps / 1000. Collective. */
fx_status fx_dit_prepare(fx_dit *, fx_tensor t5, fx_tensor pooled, const float *sigma, double guidance);
/* The step that the next fx_dit_step computes. */
fx_status fx_dit_select(fx_dit *, int step);
/* noise[image_rows, out_channels] = model(latents[image_rows, in_channels]) at the selected step; both stream dtype. The same
 * calls with the same addresses in every step. Collective. */
fx_status fx_dit_step(fx_dit *, fx_tensor latents, fx_tensor noise);

/* --- the boxes, one file each --- */
/* A block leaves debts behind; its x is whole when fx_dit_settle has paid them. */
fx_status fx_double_block(fx_dit *, int block);
fx_status fx_single_block(fx_dit *, int block);
/* h = (1 + scale) * layernorm(x) + shift of a segment's rows x (or FX_ALL), its debt paid first. */
fx_status fx_dit_norm(fx_dit *, int segment, fx_tensor h, fx_tensor x, fx_tensor shift, fx_tensor scale);
fx_status fx_dit_settle(fx_dit *);
/* Are the two computed as one? Not where their weights are apart, or rows are to travel beside one of them. */
bool fx_dit_at_once(const fx_dit *, const fx_dense_pair *);
/* Rows of q, k and v of a segment (or FX_ALL): memory for them, [rows, n*C] dtype, attention's own where no other rank wants
 * them; then they are computed from h[rows, C] and put: k and v first, or all at once where nothing would be hidden behind q. */
typedef struct fx_qkv_rows {
    fx_tensor q, kv, all; /* all, or the other two */
} fx_qkv_rows;
fx_status fx_dit_push_qkv(fx_dit *, int segment, const fx_qkv_weights *, int64_t rows, fx_qkv_rows *out);
fx_status fx_dit_put_qkv(fx_dit *, int segment, const fx_qkv_weights *, const fx_qkv_rows *, fx_tensor h,
                         fx_tensor cs);
fx_status fx_mod_open(fx_dit *);
void fx_mod_close(fx_dit *);
fx_status fx_mod_fill(fx_dit *, fx_tensor pooled, const float *sigma, double guidance);
fx_status fx_mod_select(fx_dit *, int step);
/* chunk i of a matrix's row: [C] */
fx_tensor fx_mod_chunk(fx_tensor row, int i, int64_t channels);
/* cs rows for this rank; see runtime/dit/embed.c */
fx_status fx_rope_fill(fx_dit *, int64_t grid_width);
/* [cos(1000 t f), sin(1000 t f)] of n values into out[n, 256], f32 */
void fx_time_features(const float *t, int n, float *out);

#ifdef __cplusplus
}
#endif
#endif
