/* Ulysses: a rank gives away heads of its rows and gets rows of its heads, an uneven all-to-all inside each
 * group of `ulysses` neighbours; the output goes the reverse way. Rows land in joint order (text | image |
 * condition) directly where attention reads them. DeepSpeed-Ulysses (arXiv 2309.14509) */
#include "parallel/exchange_internal.h"

static int first_of(const fx_exchange *ex, int ring_index)
{
    return ring_index * ex->opt.mesh.ulysses;
}

int64_t fx_exchange_segment_rows(const fx_exchange *ex, int ring_index, int segment)
{
    const fx_range *a = &ex->layout->part[first_of(ex, ring_index)][segment];
    const fx_range *b = &ex->layout->part[first_of(ex, ring_index) + ex->opt.mesh.ulysses - 1][segment];
    return b->begin + b->count - a->begin;
}

int64_t fx_exchange_group_rows(const fx_exchange *ex, int ring_index)
{
    int64_t rows = 0;
    for (int s = 0; s < FX_SEGMENTS; s++) rows += fx_exchange_segment_rows(ex, ring_index, s);
    return rows;
}

/* K and V hold the rows of all ranks where they do not hop, everything else those of one group. */
static bool holds_all(const fx_exchange *ex, int part)
{
    return part != FX_PART_Q && !ex->hops;
}

/* Row of a group's buffer where the rows of `rank` begin: its members' ranges of a segment are neighbours. */
static int64_t group_row(const fx_exchange *ex, int rank, int segment)
{
    int64_t row =
        ex->layout->part[rank][segment].begin - ex->layout->part[first_of(ex, ex->ri)][segment].begin;
    for (int s = 0; s < segment; s++) row += fx_exchange_segment_rows(ex, ex->ri, s);
    return row;
}

int64_t fx_exchange_receive_row(const fx_exchange *ex, int part, int rank, int segment)
{
    return holds_all(ex, part) ? fx_layout_start(ex->layout, segment) + ex->layout->part[rank][segment].begin
                               : group_row(ex, rank, segment);
}

/* Rows of `rank` in a receive buffer. */
static fx_tensor place(const fx_exchange *ex, int part, int rank, int segment)
{
    return fx_rows(ex->recv[part], fx_exchange_receive_row(ex, part, rank, segment),
                   ex->layout->part[rank][segment].count);
}

static fx_tensor output_rows(const fx_exchange *ex, int rank, int segment)
{
    return fx_rows(ex->o_group, group_row(ex, rank, segment), ex->layout->part[rank][segment].count);
}

/* Slot of a peer in a send buffer; this rank itself has none. */
static fx_tensor slot(const fx_exchange *ex, int part, int u)
{
    return fx_row(ex->send[part], u < ex->ui ? u : u - 1); /* [local, heads, D] */
}

static fx_tensor slot_rows(const fx_exchange *ex, int part, int u, int segment)
{
    return fx_rows(slot(ex, part, u), fx_layout_local_start(ex->layout, ex->me, segment),
                   ex->layout->part[ex->me][segment].count);
}

fx_tensor fx_exchange_outgoing(const fx_exchange *ex, int part, int u, int segment)
{
    return u == ex->ui ? place(ex, part, ex->me, segment) : slot_rows(ex, part, u, segment);
}

static void add(fx_xfer *list, int *n, int peer, fx_tensor t)
{
    if (fx_numel(t)) list[(*n)++] = (fx_xfer){peer, t.data, fx_bytes(t)};
}

static const char *const in_label[FX_PARTS][FX_SEGMENTS + 1] = {
    [FX_PART_V] = {"in.v.text", "in.v.image", "in.v.condition", "in.v"},
    [FX_PART_K] = {"in.k.text", "in.k.image", "in.k.condition", "in.k"},
    [FX_PART_Q] = {"in.q.text", "in.q.image", "in.q.condition", "in.q"}};
static const char *const out_label[FX_SEGMENTS + 1] = {"out.text", "out.image", "out.condition", "out"};

