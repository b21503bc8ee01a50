/* Facts into findings; see judge.h. One finding per kind and node, not per rank: what holds for many is said once, and of how
 * many. */
#include "launch/place/judge.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MIB ((int64_t)1 << 20)

/* ---- findings ---- */

static const char *take_line(const char *from, char *out, size_t size)
{
    const size_t n = strcspn(from, "\n");
    snprintf(out, size, "%.*s", (int)n, from);
    return from[n] ? from + n + 1 : from + n;
}

void fx_find(fx_findings *f, fx_found_level level, fx_status code, const char *topic, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    if (f->n == FX_FINDINGS) {
        f->left_out++;
        return;
    }
    fx_finding *one = &f->list[f->n++];
    *one = (fx_finding){.level = level, .code = code};
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    snprintf(one->topic, sizeof one->topic, "%s", topic);
    const char *at = take_line(text, one->what, sizeof one->what);
    at = take_line(at, one->why, sizeof one->why);
    take_line(at, one->fix, sizeof one->fix);
}

const char *fx_level_name(fx_found_level level)
{
    return level == FX_FOUND_FAILURE ? "failure" : level == FX_FOUND_WARNING ? "warning" : "note";
}

int fx_findings_count(const fx_findings *f, fx_found_level level)
{
    int n = 0;
    for (int i = 0; i < f->n; i++) n += f->list[i].level == level;
    return n;
}

fx_status fx_findings_status(const fx_findings *f)
{
    for (int i = 0; i < f->n; i++) {
        const fx_finding *one = &f->list[i];
        if (one->level == FX_FOUND_FAILURE)
            return FX_FAIL(one->code, "%s; %s; %s", one->what, one->why, one->fix);
    }
    return FX_OK;
}

/* ---- nodes ---- */

static bool same_node(const fx_scene *s, int a, int b)
{
    return !strcmp(s->of[a].host, s->of[b].host);
}

int fx_first_of_node(const fx_scene *s, int of)
{
    int first = 0;
    while (!same_node(s, first, of)) first++;
    return first;
}

void fx_ranks_of_node(const fx_scene *s, int of, char *out, size_t size)
{
    size_t at = 0;
    out[0] = 0;
    for (int r = 0; r < s->ranks; r++) {
        int last = r;
        if (!same_node(s, r, of)) continue;
        while (last + 1 < s->ranks && same_node(s, last + 1, of)) last++;
        const int n = last > r ? snprintf(out + at, size - at, "%s%d-%d", at ? "," : "", r, last)
                               : snprintf(out + at, size - at, "%s%d", at ? "," : "", r);
        if (n < 0 || (size_t)n >= size - at) return; /* cut */
        at += (size_t)n;
        r = last;
    }
}

/* ---- cores ---- */

static void judge_binding(const fx_scene *s, int first, fx_findings *out)
{
    const fx_surround *me = &s->of[first];
    const int share = me->local_ranks > 0 ? me->online / me->local_ranks : 0;
    int bound = 0, rank = -1;
    for (int r = 0; r < s->ranks; r++) {
        if (!same_node(s, r, first) || s->of[r].allowed != 1) continue;
        if (rank < 0) rank = r;
        bound++;
    }
    if (bound && share >= 2 && s->threads != 1)
        fx_find(out, FX_FOUND_WARNING, FX_EINVAL, "cores",
                "rank %d may use 1 core of %s's %d (%d of its %d ranks are bound like that)\nthe launcher "
                "binds ranks to "
                "one core, which computing, loading and writing then share\nuse 'mpirun --bind-to none' "
                "(fluxpar then gives "
                "every rank its share by itself) or 'srun --cpus-per-task=%d --cpu-bind=cores'",
                rank, me->host, me->online, bound, me->local_ranks, share);
}

static void judge_quota(const fx_scene *s, int first, fx_findings *out)
{
    const fx_surround *me = &s->of[first];
    const int threads = s->threads ? s->threads : me->allowed / (me->local_ranks > 0 ? me->local_ranks : 1);
    if (me->quota < 0 || threads * me->local_ranks <= me->quota) return;
    const int fair = me->quota / me->local_ranks;
    fx_find(out, FX_FOUND_WARNING, FX_EINVAL, "cores",
            "%s's container or job has the time of %d cores (cgroup cpu quota) and its ranks would run %d "
            "threads\nall of "
            "them are stopped together whenever the quota is used up\nuse --threads %d, or raise the limit "
            "(docker --cpus)",
            me->host, me->quota, threads * me->local_ranks, fair > 1 ? fair : 1);
}

