/* The exchange by kernels while planning: the calls of window.c as they would be launched, and what goes between ranks. Nothing
 * is touched. Called by window.c. */
#include "kernels/plan.h"
#include "parallel/comm_plan.h"
#include "parallel/exchange_internal.h"

static const char *const in_label[FX_PARTS] = {"in.v", "in.k", "in.q"};
typedef struct room {
    int n;
    fx_tensor at[FX_PARTS];
} room;

static size_t row_bytes(const fx_exchange *ex)
{
    return (size_t)(ex->heads * ex->opt.head_dim) * fx_dtype_size(ex->be->dtype);
}

/* Ranks that get a part's rows of this rank: of their heads, in the group or in all groups. */
static bool wants(const fx_exchange *ex, int part, int rank)
{
    return part != FX_PART_Q || rank / ex->opt.mesh.ulysses == ex->ri;
}

/* Where this rank receives what `rank` has of a segment: q, k and v side by side, or each for itself. */
static room places_of(const fx_exchange *ex, int rank, int segment)
{
    static const int in_order[FX_PARTS] = {FX_PART_Q, FX_PART_K, FX_PART_V};
    const int64_t n = ex->layout->part[rank][segment].count;
    room r = {0};
    if (!n) return r;
    if (fx_present(ex->whole)) {
        r.at[r.n++] = fx_rows(ex->whole, fx_exchange_receive_row(ex, FX_PART_Q, rank, segment), n);
        return r;
    }
    for (int i = 0; i < FX_PARTS; i++) {
        const int p = in_order[i];
        if (p != FX_PART_Q || rank / ex->opt.mesh.ulysses == ex->ri)
            r.at[r.n++] = fx_rows(ex->recv[p], fx_exchange_receive_row(ex, p, rank, segment), n);
    }
    return r;
}

/* A launch of `name` that reads what was put and writes this rank's own rows, and what is staged or nothing. */
static void tell_launch(const fx_exchange *ex, const char *name, fx_tensor staged)
{
    fx_plan_op op = {.name = name};
    int writes = 0, reads = 0;
    for (int s = 0; s < FX_SEGMENTS; s++) {
        const room own = places_of(ex, ex->me, s);
        if (!own.n) continue;
        for (int i = 0; i < own.n; i++) op.write[writes++] = own.at[i];
        for (int p = FX_PARTS; p--;) op.read[reads++] = ex->heard[s][p].x;
        op.read[reads++] = ex->heard[s][FX_PART_Q].cs;
    }
    if (fx_present(staged) && fx_numel(staged)) op.write[writes++] = staged;
    fx_plan_tell(ex->be, &op);
}

static fx_status tell_pack(const fx_exchange *ex)
{
    tell_launch(ex, "pack", ex->staged);
    for (int k = 1; k < ex->opt.mesh.ranks; k++) {
        const int r = (ex->me + k) % ex->opt.mesh.ranks;
        const fx_tensor slot = fx_row(ex->staged, r < ex->me ? r : r - 1);
        fx_comm_plan_store(ex->comm, "in", r, fx_bytes(slot), 1, &(fx_xfer){r, slot.data, fx_bytes(slot)});
    }
    return FX_OK;
}

fx_status fx_exchange_window_tell_put(const fx_exchange *ex)
{
    if (ex->copies) return tell_pack(ex);
    tell_launch(ex, "put", fx_none());
    for (int p = 0; p < FX_PARTS; p++)
        for (int r = 0; ex->local && r < ex->opt.mesh.ranks; r++)
            if (r != ex->me && wants(ex, p, r))
                fx_comm_plan_store(ex->comm, in_label[p], r, (size_t)ex->local * row_bytes(ex), 0, NULL);
    return FX_OK;
}

fx_status fx_exchange_window_tell_wait(const fx_exchange *ex)
{
    for (int r = 0; r < ex->opt.mesh.ranks; r++) {
        fx_xfer place[FX_PARTS * FX_SEGMENTS];
        size_t bytes = 0;
        int n = 0;
        for (int s = 0; r != ex->me && s < FX_SEGMENTS; s++) {
            const room there = places_of(ex, r, s);
            for (int i = 0; i < there.n; i++) {
                place[n++] = (fx_xfer){r, there.at[i].data, fx_bytes(there.at[i])};
                bytes += fx_bytes(there.at[i]);
            }
        }
        fx_comm_plan_await(ex->comm, "in", r, bytes, n, place);
    }
    return FX_OK;
}

fx_status fx_exchange_window_tell_back(const fx_exchange *ex)
{
    const int first = ex->ri * ex->opt.mesh.ulysses;
    const int64_t width = (int64_t)ex->heads * ex->opt.head_dim;
    fx_plan_op op = {.name = "give_back"};
    if (ex->opt.mesh.ulysses > 1 && ex->group) op.read[0] = ex->o_group;
    if (ex->opt.mesh.ulysses > 1) op.write[0] = fx_cols(ex->opt.output, ex->ui * width, width);
    fx_plan_tell(ex->be, &op);
    for (int r = first; r < first + ex->opt.mesh.ulysses; r++)
        if (r != ex->me)
            fx_comm_plan_store(ex->comm, "out", r, (size_t)fx_layout_local(ex->layout, r) * row_bytes(ex), 0,
                               NULL);
    return FX_OK;
}

fx_status fx_exchange_window_tell_collect(const fx_exchange *ex)
{
    const int first = ex->ri * ex->opt.mesh.ulysses;
    for (int r = first; r < first + ex->opt.mesh.ulysses; r++)
        if (r != ex->me) fx_comm_plan_await(ex->comm, "out", r, (size_t)ex->local * row_bytes(ex), 0, NULL);
    if (ex->copies) fx_comm_plan_join(ex->comm, "sent");
    return FX_OK;
}
