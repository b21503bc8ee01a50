/* Fibers and their scheduler; see twin.cuh. A CTA's threads are fibers with stacks of their own; the scheduler picks
 * one of those that can run at random, until all have ended. Up to RESIDENT CTAs run side by side, so that kernels
 * which talk across CTAs are mixed too. */
#include "kernels/twin/far.cuh"
#include "kernels/twin/twin.cuh"

#include <sched.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace
{

enum { RESIDENT = 2, MAX_THREADS = 1024, STACK = 64 << 10, WARP = 32 };
enum { MAX_SHARED = 227 << 10 }; /* bytes a CTA may ask for, sm_90 and sm_100 */
enum state { READY, AT_BARRIER, AT_SWAP, ENDED };

/* ---- switching ---- */

#if defined(__x86_64__)
/* Keeps what a call must keep (System V), nothing else: 2 ns, where swapcontext asks the kernel. */
extern "C" void fx_twin_switch(void **from, void *to);
__asm__(
    ".text\n.globl fx_twin_switch\n.hidden fx_twin_switch\n.type fx_twin_switch,@function\nfx_twin_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
    ".size fx_twin_switch,.-fx_twin_switch\n");
typedef void *context;

void prepare(context &c, void *stack, void (*entry)())
{
    void **top = reinterpret_cast<void **>(static_cast<char *>(stack) + STACK);
    *--top = nullptr; /* where entry would return to; keeps the stack aligned as after a call */
    *--top = reinterpret_cast<void *>(entry);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    c = top;
}

void switch_to(context &from, context &to)
{
    fx_twin_switch(&from, to);
}
#else
typedef ucontext_t context;

void prepare(context &c, void *stack, void (*entry)())
{
    getcontext(&c);
    c.uc_stack.ss_sp = stack;
    c.uc_stack.ss_size = STACK;
    c.uc_link = nullptr;
    makecontext(&c, entry, 0);
}

void switch_to(context &from, context &to)
{
    swapcontext(&from, &to);
}
#endif

/* ---- what runs ---- */

struct warp {
    uint64_t value[2][WARP]; /* two, so that a fast lane does not overwrite what a slow one still reads */
    int arrived, lanes, round, xor_lanes;
};

struct cta;
struct fiber {
    fx_twin_thread self;
    context at;
    cta *home;
    warp *group;
    state is;
    uint64_t serial; /* no other fiber of the machine ever had it */
};

struct cta {
    std::vector<fiber> fibers;
    std::vector<warp> warps;
    std::vector<unsigned char> shared;
    int waiting, ended;
};

struct machine {
    std::vector<void *> stacks; /* of RESIDENT * MAX_THREADS fibers, made when first needed */
    const std::function<void()> *body;
    const char *kernel;
    std::string fault;
    fiber *now;
    context scheduler;
    uint64_t random, serial;
    fx_twin_counts counts;

    ~machine()
    {
        for (void *s : stacks) munmap(s, STACK);
    }
};

machine &mine()
{
    static thread_local std::unique_ptr<machine> m;
    if (!m) {
        m.reset(new machine());
        m->random = 88172645463325252u;
    }
    return *m;
}

uint64_t draw(machine &m)
{
    m.random ^= m.random << 13;
    m.random ^= m.random >> 7;
    m.random ^= m.random << 17;
    return m.random;
}

void give_up(machine &m, const char *what)
{
    if (m.fault.empty()) m.fault = what;
}

/* Back to the scheduler; returns when this fiber is picked again. */
void leave(machine &m)
{
    m.counts.switches++;
    switch_to(m.now->at, m.scheduler);
}

void run_fiber()
{
    machine &m = mine();
    (*m.body)();
    m.now->is = ENDED;
    m.now->home->ended++;
    for (;;) leave(m); /* once: an ended fiber is not picked again */
}

void *stack_of(machine &m, size_t index)
{
    while (m.stacks.size() <= index) {
        void *s =
            mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
        if (s == MAP_FAILED) return nullptr;
        m.stacks.push_back(s);
    }
    return m.stacks[index];
}

bool start(machine &m, cta &c, size_t slot, int64_t x, int64_t y, fx_dim3 grid, unsigned threads,
           size_t shared)
{
    c.fibers.assign(threads, fiber());
    c.warps.assign((threads + WARP - 1) / WARP, warp());
    c.shared.resize(shared + 16);
    for (unsigned char &byte : c.shared) byte = (unsigned char)(draw(m) >> 32 | 0xf0); /* large or NaN */
    c.waiting = c.ended = 0;
    unsigned char *base = c.shared.data() + 15;
    base -= reinterpret_cast<uintptr_t>(base) % 16;
    for (unsigned t = 0; t < threads; t++) {
        fiber &f = c.fibers[t];
        void *stack = stack_of(m, slot * MAX_THREADS + t);
        if (!stack) return false;
        f.self = {(int)t, (int)threads, x, y, (int64_t)grid.x, base};
        f.home = &c;
        f.serial = ++m.serial;
        f.group = &c.warps[t / WARP];
        f.group->lanes++;
        prepare(f.at, stack, run_fiber);
    }
    return true;
}

/* Runs the resident CTAs until one has ended; false: all that is left waits for what cannot come. */
bool run_some(machine &m, std::vector<cta *> &live)
{
    std::vector<fiber *> ready;
    for (;;) {
        ready.clear();
        for (cta *c : live) {
            if (c->ended == (int)c->fibers.size()) return true;
            for (fiber &f : c->fibers)
                if (f.is == READY) ready.push_back(&f);
        }
        if (ready.empty() || !m.fault.empty()) return false;
        for (size_t n = ready.size(); n; n--) { /* each once, in random order */
            const size_t pick = draw(m) % n;
            fiber *f = ready[pick];
            ready[pick] = ready[n - 1];
            if (f->is != READY) continue;
            m.now = f;
            switch_to(m.scheduler, f->at);
        }
    }
}

std::string stuck(const std::vector<cta *> &live)
{
    for (const cta *c : live) {
        int barrier = 0, swap = 0;
        for (const fiber &f : c->fibers) barrier += f.is == AT_BARRIER, swap += f.is == AT_SWAP;
        if (barrier || swap)
            return "CTA " + std::to_string(c->fibers[0].self.cta) + ": of " +
                   std::to_string(c->fibers.size()) + " threads " + std::to_string(barrier) +
                   " wait at a barrier, " + std::to_string(swap) + " in a shuffle and " +
                   std::to_string(c->ended) + " have ended; none can go on";
    }
    return "nothing can go on";
}

} // namespace