static void judge_crowd(const fx_scene *s, int first, fx_findings *out)
{
    const fx_surround *me = &s->of[first];
    if (s->devices || !me->online || me->local_ranks <= me->online) return;
    fx_find(out, FX_FOUND_NOTE, FX_EINVAL, "cores",
            "%d ranks share the %d cores of %s\nranks then wait for each other's turn; the picture is the "
            "same\nstart at "
            "most %d ranks there",
            me->local_ranks, me->online, me->host, me->online);
}

/* ---- memory ---- */

static double gib(int64_t bytes)
{
    return (double)bytes / 0x1p30;
}

static void judge_memory(const fx_scene *s, int first, fx_findings *out)
{
    const fx_surround *me = &s->of[first];
    const int64_t need = (int64_t)s->node_bytes + (int64_t)s->rank_bytes * me->local_ranks;
    const bool limited = me->group_free >= 0 && me->group_free < me->memory_free;
    const int64_t have = limited ? me->group_free : me->memory_free;
    const char *of = limited ? "memory limit of the container or job (cgroup)" : "free memory of the machine";
    if (!me->memory_free && me->group_free < 0) return; /* unknown */
    if (need > have)
        fx_find(out, FX_FOUND_FAILURE, FX_ENOMEM, "memory",
                "%.2f GiB of host memory are needed on %s and %.2f GiB are there\nthat is the %s\n%s",
                gib(need), me->host, gib(have), of,
                limited ? "ask for more ('sbatch --mem', 'docker --memory'), or use more nodes"
                        : "end what else runs there, or use more nodes");
    else if (limited && me->group_free < me->memory_total / 2)
        fx_find(out, FX_FOUND_NOTE, FX_ENOMEM, "memory",
                "%s has %.2f GiB for its ranks, of %.2f GiB free in the machine\nthe %s counts\nask for more "
                "if a "
                "picture does not fit ('sbatch --mem', 'docker --memory')",
                me->host, gib(have), gib(me->memory_free), of);
    if (s->devices && me->address_free >= 0)
        fx_find(out, FX_FOUND_WARNING, FX_EDEVICE, "memory",
                "the address space of %s's ranks is limited to %.1f GiB more (ulimit -v)\nCUDA reserves "
                "address space for "
                "all memory of the node and may not start\nuse 'ulimit -v unlimited'",
                me->host, gib(me->address_free));
}

static bool has_setting(const fx_surround *me, const char *setting)
{
    const char *at = strstr(me->settings, setting);
    return at && (at == me->settings || at[-1] == ' ') && strchr(" ", at[strlen(setting)]);
}

static void judge_shm(const fx_scene *s, int first, fx_findings *out)
{
    const fx_surround *me = &s->of[first];
    const int64_t n = me->local_ranks, mpi = 5 * MIB * n, nccl = 10 * MIB * n * (n - 1);
    static const char fix[] =
        "start the container with --shm-size=1g or --ipc=host, or remove old files there";
    if (n < 2 || has_setting(me, "NCCL_SHM_DISABLE=1")) return;
    if (s->devices && me->shm_free < n * MIB)
        fx_find(out, FX_FOUND_FAILURE, FX_EDEVICE, "shm",
                "/dev/shm of %s has %lld MiB free for %lld ranks\nNCCL takes shared memory there and cannot "
                "start\n%s",
                me->host, (long long)((me->shm_free < 0 ? 0 : me->shm_free) / MIB), (long long)n, fix);
    else if (s->devices && me->shm_free < nccl)
        fx_find(out, FX_FOUND_WARNING, FX_EDEVICE, "shm",
                "/dev/shm of %s has %lld MiB free for %lld ranks\nNCCL may take about 10 MiB there for each "
                "pair where "
                "devices do not reach each other\n%s",
                me->host, (long long)(me->shm_free / MIB), (long long)n, fix);
    else if (me->shm_total < mpi)
        fx_find(out, FX_FOUND_WARNING, FX_ECOMM, "shm",
                "/dev/shm of %s has %lld MiB in all for %lld ranks\nMPI keeps the messages between ranks of "
                "a node there, 4 "
                "MiB each\n%s",
                me->host, (long long)((me->shm_total < 0 ? 0 : me->shm_total) / MIB), (long long)n, fix);
}

