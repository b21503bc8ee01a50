/* Attention's exchange by stores into the other ranks' memory. A kernel first waits until the places it writes are free,
 * then every thread stores and fences, and the last CTA to end (by ticket) tells the others; CTAs need not run side by side.
 * Counters only grow and are compared by difference. Contract: kernels/window.h. */
#include "kernels/cuda/heads.cuh"
#include "kernels/cuda/slots.h"

namespace
{

enum { THREADS = 128, WARPS = THREADS / FX_WARP, CHUNK = FX_HEAD_CHUNK };
/* Counters that rank r keeps here, one word per rank, in the order of FX_LATE_*. */
enum counter { ROWS, FREED, OUTPUT, TAKEN };
/* Words of this rank's own; a ticket per kernel. */
enum word { PUTS, BLOCKS, RETURNS, COLLECTED, FAILED, PUT_TICKET, RETURN_TICKET, COLLECT_TICKET, WORDS };
enum { COME_BACK, LAST_HERE }; /* words of shared memory */
static_assert((int)WORDS <= (int)FX_WINDOW_STATE && (int)TAKEN + 1 == (int)FX_WINDOW_COUNTERS,
              "room for all");

/* ---- order ---- */

struct ranks {
    int first, count;
};
FX_DEVICE ranks everyone(const fx_window &w)
{
    return {0, w.ranks};
}
FX_DEVICE ranks group(const fx_window &w)
{
    return {w.me - w.me % w.ulysses, w.ulysses};
}

/* A wait was in vain: the same answer in all threads of the CTA. */
FX_DEVICE bool failed(const fx_window &w)
{
    uint32_t *shared = fx_shared<uint32_t>();
    fx_barrier();
    if (fx_tid() == 0) shared[COME_BACK] = fx_load_acquire(w.state + FAILED);
    fx_barrier();
    return shared[COME_BACK] != 0;
}

/* The one loop that waits. */
FX_DEVICE bool comes_to(const uint32_t *word, uint32_t value, uint64_t limit_ns)
{
    const uint64_t begin = fx_clock_ns();
    while ((int32_t)(fx_load_acquire(word) - value) < 0) {
        if (limit_ns && fx_clock_ns() - begin > limit_ns) return false;
        fx_pause();
    }
    return true;
}

/* Until these ranks' counters here have come to `value`; false: not all in time, and they are named. */
FX_DEVICE bool await(const fx_window &w, counter what, ranks who, uint32_t value)
{
    for (int i = fx_tid(); i < who.count; i += THREADS) {
        const int rank = who.first + i;
        if (comes_to(w.counters[w.me] + what * w.ranks + rank, value, w.limit_ns)) continue;
        fx_store_release(w.late + rank, (uint32_t)what + 1);
        fx_store_release(w.state + FAILED, 1);
    }
    return !failed(w);
}

FX_DEVICE void tell(const fx_window &w, counter what, ranks who, uint32_t value)
{
    for (int i = fx_tid(); i < who.count; i += THREADS)
        fx_store_release(w.counters[who.first + i] + what * w.ranks + w.me, value);
}

/* In all threads of the CTA that comes here last, when all that the kernel has stored and read is done. */
FX_DEVICE bool last_here(const fx_window &w, word ticket)
{
    uint32_t *shared = fx_shared<uint32_t>();
    fx_fence_system(); /* this thread's share */
    fx_barrier();
    const uint32_t last = (uint32_t)fx_ctas() - 1;
    if (fx_tid() == 0) shared[LAST_HERE] = fx_ticket(w.state + ticket, last) == last;
    fx_barrier();
    if (!shared[LAST_HERE]) return false;
    fx_fence_system(); /* the other CTAs' */
    return !failed(w);
}

/* One more, in the last CTA only. */
FX_DEVICE uint32_t advance(const fx_window &w, word count)
{
    const uint32_t value = w.state[count] + 1;
    fx_barrier();
    if (fx_tid() == 0) w.state[count] = value;
    return value;
}

/* ---- q, k, v ---- */

struct put_part {
    const uint16_t *x; /* null: not put */
    const float *w;
    int64_t x_token, x_head;
};
struct put_args {
    fx_window w;
    put_part part[FX_WINDOW_PARTS];
    const float *cs;
    int64_t cs_token, tokens;
    int lanes; /* of a head in chunks; 0: a warp per head */
    float eps;
    fx_window_rows rows[FX_WINDOW_RUNS];
};

FX_DEVICE int64_t row_of(const put_args &a, int64_t token, bool q)
{
    int64_t row = 0;
    FX_UNROLL for (int r = 0; r < FX_WINDOW_RUNS; r++)
    {
        const int64_t in = token - a.rows[r].begin;
        if (in >= 0 && in < a.rows[r].count) row = (q ? a.rows[r].q_row : a.rows[r].kv_row) + in;
    }
    return row;
}

/* A value of one head and token on its way to all ranks that want it: one for q, all ring members for k and v. */
template <class T>
FX_DEVICE void put_head(const fx_window &w, int part, int64_t row, int head, int at, const T &v)
{
    const int per = w.heads / w.ulysses, u = head / per, mine = w.me - w.me % w.ulysses;
    const int64_t place = (row * per + head - u * per) * w.head_dim + at;
    const int begin = part == FX_WINDOW_Q ? mine + u : u, end = part == FX_WINDOW_Q ? begin + 1 : w.ranks;
    for (int r = begin; r < end; r += w.ulysses) fx_put_far((T *)(w.recv[part * w.ranks + r] + place), v);
}

struct alignas(4) head_pair {
    uint16_t v[2];
};

struct far_heads {
    const fx_window &w;
    int part, head, at; /* head, at: the first of a call's values */
    int64_t row;

