/* The exchange: put my rows of q, k, v -> attend -> my rows of the output. This file keeps the order of the
 * calls and owns the buffers; ulysses.c moves rows <-> heads, ring.c lets K/V hop, window.c does without transfers. On one
 * rank put writes straight into q, k, v and attention into the output, and nothing else happens. */
#include "parallel/exchange_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const part_name[FX_PARTS] = {"v", "k", "q"};
static const unsigned part_bit[FX_PARTS] = {FX_V, FX_K, FX_Q};

float fx_exchange_scale(const fx_exchange *ex)
{
    return 1.0f / sqrtf((float)ex->opt.head_dim);
}
bool fx_exchange_exact(const fx_exchange *ex)
{
    return ex->exact;
}
bool fx_exchange_repeats(const fx_exchange *ex)
{
    return ex->opt.mesh.ranks == 1 || ex->window;
}

bool fx_exchange_hides(const fx_exchange *ex)
{
    return ex->opt.mesh.ranks > 1 && !fx_exchange_window_possible(ex);
}

/* ---- open: all buffers, once ---- */

static fx_status push_rows(fx_exchange *ex, fx_dtype dtype, int64_t rows, fx_tensor *out)
{
    return fx_push3(ex->be->arena, dtype, rows, ex->heads, ex->opt.head_dim, out);
}

static fx_status push_ring(fx_exchange *ex, int64_t largest)
{
    const fx_dtype sum = ex->be->stream;
    FX_TRY(push_rows(ex, ex->be->dtype, largest, &ex->next_k));
    FX_TRY(push_rows(ex, ex->be->dtype, largest, &ex->next_v));
    if (fx_present(ex->o_group) && sum == ex->be->dtype)
        ex->o_sum = ex->o_group; /* no cast at the end */
    else
        FX_TRY(push_rows(ex, sum, ex->group, &ex->o_sum));
    FX_TRY(push_rows(ex, ex->be->coarse_parts ? ex->be->dtype : sum, ex->group, &ex->o_one));
    FX_TRY(fx_push2(ex->be->arena, sum, ex->heads, ex->group, &ex->lse_sum));
    return fx_push2(ex->be->arena, sum, ex->heads, ex->group, &ex->lse_one);
}

static fx_status push_send(fx_exchange *ex)
{
    const int64_t peers = ex->opt.mesh.ulysses - 1,
                  shape[4] = {FX_PARTS * peers, ex->local, ex->heads, ex->opt.head_dim};
    fx_tensor all;
    FX_TRY(fx_push(ex->be->arena, ex->be->dtype, 4, shape, &all));
    for (int p = 0; p < FX_PARTS; p++) ex->send[p] = fx_rows(all, p * peers, peers);
    return push_rows(ex, ex->be->dtype, ex->group, &ex->o_group);
}

static fx_status push_group(fx_exchange *ex)
{
    fx_tensor all;
    FX_TRY(push_rows(ex, ex->be->dtype, FX_PARTS * ex->group, &all));
    for (int p = 0; p < FX_PARTS; p++) ex->recv[p] = fx_rows(all, p * ex->group, ex->group);
    return push_send(ex);
}

void fx_exchange_side_by_side(fx_exchange *ex)
{
    static const int at[FX_PARTS] = {[FX_PART_Q] = 0, [FX_PART_K] = 1, [FX_PART_V] = 2};
    const int64_t heads = ex->heads,
                  staged[4] = {ex->opt.mesh.ulysses - 1, ex->local, FX_PARTS * heads, ex->opt.head_dim};
    if (ex->opt.mesh.ring > 1) return;
    ex->whole = fx_view3(ex->recv[0].data, ex->be->dtype, ex->group, FX_PARTS * heads, ex->opt.head_dim);
    ex->staged = fx_view(ex->send[0].data, ex->be->dtype, 4, staged); /* part 0 is the first */
    for (int p = 0; p < FX_PARTS; p++) ex->recv[p] = fx_slice(ex->whole, 1, at[p] * heads, heads);
}

