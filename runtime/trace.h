/* The schedule of one denoise step as data: what every rank launches, sends, receives and waits for, and where in its arena.
 * Nothing is computed and no weights are read: the graph that makes pictures runs over the plan backend and a plan
 * communicator, which tell what they are asked for. The graph is a device's: bf16, residual stream f32. */
#ifndef FX_TRACE_H
#define FX_TRACE_H

#include "kernels/plan.h"
#include "runtime/pipeline.h"

#ifdef __cplusplus
extern "C" {
#endif

/* LAUNCH: an op, in the compute stream. SEND, RECV: a transfer begins and runs beside that stream until the WAIT for its
 * ticket, which orders what follows in the stream after it. HOST: the host waits for the device or for other ranks. */
/* STORE: kernels of the launch before it write into another rank's memory; a WAIT without a ticket comes after all stores of
 * `peer` for it. COPY: a store by copy engines, beside the compute stream until the WAIT without ticket and peer ("sent"); the
 * peer of own rows is the rank itself. */
typedef enum {
    FX_TRACE_LAUNCH,
    FX_TRACE_SEND,
    FX_TRACE_RECV,
    FX_TRACE_WAIT,
    FX_TRACE_HOST,
    FX_TRACE_STORE,
    FX_TRACE_COPY
} fx_trace_kind;

/* The bytes from the first element of a view to its last, gaps of its strides included. */
typedef struct fx_trace_range {
    bool write, weights; /* weights: not in the arena, offset 0 */
    size_t offset, bytes;
} fx_trace_range;

enum { FX_TRACE_RANGES = FX_PLAN_WRITES + FX_PLAN_READS + 2 };

typedef struct fx_trace_line {
    int rank;
    int64_t number; /* of the rank's lines, from 1 */
    fx_trace_kind kind;
    const char *box;      /* "double_03", "single_37"; "embed", "join", "final", "watch", "euler" */
    const char *what;     /* the op, what a transfer brings ("in.k.image"), or the collective */
    int peer, ticket;     /* -1, 0: none */
    size_t bytes;         /* of a transfer; of all operands of an op, weights included, gaps not */
    const fx_plan_op *op; /* launches, host ops; else NULL */
    int ranges;
    fx_trace_range range[FX_TRACE_RANGES];
} fx_trace_line;

/* One rank's step in numbers. */
typedef struct fx_trace_totals {
    fx_layout_kind layout; /* as chosen */
    int64_t text_rows, image_rows;
    int64_t launches, posts, waits, hosts; /* posts: tickets */
    size_t bytes_sent, arena_bytes;        /* arena: of the whole picture, without scratch */
} fx_trace_totals;

typedef struct fx_trace fx_trace;

/* Reads configs and headers. Of the options: model, ulysses, ring, layout, exact, exchange (lsa, or transfers). Errors as
 * fx_pipeline_open. */
fx_status fx_trace_open(const fx_pipeline_options *, int ranks, fx_trace **out);
void fx_trace_close(fx_trace **);
const fx_model_facts *fx_trace_facts(const fx_trace *); /* threads and backend are not filled in */
/* The step of one rank for a request that is complete (runtime/request.h): line (may be NULL) is called for each. */
fx_status fx_trace_rank(const fx_trace *, const fx_request *, int rank,
                        void (*line)(void *ctx, const fx_trace_line *), void *ctx, fx_trace_totals *out);

#ifdef __cplusplus
}
#endif
#endif
