/* The exchange by kernels (kernels/window.h) instead of transfers, where devices reach each other's memory and K/V do not hop:
 * rows go from the caller's tensors straight to where other ranks read them, and no call waits for the host. Addresses are
 * told once, at the first put after the memory was registered. */
#include "kernels/window.h"

#include <stdlib.h>
#include <string.h>

#include "parallel/comm_internal.h"
#include "parallel/exchange_internal.h"
#include "runtime/core/clock.h"

enum { CTAS = 528 }; /* of a kernel: four per processor of an H100 */
static const int part_of[FX_WINDOW_PARTS] = {
    [FX_WINDOW_Q] = FX_PART_Q, [FX_WINDOW_K] = FX_PART_K, [FX_WINDOW_V] = FX_PART_V};

/* Copy engines cost a fork and a join of streams, and each copy its start, where a kernel moves small rows in less. */
enum { COPIES_FROM = 6 << 20 }; /* bytes of q, k and v that a rank sends in a block */

struct fx_exchange_window {
    fx_window w;
    const fx_window_owner *owners; /* of the group's output; on the device */
    int n_owners;
    fx_exchange_copies copies;
};

/* Where a rank receives: offsets in its registered memory. */
typedef struct places {
    uint64_t recv[FX_WINDOW_PARTS], output;
    int64_t output_row;
} places;

/* As tables lie on the device. */
typedef struct tables {
    void *all;
    size_t bytes;
    uint16_t **recv, **output;
    uint32_t **counters;
    fx_window_owner *owners;
} tables;

static tables lay_out(void *all, int ranks, int ulysses)
{
    tables t = {.all = all};
    t.owners = all;
    t.recv = (uint16_t **)(t.owners + FX_SEGMENTS * ulysses);
    t.output = t.recv + FX_WINDOW_PARTS * ranks;
    t.counters = (uint32_t **)(t.output + ranks);
    t.bytes = (size_t)((char *)(t.counters + ranks) - (char *)all);
    return t;
}

/* ---- open ---- */

bool fx_exchange_kernels(const fx_backend *be, fx_comm *comm)
{
    return fx_comm_rows(comm)->reach && fx_window_kernels(be);
}

bool fx_exchange_window_possible(const fx_exchange *ex)
{
    if (ex->hops || ex->comm->size == 1 || ex->opt.head_dim % 8) return false;
    if (fx_planning(ex->be)) return ex->opt.by_kernels;
    return ex->comm->reach && ex->comm->reach->base && fx_window_kernels(ex->be);
}

static fx_status tell_places(const fx_exchange *ex, places *all)
{
    const int ranks = ex->opt.mesh.ranks;
    const char *base = ex->comm->reach->base;
    places mine = {.output = (uint64_t)((char *)ex->opt.output.data - base),
                   .output_row = ex->opt.output.stride[0]};
    for (int p = 0; p < FX_WINDOW_PARTS; p++)
        mine.recv[p] = (uint64_t)((char *)ex->recv[part_of[p]].data - base);
    size_t *where = calloc(2 * (size_t)ranks, sizeof *where);
    FX_CHECK(where, FX_ENOMEM, "no memory for the addresses of %d ranks", ranks);
    for (int r = 0; r < ranks; r++) where[r] = sizeof mine, where[ranks + r] = (size_t)r * sizeof mine;
    const fx_status st = fx_comm_all_gather(ex->host, &mine, all, where, where + ranks);
    free(where);
    return st;
}

/* All ranks count from nothing: after what an earlier exchange had under way, before anything of this one. */
static fx_status count_from_zero(const fx_exchange *ex)
{
    const fx_reach *reach = ex->comm->reach;
    const int64_t words = FX_WINDOW_COUNTERS * (int64_t)ex->opt.mesh.ranks;
    uint32_t *zero = calloc((size_t)(words > FX_WINDOW_STATE ? words : FX_WINDOW_STATE), sizeof *zero);
    FX_CHECK(zero, FX_ENOMEM, "no memory for counters");
    fx_status st = fx_comm_settle(ex->host);
    if (!st) st = fx_sync(ex->be);
    if (!st) st = fx_comm_barrier(ex->host);
    if (!st) st = fx_upload(ex->be, fx_view1(reach->counters[ex->me], FX_I32, words), zero);
    if (!st) st = fx_upload(ex->be, fx_view1(reach->state, FX_I32, FX_WINDOW_STATE), zero);
    if (!st) st = fx_sync(ex->be);
    free(zero);
    return st;
}

