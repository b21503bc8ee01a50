/* One word -> token ids: the split into pieces with the highest sum of scores (Viterbi, left to right). Sums
 * are f64 in that order, as in the reference: in runs such as "......." many splits tie up to rounding, and
 * the sentencepiece library, which sums in f32, picks others there. All pieces are searched alike, control
 * pieces too. A character that is no piece costs 10 more than the worst piece. Source: Kudo 2018 (arXiv
 * 1804.10959). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/tensor.h"
#include "runtime/text/unigram_model.h"

#define UNKNOWN_PENALTY 10.0

typedef struct fx_unigram_node { /* best path that ends at this byte */
    double score;
    size_t begin; /* of the path's last piece; NOWHERE: no path */
    int32_t id;
} node;

#define NOWHERE SIZE_MAX

static int compare(const void *a, const void *b, void *model)
{
    const fx_unigram *m = model;
    const int32_t ia = *(const int32_t *)a, ib = *(const int32_t *)b;
    const fx_piece *x = &m->piece[ia], *y = &m->piece[ib];
    const int c = memcmp(m->text.data + x->text, m->text.data + y->text, x->len < y->len ? x->len : y->len);
    if (c) return c;
    const int order = fx_order(x->len, y->len);
    return order ? order : fx_order((uint64_t)ib, (uint64_t)ia);
}

fx_status fx_unigram_finish(fx_unigram *m)
{
    FX_CHECK(m->count > FX_T5_UNK, FX_EFORMAT, "%s: %d pieces; wanted at least <pad>, </s> and <unk>",
             m->name, m->count);
    m->order = malloc((size_t)m->count * sizeof *m->order);
    FX_CHECK(m->order, FX_ENOMEM, "%s: cannot allocate for %d pieces", m->name, m->count);
    double lowest = INFINITY;
    for (int32_t i = 0; i < m->count; i++) {
        const fx_piece *p = &m->piece[i];
        m->order[i] = i;
        if (p->score < lowest) lowest = p->score;
        FX_TRY(fx_strmap_set(&m->vocab, m->text.data + p->text, p->len, i));
        if (p->len)
            m->first[1 + (unsigned char)m->text.data[p->text]]++;
        else
            m->first[0]++; /* empty texts sort first and are never found */
    }
    m->unknown_score = lowest - UNKNOWN_PENALTY;
    for (int b = 0; b < 256; b++) m->first[b + 1] += m->first[b];
    qsort_r(m->order, (size_t)m->count, sizeof *m->order, compare, m);
    return FX_OK;
}

/* First index in [lo, hi) whose piece has, after `depth` common bytes, a byte of at least `byte` (256: the
 * end). */
static int32_t bound(const fx_unigram *m, int32_t lo, int32_t hi, size_t depth, int byte)
{
    while (lo < hi) {
        const int32_t mid = lo + (hi - lo) / 2;
        const fx_piece *p = &m->piece[m->order[mid]];
        if (p->len <= depth || (unsigned char)m->text.data[p->text + depth] < byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static void relax(node *to, double score, size_t begin, int32_t id)
{
    if (to->begin == NOWHERE || score > to->score) *to = (node){score, begin, id};
}

static size_t char_bytes(unsigned char c)
{
    return c < 0xC0 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

/* Every piece that starts at byte `begin`, shortest first, by narrowing the sorted range one byte at a time.
 */
static void extend(const fx_unigram *m, const char *text, size_t len, size_t begin, node *best)
{
    const size_t one = char_bytes((unsigned char)text[begin]);
    const double before = best[begin].score;
    int32_t lo = m->first[(unsigned char)text[begin]], hi = m->first[(unsigned char)text[begin] + 1];
    int whole_char = 0;
    for (size_t depth = 1; lo < hi; depth++) {
        const fx_piece *p = &m->piece[m->order[lo]];
        if (p->len == depth) {
            relax(&best[begin + depth], p->score + before, begin, m->order[lo]);
            whole_char |= depth == one;
        }
        if (begin + depth == len) break;
        const unsigned char c = (unsigned char)text[begin + depth];
        lo = bound(m, lo, hi, depth, c);
        hi = bound(m, lo, hi, depth, c + 1);
    }
    if (!whole_char) relax(&best[begin + one], m->unknown_score + before, begin, FX_T5_UNK);
}

static fx_status reserve(fx_unigram_scratch *w, size_t nodes)
{
    if (nodes <= w->cap) return FX_OK;
    fx_unigram_scratch_free(w);
    w->node = malloc(nodes * sizeof *w->node);
    FX_CHECK(w->node, FX_ENOMEM, "T5 tokenizer: cannot allocate for a word of %zu bytes", nodes - 1);
    w->cap = nodes;
    return FX_OK;
}

static void reverse(int32_t *v, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        const int32_t t = v[i];
        v[i] = v[n - 1 - i];
        v[n - 1 - i] = t;
    }
}

fx_status fx_unigram_encode(const fx_unigram *m, const char *text, size_t len, fx_unigram_scratch *w,
                            fx_ids *out)
{
    FX_TRY(reserve(w, len + 1));
    node *best = w->node;
    best[0] = (node){0};
    for (size_t i = 1; i <= len; i++) best[i] = (node){.begin = NOWHERE};
    for (size_t i = 0; i < len; i += char_bytes((unsigned char)text[i])) extend(m, text, len, i, best);
    const size_t begin = out->len;
    for (size_t at = len; at > 0; at = best[at].begin) {
        const int32_t id = best[at].id;
        if (id == FX_T5_UNK && out->len > begin && out->data[out->len - 1] == FX_T5_UNK) continue;
        FX_TRY(fx_ids_put(out, id));
    }
    reverse(out->data + begin, out->len - begin);
    return FX_OK;
}

void fx_unigram_scratch_free(fx_unigram_scratch *w)
{
    free(w->node);
    *w = (fx_unigram_scratch){0};
}
