/* Prompt piece -> normalised piece, second step of the CLIP tokenizer. Equal to the reference's chain NFC,
 * Replace(\s+), Lowercase, whose engines carry different Unicode versions: NFC that of Unicode 9, lower case
 * that of Unicode 17. utf8proc supplies the tables; the lists below hold what its version (14 to 17) sees
 * differently. */
#include "runtime/text/clip_normalize.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Characters that later Unicode versions reorder or compose and Unicode 9 leaves alone: NFC never looks
 * across one. */
static const fx_code_range inert[] = {
    {0x5C8, 0x5C9},     {0x7FD, 0x7FD},     {0x897, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},   {0x1ABF, 0x1AF0},
    {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x105D2, 0x105D2}, {0x105DA, 0x105DA}, {0x10D24, 0x10D27},
    {0x10D69, 0x10D6D}, {0x10EAB, 0x10EAC}, {0x10ECB, 0x10ECF}, {0x10EF0, 0x10EFB}, {0x10EFD, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x113B8, 0x113D0},
    {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D45},
    {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x1611E, 0x1612F}, {0x16D67, 0x16D67}, {0x16FF0, 0x16FF1},
    {0x1D127, 0x1D128}, {0x1D250, 0x1D252}, {0x1D25B, 0x1D25F}, {0x1D280, 0x1D281}, {0x1E08F, 0x1E08F},
    {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1E5EE, 0x1E5EF},
    {0x1E6E3, 0x1E6E3}, {0x1E6E6, 0x1E6E6}, {0x1E6EE, 0x1E6EF}, {0x1E6F5, 0x1E6F5},
};

/* Lower case pairs added in Unicode 16 and 17: lower = upper + step. */
static const struct {
    int32_t first, last, step;
} new_lower[] = {
    {0x1C89, 0x1C89, 1},      {0xA7CB, 0xA7CB, 0x264 - 0xA7CB},
    {0xA7CC, 0xA7CC, 1},      {0xA7CE, 0xA7CE, 1},
    {0xA7D2, 0xA7D2, 1},      {0xA7D4, 0xA7D4, 1},
    {0xA7DA, 0xA7DA, 1},      {0xA7DC, 0xA7DC, 0x19B - 0xA7DC},
    {0x10D50, 0x10D65, 0x20}, {0x16EA0, 0x16EB8, 0x1B},
};

static int32_t lower(int32_t c)
{
    if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
    if (c >= 0x1C89)
        for (size_t i = 0; i < sizeof new_lower / sizeof *new_lower; i++)
            if (c >= new_lower[i].first && c <= new_lower[i].last) return c + new_lower[i].step;
    return utf8proc_tolower(c);
}

/* Stable order by combining class within each run of non-starters: a counting sort, so that a megabyte of
 * combining marks costs no more than a megabyte of letters. tmp has room for n. */
static void order_marks(int32_t *c, size_t n, int32_t *tmp)
{
    for (size_t i = 0; i < n;) {
        size_t end = i, at[257] = {0};
        for (; end < n; end++) {
            const int cc = utf8proc_get_property(c[end])->combining_class;
            if (!cc) break;
            at[cc + 1]++;
        }
        if (end - i > 1) {
            for (int k = 1; k < 257; k++) at[k] += at[k - 1];
            for (size_t j = i; j < end; j++) tmp[at[utf8proc_get_property(c[j])->combining_class]++] = c[j];
            memcpy(c + i, tmp, (end - i) * sizeof *c);
        }
        i = end > i ? end : i + 1;
    }
}

/* Canonical decomposition, order, composition of text without inert characters; returns the new length or -1.
 * A code point decomposes into at most 4. */
static ptrdiff_t nfc(const int32_t *c, size_t n, int32_t *out, size_t cap, int32_t *tmp)
{
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        int state = 0;
        const utf8proc_ssize_t k =
            utf8proc_decompose_char(c[i], out + m, (utf8proc_ssize_t)(cap - m), UTF8PROC_DECOMPOSE, &state);
        if (k < 0 || (size_t)k > cap - m) return -1;
        m += (size_t)k;
    }
    order_marks(out, m, tmp);
    return utf8proc_normalize_utf32(out, (utf8proc_ssize_t)m, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
}

static fx_status put_lower(const int32_t *c, size_t n, bool *after_space, fx_buf *out)
{
    for (size_t i = 0; i < n; i++) {
        const bool space = fx_is_space(c[i]);
        if (space && *after_space) continue;
        *after_space = space;
        if (space)
            FX_TRY(fx_buf_put(out, " ", 1));
        else if (c[i] == 0x130)
            FX_TRY(fx_buf_put(out, "i\xCC\x87", 3)); /* the only one with two characters */
        else
            FX_TRY(fx_buf_put_char(out, lower(c[i])));
    }
    return FX_OK;
}

static fx_status normalize(const int32_t *c, size_t n, int32_t *work, fx_buf *out)
{
    const size_t count = sizeof inert / sizeof *inert;
    bool after_space = false;
    for (size_t i = 0; i < n;) {
        if (fx_in_ranges(inert, count, c[i])) {
            FX_TRY(put_lower(c + i++, 1, &after_space, out));
            continue;
        }
        size_t end = i;
        while (end < n && !fx_in_ranges(inert, count, c[end])) end++;
        const ptrdiff_t m = nfc(c + i, end - i, work, 4 * n, work + 4 * n);
        FX_CHECK(m >= 0, FX_ESHAPE, "NFC: the Unicode library failed on %zu characters", end - i);
        FX_TRY(put_lower(work, (size_t)m, &after_space, out));
        i = end;
    }
    return FX_OK;
}

fx_status fx_clip_normalize(const char *text, size_t len, fx_buf *out)
{
    if (!len) return FX_OK;
    /* code points, their decomposition (4 x), the sort's copy (4 x) */
    int32_t *c = malloc(9 * len * sizeof *c);
    FX_CHECK(c, FX_ENOMEM, "CLIP tokenizer: cannot allocate %zu bytes", 9 * len * sizeof *c);
    size_t n = 0;
    for (size_t i = 0; i < len;) c[n++] = fx_utf8_next(text, len, &i);
    const fx_status st = normalize(c, n, c + n, out);
    free(c);
    return st;
}