static void judge_stack(const fx_scene *s, int first, fx_findings *out)
{
    const fx_surround *me = &s->of[first];
    if (me->stack_limit == FX_NO_LIMIT && s->devices && me->thread_stack >= 8 * MIB)
        fx_find(out, FX_FOUND_NOTE, FX_EDEVICE, "stack",
                "the stack of %s's ranks is unlimited (ulimit -s)\nglibc then gives threads 2 MiB, which "
                "NCCL's search "
                "overran on large machines; fluxpar gives them %lld MiB\nnothing, or 'ulimit -s 8192'",
                me->host, (long long)(me->thread_stack / MIB));
    if (me->thread_stack > 0 && me->thread_stack < 8 * MIB)
        fx_find(out, FX_FOUND_WARNING, FX_EDEVICE, "stack",
                "threads on %s have stacks of %lld KiB and more could not be had\nthreads of NCCL and MPI "
                "need up to 8 MiB\nuse "
                "'ulimit -s 8192'",
                me->host, (long long)(me->thread_stack / 1024));
}

/* ---- devices ---- */

static void judge_same_device(const fx_scene *s, fx_findings *out)
{
    for (int a = 0; a < s->ranks; a++)
        for (int b = a + 1; b < s->ranks; b++) {
            const fx_surround *x = &s->of[a], *y = &s->of[b];
            if (!x->card.uuid[0] || strcmp(x->card.uuid, y->card.uuid) || !same_node(s, a, b)) continue;
            fx_find(out, FX_FOUND_FAILURE, FX_EDEVICE, "devices",
                    "ranks %d and %d both use %.20s (%s) of %s\n%d ranks run there and see %d "
                    "device%s%s%s\nstart one rank per "
                    "device ('mpirun -np %d', 'sbatch --ntasks-per-node=%d'), or use --backend cpu",
                    a, b, x->card.uuid, x->card.name, x->host, x->local_ranks, x->visible,
                    x->visible == 1 ? "" : "s", x->visible_env[0] ? "; CUDA_VISIBLE_DEVICES=" : "",
                    x->visible_env, x->visible, x->visible);
            return;
        }
}

static void judge_own_devices(const fx_scene *s, int first, fx_findings *out)
{
    const fx_surround *me = &s->of[first];
    for (int r = 0; r < s->ranks; r++) {
        if (!same_node(s, r, first) || !s->of[r].device_fault[0]) continue;
        fx_find(out, FX_FOUND_FAILURE, FX_EDEVICE, "devices",
                "rank %d has no device on %s\n%s\ncheck 'nvidia-smi' and CUDA_VISIBLE_DEVICES there", r,
                me->host, s->of[r].device_fault);
        return;
    }
    if (s->device_bytes > me->card.total_bytes && me->card.total_bytes)
        fx_find(out, FX_FOUND_FAILURE, FX_ENOMEM, "memory",
                "the weights need %.2f GiB on each device and those of %s have %.2f GiB\nevery rank keeps "
                "all of them\nuse "
                "larger devices or a smaller model",
                gib((int64_t)s->device_bytes), me->host, gib((int64_t)me->card.total_bytes));
    if (me->visible == 1 && me->local_ranks > 1)
        fx_find(
            out, FX_FOUND_WARNING, FX_EDEVICE, "devices",
            "rank %d sees 1 device and %d ranks run on %s\nranks then may not reach each other's memory over "
            "NVLink, which "
            "is several times slower\ndrop --gpus-per-task and --gpu-bind, use '--gpus-per-node=%d'; leave "
            "CUDA_VISIBLE_DEVICES the same for all ranks",
            first, me->local_ranks, me->host, me->local_ranks);
}

