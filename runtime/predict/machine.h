/* A machine in numbers: what the predictor knows about it and nothing else does. Read from a JSON file that may come from
 * anywhere, or from one of the files in machines/, which are part of the program. The format: README.md of this folder. */
#ifndef FX_PREDICT_MACHINE_H
#define FX_PREDICT_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/core/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* fp8 and nvfp4: of linear layers; predicted by rates, not implemented in the runtime. */
typedef enum { FX_RATE_BF16, FX_RATE_FP8, FX_RATE_NVFP4, FX_RATE_F32, FX_RATE_DTYPES } fx_rate_dtype;
typedef enum { FX_BY_LSA, FX_BY_PEER, FX_BY_NCCL, FX_BY_MPI, FX_BYS } fx_by; /* how rows travel */

/* A class of shapes: work cut into tiles of rows x columns (attention: queries x nothing). */
typedef struct fx_rate {
    fx_rate_dtype dtype;
    int64_t rows, cols;
    double tflops;  /* of the whole device while each unit works on such a tile */
    double tile_us; /* of a tile beside that */
} fx_rate;

enum { FX_MACHINE_RATES = 96, FX_MACHINE_OPS = 16, FX_MACHINE_NAME = 32, FX_MACHINE_TEXT = 256 };

typedef struct fx_rates {
    int n;
    fx_rate r[FX_MACHINE_RATES];
} fx_rates;

typedef struct fx_op_rate {
    char name[FX_MACHINE_NAME];
    double gbps;
} fx_op_rate;

typedef struct fx_by_rate {
    bool given, overlap;            /* overlap: rows travel beside what the compute stream does */
    double start_us, wait_us, gbps; /* gbps: what a rank sends, to all others together; so much it receives */
} fx_by_rate;

typedef struct fx_machine {
    char name[FX_MACHINE_TEXT], source[FX_MACHINE_TEXT];
    bool cpu;          /* units and memory are a node's, dealt out to its ranks */
    int64_t units;     /* multiprocessors, cores */
    double memory_gib; /* of a rank's device; cpu: of the node */
    double sustained;  /* rate in a long run / rates of this file */
    double peak_gbps, peak_link_gbps, peak_tflops[FX_RATE_DTYPES]; /* physical limits; 0: not told */
    fx_rates gemm, attention, conv;
    double rows_gbps, weights_gbps;
    int ops;
    fx_op_rate op[FX_MACHINE_OPS]; /* row kernels that move other than rows_gbps */
    double op_us, launch_us;       /* of any kernel beside its work; between two kernels of a recorded step */
    double host_launch_us, host_post_us, host_step_us, png_ms_per_mpixel;
    fx_by_rate by[FX_BYS];
    int64_t domain_ranks; /* so many reach each other's memory */
    double domain_latency_us;
    double network_gbps, network_domain_gbps, network_latency_us; /* per rank, per domain; 0: no network */
} fx_machine;

/* name: a shipped file ("h200"), "this" (machine.json in $FLUXPAR_CACHE), or a path that ends in .json. FX_EINVAL: not
 * known; FX_EREAD, FX_EFORMAT: the file, key and value. */
fx_status fx_machine_open(const char *name, fx_machine *out);
/* Takes domain and network of a topology: shipped ("nvl72", "dgx") or a path. */
fx_status fx_machine_topology(const char *name, fx_machine *inout);
/* The text of a file. path: for messages. topology: domain and network alone. */
fx_status fx_machine_parse(const char *text, size_t size, const char *path, bool topology, fx_machine *inout);
fx_status fx_machine_write(const fx_machine *, const char *path, bool overwrite);
/* Where "this" lies; false: no folder for it. */
bool fx_machine_this(char *path, size_t size);
/* "h200", NULL past the last. Machines first, then topologies. */
const char *fx_machine_shipped(int i, bool *topology);
const char *fx_rate_name(fx_rate_dtype); /* "bf16" */
const char *fx_by_name(fx_by);           /* "lsa" */

/* The shipped files as the build found them; machines.c of the build folder. */
typedef struct fx_machine_file {
    const char *name;
    const unsigned char *text;
    size_t size;
} fx_machine_file;
extern const fx_machine_file fx_machine_files[];
extern const int fx_machine_file_count;

#ifdef __cplusplus
}
#endif
#endif
