/* Prompt -> T5 token ids: special tokens out, normalise by the model's character map, split into words at
 * white space, unigram search per word, </s> at the end. First box of the dataflow; feeds the T5 encoder.
 * Source: Kudo 2018 (unigram language model); behaviour measured against the T5Tokenizer of transformers 5,
 * which differs from the sentencepiece library in clusters (charsmap.c), in the order of ties and in control
 * pieces (unigram_search.c). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/text/charsmap.h"
#include "runtime/text/tokenizer.h"
#include "runtime/text/unigram_model.h"

#define MARK "\xE2\x96\x81" /* U+2581: begins a word */
enum { MARK_BYTES = 3, MAX_EXTRA_IDS = 4096 };

struct fx_t5_tokenizer {
    fx_unigram model;
    fx_charsmap charsmap;
    fx_added_tokens added;
    int32_t eos, pad, max_length, id_limit;
};

typedef struct encoder { /* one call of encode */
    const fx_t5_tokenizer *t;
    fx_unigram_scratch scratch;
    fx_buf normal, word;
    fx_buf words; /* the normalised words, each with a zero at its end, for the message about cut ones */
    size_t normal_bytes; /* of all pieces so far */
    fx_ids ids, ends;    /* ends: number of ids up to and including each word */
} encoder;

static fx_status note_word(encoder *e, const char *text, size_t len)
{
    FX_TRY(fx_buf_put(&e->words, text, len));
    FX_TRY(fx_buf_put(&e->words, "", 1));
    return fx_ids_put(&e->ends, (int32_t)e->ids.len);
}

/* A word gets the mark in front unless it has it; further marks in it begin parts of their own. */
static fx_status encode_word(encoder *e, const char *text, size_t len)
{
    e->word.len = 0;
    if (len < MARK_BYTES || memcmp(text, MARK, MARK_BYTES)) FX_TRY(fx_buf_put(&e->word, MARK, MARK_BYTES));
    FX_TRY(fx_buf_put(&e->word, text, len));
    const char *begin = e->word.data, *end = begin + e->word.len;
    while (begin < end) {
        const char *next = strstr(begin + MARK_BYTES, MARK); /* words hold no zero bytes */
        if (!next) next = end;
        FX_TRY(fx_unigram_encode(&e->t->model, begin, (size_t)(next - begin), &e->scratch, &e->ids));
        begin = next;
    }
    return note_word(e, text, len);
}

static fx_status normal_piece(void *ctx, const char *text, size_t len, int32_t id)
{
    encoder *e = ctx;
    if (id >= 0) {
        FX_TRY(fx_ids_put(&e->ids, id));
        return note_word(e, text, len);
    }
    size_t begin = 0;
    for (size_t at = 0; at < len;) {
        const size_t here = at;
        if (!fx_is_space(fx_utf8_next(text, len, &at))) continue;
        if (here > begin) FX_TRY(encode_word(e, text + begin, here - begin));
        begin = at;
    }
    return begin < len ? encode_word(e, text + begin, len - begin) : FX_OK;
}

static fx_status raw_piece(void *ctx, const char *text, size_t len, int32_t id)
{
    encoder *e = ctx;
    if (id >= 0) return normal_piece(e, text, len, id);
    e->normal.len = 0;
    FX_TRY(fx_charsmap_apply(&e->t->charsmap, text, len, &e->normal));
    e->normal_bytes += e->normal.len;
    FX_CHECK(e->normal_bytes <= FX_NORMAL_MAX, FX_EFORMAT,
             "T5 tokenizer: its character map makes more than %d bytes of the prompt", FX_NORMAL_MAX);
    return fx_added_split(&e->t->added, true, e->normal.data, e->normal.len, normal_piece, e);
}

