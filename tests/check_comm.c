/* The transport contract on 1..8 ranks: exact integer payloads, transfers in flight together, uneven and
 * empty counts, collectives, votes, splits, shared memory of a node. Run under mpirun by tests/sh_mpi.sh;
 * alone it tests one rank. */
#include "parallel/comm.h"
#include "parallel/node_share.h"
#include "tests/comm/comm_test.h"
#include "tests/test_ranks.h"

enum { MOST = 16, WORDS = 4096 };

/* The payload: word i of a message. Mixed, so that no message is another one shifted. */
static uint32_t value(int from, int to, int round, int i)
{
    uint32_t h = (uint32_t)from * 2654435761u + (uint32_t)to * 40503u + (uint32_t)round * 0x9e3779b9u;
    h = (h ^ h >> 15 ^ (uint32_t)i) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    return h ^ h >> 16;
}

/* Bytes from one rank to another in a round: uneven, odd, often none; up to 16 KiB, so eager and large messages.
 */
static int length(int from, int to, int round)
{
    const uint32_t h = value(from, to, round, 12345) >> 7;
    if (h % 3 == 0) return 0;
    return h % 5 == 0 ? WORDS * 4 : (int)(h % 2400);
}

typedef struct flight {
    uint32_t *out, *in; /* [size][2][WORDS] */
    fx_ticket ticket;
} flight;

static void launch(fx_comm *c, flight *f, int round)
{
    fx_xfer send[2 * MOST], recv[2 * MOST];
    const int me = fx_comm_rank(c), size = fx_comm_size(c);
    int n = 0;
    memset(f->in, 0xee, (size_t)size * 2 * WORDS * 4);
    for (int p = 0; p < size; p++)
        for (int k = 0; k < 2; k++, n++) { /* two messages per pair, told apart by their order only */
            uint32_t *out = f->out + n * WORDS;
            for (int i = 0; i < WORDS; i++) out[i] = value(me, p, 2 * round + k, i);
            send[n] = (fx_xfer){p, out, (size_t)length(me, p, 2 * round + k)};
            recv[n] = (fx_xfer){p, f->in + n * WORDS, (size_t)length(p, me, 2 * round + k)};
        }
    T_OK(fx_comm_transfer(c, n, send, n, recv, &f->ticket));
}

static int wrong_bytes(const uint32_t *in, int from, int to, int round)
{
    const int n = length(from, to, round);
    int bad = 0;
    for (int i = 0; i < WORDS; i++) {
        uint32_t want = value(from, to, round, i);
        const int sent = n - 4 * i; /* bytes of this word and the following ones that were sent */
        if (sent < 4) memset((char *)&want + (sent > 0 ? sent : 0), 0xee, (size_t)(sent > 0 ? 4 - sent : 4));
        bad += in[i] != want;
    }
    return bad;
}

/* The source is overwritten right after its wait: the others must get what it held before, and so must the
 * transfers still in flight. */
static void land(fx_comm *c, flight *f, int round)
{
    const int me = fx_comm_rank(c), size = fx_comm_size(c);
    int bad = 0;
    T_OK(fx_comm_wait(c, &f->ticket));
    memset(f->out, 0xdd, (size_t)size * 2 * WORDS * 4);
    T_OK(fx_comm_wait(c, &f->ticket)); /* nothing pending any more */
    for (int p = 0; p < size; p++)
        for (int k = 0; k < 2; k++) bad += wrong_bytes(f->in + (p * 2 + k) * WORDS, p, me, 2 * round + k);
    T_CHECK(bad == 0, "rank %d round %d: %d wrong words", me, round, bad);
}

/* Two (and three) tickets in flight, waited for in the order they began and in the other; ranks disagree too. */
static void test_transfers(fx_comm *c, int flights)
{
    enum { FLIGHTS = 3 };
    flight f[FLIGHTS];
    for (int k = 0; k < FLIGHTS; k++) {
        f[k].out = malloc((size_t)fx_comm_size(c) * 2 * WORDS * 4);
        f[k].in = malloc((size_t)fx_comm_size(c) * 2 * WORDS * 4);
    }
    for (int round = 0; round < 12; round++) {
        const bool reverse = (round / 2 + (round % 2 ? fx_comm_rank(c) : 0)) % 2;
        for (int k = 0; k < flights; k++) launch(c, &f[k], FLIGHTS * round + k);
        T_OK(fx_comm_progress(c));
        for (int k = 0; k < flights; k++) {
            const int which = reverse ? flights - 1 - k : k;
            land(c, &f[which], FLIGHTS * round + which);
        }
    }
    for (int k = 0; k < FLIGHTS; k++) {
        free(f[k].out);
        free(f[k].in);
    }
}

