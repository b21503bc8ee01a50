/* Vocabulary and merges of the CLIP tokenizer from vocab.json + merges.txt or from tokenizer.json, and their
 * table. Runs once, when the tokenizer opens. */
#include <stdlib.h>
#include <string.h>

#include "runtime/io/json.h"
#include "runtime/text/bpe_model.h"

static size_t slot_of(uint64_t pair, size_t cap)
{
    return (size_t)((pair * 0x9E3779B97F4A7C15u) >> 32) & (cap - 1);
}

const fx_merge *fx_bpe_find_merge(const fx_bpe_model *m, int32_t left, int32_t right)
{
    if (!m->merge_cap) return NULL;
    const uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    for (size_t i = slot_of(pair, m->merge_cap);; i = (i + 1) & (m->merge_cap - 1)) {
        if (m->merge[i].rank < 0) return NULL;
        if (m->merge[i].pair == pair) return &m->merge[i];
    }
}

/* The later of two equal pairs wins, as in the reference. */
static void insert(fx_merge *table, size_t cap, fx_merge merge)
{
    size_t i = slot_of(merge.pair, cap);
    while (table[i].rank >= 0 && table[i].pair != merge.pair) i = (i + 1) & (cap - 1);
    table[i] = merge;
}

static fx_status grow(fx_bpe_model *m)
{
    const size_t cap = m->merge_cap ? 2 * m->merge_cap : 1024;
    fx_merge *table = malloc(cap * sizeof *table);
    FX_CHECK(table, FX_ENOMEM, "BPE merges: cannot allocate %zu entries", cap);
    for (size_t i = 0; i < cap; i++) table[i].rank = -1;
    for (size_t i = 0; i < m->merge_cap; i++)
        if (m->merge[i].rank >= 0) insert(table, cap, m->merge[i]);
    free(m->merge);
    m->merge = table;
    m->merge_cap = cap;
    return FX_OK;
}

static fx_status add_merge(fx_bpe_model *m, const char *file, const char *a, size_t na, const char *b,
                           size_t nb)
{
    char joined[1024];
    FX_CHECK(na && nb && na + nb <= sizeof joined, FX_EFORMAT, "%s: merge %zu: an empty or overlong part",
             file, m->merges + 1);
    memcpy(joined, a, na);
    memcpy(joined + na, b, nb);
    const int32_t left = fx_strmap_get(&m->vocab, a, na), right = fx_strmap_get(&m->vocab, b, nb);
    const int32_t id = fx_strmap_get(&m->vocab, joined, na + nb);
    FX_CHECK(left >= 0 && right >= 0 && id >= 0, FX_EFORMAT,
             "%s: merge %zu ('%.*s' '%.*s'): a part or the result is not in the vocabulary; the files do not "
             "match",
             file, m->merges + 1, (int)na, a, (int)nb, b);
    if (2 * (m->merges + 1) > m->merge_cap) FX_TRY(grow(m));
    insert(m->merge, m->merge_cap,
           (fx_merge){(uint64_t)(uint32_t)left << 32 | (uint32_t)right, (int32_t)m->merges++, id});
    return FX_OK;
}

/* Byte-level alphabet: printable Latin-1 bytes stand for themselves, the other 68 for U+0100, U+0101, ... in
 * order. */
static void byte_symbols(fx_bpe_model *m)
{
    int next = 0x100;
    for (int b = 0; b < 256; b++) {
        const int plain = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
        const int c = plain ? b : next++;
        char text[8];
        size_t n = 0;
        if (c < 0x80)
            text[n++] = (char)c;
        else {
            text[n++] = (char)(0xC0 | c >> 6);
            text[n++] = (char)(0x80 | (c & 0x3F));
        }
        memcpy(text + n, "</w>", 4);
        m->byte_id[0][b] = fx_strmap_get(&m->vocab, text, n);
        m->byte_id[1][b] = fx_strmap_get(&m->vocab, text, n + 4);
    }
}

