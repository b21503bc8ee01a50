/* Attention's exchange by stores into the other ranks' memory. A CTA stores, then one thread fences for all of it, and the last
 * CTA to end (by ticket) tells the others; CTAs need not run side by side. A kernel costs its launch, a fence and the news, 6 to
 * 10 us on an H200, whatever it moves: so there is one put and one give_back per block, and nobody waits for what something
 * else implies. Contract: kernels/window.h. */
#include "kernels/cuda/heads.cuh"
#include "kernels/cuda/order.cuh"
#include "kernels/cuda/slots.h"

namespace
{

enum { WARPS = THREADS / FX_WARP, CHUNK = FX_HEAD_CHUNK, SHARING = FX_HEAD_SHARING };

/* ---- q, k, v ---- */

struct put_part {
    const uint16_t *x;
    int64_t token, head; /* from one to the next */
};
struct put_run {
    put_part part[FX_WINDOW_PARTS];
    const float *w[2], *cs; /* of q, of k; null in all runs or in none */
    int64_t cs_token, q_row, kv_row, local_row;
};
/* Work comes in tiles of a CTA: a part's rows of all runs, some heads each; the tiles of v, then k, then q. */
struct put_args {
    fx_window w;
    put_run run[FX_WINDOW_RUNS];
    unsigned end[FX_WINDOW_RUNS]; /* tokens of this run and those before it */
    unsigned tiles;               /* of a part */
    int lanes, lane_bits;         /* of a head in chunks, a power of two; 0: a warp per head */
    fx_divisor per, groups;       /* heads of a rank; groups of SHARING heads */
    float eps;
    uint16_t *staged; /* pack: what is sent; null: put */
    int64_t rows;     /* pack: of this rank */
};

/* A token of all runs, in its run. */
struct place {
    int run;
    int64_t token;
};
FX_DEVICE place place_of(const put_args &a, unsigned token)
{
    int run = 0;
    FX_UNROLL for (int r = 0; r < FX_WINDOW_RUNS - 1; r++) run += token >= a.end[r];
    return {run, (int64_t)(token - (run ? a.end[run - 1] : 0))};
}

/* A row where it is received, and among this rank's own. */
struct row_place {
    int64_t row, local;
};

/* A value of one head and token on its way to all ranks that want it: one for q, all ring members for k and v. */
template <class T>
FX_DEVICE void put_head(const put_args &a, int part, int64_t row, int head, int at, const T &v)
{
    const fx_window &w = a.w;
    const int per = (int)a.per.by, u = (int)fx_over(a.per, (uint32_t)head), mine = w.me - w.me % w.ulysses;
    const int64_t place = row * w.recv_row + (head - u * per) * w.head_dim + at;
    const int begin = part == FX_WINDOW_Q ? mine + u : u, end = part == FX_WINDOW_Q ? begin + 1 : w.ranks;
    for (int r = begin; r < end; r += w.ulysses) fx_put_far((T *)(w.recv[part * w.ranks + r] + place), v);
}

/* The same in one group: into the own place, or where it will be copied from. */
template <class T>
FX_DEVICE void pack_head(const put_args &a, int part, row_place p, int head, int at, const T &v)
{
    const fx_window &w = a.w;
    const int per = (int)a.per.by, u = (int)fx_over(a.per, (uint32_t)head), slot = u - (u > w.me);
    const int64_t column = (head - u * per) * w.head_dim + at;
    uint16_t *to = w.recv[part * w.ranks + u] + p.row * w.recv_row;
    if (u != w.me)
        to = a.staged + ((slot * a.rows + p.local) * FX_WINDOW_PARTS + part) * (int64_t)(per * w.head_dim);
    *(T *)(to + column) = v;
}

template <bool PACK> struct far_heads {
    const put_args &a;
    int part, head, at; /* head, at: the first of a call's values */
    row_place p;

    template <class T> FX_METHOD void put(int h, int i, const T &v) const
    {
        if constexpr (PACK)
            pack_head(a, part, p, h, i, v);
        else
            put_head(a, part, p.row, h, i, v);
    }
    FX_METHOD void chunk(int h, const fx_head_chunk &c) const { put(head + h, at, c); }
    FX_METHOD void pair(int i, float u, float v) const { put(head, i, fx_round_two(u, v)); }
    FX_METHOD void last(int, float) const {} /* widths are even */
};

template <bool PACK> FX_DEVICE far_heads<PACK> sink_of(const put_args &a, int part, place p, int head, int at)
{
    const put_run &r = a.run[p.run];
    return {a, part, head, at, {(part == FX_WINDOW_Q ? r.q_row : r.kv_row) + p.token, r.local_row + p.token}};
}

/* A tile of THREADS / lanes times (token, SHARING heads). */
template <bool PACK> FX_DEVICE void put_chunks(const put_args &a, int part, unsigned tile)
{
    const unsigned heads = (unsigned)a.w.heads, tid = (unsigned)fx_tid();
    const unsigned item = tile * (THREADS >> a.lane_bits) + (tid >> a.lane_bits);
    const bool there = item < a.end[FX_WINDOW_RUNS - 1] * a.groups.by;
    const unsigned token = there ? fx_over(a.groups, item) : 0,
                   first = there ? (item - token * a.groups.by) * SHARING : 0;
    const int at = (int)(tid & (unsigned)(a.lanes - 1)) * CHUNK;
    const place p = place_of(a, token);
    const put_run &r = a.run[p.run];
    const put_part &x = r.part[part];
    const uint16_t *in = x.x + p.token * x.token + first * x.head + at;
    const far_heads<PACK> sink = sink_of<PACK>(a, part, p, (int)first, at);
    if (part != FX_WINDOW_V) {
        fx_heads_in_chunks(in, x.head, there, first, heads, r.w[part], r.cs, p.token * r.cs_token, at,
                           a.w.head_dim, a.lanes, a.eps, sink);
        return;
    }
    fx_head_chunk v[SHARING] = {};
    FX_UNROLL for (int h = 0; h < SHARING; h++) if (there && first + h < heads) v[h] =
        *(const fx_head_chunk *)(in + h * x.head);
    FX_UNROLL for (int h = 0; h < SHARING; h++) if (there && first + h < heads) sink.chunk(h, v[h]);
}

/* A tile of WARPS times (token, head). */
template <bool PACK> FX_DEVICE void put_by_warps(const put_args &a, int part, unsigned tile)
{
    const unsigned heads = (unsigned)a.w.heads, item = tile * WARPS + (unsigned)fx_tid() / FX_WARP;
    if (item >= a.end[FX_WINDOW_RUNS - 1] * heads) return; /* a whole warp */
    const place p = place_of(a, item / heads);
    const put_run &r = a.run[p.run];
    const put_part &x = r.part[part];
    const uint16_t *in = x.x + p.token * x.token + item % heads * x.head;
    if (part != FX_WINDOW_V)
        return fx_head_by_warp(in, r.w[part], r.cs ? r.cs + p.token * r.cs_token : nullptr, a.w.head_dim,
                               a.eps, sink_of<PACK>(a, part, p, (int)(item % heads), 0));
    for (int at = fx_tid() % FX_WARP * CHUNK; at < a.w.head_dim; at += FX_WARP * CHUNK)
        sink_of<PACK>(a, part, p, (int)(item % heads), at).chunk(0, *(const fx_head_chunk *)(in + at));
}

template <bool CHUNKS, bool PACK> FX_DEVICE void put_tiles(const put_args &a)
{
    for (unsigned tile = (unsigned)fx_cta(); tile < a.tiles * FX_WINDOW_PARTS; tile += (unsigned)fx_ctas()) {
        const unsigned before = (tile >= a.tiles) + (tile >= 2 * a.tiles), rest = tile - before * a.tiles;
        const int part = FX_WINDOW_PARTS - 1 - (int)before;
        if constexpr (CHUNKS)
            put_chunks<PACK>(a, part, rest);
        else
            put_by_warps<PACK>(a, part, rest);
    }
}

template <bool CHUNKS> FX_KERNEL FX_BOUNDS(THREADS) put_kernel(put_args a)
{
    const fx_window &w = a.w;
    const bool groups = w.ranks > w.ulysses; /* one group: its output of the block before has come here */
    if (groups ? await(w, FREED, everyone(w), w.state[BLOCKS]) : !failed(w)) put_tiles<CHUNKS, false>(a);
    if (last_here(w, PUT_TICKET)) tell(w, ROWS, everyone(w), w.state[BLOCKS] + 1);
}

/* The others are told by a copy, this rank's own wait comes after the kernel. */
template <bool CHUNKS> FX_KERNEL FX_BOUNDS(THREADS) pack_kernel(put_args a)
{
    const fx_window &w = a.w;
    if (!failed(w)) put_tiles<CHUNKS, true>(a);
    if (fx_cta() == 0) write_down(w, !failed(w), w.state[BLOCKS] + 1);
}

/* Rows of the block under way, or the output of the one that was given back. */
FX_KERNEL FX_BOUNDS(THREADS) wait_kernel(fx_window w, bool output)
{
    const uint32_t block = w.state[BLOCKS] + (output ? 0 : 1);
    if (output)
        (void)await(w, OUTPUT, group(w), block);
    else
        (void)await(w, ROWS, everyone(w), block);
}

/* ---- the output ---- */

enum { PIECES = 4 }; /* chunks that a thread has under way */

struct return_args {
    fx_window w;
    const uint16_t *o;
    unsigned chunks;
    const fx_window_owner *owners;
    int n;
};
/* Where rows begin.. go: out is row 0's place, had it one. */
struct target {
    int64_t begin;
    uint16_t *out;
};

FX_DEVICE void list_targets(const return_args &a, target *list)
{
    const fx_window &w = a.w;
    const int width = w.heads / w.ulysses * w.head_dim;
    for (int i = fx_tid(); i < a.n; i += THREADS) {
        const fx_window_owner &to = a.owners[i];
        list[i] = {to.begin,
                   w.output[to.rank] + (to.row - to.begin) * w.output_row + w.me % w.ulysses * width};
    }
    fx_barrier();
}

FX_DEVICE uint16_t *out_of(const target *list, int n, int64_t row)
{
    int low = 0, high = n - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (list[middle].begin <= row)
            low = middle;
        else
            high = middle - 1;
    }
    return list[low].out;
}