/* The words of which an id lies beyond the first `kept`, one space between them. */
static fx_status cut_words(const encoder *e, int32_t kept, char **cut)
{
    fx_buf out = {0};
    const char *word = e->words.data;
    for (size_t i = 0; i < e->ends.len; i++, word += strlen(word) + 1) {
        if (e->ends.data[i] <= kept) continue;
        fx_status st = out.len ? fx_buf_put(&out, " ", 1) : FX_OK;
        if (st == FX_OK) st = fx_buf_put(&out, word, strlen(word));
        if (st != FX_OK) {
            fx_buf_free(&out);
            return st;
        }
    }
    *cut = out.data;
    return FX_OK;
}

static fx_status frame(const encoder *e, int32_t length, int32_t *ids, int32_t *used, char **cut)
{
    const int32_t have = (int32_t)e->ids.len, n = have < length - 1 ? have : length - 1;
    for (int32_t i = 0; i < n; i++) ids[i] = e->ids.data[i];
    ids[n] = e->t->eos;
    for (int32_t i = n + 1; i < length; i++) ids[i] = e->t->pad;
    *used = n + 1;
    return cut && n < have ? cut_words(e, n, cut) : FX_OK;
}

fx_status fx_t5_encode(const fx_t5_tokenizer *t, const char *utf8, int32_t length, int32_t *ids,
                       int32_t *used, char **cut)
{
    size_t n = 0;
    if (cut) *cut = NULL;
    FX_TRY(fx_prompt_check(utf8, &n));
    FX_CHECK(length >= 1, FX_EINVAL, "T5 text length %d: wanted at least 1", length);
    encoder e = {.t = t};
    fx_status st = fx_added_split(&t->added, false, utf8, n, raw_piece, &e);
    if (st == FX_OK) st = frame(&e, length, ids, used, cut);
    fx_unigram_scratch_free(&e.scratch);
    fx_buf_free(&e.normal);
    fx_buf_free(&e.word);
    fx_buf_free(&e.words);
    fx_ids_free(&e.ids);
    fx_ids_free(&e.ends);
    return st;
}

/* <extra_id_0> ... in the table of added tokens and, for spiece.model, at the end of the vocabulary in
 * falling order. */
static fx_status extra_ids(fx_unigram *m, const fx_tokenizer_files *f, fx_added_tokens *added, int32_t count)
{
    char text[32];
    for (int32_t i = 0; i < count; i++) {
        snprintf(text, sizeof text, "<extra_id_%d>", i);
        FX_TRY(fx_added_put(added, &(fx_added_token){.text = text}));
    }
    for (int32_t i = count - 1; i >= 0 && f->raw; i--) {
        const int n = snprintf(text, sizeof text, "<extra_id_%d>", i);
        FX_TRY(fx_unigram_add(m, text, (size_t)n, 0, FX_PIECE_NORMAL));
    }
    return FX_OK;
}

static fx_status control_tokens(const fx_unigram *m, fx_added_tokens *added)
{
    for (int32_t i = 0; i < m->count; i++) {
        const fx_piece *p = &m->piece[i];
        char text[FX_TOKEN_TEXT_MAX];
        if (p->type != FX_PIECE_CONTROL && p->type != FX_PIECE_USER) continue;
        FX_CHECK(p->len < sizeof text, FX_EFORMAT, "%s: piece %d: a special token of %zu bytes", m->name, i,
                 p->len);
        memcpy(text, m->text.data + p->text, p->len);
        text[p->len] = 0;
        FX_TRY(fx_added_put(added, &(fx_added_token){.text = text}));
    }
    return FX_OK;
}

