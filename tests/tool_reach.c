/* Memory that ranks reach on each other's devices, by every way (parallel/comm_way.h): rows arrive, again and again and at other
 * addresses; an address leads to the rank whose it should be; needs may differ; what is given back is free again. A GPU per
 * rank; started under mpirun by tests/gpu/run.sh. tool_reach [GIB]: blocks of so many GiB are taken and given back 16 times. */
#include "kernels/ops.h"
#include "parallel/comm_internal.h"
#include "parallel/comm_nccl.h"
#include "parallel/node_share.h"
#include "tests/test_ranks.h"

enum { PIECE = 16 * 4099, CARD = 256, ROUNDS = 4, TIMES = 3 }; /* bytes; a card begins each block */

typedef struct job {
    fx_comm *comm;
    fx_backend *be;
    int ranks, me;
    char *block; /* card | pieces for each rank | pieces of each rank */
    uint32_t *host;
} job;

static uint32_t word(int from, int to, int round, size_t i)
{
    const uint64_t x = ((uint64_t)from << 48 ^ (uint64_t)to << 32 ^ (uint64_t)round << 24 ^ i) + 1;
    return (uint32_t)(x * 0x9e3779b97f4a7c15u >> 24);
}

static void fill(uint32_t *p, size_t bytes, int from, int to, int round)
{
    for (size_t i = 0; i < bytes / sizeof *p; i++) p[i] = word(from, to, round, i);
}

static size_t wrong(const uint32_t *p, size_t bytes, int from, int to, int round)
{
    size_t n = 0;
    for (size_t i = 0; i < bytes / sizeof *p; i++) n += p[i] != word(from, to, round, i);
    return n;
}

static fx_tensor bytes_at(void *data, size_t bytes)
{
    return fx_view1(data, FX_U8, (int64_t)bytes);
}

static char *piece_for(const job *j, int rank)
{
    return j->block + CARD + (size_t)rank * PIECE;
}

static char *piece_of(const job *j, int rank)
{
    return piece_for(j, j->ranks + rank);
}

static fx_status upload(const job *j, void *to, size_t bytes)
{
    FX_TRY(fx_upload(j->be, bytes_at(to, bytes), j->host));
    return fx_sync(j->be);
}

static fx_status swap_pieces(const job *j, int number)
{
    fx_xfer send[64], recv[64];
    fx_ticket ticket;
    int n = 0;
    for (int r = 0; r < j->ranks; r++) {
        fill(j->host, PIECE, j->me, r, number);
        FX_TRY(upload(j, piece_for(j, r), PIECE));
        if (r == j->me) continue;
        send[n] = (fx_xfer){r, piece_for(j, r), PIECE};
        recv[n++] = (fx_xfer){r, piece_of(j, r), PIECE};
    }
    FX_TRY(fx_comm_transfer(fx_comm_rows(j->comm), n, send, n, recv, &ticket));
    FX_TRY(fx_comm_wait(fx_comm_rows(j->comm), &ticket));
    FX_TRY(fx_comm_settle(j->comm));
    for (int r = 0; r < j->ranks; r++) {
        if (r == j->me) continue;
        FX_TRY(fx_download(j->be, j->host, bytes_at(piece_of(j, r), PIECE)));
        const size_t bad = wrong(j->host, PIECE, r, j->me, number);
        T_CHECK(!bad, "transfer %d from rank %d to rank %d: %zu words", number, r, j->me, bad);
    }
    return FX_OK;
}

/* Through the addresses that kernels use. */
static fx_status read_cards(const job *j, int number)
{
    const fx_reach *reach = fx_comm_rows(j->comm)->reach;
    for (int r = 0; reach && r < j->ranks; r++) {
        FX_TRY(fx_device_copy(j->be, piece_of(j, j->me), reach->bases[r], CARD));
        FX_TRY(fx_download(j->be, j->host, bytes_at(piece_of(j, j->me), CARD)));
        const size_t bad = wrong(j->host, CARD, r, r, number);
        T_CHECK(!bad, "rank %d reads %zu words of a card at the address of rank %d that are not its", j->me,
                bad, r);
    }
    return fx_comm_barrier(j->comm); /* all have read */
}