/* From the rows of the next rank on, so that not all store to the same rank first. */
FX_DEVICE void give_rows(const return_args &a, const target *list)
{
    const fx_window &w = a.w;
    const unsigned per_row = (unsigned)(w.heads / w.ulysses * w.head_dim / CHUNK),
                   tiles = (a.chunks + THREADS * PIECES - 1) / (THREADS * PIECES),
                   turn = (unsigned)((int64_t)tiles * (w.me % w.ulysses + 1) / w.ulysses);
    for (unsigned t = (unsigned)fx_cta(); t < tiles; t += (unsigned)fx_ctas()) {
        const unsigned first = (t + turn) % tiles * (THREADS * PIECES) + (unsigned)fx_tid();
        fx_head_chunk v[PIECES] = {};
        FX_UNROLL for (int p = 0; p < PIECES; p++) if (first + p * THREADS < a.chunks) v[p] =
            *(const fx_head_chunk *)(a.o + (int64_t)(first + p * THREADS) * CHUNK);
        FX_UNROLL for (int p = 0; p < PIECES; p++)
        {
            const unsigned i = first + p * THREADS;
            const int64_t row = i / per_row;
            if (i < a.chunks)
                fx_put_far(
                    (fx_head_chunk *)(out_of(list, a.n, row) + row * w.output_row + i % per_row * CHUNK),
                    v[p]);
        }
    }
}