static int list_owners(const fx_exchange *ex, fx_window_owner *out)
{
    const int ulysses = ex->opt.mesh.ulysses, first = ex->ri * ulysses;
    int n = 0;
    int64_t row = 0;
    for (int s = 0; s < FX_SEGMENTS; s++)
        for (int r = first; r < first + ulysses; r++) {
            const int64_t count = ex->layout->part[r][s].count;
            if (count) out[n++] = (fx_window_owner){row, count, fx_layout_local_start(ex->layout, r, s), r};
            row += count;
        }
    return n;
}

static fx_status fill_tables(fx_exchange *ex, const places *all, void *room)
{
    const fx_reach *reach = ex->comm->reach;
    const fx_mesh *m = &ex->opt.mesh;
    const tables t = lay_out(room, m->ranks, m->ulysses),
                 there = lay_out(reach->tables, m->ranks, m->ulysses);
    FX_CHECK(t.bytes <= FX_REACH_TABLES * (size_t)m->ranks, FX_ENOMEM, "exchange: tables of %zu bytes",
             t.bytes);
    for (int r = 0; r < m->ranks; r++) {
        FX_CHECK(all[r].output_row == all[0].output_row, FX_ESHAPE,
                 "exchange: rows of the output are %lld apart on rank %d and %lld on rank 0",
                 (long long)all[r].output_row, r, (long long)all[0].output_row);
        for (int p = 0; p < FX_WINDOW_PARTS; p++)
            t.recv[p * m->ranks + r] = (uint16_t *)(void *)(reach->bases[r] + all[r].recv[p]);
        t.output[r] = (uint16_t *)(void *)(reach->bases[r] + all[r].output);
        t.counters[r] = reach->counters[r];
    }
    ex->window->n_owners = list_owners(ex, t.owners);
    ex->window->owners = there.owners;
    ex->window->w = (fx_window){.ranks = m->ranks,
                                .ulysses = m->ulysses,
                                .me = ex->me,
                                .heads = ex->opt.heads,
                                .head_dim = ex->opt.head_dim,
                                .recv = there.recv,
                                .recv_row = ex->recv[0].stride[0],
                                .output = there.output,
                                .output_row = all[0].output_row,
                                .counters = there.counters,
                                .state = reach->state,
                                .late = reach->late,
                                .limit_ns = fx_limit_ns(ex->comm->family->timeout_s),
                                .ctas = CTAS};
    FX_TRY(fx_upload(ex->be, fx_view1(reach->tables, FX_U8, (int64_t)t.bytes), room));
    FX_TRY(fx_sync(ex->be));
    if (!fx_present(ex->whole)) return FX_OK;
    return fx_exchange_list_copies(ex, &ex->window->w, t.recv + FX_WINDOW_Q * m->ranks, reach->counters,
                                   &ex->window->copies);
}

fx_status fx_exchange_window_open(fx_exchange *ex)
{
    if (ex->window || !fx_exchange_window_possible(ex)) return FX_OK;
    if (fx_planning(ex->be)) { /* nobody to tell */
        ex->window = calloc(1, sizeof *ex->window);
        FX_CHECK(ex->window, FX_ENOMEM, "no memory for an exchange");
        fx_exchange_side_by_side(ex);
        return FX_OK;
    }
    const size_t ranks = (size_t)ex->opt.mesh.ranks;
    places *all = calloc(ranks, sizeof *all);
    void *room = calloc(ranks, FX_REACH_TABLES);
    ex->window = calloc(1, sizeof *ex->window);
    fx_status st = all && room && ex->window ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for an exchange");
    fx_exchange_side_by_side(ex);
    if (!st) st = count_from_zero(ex);
    if (!st) st = tell_places(ex, all); /* nobody has all places before all have zeroed */
    if (!st) st = fill_tables(ex, all, room);
    free(all);
    free(room);
    return st;
}

void fx_exchange_window_close(fx_exchange *ex)
{
    if (ex->window) free(ex->window->copies.list);
    free(ex->window);
    ex->window = NULL;
}

/* ---- a block ---- */

/* Rows of this rank's width, to other ranks. */
static void count_rows(const fx_exchange *ex, int64_t rows)
{
    fx_comm_note_sent(ex->comm,
                      (uint64_t)(rows * ex->heads * ex->opt.head_dim) * fx_dtype_size(ex->be->dtype));
}