/* ---- the kernel's side ---- */

const fx_twin_thread &fx_twin_self()
{
    return mine().now->self;
}

void fx_twin_barrier()
{
    machine &m = mine();
    cta *c = m.now->home;
    if (++c->waiting < (int)c->fibers.size()) {
        m.now->is = AT_BARRIER;
        leave(m);
        return;
    }
    c->waiting = 0;
    for (fiber &f : c->fibers)
        if (f.is == AT_BARRIER) f.is = READY;
    fx_twin_far_meet();
}

uint64_t fx_twin_swap(uint64_t value, int lanes)
{
    machine &m = mine();
    fiber *f = m.now;
    warp *w = f->group;
    const int lane = f->self.tid % WARP, other = lane ^ lanes, round = w->round;
    if (w->arrived && w->xor_lanes != lanes) give_up(m, "lanes of one warp shuffle over different distances");
    w->xor_lanes = lanes;
    w->value[round & 1][lane] = value;
    if (++w->arrived < w->lanes) {
        f->is = AT_SWAP;
        leave(m);
    } else {
        w->arrived = 0;
        w->round++;
        for (fiber &g : f->home->fibers)
            if (g.group == w && g.is == AT_SWAP) g.is = READY;
    }
    if (other >= w->lanes) give_up(m, "a shuffle reads a lane that does not exist");
    return w->value[round & 1][other & (WARP - 1)];
}

void fx_twin_pause()
{
    fx_twin_beside_some();
    sched_yield(); /* the peer it waits for may be a rank, which is an OS thread */
    leave(mine());
}

uint64_t fx_twin_serial()
{
    return mine().now->serial;
}

uint64_t fx_twin_draw()
{
    return draw(mine());
}

void fx_twin_fault(const char *what)
{
    give_up(mine(), what);
}

uint64_t fx_twin_clock_ns()
{
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- the host's side ---- */

void fx_twin_seed(uint64_t seed)
{
    mine().random = (seed + 1) * 0x9e3779b97f4a7c15u | 1;
}

fx_twin_counts fx_twin_count(void)
{
    return mine().counts;
}

fx_status fx_twin_launch(const char *kernel, fx_dim3 grid, unsigned threads, size_t shared_bytes,
                         const std::function<void()> &body)
{
    machine &m = mine();
    FX_CHECK(threads >= 1 && threads <= MAX_THREADS && shared_bytes <= MAX_SHARED && grid.x && grid.y,
             FX_EDEVICE, "%s: launch of %u x %u CTAs of %u threads with %zu bytes of shared memory", kernel,
             grid.x, grid.y, threads, shared_bytes);
    m.body = &body;
    m.kernel = kernel;
    m.fault.clear();
    m.counts.launches++;
    fx_twin_beside_some();
    std::vector<int64_t> order((size_t)grid.x * grid.y);
    for (size_t i = 0; i < order.size(); i++) order[i] = (int64_t)i;
    for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[draw(m) % i]);
    cta store[RESIDENT];
    std::vector<cta *> live;
    size_t next = 0;
    bool memory = true;
    for (;;) {
        for (size_t slot = 0; slot < RESIDENT && next < order.size() && memory; slot++) {
            cta *c = &store[slot];
            bool free_slot = true;
            for (cta *l : live) free_slot &= l != c;
            if (!free_slot) continue;
            memory =
                start(m, *c, slot, order[next] % grid.x, order[next] / grid.x, grid, threads, shared_bytes);
            live.push_back(c);
            m.counts.ctas++;
            next++;
        }
        FX_CHECK(memory, FX_ENOMEM, "%s: no memory for the stacks of its threads", kernel);
        if (live.empty()) break;
        if (!run_some(m, live)) {
            fx_twin_far_forget();
            const std::string why = m.fault.empty() ? stuck(live) : m.fault;
            return FX_FAIL(FX_EDEVICE, "%s: %s", kernel, why.c_str());
        }
        for (size_t i = live.size(); i--;)
            if (live[i]->ended == (int)live[i]->fibers.size()) live.erase(live.begin() + (long)i);
    }
    fx_twin_far_end();
    FX_CHECK(m.fault.empty(), FX_EDEVICE, "%s: %s", kernel, m.fault.c_str());
    return FX_OK;
}
