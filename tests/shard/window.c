/* Attention's exchange by kernels (parallel/window.c) with ranks as processes: the CUDA backend's kernels on the CPU, the ranks'
 * arenas and counters in memory that they share, some blocks of some ranks by copy engines. The same cases as by transfers, the
 * same bits of one rank. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/window.h"
#include "parallel/comm_internal.h"
#include "tests/shard/shard.h"

enum { ROOM = 8 << 20, WORDS = 4096 }; /* bytes of a rank, bytes of its counters before the arena */

static void *shared_memory(fx_comm *comm)
{
    char name[64] = "";
    const size_t bytes = (size_t)fx_comm_size(comm) * ROOM;
    int file = -1;
    if (fx_comm_rank(comm) == 0) {
        snprintf(name, sizeof name, "/fluxpar-window-%d", (int)getpid());
        file = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
        T_CHECK(file >= 0 && !ftruncate(file, (off_t)bytes), "no shared memory");
    }
    T_OK(fx_comm_broadcast(comm, 0, name, sizeof name));
    if (file < 0) file = shm_open(name, O_RDWR, 0600);
    void *all = file < 0 ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    T_CHECK(all != MAP_FAILED, "the shared memory cannot be mapped");
    if (file >= 0) close(file);
    T_OK(fx_comm_barrier(comm));
    if (fx_comm_rank(comm) == 0) shm_unlink(name);
    return all == MAP_FAILED ? NULL : all;
}

void test_window(fx_comm *comm, bool quick)
{
    static const int64_t rows[][FX_SEGMENTS] = {{7, 13, 0}, {3, 6, 5}, {1, 1, 0}, {0, 9, 2}};
    const int ranks = fx_comm_size(comm), me = fx_comm_rank(comm);
    uint32_t state[FX_WINDOW_STATE] = {0}, late[64] = {0};
    char *bases[64], tables[64 * FX_REACH_TABLES];
    uint32_t *counters[64];
    fx_reach reach = {.bases = bases, .counters = counters, .state = state, .late = late, .tables = tables};
    fx_backend *be;
    if (ranks == 1 || ranks > 64 || fx_backend_open("twin", FX_BF16, 1, &be) != FX_OK) {
        T_SKIP("rows by kernels: one rank, or no twin of the kernels");
        return;
    }
    char *all = shared_memory(comm);
    for (int r = 0; all && r < ranks; r++) {
        counters[r] = (uint32_t *)(void *)(all + (size_t)r * ROOM);
        bases[r] = all + (size_t)r * ROOM + WORDS;
    }
    if (all) {
        reach.base = shard_arena = bases[me];
        comm->reach = &reach;
        fx_comm_set_timeout(comm, 20);
        setenv("FLUXPAR_COPIES", "1", 1); /* few rows as well */
        int64_t lost = 0;                 /* kernels gave up: nothing comes of waiting again in every case */
        for (int i = 0; i < 8 && !lost; i++) {
            const int heads = 4 + i / 4 * 2;
            if (quick && (i + i / 4) % 2 == 0) continue;
            shard_attention(comm, be, heads, rows[i % 4]);
            if (heads % ranks == 0) /* its last mesh has one group */
                T_CHECK(lost || state[FX_WINDOW_TOLD_ROWS], "no rows went by copies");
            for (int r = 0; r < ranks; r++) lost |= late[r];
            T_OK(fx_comm_all_reduce_i64(comm, FX_MAX, &lost, 1));
        }
        fx_comm_set_timeout(comm, 60);
        uint32_t counted = 0;
        for (int i = 0; i < FX_WINDOW_STATE; i++) counted |= state[i];
        T_CHECK(counted, "no rows went by kernels");
        unsetenv("FLUXPAR_COPIES");
        for (int r = 0; r < ranks; r++) T_CHECK(!late[r], "rank %d was late", r);
        T_OK(fx_comm_barrier(comm)); /* all are through */
        comm->reach = NULL;
        shard_arena = NULL;
        munmap(all, (size_t)ranks * ROOM);
    }
    fx_backend_close(&be);
}
