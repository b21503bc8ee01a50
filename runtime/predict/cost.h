/* How long one launch takes, and what limits it. */
#ifndef FX_PREDICT_COST_H
#define FX_PREDICT_COST_H

#include "runtime/predict/machine.h"
#include "runtime/predict/work.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { FX_BINDS_FLOP, FX_BINDS_MEMORY, FX_BINDS_LINK, FX_BINDS_LATENCY, FX_BINDS } fx_binds;
const char *fx_binds_name(fx_binds); /* "FLOP", "HBM", "NVLink", "latency" */

/* A rank's share of a machine. */
typedef struct fx_cost_model {
    const fx_machine *m;
    fx_rate_dtype dtype;
    double units; /* that work for this rank */
    double share; /* of the machine's memory rate: 1, or of a node's CPU 1 / ranks */
    double clock; /* of products and attention, against the rates of the machine file */
} fx_cost_model;

typedef struct fx_cost {
    double us, fixed_us;   /* all of it; launch and start of it, which no size changes */
    double flop, floor_us; /* floor: weights at the rate at which weights are read */
    fx_binds binds;
} fx_cost;

fx_cost_model fx_cost_of(const fx_machine *, fx_rate_dtype, int ranks_of_machine);
fx_cost fx_cost_job(const fx_cost_model *, const fx_job *);
/* Bytes of a bf16 value's worth of weights in this dtype, over 2. */
double fx_cost_weight_share(fx_rate_dtype);
double fx_job_flop(const fx_job *);

#ifdef __cplusplus
}
#endif
#endif
