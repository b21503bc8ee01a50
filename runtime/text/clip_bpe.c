/* Prompt -> CLIP token ids: added tokens out, normalise, split into words by the pattern, bytes to the
 * byte-level alphabet, merge pairs by rank, frame with bos and eos. First box of the dataflow; feeds the CLIP
 * text encoder. Source: Sennrich et al. 2016 (byte-pair encoding) with GPT-2's byte alphabet; behaviour
 * measured against the CLIPTokenizer of transformers 5. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/text/bpe_model.h"
#include "runtime/text/clip_normalize.h"
#include "runtime/text/tokenizer.h"
#include "runtime/text/tokenizer_json.h"

/* Letters and numbers of Unicode 15 and 16, which the reference's pattern engine knows and an older PCRE2
 * does not. */
#define LETTER                                                                                               \
    "\\p{L}\\x{1C89}-\\x{1C8A}\\x{A7CB}-\\x{A7CD}\\x{A7DA}-\\x{A7DC}\\x{105C0}-\\x{105F3}"                   \
    "\\x{10D4A}-\\x{10D65}\\x{10D6F}-\\x{10D85}\\x{10EC2}-\\x{10EC4}\\x{1123F}-\\x{11240}"                   \
    "\\x{11380}-\\x{11389}\\x{1138B}\\x{1138E}\\x{11390}-\\x{113B5}\\x{113B7}\\x{113D1}"                     \
    "\\x{113D3}\\x{11BC0}-\\x{11BE0}\\x{11F02}\\x{11F04}-\\x{11F10}\\x{11F12}-\\x{11F33}"                    \
    "\\x{1342F}\\x{13441}-\\x{13446}\\x{13460}-\\x{143FA}\\x{16100}-\\x{1611D}"                              \
    "\\x{16D40}-\\x{16D6C}\\x{18CFF}\\x{1B132}\\x{1B155}\\x{1DF25}-\\x{1DF2A}"                               \
    "\\x{1E030}-\\x{1E06D}\\x{1E4D0}-\\x{1E4EB}\\x{1E5D0}-\\x{1E5ED}\\x{1E5F0}\\x{2B739}"                    \
    "\\x{2EBF0}-\\x{2EE5D}\\x{31350}-\\x{323AF}"
#define NUMBER                                                                                               \
    "\\p{N}\\x{10D40}-\\x{10D49}\\x{116D0}-\\x{116E3}\\x{11BF0}-\\x{11BF9}"                                  \
    "\\x{11F50}-\\x{11F59}\\x{16130}-\\x{16139}\\x{16D70}-\\x{16D79}\\x{1CCF0}-\\x{1CCF9}"                   \
    "\\x{1D2C0}-\\x{1D2D3}\\x{1E4F0}-\\x{1E4F9}\\x{1E5F1}-\\x{1E5FA}"
/* Unicode White_Space: PCRE2's own \s differs. */
#define SPACE                                                                                                \
    "\\x{09}-\\x{0D} "                                                                                       \
    "\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
/* Group 1: the two special texts, which upper case hid from the added-token step. */
static const char word_pattern[] = "<\\|(startoftext|endoftext)\\|>|'s|'t|'re|'ve|'m|'ll|'d|[" LETTER
                                   "]+|[" NUMBER "]|[^" SPACE LETTER NUMBER "]+";

struct fx_clip_bpe {
    fx_bpe_model model;
    fx_added_tokens added;
    pcre2_code *words;
    int32_t bos, eos, pad, max_length;
};

typedef struct encoder { /* one call of encode */
    const fx_clip_bpe *t;
    pcre2_match_data *match;
    fx_bpe_scratch scratch;
    fx_buf normal;
    fx_ids ids;
} encoder;

static fx_status encode_words(encoder *e, const char *text, size_t len)
{
    for (size_t at = 0; at < len;) {
        const int rc =
            pcre2_match(e->t->words, (PCRE2_SPTR)text, len, at, PCRE2_NO_UTF_CHECK, e->match, NULL);
        if (rc == PCRE2_ERROR_NOMATCH) break;
        FX_CHECK(rc > 0, FX_ESHAPE, "CLIP tokenizer: pattern matching failed (PCRE2 error %d)", rc);
        const PCRE2_SIZE *m = pcre2_get_ovector_pointer(e->match);
        if (rc > 1) { /* the reference splits these again, at the letters */
            FX_TRY(fx_bpe_word(&e->t->model, text + m[0], m[2] - m[0], &e->scratch, &e->ids));
            FX_TRY(fx_bpe_word(&e->t->model, text + m[2], m[3] - m[2], &e->scratch, &e->ids));
            FX_TRY(fx_bpe_word(&e->t->model, text + m[3], m[1] - m[3], &e->scratch, &e->ids));
        } else
            FX_TRY(fx_bpe_word(&e->t->model, text + m[0], m[1] - m[0], &e->scratch, &e->ids));
        at = m[1];
    }
    return FX_OK;
}

static fx_status normal_piece(void *ctx, const char *text, size_t len, int32_t id)
{
    encoder *e = ctx;
    return id >= 0 ? fx_ids_put(&e->ids, id) : encode_words(e, text, len);
}

static fx_status raw_piece(void *ctx, const char *text, size_t len, int32_t id)
{
    encoder *e = ctx;
    if (id >= 0) return fx_ids_put(&e->ids, id);
    e->normal.len = 0;
    FX_TRY(fx_clip_normalize(text, len, &e->normal));
    return fx_added_split(&e->t->added, true, e->normal.data, e->normal.len, normal_piece, e);
}

