/* Prompt -> token ids, the first box of the dataflow: CLIP byte-level BPE (folder tokenizer/) and T5
 * SentencePiece (folder tokenizer_2/). Ids equal those of the tokenizers-backed CLIPTokenizer and T5Tokenizer
 * of transformers 5. Objects are read-only after open: several threads may encode with one. Prompts are
 * untrusted: anything that is not UTF-8 or longer than FX_PROMPT_MAX bytes is FX_EINVAL. */
#ifndef FX_TEXT_TOKENIZER_H
#define FX_TEXT_TOKENIZER_H

#include <stdint.h>

#include "runtime/core/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { FX_PROMPT_MAX = 1 << 20 }; /* bytes */

typedef struct fx_clip_bpe fx_clip_bpe;
typedef struct fx_t5_tokenizer fx_t5_tokenizer;

/* dir holds vocab.json + merges.txt, or tokenizer.json where one of the two is absent; tokenizer_config.json
 * and special_tokens_map.json are optional. */
fx_status fx_clip_bpe_open(const char *dir, fx_clip_bpe **out);
void fx_clip_bpe_close(fx_clip_bpe **);
/* ids[length] = bos, prompt, eos, pad ...; a longer prompt is cut and keeps its eos. *used counts bos to eos;
 * *cut (may be NULL) is the number of ids that did not fit. length >= 2. */
fx_status fx_clip_bpe_encode(const fx_clip_bpe *, const char *utf8, int32_t length, int32_t *ids,
                             int32_t *used, int32_t *cut);
int32_t
fx_clip_bpe_max_length(const fx_clip_bpe *); /* model_max_length, 77 when absent, INT32_MAX when unlimited */
/* Ids of the vocabulary in the files are below this. A special token that only the config names is numbered
 * from here on (as in the reference), so a prompt that spells it may exceed a smaller embedding table: check
 * ids before use. */
int32_t fx_clip_bpe_id_limit(const fx_clip_bpe *);

/* dir holds spiece.model, or tokenizer.json (Unigram) where that is absent. */
fx_status fx_t5_tokenizer_open(const char *dir, fx_t5_tokenizer **out);
void fx_t5_tokenizer_close(fx_t5_tokenizer **);
/* ids[length] = prompt, </s>, pad ...; *used counts up to </s>. *cut (cut may be NULL) becomes NULL, or a
 * string to free(): the words, as normalised, that truncation removed wholly or partly. length >= 1. */
fx_status fx_t5_encode(const fx_t5_tokenizer *, const char *utf8, int32_t length, int32_t *ids, int32_t *used,
                       char **cut);
int32_t fx_t5_max_length(const fx_t5_tokenizer *); /* 512 when absent */
int32_t
fx_t5_id_limit(const fx_t5_tokenizer *); /* as above; <extra_id_n> added to spiece.model lie above it */

#ifdef __cplusplus
}
#endif
#endif