static fx_status load_added(fx_t5_tokenizer *t, const fx_tokenizer_files *f, fx_unigram *m)
{
    char eos[FX_TOKEN_TEXT_MAX], unk[FX_TOKEN_TEXT_MAX], pad[FX_TOKEN_TEXT_MAX];
    int32_t extra = 0;
    FX_TRY(fx_tokenizer_int(f, "extra_ids", 0, MAX_EXTRA_IDS, 100, &extra));
    FX_TRY(fx_tokenizer_listed_tokens(f, &t->added));
    FX_TRY(fx_tokenizer_special_token(f, "eos_token", "</s>", &t->added, eos));
    FX_TRY(fx_tokenizer_special_token(f, "unk_token", "<unk>", &t->added, unk));
    FX_TRY(fx_tokenizer_special_token(f, "pad_token", "<pad>", &t->added, pad));
    FX_TRY(fx_tokenizer_extra_tokens(f, &t->added));
    FX_TRY(control_tokens(m, &t->added));
    FX_TRY(extra_ids(m, f, &t->added, extra));
    FX_TRY(fx_unigram_finish(m));
    FX_TRY(fx_added_number(&t->added, &m->vocab, m->count));
    t->eos = fx_added_find(&t->added, eos);
    t->pad = fx_added_find(&t->added, pad);
    FX_CHECK(t->eos >= 0 && t->pad >= 0, FX_EFORMAT, "%s: an empty eos or pad token", f->dir);
    return FX_OK;
}

/* Tokens matched in normalised text are searched for in their own normalised form. */
static fx_status normalize_patterns(fx_t5_tokenizer *t)
{
    for (size_t i = 0; i < t->added.count; i++) {
        fx_added_token *a = &t->added.item[i];
        fx_buf out = {0};
        if (!a->normalized) continue;
        FX_TRY(fx_buf_put(&out, "", 0));
        const fx_status st = fx_charsmap_apply(&t->charsmap, a->text, strlen(a->text), &out);
        if (st != FX_OK) {
            fx_buf_free(&out);
            return st;
        }
        free(a->pattern);
        a->pattern = out.data;
    }
    return FX_OK;
}

static fx_status load(fx_t5_tokenizer *t, const fx_tokenizer_files *f)
{
    fx_unigram *m = &t->model;
    char path[1280];
    FX_TRY(fx_tokenizer_path(f, "spiece.model", path, sizeof path));
    FX_TRY(f->raw ? fx_unigram_read(m, path) : fx_unigram_read_json(m, f));
    t->id_limit = m->count;
    FX_TRY(load_added(t, f, m));
    FX_TRY(fx_charsmap_open(m->charsmap.data, m->charsmap.len, m->name, &t->charsmap));
    FX_TRY(normalize_patterns(t));
    int32_t bos = -1;
    FX_TRY(fx_tokenizer_frame(f, &bos, &t->eos));
    FX_CHECK(bos < 0, FX_EFORMAT, "%s: post_processor puts a token before the text; not implemented for T5",
             m->name);
    return fx_tokenizer_max_length(f, 512, &t->max_length);
}

fx_status fx_t5_tokenizer_open(const char *dir, fx_t5_tokenizer **out)
{
    static const char *const raw[] = {"spiece.model", NULL};
    fx_tokenizer_files files;
    *out = NULL;
    FX_TRY(fx_tokenizer_files_open(dir, raw, &files));
    fx_t5_tokenizer *t = calloc(1, sizeof *t);
    fx_status st = t ? load(t, &files) : FX_FAIL(FX_ENOMEM, "T5 tokenizer: cannot allocate");
    fx_tokenizer_files_close(&files);
    if (st == FX_OK)
        *out = t;
    else
        fx_t5_tokenizer_close(&t);
    return st;
}

void fx_t5_tokenizer_close(fx_t5_tokenizer **t)
{
    if (!*t) return;
    fx_unigram_free(&(*t)->model);
    fx_charsmap_close(&(*t)->charsmap);
    fx_added_free(&(*t)->added);
    free(*t);
    *t = NULL;
}

int32_t fx_t5_max_length(const fx_t5_tokenizer *t)
{
    return t->max_length;
}
int32_t fx_t5_id_limit(const fx_t5_tokenizer *t)
{
    return t->id_limit;
}