FX_KERNEL FX_BOUNDS(THREADS) return_kernel(return_args a)
{
    const fx_window &w = a.w;
    const uint32_t block = w.state[BLOCKS] + 1;
    const bool fine = !failed(w);
    /* attention has read q, k and v: the kernels before this one have ended */
    if (fine && fx_cta() == 0 && w.ranks > w.ulysses) tell(w, FREED, everyone(w), block);
    if (fine && a.chunks) {
        target *list = (target *)(void *)(fx_shared<uint32_t>() + SHARED_WORDS);
        list_targets(a, list);
        give_rows(a, list);
    }
    if (!last_here(w, RETURN_TICKET)) return;
    tell(w, OUTPUT, group(w), block);
    if (fx_tid() == 0) w.state[BLOCKS] = block;
}

/* ---- launches ---- */

fx_dim3 grid_for(const fx_window *w, int64_t items, int per_cta)
{
    const int64_t ctas = (items + per_cta - 1) / per_cta;
    return fx_dim3((unsigned)(ctas < 1 ? 1 : ctas < w->ctas ? ctas : w->ctas));
}

const size_t shared_bytes = SHARED_WORDS * sizeof(uint32_t);
const int most_owners = 1024;

fx_status take_part(const fx_window *w, fx_tensor x, int64_t tokens, put_part *p)
{
    FX_CHECK(x.ndim == 3 && x.dtype == FX_BF16 && x.shape[1] == w->heads && x.shape[2] == w->head_dim &&
                 x.stride[2] == 1 && (uintptr_t)x.data % 16 == 0 && x.stride[0] % CHUNK == 0 &&
                 x.stride[1] % CHUNK == 0 && x.shape[0] == tokens,
             FX_ESHAPE, "window: a part is not %lld rows of bf16 heads in chunks", (long long)tokens);
    *p = {(const uint16_t *)x.data, x.stride[0], x.stride[1]};
    return FX_OK;
}