static void judge_mixture(const fx_scene *s, fx_findings *out)
{
    for (int r = 1; r < s->ranks; r++) {
        const fx_device_facts *a = &s->of[0].card, *b = &s->of[r].card;
        if (a->name[0] && b->name[0] && strcmp(a->name, b->name)) {
            fx_find(out, FX_FOUND_WARNING, FX_EDEVICE, "devices",
                    "rank 0 has a %s and rank %d a %s\nthe slowest sets the pace, and their bits may "
                    "differ\nask for nodes of one "
                    "kind ('sbatch --constraint', '--gpus-per-node=TYPE:N')",
                    a->name, r, b->name);
            return;
        }
        if (a->driver && b->driver && a->driver != b->driver) {
            fx_find(out, FX_FOUND_WARNING, FX_EDEVICE, "devices",
                    "the driver of rank 0's node is for CUDA %d.%d and that of rank %d's for "
                    "%d.%d\nlibraries may choose other "
                    "kernels then\ninstall one driver on all nodes",
                    a->driver / 1000, a->driver / 10 % 100, r, b->driver / 1000, b->driver / 10 % 100);
            return;
        }
    }
}

static void judge_settings(const fx_scene *s, int first, fx_findings *out)
{
    const fx_surround *me = &s->of[first];
    static const char *const bad[] = {"NCCL_P2P_DISABLE=1", "NCCL_SHM_DISABLE=1", "NCCL_CUMEM_ENABLE=0",
                                      "NCCL_MNNVL_ENABLE=0", "CUDA_LAUNCH_BLOCKING=1"};
    bool any = false;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) any = any || has_setting(me, bad[i]);
    if (!me->settings[0] || s->ranks < 2) return;
    fx_find(out, any ? FX_FOUND_WARNING : FX_FOUND_NOTE, FX_EDEVICE, "settings",
            "%s is set on %s\n%s\nunset it, unless it is there for a reason", me->settings, me->host,
            any ? "it switches a fast way between devices off, and nothing else says so"
                : "it changes the ways that NCCL takes");
}

/* ---- all ---- */

void fx_judge_scene(const fx_scene *s, fx_findings *out)
{
    if (s->devices) {
        judge_same_device(s, out);
        judge_mixture(s, out);
    }
    for (int r = 0; r < s->ranks; r++) {
        if (fx_first_of_node(s, r) != r) continue;
        if (s->devices) {
            judge_own_devices(s, r, out);
            judge_settings(s, r, out);
        }
        judge_binding(s, r, out);
        judge_quota(s, r, out);
        judge_crowd(s, r, out);
        judge_memory(s, r, out);
        judge_shm(s, r, out);
        judge_stack(s, r, out);
    }
}

void fx_judge_start(const fx_start *s, int mpi_size, fx_findings *out)
{
    const bool slurm = !strcmp(s->launcher, "srun");
    if (s->tasks > 1 && slurm && !strcmp(s->wires, "none"))
        fx_find(out, FX_FOUND_FAILURE, FX_EINVAL, "mpi",
                "srun started %d tasks but did not wire MPI to them\neach would be a rank 0 of its own and "
                "make the whole "
                "picture\nuse 'srun --mpi=pmix' ('srun --mpi=list' shows what exists) or 'mpirun -np %d'",
                s->tasks, s->tasks);
    else if (s->tasks > 1 && mpi_size > 0 && mpi_size != s->tasks)
        fx_find(out, FX_FOUND_FAILURE, FX_EINVAL, "mpi",
                "MPI has %d process%s but %s started %d tasks\nthis MPI and the launcher do not know each "
                "other (%s)\nuse "
                "'srun --mpi=pmix' or the mpirun of this MPI",
                mpi_size, mpi_size == 1 ? "" : "es", s->launcher, s->tasks, s->wires);
    else if (s->tasks == 1 && s->job_tasks > 1 && mpi_size <= 1)
        fx_find(out, FX_FOUND_NOTE, FX_EINVAL, "mpi",
                "this is one process in a job of %d tasks\nit was started by %s, so it sees this node "
                "only\nuse 'srun "
                "--mpi=pmix fluxpar doctor' for all of them",
                s->job_tasks, s->launcher);
}
