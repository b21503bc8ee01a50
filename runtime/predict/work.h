/* What the ranks of one picture do, taken from the real graph: it runs over the plan backend and a plan communicator
 * (fx_session_plan), once for each class of ranks that do the same, and every op, transfer and wait becomes a job. Peers are
 * counted by class, so a job of 72 ranks is no longer than one of two. */
#ifndef FX_PREDICT_WORK_H
#define FX_PREDICT_WORK_H

#include "runtime/pipeline.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    FX_JOB_OP,    /* one launch in the compute stream */
    FX_JOB_STORE, /* a launch that stores into other ranks' memory */
    FX_JOB_COPY,  /* copy engines do, beside the stream */
    FX_JOB_AWAIT, /* what follows comes after the stores of these ranks */
    FX_JOB_POST,  /* transfers begin beside the stream */
    FX_JOB_WAIT,  /* what follows comes after them */
    FX_JOB_HOST   /* the host waits for the device or for other ranks */
} fx_job_kind;
typedef enum { FX_WORK_GEMM, FX_WORK_ATTENTION, FX_WORK_CONV, FX_WORK_ROWS, FX_WORK_KINDS } fx_work_kind;
typedef enum { FX_PART_TEXT, FX_PART_STEP, FX_PART_VAE, FX_PARTS_OF_PICTURE } fx_picture_part;

/* Ranks of a class that a job sends to or hears from. */
typedef struct fx_work_peers {
    int who, count;
    bool far;     /* in another domain */
    double bytes; /* for all `count` of them together */
} fx_work_peers;

typedef struct fx_job {
    fx_job_kind kind;
    fx_work_kind work;
    fx_picture_part part;
    int box;                    /* of fx_work.box */
    const char *name;           /* the op, a transfer's label or a collective; of a constant */
    int64_t m, n, k;            /* products: rows, outputs, inputs; attention: queries, keys, head size */
    int64_t heads;              /* attention */
    double bytes, weight_bytes; /* operands without weights; weights (bf16) */
    int exchange;               /* of fx_work.exchanges, -1: none */
    int out, outs, in, ins;     /* ranges of fx_program.peers */
} fx_job;

/* One class of ranks. */
typedef struct fx_program {
    int rank, size; /* the first rank of the class; how many there are */
    int64_t text_rows, image_rows;
    int n, room, peers_n, peers_room;
    fx_job *job;
    fx_work_peers *peers;
    size_t arena_bytes;
} fx_program;

typedef struct fx_work {
    int ranks, classes, *class_of; /* class_of[ranks] */
    fx_layout_kind layout;         /* as chosen */
    fx_program *program;           /* [classes] */
    int boxes, boxes_room, exchanges;
    char (*box)[24]; /* "double_03" */
    bool crosses;    /* ranks lie in several domains */
} fx_work;

/* One arrangement of the ranks of a picture. */
typedef struct fx_arrangement {
    fx_mesh mesh;
    fx_layout_kind layout;
    fx_exact exact;
    bool by_kernels;    /* attention's rows are stored by kernels; else transfers */
    int domain, offset; /* ranks of a domain; place of rank 0 in its domain */
} fx_arrangement;

typedef struct fx_graph fx_graph; /* a model whose graph is asked */

/* Reads configs and headers, no weights. */
fx_status fx_graph_open(const char *model, fx_graph **out);
void fx_graph_close(fx_graph **);
const fx_model_facts *fx_graph_facts(const fx_graph *); /* without mesh, layout, threads and backend */
/* request: complete. */
fx_status fx_work_open(const fx_graph *, const fx_request *, const fx_arrangement *, fx_work *out);
void fx_work_close(fx_work *);

#ifdef __cplusplus
}
#endif
#endif
