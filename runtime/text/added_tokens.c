/* The added-token table: first step of both tokenizers (prompt -> pieces). Behaviour measured against the
 * tokenizers library, version 0.23. The tables are short (2 for CLIP, 103 for T5), so the search is a plain
 * scan. */
#include "runtime/text/added_tokens.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ADDED = 1 << 13 };

fx_status fx_added_put(fx_added_tokens *set, const fx_added_token *t)
{
    if (!t->text[0]) return FX_OK;
    for (size_t i = 0; i < set->count; i++)
        if (!strcmp(set->item[i].text, t->text)) return FX_OK;
    FX_CHECK(set->count < MAX_ADDED, FX_EFORMAT,
             "added tokens: more than %d; not supported; check the tokenizer files", MAX_ADDED);
    if (set->count == set->cap) {
        const size_t cap = set->cap ? 2 * set->cap : 128;
        fx_added_token *item = realloc(set->item, cap * sizeof *item);
        FX_CHECK(item, FX_ENOMEM, "added tokens: cannot allocate %zu entries", cap);
        set->item = item;
        set->cap = cap;
    }
    fx_added_token *n = &set->item[set->count];
    *n = *t;
    n->text = strdup(t->text);
    n->pattern = strdup(t->pattern ? t->pattern : t->text);
    n->id = -1;
    set->count++;
    FX_CHECK(n->text && n->pattern, FX_ENOMEM, "added tokens: cannot copy '%s'", t->text);
    return FX_OK;
}

fx_status fx_added_number(fx_added_tokens *set, const fx_strmap *vocab, int32_t next_id)
{
    for (size_t i = 0; i < set->count; i++) {
        fx_added_token *t = &set->item[i];
        t->id = fx_strmap_get(vocab, t->text, strlen(t->text));
        if (t->id >= 0) continue;
        FX_CHECK(next_id < INT32_MAX, FX_EFORMAT, "added token '%s': no id left", t->text);
        t->id = next_id++;
    }
    return FX_OK;
}

int32_t fx_added_find(const fx_added_tokens *set, const char *text)
{
    for (size_t i = 0; i < set->count; i++)
        if (!strcmp(set->item[i].text, text)) return set->item[i].id;
    return -1;
}

static const fx_added_token *longest_at(const fx_added_tokens *set, bool normalized, const char *text,
                                        size_t len, size_t *match_len)
{
    const fx_added_token *best = NULL;
    size_t best_len = 0;
    for (size_t i = 0; i < set->count; i++) {
        const fx_added_token *t = &set->item[i];
        if (t->normalized != normalized || t->pattern[0] != text[0]) continue;
        const size_t n = strlen(t->pattern);
        if (n <= best_len || n > len || memcmp(t->pattern, text, n)) continue;
        best = t;
        best_len = n;
    }
    *match_len = best_len;
    return best;
}

static size_t space_before(const char *text, size_t floor, size_t at)
{
    while (at > floor) {
        size_t p = at - 1;
        while (p > floor && ((unsigned char)text[p] & 0xC0) == 0x80) p--;
        size_t end = p;
        if (!fx_is_space(fx_utf8_next(text, at, &end))) break;
        at = p;
    }
    return at;
}

static size_t space_after(const char *text, size_t at, size_t len)
{
    for (size_t end = at; at < len; at = end)
        if (!fx_is_space(fx_utf8_next(text, len, &end))) break;
    return at;
}

fx_status fx_added_split(const fx_added_tokens *set, bool normalized, const char *text, size_t len,
                         fx_piece_fn fn, void *ctx)
{
    bool starts[256] = {false};
    for (size_t i = 0; i < set->count; i++)
        if (set->item[i].normalized == normalized) starts[(unsigned char)set->item[i].pattern[0]] = true;
    starts[0] = false; /* an empty pattern (text that normalises to nothing) never matches */
    size_t done = 0;
    for (size_t i = 0; i < len;) {
        size_t n = 0;
        const fx_added_token *t =
            starts[(unsigned char)text[i]] ? longest_at(set, normalized, text + i, len - i, &n) : NULL;
        if (!t) {
            i++;
            continue;
        }
        const size_t begin = t->lstrip ? space_before(text, done, i) : i;
        const size_t end = t->rstrip ? space_after(text, i + n, len) : i + n;
        if (begin > done) FX_TRY(fn(ctx, text + done, begin - done, -1));
        FX_TRY(fn(ctx, text + begin, end - begin, t->id));
        i = done = end;
    }
    return done < len ? fn(ctx, text + done, len - done, -1) : FX_OK;
}

void fx_added_free(fx_added_tokens *set)
{
    for (size_t i = 0; i < set->count; i++) {
        free(set->item[i].text);
        free(set->item[i].pattern);
    }
    free(set->item);
    *set = (fx_added_tokens){0};
}
