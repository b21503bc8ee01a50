/* The only compute the graph may call: one table of ops, one column per backend, never an empty slot.
 *
 * Vocabulary: T tokens (rows), C channels, H heads, D head dim, M,N,K matmul (y[M,N] = x[M,K] w[N,K]^T), G
 * groups, P ranks, r this rank. Pictures are [height, width, C] (channels last).
 *
 * Dtypes. A backend has two: `dtype` (operands of matmul, convolution and attention: f32, bf16, or f64 in
 * ref) and `stream` (the residual stream, modulation and latents: f32, or f64 in ref). Vector parameters
 * (bias, norm weights) are f32 everywhere. Accumulation is f32 at least.
 *
 * Views. The last dimension of every tensor is dense unless the op says otherwise; outer strides are free, so
 * column slices and head slices need no copies. Outputs do not overlap inputs unless the op says so ("may
 * be": the same view). Where an op names no dtype, each argument is `dtype` or `stream`. Inner dims of lse,
 * cs and stats are dense.
 *
 * Zero rows (a first dimension of 0) are a no-op in every op: ranks may own nothing. Attention over no keys
 * (Tk = 0) is work: it reaches the backend.
 *
 * Exactness. Every output row of linear, conv2d (image row), attention (query row) and of all row ops has the
 * same bits however the rows are split into calls and however many threads run; of a backend without
 * rows_exact, all but those of linear and conv2d.
 *
 * NaN and infinity. A NaN operand reaches every output that uses it: bad latents must not be hidden. (onednn:
 * a convolution may carry it further, by zero weights.)
 *
 * The graph calls the fx_<op> functions below; they check shapes and dtypes once for all backends, provide
 * scratch from the arena and call the table. Error budgets, per element: u|y| is the one rounding of the
 * output, u = 2^-24 for f32, 2^-8 for bf16, 2^-11 for f16; e = 2^-24 counts f32 roundings on the way. The tensor cores of
 * `cuda` do not round the sums of a step of 16 products, they cut them, and what is cut adds up in one direction: there K/16
 * stands for 2 sqrt(K) where it is more. Checked by tests/check_ops. */
#ifndef FX_KERNELS_OPS_H
#define FX_KERNELS_OPS_H

#include "runtime/core/arena.h"
#include "runtime/core/status.h"
#include "runtime/core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { FX_ACT_NONE, FX_ACT_GELU_TANH, FX_ACT_GELU_ERF, FX_ACT_QUICK_GELU, FX_ACT_SILU } fx_act;

/* A matrix or convolution weight in the backend's own packed form, made by pack() from row-major data.
 * linear: n = N outputs, k = K inputs, kh = kw = 1. conv2d: n = output channels, k = input channels, kh x kw
 * taps. */
typedef enum { FX_WEIGHT_LINEAR, FX_WEIGHT_CONV } fx_weight_kind;
typedef struct fx_weight {
    const void *packed; /* owned by the weight store; NULL while planning */
    int64_t n, k;
    int32_t kh, kw;
    fx_weight_kind kind;
    fx_dtype dtype; /* = backend dtype */
} fx_weight;

typedef struct fx_backend fx_backend;
typedef struct fx_recorder fx_recorder; /* kernels/record.h */

/* All slots take checked arguments. `scratch` is fx_<op>_scratch bytes of arena memory (aligned), NULL when
 * 0. */
