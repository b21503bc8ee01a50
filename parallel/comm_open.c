/* The registry of transports: kind -> communicator, and how a process learns that a launcher started it as
 * one of many. Environment only, so that a run without a launcher never touches MPI. */
#include "parallel/comm_internal.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

static bool env_int(const char *name, int *out)
{
    const char *text = getenv(name);
    char *end;
    if (!text || !*text) return false;
    errno = 0;
    const long v = strtol(text, &end, 10);
    if (*end || errno || v < 0 || v > INT_MAX) return false;
    *out = (int)v;
    return true;
}

/* Size and rank as launchers tell them. Slurm's are last: mpirun inside a job has its own, and a batch script
 * itself (no step) is one process whatever the job's task count says. */
bool fx_comm_launched(int *ranks, int *rank)
{
    static const char *const pair[][2] = {{"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"},
                                          {"PMI_SIZE", "PMI_RANK"},
                                          {"MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"},
                                          {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID"},
                                          {"SLURM_NTASKS", "SLURM_PROCID"}};
    int size = 1, me = 0;
    bool found = false;
    for (size_t i = 0; i < sizeof pair / sizeof pair[0] && !found; i++) {
        if (!strcmp(pair[i][0], "SLURM_NTASKS") && !getenv("SLURM_STEP_ID") && !getenv("SLURM_STEPID"))
            continue;
        found = env_int(pair[i][0], &size) && env_int(pair[i][1], &me);
    }
    if (!found) size = 1, me = 0;
    if (ranks) *ranks = size;
    if (rank) *rank = me;
    return size > 1;
}

/* srun starts tasks whether or not it tells MPI how they meet; some MPI libraries end such a process in their
 * start, with a page of text. */
static fx_status check_wires(void)
{
    static const char *const wires[] = {"PMIX_RANK", "PMIX_NAMESPACE", "PMI_FD",
                                        "PMI_RANK",  "PMI_PORT",       "OMPI_COMM_WORLD_SIZE"};
    int tasks = 1, task = 0;
    if (!fx_comm_launched(&tasks, &task) || !(getenv("SLURM_STEP_ID") || getenv("SLURM_STEPID")))
        return FX_OK;
    for (size_t i = 0; i < sizeof wires / sizeof wires[0]; i++)
        if (getenv(wires[i])) return FX_OK;
    return FX_FAIL(
        FX_EINVAL,
        "srun started %d tasks (this is task %d) but did not wire MPI to them, so each would be alone; "
        "use 'srun --mpi=pmix' ('srun --mpi=list' shows what exists)",
        tasks, task);
}

fx_status fx_comm_open(const char *kind, double timeout_s, fx_comm **out)
{
    *out = NULL;
    if (!strcmp(kind, "auto")) kind = fx_comm_launched(NULL, NULL) ? "mpi" : "self";
    if (!strcmp(kind, "self")) return fx_comm_open_self(timeout_s, out);
    if (!strcmp(kind, "mpi")) {
        FX_TRY(check_wires());
        return fx_comm_open_mpi(timeout_s, out);
    }
    return FX_FAIL(FX_EINVAL, "unknown transport '%s'; known: auto self mpi", kind);
}

const char *fx_comm_describe(void)
{
    return fx_comm_describe_mpi();
}