    FX_METHOD void chunk(int h, const fx_head_chunk &c) const { put_head(w, part, row, head + h, at, c); }
    FX_METHOD void pair(int i, float u, float v) const
    {
        const head_pair p = {{fx_round_bf16(u), fx_round_bf16(v)}};
        put_head(w, part, row, head, i, p);
    }
    FX_METHOD void last(int, float) const {} /* widths are even */
};

FX_DEVICE void put_chunks(const put_args &a, const put_part &p, int part)
{
    const int heads = a.w.heads, lane = fx_tid() % a.lanes, at = lane * CHUNK;
    const unsigned parts = (unsigned)(heads + FX_HEAD_SHARING - 1) / FX_HEAD_SHARING;
    const int64_t items = a.tokens * parts, per_cta = THREADS / a.lanes;
    for (int64_t base = fx_cta() * per_cta; base < items; base += fx_ctas() * per_cta) { /* whole CTAs */
        const int64_t item = base + fx_tid() / a.lanes;
        const bool there = item < items;
        const unsigned mine = there ? (unsigned)item : 0, token = mine / parts,
                       first = mine % parts * FX_HEAD_SHARING;
        const far_heads sink = {a.w, part, (int)first, at, row_of(a, token, part == FX_WINDOW_Q)};
        fx_heads_in_chunks(p.x + token * p.x_token + first * p.x_head + at, p.x_head, there, first,
                           (unsigned)heads, p.w, a.cs, token * a.cs_token, at, a.w.head_dim, a.lanes, a.eps,
                           sink);
    }
}

FX_DEVICE void put_by_warps(const put_args &a, const put_part &p, int part)
{
    const unsigned heads = (unsigned)a.w.heads, items = (unsigned)a.tokens * heads;
    for (unsigned item = (unsigned)fx_cta() * WARPS + (unsigned)fx_tid() / FX_WARP; item < items;
         item += (unsigned)fx_ctas() * WARPS) {
        const unsigned token = item / heads, head = item % heads;
        const far_heads sink = {a.w, part, (int)head, 0, row_of(a, token, part == FX_WINDOW_Q)};
        fx_head_by_warp(p.x + token * p.x_token + head * p.x_head, p.w,
                        a.cs ? a.cs + token * a.cs_token : nullptr, a.w.head_dim, a.eps, sink);
    }
}

FX_DEVICE void put_plain(const put_args &a, const put_part &p, int part)
{
    const int per_head = a.w.head_dim / CHUNK, per_row = a.w.heads * per_head;
    for (int64_t i = fx_cta() * THREADS + fx_tid(); i < a.tokens * per_row; i += fx_ctas() * THREADS) {
        const int64_t token = i / per_row;
        const int c = (int)(i % per_row), head = c / per_head, at = c % per_head * CHUNK;
        const far_heads sink = {a.w, part, head, at, row_of(a, token, part == FX_WINDOW_Q)};
        sink.chunk(0, *(const fx_head_chunk *)(p.x + token * p.x_token + head * p.x_head + at));
    }
}

template <bool CHUNKS> FX_KERNEL FX_BOUNDS(THREADS) put_kernel(put_args a)
{
    if (!failed(a.w) && await(a.w, FREED, everyone(a.w), a.w.state[BLOCKS]))
        for (int part = 0; part < FX_WINDOW_PARTS; part++) {
            const put_part &p = a.part[part];
            if (!p.x) continue;
            if (part == FX_WINDOW_V)
                put_plain(a, p, part);
            else if constexpr (CHUNKS)
                put_chunks(a, p, part);
            else
                put_by_warps(a, p, part);
        }
    if (last_here(a.w, PUT_TICKET)) tell(a.w, ROWS, everyone(a.w), advance(a.w, PUTS));
}

FX_KERNEL FX_BOUNDS(THREADS) wait_kernel(fx_window w)
{
    if (!failed(w)) (void)await(w, ROWS, everyone(w), w.state[PUTS]);
}

/* ---- the output ---- */

struct return_args {
    fx_window w;
    const uint16_t *o;
    int64_t begin, count;
    const fx_window_owner *owners;
    int n;
    unsigned when;
};

FX_DEVICE const fx_window_owner &owner_of(const return_args &a, int64_t row)
{
    int low = 0, high = a.n - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (a.owners[middle].begin <= row)
            low = middle;
        else
            high = middle - 1;
    }
    return a.owners[low];
}

