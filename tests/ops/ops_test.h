/* The op check: every op of a backend against ref (f64), judged per element by the error budget of
 * kernels/ops.h. case (cases.c) x backend dtype x input kind x argument dtypes = one row (rows.c): make
 * operands (operand.c), run plan, backend and ref (trial.c), judge (judge.c), run again split by rows on one
 * thread and compare bytes. ops_*.c say per op how to set up, call and budget; sampled.c does real shapes of
 * which 64 rows are judged; mutants.c holds wrong ops that must be found; timing.c is --bench. */
#ifndef FX_TESTS_OPS_TEST_H
#define FX_TESTS_OPS_TEST_H

#include "kernels/ops.h"

/* ---- input kinds ---- */
enum {
    NORMAL = 1,    /* N(0,1) */
    OUTLIER = 2,   /* N(0,1), one in 64 a hundred times larger */
    TINY = 4,      /* N(0,1e-3): where eps matters */
    NEARCONST = 8, /* 100 + N(0,1e-2): one-pass variance loses everything */
    PEAKY = 16,    /* N(0,4): softmax close to one-hot */
    BROKEN = 32,   /* NORMAL with one NaN: it must arrive exactly where ref has it, never vanish */
    ALL_KINDS = 63,
    /* when a case runs: */
    LONG = 64,      /* with FX_LONG only */
    ONLY_F32 = 128, /* backend dtype */
    ONLY_BF16 = 256
};
const char *kind_name(unsigned kind);

/* ---- views: how an operand lies in its frame ---- */
typedef enum {
    PLAIN,
    ROWS,     /* odd row stride, odd offset */
    WIDE,     /* a column slice of a buffer three times as wide (q | k | v) */
    INNER,    /* three dims: the last one padded, the outer two follow each other */
    HEADS,    /* token and head strides both padded */
    MAJOR,    /* [H,T,D] in memory, seen as [T,H,D] */
    PIECE,    /* a third of the heads of [T,3H,D], or a third of the rows of [3H,T]: as a ring takes them */
    GAPS,     /* 4 elements between rows, the first of which is aligned */
    REVERSED, /* all strides reversed, the last dim not dense */
    SAMPLED   /* t rows at once; 64 of them are judged (sampled.c) */
} view_kind;

/* ---- cases ---- */
typedef struct op_case {
    const char *op;
    int64_t t, c, k, h; /* meaning per op: see ops_*.c */
    int variant;        /* per op: activation, bias kind, taps ... */
    view_kind view;
    unsigned kinds;
    const char *why;
} op_case;

/* ---- cases.c ---- */
extern const op_case op_cases[];
extern const int op_case_count;

/* ---- operands ---- */
/* PARAM: an input that ref takes in the same dtype (vectors, ids, statistics); TEMP: written, not judged */
typedef enum { IN, PARAM, OUT, INOUT, TEMP } operand_role;
typedef struct operand {
    const char *name;
    operand_role role;
    fx_tensor t;                     /* the backend's view into frame */
    fx_tensor r;                     /* ref's contiguous copy: f64; as t for PARAM, ids and bytes */
    double *before;                  /* values at the start, row-major (floats) */
    unsigned char *frame, *snapshot; /* canaries (NaN) round and between the elements */
    size_t bytes;
    int split_dim; /* dimension cut by the row split, -1 none */
} operand;

enum { MAX_OPERANDS = 10 };
typedef struct trial trial;

typedef struct op_def {
    const char *name;
    /* which argument dtypes are free (dtype or stream): bit 0 the output, bit 1 the inputs */
    int free_dtypes;
    void (*setup)(trial *);
    fx_status (*call)(fx_backend *, const trial *, const fx_weight *w, const fx_tensor t[]);
    void (*budget)(const trial *, int operand_index, double *budget); /* per element of that output */
    /* Views that make the output rows [begin, begin+count); NULL: cut split_dim of every operand. sub: conv's
     * pad */
    void (*cut)(const trial *, int64_t begin, int64_t count, fx_tensor part[], trial *sub);
    const char *(*extra)(const trial *); /* another property of the result; NULL or a complaint */
} op_def;