static void test_bad_calls(fx_comm *c)
{
    char a[8] = "";
    fx_ticket t;
    const fx_xfer nobody = {fx_comm_size(c), a, 1}, self = {fx_comm_rank(c), a, 4};
    T_CHECK(fx_comm_transfer(c, 1, &nobody, 0, NULL, &t) == FX_EINVAL, "a peer that is not there");
    T_CHECK(fx_comm_transfer(c, 1, &self, 0, NULL, &t) == FX_EINVAL, "to itself without a receive");
    T_CHECK(fx_comm_broadcast(c, -1, a, 1) == FX_EINVAL, "root -1");
    T_OK(fx_comm_barrier(c)); /* wrong arguments are not a broken communicator */
}

/* A ticket is good once, also when its slot is in use again. */
static void test_tickets(fx_comm *c)
{
    uint32_t a = 1, b = 2;
    fx_ticket t, old;
    const int me = fx_comm_rank(c), size = fx_comm_size(c);
    const fx_xfer out = {(me + 1) % size, &a, 4}, in = {(me + size - 1) % size, &b, 4};
    T_OK(fx_comm_transfer(c, 1, &out, 1, &in, &t));
    old = t;
    T_OK(fx_comm_wait(c, &t));
    T_OK(fx_comm_transfer(c, 1, &out, 1, &in, &t));
    T_CHECK(fx_comm_wait(c, &old) == (size > 1 ? FX_EINVAL : FX_OK), "an old ticket");
    T_OK(fx_comm_wait(c, &t));
}

/* Collectives do not mix with transfers, whatever comes first on a rank. */
static void test_lanes(fx_comm *c)
{
    uint32_t a = 0xabcd0000u + (uint32_t)fx_comm_rank(c), b = 0;
    int64_t sum = 1;
    fx_ticket t;
    const int me = fx_comm_rank(c), size = fx_comm_size(c), left = (me + size - 1) % size;
    const fx_xfer out = {(me + 1) % size, &a, 4}, in = {left, &b, 4};
    if (me % 2) T_OK(fx_comm_all_reduce_i64(c, FX_SUM, &sum, 1));
    T_OK(fx_comm_transfer(c, 1, &out, 1, &in, &t));
    if (me % 2 == 0) T_OK(fx_comm_all_reduce_i64(c, FX_SUM, &sum, 1));
    T_OK(fx_comm_wait(c, &t));
    T_CHECK(b == 0xabcd0000u + (uint32_t)left && sum == size, "%x, sum %lld", b, (long long)sum);
}

static void test_broadcast(fx_comm *c)
{
    static const size_t sizes[] = {0, 1, 1000, 65536, 65537, 1500000};
    unsigned char *data = malloc(1500000);
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++)
        for (int root = 0; root < fx_comm_size(c); root++) {
            size_t bad = 0;
            for (size_t i = 0; i < sizes[k]; i++)
                data[i] = fx_comm_rank(c) == root ? (unsigned char)(i * 7 + (size_t)root) : 0xff;
            T_OK(fx_comm_broadcast(c, root, data, sizes[k]));
            for (size_t i = 0; i < sizes[k]; i++) bad += data[i] != (unsigned char)(i * 7 + (size_t)root);
            T_CHECK(bad == 0, "%zu bytes from %d: %zu wrong", sizes[k], root, bad);
        }
    free(data);
}

static void test_gather(fx_comm *c)
{
    const int me = fx_comm_rank(c), size = fx_comm_size(c);
    size_t bytes[MOST], offset[MOST], total = 0;
    for (int r = 0; r < size; r++) {
        bytes[r] = (size_t)(r * r * 5 % 23) * 100; /* rank 0 brings nothing */
        offset[r] = total + 3;
        total += bytes[r] + 3;
    }
    char *mine = malloc(bytes[me] + 1), *all = malloc(total + 1);
    for (int in_place = 0; in_place < 2; in_place++) {
        size_t bad = 0;
        memset(all, 'x', total);
        memset(mine, 'a' + me, bytes[me]);
        memset(all + offset[me], 'a' + me, in_place ? bytes[me] : 0);
        T_OK(fx_comm_all_gather(c, in_place ? all + offset[me] : mine, all, bytes, offset));
        for (int r = 0; r < size; r++) {
            bad += memcmp(all + offset[r] - 3, "xxx", 3) != 0;
            for (size_t i = 0; i < bytes[r]; i++) bad += all[offset[r] + i] != 'a' + r;
        }
        T_CHECK(bad == 0, "gather: %zu wrong bytes", bad);
    }
    free(mine);
    free(all);
}

