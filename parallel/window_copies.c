/* What copy engines move in a block where rows would otherwise go by kernels: the rows that pack has staged, straight into the
 * peers' q, k and v; behind a rank's pieces the word that tells it (kernels/window.h). One group only: a rank's rows of a segment
 * are then one piece. Made once, by window.c. */
#include <stdlib.h>

#include "parallel/exchange_internal.h"

/* The rows of this rank to a peer: the end of the list. */
static fx_window_copy *send_rows(const fx_exchange *ex, const fx_window *w, int rank, uint16_t *recv,
                                 uint32_t *counters, fx_window_copy *next)
{
    const fx_tensor slot = fx_row(ex->staged, rank < ex->me ? rank : rank - 1);
    const uint16_t *staged = slot.data;
    const int64_t row = slot.stride[0];
    for (int s = 0; s < FX_SEGMENTS; s++) {
        const int64_t n = ex->layout->part[ex->me][s].count,
                      to = fx_exchange_receive_row(ex, FX_PART_Q, ex->me, s),
                      from = fx_layout_local_start(ex->layout, ex->me, s);
        const size_t bytes = (size_t)(n * row) * sizeof *recv;
        if (n) *next++ = (fx_window_copy){recv + to * row, staged + from * row, bytes};
    }
    *next++ = (fx_window_copy){counters + (FX_LATE_ROWS - 1) * w->ranks + w->me,
                               w->state + FX_WINDOW_TOLD_ROWS, sizeof *w->state};
    return next;
}

fx_status fx_exchange_list_copies(const fx_exchange *ex, const fx_window *w, uint16_t *const recv[],
                                  uint32_t *const counters[], fx_exchange_copies *out)
{
    const int ranks = w->ranks;
    fx_window_copy *all = calloc((FX_SEGMENTS + 1) * (size_t)ranks, sizeof *all), *end = all;
    FX_CHECK(all, FX_ENOMEM, "no memory for the copies to %d ranks", ranks);
    for (int k = 1; k < ranks; k++) { /* not all to the same rank first */
        const int r = (ex->me + k) % ranks;
        end = send_rows(ex, w, r, recv[r], counters[r], end);
    }
    *out = (fx_exchange_copies){.list = all, .n = (int)(end - all)};
    return FX_OK;
}
