/* Attention's exchange by kernels that write straight into the other ranks' memory. What comes next is ordered by counters
 * that lie there too, and what a kernel waits for is counted in device memory: no call has an argument that differs from
 * block to block, the host sends no message, and a captured step can be replayed. Every wait has a time limit.
 *
 *   per block, in stream order:  put   wait(rows)   [attention]   give_back   wait(output)   [it is read]
 *
 * rank = ring index * ulysses + index in its group. All ranks make the same calls in the same order, also with no rows. K
 * and V go to every rank of their heads (all ring members: exact), Q and the output inside the group.
 *
 *   rows     put       -> told to all      wait    until every rank's rows of the block are here
 *   output   give_back -> told to group    wait    until the group's output is here
 *   free     give_back -> told to all      put     until every rank has attended to the block before; only with more groups
 *                                                  than one: inside a group the block's output says the same
 * Whoever has put a block has read the output of the one before: a rank that has waited for rows may give back.
 *
 * In one group (ranks = ulysses) rows of q, k and v may go by copy engines, beside what else the stream has to do. A rank does so
 * or not in each block as it likes: the others cannot tell.
 *
 *   pack   send   [..]   wait(rows)   [attention]   give_back   wait(output)   join   [it is read]
 *
 * Own rows are placed by pack, the others' come into memory of this rank, laid out like theirs. A copy cannot count: behind
 * the rows for a rank goes a copy of a word of this rank's state into the counter there, and pack has written the word. After a
 * wait in vain it is what was told before: copies go on, but nobody hears anything new. */
#ifndef FX_KERNELS_WINDOW_H
#define FX_KERNELS_WINDOW_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { FX_WINDOW_Q, FX_WINDOW_K, FX_WINDOW_V, FX_WINDOW_PARTS };
enum { FX_WINDOW_RUNS = 3 };     /* runs of rows that one put brings: segments */
enum { FX_WINDOW_STATE = 32 };   /* 32-bit words of a rank's own */
enum { FX_WINDOW_COUNTERS = 3 }; /* 32-bit words per pair of ranks */
/* The word of state that copies bring to the others: into word (FX_LATE_ROWS - 1) * ranks + me of their counters. */
enum { FX_WINDOW_TOLD_ROWS = 31 };
/* What a wait is for; what a rank was late with. */
enum { FX_LATE_ROWS = 1, FX_LATE_FREE, FX_LATE_OUTPUT };

/* Addresses are the device's; the same struct serves every block. */
typedef struct fx_window {
    int ranks, ulysses, me;
    int heads, head_dim;   /* all heads; head_dim a multiple of 8 */
    uint16_t *const *recv; /* [PARTS][ranks]: q, k, v of each rank, [rows, heads / ulysses, head_dim] bf16 */
    int64_t recv_row;      /* of all parts and ranks: from row to row of it, a multiple of 8 */
    uint16_t *const *output;   /* [ranks]: of each rank, [its rows, heads * head_dim] bf16 */
    int64_t output_row;        /* of all ranks: from row to row of it, a multiple of 8 */
    uint32_t *const *counters; /* [ranks]: of each rank, COUNTERS * ranks words; 0 at first */
    uint32_t *state;           /* STATE words; 0 at first */
    uint32_t *
        late; /* [ranks] in pinned host memory, 0 at first: FX_LATE_* of a rank that did not come in time. Then
                                  this rank stores and tells nothing any more, and its kernels end without waiting. */
    uint64_t limit_ns; /* of one wait; 0: none */
    int ctas;          /* of a kernel, at most */
} fx_window;

/* Rows of one put: q and k as fx_qk_norm_rope makes them, with its bits, v as it is. */
typedef struct fx_window_run {
    fx_tensor x[FX_WINDOW_PARTS]; /* [T, heads, head_dim] bf16, head_dim dense, all in chunks of 16 bytes */
    fx_tensor w_q, w_k,
        cs; /* [head_dim], [head_dim], [T, head_dim / 2, 2] f32; absent in all runs or in none */
    int64_t q_row, kv_row; /* where they are received: the first row of q, of k and v */
    int64_t local_row;     /* pack: the first among all rows of this rank */
} fx_window_run;

typedef struct fx_window_copy {
    void *to;
    const void *from;
    size_t bytes;
} fx_window_copy;

/* Rows begin.. of a group's output belong to `rank`, as its rows row... */
typedef struct fx_window_owner {
    int64_t begin, count, row;
    int32_t rank;
} fx_window_owner;

bool fx_window_kernels(const fx_backend *); /* it has them */
/* All rows of the block that this rank has: n runs, some or all without rows. */
fx_status fx_window_put(fx_backend *, const fx_window *, const fx_window_run run[], int n, float eps);
/* what: FX_LATE_ROWS or FX_LATE_OUTPUT. */
fx_status fx_window_wait(fx_backend *, const fx_window *, int what);
/* o[rows, heads / ulysses, head_dim] dense, or absent: to its owners. owners[n]: on the device, rising, none empty, of all of
 * o's rows. After the block's attention. */
fx_status fx_window_give_back(fx_backend *, const fx_window *, fx_tensor o, const fx_window_owner *owners,
                              int n);
/* As put, but rows for other ranks go into staged[peers, rows, PARTS, heads / ulysses, head_dim] bf16, dense, peers rising
 * without this rank: to be sent. FX_ESHAPE: more groups than one, or what was sent before was not joined. */
fx_status fx_window_pack(fx_backend *, const fx_window *, const fx_window_run run[], int n, float eps,
                         fx_tensor staged);
/* After what the stream holds and beside what follows, until the join: the copies, one after the other. `from` may be written
 * again, `to` of this rank be read after it. The list itself is read at once. */
fx_status fx_window_send(fx_backend *, const fx_window_copy copies[], int n);
fx_status fx_window_join(fx_backend *);

#ifdef __cplusplus
}
#endif
#endif
