/* What exchange.c (the calls and their order), ulysses.c (rows <-> heads), ring.c (K/V hop round) and window.c (kernels instead
 * of transfers) share. */
#ifndef FX_PARALLEL_EXCHANGE_INTERNAL_H
#define FX_PARALLEL_EXCHANGE_INTERNAL_H

#include "kernels/window.h"
#include "parallel/exchange.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Parts in the order they travel when one put brings several. */
enum { FX_PART_V, FX_PART_K, FX_PART_Q, FX_PARTS };

typedef struct fx_exchange_window fx_exchange_window;
/* Rows of a part: x[rows, H, D], w[D] or absent, cs or absent. */
typedef struct fx_exchange_part {
    fx_tensor x, w, cs;
} fx_exchange_part;

struct fx_exchange {
    fx_backend *be;
    fx_comm *comm, *host; /* comm: fx_comm_rows of host */
    const fx_layout *layout;
    fx_exchange_options opt;
    bool exact;           /* bytes of one rank */
    bool hops;            /* K/V hop round the ring; else every rank holds all keys of its heads */
    int me, ui, ri;       /* rank; index in the ulysses group; ring index */
    int heads;            /* per rank: H / ulysses */
    int64_t local, group; /* rows of this rank; query rows of its ulysses group */

    /* [rows, heads, D], rows in joint order: of the group, or of all ranks (K, V of an exact ring). With one group (no ring) the
     * three are parts of one memory: one behind the other, or by kernels side by side (fx_exchange_side_by_side). */
    fx_tensor recv[FX_PARTS];
    /* [ulysses - 1, local, heads, D], by peer, parts of one memory; Q's later holds the O rows that come back. */
    fx_tensor send[FX_PARTS];
    fx_tensor whole;   /* one group by kernels: all of recv, [rows, heads of q | k | v, D]; else absent */
    fx_tensor staged;  /* the same of send, [ulysses - 1, local, heads of q | k | v, D] */
    fx_tensor o_group; /* [group, heads, D] dtype; absent when ulysses is 1 */
    /* hops only: the block that arrives, [largest group, heads, D]; f32 (stream) sums of o and lse */
    fx_tensor next_k, next_v, o_sum, lse_sum, o_one, lse_one;

    fx_exchange_window *window;  /* from the first put on, where rows go by kernels; else NULL */
    unsigned put_done[FX_PARTS]; /* bit per segment */
    fx_exchange_part heard[FX_SEGMENTS][FX_PARTS]; /* by kernels: what was put of this block so far */
    bool brought;                                  /* by kernels: all rows are on their way */
    bool beside;                                   /* the caller computes beside the rows of this block */
    bool copies;          /* by kernels: q, k and v of this block go by copy engines */
    int want_copies;      /* FLUXPAR_COPIES; -1: not set */
    bool attended, apart; /* apart: o_ticket by segment, else [FX_ALL] is of all */
    unsigned collected;   /* bit per segment */
    fx_ticket ticket[FX_PARTS][FX_SEGMENTS + 1],
        o_ticket[FX_SEGMENTS + 1]; /* of a segment, or in [FX_ALL] of all */
    fx_xfer *out, *in;             /* [3 * ranks] lists under construction */
};

/* ---- maps (ulysses.c) ---- */
int64_t fx_exchange_group_rows(const fx_exchange *, int ring_index);
/* Rows of a group's segment; of a rank's rows in a receive buffer the first. */
int64_t fx_exchange_segment_rows(const fx_exchange *, int ring_index, int segment);
int64_t fx_exchange_receive_row(const fx_exchange *, int part, int rank, int segment);
/* Where this rank puts (or sends from) its rows of a segment for ulysses index u: own rows lie in the receive
 * buffer. */
fx_tensor fx_exchange_outgoing(const fx_exchange *, int part, int u, int segment);

/* Starts a part of a segment (or FX_ALL): sends the packed rows, receives the peers' rows in place. */
fx_status fx_ulysses_start(fx_exchange *, int part, int segment, fx_ticket *);
/* O rows of o_group go back to their owners / those of a segment have come back and are laid into the output's head columns. */
fx_status fx_ulysses_return(fx_exchange *);
fx_status fx_ulysses_collect(fx_exchange *, int segment);

/* recv and send for kernels, where there is one group: a row's q, k and v are neighbours, so that what a rank gets of a segment
 * lies in one piece. */
void fx_exchange_side_by_side(fx_exchange *);

/* ---- the same by kernels (window.c): rows go straight from x to where they are read, in stream order ---- */
bool fx_exchange_window_possible(const fx_exchange *);
/* At the first put: ex->window, if the backend and the communicator can. Collective. */
fx_status fx_exchange_window_open(fx_exchange *);
void fx_exchange_window_close(fx_exchange *);
/* x[part]: [rows of the segment or of all, H, D] or absent. A kernel costs more than few rows: one brings all of the block, when
 * `last` says that no rows are left to put. */
fx_status fx_exchange_window_put(fx_exchange *, int segment, const fx_tensor x[FX_PARTS], fx_tensor w_q,
                                 fx_tensor w_k, fx_tensor cs, bool last);
fx_status fx_exchange_window_wait(fx_exchange *); /* before attention */
/* After it: o_group's rows go back; with ulysses 1 the other ranks only learn that k and v are free. */
fx_status fx_exchange_window_return(fx_exchange *);
fx_status fx_exchange_window_collect(fx_exchange *); /* all of it */

/* Should the rows of the block at hand go by copy engines? For one that is about to be put. */
bool fx_exchange_by_copies(const fx_exchange *);
/* ---- by copy engines, in one group (window_copies.c) ---- */
typedef struct fx_exchange_copies {
    fx_window_copy *list; /* NULL: none */
    int n;
} fx_exchange_copies;
/* All copies of a block, the same in every one. recv, counters: of each rank, as this rank reaches them. */
fx_status fx_exchange_list_copies(const fx_exchange *, const fx_window *, uint16_t *const recv[],
                                  uint32_t *const counters[], fx_exchange_copies *out);

/* The same while planning (window_plan.c). */
fx_status fx_exchange_window_tell_put(const fx_exchange *);
fx_status fx_exchange_window_tell_wait(const fx_exchange *);
fx_status fx_exchange_window_tell_back(const fx_exchange *);
fx_status fx_exchange_window_tell_collect(const fx_exchange *);

/* Attention of the group's queries over all blocks of the ring, into o_sum. */
fx_status fx_ring_attend(fx_exchange *);
float fx_exchange_scale(const fx_exchange *);

#ifdef __cplusplus
}
#endif
#endif
