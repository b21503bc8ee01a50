/* The JSON side files of a tokenizer folder: tokenizer_config.json (lengths, special tokens),
 * special_tokens_map.json (older folders) and tokenizer.json (everything in one file: what transformers 5
 * writes). Untrusted input: sizes are bounded, every type is checked, what is not implemented is refused by
 * name. */
#ifndef FX_TEXT_TOKENIZER_JSON_H
#define FX_TEXT_TOKENIZER_JSON_H

#include <jansson.h>
#include <stdbool.h>

#include "runtime/core/status.h"
#include "runtime/text/added_tokens.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { FX_TOKENIZER_FILE_MAX = 64 << 20, FX_TOKEN_TEXT_MAX = 256 };

typedef struct fx_tokenizer_files {
    char dir[1024];
    json_t *config; /* tokenizer_config.json, an empty object when absent */
    json_t *map;    /* special_tokens_map.json, NULL when absent or overruled by added_tokens_decoder */
    json_t *full;   /* tokenizer.json, NULL when absent or not needed */
    bool raw; /* the vocabulary comes from vocab.json + merges.txt or spiece.model, not from tokenizer.json */
} fx_tokenizer_files;

/* raw_files: NULL-terminated names that together hold the vocabulary; when one is absent tokenizer.json must
 * exist. */
fx_status fx_tokenizer_files_open(const char *dir, const char *const raw_files[], fx_tokenizer_files *out);
void fx_tokenizer_files_close(fx_tokenizer_files *);
/* dir/name in path, FX_EFORMAT when too long. */
fx_status fx_tokenizer_path(const fx_tokenizer_files *, const char *name, char *path, size_t size);

/* A whole file, at most FX_TOKENIZER_FILE_MAX bytes, appended to out. */
fx_status fx_tokenizer_read(const char *path, fx_buf *out);

/* The listed added tokens of the folder (not yet numbered): added_tokens_decoder, else tokenizer.json's
 * table. */
fx_status fx_tokenizer_listed_tokens(const fx_tokenizer_files *, fx_added_tokens *set);
/* The special token named key ("eos_token"): its text in text[FX_TOKEN_TEXT_MAX], also put into the set. */
fx_status fx_tokenizer_special_token(const fx_tokenizer_files *, const char *key, const char *fallback,
                                     fx_added_tokens *set, char *text);
/* extra_special_tokens / additional_special_tokens. */
fx_status fx_tokenizer_extra_tokens(const fx_tokenizer_files *, fx_added_tokens *set);

fx_status fx_tokenizer_max_length(const fx_tokenizer_files *, int32_t fallback, int32_t *out);
fx_status fx_tokenizer_int(const fx_tokenizer_files *, const char *key, int32_t lo, int32_t hi,
                           int32_t fallback, int32_t *out);
/* The ids around the prompt from tokenizer.json's post_processor; *bos or *eos stay as they are when it names
 * none. Absent post_processor: nothing changes. */
fx_status fx_tokenizer_frame(const fx_tokenizer_files *, int32_t *bos, int32_t *eos);
/* tokenizer.json's model object, whose "type" must be `type` ("BPE", "Unigram"; absent is accepted). */
fx_status fx_tokenizer_model(const fx_tokenizer_files *, const char *type, json_t **out);

#ifdef __cplusplus
}
#endif
#endif
