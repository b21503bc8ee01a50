/* The CPU twin of CUDA's execution model (kernels/twin/twin.cuh), by kernels that are right, racy or wrong: it must run
 * the right ones, make races show, and name what a GPU leaves undefined. */
#include <cstring>
#include <initializer_list>
#include <vector>

#include "kernels/cuda/divide.cuh"
#include "kernels/cuda/slots.h"
#include "runtime/io/checkpoint.h"
#include "tests/test.h"

namespace
{

fx_backend *const none = nullptr;

/* ---- right ---- */

FX_KERNEL numbers(int *out)
{
    out[fx_cta() * fx_twin_self().threads + fx_tid() + fx_cta_y() * fx_ctas() * fx_twin_self().threads] =
        (int)(1000 * fx_cta_y() + 100 * fx_cta() + fx_tid());
}

enum { TOTAL = 256 };

FX_KERNEL totals(double *out, int n)
{
    double *part = fx_shared<double>();
    double sum = 0;
    for (int i = fx_tid(); i < n; i += fx_twin_self().threads) sum += i;
    const double all = fx_cta_sum<TOTAL>(sum, part), most = fx_cta_max<TOTAL>((double)fx_tid(), part);
    if (fx_tid() == 0) out[2 * fx_cta()] = all, out[2 * fx_cta() + 1] = most;
}

/* Neighbours' values through shared memory: right with the barrier, racy without. */
FX_KERNEL neighbours(int *out, bool with_barrier)
{
    int *shared = fx_shared<int>();
    shared[fx_tid()] = fx_tid();
    if (with_barrier) fx_barrier();
    out[fx_cta() * fx_twin_self().threads + fx_tid()] = shared[(fx_tid() + 1) % fx_twin_self().threads];
}

FX_KERNEL count_up(unsigned long long *word)
{
    fx_atomic_add(word, 1);
}

/* Waits for the thread before it; the first waits for nobody. */
FX_KERNEL chain(volatile int *step)
{
    while (*step != fx_tid()) fx_pause();
    *step = fx_tid() + 1;
}

/* Into another rank's memory and what is there then. */
FX_KERNEL far_away(int *to, int *seen, bool with_fence)
{
    fx_put_far(to + fx_tid(), fx_tid() + 1);
    if (with_fence) fx_fence_system();
    seen[fx_tid()] = to[fx_tid()];
}

/* ---- wrong ---- */

FX_KERNEL divergent()
{
    if (fx_tid() < 40) fx_barrier();
}
FX_KERNEL lanes_missing()
{
    if (fx_tid() % 32 < 16) (void)fx_swap_xor(1.0f, 1);
}
FX_KERNEL unequal_distance()
{
    (void)fx_swap_xor(1.0f, fx_tid() % 32 == 3 ? 2 : 1);
}
FX_KERNEL reads_poison(float *out)
{
    if (fx_tid() == 0) out[0] = fx_shared<float>()[5];
}

void right_kernels()
{
    std::vector<int> out(3 * 4 * 64, -1);
    T_OK(FX_LAUNCH(none, fx_dim3(4, 3), 64, 0, numbers, out.data()));
    int bad = 0;
    for (int y = 0; y < 3; y++)
        for (int x = 0; x < 4; x++)
            for (int t = 0; t < 64; t++) bad += out[(size_t)((y * 4 + x) * 64 + t)] != 1000 * y + 100 * x + t;
    T_CHECK(!bad, "%d threads have other numbers", bad);

    double sums[10];
    T_OK(FX_LAUNCH(none, fx_dim3(5), TOTAL, 8 * sizeof(double), totals, sums, 1001));
    for (int i = 0; i < 5; i++) T_CHECK(sums[2 * i] == 500500 && sums[2 * i + 1] == 255, "CTA %d", i);

    std::vector<int> next(1024 * 3);
    T_OK(FX_LAUNCH(none, fx_dim3(3), 1024, 4096, neighbours, next.data(), true));
    for (int i = 0; i < 3072; i++) bad += next[(size_t)i] != (i + 1) % 1024;
    T_CHECK(!bad, "%d threads saw another neighbour", bad);

    unsigned long long word = 0;
    T_OK(FX_LAUNCH(none, fx_dim3(9), 96, 0, count_up, &word));
    T_CHECK(word == 9 * 96, "%llu", word);

    int step = 0;
    T_OK(FX_LAUNCH(none, fx_dim3(1), 128, 0, chain, &step));
    T_CHECK(step == 128, "a chain of waits ended at %d", step);
}

/* Without its barrier the kernel must go wrong in nearly every order. */
void races_show()
{
    int wrong = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        int out[64], bad = 0;
        fx_twin_seed(seed);
        T_OK(FX_LAUNCH(none, fx_dim3(1), 64, 256, neighbours, out, false));
        for (int i = 0; i < 64; i++) bad += out[i] != (i + 1) % 64;
        wrong += bad > 0;
    }
    T_CHECK(wrong >= 19, "a race showed in %d of 20 orders", wrong);
}

