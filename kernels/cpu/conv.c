/* Convolution of NHWC pictures as a matrix product: row = output pixel, k = (tap row, tap column, channel).
 * The gathered rows of a block are the only copy of the picture; an output pixel's sum does not know the slab
 * it is in. */
#include "kernels/cpu/internal.h"
#include "kernels/cpu/multi.h"

fx_status fx_cpu_conv2d_scratch(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b,
                                int stride, const int pad[4], size_t *bytes)
{
    (void)be, (void)y, (void)x, (void)w, (void)b, (void)stride, (void)pad;
    *bytes = 0;
    return FX_OK;
}

typedef struct conv_job {
    fx_tensor y, x;
    const float *bias;
    int64_t channels, kw;
    int stride, top, left;
} conv_job;

/* One pixel's k range [k0, k0+count): per tap row, the columns inside the picture are one dense run. */
static void fill_pixel(const conv_job *j, fx_dtype operand, int64_t pixel, int64_t k0, int64_t count,
                       char *dst)
{
    const int64_t es = (int64_t)fx_dtype_size(operand), row_k = j->kw * j->channels, end = k0 + count;
    const int64_t oy = pixel / j->y.shape[1], ox = pixel % j->y.shape[1], x0 = ox * j->stride - j->left;
    for (int64_t k = k0; k < end;) {
        const int64_t ty = k / row_k, row = ty * row_k, from = k - row, stop = fx_least(row_k, end - row);
        const int64_t iy = oy * j->stride - j->top + ty;
        int64_t lo = -x0 * j->channels, hi = (j->x.shape[1] - x0) * j->channels; /* inside, in k of row */
        if (iy < 0 || iy >= j->x.shape[0]) lo = hi = row_k;
        lo = lo < from ? from : lo > stop ? stop : lo;
        hi = hi > stop ? stop : hi < lo ? lo : hi;
        char *to = dst + (k - k0) * es;
        memset(to, 0, (size_t)((lo - from) * es));
        if (hi != lo)
            fx_cpu_gather(operand, j->x.dtype, fx_at(j->x, iy * j->x.stride[0] + x0 * j->channels + lo),
                          hi - lo, to + (lo - from) * es);
        memset(to + (hi - from) * es, 0, (size_t)((stop - hi) * es));
        k = row + stop;
    }
}

static void fill_pixels(const fx_gemm *g, fx_dtype operand, int64_t row, int64_t rows, int64_t k0,
                        int64_t count, void *dst, int64_t ld)
{
    const conv_job *j = g->ctx;
    const int64_t es = (int64_t)fx_dtype_size(operand);
    for (int64_t i = 0; i < rows; i++) {
        char *to = (char *)dst + i * ld * es;
        fill_pixel(j, operand, row + i, k0, count, to);
        fx_cpu_pad_row(operand, to, count);
    }
}

static void store_pixels(const fx_gemm *g, int64_t row, int64_t rows, int64_t col, int64_t cols,
                         const float *c, int64_t ldc)
{
    const conv_job *j = g->ctx;
    const int64_t width = j->y.shape[1], n = j->y.shape[2];
    for (int64_t i = 0; i < rows; i++) {
        const int64_t oy = (row + i) / width, ox = (row + i) % width;
        fx_cpu_finish_row(fx_at_mut(j->y, oy * j->y.stride[0] + ox * n + col), j->y.dtype, c + i * ldc,
                          j->bias ? j->bias + col : NULL, cols, FX_ACT_NONE);
    }
}

fx_status fx_cpu_conv2d(fx_backend *be, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                        const int pad[4], void *scratch)
{
    (void)scratch;
    const conv_job job = {y, x, fx_present(b) ? b.data : NULL, w.k, w.kw, stride, pad[0], pad[2]};
    const fx_gemm g = {
        .m = y.shape[0] * y.shape[1],
        .n = w.n,
        .k = w.k * w.kh * w.kw,
        .packed = w.packed,
        .dtype = w.dtype,
        .ctx = &job,
        .fill = fill_pixels,
        .store = store_pixels,
    };
    fx_cpu_gemm(be, &g);
    return FX_OK;
}
