/* Blocks of queries for attention by products; see products.h. */
#include "kernels/cuda/products.h"

enum { PAD = 8 }; /* a row of scores or weights begins at a multiple of 8 values: 16 bytes of bf16 */

typedef struct block_plan {
    int64_t rows, row_values; /* queries per block; values from one row to the next */
    size_t weights, bytes;    /* where the softmax weights begin; all */
} block_plan;

static block_plan plan_of(fx_tensor q, fx_tensor k, size_t limit)
{
    block_plan p = {.row_values = (k.shape[0] + PAD) / PAD * PAD};
    const size_t each = 4 + fx_dtype_size(q.dtype),
                 row = (size_t)(q.shape[1] * p.row_values) * each; /* one query, all heads */
    p.rows = (int64_t)(limit / row);
    if (p.rows < 1) p.rows = 1;
    if (p.rows > q.shape[0]) p.rows = q.shape[0];
    p.weights = ((size_t)(q.shape[1] * p.rows * p.row_values) * 4 + 255) / 256 * 256;
    p.bytes = p.weights + (size_t)(q.shape[1] * p.rows * p.row_values) * fx_dtype_size(q.dtype);
    return p;
}

size_t fx_products_scratch(fx_tensor q, fx_tensor k, size_t limit)
{
    return plan_of(q, k, limit).bytes;
}

/* [heads, rows, keys] with padded rows */
static fx_tensor block_view(void *data, fx_dtype dtype, int64_t heads, int64_t rows, int64_t keys,
                            int64_t row_values)
{
    return fx_slice(fx_view3(data, dtype, heads, rows, row_values), 2, 0, keys);
}

fx_status fx_products_attention(fx_backend *be, const fx_products *f, fx_tensor o, fx_tensor lse, fx_tensor q,
                                fx_tensor k, fx_tensor v, fx_tensor bias, float scale, void *scratch,
                                size_t limit)
{
    const block_plan plan = plan_of(q, k, limit);
    const int64_t queries = q.shape[0], heads = q.shape[1], keys = k.shape[0];
    for (int64_t at = 0; at < queries; at += plan.rows) {
        const int64_t rows = queries - at < plan.rows ? queries - at : plan.rows;
        const fx_tensor s = block_view(scratch, FX_F32, heads, rows, keys, plan.row_values),
                        p = block_view((char *)scratch + plan.weights, q.dtype, heads, rows, keys,
                                       plan.row_values),
                        part = fx_present(lse) ? fx_slice(lse, 1, at, rows) : lse;
        if (keys) FX_TRY(f->scores(be, s, fx_rows(q, at, rows), k, scale));
        FX_TRY(f->softmax(be, p, part, s, bias, at, queries));
        FX_TRY(f->values(be, fx_rows(o, at, rows), p, v));
    }
    return FX_OK;
}