/* A far store is there behind a fence, else when its launch has ended. */
void far_stores_need_fences()
{
    for (int with_fence = 0; with_fence < 2; with_fence++) {
        int to[64] = {}, seen[64], early = 0, bad = 0;
        T_OK(FX_LAUNCH(none, fx_dim3(1), 64, 0, far_away, to, seen, with_fence != 0));
        for (int i = 0; i < 64; i++) early += seen[i] == i + 1, bad += to[i] != i + 1;
        T_CHECK(early == 64 * with_fence && !bad,
                "fence %d: %d of 64 stores were there at once, %d never came", with_fence, early, bad);
    }
    uint32_t word = 0;
    for (uint32_t i = 0; i < 7; i++) {
        const uint32_t got = fx_ticket(&word, 2);
        T_CHECK(got == i % 3, "ticket %u is %u", i, got);
    }
}

void orders_differ_and_repeat()
{
    int first[64], again[64], other[64];
    fx_twin_seed(5);
    T_OK(FX_LAUNCH(none, fx_dim3(1), 64, 256, neighbours, first, false));
    fx_twin_seed(5);
    T_OK(FX_LAUNCH(none, fx_dim3(1), 64, 256, neighbours, again, false));
    fx_twin_seed(6);
    T_OK(FX_LAUNCH(none, fx_dim3(1), 64, 256, neighbours, other, false));
    T_CHECK(!memcmp(first, again, sizeof first), "a seed does not repeat");
    T_CHECK(memcmp(first, other, sizeof first), "two seeds give one order");
}

void poison_shows()
{
    float out = 0;
    T_OK(FX_LAUNCH(none, fx_dim3(1), 32, 64, reads_poison, &out));
    T_CHECK(!(out > -1e30f && out < 1e30f), "shared memory begins as %g", (double)out);
}

void refused(fx_status st, const char *words)
{
    T_CHECK(st == FX_EDEVICE && strstr(fx_error(), words), "status %d, '%s'; want '%s'", (int)st, fx_error(),
            words);
}

void wrong_kernels()
{
    refused(FX_LAUNCH(none, fx_dim3(1), 64, 0, divergent), "40 wait at a barrier");
    refused(FX_LAUNCH(none, fx_dim3(1), 32, 0, lanes_missing), "16 in a shuffle and 16 have ended");
    refused(FX_LAUNCH(none, fx_dim3(1), 32, 0, unequal_distance), "different distances");
    refused(FX_LAUNCH(none, fx_dim3(1), 1025, 0, divergent), "1025 threads");
    refused(FX_LAUNCH(none, fx_dim3(1), 32, 300000, divergent), "300000 bytes");
    double sums[2]; /* and the machine still works */
    T_OK(FX_LAUNCH(none, fx_dim3(1), TOTAL, 8 * sizeof(double), totals, sums, 11));
    T_CHECK(sums[0] == 55, "after errors: %g", sums[0]);
}

/* ---- quotients by multiplication ---- */