typedef struct fx_ops {
    const char *name; /* "ref" "cpu" "onednn" "plan" "guard" ("cuda") */

    /* Weights. packed_bytes: size of the packed form; pack: from row-major src[n, k*kh*kw] (conv: [n, k, kh,
     * kw], as files store it) of dtype w->dtype into dst; may run on any rank of a node for all of them. */
    size_t (*packed_bytes)(fx_backend *, const fx_weight *w);
    fx_status (*pack)(fx_backend *, const fx_weight *w, const void *src, void *dst);

    /* Scratch, and the moment to create primitives and to try which is fastest: called while planning with the real shapes
     * (data may be unmapped, but for weights and b). */
    fx_status (*linear_scratch)(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act,
                                size_t *bytes);
    fx_status (*conv2d_scratch)(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                                const int pad[4], size_t *bytes);
    fx_status (*attention_scratch)(fx_backend *, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k,
                                   fx_tensor v, fx_tensor bias, size_t *bytes);

    fx_status (*linear)(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act,
                        void *scratch);
    fx_status (*conv2d)(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                        const int pad[4], void *scratch);
    fx_status (*attention)(fx_backend *, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k, fx_tensor v,
                           fx_tensor bias, float scale, void *scratch);
    fx_status (*attention_merge)(fx_backend *, fx_tensor o, fx_tensor lse, fx_tensor o2, fx_tensor lse2);
    fx_status (*norm_mod)(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor shift, fx_tensor scale,
                          float eps);
    fx_status (*layer_norm)(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor b, float eps);
    fx_status (*rms_norm)(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor w, float eps);
    fx_status (*gate_add)(fx_backend *, fx_tensor x, fx_tensor gate, fx_tensor y);
    fx_status (*gate_norm)(fx_backend *, fx_tensor h, fx_tensor x, fx_tensor gate, fx_tensor y,
                           fx_tensor shift, fx_tensor scale, float eps);
    fx_status (*qk_norm_rope)(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor cs, float eps);
    fx_status (*axpy)(fx_backend *, fx_tensor x, fx_tensor y, float a);
    fx_status (*activate)(fx_backend *, fx_tensor y, fx_tensor x, fx_act);
    fx_status (*glu)(fx_backend *, fx_tensor y, fx_tensor a, fx_tensor b, fx_act);
    fx_status (*embed)(fx_backend *, fx_tensor y, fx_tensor table, fx_tensor ids);
    fx_status (*copy)(fx_backend *, fx_tensor y, fx_tensor x, float mul, float add);
    fx_status (*row_stats)(fx_backend *, fx_tensor stats, fx_tensor x);
    fx_status (*group_norm)(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor stats, fx_tensor w, fx_tensor b,
                            int64_t width, float eps, fx_act);
    fx_status (*upsample2x)(fx_backend *, fx_tensor y, fx_tensor x);
    fx_status (*to_rgb8)(fx_backend *, fx_tensor y, fx_tensor x);
    fx_status (*count_nonfinite)(fx_backend *, fx_tensor x, int64_t *count);
    fx_status (*upload)(fx_backend *, fx_tensor device, const void *host); /* contiguous, same dtype */
    fx_status (*download)(fx_backend *, void *host, fx_tensor device);
    fx_status (*sync)(fx_backend *); /* all work issued so far is done */
    void (*close)(fx_backend *);     /* frees impl; fx_backend_close frees the (calloc'ed) struct */
} fx_ops;

/* What plan counted; also kept by real backends when counting is on (bench). */
typedef struct fx_op_counts {
    double linear_flop, conv_flop, attention_flop;
    int64_t calls;
} fx_op_counts;

struct fx_backend {
    const fx_ops *ops;
    fx_arena *arena; /* borrowed; activations and scratch */
    fx_dtype dtype, stream;
    int threads;
    bool rows_exact;   /* rows keep their bits however they are split (Exactness, above) */
    bool plain_rows;   /* a linear weight is packed row by row: some of its rows are a weight too */
    bool coarse_parts; /* attention is fast into dtype only: a ring merges parts that were rounded to it */
    fx_op_counts counts;
    const fx_recorder *recorder; /* NULL: ops run when they are called, and only so */
    void *impl;                  /* the backend's own state */
};

/* ---- the graph's calls; each: formula; shapes; aliasing; precision; budget; source ---- */

/* y = act(x w^T + b). x[M,K] dtype; y[M,N] dtype or stream; b[N] f32 or absent. f32 accumulation over k in a
 * fixed order; act on the f32 sum, one rounding to y. Budget: u|y| + 2 sqrt(K) e sum|x w| + 2 e |b|; with act
 * 1.2 times that (the steepest slope) + 4 e (sum|x w| + |b|). onednn: the bias counts as one of the products.
 * torch.nn.Linear */