static fx_status push_buffers(fx_exchange *ex)
{
    const fx_mesh *m = &ex->opt.mesh;
    int64_t keys = ex->hops ? 0 : fx_layout_total(ex->layout); /* rows of the K and V buffers */
    for (int g = 0; ex->hops && g < m->ring; g++) {
        const int64_t rows = fx_exchange_group_rows(ex, g);
        if (rows > keys) keys = rows;
    }
    if (m->ring == 1 && m->ranks > 1) return push_group(ex);
    if (m->ranks == 1) { /* side by side, as one matrix product makes them (fx_exchange_place) */
        const int64_t width = (int64_t)ex->opt.heads * ex->opt.head_dim;
        fx_tensor all;
        FX_TRY(fx_push2(ex->be->arena, ex->be->dtype, keys, FX_PARTS * width, &all));
        ex->recv[FX_PART_Q] = fx_heads(fx_cols(all, 0, width), ex->heads);
        ex->recv[FX_PART_K] = fx_heads(fx_cols(all, width, width), ex->heads);
        ex->recv[FX_PART_V] = fx_heads(fx_cols(all, 2 * width, width), ex->heads);
        return FX_OK;
    }
    FX_TRY(push_rows(ex, ex->be->dtype, ex->group, &ex->recv[FX_PART_Q]));
    FX_TRY(push_rows(ex, ex->be->dtype, keys, &ex->recv[FX_PART_K]));
    FX_TRY(push_rows(ex, ex->be->dtype, keys, &ex->recv[FX_PART_V]));
    if (m->ulysses > 1) FX_TRY(push_send(ex));
    return ex->hops ? push_ring(ex, keys) : FX_OK;
}

static fx_status check_output(const fx_backend *be, int64_t rows, const fx_exchange_options *o)
{
    const fx_tensor t = o->output;
    const int64_t width = (int64_t)o->heads * o->head_dim;
    FX_CHECK(t.ndim == 2 && t.shape[0] == rows && t.shape[1] == width && t.dtype == be->dtype, FX_ESHAPE,
             "exchange: an output of [%lld,%lld] %s, want [%lld,%lld] %s", (long long)t.shape[0],
             (long long)t.shape[1], fx_dtype_name(t.dtype), (long long)rows, (long long)width,
             fx_dtype_name(be->dtype));
    return FX_OK;
}

static fx_status check_open(const fx_backend *be, const fx_comm *comm, const fx_layout *l,
                            const fx_exchange_options *o)
{
    const fx_mesh *m = &o->mesh;
    FX_CHECK(be->arena, FX_ESHAPE, "exchange: the backend has no arena");
    FX_CHECK(m->ulysses >= 1 && m->ring >= 1 && m->ulysses * m->ring == m->ranks, FX_ESHAPE,
             "exchange: mesh %d x %d of %d ranks", m->ulysses, m->ring, m->ranks);
    FX_CHECK(fx_comm_size(comm) == m->ranks && l->ranks == m->ranks, FX_ESHAPE,
             "exchange: mesh of %d ranks, layout of %d, communicator of %d", m->ranks, l->ranks,
             fx_comm_size(comm));
    FX_CHECK(fx_comm_planning(comm) == fx_planning(be), FX_ESHAPE,
             "exchange: a plan takes a plan communicator and backend, a run neither");
    FX_CHECK(o->heads >= 1 && o->head_dim >= 1 && o->heads % m->ulysses == 0, FX_ESHAPE,
             "exchange: %d heads of %d over ulysses %d", o->heads, o->head_dim, m->ulysses);
    return check_output(be, fx_layout_local(l, fx_comm_rank(comm)), o);
}

/* For measurements, and for tests, whose rows are few. */
static int wanted_copies(void)
{
    const char *text = getenv("FLUXPAR_COPIES");
    return !text ? -1 : !strcmp(text, "0") ? 0 : !strcmp(text, "1") ? 1 : -1;
}