void quotients()
{
    for (int64_t by : {1, 2, 3, 5, 6, 7, 24, 1023, 65535, 65536, 65537, 1 << 20}) {
        const fx_divisor d = fx_divide_by(by);
        const int64_t end = ((int64_t)1 << 32) / by; /* the first that is not promised */
        int wrong = 0;
        for (int64_t n = 0; n < end; n += n < 4096 || n > end - 4096 ? 1 : end / 9973 + 1)
            for (int64_t m : {n, n / by * by, n / by * by + by - 1}) /* where a quotient begins and ends */
                if (m < end) wrong += !fx_divides(d, m) || fx_over(d, (uint32_t)m) != (uint32_t)(m / by);
        T_CHECK(!wrong && !fx_divides(d, end) && !fx_divides(d, -1), "%d quotients by %d are wrong", wrong,
                (int)by);
    }
}

/* ---- values drawn on the device ---- */

void drawn_as_on_the_host()
{
    const int64_t n = 3000;
    const struct {
        uint64_t key, first;
        float amp, mean;
    } rows[] = {{1, 0, 1, 0},
                {0x123456789abcdefu, 77, 0.02f, 0},
                {5, (uint64_t)1 << 33, 0.1f, 1},
                {~(uint64_t)0, 3, 0.3f, -2}};
    for (const auto &r : rows) {
        std::vector<float> want((size_t)n), wide((size_t)n);
        std::vector<uint16_t> narrow((size_t)n);
        fx_synthetic_fill(r.key, r.first, n, r.amp, r.mean, want.data());
        T_OK(fx_twin_draw(none, wide.data(), FX_F32, n, r.key, r.first, r.amp, r.mean));
        T_OK(fx_twin_draw(none, narrow.data(), FX_BF16, n, r.key, r.first, r.amp, r.mean));
        int64_t bad = 0;
        for (size_t i = 0; i < (size_t)n; i++)
            bad += narrow[i] != fx_f32_to_bf16(want[i]) || wide[i] != fx_bf16_to_f32(narrow[i]);
        T_CHECK(bad == 0, "key %llx: %lld of %lld values differ", (unsigned long long)r.key, (long long)bad,
                (long long)n);
    }
}

void a_bit_changes_the_digest()
{
    std::vector<uint16_t> x(5000, 7);
    unsigned long long first, other;
    T_OK(fx_twin_digest(none, x.data(), (int64_t)x.size(), &first));
    T_OK(fx_twin_digest(none, x.data(), (int64_t)x.size(), &other));
    T_CHECK(first == other, "the same values: %llx and %llx", first, other);
    for (size_t i = 0; i < x.size(); i += 499) {
        x[i] ^= 1;
        T_OK(fx_twin_digest(none, x.data(), (int64_t)x.size(), &other));
        T_CHECK(first != other, "a changed bit in word %zu is not seen", i);
        x[i] ^= 1;
    }
    std::swap(x[3] = 9, x[4]);
    T_OK(fx_twin_digest(none, x.data(), (int64_t)x.size(), &first));
    std::swap(x[3], x[4]);
    T_OK(fx_twin_digest(none, x.data(), (int64_t)x.size(), &other));
    T_CHECK(first != other, "two words may change places");
}

/* What a device is refused by: the build's list of architectures. */
void archs_decide()
{
    const struct {
        const char *archs;
        std::vector<int> runs, not_;
    } each[] = {{"90a,100a", {90, 100}, {75, 80, 86, 89, 91, 101, 103, 120}},
                {"90a,100a,103a,120a,90-virtual", {90, 100, 103, 110, 120, 121}, {70, 80, 89}},
                {"90-real,100f", {90, 91, 100, 103}, {89, 88, 110, 120}},
                {"103f", {103, 109}, {100, 113}},
                {"80", {80, 86, 90, 100}, {75}},
                {"", {}, {90}}};
    for (const auto &e : each) {
        for (int sm : e.runs) T_CHECK(fx_cuda_has_code(e.archs, sm), "'%s' has no code for %d", e.archs, sm);
        for (int sm : e.not_) T_CHECK(!fx_cuda_has_code(e.archs, sm), "'%s' has code for %d", e.archs, sm);
    }
}

} // namespace

int main()
{
    archs_decide();
    right_kernels();
    races_show();
    far_stores_need_fences();
    orders_differ_and_repeat();
    poison_shows();
    wrong_kernels();
    quotients();
    drawn_as_on_the_host();
    a_bit_changes_the_digest();
    return test_end("t_twin");
}