static void test_reduce(fx_comm *c)
{
    const int me = fx_comm_rank(c), size = fx_comm_size(c);
    double x[2] = {1.0 / (me + 3), me == 1 ? 1e17 : 1.0}, want[2] = {0, 0}, lo = -me, hi = me;
    int64_t n[2] = {me + 1, (int64_t)1 << 40}, least = 10 - me, most = 10 - me;
    for (int r = 0; r < size; r++) {
        want[0] = r ? want[0] + 1.0 / (r + 3) : 1.0 / 3;
        want[1] += r == 1 ? 1e17 : 1.0;
    }
    T_OK(fx_comm_all_reduce_f64(c, FX_SUM, x, 2));
    T_CHECK(x[0] == want[0] && x[1] == want[1], "sums in rank order: %.17g %.17g", x[0] - want[0],
            x[1] - want[1]);
    T_OK(fx_comm_all_reduce_f64(c, FX_MIN, &lo, 1));
    T_OK(fx_comm_all_reduce_f64(c, FX_MAX, &hi, 1));
    T_CHECK(lo == 1 - size && hi == size - 1, "min %g max %g", lo, hi);
    T_OK(fx_comm_all_reduce_i64(c, FX_SUM, n, 2));
    T_OK(fx_comm_all_reduce_i64(c, FX_MIN, &least, 1));
    T_OK(fx_comm_all_reduce_i64(c, FX_MAX, &most, 1));
    T_CHECK(n[0] == size * (size + 1) / 2 && n[1] == (int64_t)size << 40 && least == 11 - size && most == 10,
            "integers");
}

/* Every set of failing ranks of a few: all ranks get the lowest one's status and words. */
static void test_vote(fx_comm *c)
{
    const int me = fx_comm_rank(c), size = fx_comm_size(c);
    int culprit;
    T_CHECK(fx_comm_vote(c, FX_OK, &culprit) == FX_OK && culprit == -1, "all well: culprit %d", culprit);
    for (int low = 0; low < size; low++)
        for (int high = low; high < size; high++) {
            char want[64];
            fx_status mine = FX_OK;
            if (me == low)
                mine = FX_FAIL(FX_EREAD, "file of rank %d", me);
            else if (me == high)
                mine = FX_FAIL(FX_ENOMEM, "memory of rank %d", me);
            snprintf(want, sizeof want, "file of rank %d", low);
            const fx_status st = fx_comm_vote(c, mine, &culprit);
            T_CHECK(st == FX_EREAD && culprit == low && !strcmp(fx_error(), want), "%d, rank %d, '%s'", st,
                    culprit, fx_error());
        }
}

/* Traffic on a split, its sibling and the parent at once; and a split of a split in reverse order. */
static void test_split(fx_comm *c)
{
    const int me = fx_comm_rank(c), size = fx_comm_size(c);
    fx_comm *half, *again, *none;
    T_OK(fx_comm_split(c, me % 2, me, &half));
    T_CHECK(fx_comm_rank(half) == me / 2 && fx_comm_size(half) == (size + 1 - me % 2) / 2, "rank %d of %d",
            fx_comm_rank(half), fx_comm_size(half));
    flight f = {malloc(MOST * 2 * WORDS * 4), malloc(MOST * 2 * WORDS * 4), {-1, 0}};
    flight g = {malloc(MOST * 2 * WORDS * 4), malloc(MOST * 2 * WORDS * 4), {-1, 0}};
    for (int k = 0; k < 2; k++) /* only the order within a communicator counts */
        if ((fx_comm_rank(half) + k) % 2)
            launch(c, &f, 900);
        else
            launch(half, &g, 901);
    int64_t sum = me;
    T_OK(fx_comm_all_reduce_i64(half, FX_SUM, &sum, 1));
    land(c, &f, 900);
    land(half, &g, 901);
    int64_t want = 0;
    for (int r = me % 2; r < size; r += 2) want += r;
    T_CHECK(sum == want, "sum of the half: %lld", (long long)sum);
    T_OK(fx_comm_split(half, 0, -me, &again));
    T_CHECK(fx_comm_rank(again) == fx_comm_size(half) - 1 - fx_comm_rank(half), "reverse order: %d",
            fx_comm_rank(again));
    T_OK(fx_comm_split(c, me == 0 ? -1 : 3, 0, &none));
    T_CHECK((none == NULL) == (me == 0), "a rank may stay out");
    if (none) test_vote(none);
    fx_comm_close(&none);
    for (int k = 0; k < 2; k++)
        if ((fx_comm_rank(half) + k) % 2)
            launch(again, &f, 902);
        else
            launch(half, &g, 903);
    land(again, &f, 902);
    land(half, &g, 903);
    test_broadcast(again);
    fx_comm_close(&again);
    fx_comm_close(&half);
    fx_comm_close(&half);
    free(f.out), free(f.in), free(g.out), free(g.in);
}

