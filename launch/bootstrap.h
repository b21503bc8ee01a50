/* How a process becomes rank r: opens the comm, checks that all ranks run the same program with the same
 * arguments, and ends all of them with one line and one exit code. */
#ifndef FX_LAUNCH_BOOTSTRAP_H
#define FX_LAUNCH_BOOTSTRAP_H

#include "launch/board.h"
#include "launch/options.h"
#include "parallel/comm.h"
#include "parallel/node_share.h"

typedef struct fx_run {
    fx_comm *comm; /* NULL when it could not be opened */
    fx_share share;
    fx_board *board; /* what the ranks of this node tell each other */
    int rank, ranks;
    int launched; /* ranks that the launcher says it started; 1 without one */
    int nodes;
    bool lost;         /* ended by a signal or a lost peer: nothing may be closed any more */
    int verdict;       /* exit code of a run that ended well: 0, doctor also 1 */
    char trouble[512]; /* doctor: why the ranks do not meet or are not alike; "" */
    double timeout_s;  /* of every wait */
    double age_s;      /* of the process when main() began */
    double start_s;    /* fx_now_s() then */
} fx_run;

/* First thing after parsing. Starts the same program over in this process once, with passive OpenMP waiting,
 * unless the user has chosen how to wait. */
void fx_run_prepare(char *const argv[], const fx_options *, fx_run *);

/* Opens the comm and votes on `parsed` (the result of fx_options_parse), then on version and arguments. */
fx_status fx_run_open(fx_run *, const fx_options *, fx_status parsed);

/* All ranks bring a status and get the worst; its message comes with it. */
fx_status fx_run_vote(fx_run *, fx_status mine);

/* Prints the error line (once over all ranks of a node) and ends the comm: normally, or with fx_comm_abort
 * after a failure of communication or a signal (then it does not return). Returns the exit code. */
int fx_run_end(fx_run *, fx_status);

/* Seconds since the process was started. */
double fx_run_age(const fx_run *);

#endif