fx_status fx_linear(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, fx_act);

/* y[Ho,Wo,N] = conv(x[H,W,K]) + b[N]; stride 1 or 2; pad = {top, bottom, left, right} zeros.
 * Ho = (H + top + bottom - kh)/stride + 1. Dense NHWC rows ([H] may have any stride). Budget as linear, K =
 * kh kw K. torch.nn.Conv2d */
fx_status fx_conv2d(fx_backend *, fx_tensor y, fx_tensor x, fx_weight w, fx_tensor b, int stride,
                    const int pad[4]);

/* o[Tq,H,D] = softmax(scale q k^T + bias) v, per head; q[Tq,H,D], k,v[Tk,H,D] dtype (any token and head
 * stride, D dense); o dtype or f32; lse[H,Tq] f32 or f64 = log(sum exp) (natural) or absent. bias[1 or H,
 * Tq+Tk-1] f32 or absent: the value for (query i, key j) is bias[h, j - i + Tq - 1] (T5 relative position;
 * CLIP causal with -inf). A query with no finite score gives o = 0, lse = -inf. Keys are visited in order, in
 * fixed blocks counted from key 0, so a query row has the same bits in any split of the queries. Never
 * materialises Tq x Tk. D is 1 to 1024. f32 sums; bf16 operands: p may be rounded to bf16
 * before p v, the denominator sums unrounded p, an f32 o is never rounded to bf16. Budget, with p_j true, e_j
 * = 2 sqrt(D) e scale sum|q k| + 4 e (1 + |bias| + |s_j - lse|): o: u|o| + sum p_j e_j (|v_j| + |o|) + 2
 * sqrt(Tk) e sum p_j |v_j|, bf16: + 4 sqrt(sum (p_j 2^-8 (|v_j| + |o|))^2); lse: e|lse| + sum p_j e_j + 2
 * sqrt(Tk) e. FlashAttention-2 (arXiv 2307.08691) */
fx_status fx_attention(fx_backend *, fx_tensor o, fx_tensor lse, fx_tensor q, fx_tensor k, fx_tensor v,
                       fx_tensor bias, float scale);

/* Merges attention over two disjoint key sets, in place into (o, lse): f32 (f64 in ref) o[T,H,D], lse[H,T];
 * o2[T,H,D] f32 (f64) or dtype, lse2 as lse. lse = -inf marks a part without keys. Budget: o: e|o| + 4 e (1 + |lse - lse2|)
 * (w|o| + w2|o2|), and a weight below 2^-126 may be 0; lse: e|lse| + 4 e (1 + |lse - lse2|). Ring attention (arXiv 2310.01889) */
fx_status fx_attention_merge(fx_backend *, fx_tensor o, fx_tensor lse, fx_tensor o2, fx_tensor lse2);

/* y[T,C] = (1 + scale[C]) * layernorm(x[T,C]) + shift[C]; x, shift, scale stream; y dtype. Two-pass variance.
 * Budget, a = |1 + scale| / sqrt(var + eps): u|y| + 2 sqrt(C) e a (mean|x| + |x - mean|) + 4 e (a |x - mean|
 * + |shift|). adaLN of DiT (arXiv 2212.09748) */
fx_status fx_norm_mod(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor shift, fx_tensor scale, float eps);

/* y[T,C] = layernorm(x) * w + b; x stream or dtype, y dtype or stream. Budget as norm_mod with a =
 * |w| / sqrt(var + eps). torch.nn.LayerNorm */
fx_status fx_layer_norm(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor b, float eps);

/* y[T,C] = x / sqrt(mean(x^2) + eps) * w; x stream, y dtype or stream. Budget: u|y| + (sqrt(C) + 4) e |y|.
 * T5LayerNorm */
fx_status fx_rms_norm(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor w, float eps);

/* x[T,C] += gate[C] * y[T,C]; x, gate stream; y dtype or stream. Budget: u|x'| + e |gate y|. */
fx_status fx_gate_add(fx_backend *, fx_tensor x, fx_tensor gate, fx_tensor y);