static void check_size(const job *j, size_t need, size_t bytes, bool windows)
{
    int64_t most[2] = {(int64_t)bytes, -(int64_t)bytes};
    T_OK(fx_comm_all_reduce_i64(j->comm, FX_MAX, most, 2));
    T_CHECK(bytes >= need && (windows ? most[0] == -most[1] : bytes == need), "%zu of %zu bytes are taken",
            bytes, need);
}

static fx_status one_round(job *j, int round, bool windows)
{
    const size_t need =
        ((size_t)(2 * j->ranks) * PIECE + CARD + (size_t)j->me * 4096) * (size_t)(1 + round % 3);
    size_t bytes = need;
    void *block = NULL;
    FX_TRY(fx_comm_take_rows(j->comm, j->be, &bytes, &block));
    check_size(j, need, bytes, windows);
    j->block = block;
    fill(j->host, CARD, j->me, j->me, round);
    fx_status st = upload(j, j->block, CARD);
    if (!st) st = fx_comm_barrier(j->comm);
    if (!st) st = read_cards(j, round);
    for (int i = 0; !st && i < TIMES; i++) st = swap_pieces(j, ROUNDS + round * TIMES + i);
    if (!st) st = fx_comm_barrier(j->comm);
    fx_comm_give_rows(j->comm, j->be, block);
    return st;
}

static fx_status large_blocks(const job *j, size_t bytes)
{
    for (int i = 0; bytes && i < 16; i++) {
        size_t taken = bytes;
        void *block = NULL;
        FX_TRY(fx_comm_take_rows(j->comm, j->be, &taken, &block));
        fx_comm_give_rows(j->comm, j->be, block);
    }
    return FX_OK;
}

static void one_way(job *j, fx_wire want, const char *name, bool windows, size_t large)
{
    unsetenv("FLUXPAR_WINDOWS");
    if (windows && j->me == 0) setenv("FLUXPAR_WINDOWS", "1", 1); /* rank 0's counts */
    fx_status st = fx_comm_open_rows(j->comm, j->be, want);
    if (st == FX_EDEVICE && windows && strstr(fx_nccl_describe(), "no windows")) {
        T_CHECK(strstr(fx_error(), "FLUXPAR_WINDOWS=1"), "%s", fx_error());
        return;
    }
    T_CHECK(st == FX_OK, "%s: %s", name, fx_error());
    const char *text = fx_comm_rows_text(j->comm);
    T_CHECK(!strcmp(text, name), "'%s', want '%s'", text, name);
    for (int round = 0; !st && round < ROUNDS; round++) st = one_round(j, round, windows);
    if (!st) st = large_blocks(j, large);
    T_CHECK(st == FX_OK, "%s: %s", name, fx_error());
    fx_comm_close_rows(j->comm);
}

int main(int argc, char **argv)
{
    job j = {NULL, NULL, 0, 0, NULL, NULL};
    char name[32];
    int local = 0, on_node = 0, nodes = 0;
    const size_t large = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) << 30 : 0;
    if (fx_comm_open("auto", 60, &j.comm) != FX_OK ||
        fx_node_ranks(j.comm, &local, &on_node, &nodes) != FX_OK) {
        printf("tool_reach: %s\n", fx_error());
        return 2;
    }
    j.ranks = fx_comm_size(j.comm);
    j.me = fx_comm_rank(j.comm);
    j.host = malloc(PIECE);
    snprintf(name, sizeof name, "cuda:%d", local);
    if (j.ranks < 2 || j.ranks > 64 || !j.host || fx_device_count() < on_node ||
        strstr(fx_nccl_describe(), "no NCCL"))
        T_SKIP("2 to 64 ranks with a device each, and a build with NCCL");
    else {
        T_OK(fx_backend_open(name, FX_BF16, 1, &j.be));
        if (j.be) {
            one_way(&j, FX_WIRE_NCCL, "NCCL", false, 0);
            one_way(&j, FX_WIRE_PEER, "peer copies", false, 0);
            one_way(&j, FX_WIRE_AUTO, "peer stores", false, large);
            one_way(&j, FX_WIRE_PEER, "peer copies, NCCL windows", true, 0);
            one_way(&j, FX_WIRE_LSA, "peer stores, NCCL windows", true, large);
        }
        fx_backend_close(&j.be);
    }
    free(j.host);
    const int rc = test_end_ranks(j.comm, "tool_reach");
    fx_comm_finish(&j.comm);
    return rc;
}
