/* Tests that run as several ranks: failed checks of all ranks are added up and rank 0 prints the one result
 * line. */
#ifndef FX_TEST_RANKS_H
#define FX_TEST_RANKS_H

#include "parallel/comm.h"
#include "tests/test.h"

static inline int test_end_ranks(fx_comm *comm, const char *name)
{
    int64_t n[3] = {test_passed, test_failed, test_skipped};
    if (fx_comm_all_reduce_i64(comm, FX_SUM, n, 3) != FX_OK) {
        printf("%s: %s\n", name, fx_error());
        return 1;
    }
    test_passed = (int)n[0];
    test_failed = (int)n[1];
    test_skipped = (int)n[2];
    fflush(stdout);
    if (fx_comm_rank(comm) == 0) return test_end(name);
    return n[1] ? 1 : n[0] || !n[2] ? 0 : 77;
}

#endif
