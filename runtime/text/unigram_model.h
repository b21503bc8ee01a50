/* The unigram model of the T5 tokenizer: pieces with scores, read from spiece.model or tokenizer.json, and
 * the search for the best split of a word into pieces. */
#ifndef FX_TEXT_UNIGRAM_MODEL_H
#define FX_TEXT_UNIGRAM_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/core/status.h"
#include "runtime/text/strmap.h"
#include "runtime/text/tokenizer_json.h"
#include "runtime/text/utf8.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Piece types of sentencepiece_model.proto. */
enum { FX_PIECE_NORMAL = 1, FX_PIECE_UNKNOWN = 2, FX_PIECE_CONTROL = 3, FX_PIECE_USER = 4 };
enum { FX_T5_UNK = 2 }; /* the reference fixes the unknown token to this id, whatever the files say */

typedef struct fx_piece {
    size_t text, len; /* in fx_unigram.text */
    double score;     /* natural log of the probability */
    int32_t type;
} fx_piece;

typedef struct fx_unigram { /* zero-initialise */
    char name[1280];        /* file, for messages */
    fx_piece *piece;        /* index = id */
    int32_t count, cap;
    fx_buf text, charsmap;
    fx_strmap vocab; /* text -> id */
    /* for the search, set by fx_unigram_finish: */
    int32_t *order;     /* ids by text; of equal texts the highest id first */
    int32_t first[257]; /* pieces whose text begins with byte b: order[first[b]] to order[first[b + 1]] */
    double unknown_score;
} fx_unigram;

fx_status fx_unigram_read(fx_unigram *, const char *path);                /* spiece.model */
fx_status fx_unigram_read_json(fx_unigram *, const fx_tokenizer_files *); /* tokenizer.json */
fx_status fx_unigram_add(fx_unigram *, const char *text, size_t len, double score, int32_t type);
fx_status fx_unigram_finish(fx_unigram *); /* no more pieces: builds vocab and the search tables */
void fx_unigram_free(fx_unigram *);

typedef struct fx_unigram_scratch { /* zero-initialise; grows with the longest word */
    struct fx_unigram_node *node;
    size_t cap;
} fx_unigram_scratch;
void fx_unigram_scratch_free(fx_unigram_scratch *);

/* Appends the ids of the most probable split of text; unknown characters in a row give one FX_T5_UNK. */
fx_status fx_unigram_encode(const fx_unigram *, const char *text, size_t len, fx_unigram_scratch *,
                            fx_ids *out);

#ifdef __cplusplus
}
#endif
#endif
