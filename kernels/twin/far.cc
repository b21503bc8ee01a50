/* Stores into other ranks' memory, each as late as its kernel allows: a store waits for a fence of its thread, or of one that its
 * thread has met at a barrier since; without one it comes after the launch. */
#include "kernels/twin/far.cuh"

#include <unistd.h>

#include <vector>

#include "kernels/twin/twin.cuh"

namespace
{

enum { FAR = 256, FAR_US = 300 }; /* far stores under way at most; how late those without a fence are */

struct far_store {
    uint64_t serial; /* of the fiber */
    int64_t cta, cta_y;
    bool known; /* to the whole CTA: its thread has met the others at a barrier since */
    void *to;
    size_t bytes;
    unsigned char value[16];
};

std::vector<far_store> &under_way()
{
    static thread_local std::vector<far_store> far;
    return far;
}

void arrive(size_t i)
{
    std::vector<far_store> &far = under_way();
    memcpy(far[i].to, far[i].value, far[i].bytes);
    far[i] = far.back();
    far.pop_back();
}

bool of_this_cta(const far_store &s)
{
    return s.cta == fx_twin_self().cta && s.cta_y == fx_twin_self().cta_y;
}

} // namespace

void fx_twin_far(void *to, const void *from, size_t bytes)
{
    std::vector<far_store> &far = under_way();
    far_store s = {fx_twin_serial(), fx_twin_self().cta, fx_twin_self().cta_y, false, to, bytes, {}};
    if (bytes > sizeof s.value) return fx_twin_fault("a far store of more than 16 bytes");
    memcpy(s.value, from, bytes);
    if (far.size() == FAR) arrive(fx_twin_draw() % FAR);
    far.push_back(s);
}

void fx_twin_fence()
{
    std::vector<far_store> &far = under_way();
    for (size_t i = far.size(); i--;)
        if (far[i].serial == fx_twin_serial() || (far[i].known && of_this_cta(far[i]))) arrive(i);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void fx_twin_far_meet()
{
    for (far_store &s : under_way()) s.known |= of_this_cta(s);
}

/* ---- the end of a launch ---- */

void fx_twin_far_end()
{
    std::vector<far_store> &far = under_way();
    if (!far.empty())
        usleep(
            FAR_US); /* no fence has waited for these: after what the kernel has told others, in any order */
    while (!far.empty()) arrive(fx_twin_draw() % far.size());
}

void fx_twin_far_forget()
{
    under_way().clear();
}