static fx_status load_vocab(fx_bpe_model *m, const char *file, json_t *vocab)
{
    FX_CHECK(json_is_object(vocab) && json_object_size(vocab) > 0, FX_EFORMAT,
             "%s: vocabulary: wanted an object of token: id", file);
    const char *key;
    size_t len;
    json_t *v;
    json_object_keylen_foreach(vocab, key, len, v)
    {
        FX_CHECK(json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < INT32_MAX,
                 FX_EFORMAT, "%s: vocabulary: token '%s' has no valid id", file, key);
        const int32_t id = (int32_t)json_integer_value(v);
        if (id >= m->id_limit) m->id_limit = id + 1;
        FX_TRY(fx_strmap_set(&m->vocab, key, len, id));
    }
    byte_symbols(m);
    return FX_OK;
}

static fx_status merge_line(fx_bpe_model *m, const char *path, const char *line, size_t n)
{
    const char *space = memchr(line, ' ', n);
    FX_CHECK(space && !memchr(space + 1, ' ', n - (size_t)(space + 1 - line)), FX_EFORMAT,
             "%s: merge %zu: wanted two tokens with one space between them", path, m->merges + 1);
    return add_merge(m, path, line, (size_t)(space - line), space + 1, n - (size_t)(space + 1 - line));
}

static fx_status parse_merges(fx_bpe_model *m, const char *path, const char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        const char *line = text + at, *end = memchr(line, '\n', size - at);
        size_t n = end ? (size_t)(end - line) : size - at;
        at += n + 1;
        if (n && line[n - 1] == '\r') n--;
        if (n >= 8 && !memcmp(line, "#version", 8)) continue;
        FX_TRY(merge_line(m, path, line, n));
    }
    return FX_OK;
}

fx_status fx_bpe_load_files(fx_bpe_model *m, const fx_tokenizer_files *f)
{
    char path[1280];
    json_t *vocab = NULL;
    FX_TRY(fx_tokenizer_path(f, "vocab.json", path, sizeof path));
    FX_TRY(fx_json_load(path, FX_TOKENIZER_FILE_MAX, &vocab));
    fx_status st = load_vocab(m, path, vocab);
    json_decref(vocab);
    if (st != FX_OK) return st;
    fx_buf text = {0};
    st = fx_tokenizer_path(f, "merges.txt", path, sizeof path);
    if (st == FX_OK) st = fx_tokenizer_read(path, &text);
    if (st == FX_OK) st = parse_merges(m, path, text.data, text.len);
    fx_buf_free(&text);
    return st;
}

/* A merge is "a b" or, in newer files, ["a", "b"]. */
static fx_status json_merge(fx_bpe_model *m, const char *file, const json_t *v)
{
    if (json_is_string(v)) return merge_line(m, file, json_string_value(v), json_string_length(v));
    const json_t *a = json_array_get(v, 0), *b = json_array_get(v, 1);
    FX_CHECK(json_array_size(v) == 2 && json_is_string(a) && json_is_string(b), FX_EFORMAT,
             "%s: merge %zu: wanted two tokens", file, m->merges + 1);
    return add_merge(m, file, json_string_value(a), json_string_length(a), json_string_value(b),
                     json_string_length(b));
}

fx_status fx_bpe_load_json(fx_bpe_model *m, const fx_tokenizer_files *f)
{
    char path[1280];
    json_t *model = NULL;
    FX_TRY(fx_tokenizer_path(f, "tokenizer.json", path, sizeof path));
    FX_TRY(fx_tokenizer_model(f, "BPE", &model));
    FX_TRY(load_vocab(m, path, json_object_get(model, "vocab")));
    const json_t *merges = json_object_get(model, "merges");
    FX_CHECK(json_is_array(merges), FX_EFORMAT, "%s: model.merges: wanted a list", path);
    size_t i;
    json_t *v;
    json_array_foreach(merges, i, v) FX_TRY(json_merge(m, path, v));
    return FX_OK;
}

void fx_bpe_free(fx_bpe_model *m)
{
    fx_strmap_free(&m->vocab);
    free(m->merge);
    *m = (fx_bpe_model){0};
}