static void frame(const fx_clip_bpe *t, const fx_ids *v, int32_t length, int32_t *ids, int32_t *used,
                  int32_t *cut)
{
    const int32_t room = length - 2, have = (int32_t)v->len, n = have < room ? have : room;
    ids[0] = t->bos;
    for (int32_t i = 0; i < n; i++) ids[1 + i] = v->data[i];
    ids[n + 1] = t->eos;
    for (int32_t i = n + 2; i < length; i++) ids[i] = t->pad;
    *used = n + 2;
    if (cut) *cut = have - n;
}

fx_status fx_clip_bpe_encode(const fx_clip_bpe *t, const char *utf8, int32_t length, int32_t *ids,
                             int32_t *used, int32_t *cut)
{
    size_t n = 0;
    FX_TRY(fx_prompt_check(utf8, &n));
    FX_CHECK(length >= 2, FX_EINVAL, "CLIP text length %d: wanted at least 2 (begin and end)", length);
    encoder e = {.t = t, .match = pcre2_match_data_create(2, NULL)};
    fx_status st = FX_OK;
    if (!e.match)
        st = FX_FAIL(FX_ENOMEM, "CLIP tokenizer: cannot allocate match data");
    else
        st = fx_added_split(&t->added, false, utf8, n, raw_piece, &e);
    if (st == FX_OK) frame(t, &e.ids, length, ids, used, cut);
    pcre2_match_data_free(e.match);
    fx_bpe_scratch_free(&e.scratch);
    fx_buf_free(&e.normal);
    fx_ids_free(&e.ids);
    return st;
}

static fx_status load_added(fx_clip_bpe *t, const fx_tokenizer_files *f, char text[3][FX_TOKEN_TEXT_MAX])
{
    static const char *const keys[] = {"bos_token", "eos_token", "pad_token"};
    static const char *const fallback[] = {"<|startoftext|>", "<|endoftext|>", "<|endoftext|>"};
    char unk[FX_TOKEN_TEXT_MAX];
    FX_TRY(fx_tokenizer_listed_tokens(f, &t->added));
    for (int i = 0; i < 3; i++)
        FX_TRY(fx_tokenizer_special_token(f, keys[i], fallback[i], &t->added, text[i]));
    FX_TRY(fx_tokenizer_special_token(f, "unk_token", "<|endoftext|>", &t->added, unk));
    FX_TRY(fx_tokenizer_extra_tokens(f, &t->added));
    FX_TRY(fx_added_number(&t->added, &t->model.vocab, (int32_t)t->model.vocab.count));
    t->model.unk = fx_strmap_get(&t->model.vocab, unk, strlen(unk));
    fx_buf pattern = {0};
    fx_status st = FX_OK;
    for (size_t i = 0; i < t->added.count && st == FX_OK; i++) {
        fx_added_token *a = &t->added.item[i];
        if (!a->normalized) continue;
        pattern.len = 0;
        st = fx_clip_normalize(a->text, strlen(a->text), &pattern);
        if (st != FX_OK) break;
        free(a->pattern);
        a->pattern = strdup(pattern.data);
        if (!a->pattern) st = FX_FAIL(FX_ENOMEM, "CLIP tokenizer: cannot copy a token");
    }
    fx_buf_free(&pattern);
    return st;
}

static fx_status compile_pattern(fx_clip_bpe *t)
{
    int error = 0;
    PCRE2_SIZE at = 0;
    t->words = pcre2_compile((PCRE2_SPTR)word_pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error,
                             &at, NULL);
    FX_CHECK(t->words, FX_ESHAPE, "CLIP tokenizer: PCRE2 error %d at pattern offset %zu", error, (size_t)at);
    return FX_OK;
}

static fx_status load(fx_clip_bpe *t, const fx_tokenizer_files *f)
{
    char text[3][FX_TOKEN_TEXT_MAX];
    FX_TRY(f->raw ? fx_bpe_load_files(&t->model, f) : fx_bpe_load_json(&t->model, f));
    FX_TRY(load_added(t, f, text));
    t->bos = fx_added_find(&t->added, text[0]);
    t->eos = fx_added_find(&t->added, text[1]);
    t->pad = fx_added_find(&t->added, text[2]);
    FX_CHECK(t->bos >= 0 && t->eos >= 0 && t->pad >= 0, FX_EFORMAT, "%s: an empty bos, eos or pad token",
             f->dir);
    FX_TRY(fx_tokenizer_frame(f, &t->bos, &t->eos));
    FX_TRY(fx_tokenizer_max_length(f, 77, &t->max_length));
    return compile_pattern(t);
}

fx_status fx_clip_bpe_open(const char *dir, fx_clip_bpe **out)
{
    static const char *const raw[] = {"vocab.json", "merges.txt", NULL};
    fx_tokenizer_files files;
    *out = NULL;
    FX_TRY(fx_tokenizer_files_open(dir, raw, &files));
    fx_clip_bpe *t = calloc(1, sizeof *t);
    fx_status st = t ? load(t, &files) : FX_FAIL(FX_ENOMEM, "CLIP tokenizer: cannot allocate");
    fx_tokenizer_files_close(&files);
    if (st == FX_OK)
        *out = t;
    else
        fx_clip_bpe_close(&t);
    return st;
}

void fx_clip_bpe_close(fx_clip_bpe **t)
{
    if (!*t) return;
    fx_bpe_free(&(*t)->model);
    fx_added_free(&(*t)->added);
    pcre2_code_free((*t)->words);
    free(*t);
    *t = NULL;
}

int32_t fx_clip_bpe_max_length(const fx_clip_bpe *t)
{
    return t->max_length;
}
int32_t fx_clip_bpe_id_limit(const fx_clip_bpe *t)
{
    return t->model.id_limit;
}
