/* y = act(x w^T + b): one primitive, or, where the processor has no bf16 products, f32 ones over blocks of
 * rows and panels of weights widened into scratch. */
#include "kernels/onednn/internal.h"

#include <string.h>

enum { ROWS = 512 }; /* of a widened block */

/* A single row's stride means nothing. */
static fx_dnnl_shape shape_of(int64_t m, int64_t n, int64_t k, int64_t x_stride, int64_t y_stride,
                              fx_dtype dtype, fx_dtype out)
{
    fx_dnnl_shape s;
    memset(&s, 0, sizeof s);
    s.kind = FX_WEIGHT_LINEAR;
    s.m = m, s.n = n, s.k = k;
    s.x_stride = m > 1 ? x_stride : k;
    s.y_stride = m > 1 ? y_stride : n;
    s.dtype = dtype, s.out = out, s.bias = 1;
    return s;
}

static fx_dnnl_shape direct_shape(fx_tensor y, fx_tensor x, fx_weight w)
{
    return shape_of(x.shape[0], w.n, w.k, x.stride[0], y.stride[0], x.dtype, y.dtype);
}

/* ---- bf16 without bf16 products ---- */

typedef struct widened {
    fx_tensor y, x;
    fx_weight w;
    int64_t rows, panel;
    size_t weight, sums, own, total; /* where the parts of scratch begin; x is at 0 */
} widened;

static fx_dnnl_shape block_shape(const widened *p, int64_t m, int64_t n)
{
    return shape_of(m, n, p->w.k, p->w.k, p->panel, FX_F32, FX_F32);
}

static fx_weight panel_of(const widened *p, int64_t n)
{
    fx_weight w = p->w;
    w.n = n;
    w.dtype = FX_F32;
    return w;
}

/* Lays out scratch and makes the primitives: whole blocks and panels, and the tails of both. */
static fx_status widened_plan(fx_onednn *o, fx_tensor y, fx_tensor x, fx_weight w, widened *p)
{
    const int64_t m = x.shape[0];
    *p = (widened){.y = y, .x = x, .w = w, .rows = m < ROWS ? m : ROWS, .panel = fx_onednn_panel(&w)};
    const fx_weight panel = panel_of(p, p->panel);
    size_t bytes, most = 0;
    FX_TRY(fx_dnnl_weight_bytes(o->dnnl, &panel, &bytes));
    p->weight = fx_onednn_padded((size_t)(p->rows * w.k) * 4);
    p->sums = p->weight + fx_onednn_padded(bytes);
    p->own = p->sums + fx_onednn_padded((size_t)(p->rows * p->panel) * 4);
    for (int tail = 0; tail < 4; tail++) {
        const int64_t rows = tail & 1 ? (p->rows ? m % p->rows : 0) : p->rows,
                      cols = tail & 2 ? w.n % p->panel : p->panel;
        const fx_dnnl_shape s = block_shape(p, rows, cols);
        fx_dnnl_op *op;
        if (!rows || !cols) continue;
        FX_TRY(fx_onednn_op(o, &s, &op));
        if (fx_dnnl_op_scratch(op) > most) most = fx_dnnl_op_scratch(op);
    }
    p->total = p->own + most;
    return FX_OK;
}

static fx_status widened_block(fx_backend *be, const widened *p, int64_t row, int64_t rows, fx_tensor bias,
                               fx_act act, char *scratch)
{
    fx_onednn *o = fx_onednn_of(be);
    const char *packed = p->w.packed;
    float *x = (float *)(void *)scratch, *w = (float *)(void *)(scratch + p->weight),
          *sums = (float *)(void *)(scratch + p->sums);
    FX_TRY(o->cpu->copy(be, fx_view2(x, FX_F32, rows, p->w.k), fx_rows(p->x, row, rows), 1, 0));
    for (int64_t col = 0; col < p->w.n; col += p->panel) {
        const int64_t cols = p->w.n - col < p->panel ? p->w.n - col : p->panel;
        const fx_dnnl_shape s = block_shape(p, rows, cols);
        const fx_weight panel = panel_of(p, cols);
        size_t bytes;
        fx_dnnl_op *op;
        FX_TRY(fx_dnnl_weight_bytes(o->dnnl, &panel, &bytes));
        FX_TRY(fx_onednn_widen(be, packed, (int64_t)(bytes / 4), w));
        FX_TRY(fx_onednn_op(o, &s, &op));
        /* the zeros for an absent bias are as long as one panel */
        const float *b = fx_onednn_bias(o, fx_present(bias) ? fx_slice(bias, 0, col, cols) : bias);
        FX_TRY(fx_dnnl_op_run(op, FX_ACT_NONE, x, w, b, sums, scratch + p->own));
        fx_tensor c = fx_view2(sums, FX_F32, rows, cols);
        c.stride[0] = rows > 1 ? p->panel : cols;
        FX_TRY(o->cpu->activate(be, fx_cols(fx_rows(p->y, row, rows), col, cols), c, act));
        packed += bytes / 2;
    }
    return FX_OK;
}

static fx_status widened_linear(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor bias,
                                fx_act act, void *scratch)
{
    widened p;
    FX_TRY(widened_plan(fx_onednn_of(be), y, x, w, &p));
    for (int64_t row = 0; row < x.shape[0]; row += p.rows) {
        const int64_t left = x.shape[0] - row;
        FX_TRY(widened_block(be, &p, row, left < p.rows ? left : p.rows, bias, act, scratch));
    }
    return FX_OK;
}

/* ---- slots ---- */

fx_status fx_onednn_linear_scratch(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b,
                                   fx_act act, size_t *bytes)
{
    fx_onednn *o = fx_onednn_of(be);
    (void)b, (void)act;
    if (fx_onednn_widens(o, w.dtype)) {
        widened p;
        FX_TRY(widened_plan(o, y, x, w, &p));
        *bytes = p.total;
        return FX_OK;
    }
    const fx_dnnl_shape s = direct_shape(y, x, w);
    fx_dnnl_op *op;
    FX_TRY(fx_onednn_op(o, &s, &op));
    *bytes = fx_dnnl_op_scratch(op);
    return FX_OK;
}

fx_status fx_onednn_linear(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act act,
                           void *scratch)
{
    fx_onednn *o = fx_onednn_of(be);
    if (fx_onednn_widens(o, w.dtype)) return widened_linear(be, y, x, w, b, act, scratch);
    const fx_dnnl_shape s = direct_shape(y, x, w);
    fx_dnnl_op *op;
    FX_TRY(fx_onednn_op(o, &s, &op));
    return fx_dnnl_op_run(op, act, x.data, w.packed, fx_onednn_bias(o, b), y.data, scratch);
}
