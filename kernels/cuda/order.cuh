/* Who waits for whom among ranks that store into each other's memory: counters that lie there, written by one rank each. They
 * only grow and are compared by difference. For scatter.cu; contract: kernels/window.h. */
#ifndef FX_KERNELS_CUDA_ORDER_CUH
#define FX_KERNELS_CUDA_ORDER_CUH

#include "kernels/cuda/device.cuh"
#include "kernels/window.h"

namespace
{

enum { THREADS = 128 };    /* of a CTA */
enum { SHARED_WORDS = 4 }; /* at the beginning of its shared memory; the first is used */
/* Counters that rank r keeps here, one word per rank, in the order of FX_LATE_*. */
enum counter { ROWS, FREED, OUTPUT };
/* Words of this rank's own: blocks that it has given back, a wait was in vain; a ticket per kernel. */
enum word { BLOCKS, FAILED, PUT_TICKET, RETURN_TICKET, WORDS };
static_assert((int)WORDS <= (int)FX_WINDOW_TOLD_ROWS && (int)FX_WINDOW_TOLD_ROWS < (int)FX_WINDOW_STATE &&
                  (int)OUTPUT + 1 == (int)FX_WINDOW_COUNTERS,
              "room for all");

/* ---- host ---- */

inline fx_status check_window(const fx_window *w)
{
    FX_CHECK(w->ranks >= 1 && w->ulysses >= 1 && w->ranks % w->ulysses == 0 && w->heads % w->ulysses == 0 &&
                 w->me >= 0 && w->me < w->ranks && w->head_dim % 8 == 0 && w->output_row % 8 == 0 &&
                 w->recv_row % 8 == 0 && w->ctas >= 1,
             FX_ESHAPE, "window: rank %d of %d, ulysses %d, %d heads of %d", w->me, w->ranks, w->ulysses,
             w->heads, w->head_dim);
    return FX_OK;
}

/* ---- device ---- */

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

/* A wait of an earlier kernel was in vain. */
FX_DEVICE bool failed(const fx_window &w)
{
    return w.state[FAILED] != 0;
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

/* Until these ranks' counters here have come to `value`, the same answer in all threads of the CTA; false: not all in time,
 * and they are named, or failed before. */
FX_DEVICE bool await(const fx_window &w, counter what, ranks who, uint32_t value)
{
    uint32_t *in_vain = fx_shared<uint32_t>();
    if (fx_tid() == 0) *in_vain = 0;
    fx_barrier();
    const bool before = failed(w);
    if (before) *in_vain = 1;
    for (int i = fx_tid(); !before && i < who.count; i += THREADS) {
        const int rank = who.first + i;
        if (comes_to(w.counters[w.me] + what * w.ranks + rank, value, w.limit_ns)) continue;
        fx_store_release(w.late + rank, (uint32_t)what + 1);
        fx_store_release(w.state + FAILED, 1);
        *in_vain = 1;
    }
    fx_barrier();
    const bool came = !*in_vain;
    fx_barrier(); /* the word is free again */
    return came;
}

FX_DEVICE void tell(const fx_window &w, counter what, ranks who, uint32_t value)
{
    for (int i = fx_tid(); i < who.count; i += THREADS)
        fx_store_release(w.counters[who.first + i] + what * w.ranks + w.me, value);
}

/* What a copy will tell the others: that they have this rank's rows up to `block`; this rank knows at once. Not fine: what was
 * told before, once more. */
FX_DEVICE void write_down(const fx_window &w, bool fine, uint32_t block)
{
    uint32_t *mine = w.counters[w.me] + ROWS * w.ranks + w.me;
    if (fx_tid() != 0) return;
    if (fine) fx_store_release(mine, block);
    w.state[FX_WINDOW_TOLD_ROWS] = *mine;
}

/* In all threads of the CTA that comes here last, when all that the kernel has stored and read is done; false in all CTAs when
 * one has waited in vain. */
FX_DEVICE bool last_here(const fx_window &w, word ticket)
{
    uint32_t *is_last = fx_shared<uint32_t>();
    fx_barrier();
    if (fx_tid() == 0) {
        const uint32_t last = (uint32_t)fx_ctas() - 1;
        fx_fence_system(); /* this CTA's share: the barrier has brought it together */
        *is_last = fx_ticket(w.state + ticket, last) == last;
        if (*is_last) fx_fence_system(); /* the other CTAs' */
        if (*is_last && fx_load_acquire(w.state + FAILED)) *is_last = 0;
    }
    fx_barrier();
    return *is_last != 0;
}

} // namespace

#endif
