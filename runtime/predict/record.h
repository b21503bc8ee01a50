/* Private to work.c and record.c: the graph of one rank, as jobs. */
#ifndef FX_PREDICT_RECORD_H
#define FX_PREDICT_RECORD_H

#include "runtime/predict/work.h"
#include "runtime/session.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Exchanges have the same number on every rank: the n-th of a name in a box. */
typedef struct fx_exchange_key {
    int box, number;
    const char *name;
} fx_exchange_key;

typedef struct fx_exchange_table {
    int n, room;
    fx_exchange_key *key;
} fx_exchange_table;

/* Runs the graph of rank p->rank and appends its jobs to p, its boxes to w, its exchanges to the table. */
fx_status fx_work_listen(const fx_model *, fx_backend *, const fx_request *, const fx_arrangement *,
                         fx_exchange_table *, fx_work *, fx_program *);

#ifdef __cplusplus
}
#endif
#endif