static void hear(fx_exchange *ex, int segment, const fx_tensor x[FX_PARTS], fx_tensor w_q, fx_tensor w_k,
                 fx_tensor cs)
{
    for (int s = 0; s < FX_SEGMENTS; s++) {
        const int64_t count = ex->layout->part[ex->me][s].count,
                      begin = segment == FX_ALL ? fx_layout_local_start(ex->layout, ex->me, s) : 0;
        for (int p = 0; p < FX_PARTS; p++)
            if (fx_present(x[p]) && count && (segment == FX_ALL || s == segment))
                ex->heard[s][p] = (fx_exchange_part){fx_rows(x[p], begin, count), p == FX_PART_Q ? w_q : w_k,
                                                     fx_present(cs) ? fx_rows(cs, begin, count) : cs};
    }
}

static fx_status bring(fx_exchange *ex)
{
    fx_window_run run[FX_SEGMENTS];
    int n = 0;
    for (int s = 0; s < FX_SEGMENTS; s++) {
        const fx_exchange_part *part = ex->heard[s];
        if (!ex->layout->part[ex->me][s].count) continue;
        run[n++] = (fx_window_run){.x = {part[FX_PART_Q].x, part[FX_PART_K].x, part[FX_PART_V].x},
                                   .w_q = part[FX_PART_Q].w,
                                   .w_k = part[FX_PART_K].w,
                                   .cs = part[FX_PART_Q].cs,
                                   .local_row = fx_layout_local_start(ex->layout, ex->me, s),
                                   .q_row = fx_exchange_receive_row(ex, FX_PART_Q, ex->me, s),
                                   .kv_row = fx_exchange_receive_row(ex, FX_PART_K, ex->me, s)};
    }
    const fx_exchange_window *x = ex->window;
    if (!ex->copies) return fx_window_put(ex->be, &x->w, run, n, ex->opt.qk_eps);
    FX_TRY(fx_window_pack(ex->be, &x->w, run, n, ex->opt.qk_eps, ex->staged));
    return fx_window_send(ex->be, x->copies.list, x->copies.n);
}

bool fx_exchange_by_copies(const fx_exchange *ex)
{
    const int64_t values = FX_PARTS * ex->local * ex->heads * ex->opt.head_dim * (ex->opt.mesh.ulysses - 1);
    if (!ex->beside || !fx_present(ex->whole)) return false;
    return ex->want_copies >= 0 ? ex->want_copies
                                : values * (int64_t)fx_dtype_size(ex->be->dtype) >= COPIES_FROM;
}

fx_status fx_exchange_window_put(fx_exchange *ex, int segment, const fx_tensor x[FX_PARTS], fx_tensor w_q,
                                 fx_tensor w_k, fx_tensor cs, bool last)
{
    const fx_mesh *m = &ex->opt.mesh;
    for (int p = 0; p < FX_PARTS; p++) /* copies of one rank's heads: q to the group, k and v to all */
        if (fx_present(x[p])) count_rows(ex, x[p].shape[0] * ((p == FX_PART_Q ? m->ulysses : m->ranks) - 1));
    hear(ex, segment, x, w_q, w_k, cs);
    if (!last) return FX_OK;
    ex->copies = fx_exchange_by_copies(ex);
    return fx_planning(ex->be) ? fx_exchange_window_tell_put(ex) : bring(ex);
}

fx_status fx_exchange_window_wait(fx_exchange *ex)
{
    if (fx_planning(ex->be)) return fx_exchange_window_tell_wait(ex);
    return fx_window_wait(ex->be, &ex->window->w, FX_LATE_ROWS);
}

fx_status fx_exchange_window_return(fx_exchange *ex)
{
    const fx_exchange_window *x = ex->window;
    if (ex->opt.mesh.ulysses > 1) count_rows(ex, ex->group - ex->local);
    if (fx_planning(ex->be)) return fx_exchange_window_tell_back(ex);
    return fx_window_give_back(ex->be, &x->w, ex->o_group, x->owners, x->n_owners);
}

fx_status fx_exchange_window_collect(fx_exchange *ex)
{
    if (fx_planning(ex->be)) return fx_exchange_window_tell_collect(ex);
    FX_TRY(fx_window_wait(ex->be, &ex->window->w, FX_LATE_OUTPUT));
    /* what was sent may be overwritten */
    return ex->copies ? fx_window_join(ex->be) : FX_OK;
}
