/* Ranks that wait while one works alone wait for one beat after the other, so that a slow run is no failure and a
 * dead one is: the deadline of comm counts from beat to beat. What lies between two beats may take one rank as many
 * times as long as it takes all of them, so callers make the deadline that much longer. */
#ifndef FX_PARALLEL_BEATS_H
#define FX_PARALLEL_BEATS_H

#include "parallel/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_beats {
    fx_comm *comm;    /* of the one that works (rank 0) and those that wait; NULL or alone: nobody waits */
    fx_status status; /* first failure; nothing is sent after it */
} fx_beats;

fx_status fx_beats_on(fx_beats *);   /* by rank 0: still at work. Returns the first failure */
fx_status fx_beats_over(fx_beats *); /* by rank 0, last */
fx_status fx_beats_wait(fx_comm *);  /* by the others: until it is over */

#ifdef __cplusplus
}
#endif
#endif
