/* T5's text normalisation, between the added tokens and the unigram search. The reference walks grapheme
 * clusters: one shorter than 6 bytes is looked up whole, and the SHORTEST key that starts it replaces all of
 * it; in every other case each character is looked up alone. The sentencepiece library replaces longest
 * matches instead. Trie format: Darts-clone's double array, as it is stored in spiece.model and
 * tokenizer.json. */
#include "runtime/text/charsmap.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { CLUSTER_BYTES = 6 };

static uint32_t little_endian(const unsigned char *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

fx_status fx_charsmap_open(const void *blob, size_t size, const char *name, fx_charsmap *out)
{
    const unsigned char *p = blob;
    *out = (fx_charsmap){0};
    if (!size) return FX_OK;
    FX_CHECK(size > 4, FX_EFORMAT, "%s: precompiled_charsmap: truncated", name);
    const size_t trie = little_endian(p);
    FX_CHECK(trie >= 4 && trie % 4 == 0 && trie < size - 4, FX_EFORMAT,
             "%s: precompiled_charsmap: a trie of %zu bytes in a blob of %zu; the file is damaged", name,
             trie, size);
    const size_t rest = size - 4 - trie;
    size_t bad = 0;
    FX_CHECK(p[size - 1] == 0 && fx_utf8_valid((const char *)p + 4 + trie, rest, &bad), FX_EFORMAT,
             "%s: precompiled_charsmap: values are not zero-terminated UTF-8; the file is damaged", name);
    out->units = trie / 4;
    out->value_bytes = rest;
    out->unit = malloc(trie);
    out->value = malloc(rest);
    if (!out->unit || !out->value) {
        fx_charsmap_close(out);
        return FX_FAIL(FX_ENOMEM, "%s: cannot allocate %zu bytes", name, size);
    }
    for (size_t i = 0; i < out->units; i++) out->unit[i] = little_endian(p + 4 + 4 * i);
    memcpy(out->value, p + 4 + trie, rest);
    return FX_OK;
}

void fx_charsmap_close(fx_charsmap *m)
{
    free(m->unit);
    free(m->value);
    *m = (fx_charsmap){0};
}

static uint32_t offset_of(uint32_t unit)
{
    return (unit >> 10) << ((unit & 512u) >> 6);
}

/* The value of the shortest key that is a prefix of text, NULL when there is none. */
static const char *find(const fx_charsmap *m, const char *text, size_t len)
{
    uint32_t at = offset_of(m->unit[0]);
    for (size_t i = 0; i < len; i++) {
        const unsigned char c = (unsigned char)text[i];
        at ^= c;
        if (!c || at >= m->units) return NULL;
        const uint32_t unit = m->unit[at];
        if ((unit & 0x800000FFu) != c) return NULL;
        at ^= offset_of(unit);
        if (!(unit >> 8 & 1)) continue;
        if (at >= m->units) return NULL;
        const uint32_t value = m->unit[at] & 0x7FFFFFFFu;
        /* a value may only start where a character starts: the map is untrusted, the output must stay UTF-8
         */
        if (value >= m->value_bytes || ((unsigned char)m->value[value] & 0xC0) == 0x80) return NULL;
        return m->value + value;
    }
    return NULL;
}

static fx_status put_value(const char *value, fx_buf *out)
{
    const size_t n = strnlen(value, FX_NORMAL_MAX + 1);
    FX_CHECK(out->len + n <= FX_NORMAL_MAX, FX_EFORMAT,
             "T5 tokenizer: its character map makes more than %d bytes of the prompt", FX_NORMAL_MAX);
    return fx_buf_put(out, value, n);
}

static fx_status put_char(const fx_charsmap *m, const char *text, size_t len, fx_buf *out)
{
    const char *value = find(m, text, len);
    return value ? put_value(value, out) : fx_buf_put(out, text, len);
}

static fx_status put_cluster(const fx_charsmap *m, const char *text, size_t len, fx_buf *out)
{
    const char *value = len < CLUSTER_BYTES ? find(m, text, len) : NULL;
    if (value) return put_value(value, out);
    for (size_t at = 0; at < len;) {
        const size_t begin = at;
        fx_utf8_next(text, len, &at);
        FX_TRY(put_char(m, text + begin, at - begin, out));
    }
    return FX_OK;
}

/* Cluster classes that utf8proc's tables (Unicode 15) do not have yet, by an older character of the same
 * class: U+0301 extends, U+0600 is prepended, 'a' is none of these. */
static int32_t cluster_class(int32_t c)
{
    static const fx_code_range extend[] = {
        {0x897, 0x897},     {0x1ACF, 0x1ADD},   {0x1AE0, 0x1AEB},   {0x10D69, 0x10D6D}, {0x10EFA, 0x10EFC},
        {0x113B8, 0x113C0}, {0x113C2, 0x113C2}, {0x113C5, 0x113C5}, {0x113C7, 0x113CA}, {0x113CC, 0x113D0},
        {0x113D2, 0x113D2}, {0x113E1, 0x113E2}, {0x11B60, 0x11B67}, {0x11F5A, 0x11F5A}, {0x1611E, 0x1612F},
        {0x1E5EE, 0x1E5EF}, {0x1E6E3, 0x1E6E3}, {0x1E6E6, 0x1E6E6}, {0x1E6EE, 0x1E6EF}, {0x1E6F5, 0x1E6F5},
    };
    if (c < 0x897) return c;
    if (fx_in_ranges(extend, sizeof extend / sizeof *extend, c)) return 0x301;
    return c == 0x113D1 ? 0x600 : c == 0x11A3A ? 'a' : c;
}

fx_status fx_charsmap_apply(const fx_charsmap *m, const char *text, size_t len, fx_buf *out)
{
    if (!m->units) return fx_buf_put(out, text, len);
    size_t begin = 0;
    int32_t last = 0, state = 0;
    for (size_t at = 0; at < len;) {
        size_t next = at;
        const int32_t c = cluster_class(fx_utf8_next(text, len, &next));
        if (at > begin && utf8proc_grapheme_break_stateful(last, c, &state)) {
            FX_TRY(put_cluster(m, text + begin, at - begin, out));
            begin = at;
        }
        last = c;
        at = next;
    }
    return begin < len ? put_cluster(m, text + begin, len - begin, out) : FX_OK;
}