/* x[T,C] += gate[C] * y[T,C], then h[T,C] = (1 + scale[C]) * layernorm(x) + shift[C]: gate_add and norm_mod in one pass over
 * the rows. x, gate, shift, scale stream; y, h dtype. Budget: of x as gate_add; of h as norm_mod on the new x, and what x's
 * may move it: 4 a times the largest of the row's. */
fx_status fx_gate_norm(fx_backend *, fx_tensor h, fx_tensor x, fx_tensor gate, fx_tensor y, fx_tensor shift,
                       fx_tensor scale, float eps);

/* y[T,H,D] = rope(rms_norm(x[T,H,D]) * w[D]); x, y dtype, token and head strides free, y may be x. w absent:
 * no norm. cs absent: no rotation; else cs[T,D/2,2] f32 holds (cos, sin) for the pair (2i, 2i+1): (a, b) ->
 * (a cos - b sin, b cos + a sin). One rounding at the end. Budget: u|y| + (sqrt(D) + 6) e (|a cos| + |b
 * sin|), a and b normed; exact with neither w nor cs. RoFormer (arXiv 2104.09864) */
fx_status fx_qk_norm_rope(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor w, fx_tensor cs, float eps);

/* x += a * y, any equal shapes up to 5 dims; x stream or dtype, y dtype or stream. Residual sums, Euler step.
 * Budget: u|x'| + e |a y|. */
fx_status fx_axpy(fx_backend *, fx_tensor x, fx_tensor y, float a);

/* y = act(x), elementwise, [T,C]; y may be x. Budget: u|y| + 4 e |x|. */
fx_status fx_activate(fx_backend *, fx_tensor y, fx_tensor x, fx_act);

/* y[T,C] = act(a[T,C]) * b[T,C]; y may be a or b. Budget: u|y| + 4 e |a b|. Gated feed-forward of T5 v1.1. */
fx_status fx_glu(fx_backend *, fx_tensor y, fx_tensor a, fx_tensor b, fx_act);

/* y[T,C] = table[ids[T], C]; table dtype, ids i32 in range (checked by the caller), y stream or dtype. Exact.
 */
fx_status fx_embed(fx_backend *, fx_tensor y, fx_tensor table, fx_tensor ids);

/* y = mul * x + add, equal shapes up to 5 dims, any strides in every dimension (the last included), any float
 * dtypes. mul 1, add 0 is a strided copy or cast, exact where y holds every value of x. Packing, unpacking,
 * transposing, latent scaling. Budget: u|y| + 2 e |mul x|. */
fx_status fx_copy(fx_backend *, fx_tensor y, fx_tensor x, float mul, float add);

/* stats[R,G,2] f64: for each picture row of x[R,W,C] and each group of C/G channels: mean, and M2 = sum
 * (x-mean)^2. Two passes in f64. Budget, n values each: n 2^-53 mean|x|; n 2^-53 M2 + n (error of the
 * mean)^2. */
fx_status fx_row_stats(fx_backend *, fx_tensor stats, fx_tensor x);

/* y[R,W,C] = act(groupnorm(x) * w[C] + b[C]) where stats[Rall,G,2] f64 holds the row statistics of the
 * *whole* picture (all ranks) in row order, merged by Chan's formula in that order; width = W. y may be x.
 * Budget: u|y| + 4 e s (9 with an activation), s = |w| (|x| + |mean|) / sqrt(var + eps) + |b|.
 * torch.nn.GroupNorm */
fx_status fx_group_norm(fx_backend *, fx_tensor y, fx_tensor x, fx_tensor stats, fx_tensor w, fx_tensor b,
                        int64_t width, float eps, fx_act);

/* y[2R,2W,C]: nearest neighbour, exact (a cast to a narrower dtype rounds). */
fx_status fx_upsample2x(fx_backend *, fx_tensor y, fx_tensor x);

/* y[R,W,3] u8 = round_half_even(255 * clamp(x/2 + 0.5, 0, 1)); in f32, so that within 4 e of a half either
 * neighbour will do. */
fx_status fx_to_rgb8(fx_backend *, fx_tensor y, fx_tensor x);