static void test_statistics(fx_comm *c)
{
    char a[10] = "", b[10];
    fx_ticket t;
    const int me = fx_comm_rank(c), size = fx_comm_size(c);
    const fx_xfer out[2] = {{(me + 1) % size, a, 10}, {me, a, 3}},
                  in[2] = {{(me + size - 1) % size, b, 10}, {me, b, 3}};
    fx_comm_reset_statistics(c);
    T_OK(fx_comm_transfer(c, 2, out, 2, in, &t));
    T_OK(fx_comm_wait(c, &t));
    const fx_comm_stats s = fx_comm_statistics(c);
    T_CHECK(s.bytes_sent == (size > 1 ? 10 : 0) && s.transfers == (size > 1) && s.wait_s >= 0 &&
                s.wait_s < 60,
            "%llu bytes, %llu transfers, %g s", (unsigned long long)s.bytes_sent,
            (unsigned long long)s.transfers, s.wait_s);
}

static void test_share(fx_comm *c)
{
    fx_share share;
    int rank, size, nodes;
    T_OK(fx_node_ranks(c, &rank, &size, &nodes));
    T_CHECK(nodes == 1 && rank == fx_comm_rank(c) && size == fx_comm_size(c), "%d of %d on %d nodes", rank,
            size, nodes);
    T_OK(fx_node_share_open(c, &share));
    T_CHECK(share.local_rank == rank && share.local_size == size, "%d of %d share", share.local_rank,
            share.local_size);
    for (int k = 0; k < 2; k++) {
        const size_t bytes = k ? 5000001 : 16;
        void *base;
        T_OK(share.alloc(share.ctx, bytes, &base));
        unsigned char *p = base;
        size_t bad = 0;
        for (size_t i = 0; i < bytes; i++) bad += p[i] != 0;
        T_CHECK(bad == 0, "new pages are zero");
        T_OK(share.barrier(share.ctx, FX_OK));
        for (size_t i = (size_t)share.local_rank; i < bytes; i += (size_t)share.local_size)
            p[i] = (unsigned char)(i * 3);
        T_OK(share.barrier(share.ctx, FX_OK));
        for (size_t i = 0; i < bytes; i++) bad += p[i] != (unsigned char)(i * 3);
        T_CHECK(bad == 0, "%zu of %zu bytes differ", bad, bytes);
        const bool last = share.local_rank == share.local_size - 1;
        T_CHECK(share.barrier(share.ctx, last ? FX_FAIL(FX_EFORMAT, "bad tensor") : FX_OK) == FX_EFORMAT &&
                    !strcmp(fx_error(), "bad tensor"),
                "%s", fx_error());
        share.release(share.ctx, base, bytes);
    }
    fx_node_share_close(&share);
}

int main(void)
{
    fx_comm *c;
    char name[64];
    if (fx_comm_open("auto", 60, &c) != FX_OK) {
        printf("cannot open: %s\n", fx_error());
        return 2;
    }
    test_transfers(c, 2);
    test_transfers(c, 3);
    test_bad_calls(c);
    test_tickets(c);
    test_lanes(c);
    test_broadcast(c);
    test_gather(c);
    test_reduce(c);
    test_vote(c);
    test_split(c);
    test_statistics(c);
    comm_test_phases(c);
    comm_test_rows(c);
    test_share(c);
    comm_test_plan();
    snprintf(name, sizeof name, "comm on %d ranks", fx_comm_size(c));
    const int rc = test_end_ranks(c, name);
    fx_comm_finish(&c);
    return rc;
}
