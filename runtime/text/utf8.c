/* Buffers, UTF-8 checks and white space for the tokenizers. Decoding is utf8proc's, which refuses surrogates,
 * overlong forms and everything above U+10FFFF. */
#include "runtime/text/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "runtime/text/tokenizer.h"

fx_status fx_buf_put(fx_buf *b, const void *bytes, size_t n)
{
    if (n + 1 > b->cap - b->len) {
        size_t cap = b->cap ? b->cap : 64;
        while (cap - b->len < n + 1) {
            FX_CHECK(cap <= SIZE_MAX / 2, FX_ENOMEM, "text buffer: size overflow");
            cap *= 2;
        }
        char *data = realloc(b->data, cap);
        FX_CHECK(data, FX_ENOMEM, "text buffer: cannot allocate %zu bytes", cap);
        b->data = data;
        b->cap = cap;
    }
    if (n) memcpy(b->data + b->len, bytes, n);
    b->len += n;
    b->data[b->len] = 0;
    return FX_OK;
}

fx_status fx_buf_put_char(fx_buf *b, int32_t code_point)
{
    utf8proc_uint8_t bytes[4];
    const size_t n = (size_t)utf8proc_encode_char(code_point, bytes); /* 0: not a character */
    return fx_buf_put(b, bytes, n);
}

void fx_buf_free(fx_buf *b)
{
    free(b->data);
    *b = (fx_buf){0};
}

fx_status fx_ids_reserve(fx_ids *v, size_t more)
{
    if (more <= v->cap - v->len) return FX_OK;
    size_t cap = v->cap ? v->cap : 64;
    while (cap - v->len < more) cap *= 2;
    int32_t *data = realloc(v->data, cap * sizeof *data);
    FX_CHECK(data, FX_ENOMEM, "token list: cannot allocate %zu bytes", cap * sizeof *data);
    v->data = data;
    v->cap = cap;
    return FX_OK;
}

fx_status fx_ids_put(fx_ids *v, int32_t id)
{
    FX_TRY(fx_ids_reserve(v, 1));
    v->data[v->len++] = id;
    return FX_OK;
}

void fx_ids_free(fx_ids *v)
{
    free(v->data);
    *v = (fx_ids){0};
}

bool fx_utf8_valid(const char *text, size_t n, size_t *bad)
{
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        const utf8proc_ssize_t step =
            utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(n - i), &c);
        if (step <= 0) {
            *bad = i;
            return false;
        }
        i += (size_t)step;
    }
    return true;
}

fx_status fx_prompt_check(const char *utf8, size_t *len)
{
    size_t bad = 0;
    FX_CHECK(utf8, FX_EINVAL,
             "prompt is missing; no text was given; use an empty string for the empty prompt");
    *len = strlen(utf8);
    FX_CHECK(*len <= FX_PROMPT_MAX, FX_EINVAL, "prompt has %zu bytes; the limit is %d; shorten the prompt",
             *len, FX_PROMPT_MAX);
    FX_CHECK(fx_utf8_valid(utf8, *len, &bad), FX_EINVAL,
             "prompt is not valid UTF-8 at byte %zu; found 0x%02X; give the prompt in UTF-8", bad,
             (unsigned char)utf8[bad]);
    return FX_OK;
}

int32_t fx_utf8_next(const char *text, size_t n, size_t *pos)
{
    utf8proc_int32_t c = 0xFFFD;
    const utf8proc_ssize_t step =
        utf8proc_iterate((const utf8proc_uint8_t *)text + *pos, (utf8proc_ssize_t)(n - *pos), &c);
    *pos += step > 0 ? (size_t)step : 1; /* 1: cannot happen in checked text, and never loops */
    return c;
}

bool fx_is_space(int32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
           c == 0x3000;
}

bool fx_in_ranges(const fx_code_range *ranges, size_t count, int32_t c)
{
    size_t lo = 0, hi = count;
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        if (c > ranges[mid].last)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < count && c >= ranges[lo].first;
}
