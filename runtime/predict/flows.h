/* Rows on their way between ranks: flows that share links fairly. Ranks of a class do the same at the same time, so one flow
 * stands for those of all ranks of a class to all their peers of another. */
#ifndef FX_PREDICT_FLOWS_H
#define FX_PREDICT_FLOWS_H

#include "runtime/predict/machine.h"
#include "runtime/predict/work.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_flow {
    int from, to, exchange; /* classes */
    bool far;
    double peers;          /* of each sender */
    double senders;        /* to each receiver, per peer of a sender: size of from / size of to */
    double left;           /* bytes that a sender has still to send */
    double start_us, rate; /* bytes per microsecond of a sender; set while it runs */
} fx_flow;

typedef struct fx_flows {
    double link, network; /* bytes per microsecond of a rank, out and in alike */
    int classes, n, room;
    fx_flow *flow;       /* those that are not over */
    double *load, *free; /* [4 * classes] of a rank of a class: link out, in, network out, in */
    double now_us;
    bool changed; /* since rates were shared out */
} fx_flows;

fx_status fx_flows_open(const fx_machine *, fx_by, const fx_work *, fx_flows *out);
void fx_flows_close(fx_flows *);
fx_status fx_flows_add(fx_flows *, fx_flow);
/* The time at which a flow ends or begins next; INFINITY: none. */
double fx_flows_next(fx_flows *);
/* Moves all of them on to that time (not beyond fx_flows_next). */
void fx_flows_advance(fx_flows *, double now_us);
/* Takes out a flow that is over; false: none is. */
bool fx_flows_take(fx_flows *, fx_flow *out);

#ifdef __cplusplus
}
#endif
#endif