FX_KERNEL FX_BOUNDS(THREADS) return_kernel(return_args a)
{
    const fx_window &w = a.w;
    const int width = w.heads / w.ulysses * w.head_dim, per_row = width / CHUNK;
    bool fine = !failed(w);
    /* attention has read q, k and v: the kernels before this one have ended */
    if (fine && fx_cta() == 0 && a.when & FX_WINDOW_FIRST) tell(w, FREED, everyone(w), w.state[BLOCKS] + 1);
    if (fine && a.count) fine = await(w, TAKEN, group(w), w.state[BLOCKS]);
    if (fine)
        for (int64_t i = fx_cta() * THREADS + fx_tid(); i < a.count * per_row; i += fx_ctas() * THREADS) {
            const int64_t row = a.begin + i / per_row;
            const int at = (int)(i % per_row) * CHUNK;
            const fx_window_owner &to = owner_of(a, row);
            uint16_t *out = w.output[to.rank] + (to.row + row - to.begin) * w.ulysses * width;
            fx_put_far((fx_head_chunk *)(out + w.me % w.ulysses * width + at),
                       *(const fx_head_chunk *)(a.o + row * width + at));
        }
    if (!last_here(w, RETURN_TICKET)) return;
    tell(w, OUTPUT, group(w), advance(w, RETURNS));
    if (a.when & FX_WINDOW_LAST) (void)advance(w, BLOCKS);
}

struct collect_args {
    fx_window w;
    uint16_t *o;
    int64_t stride, begin, count;
    int nth;
    unsigned when;
};

FX_KERNEL FX_BOUNDS(THREADS) collect_kernel(collect_args a)
{
    const fx_window &w = a.w;
    const int width = w.heads * w.head_dim, per_row = width / CHUNK;
    if (!failed(w) && await(w, OUTPUT, group(w), w.state[COLLECTED] + (uint32_t)a.nth))
        for (int64_t i = fx_cta() * THREADS + fx_tid(); i < a.count * per_row; i += fx_ctas() * THREADS) {
            const int64_t row = i / per_row;
            const int at = (int)(i % per_row) * CHUNK;
            *(fx_head_chunk *)(a.o + row * a.stride + at) =
                *(const fx_head_chunk *)(w.output[w.me] + (a.begin + row) * width + at);
        }
    if (!(a.when & FX_WINDOW_LAST) || !last_here(w, COLLECT_TICKET)) return;
    if (fx_tid() == 0) w.state[COLLECTED] = w.state[RETURNS];
    tell(w, TAKEN, group(w), w.state[BLOCKS]);
}

/* ---- launches ---- */

fx_dim3 grid_for(const fx_window *w, int64_t items, int per_cta)
{
    const int64_t ctas = (items + per_cta - 1) / per_cta;
    return fx_dim3((unsigned)(ctas < 1 ? 1 : ctas < w->ctas ? ctas : w->ctas));
}

const size_t shared_bytes = 2 * sizeof(uint32_t);

fx_status check_window(const fx_window *w)
{
    FX_CHECK(w->ranks >= 1 && w->ulysses >= 1 && w->ranks % w->ulysses == 0 && w->heads % w->ulysses == 0 &&
                 w->me >= 0 && w->me < w->ranks && w->head_dim % CHUNK == 0 && w->ctas >= 1,
             FX_ESHAPE, "window: rank %d of %d, ulysses %d, %d heads of %d", w->me, w->ranks, w->ulysses,
             w->heads, w->head_dim);
    return FX_OK;
}

