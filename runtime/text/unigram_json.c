/* tokenizer.json (Unigram) -> the same pieces and character map that spiece.model would give: what folders
 * written by transformers 5 hold. */
#include <stdio.h>
#include <string.h>

#include "runtime/text/unigram_model.h"

static int sextet(unsigned char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static fx_status base64(const char *name, const char *text, size_t n, fx_buf *out)
{
    uint32_t bits = 0;
    int have = 0;
    while (n && text[n - 1] == '=') n--;
    for (size_t i = 0; i < n; i++) {
        const int v = sextet((unsigned char)text[i]);
        FX_CHECK(v >= 0, FX_EFORMAT, "%s: normalizer.precompiled_charsmap: not base64 at character %zu", name,
                 i);
        bits = bits << 6 | (uint32_t)v;
        have += 6;
        if (have < 8) continue;
        have -= 8;
        const unsigned char byte = (unsigned char)(bits >> have);
        FX_TRY(fx_buf_put(out, &byte, 1));
    }
    return FX_OK;
}

/* The first Precompiled normaliser; the reference builds the rest of the chain itself and ignores other
 * entries. */
static fx_status read_charsmap(fx_unigram *m, const json_t *normalizer)
{
    const json_t *list = json_object_get(normalizer, "normalizers");
    const size_t n = json_is_array(list) ? json_array_size(list) : 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_is_array(list) ? json_array_get(list, i) : normalizer;
        const char *type = json_string_value(json_object_get(item, "type"));
        const json_t *map = json_object_get(item, "precompiled_charsmap");
        if (!type || strcmp(type, "Precompiled") || !map) continue;
        FX_CHECK(json_is_string(map), FX_EFORMAT, "%s: normalizer.precompiled_charsmap: wanted text",
                 m->name);
        return base64(m->name, json_string_value(map), json_string_length(map), &m->charsmap);
    }
    return FX_OK;
}

fx_status fx_unigram_read_json(fx_unigram *m, const fx_tokenizer_files *f)
{
    json_t *model = NULL;
    FX_TRY(fx_tokenizer_path(f, "tokenizer.json", m->name, sizeof m->name));
    FX_TRY(fx_tokenizer_model(f, "Unigram", &model));
    FX_CHECK(!json_is_true(json_object_get(model, "byte_fallback")), FX_EFORMAT,
             "%s: model.byte_fallback is set; that is not implemented", m->name);
    const json_t *vocab = json_object_get(model, "vocab");
    FX_CHECK(json_is_array(vocab), FX_EFORMAT, "%s: model.vocab: wanted a list of [piece, score]", m->name);
    size_t i;
    json_t *v;
    json_array_foreach(vocab, i, v)
    {
        const json_t *text = json_array_get(v, 0), *score = json_array_get(v, 1);
        FX_CHECK(json_is_string(text) && json_is_number(score), FX_EFORMAT,
                 "%s: model.vocab: entry %zu: wanted [piece, score]", m->name, i);
        FX_TRY(fx_unigram_add(m, json_string_value(text), json_string_length(text), json_number_value(score),
                              FX_PIECE_NORMAL));
    }
    return read_charsmap(m, json_object_get(f->full, "normalizer"));
}
