/* What facts mean: pure functions from what the ranks know (surround.h) and what was measured to findings. A run shows the
 * warnings and ends with the first failure before any work; `fluxpar doctor` shows all. */
#ifndef FX_LAUNCH_JUDGE_H
#define FX_LAUNCH_JUDGE_H

#include "launch/place/surround.h"
#include "runtime/core/status.h"

typedef enum { FX_FOUND_NOTE, FX_FOUND_WARNING, FX_FOUND_FAILURE } fx_found_level;

typedef struct fx_finding {
    fx_found_level level;
    fx_status code; /* how a run would end of a failure */
    char topic[16]; /* "cores" "devices" "link" "memory" "shm" "stack" "mpi" "network" "settings" */
    char what[320], why[320], fix[320];
} fx_finding;

enum { FX_FINDINGS = 64 };
typedef struct fx_findings {
    int n, left_out; /* kept; others that had no room */
    fx_finding list[FX_FINDINGS];
} fx_findings;

/* fmt gives what, why and what to do, divided by newlines. */
__attribute__((format(printf, 5, 6))) void fx_find(fx_findings *, fx_found_level, fx_status,
                                                   const char *topic, const char *fmt, ...);
const char *fx_level_name(fx_found_level); /* "note" "warning" "failure" */
/* The first failure as a status, its message "what; why; what to do"; FX_OK: none. */
fx_status fx_findings_status(const fx_findings *);
int fx_findings_count(const fx_findings *, fx_found_level);

/* A run that is about to begin. */
typedef struct fx_scene {
    int ranks;
    bool devices;                    /* it computes on them */
    int threads;                     /* per rank, as asked for; 0: automatic */
    uint64_t node_bytes, rank_bytes; /* host memory that a node and each of its ranks need; 0: unknown */
    uint64_t device_bytes;           /* memory that each device needs; 0: unknown */
    const fx_surround *of;           /* [ranks], all fields filled in */
} fx_scene;

/* Cores, memory, shared memory, stacks, devices, settings. */
void fx_judge_scene(const fx_scene *, fx_findings *);
/* Alone: how this process was started, against the size that MPI has (0: MPI was not started). */
void fx_judge_start(const fx_start *, int mpi_size, fx_findings *);

/* "0-3,8" of the ranks on the host of rank `of`. */
void fx_ranks_of_node(const fx_scene *, int of, char *out, size_t size);
/* The lowest rank on that host. */
int fx_first_of_node(const fx_scene *, int of);

/* How a rank is to be bound: parts > 0: part `number` of so many of its cores; parts 0: NUMA node `number`; parts < 0: not,
 * because of `why`. */
typedef struct fx_binding {
    int number, parts;
    const char *why;
} fx_binding;
fx_binding fx_binding_of(const fx_scene *, int rank, const char *bind);

#endif