const float *vector_of(fx_tensor t)
{
    return fx_present(t) ? (const float *)t.data : nullptr;
}

/* *addresses: what decides whether heads go in chunks, or'ed together. */
fx_status take_run(put_args *a, const fx_window_run *run, int i, uintptr_t *addresses)
{
    put_run *to = &a->run[i];
    const int64_t tokens = run->x[FX_WINDOW_Q].shape[0];
    for (int p = 0; p < FX_WINDOW_PARTS; p++) FX_TRY(take_part(&a->w, run->x[p], tokens, &to->part[p]));
    to->w[FX_WINDOW_Q] = vector_of(run->w_q);
    to->w[FX_WINDOW_K] = vector_of(run->w_k);
    to->cs = vector_of(run->cs);
    to->cs_token = to->cs ? run->cs.stride[0] : 0;
    to->q_row = run->q_row;
    to->kv_row = run->kv_row;
    to->local_row = run->local_row;
    *addresses |=
        (uintptr_t)to->cs | (uintptr_t)to->w[0] | (uintptr_t)to->w[1] | (uintptr_t)(to->cs_token % 4);
    a->end[i] = (unsigned)tokens;
    return FX_OK;
}

fx_status take_runs(const fx_window *w, const fx_window_run run[], int n, float eps, put_args *a)
{
    uintptr_t addresses = 0;
    int runs = 0; /* with rows */
    *a = {};
    FX_TRY(check_window(w));
    a->w = *w;
    a->eps = eps;
    for (int i = 0; i < n; i++) {
        if (!run[i].x[FX_WINDOW_Q].shape[0]) continue;
        FX_CHECK(runs < FX_WINDOW_RUNS && (!runs || (!vector_of(run[i].w_q) == !a->run[0].w[0] &&
                                                     !vector_of(run[i].w_k) == !a->run[0].w[1] &&
                                                     !vector_of(run[i].cs) == !a->run[0].cs)),
                 FX_ESHAPE, "window: run %d of %d is not like the others", i, n);
        FX_TRY(take_run(a, &run[i], runs++, &addresses));
        a->rows += run[i].x[FX_WINDOW_Q].shape[0];
    }
    FX_CHECK(a->rows * w->heads < (int64_t)1 << 31, FX_ESHAPE, "window: %lld rows", (long long)a->rows);
    for (int r = 1; r < FX_WINDOW_RUNS; r++) a->end[r] += a->end[r - 1];
    a->per = fx_divide_by(w->heads / w->ulysses);
    a->groups = fx_head_groups(w->heads);
    FX_CHECK(fx_divides(a->per, w->heads), FX_ESHAPE, "window: %d heads", w->heads);
    const int64_t packs = a->rows * a->groups.by;
    a->lanes = fx_divides(a->groups, packs) ? fx_head_lanes(w->head_dim, addresses, 0, 0) : 0;
    a->lane_bits = fx_lane_bits(a->lanes);
    const int64_t items = a->lanes ? packs : a->rows * w->heads;
    const int per_cta = a->lanes ? THREADS / a->lanes : WARPS;
    a->tiles = (unsigned)((items + per_cta - 1) / per_cta);
    return FX_OK;
}

} // namespace