fx_status fx_exchange_open(fx_backend *be, fx_comm *comm, const fx_layout *layout,
                           const fx_exchange_options *opt, fx_exchange **out)
{
    *out = NULL;
    FX_TRY(check_open(be, comm, layout, opt));
    const fx_mesh *m = &opt->mesh;
    fx_exchange *ex = calloc(1, sizeof *ex);
    FX_CHECK(ex, FX_ENOMEM, "no memory for an exchange");
    *ex = (fx_exchange){.be = be,
                        .comm = fx_comm_rows(comm),
                        .host = comm,
                        .layout = layout,
                        .opt = *opt,
                        .me = fx_comm_rank(comm),
                        .want_copies = wanted_copies()};
    ex->exact = m->ring == 1 || opt->exact != FX_EXACT_OFF;
    ex->hops = !ex->exact;
    ex->ui = ex->me % m->ulysses;
    ex->ri = ex->me / m->ulysses;
    ex->heads = opt->heads / m->ulysses;
    ex->local = fx_layout_local(layout, ex->me);
    ex->group = fx_exchange_group_rows(ex, ex->ri);
    for (int s = 0; s <= FX_ALL; s++)
        ex->o_ticket[s] = ex->ticket[FX_PART_V][s] = ex->ticket[FX_PART_K][s] = ex->ticket[FX_PART_Q][s] =
            (fx_ticket){-1, 0};
    ex->out = calloc(2 * FX_SEGMENTS * (size_t)m->ranks, sizeof *ex->out);
    fx_status st = ex->out ? push_buffers(ex) : FX_FAIL(FX_ENOMEM, "no memory for an exchange");
    if (!st) st = fx_exchange_window_open(ex);
    if (st != FX_OK) {
        fx_exchange_close(&ex);
        return st;
    }
    ex->in = ex->out + FX_SEGMENTS * m->ranks;
    *out = ex;
    return FX_OK;
}

void fx_exchange_close(fx_exchange **ex)
{
    if (!ex || !*ex) return;
    fx_exchange_window_close(*ex);
    free((*ex)->out);
    free(*ex);
    *ex = NULL;
}

/* ---- put ---- */

void fx_exchange_beside(fx_exchange *ex)
{
    ex->beside = true;
}

/* Rows of all ranks. */
static int64_t segment_total(const fx_layout *l, int segment)
{
    const fx_range last = l->part[l->ranks - 1][segment];
    return last.begin + last.count;
}

fx_tensor fx_exchange_place(const fx_exchange *ex, int seg, unsigned parts)
{
    const bool with_q = parts & FX_Q, with_kv = (parts & (FX_K | FX_V)) == (FX_K | FX_V);
    if (ex->opt.mesh.ranks > 1 || (parts != FX_Q && !with_kv)) return fx_none();
    const int64_t begin = seg == FX_ALL ? 0 : fx_layout_local_start(ex->layout, ex->me, seg),
                  count = seg == FX_ALL ? ex->local : ex->layout->part[ex->me][seg].count;
    fx_tensor t = fx_flat(fx_rows(ex->recv[with_q ? FX_PART_Q : FX_PART_K], begin, count));
    t.shape[1] *= (with_q ? 1 : 0) + (with_kv ? 2 : 0); /* K's columns follow Q's, V's follow K's */
    return t;
}

/* One part of one segment, or on one rank of all: normalise, rotate and pack in one pass, head slice by head slice.
 * x[rows, H, D]. */
static fx_status pack(fx_exchange *ex, int segment, int part, fx_tensor x, fx_tensor w, fx_tensor cs)
{
    for (int u = 0; u < ex->opt.mesh.ulysses; u++) {
        const fx_tensor from = fx_slice(x, 1, (int64_t)u * ex->heads, ex->heads);
        const fx_tensor to = segment == FX_ALL ? ex->recv[part] : fx_exchange_outgoing(ex, part, u, segment);
        if (part == FX_PART_V && to.data == from.data) continue; /* computed in place */
        if (part == FX_PART_V)
            FX_TRY(fx_copy(ex->be, to, from, 1, 0));
        else
            FX_TRY(fx_qk_norm_rope(ex->be, to, from, w, cs, ex->opt.qk_eps));
    }
    return FX_OK;
}

/* The columns of a part in t, whose parts lie in the order q | k | v. */
static fx_tensor columns(const fx_exchange *ex, unsigned parts, int part, fx_tensor t)
{
    const int64_t width = (int64_t)ex->opt.heads * ex->opt.head_dim;
    int before = 0;
    for (unsigned bit = FX_Q; bit < part_bit[part]; bit <<= 1) before += (parts & bit) != 0;
    return fx_heads(fx_cols(t, before * width, width), ex->opt.heads);
}

