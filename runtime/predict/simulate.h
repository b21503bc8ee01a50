/* One denoise step of all ranks, event by event: compute streams, transfers beside them, stores into other ranks' memory, waits,
 * and links that all share. What is slow, late or uneven comes out; nothing about overlap is assumed. */
#ifndef FX_PREDICT_SIMULATE_H
#define FX_PREDICT_SIMULATE_H

#include "runtime/predict/cost.h"
#include "runtime/predict/work.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    FX_TIME_GEMM,
    FX_TIME_ATTENTION,
    FX_TIME_ROWS,
    FX_TIME_EXPOSED,
    FX_TIME_LAUNCH,
    FX_TIMES
} fx_time_kind;

/* Something that took time, for pictures of the schedule. */
typedef struct fx_span {
    int who, box;
    bool wire; /* rows under way to other ranks; else the compute stream */
    fx_time_kind kind;
    const char *name;
    double begin_us, end_us;
} fx_span;

typedef struct fx_span_sink {
    void (*span)(void *ctx, const fx_span *);
    void *ctx;
} fx_span_sink;

typedef struct fx_prediction {
    double step_us, time_us[FX_TIMES]; /* of the rank that ends last; they add up to step_us */
    double idle_us;                    /* how much earlier the first rank ends */
    double weights_us;                 /* floor: its weights, read at the rate of the machine file */
    double limit_us;                   /* physical limit of this arrangement: peak rates, no latency */
    double binds_us[FX_BINDS];
    double clock;                 /* of products and attention, as their power allows */
    double text_us, vae_us, flop; /* flop: of a step, all ranks */
    size_t arena_bytes;           /* of the rank that needs most */
} fx_prediction;

/* by: how rows travel (ignored for one rank). sink: NULL, or told. FX_ESHAPE: ranks wait for each other for
 * ever, which is a bug. */
fx_status fx_simulate(const fx_work *, const fx_cost_model *, fx_by by, const fx_span_sink *,
                      fx_prediction *out);

/* The same at the clock of the cost model; without what does not belong to the step. */
fx_status fx_simulate_once(const fx_work *, const fx_cost_model *, fx_by by, const fx_span_sink *,
                           fx_prediction *out);

#ifdef __cplusplus
}
#endif
#endif
