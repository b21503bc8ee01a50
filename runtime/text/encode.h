/* Prompt -> the two text conditions of the transformer: T5's token vectors and CLIP's pooled vector, whole on
 * every rank. Each encoder runs on one rank (T5 on rank 0, CLIP beside it on rank 1 when there is one), then
 * the result is broadcast. */
#ifndef FX_TEXT_ENCODE_H
#define FX_TEXT_ENCODE_H

#include "parallel/comm.h"
#include "runtime/text/clip_encoder.h"
#include "runtime/text/t5_encoder.h"
#include "runtime/text/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_text {
    fx_clip clip;
    fx_t5 t5;
    fx_clip_bpe *clip_bpe; /* NULL in synthetic models, whose ids are hashes of words */
    fx_t5_tokenizer *t5_tokenizer;
    int clip_len, t5_len; /* tokens CLIP takes; the longest T5 default */
} fx_text;

typedef struct fx_text_ids {
    int32_t *clip, *t5; /* [clip_len], [length] on rank 0; owned here */
    int clip_count, t5_count;
    char *cut; /* words that T5 truncation removed, or NULL */
} fx_text_ids;

/* ckpt_clip and ckpt_t5 are borrowed until the store is loaded. synthetic: no files. */
fx_status fx_text_open(const char *model_dir, bool synthetic, const fx_clip_config *, const fx_t5_config *,
                       fx_store *, fx_checkpoint *ckpt_clip, fx_checkpoint *ckpt_t5, fx_text *out);
void fx_text_close(fx_text *);

fx_status fx_text_tokenize(const fx_text *, const char *prompt, int t5_len, fx_text_ids *out);
void fx_text_ids_free(fx_text_ids *);

/* t5[t5_len, width] and pooled[1, width], stream, are filled on every rank. Collective; ids matter on the
 * encoders' ranks. */
fx_status fx_text_encode(fx_backend *, fx_comm *, const fx_text *, const fx_text_ids *, fx_tensor t5,
                         fx_tensor pooled);

#ifdef __cplusplus
}
#endif
#endif
