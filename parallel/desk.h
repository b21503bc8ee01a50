/* The desk: rank 0 hands jobs (pictures) to groups of ranks, takes their results, and lets groups merge (groups.h). A group
 * makes one job while the next one lies ready with it, so that none waits for rank 0, which computes too and looks at its
 * messages between two denoise steps (fx_desk_tick). No barrier joins the groups: those that merge wait for each other alone.
 *
 *   rank 0 -> first rank of a group    JOB (with a body), MOVE (become one of fewer groups), SIGN, DROP, END
 *   first rank of a group -> rank 0    DONE (with a body), DROPPED, STOP, SIGN, BYE (the last word)
 *
 * Both sides tell each other a SIGN every second, or four times per deadline: who waits hears that the others live, and one
 * from whom nothing comes for the communicator's deadline is named. So a step must not take longer than that. */
#ifndef FX_PARALLEL_DESK_H
#define FX_PARALLEL_DESK_H

#include "parallel/comm.h"
#include "parallel/groups.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { FX_DESK_AHEAD = 2 };      /* jobs that a group may have: one it makes, one for afterwards */
enum { FX_DESK_BODY = 4 << 20 }; /* bytes of a job's or a result's body, at most */

typedef struct fx_desk_job {
    int64_t number; /* as the source counts */
    const void *body;
    size_t bytes;
} fx_desk_job;

typedef struct fx_desk_outcome {
    int64_t number;
    fx_status status;
    const char *text; /* of a failure, else "" */
    int first, width; /* it was made by so many ranks from this one on */
    const void *body; /* what `make` left in its buffer on their first rank */
    size_t bytes;
} fx_desk_outcome;

typedef struct fx_desk_buffer {
    void *data; /* malloc'ed by `make`, freed by the desk */
    size_t bytes;
} fx_desk_buffer;

typedef struct fx_desk_calls {
    void *ctx;
    /* On rank 0, also between its denoise steps: short, nothing collective. */
    /* Jobs that next still has, at most; 0: none now; -1: never again. */
    int64_t (*waiting)(void *ctx);
    /* number -1 (as it comes in): none now. The body may go after the call. */
    fx_status (*next)(void *ctx, fx_desk_job *);
    /* In the order in which jobs end. A failure: as stopped, and the run ends with it when what is under way is finished. */
    fx_status (*done)(void *ctx, const fx_desk_outcome *);

    /* On all ranks of a group together. */
    /* NULL, or, when any rank says so between two jobs: no more is handed out, and what was not begun is not made. */
    bool (*stopped)(void *ctx);
    /* From now on there are so many groups; *team: this one, borrowed. */
    fx_status (*move)(void *ctx, int groups, fx_comm **team);
    /* A failure that was voted on in the group is the job's and goes to done, FX_ESIGNAL too while there is no stop signal (it
     * stops all, as above); any other ends the run at once, FX_ECOMM always. */
    fx_status (*make)(void *ctx, const fx_desk_job *, fx_desk_buffer *result);
} fx_desk_calls;

typedef struct fx_desk fx_desk;

/* Collective over world, before the first job: opens the messages' own communicators. groups: at the beginning, a divisor of
 * the policy's, equal on all ranks; they never become more. */
fx_status fx_desk_open(fx_comm *world, const fx_groups *, int groups, const fx_desk_calls *, fx_desk **out);
/* Collective: all jobs, and a vote of all ranks when there are no more. A failure that `done` brought is that of the rank which
 * voted for it first (fx_comm_blamed), or rank 0's. */
fx_status fx_desk_run(fx_desk *);
/* Between two steps of a picture, on any rank; a failure is remembered and ends fx_desk_run. NULL: nothing. */
void fx_desk_tick(fx_desk *);
void fx_desk_close(fx_desk **); /* not after a lost peer */

#ifdef __cplusplus
}
#endif
#endif
