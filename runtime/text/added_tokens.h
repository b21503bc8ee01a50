/* Tokens cut out of the text before (or, when "normalized", after) normalisation and never seen by the model
 * proper:
 * <|endoftext|>, </s>, <extra_id_7> ... Leftmost match first, the longest at one place, case-sensitive.
 * lstrip and rstrip also take the neighbouring white space. */
#ifndef FX_TEXT_ADDED_TOKENS_H
#define FX_TEXT_ADDED_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/core/status.h"
#include "runtime/text/strmap.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_added_token {
    char *text;    /* as written in the config files */
    char *pattern; /* what is searched for: text, or its normalised form */
    int32_t id;
    bool normalized, lstrip, rstrip;
} fx_added_token;

typedef struct fx_added_tokens { /* zero-initialise */
    fx_added_token *item;
    size_t count, cap;
} fx_added_tokens;

/* Copies the token; one whose text is already there (or empty) is ignored. */
fx_status fx_added_put(fx_added_tokens *, const fx_added_token *);
/* Ids: the model's own where it has the text, else counting on from next_id. */
fx_status fx_added_number(fx_added_tokens *, const fx_strmap *vocab, int32_t next_id);
int32_t fx_added_find(const fx_added_tokens *, const char *text); /* its id, -1 when absent */

/* Calls fn for every piece in order; id is -1 for ordinary text (never empty). */
typedef fx_status (*fx_piece_fn)(void *ctx, const char *text, size_t len, int32_t id);
fx_status fx_added_split(const fx_added_tokens *, bool normalized, const char *text, size_t len,
                         fx_piece_fn fn, void *ctx);
void fx_added_free(fx_added_tokens *);

#ifdef __cplusplus
}
#endif
#endif
