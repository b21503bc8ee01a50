/* spiece.model -> pieces, scores and character map: a reader for the few protocol-buffer fields that matter.
 * Untrusted bytes: every length is checked against what is left. Wire format: a varint key (field << 3 |
 * type), then a varint (0), 8 bytes (1), a counted string (2) or 4 bytes (5). Source: protocol buffers
 * encoding guide, sentencepiece_model.proto. */
#include "runtime/text/unigram_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Published pieces have at most 16 characters; the search is linear in the longest one for every byte. */
enum { MAX_PIECES = 1 << 22, MAX_PIECE_BYTES = 1024 };
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

typedef struct field {
    uint64_t number, value; /* value: varint, or 4 bytes */
    const unsigned char *bytes;
    size_t len;
    int wire;
} field;

typedef struct cursor {
    const unsigned char *at, *end;
    const char *name;
} cursor;

static fx_status varint(cursor *c, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        FX_CHECK(c->at < c->end, FX_EFORMAT, "%s: truncated in the middle of a number; download it again",
                 c->name);
        const unsigned char b = *c->at++;
        *out |= (uint64_t)(b & 0x7F) << shift;
        if (b < 0x80) return FX_OK;
    }
    return FX_FAIL(FX_EFORMAT, "%s: a number is too long; not a SentencePiece model", c->name);
}

static fx_status next_field(cursor *c, field *f)
{
    uint64_t key = 0, len = 0;
    FX_TRY(varint(c, &key));
    *f = (field){.number = key >> 3, .wire = (int)(key & 7)};
    if (f->wire == WIRE_VARINT) return varint(c, &f->value);
    if (f->wire == WIRE_BYTES)
        FX_TRY(varint(c, &len));
    else if (f->wire == WIRE_64)
        len = 8;
    else if (f->wire == WIRE_32)
        len = 4;
    else
        return FX_FAIL(FX_EFORMAT, "%s: unknown wire type %d; not a SentencePiece model", c->name, f->wire);
    FX_CHECK(len <= (uint64_t)(c->end - c->at), FX_EFORMAT,
             "%s: a field of %llu bytes, only %td left; the file is truncated or damaged", c->name,
             (unsigned long long)len, c->end - c->at);
    f->bytes = c->at;
    f->len = (size_t)len;
    c->at += len;
    return FX_OK;
}

static float float_of(const unsigned char *p)
{
    const uint32_t bits = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

fx_status fx_unigram_add(fx_unigram *m, const char *text, size_t len, double score, int32_t type)
{
    size_t bad = 0;
    FX_CHECK(m->count < MAX_PIECES, FX_EFORMAT, "%s: more than %d pieces", m->name, MAX_PIECES);
    FX_CHECK(len <= MAX_PIECE_BYTES, FX_EFORMAT, "%s: piece %d: %zu bytes; the limit is %d", m->name,
             m->count, len, MAX_PIECE_BYTES);
    FX_CHECK(isfinite(score), FX_EFORMAT, "%s: piece %d: the score is not a finite number", m->name,
             m->count);
    FX_CHECK(fx_utf8_valid(text, len, &bad), FX_EFORMAT, "%s: piece %d: not UTF-8", m->name, m->count);
    if (m->count == m->cap) {
        const int32_t cap = m->cap ? 2 * m->cap : 1024;
        fx_piece *piece = realloc(m->piece, (size_t)cap * sizeof *piece);
        FX_CHECK(piece, FX_ENOMEM, "%s: cannot allocate %d pieces", m->name, cap);
        m->piece = piece;
        m->cap = cap;
    }
    m->piece[m->count++] = (fx_piece){.text = m->text.len, .len = len, .score = score, .type = type};
    return fx_buf_put(&m->text, text, len);
}

static fx_status read_piece(fx_unigram *m, const field *message)
{
    cursor c = {message->bytes, message->bytes + message->len, m->name};
    const char *text = "";
    size_t len = 0;
    float score = 0;
    int32_t type = FX_PIECE_NORMAL;
    while (c.at < c.end) {
        field f;
        FX_TRY(next_field(&c, &f));
        if (f.number == 1 && f.wire == WIRE_BYTES) {
            text = (const char *)f.bytes;
            len = f.len;
        } else if (f.number == 2 && f.wire == WIRE_32)
            score = float_of(f.bytes);
        else if (f.number == 3 && f.wire == WIRE_VARINT)
            type = (int32_t)(f.value & 0xFF);
    }
    return fx_unigram_add(m, text, len, score, type);
}

static fx_status check_trainer(const fx_unigram *m, const field *message)
{
    cursor c = {message->bytes, message->bytes + message->len, m->name};
    while (c.at < c.end) {
        field f;
        FX_TRY(next_field(&c, &f));
        FX_CHECK(f.number != 3 || f.wire != WIRE_VARINT || f.value == 1, FX_EFORMAT,
                 "%s: model_type %llu is not implemented; wanted 1 (unigram)", m->name,
                 (unsigned long long)f.value);
    }
    return FX_OK;
}

static fx_status read_normalizer(fx_unigram *m, const field *message)
{
    cursor c = {message->bytes, message->bytes + message->len, m->name};
    while (c.at < c.end) {
        field f;
        FX_TRY(next_field(&c, &f));
        if (f.number != 2 || f.wire != WIRE_BYTES) continue;
        m->charsmap.len = 0; /* the last one counts */
        FX_TRY(fx_buf_put(&m->charsmap, f.bytes, f.len));
    }
    return FX_OK;
}

static fx_status parse(fx_unigram *m, const fx_buf *file)
{
    cursor c = {(const unsigned char *)file->data, (const unsigned char *)file->data + file->len, m->name};
    while (c.at < c.end) {
        field f;
        FX_TRY(next_field(&c, &f));
        if (f.wire != WIRE_BYTES) continue;
        if (f.number == 1) FX_TRY(read_piece(m, &f));
        if (f.number == 2) FX_TRY(check_trainer(m, &f));
        if (f.number == 3) FX_TRY(read_normalizer(m, &f));
    }
    return FX_OK;
}

fx_status fx_unigram_read(fx_unigram *m, const char *path)
{
    fx_buf file = {0};
    snprintf(m->name, sizeof m->name, "%s", path);
    fx_status st = fx_tokenizer_read(path, &file);
    if (st == FX_OK) st = parse(m, &file);
    fx_buf_free(&file);
    return st;
}

void fx_unigram_free(fx_unigram *m)
{
    free(m->piece);
    free(m->order);
    fx_buf_free(&m->text);
    fx_buf_free(&m->charsmap);
    fx_strmap_free(&m->vocab);
    *m = (fx_unigram){0};
}