fx_status take_part(put_args *a, int part, fx_tensor x, fx_tensor weight)
{
    put_part *p = &a->part[part];
    if (!fx_present(x)) return FX_OK;
    FX_CHECK(x.ndim == 3 && x.dtype == FX_BF16 && x.shape[1] == a->w.heads && x.shape[2] == a->w.head_dim &&
                 x.stride[2] == 1 && (uintptr_t)x.data % 16 == 0 &&
                 (x.stride[0] | x.stride[1]) % CHUNK == 0 && x.shape[0] == a->tokens,
             FX_ESHAPE, "window: part %d is not %lld rows of bf16 heads in chunks", part,
             (long long)a->tokens);
    p->x = (const uint16_t *)x.data;
    p->w = fx_present(weight) && part != FX_WINDOW_V ? (const float *)weight.data : nullptr;
    p->x_token = x.stride[0];
    p->x_head = x.stride[1];
    return FX_OK;
}

} // namespace

extern "C" fx_status FX_SLOT(window_put)(fx_backend *be, const fx_window *w, fx_tensor q, fx_tensor k,
                                         fx_tensor v, fx_tensor w_q, fx_tensor w_k, fx_tensor cs, float eps,
                                         const fx_window_rows rows[FX_WINDOW_RUNS])
{
    put_args a = {};
    FX_TRY(check_window(w));
    a.w = *w;
    a.eps = eps;
    if (fx_present(cs)) a.cs = (const float *)cs.data, a.cs_token = cs.stride[0];
    for (int r = 0; r < FX_WINDOW_RUNS; r++) a.rows[r] = rows[r], a.tokens += rows[r].count;
    FX_TRY(take_part(&a, FX_WINDOW_Q, q, w_q));
    FX_TRY(take_part(&a, FX_WINDOW_K, k, w_k));
    FX_TRY(take_part(&a, FX_WINDOW_V, v, fx_none()));
    const uintptr_t vectors =
        (uintptr_t)a.cs | (uintptr_t)a.part[FX_WINDOW_Q].w | (uintptr_t)a.part[FX_WINDOW_K].w;
    FX_CHECK(a.tokens * w->heads < (int64_t)1 << 31, FX_ESHAPE, "window: %lld rows", (long long)a.tokens);
    a.lanes = fx_head_lanes(w->head_dim, vectors, 0, a.cs_token);
    const fx_dim3 grid = grid_for(w, a.tokens * w->heads * w->head_dim / CHUNK, THREADS);
    return a.lanes ? FX_LAUNCH(be, grid, THREADS, shared_bytes, put_kernel<true>, a)
                   : FX_LAUNCH(be, grid, THREADS, shared_bytes, put_kernel<false>, a);
}

extern "C" fx_status FX_SLOT(window_wait)(fx_backend *be, const fx_window *w)
{
    FX_TRY(check_window(w));
    return FX_LAUNCH(be, fx_dim3(1), THREADS, shared_bytes, wait_kernel, *w);
}

extern "C" fx_status FX_SLOT(window_give_back)(fx_backend *be, const fx_window *w, fx_tensor o, int64_t begin,
                                               int64_t count, const fx_window_owner *owners, int n,
                                               unsigned when)
{
    FX_TRY(check_window(w));
    const return_args a = {*w, (const uint16_t *)o.data, begin, count, owners, n, when};
    const int64_t chunks = count * (w->heads / w->ulysses) * w->head_dim / CHUNK;
    FX_CHECK(!count || (fx_contiguous(o) && o.dtype == FX_BF16 && begin + count <= o.shape[0] && n > 0),
             FX_ESHAPE, "window: rows %lld of an output", (long long)(begin + count));
    return FX_LAUNCH(be, grid_for(w, chunks, THREADS), THREADS, shared_bytes, return_kernel, a);
}

extern "C" fx_status FX_SLOT(window_collect)(fx_backend *be, const fx_window *w, fx_tensor o, int64_t begin,
                                             int nth, unsigned when)
{
    FX_TRY(check_window(w));
    const collect_args a = {*w, (uint16_t *)o.data, o.stride[0], begin, o.shape[0], nth, when};
    const int64_t chunks = o.shape[0] * w->heads * w->head_dim / CHUNK;
    FX_CHECK(o.ndim == 2 && o.dtype == FX_BF16 && o.stride[1] == 1 && o.stride[0] % CHUNK == 0 &&
                 (uintptr_t)o.data % 16 == 0 && o.shape[1] == (int64_t)w->heads * w->head_dim,
             FX_ESHAPE, "window: an output of %lld columns in chunks is wanted",
             (long long)w->heads * (long long)w->head_dim);
    return FX_LAUNCH(be, grid_for(w, chunks, THREADS), THREADS, shared_bytes, collect_kernel, a);
}
