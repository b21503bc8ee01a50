/* What surrounds this process, read once before any work: cores, memory limits, shared memory, stacks, devices, how it was
 * started. Plain data that ranks send to each other; what it means is for judge.h. */
#ifndef FX_LAUNCH_SURROUND_H
#define FX_LAUNCH_SURROUND_H

#include "kernels/devices.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where facts are read: this system, or for tests a folder that is laid out like / and another environment. */
typedef struct fx_roots {
    const char *folder; /* put before /proc, /sys and /dev; "": this system */
    const char *(*env)(const char *name);
} fx_roots;

enum { FX_NO_LIMIT = -1 };

typedef struct fx_surround {
    char host[64];
    int32_t rank, local_rank, local_ranks; /* filled in by those who know */
    int32_t online, allowed; /* cores: of the machine, and on which this process may run; 0: unknown */
    int32_t quota;           /* cores' worth of time that the cgroup allows, rounded up; -1: no limit */
    int32_t numa_nodes;      /* 0: unknown */
    int32_t device_numa;     /* NUMA node of the device; -1: unknown */
    int32_t imex;            /* IMEX channels that the process can open */
    char allowed_list[512], numa_list[48]; /* "0-7,64-71", cut at the end */
    char processor[64];
    int64_t memory_total, memory_free; /* bytes of the machine; 0: unknown */
    int64_t group_free;                /* of its cgroups, the least; -1: no limit */
    int64_t address_free;              /* under ulimit -v; -1: no limit */
    int64_t shm_total, shm_free;       /* of /dev/shm; -1: there is none */
    int64_t stack_limit;               /* ulimit -s, bytes; -1: unlimited */
    int64_t thread_stack;              /* of new threads */
    int32_t visible;        /* devices that the process sees; -1: the build has none or none was asked for */
    char visible_env[64];   /* CUDA_VISIBLE_DEVICES, "" */
    char settings[160];     /* variables that slow NCCL down or change its ways, as NAME=VALUE, by blanks */
    char interface[48];     /* NCCL_SOCKET_IFNAME, "" */
    char openmp[64];        /* the variable by which the user places threads, "" */
    fx_device_facts card;   /* of the device this rank takes; visible <= 0: empty */
    char device_fault[256]; /* why there is none */
} fx_surround;

/* $FLUXPAR_ROOT as the folder (tests), the process's environment. */
fx_roots fx_roots_default(void);
/* device: number of the rank on its node, which takes the device of that number among the usable ones; < 0: not asked for. */
void fx_surround_look(const fx_roots *, int device, fx_surround *out);

/* Cores in a list like "0-3,8": how many; 0 for what is none. */
int fx_list_count(const char *list);
/* New threads get at least 8 MiB of stack: with an unlimited stack glibc gives them 2, too little for NCCL's search on large
 * machines. Returns what they get now. */
int64_t fx_threads_stack(void);

/* How the process was started, from its environment. */
typedef struct fx_start {
    const char *launcher; /* "mpirun (Open MPI)", "srun", "a batch script", "none" */
    const char *wires;    /* "PMIx", "PMI", "none": how MPI's processes would find each other */
    int tasks, task;      /* of the launcher, 1 and 0 without */
    int job_tasks;        /* SLURM_NTASKS, 0: not in a job */
} fx_start;
fx_start fx_start_look(const fx_roots *);

#endif
