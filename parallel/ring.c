/* Ring attention: each group keeps its queries and sees the K/V blocks of all groups, which hop from
 * neighbour to neighbour; partial results merge by their log-sum-exp. The next block travels while the
 * current one is used. Ring Attention (arXiv 2310.01889) */
#include "parallel/exchange_internal.h"

#include <stdio.h>

/* Heads are done in a few pieces, so that the transport gets to move the next block in between. */
enum { PIECES = 4 };

static fx_status attend_block(fx_exchange *ex, fx_tensor o, fx_tensor lse, fx_tensor k, fx_tensor v,
                              bool travelling)
{
    const int step = travelling ? (ex->heads + PIECES - 1) / PIECES : ex->heads;
    for (int h = 0; h < ex->heads; h += step) {
        const int n = ex->heads - h < step ? ex->heads - h : step;
        FX_TRY(fx_attention(ex->be, fx_slice(o, 1, h, n), fx_rows(lse, h, n),
                            fx_slice(ex->recv[FX_PART_Q], 1, h, n), fx_slice(k, 1, h, n),
                            fx_slice(v, 1, h, n), fx_none(), fx_exchange_scale(ex)));
        if (travelling) FX_TRY(fx_comm_progress(ex->comm));
    }
    return FX_OK;
}

/* The group's queries over one block, added to what the blocks before gave. */
static fx_status add_block(fx_exchange *ex, fx_tensor k, fx_tensor v, bool first, bool travelling)
{
    const bool direct = first && ex->o_one.dtype == ex->o_sum.dtype;
    FX_TRY(attend_block(ex, direct ? ex->o_sum : ex->o_one, first ? ex->lse_sum : ex->lse_one, k, v,
                        travelling));
    if (direct) return FX_OK;
    if (first) return fx_copy(ex->be, ex->o_sum, ex->o_one, 1, 0);
    return fx_attention_merge(ex->be, ex->o_sum, ex->lse_sum, ex->o_one, ex->lse_one);
}

/* Sends the block in hand to the right and takes the next from the left. */
static fx_status hop(fx_exchange *ex, fx_tensor k, fx_tensor v, fx_tensor next_k, fx_tensor next_v,
                     fx_ticket *t)
{
    const fx_mesh *m = &ex->opt.mesh;
    const int right = (ex->ri + 1) % m->ring * m->ulysses + ex->ui;
    const int left = (ex->ri + m->ring - 1) % m->ring * m->ulysses + ex->ui;
    const fx_xfer out[2] = {{right, k.data, fx_bytes(k)}, {right, v.data, fx_bytes(v)}};
    const fx_xfer in[2] = {{left, next_k.data, fx_bytes(next_k)}, {left, next_v.data, fx_bytes(next_v)}};
    fx_comm_label(ex->comm, "hop");
    return fx_comm_transfer(ex->comm, 2, out, 2, in, t);
}

fx_status fx_ring_attend(fx_exchange *ex)
{
    const int ring = ex->opt.mesh.ring;
    fx_tensor k = ex->recv[FX_PART_K], v = ex->recv[FX_PART_V], free_k = ex->next_k, free_v = ex->next_v;
    bool first = true;
    char part[64];
    for (int j = 0; j < ring; j++) {
        const bool last = j == ring - 1;
        snprintf(part, sizeof part, "ring hop %d of %d", j + 1, ring - 1);
        fx_comm_set_part(ex->comm, last ? NULL : part);
        const int64_t rows = fx_exchange_group_rows(ex, (ex->ri - j + ring) % ring);
        const fx_tensor kj = fx_rows(k, 0, rows), vj = fx_rows(v, 0, rows);
        fx_ticket t = {.slot = -1};
        if (!last) {
            const int64_t coming = fx_exchange_group_rows(ex, (ex->ri - j - 1 + ring) % ring);
            FX_TRY(hop(ex, kj, vj, fx_rows(free_k, 0, coming), fx_rows(free_v, 0, coming), &t));
        }
        if (rows && ex->group) {
            FX_TRY(add_block(ex, kj, vj, first, !last));
            first = false;
        }
        FX_TRY(fx_comm_wait(ex->comm,
                            &t)); /* the block in hand is sent, the next is here: the two change places */
        fx_tensor hold = k;
        k = free_k;
        free_k = hold;
        hold = v;
        v = free_v;
        free_v = hold;
    }
    return FX_OK;
}