extern "C" fx_status FX_SLOT(window_put)(fx_backend *be, const fx_window *w, const fx_window_run run[], int n,
                                         float eps)
{
    put_args a;
    FX_TRY(take_runs(w, run, n, eps, &a));
    const fx_dim3 grid = grid_for(w, (int64_t)a.tiles * FX_WINDOW_PARTS, 1);
    return a.lanes ? FX_LAUNCH(be, grid, THREADS, shared_bytes, put_kernel<true>, a)
                   : FX_LAUNCH(be, grid, THREADS, shared_bytes, put_kernel<false>, a);
}

extern "C" fx_status FX_SLOT(window_pack)(fx_backend *be, const fx_window *w, const fx_window_run run[],
                                          int n, float eps, fx_tensor staged)
{
    put_args a;
    FX_TRY(take_runs(w, run, n, eps, &a));
    const int64_t width = (int64_t)(w->heads / w->ulysses) * w->head_dim * FX_WINDOW_PARTS;
    FX_CHECK(w->ranks == w->ulysses && !FX_SLOT(window_under_way)(be), FX_ESHAPE,
             "window: rows are packed in %d groups, or before those of the last block were joined",
             w->ranks / w->ulysses);
    FX_CHECK(fx_numel(staged) == (w->ranks - 1) * a.rows * width &&
                 (!a.rows ||
                  (fx_contiguous(staged) && staged.dtype == FX_BF16 && (uintptr_t)staged.data % 16 == 0)),
             FX_ESHAPE, "window: %lld values of room for %lld rows", (long long)fx_numel(staged),
             (long long)a.rows);
    a.staged = (uint16_t *)staged.data;
    const fx_dim3 grid = grid_for(w, (int64_t)a.tiles * FX_WINDOW_PARTS, 1);
    return a.lanes ? FX_LAUNCH(be, grid, THREADS, shared_bytes, pack_kernel<true>, a)
                   : FX_LAUNCH(be, grid, THREADS, shared_bytes, pack_kernel<false>, a);
}

extern "C" fx_status FX_SLOT(window_wait)(fx_backend *be, const fx_window *w, int what)
{
    FX_TRY(check_window(w));
    return FX_LAUNCH(be, fx_dim3(1), THREADS, shared_bytes, wait_kernel, *w, what == FX_LATE_OUTPUT);
}

extern "C" fx_status FX_SLOT(window_give_back)(fx_backend *be, const fx_window *w, fx_tensor o,
                                               const fx_window_owner *owners, int n)
{
    const int64_t chunks = fx_numel(o) / CHUNK;
    FX_TRY(check_window(w));
    FX_CHECK(!chunks || (fx_contiguous(o) && o.dtype == FX_BF16 && n > 0 && n <= most_owners &&
                         fx_numel(o) / o.shape[0] == (int64_t)w->heads / w->ulysses * w->head_dim &&
                         chunks < (int64_t)1 << 31),
             FX_ESHAPE, "window: an output of %lld chunks for %d owners", (long long)chunks, n);
    const return_args a = {*w, (const uint16_t *)o.data, (unsigned)chunks, owners, n};
    return FX_LAUNCH(be, grid_for(w, chunks, THREADS * PIECES), THREADS,
                     shared_bytes + (size_t)(chunks ? n : 0) * sizeof(target), return_kernel, a);
}
