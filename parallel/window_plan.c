/* The exchange by kernels while planning: the calls of window.c as they would be launched, and what goes between ranks. Nothing
 * is touched. Called by window.c. */
#include "kernels/plan.h"
#include "parallel/comm_plan.h"
#include "parallel/exchange_internal.h"

static const char *const in_label[FX_PARTS] = {"in.v", "in.k", "in.q"};

static size_t row_bytes(const fx_exchange *ex)
{
    return (size_t)(ex->heads * ex->opt.head_dim) * fx_dtype_size(ex->be->dtype);
}

/* Ranks that get a part's rows of this rank: of their heads, in the group or in all groups. */
static bool wants(const fx_exchange *ex, int part, int rank)
{
    return part != FX_PART_Q || rank / ex->opt.mesh.ulysses == ex->ri;
}

static fx_tensor place_of(const fx_exchange *ex, int part, int rank, int segment)
{
    return fx_rows(ex->recv[part], fx_exchange_receive_row(ex, part, rank, segment),
                   ex->layout->part[rank][segment].count);
}

fx_status fx_exchange_window_tell_put(const fx_exchange *ex)
{
    static const int in_order[FX_PARTS] = {FX_PART_Q, FX_PART_K, FX_PART_V};
    fx_plan_op op = {.name = "put"};
    int writes = 0, reads = 0;
    for (int s = 0; s < FX_SEGMENTS; s++) {
        if (!ex->layout->part[ex->me][s].count) continue;
        for (int i = 0; i < FX_PARTS; i++) {
            op.read[reads++] = ex->heard[s][in_order[i]].x;
            op.write[writes++] = place_of(ex, in_order[i], ex->me, s);
        }
        op.read[reads++] = ex->heard[s][FX_PART_Q].cs;
    }
    fx_plan_tell(ex->be, &op);
    for (int p = 0; p < FX_PARTS; p++)
        for (int r = 0; ex->local && r < ex->opt.mesh.ranks; r++)
            if (r != ex->me && wants(ex, p, r))
                fx_comm_plan_store(ex->comm, in_label[p], r, (size_t)ex->local * row_bytes(ex));
    return FX_OK;
}

fx_status fx_exchange_window_tell_wait(const fx_exchange *ex)
{
    for (int r = 0; r < ex->opt.mesh.ranks; r++) {
        fx_xfer place[FX_PARTS * FX_SEGMENTS];
        size_t bytes = 0;
        int n = 0;
        for (int p = 0; r != ex->me && p < FX_PARTS; p++)
            for (int s = 0; s < FX_SEGMENTS; s++) {
                const fx_tensor t = place_of(ex, p, r, s);
                if (!wants(ex, p, r) || !fx_numel(t)) continue;
                place[n++] = (fx_xfer){r, t.data, fx_bytes(t)};
                bytes += fx_bytes(t);
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
            fx_comm_plan_store(ex->comm, "out", r, (size_t)fx_layout_local(ex->layout, r) * row_bytes(ex));
    return FX_OK;
}

fx_status fx_exchange_window_tell_collect(const fx_exchange *ex)
{
    const int first = ex->ri * ex->opt.mesh.ulysses;
    for (int r = first; r < first + ex->opt.mesh.ulysses; r++)
        if (r != ex->me) fx_comm_plan_await(ex->comm, "out", r, (size_t)ex->local * row_bytes(ex), 0, NULL);
    return FX_OK;
}
