/* Convolution of NHWC pictures. The library's fast kernels want dense pictures: rows with a stride of their
 * own go through scratch. Where the processor has no bf16 products the picture is widened to f32 in blocks of
 * output rows, the weights once per call. */
#include "kernels/onednn/internal.h"

#include <string.h>

enum { BLOCK_VALUES = 4 << 20 }; /* of a widened block of either picture */

typedef struct conv_plan {
    fx_tensor y, x;
    fx_weight w;
    int stride, pad[4];
    fx_dtype operand, out; /* what the primitive takes and gives */
    bool widen, copy_x, copy_y;
    int64_t rows;                     /* output rows of a block */
    size_t weight_bytes;              /* widened */
    size_t y_at, w_at, own_at, total; /* parts of scratch; x is at 0 */
} conv_plan;

/* One block's output rows [begin, +count): the input rows they need, and zeros only where the window leaves
 * the picture. */
typedef struct conv_block {
    int64_t begin, count, first, height;
    fx_dnnl_shape shape;
} conv_block;

static conv_block block_of(const conv_plan *p, int64_t begin)
{
    const int64_t left = p->y.shape[0] - begin, count = left < p->rows ? left : p->rows;
    const int64_t top = begin * p->stride - p->pad[0], end = top + (count - 1) * p->stride + p->w.kh;
    const int64_t first = top > 0 ? top : 0, last = end < p->x.shape[0] ? end : p->x.shape[0];
    conv_block b = {.begin = begin, .count = count, .first = first, .height = last - first};
    memset(&b.shape, 0, sizeof b.shape);
    b.shape.kind = FX_WEIGHT_CONV;
    b.shape.n = p->w.n, b.shape.k = p->w.k, b.shape.kh = p->w.kh, b.shape.kw = p->w.kw;
    b.shape.h = b.height, b.shape.w = p->x.shape[1], b.shape.stride = p->stride;
    b.shape.pad[0] = (int32_t)(first - top), b.shape.pad[1] = (int32_t)(end - last);
    b.shape.pad[2] = p->pad[2], b.shape.pad[3] = p->pad[3];
    b.shape.dtype = p->operand, b.shape.out = p->out, b.shape.bias = 1;
    return b;
}

static bool dense_rows(fx_tensor t)
{
    return t.shape[0] <= 1 || t.stride[0] == t.shape[1] * t.shape[2];
}

static int64_t rows_of_block(const conv_plan *p)
{
    const int64_t x_row = p->x.shape[1] * p->x.shape[2] * p->stride, y_row = p->y.shape[1] * p->y.shape[2];
    const int64_t rows = BLOCK_VALUES / (x_row > y_row ? x_row : y_row);
    return !p->widen || rows > p->y.shape[0] ? p->y.shape[0] : rows < 1 ? 1 : rows;
}

/* Scratch of the pictures: the tallest block's. */
static size_t picture_bytes(fx_tensor t, int64_t rows, fx_dtype dtype)
{
    return fx_onednn_padded((size_t)(rows * t.shape[1] * t.shape[2]) * fx_dtype_size(dtype));
}

static fx_status measure_blocks(fx_onednn *o, conv_plan *p, int64_t *height, size_t *own)
{
    fx_dnnl_op *op;
    *height = 0, *own = 0;
    for (int64_t at = 0; at < p->y.shape[0]; at += p->rows) {
        const conv_block b = block_of(p, at);
        FX_TRY(fx_onednn_op(o, &b.shape, &op));
        if (b.height > *height) *height = b.height;
        if (fx_dnnl_op_scratch(op) > *own) *own = fx_dnnl_op_scratch(op);
    }
    return FX_OK;
}

static fx_status make_plan(fx_onednn *o, fx_tensor y, fx_tensor x, fx_weight w, int stride, const int pad[4],
                           conv_plan *p)
{
    *p = (conv_plan){.y = y, .x = x, .w = w, .stride = stride, .operand = o->operand};
    memcpy(p->pad, pad, sizeof p->pad);
    p->widen = fx_onednn_widens(o, w.dtype);
    p->out = p->widen ? FX_F32 : y.dtype;
    p->copy_x = p->widen || !dense_rows(x);
    p->copy_y = y.dtype != p->out || !dense_rows(y);
    p->rows = rows_of_block(p);
    fx_weight wide = w;
    size_t own;
    int64_t height;
    wide.dtype = FX_F32;
    if (p->widen) FX_TRY(fx_dnnl_weight_bytes(o->dnnl, &wide, &p->weight_bytes));
    FX_TRY(measure_blocks(o, p, &height, &own));
    p->y_at = p->copy_x ? picture_bytes(x, height, p->operand) : 0;
    p->w_at = p->y_at + (p->copy_y ? picture_bytes(y, p->rows, p->out) : 0);
    p->own_at = p->w_at + fx_onednn_padded(p->weight_bytes);
    p->total = p->own_at + own;
    return FX_OK;
}

static fx_status run_block(fx_backend *be, const conv_plan *p, int64_t begin, const void *weight,
                           const float *bias, char *scratch)
{
    fx_onednn *o = fx_onednn_of(be);
    const conv_block b = block_of(p, begin);
    fx_dnnl_op *op;
    fx_tensor x = fx_rows(p->x, b.first, b.height), y = fx_rows(p->y, b.begin, b.count), to = y;
    if (p->copy_x) {
        const fx_tensor dense = fx_view3(scratch, p->operand, b.height, x.shape[1], x.shape[2]);
        FX_TRY(o->cpu->copy(be, dense, x, 1, 0));
        x = dense;
    }
    if (p->copy_y) to = fx_view3(scratch + p->y_at, p->out, b.count, y.shape[1], y.shape[2]);
    FX_TRY(fx_onednn_op(o, &b.shape, &op));
    FX_TRY(fx_dnnl_op_run(op, FX_ACT_NONE, x.data, weight, bias, to.data, scratch + p->own_at));
    return p->copy_y ? o->cpu->copy(be, y, to, 1, 0) : FX_OK;
}

fx_status fx_onednn_conv2d_scratch(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b,
                                   int stride, const int pad[4], size_t *bytes)
{
    conv_plan p;
    (void)b;
    FX_TRY(make_plan(fx_onednn_of(be), y, x, w, stride, pad, &p));
    *bytes = p.total;
    return FX_OK;
}

fx_status fx_onednn_conv2d(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                           const int pad[4], void *scratch)
{
    fx_onednn *o = fx_onednn_of(be);
    conv_plan p;
    FX_TRY(make_plan(o, y, x, w, stride, pad, &p));
    const void *weight = w.packed;
    if (p.widen) {
        float *wide = (float *)(void *)((char *)scratch + p.w_at);
        FX_TRY(fx_onednn_widen(be, w.packed, (int64_t)(p.weight_bytes / sizeof *wide), wide));
        weight = wide;
    }
    for (int64_t at = 0; at < y.shape[0]; at += p.rows)
        FX_TRY(run_block(be, &p, at, weight, fx_onednn_bias(o, b), scratch));
    return FX_OK;
}
