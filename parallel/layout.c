/* Who owns which rows: fills the table rank -> one range per segment (text | image | condition), the only
 * place where rows are dealt out. The transformer, RoPE tables, the exchange and the packing of latents all
 * read this table, so tokens, positions and owners cannot disagree. Arithmetic only. */
#include "parallel/layout.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

fx_range fx_split_even(int64_t n, int ranks, int rank)
{
    const int64_t base = n / ranks, more = n % ranks; /* the first `more` ranks take one row extra */
    const int64_t begin = rank * base + (rank < more ? rank : more);
    return (fx_range){begin, base + (rank < more)};
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}
static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Ranks for text in a stream split: the count whose largest rank is smallest; the smallest such count. */
static int stream_text_ranks(int ranks, int64_t text, int64_t rest, int64_t *largest)
{
    int best = 1;
    *largest = INT64_MAX;
    for (int a = 1; a < ranks; a++) {
        const int64_t n = max64(ceil_div(text, a), ceil_div(rest, ranks - a));
        if (n < *largest) {
            *largest = n;
            best = a;
        }
    }
    return best;
}

static bool stream_possible(int ranks, const int64_t rows[FX_SEGMENTS])
{
    return ranks >= 2 && rows[FX_TEXT] > 0 && rows[FX_IMAGE] + rows[FX_COND] > 0;
}

/* Cost of a block on the busiest rank, in thirds of a row. A matrix product over n rows costs max(n, w):
 * below w rows reading the weights is the bill. Every block has 12 C^2 weights per stream and FLUX has two
 * single blocks (one product over all rows) for each double block (one product per stream): even:    [ max(t,
 * w) + max(i, w) ] + 2 max(t + i, w)        t, i: text and other rows of rank 0 stream:  3 max(n, w) n: rows
 * of the busiest rank, all of one stream */
fx_layout_kind fx_layout_choose(int ranks, const int64_t rows[FX_SEGMENTS], int64_t w)
{
    if (!stream_possible(ranks, rows)) return FX_LAYOUT_EVEN;
    int64_t largest;
    const int64_t text = rows[FX_TEXT], image = rows[FX_IMAGE], cond = rows[FX_COND];
    const int64_t t = ceil_div(text, ranks), i = ceil_div(image, ranks) + ceil_div(cond, ranks);
    stream_text_ranks(ranks, text, image + cond, &largest);
    const int64_t even = max64(t, w) + max64(i, w) + 2 * max64(t + i, w);
    return 3 * max64(largest, w) < even ? FX_LAYOUT_STREAM : FX_LAYOUT_EVEN;
}

static void fill_segment(fx_layout *l, int segment, int first, int count)
{
    for (int r = 0; r < l->ranks; r++) {
        fx_range *p = &l->part[r][segment];
        if (r < first)
            *p = (fx_range){0, 0};
        else if (r >= first + count)
            *p = (fx_range){l->rows[segment], 0};
        else
            *p = fx_split_even(l->rows[segment], count, r - first);
    }
}

/* Image and condition rows over the ranks behind the text: one even split of both together, so that the
 * busiest rank has one row more than the others, not two. */
static void fill_stream(fx_layout *l)
{
    int64_t largest;
    const int64_t image = l->rows[FX_IMAGE], rest = image + l->rows[FX_COND];
    const int a = stream_text_ranks(l->ranks, l->rows[FX_TEXT], rest, &largest);
    fill_segment(l, FX_TEXT, 0, a);
    for (int r = 0; r < l->ranks; r++) {
        const fx_range both = r < a ? (fx_range){0, 0} : fx_split_even(rest, l->ranks - a, r - a);
        const int64_t end = both.begin + both.count, begin = both.begin;
        const int64_t img0 = begin < image ? begin : image, img1 = end < image ? end : image;
        l->part[r][FX_IMAGE] = (fx_range){img0, img1 - img0};
        l->part[r][FX_COND] = (fx_range){max64(begin - image, 0), (end - begin) - (img1 - img0)};
    }
}

fx_status fx_layout_open(fx_layout_kind kind, int ranks, const int64_t rows[FX_SEGMENTS], fx_layout *out)
{
    memset(out, 0, sizeof *out);
    FX_CHECK(ranks >= 1, FX_EINVAL, "a layout needs at least one rank, not %d", ranks);
    for (int s = 0; s < FX_SEGMENTS; s++)
        FX_CHECK(rows[s] >= 0, FX_EINVAL, "segment %d has %lld rows", s, (long long)rows[s]);
    if (kind == FX_LAYOUT_AUTO) kind = fx_layout_choose(ranks, rows, FX_LAYOUT_WEIGHT_ROWS);
    FX_CHECK(kind == FX_LAYOUT_EVEN || kind == FX_LAYOUT_STREAM, FX_EINVAL, "unknown layout %d", (int)kind);
    FX_CHECK(
        kind == FX_LAYOUT_EVEN || stream_possible(ranks, rows), FX_EINVAL,
        "layout 'stream' is not possible with %d rank%s; it gives text and image rows to different ranks; "
        "use --layout even, or at least 2 ranks",
        ranks, ranks == 1 ? "" : "s");
    out->part = calloc((size_t)ranks, sizeof *out->part);
    FX_CHECK(out->part, FX_ENOMEM, "no memory for the layout of %d ranks", ranks);
    out->kind = kind;
    out->ranks = ranks;
    memcpy(out->rows, rows, sizeof out->rows);
    if (kind == FX_LAYOUT_STREAM)
        fill_stream(out);
    else
        for (int s = 0; s < FX_SEGMENTS; s++) fill_segment(out, s, 0, ranks);
    return FX_OK;
}

void fx_layout_close(fx_layout *l)
{
    if (!l) return;
    free(l->part);
    memset(l, 0, sizeof *l);
}

int64_t fx_layout_total(const fx_layout *l)
{
    return l->rows[FX_TEXT] + l->rows[FX_IMAGE] + l->rows[FX_COND];
}

int64_t fx_layout_local(const fx_layout *l, int rank)
{
    return fx_layout_local_start(l, rank, FX_SEGMENTS);
}

int64_t fx_layout_start(const fx_layout *l, int segment)
{
    int64_t start = 0;
    for (int s = 0; s < segment; s++) start += l->rows[s];
    return start;
}

int64_t fx_layout_local_start(const fx_layout *l, int rank, int segment)
{
    int64_t start = 0;
    for (int s = 0; s < segment; s++) start += l->part[rank][s].count;
    return start;
}

const char *fx_layout_name(fx_layout_kind kind)
{
    return kind == FX_LAYOUT_EVEN ? "even" : kind == FX_LAYOUT_STREAM ? "stream" : "auto";
}