static fx_status note(fx_exchange *ex, int segment, unsigned parts)
{
    const unsigned these = segment == FX_ALL ? (1u << FX_SEGMENTS) - 1 : 1u << segment;
    for (int p = 0; p < FX_PARTS; p++) {
        if (!(parts & part_bit[p])) continue;
        FX_CHECK(!(ex->put_done[p] & these), FX_ESHAPE, "exchange: %s of segment %d was put twice",
                 part_name[p], segment);
        ex->put_done[p] |= these;
    }
    return FX_OK;
}

static fx_status put_segment(fx_exchange *ex, int segment, unsigned parts, fx_tensor t, fx_tensor w_q,
                             fx_tensor w_k, fx_tensor cs)
{
    for (int p = 0; p < FX_PARTS; p++) {
        if ((parts & part_bit[p]) && t.shape[0])
            FX_TRY(pack(ex, segment, p, columns(ex, parts, p, t), p == FX_PART_Q ? w_q : w_k, cs));
    }
    return FX_OK;
}

/* All parts of all segments that any rank has rows of. */
static bool all_put(const fx_exchange *ex)
{
    for (int p = 0; p < FX_PARTS; p++)
        for (int s = 0; s < FX_SEGMENTS; s++)
            if (!(ex->put_done[p] & 1u << s) && segment_total(ex->layout, s)) return false;
    return true;
}

static fx_status put_by_kernel(fx_exchange *ex, int segment, unsigned parts, fx_tensor t, fx_tensor w_q,
                               fx_tensor w_k, fx_tensor cs)
{
    fx_tensor x[FX_PARTS];
    const bool last = all_put(ex) && !ex->brought;
    for (int p = 0; p < FX_PARTS; p++) x[p] = parts & part_bit[p] ? columns(ex, parts, p, t) : fx_none();
    FX_TRY(fx_exchange_window_put(ex, segment, x, w_q, w_k, cs, last));
    ex->brought = ex->brought || last;
    return FX_OK;
}

static fx_status start(fx_exchange *ex, int segment, unsigned parts)
{
    for (int p = 0; p < FX_PARTS; p++)
        if (parts & part_bit[p]) FX_TRY(fx_ulysses_start(ex, p, segment, &ex->ticket[p][segment]));
    return FX_OK;
}

fx_status fx_exchange_put(fx_exchange *ex, int seg, unsigned parts, fx_tensor t, fx_tensor w_q, fx_tensor w_k,
                          fx_tensor cs)
{
    const int n = ((parts & FX_Q) != 0) + ((parts & FX_K) != 0) + ((parts & FX_V) != 0);
    const int64_t width = (int64_t)n * ex->opt.heads * ex->opt.head_dim;
    FX_CHECK(!ex->attended, FX_ESHAPE, "exchange: put before the last block was collected");
    FX_CHECK(seg >= 0 && seg <= FX_ALL && n && parts <= (FX_Q | FX_K | FX_V), FX_ESHAPE,
             "exchange: put of segment %d, parts %u", seg, parts);
    const int64_t rows = seg == FX_ALL ? ex->local : ex->layout->part[ex->me][seg].count;
    FX_CHECK(t.ndim == 2 && t.shape[0] == rows && t.shape[1] == width && t.dtype == ex->be->dtype, FX_ESHAPE,
             "exchange: put of [%lld,%lld] %s, want [%lld,%lld] %s", (long long)t.shape[0],
             (long long)t.shape[1], fx_dtype_name(t.dtype), (long long)rows, (long long)width,
             fx_dtype_name(ex->be->dtype));
    FX_TRY(fx_exchange_window_open(ex));
    FX_TRY(note(ex, seg, parts));
    if (ex->window) return put_by_kernel(ex, seg, parts, t, w_q, w_k, cs);
    if (seg == FX_ALL && ex->opt.mesh.ranks == 1) return put_segment(ex, FX_ALL, parts, t, w_q, w_k, cs);
    for (int s = 0; s < FX_SEGMENTS; s++) {
        if (seg != FX_ALL && s != seg) continue;
        const int64_t begin = seg == FX_ALL ? fx_layout_local_start(ex->layout, ex->me, s) : 0;
        const int64_t count = ex->layout->part[ex->me][s].count;
        const fx_tensor turn = fx_present(cs) && count ? fx_rows(cs, begin, count) : cs;
        FX_TRY(put_segment(ex, s, parts, fx_rows(t, begin, count), w_q, w_k, turn));
    }
    return start(ex, seg, parts);
}

