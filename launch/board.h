/* The board: one piece of memory per node in which its ranks tell each other pid and phase, so that those who
 * are left can name a rank that is gone and what it did last; and the watch, a thread that notices its death
 * even when this rank is deep in a long computation. */
#ifndef FX_LAUNCH_BOARD_H
#define FX_LAUNCH_BOARD_H

#include "launch/talk.h"
#include "parallel/node_share.h"

typedef struct fx_board fx_board;

/* Collective. Takes a seat, shares the claim for the error line and the phase of talk.h. FX_ENOMEM. */
fx_status fx_board_open(fx_share *, int rank, fx_board **out);
/* This rank ends by itself from now on: nobody shall call it dead. */
void fx_board_leave(fx_board *);
/* Ends the watch and unmaps. Not after a lost peer. */
void fx_board_close(fx_share *, fx_board **);

/* Starts the watch: when a rank of this node is gone, fx_signals_lost() is called, once. */
fx_status fx_board_watch(fx_board *);

/* "rank 2 (process 4711) is gone; it was in 'denoise step 3'": the first rank of this node, other than this,
 * that is gone without leaving. False: none. Async-signal-safe. */
bool fx_board_dead(char *text, size_t size);
/* The same for a rank that is stopped (SIGSTOP, a debugger). Not for signal handlers. */
bool fx_board_stopped(char *text, size_t size);

#endif