struct trial {
    const op_case *c;
    const op_def *def;
    unsigned kind;
    uint64_t rng;
    fx_backend *be, *be1, *ref; /* the same backend with 2 threads and with 1 */
    fx_dtype x_dtype, y_dtype;
    operand arg[MAX_OPERANDS];
    int args;
    int64_t split_rows; /* output rows the split cuts (0: no split test) */
    bool has_weight;
    double *w_values; /* row-major as files store it */
    fx_weight w_be, w_be1, w_ref;
    fx_act act;
    float eps, scale, add;
    int stride, pad[4], parts;
    char label[200];
};

/* ---- operand.c ---- */
double normal(uint64_t *rng);
double uniform(uint64_t *rng); /* [0,1) */
operand *add_operand(trial *, const char *name, operand_role, fx_dtype, view_kind, int ndim, int64_t a,
                     int64_t b, int64_t c);
void fill(trial *, operand *, unsigned kind);       /* random of that kind, rounded to the dtype */
void set_value(operand *, int64_t i, double value); /* row-major element of t, r and before */
void make_weight(trial *, fx_weight_kind, int64_t n, int64_t k, int kh, int kw, unsigned kind);
double read_t(const operand *, int64_t i); /* what the backend wrote */
double read_r(const operand *, int64_t i); /* what ref wrote */
void restart_outputs(trial *);             /* NaN again, INOUT values again */
const char *frame_damage(trial *);         /* a canary or an input changed: which; else NULL */
void free_trial(trial *);

/* ---- judge.c ---- */
/* How near to its budget an op came, over all rows of one backend and dtype. */
typedef struct op_score {
    int trials;
    double ratio, rms; /* worst err/B, worst rms(err/B) */
    double
        beyond; /* worst (err - u|y|) / (B - u|y|): what is left when the one rounding of the output is taken out */
    char at[240];
} op_score;
extern op_score *op_scores; /* where judge writes; shared with the parent process */
double unit_of(fx_dtype);   /* u of kernels/ops.h */
extern const double u32;
bool judge(trial *); /* all outputs; prints failures */
/* Products of backend onednn: sums may start from the bias, and convolutions let a NaN meet zero weights beyond
 * the window. */
bool library_products(const trial *);
bool tensor_cores(const trial *t);
bool complain(const trial *, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* false */

/* ---- trial.c ---- */
void make_label(trial *);
fx_status plan_and_run(fx_backend *, const trial *, const fx_weight *,
                       const fx_tensor views[]); /* in one call */
bool run_trial(trial *);

/* ---- sampled.c ---- */
bool run_sampled(trial *);
void time_sampled(trial *);

/* ---- rows.c: what one child process does ---- */
typedef struct op_job {
    const op_def *def;
    const char *backend;
    fx_dtype dtype;
    uint64_t seed;
    int first;                      /* rows before it are done */
    int only;                       /* this row alone, or -1 */
    const struct op_mutant *mutant; /* NULL, or the mistake to make */
    bool stop_early;                /* at the first failure */
    unsigned limit_s;               /* per row */
    const char *program, *isa;      /* for the command that repeats a row */
} op_job;
/* In memory shared with the parent: what a child that dies leaves behind. */
typedef struct op_progress {
    int row; /* being run; -1 before the first */
    bool finished;
    int passed, failed;
    char label[240], again[400];
    op_score score;
} op_progress;
void run_rows(const op_job *, op_progress *);
int list_rows(const op_job *); /* prints them; their number */
void time_rows(const op_job *);

/* ---- mutants.c: one-line mistakes ---- */
typedef struct op_mutant {
    const char *name, *op; /* op: whose rows must fail */
    void (*apply)(fx_ops *);
} op_mutant;
extern const op_mutant op_mutants[];
extern const int op_mutant_count;
extern const op_mutant op_mutant_crash, op_mutant_hang;
void mutate(const op_mutant *, fx_backend *); /* this process only */

/* ---- timing.c ---- */
/* Runs and prints the median; t's operands are `views`. */
void time_views(trial *, const fx_weight *, const fx_tensor views[], int runs);
void time_trial(trial *); /* one line */

/* ---- ops_*.c ---- */
extern const op_def op_linear, op_conv2d, op_attention, op_attention_parts, op_attention_merge, op_norm_mod,
    op_layer_norm, op_rms_norm, op_gate_add, op_gate_norm, op_qk_norm_rope, op_axpy, op_activate, op_glu,
    op_embed, op_copy, op_row_stats, op_group_norm, op_upsample2x, op_to_rgb8, op_count_nonfinite;
const op_def *op_at(int i); /* NULL past the last */
bool op_cases_known(void);

#endif
