/* One word -> token ids: bytes become symbols, then the adjacent pair with the lowest rank merges (the
 * leftmost of equals) until none is left. A heap of candidates keeps this n log n, so a megabyte without a
 * space is no attack. */
#include "runtime/text/bpe_model.h"

#include <stdlib.h>
#include <string.h>

enum { NONE = -1 };

typedef struct fx_bpe_symbol {
    int32_t id;         /* NONE: merged into its left neighbour */
    int32_t prev, next; /* NONE at the ends */
} symbol;

typedef struct fx_bpe_candidate {
    int32_t rank, at, id; /* at: the left symbol */
} candidate;

static int before(candidate a, candidate b)
{
    return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static void heap_push(candidate *heap, size_t *n, candidate c)
{
    size_t i = (*n)++;
    for (; i > 0 && before(c, heap[(i - 1) / 2]); i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = c;
}

static candidate heap_pop(candidate *heap, size_t *n)
{
    const candidate top = heap[0], last = heap[--*n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < *n; i = child) {
        if (child + 1 < *n && before(heap[child + 1], heap[child])) child++;
        if (!before(heap[child], last)) break;
        heap[i] = heap[child];
    }
    heap[i] = last;
    return top;
}

static void consider(const fx_bpe_model *m, const symbol *s, int32_t at, candidate *heap, size_t *n)
{
    if (at == NONE || s[at].next == NONE) return;
    const fx_merge *merge = fx_bpe_find_merge(m, s[at].id, s[s[at].next].id);
    if (merge) heap_push(heap, n, (candidate){merge->rank, at, merge->id});
}

static fx_status reserve(fx_bpe_scratch *w, size_t n)
{
    if (n <= w->cap) return FX_OK;
    const size_t cap = n < 64 ? 64 : n;
    fx_bpe_scratch_free(w);
    w->symbol = malloc(cap * sizeof *w->symbol);
    w->heap = malloc(3 * cap * sizeof *w->heap); /* n - 1 pairs at first, at most 2 more per merge */
    FX_CHECK(w->symbol && w->heap, FX_ENOMEM, "BPE: cannot allocate for a word of %zu bytes", n);
    w->cap = cap;
    return FX_OK;
}

static void merge_all(const fx_bpe_model *m, symbol *s, size_t n, candidate *heap)
{
    size_t waiting = 0;
    for (size_t i = 0; i + 1 < n; i++) consider(m, s, (int32_t)i, heap, &waiting);
    while (waiting) {
        const candidate c = heap_pop(heap, &waiting);
        symbol *left = &s[c.at];
        if (left->id == NONE || left->next == NONE) continue;
        symbol *right = &s[left->next];
        const fx_merge *now = fx_bpe_find_merge(m, left->id, right->id);
        if (!now || now->id != c.id) continue; /* the pair changed since it was queued */
        left->id = c.id;
        left->next = right->next;
        right->id = NONE;
        if (left->next != NONE) s[left->next].prev = c.at;
        consider(m, s, left->prev, heap, &waiting);
        consider(m, s, c.at, heap, &waiting);
    }
}

fx_status fx_bpe_word(const fx_bpe_model *m, const char *bytes, size_t n, fx_bpe_scratch *w, fx_ids *out)
{
    FX_TRY(reserve(w, n));
    symbol *s = w->symbol;
    for (size_t i = 0; i < n; i++) {
        int32_t id = m->byte_id[i + 1 == n][(unsigned char)bytes[i]];
        if (id < 0) id = m->unk;
        FX_CHECK(id >= 0, FX_EFORMAT,
                 "CLIP tokenizer: byte 0x%02X is not in the vocabulary; it has no unknown token; complete "
                 "vocab.json",
                 (unsigned char)bytes[i]);
        s[i] = (symbol){id, (int32_t)i - 1, i + 1 < n ? (int32_t)i + 1 : NONE};
    }
    merge_all(m, s, n, w->heap);
    for (size_t i = 0; i < n; i++)
        if (s[i].id != NONE) FX_TRY(fx_ids_put(out, s[i].id));
    return FX_OK;
}

void fx_bpe_scratch_free(fx_bpe_scratch *w)
{
    free(w->symbol);
    free(w->heap);
    *w = (fx_bpe_scratch){0};
}
