/* The exchange by kernels while planning: the calls of window.c as they would be launched, and what goes between ranks. Nothing
 * is touched. Called by window.c. */
#include "kernels/plan.h"
#include "parallel/comm_plan.h"
#include "parallel/exchange_internal.h"

static const char *const in_label[FX_PARTS] = {"in.v", "in.k", "in.q"};
static const char *const out_label[FX_SEGMENTS + 1] = {"out.text", "out.image", "out.condition", "out"};

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

fx_status fx_exchange_window_tell_put(const fx_exchange *ex, int segment, const fx_tensor x[FX_PARTS],
                                      fx_tensor cs)
{
    fx_plan_op op = {.name = "put", .read = {x[FX_PART_Q], x[FX_PART_K], x[FX_PART_V], cs}};
    int writes = 0;
    for (int p = 0; p < FX_PARTS; p++)
        for (int s = 0; s < FX_SEGMENTS; s++)
            if (fx_present(x[p]) && (segment == FX_ALL || s == segment) &&
                ex->layout->part[ex->me][s].count && writes < FX_PLAN_WRITES)
                op.write[writes++] = place_of(ex, p, ex->me, s);
    fx_plan_tell(ex->be, &op);
    for (int p = 0; p < FX_PARTS; p++)
        for (int r = 0; fx_present(x[p]) && r < ex->opt.mesh.ranks; r++)
            if (r != ex->me && wants(ex, p, r))
                fx_comm_plan_store(ex->comm, in_label[p], r, (size_t)x[p].shape[0] * row_bytes(ex));
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

/* Rows of this rank's segment (or all) in its output, its own head columns. */
static fx_tensor own_output(const fx_exchange *ex, void *output, int64_t begin, int64_t count)
{
    const int64_t width = (int64_t)ex->heads * ex->opt.head_dim;
    const fx_tensor all =
        fx_view2(output, ex->be->dtype, ex->local, (int64_t)ex->opt.heads * ex->opt.head_dim);
    return fx_cols(fx_rows(all, begin, count), ex->ui * width, width);
}

static int64_t own_rows(const fx_exchange *ex, int rank, int segment)
{
    return segment == FX_ALL ? fx_layout_local(ex->layout, rank) : ex->layout->part[rank][segment].count;
}

fx_status fx_exchange_window_tell_back(const fx_exchange *ex, void *output, int segment)
{
    const int first = ex->ri * ex->opt.mesh.ulysses;
    const int64_t begin = segment == FX_ALL ? 0 : fx_layout_local_start(ex->layout, ex->me, segment);
    fx_plan_op op = {.name = "give_back"};
    if (ex->opt.mesh.ulysses > 1 && ex->group) op.read[0] = ex->o_group;
    if (ex->opt.mesh.ulysses > 1) op.write[0] = own_output(ex, output, begin, own_rows(ex, ex->me, segment));
    fx_plan_tell(ex->be, &op);
    for (int r = first; r < first + ex->opt.mesh.ulysses; r++)
        if (r != ex->me)
            fx_comm_plan_store(ex->comm, out_label[segment], r,
                               (size_t)own_rows(ex, r, segment) * row_bytes(ex));
    return FX_OK;
}

fx_status fx_exchange_window_tell_collect(const fx_exchange *ex, void *output, int segment, fx_tensor o)
{
    const int first = ex->ri * ex->opt.mesh.ulysses;
    for (int r = first; r < first + ex->opt.mesh.ulysses; r++)
        if (r != ex->me)
            fx_comm_plan_await(ex->comm, out_label[segment], r,
                               (size_t)own_rows(ex, ex->me, segment) * row_bytes(ex), 0, NULL);
    const int64_t begin = segment == FX_ALL ? 0 : fx_layout_local_start(ex->layout, ex->me, segment);
    const fx_tensor all = fx_view2(output, ex->be->dtype, ex->local, o.shape[1]);
    fx_plan_tell(ex->be,
                 &(fx_plan_op){.name = "collect", .write = {o}, .read = {fx_rows(all, begin, o.shape[0])}});
    return FX_OK;
}
