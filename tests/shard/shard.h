/* What the parts of check_shard share: values that are functions of (row, column, block) only, so that every
 * rank can make its rows alone, and one way to run a graph: measured first, then in memory full of NaN. */
#ifndef FX_TESTS_SHARD_H
#define FX_TESTS_SHARD_H

#include "parallel/exchange.h"
#include "tests/test_ranks.h"

/* [-1, 1), the same on every machine */
double shard_noise(uint64_t a, uint64_t b, uint64_t c);
/* element of t[rows, cols], row and column stride free, any floating dtype */
void shard_store(fx_tensor t, int64_t row, int64_t col, double v);
double shard_load(fx_tensor t, int64_t row, int64_t col);
/* Joint row number (text | image | condition) of a local row. */
int64_t shard_joint_row(const fx_layout *l, int rank, int64_t row);

/* Builds and runs something on be and comm; writes what it made unless fx_planning(be). */
typedef fx_status (*shard_graph)(const void *job, fx_backend *be, fx_comm *comm, double *result);
/* result[values] of this rank (malloc'ed). Planned and used memory must agree; rows read before they came show as NaN. */
double *shard_run(fx_backend *be, fx_comm *comm, shard_graph graph, const void *job, int64_t values);

/* Rows (of the width of a rank's heads) that a rank sends in one block. */
uint64_t shard_rows_sent(const fx_layout *, const fx_mesh *, int me, bool exact);

/* What runs beside ref: the CPU backend in both dtypes, where it is built in, or the backend that was named, in bf16. */
typedef struct shard_subject {
    const char *backend;
    fx_dtype dtype;
} shard_subject;
extern shard_subject shard_subjects[2];
extern int shard_subjects_count;

/* One line per kind of case; quick: about a third. Collective. */
void test_blocks(fx_comm *comm, bool quick);
void test_vae(fx_comm *comm, bool quick);
void test_window(fx_comm *comm, bool quick);

/* Attention of every mesh, layout and mode (check_shard.c); arenas of several ranks lie here, NULL: in memory of their own. */
void shard_attention(fx_comm *comm, fx_backend *be, int heads, const int64_t rows[FX_SEGMENTS]);
extern void *shard_arena;

#endif
