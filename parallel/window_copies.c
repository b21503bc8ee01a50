/* What copy engines move in a block where rows would otherwise go by kernels: the rows that pack has staged, straight into the
 * peers' q, k and v, and attention's output straight to where its owner reads it; behind a rank's pieces the word that tells it
 * (kernels/window.h). One group only: a rank's rows of a segment are then one piece. Made once, by window.c. */
#include <stdlib.h>

#include "parallel/exchange_internal.h"

typedef struct maker {
    const fx_exchange *ex;
    const fx_window *w;
    uint16_t *const *recv, *const *output;
    uint32_t *const *counters;
    fx_window_copy *next;
} maker;

/* n rows of `width` bf16 values; without gaps they are one. */
static void add(maker *m, void *to, const void *from, int64_t width, int64_t n, int64_t to_row,
                int64_t from_row)
{
    const bool one = to_row == width && from_row == width;
    const size_t bytes = (size_t)width * sizeof(uint16_t), all = bytes * (size_t)n;
    if (!n || !width) return;
    *m->next++ = (fx_window_copy){.to = to,
                                  .from = from,
                                  .width = one ? all : bytes,
                                  .rows = one ? 1 : (size_t)n,
                                  .to_row = one ? all : (size_t)to_row * sizeof(uint16_t),
                                  .from_row = one ? all : (size_t)from_row * sizeof(uint16_t)};
}

static void add_word(maker *m, int rank, int late, int word)
{
    const fx_window *w = m->w;
    *m->next++ = (fx_window_copy){.to = m->counters[rank] + (late - 1) * w->ranks + w->me,
                                  .from = w->state + word,
                                  .width = sizeof *w->state,
                                  .rows = 1,
                                  .to_row = sizeof *w->state,
                                  .from_row = sizeof *w->state};
}

/* The rows of this rank to a peer. */
static void send_rows(maker *m, int rank)
{
    const fx_exchange *ex = m->ex;
    const fx_tensor slot = fx_row(ex->staged, rank < ex->me ? rank : rank - 1);
    const uint16_t *staged = slot.data;
    const int64_t row = slot.stride[0];
    for (int s = 0; s < FX_SEGMENTS; s++) {
        const int64_t n = ex->layout->part[ex->me][s].count,
                      to = fx_exchange_receive_row(ex, FX_PART_Q, ex->me, s),
                      from = fx_layout_local_start(ex->layout, ex->me, s);
        add(m, m->recv[rank] + to * row, staged + from * row, row, n, row, row);
    }
    add_word(m, rank, FX_LATE_ROWS, FX_WINDOW_TOLD_ROWS);
}

/* This rank's heads of the output's rows, to their owner. */
static void send_back(maker *m, int rank)
{
    const fx_exchange *ex = m->ex;
    const int64_t width = ex->o_group.stride[0], row = m->w->output_row;
    const uint16_t *o = ex->o_group.data;
    for (int s = 0; s < FX_SEGMENTS; s++) {
        const int64_t n = ex->layout->part[rank][s].count,
                      from = fx_exchange_receive_row(ex, FX_PART_Q, rank, s),
                      to = fx_layout_local_start(ex->layout, rank, s);
        add(m, m->output[rank] + to * row + ex->ui * width, o + from * width, width, n, row, width);
    }
    if (rank != ex->me) add_word(m, rank, FX_LATE_OUTPUT, FX_WINDOW_TOLD_OUTPUT);
}

fx_status fx_exchange_list_copies(const fx_exchange *ex, const fx_window *w, uint16_t *const recv[],
                                  uint16_t *const output[], uint32_t *const counters[],
                                  fx_exchange_lists *out)
{
    const int ranks = w->ranks;
    fx_window_copy *all = calloc(2 * (FX_SEGMENTS + 1) * (size_t)ranks, sizeof *all);
    FX_CHECK(all, FX_ENOMEM, "no memory for the copies to %d ranks", ranks);
    maker m = {.ex = ex, .w = w, .recv = recv, .output = output, .counters = counters, .next = all};
    for (int k = 1; k < ranks; k++) send_rows(&m, (ex->me + k) % ranks); /* not all to the same rank first */
    fx_window_copy *const back = m.next;
    for (int k = 1; k <= ranks; k++) send_back(&m, (ex->me + k) % ranks); /* own rows last: nobody waits */
    *out = (fx_exchange_lists){
        .there = all, .back = back, .n_there = (int)(back - all), .n_back = (int)(m.next - back)};
    return FX_OK;
}
