/* Progress of a run for people: a bar with step time and ETA on a terminal, at most about ten plain lines
 * otherwise. */
#ifndef FX_LAUNCH_PROGRESS_H
#define FX_LAUNCH_PROGRESS_H

#include "runtime/pipeline.h"

typedef struct fx_progress_state {
    bool bar;       /* standard error is a terminal */
    bool brief;     /* no line at the end of a phase but of the load: a picture has one line in all */
    bool drawn;     /* a bar stands on the current line */
    bool ended;     /* the phase's last line is printed */
    int phase;      /* last seen, -1 none */
    double printed; /* seconds into the phase of the last plain line or redraw */
    size_t step;    /* steps done at that time */
} fx_progress_state;

void fx_progress_open(fx_progress_state *);
/* The callback for the pipeline; ctx is the state. */
void fx_progress_show(void *ctx, fx_phase, size_t done, size_t total, double seconds);
void fx_progress_clear(fx_progress_state *); /* before other lines are printed */
const char *fx_phase_name(fx_phase);

#endif