/* ---- attend and collect ---- */

/* Attention of the group's queries: this rank's heads of their rows, to be given back; with ulysses 1 its own rows. */
static fx_status compute_output(fx_exchange *ex)
{
    const fx_tensor o = ex->opt.mesh.ulysses > 1 ? ex->o_group : fx_heads(ex->opt.output, ex->opt.heads);
    if (!ex->group) return FX_OK;
    if (!ex->hops)
        return fx_attention(ex->be, o, fx_none(), ex->recv[FX_PART_Q], ex->recv[FX_PART_K],
                            ex->recv[FX_PART_V], fx_none(), fx_exchange_scale(ex));
    return ex->o_sum.data == o.data ? FX_OK
                                    : fx_copy(ex->be, o, ex->o_sum, 1, 0); /* summed in place or not */
}

fx_status fx_exchange_attend(fx_exchange *ex, bool apart)
{
    FX_CHECK(!ex->attended, FX_ESHAPE, "exchange: attend twice without collect");
    for (int p = 0; p < FX_PARTS; p++)
        for (int s = 0; s < FX_SEGMENTS; s++)
            FX_CHECK(ex->put_done[p] & 1u << s || !segment_total(ex->layout, s), FX_ESHAPE,
                     "exchange: attend without %s of segment %d", part_name[p], s);
    if (ex->window && !ex->brought) { /* no rows at all */
        const fx_tensor none[FX_PARTS] = {{0}};
        FX_TRY(fx_exchange_window_put(ex, FX_ALL, none, fx_none(), fx_none(), fx_none(), true));
    }
    for (int p = 0; p < FX_PARTS; p++) /* none, where rows go by kernels */
        for (int s = 0; s <= FX_ALL; s++) FX_TRY(fx_comm_wait(ex->comm, &ex->ticket[p][s]));
    if (ex->window) FX_TRY(fx_exchange_window_wait(ex));
    ex->attended = true;
    ex->apart = apart;
    if (ex->hops) FX_TRY(fx_ring_attend(ex));
    FX_TRY(compute_output(ex));
    if (ex->window) return fx_exchange_window_return(ex);
    return ex->opt.mesh.ulysses > 1 ? fx_ulysses_return(ex) : FX_OK;
}

/* The last of a block: ready for the next. */
static void end_block(fx_exchange *ex)
{
    ex->attended = ex->brought = ex->beside = ex->copies = false;
    ex->collected = 0;
    for (int p = 0; p < FX_PARTS; p++) ex->put_done[p] = 0;
}

/* What other ranks of the group computed. */
static fx_status collect_rows(fx_exchange *ex, int seg)
{
    if (ex->window) return ex->collected ? FX_OK : fx_exchange_window_collect(ex);
    if (seg != FX_ALL || !ex->collected) return fx_ulysses_collect(ex, seg);
    for (int s = 0; s < FX_SEGMENTS; s++)
        if (!(ex->collected & 1u << s)) FX_TRY(fx_ulysses_collect(ex, s));
    return FX_OK;
}

fx_status fx_exchange_collect(fx_exchange *ex, int seg)
{
    FX_CHECK(ex->attended, FX_ESHAPE, "exchange: collect before attend");
    FX_CHECK(seg >= 0 && seg <= FX_ALL && (seg == FX_ALL || !(ex->collected & 1u << seg)), FX_ESHAPE,
             "exchange: collect of segment %d, a second time or not one", seg);
    if (ex->opt.mesh.ulysses > 1) FX_TRY(collect_rows(ex, seg));
    if (seg == FX_ALL)
        end_block(ex);
    else
        ex->collected |= 1u << seg;
    return FX_OK;
}