/* Number of NaN and infinities in x[T,C]; waits for the result. */
fx_status fx_count_nonfinite(fx_backend *, fx_tensor x, int64_t *count);

fx_status fx_upload(fx_backend *, fx_tensor device, const void *host);
fx_status fx_download(fx_backend *, void *host, fx_tensor device);
fx_status fx_sync(fx_backend *);

/* ---- registry (kernels/registry.c) ---- */

/* name: one of fx_backend_list, "auto", or "guard:NAME": guard over another than auto's choice. dtype: FX_F32 or
 * FX_BF16 (ref computes in f64 whatever it is). The arena is attached afterwards. Refuses a table with an
 * empty slot. */
fx_status fx_backend_open(const char *name, fx_dtype dtype, int threads, fx_backend **out);
/* Wraps `inner`: same dtypes; computes nothing, asks inner for scratch sizes, counts flops. Borrows inner. NULL: the graph of
 * a device that need not be there, without scratch: bf16, stream f32, weights as large as their values. */
fx_status fx_backend_plan(fx_backend *inner, fx_backend **out);
void fx_backend_close(fx_backend **);
bool fx_planning(const fx_backend *); /* the plan backend: data must not be touched */
/* Says to those who watch a plan (kernels/plan.h) what follows: "double", 3 is double_03; number < 0: kind alone. */
void fx_plan_box(fx_backend *, const char *kind, int number);
const char *fx_backend_list(void); /* "cpu onednn ref guard" */
/* What "auto" opens: cpu where it has tiles for this processor, else onednn, else cpu, else ref. */
const char *fx_backend_auto(void);
/* "cuda" is "cuda:0": devices are numbered as the process sees them. */
/* Whose numbers NAME gives: "auto" and "guard" -> auto's choice, "guard:ref" -> "ref", others themselves. */
const char *fx_backend_computing(const char *name);
/* Human-readable facts about the backend ("oneDNN 2.6.3, amx_bf16, 2 threads"), for --version and the report. */
const char *fx_backend_describe(const fx_backend *);

/* Memory. Tensors of most backends lie in host memory; those of a device backend (cuda) at device addresses, which only
 * its ops, upload and download may touch. */
bool fx_on_device(const fx_backend *);
fx_status fx_device_alloc(fx_backend *, size_t bytes,
                          void **out); /* aligned to 256; FX_ENOMEM: need and free */
void fx_device_free(fx_backend *, void *);
/* Host memory that uploads read without a copy of their own: they return at once, and it may be written again after fx_sync. */
fx_status fx_device_pinned(fx_backend *, size_t bytes, void **out);
void fx_device_unpin(fx_backend *, void *);
/* x[n] at a device address = elements first.. of the synthetic stream `key` (runtime/io/synthetic.c), rounded to bf16. */
fx_status fx_device_draw(fx_backend *, void *x, fx_dtype, int64_t n, uint64_t key, uint64_t first, float amp,
                         float mean);
fx_status fx_device_copy(fx_backend *, void *to, const void *from, size_t bytes); /* in stream order */
/* FX_ENOMEM, in the words of fx_device_alloc, of memory that the current device has refused to a library; why: "" or words
 * behind the need. */
fx_status fx_device_no_room(size_t bytes, const char *why);
void *fx_device_stream(const fx_backend *); /* the cudaStream_t that the ops run in; NULL: no device */
/* Devices that "cuda:N" can open; 0: none (why: fx_error); -1: no such backend is built in. */
int fx_device_count(void);
/* "code for 90a,100a, CUDA 13.0, cuBLASLt 13.1.0, cuDNN 9.19.0" as linked, or NULL. */
const char *fx_device_libraries(void);
/* The f32 vector at `device` holds host[n] from now on and will not change (a bias or norm weight). */
fx_status fx_device_constant(fx_backend *, const void *device, const float *host, int64_t n);

size_t fx_packed_bytes(fx_backend *, const fx_weight *);
fx_status fx_pack(fx_backend *, const fx_weight *, const void *src, void *dst);

#ifdef __cplusplus
}
#endif
#endif
