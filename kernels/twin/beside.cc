/* Copies beside the launches of this OS thread (kernels/window.h: send, join), as a copy engine may do them: one after the other,
 * bytes of one in pieces, at the begin of launches and while a kernel waits, or only at the join: whatever does not wait for
 * them comes too early. A word of 32 bits is stored at once, after what was copied before it. */
#include <deque>

#include "kernels/cuda/slots.h"
#include "kernels/twin/far.cuh"
#include "kernels/twin/twin.cuh"

namespace
{

struct piece {
    fx_window_copy copy;
    size_t done; /* bytes */
};
struct branch {
    std::deque<piece> left;
    bool open;
};

branch &mine()
{
    static thread_local branch b;
    return b;
}

void copy_word(const fx_window_copy &c)
{
    const uint32_t word = __atomic_load_n((const uint32_t *)c.from, __ATOMIC_RELAXED);
    __atomic_store_n((uint32_t *)c.to, word, __ATOMIC_RELEASE);
}

/* Bytes of the first copy, up to some place in it. */
void step(branch &b)
{
    piece &p = b.left.front();
    const fx_window_copy &c = p.copy;
    if (c.bytes == sizeof(uint32_t)) {
        copy_word(c);
        p.done = c.bytes;
    } else if (p.done < c.bytes) {
        const size_t more = 1 + fx_twin_draw() % (c.bytes - p.done);
        memcpy((char *)c.to + p.done, (const char *)c.from + p.done, more);
        p.done += more;
    }
    if (p.done == c.bytes) b.left.pop_front();
}

} // namespace

void fx_twin_beside_some()
{
    branch &b = mine();
    while (!b.left.empty() && fx_twin_draw() % 4) step(b);
}

bool fx_twin_window_under_way(const fx_backend *)
{
    return mine().open;
}

fx_status fx_twin_window_send(fx_backend *, const fx_window_copy copies[], int n)
{
    mine().open = true;
    for (int i = 0; i < n; i++) mine().left.push_back({copies[i], 0});
    if (fx_twin_draw() % 4 == 0) fx_twin_beside_some();
    return FX_OK;
}

fx_status fx_twin_window_join(fx_backend *)
{
    branch &b = mine();
    while (!b.left.empty()) step(b);
    b.open = false;
    return FX_OK;
}