fx_status fx_ulysses_start(fx_exchange *ex, int part, int segment, fx_ticket *ticket)
{
    const fx_mesh *m = &ex->opt.mesh;
    const int first = holds_all(ex, part) ? 0 : first_of(ex, ex->ri);
    const int count = holds_all(ex, part) ? m->ranks : m->ulysses;
    int sends = 0, recvs = 0;
    if (count == 1) return FX_OK;
    for (int k = 1; k < count; k++) { /* from the neighbour on, so that not all call on the same rank first */
        const int peer = first + (ex->me - first + k) % count;
        for (int s = 0; s < FX_SEGMENTS; s++) {
            if (segment != FX_ALL && segment != s) continue;
            add(ex->in, &recvs, peer, place(ex, part, peer, s));
            add(ex->out, &sends, peer, fx_exchange_outgoing(ex, part, peer % m->ulysses, s));
        }
    }
    fx_comm_label(ex->comm, in_label[part][segment]);
    return fx_comm_transfer(ex->comm, sends, ex->out, recvs, ex->in, ticket);
}

static fx_status return_segments(fx_exchange *ex, int segment, fx_ticket *ticket)
{
    const fx_mesh *m = &ex->opt.mesh;
    const int first = first_of(ex, ex->ri);
    int sends = 0, recvs = 0;
    for (int k = 1; k < m->ulysses; k++) {
        const int u = (ex->ui + k) % m->ulysses, peer = first + u;
        for (int s = 0; s < FX_SEGMENTS; s++) {
            if (segment != FX_ALL && segment != s) continue;
            add(ex->out, &sends, peer, output_rows(ex, peer, s));
            add(ex->in, &recvs, peer, slot_rows(ex, FX_PART_Q, u, s));
        }
    }
    fx_comm_label(ex->comm, out_label[segment]);
    return fx_comm_transfer(ex->comm, sends, ex->out, recvs, ex->in, ticket);
}

fx_status fx_ulysses_return(fx_exchange *ex)
{
    if (!ex->apart) return return_segments(ex, FX_ALL, &ex->o_ticket[FX_ALL]);
    for (int s = 0; s < FX_SEGMENTS; s++) FX_TRY(return_segments(ex, s, &ex->o_ticket[s]));
    return FX_OK;
}

/* This rank's own rows, while the others' travel. */
static fx_status collect_own(fx_exchange *ex, int segment)
{
    const int64_t width = (int64_t)ex->heads * ex->opt.head_dim;
    for (int s = 0; s < FX_SEGMENTS; s++) {
        if (segment != FX_ALL && segment != s) continue;
        const fx_tensor mine = output_rows(ex, ex->me, s);
        const fx_tensor to =
            fx_rows(ex->opt.output, fx_layout_local_start(ex->layout, ex->me, s), mine.shape[0]);
        FX_TRY(fx_copy(ex->be, fx_cols(to, ex->ui * width, width), fx_flat(mine), 1, 0));
    }
    return FX_OK;
}

fx_status fx_ulysses_collect(fx_exchange *ex, int segment)
{
    const int64_t width = (int64_t)ex->heads * ex->opt.head_dim;
    const bool all = segment == FX_ALL;
    const int64_t begin = all ? 0 : fx_layout_local_start(ex->layout, ex->me, segment),
                  count = all ? ex->local : ex->layout->part[ex->me][segment].count;
    FX_TRY(collect_own(ex, segment));
    for (int s = 0; s <= FX_ALL; s++) /* none is pending twice */
        if (all || s == segment || s == FX_ALL) FX_TRY(fx_comm_wait(ex->comm, &ex->o_ticket[s]));
    for (int u = 0; count && u < ex->opt.mesh.ulysses; u++) {
        if (u == ex->ui) continue;
        const fx_tensor from = fx_rows(slot(ex, FX_PART_Q, u), begin, count);
        FX_TRY(fx_copy(ex->be, fx_cols(fx_rows(ex->opt.output, begin, count), u * width, width),
                       fx_flat(from), 1, 0));
    }
    return FX_OK;
}
