/* Byte-level BPE proper: vocabulary and ranked merges, one word of bytes in, ids out. */
#ifndef FX_TEXT_BPE_MODEL_H
#define FX_TEXT_BPE_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/core/status.h"
#include "runtime/text/strmap.h"
#include "runtime/text/tokenizer_json.h"
#include "runtime/text/utf8.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_merge {
    uint64_t pair; /* left id << 32 | right id */
    int32_t rank;  /* -1: empty slot */
    int32_t id;    /* the merged token */
} fx_merge;

typedef struct fx_bpe_model { /* zero-initialise */
    fx_strmap vocab;
    fx_merge *merge; /* open addressing */
    size_t merges, merge_cap;
    int32_t byte_id[2][256]; /* [1]: last byte of a word; -1: not in the vocabulary */
    int32_t unk;             /* id for those; -1: none */
    int32_t id_limit;
} fx_bpe_model;

/* vocab.json + merges.txt, or the model object of tokenizer.json. */
fx_status fx_bpe_load_files(fx_bpe_model *, const fx_tokenizer_files *);
fx_status fx_bpe_load_json(fx_bpe_model *, const fx_tokenizer_files *);
void fx_bpe_free(fx_bpe_model *);
const fx_merge *fx_bpe_find_merge(const fx_bpe_model *, int32_t left,
                                  int32_t right); /* NULL: the pair never merges */

typedef struct fx_bpe_scratch { /* zero-initialise; grows with the longest word */
    struct fx_bpe_symbol *symbol;
    struct fx_bpe_candidate *heap;
    size_t cap;
} fx_bpe_scratch;
void fx_bpe_scratch_free(fx_bpe_scratch *);

/* Appends the ids of one word. */
fx_status fx_bpe_word(const fx_bpe_model *, const char *bytes, size_t n, fx_bpe_scratch *, fx_ids *out);

#ifdef __cplusplus
}
#endif
#endif
