/* Attention's exchange by kernels that write straight into the other ranks' memory. What comes next is ordered by counters
 * that lie there too, and what a kernel waits for is counted in device memory: no call has an argument that differs from
 * block to block, the host sends no message, and a captured step can be replayed. Every wait has a time limit.
 *
 *   per block, in stream order:  put ... put   wait   [attention]   give_back ...   collect ...
 *
 * rank = ring index * ulysses + index in its group. All ranks make the same calls in the same order, also with no rows. K
 * and V go to every rank of their heads (all ring members: exact), Q and the output inside the group.
 *
 *   rows     put       -> told to all      wait       until every rank's puts of the block are here
 *   free     give_back -> told to all      put        until every rank has attended to the block before
 *   output   give_back -> told to group    collect    until the group's rows are here
 *   taken    collect   -> told to group    give_back  until the group has collected the block before */
#ifndef FX_KERNELS_WINDOW_H
#define FX_KERNELS_WINDOW_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { FX_WINDOW_Q, FX_WINDOW_K, FX_WINDOW_V, FX_WINDOW_PARTS };
enum { FX_WINDOW_RUNS = 3 };                      /* runs of rows that one put brings: segments */
enum { FX_WINDOW_STATE = 32 };                    /* 32-bit words of a rank's own */
enum { FX_WINDOW_COUNTERS = 4 };                  /* 32-bit words per pair of ranks */
enum { FX_WINDOW_FIRST = 1, FX_WINDOW_LAST = 2 }; /* give_back, collect: of the block */
/* What a rank was late with. */
enum { FX_LATE_ROWS = 1, FX_LATE_FREE, FX_LATE_OUTPUT, FX_LATE_TAKEN };

/* Addresses are the device's; the same struct serves every block. */
typedef struct fx_window {
    int ranks, ulysses, me;
    int heads, head_dim;   /* all heads; head_dim a multiple of 8 */
    uint16_t *const *recv; /* [PARTS][ranks]: q, k, v of each rank, [rows, heads / ulysses, head_dim] bf16 */
    uint16_t *const *output;   /* [ranks]: of each rank, [its rows, heads * head_dim] bf16 */
    uint32_t *const *counters; /* [ranks]: of each rank, COUNTERS * ranks words; 0 at first */
    uint32_t *state;           /* STATE words; 0 at first */
    uint32_t *
        late; /* [ranks] in pinned host memory, 0 at first: FX_LATE_* of a rank that did not come in time. Then
                                  this rank stores and tells nothing any more, and its kernels end without waiting. */
    uint64_t limit_ns; /* of one wait; 0: none */
    int ctas;          /* of a kernel, at most */
} fx_window;

/* Rows begin.. of what is put are rows q_row.. (Q) and kv_row.. (K, V) where they are received. */
typedef struct fx_window_rows {
    int64_t begin, count, q_row, kv_row;
} fx_window_rows;

/* Rows begin.. of a group's output belong to `rank`, as its rows row... */
typedef struct fx_window_owner {
    int64_t begin, count, row;
    int32_t rank;
} fx_window_owner;

bool fx_window_kernels(const fx_backend *); /* it has them */
/* q, k, v[T, heads, head_dim] bf16 or absent (head_dim dense, all in chunks of 16 bytes): q and k as fx_qk_norm_rope makes
 * them, with its bits, v as it is. rows: all of T, rising. */
fx_status fx_window_put(fx_backend *, const fx_window *, fx_tensor q, fx_tensor k, fx_tensor v, fx_tensor w_q,
                        fx_tensor w_k, fx_tensor cs, float eps, const fx_window_rows rows[FX_WINDOW_RUNS]);
fx_status fx_window_wait(fx_backend *, const fx_window *);
/* Rows begin.. of o[rows, heads / ulysses, head_dim] dense, to their owners. owners[n]: on the device, rising, none empty,
 * of all of o's rows. when: FX_WINDOW_FIRST and FX_WINDOW_LAST call of the block. After the block's attention. */
fx_status fx_window_give_back(fx_backend *, const fx_window *, fx_tensor o, int64_t begin, int64_t count,
                              const fx_window_owner *owners, int n, unsigned when);
/* o[T, heads * head_dim] (row stride free) = rows begin.. of this rank's output, which the block's give_back number
 * `nth` (from 1) brought. when: FX_WINDOW_LAST or 0. */
fx_status fx_window_collect(fx_backend *, const fx_window *, fx_tensor o, int64_t begin, int nth,
                            unsigned when);

#ifdef __cplusplus
}
#endif
#endif
