/* What surrounds a process and what that means (launch/place/surround.c, judge.c, binding.c): facts from a folder that is laid
 * out like /, how a process was started; place/scene.c has the checks. */
#include "launch/place/judge.h"
#include "runtime/core/clock.h"
#include "tests/place/scene.h"
#include "tests/scratch.h"
#include "tests/test.h"

#include <sys/stat.h>

#define GIB ((int64_t)1 << 30)
#define MIB ((int64_t)1 << 20)

/* ---- a machine in a folder ---- */

static char root[300];

static void put(const char *path, const char *text)
{
    char full[600];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *p = full + strlen(root) + 1; *p; p++) {
        if (*p != '/') continue;
        *p = 0;
        mkdir(full, 0777);
        *p = '/';
    }
    FILE *f = fopen(full, "w");
    T_CHECK(f && fputs(text, f) >= 0, "%s cannot be written", full);
    if (f) fclose(f);
}

static const char *const (*environment)[2];
static const char *fake_env(const char *name)
{
    for (int i = 0; environment && environment[i][0]; i++)
        if (!strcmp(environment[i][0], name)) return environment[i][1];
    return NULL;
}

static fx_roots fake(void)
{
    return (fx_roots){.folder = root, .env = fake_env};
}

static fx_surround look(void)
{
    const fx_roots r = fake();
    fx_surround s;
    fx_surround_look(&r, -1, &s);
    return s;
}

static void check_lists(void)
{
    static const struct {
        const char *list;
        int count;
    } t[] = {{"0", 1},  {"0-3", 4}, {"0-3,8", 5},     {"1,3,5-6", 4}, {"", 0},
             {"x", 0},  {"0-", 0},  {"3-1", 0},       {"0-3,", 4},    {"0-3;9", 4},
             {"-1", 0}, {"7,x", 1}, {"0-1048576", 0}, {"0-127", 128}, {"0-99999999999999999999", 0}};
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++)
        T_CHECK(fx_list_count(t[i].list) == t[i].count, "'%s': %d", t[i].list, fx_list_count(t[i].list));
}

static void check_empty_root(void)
{
    const fx_surround s = look();
    T_CHECK(!s.online && !s.allowed && s.quota == -1 && !s.numa_nodes && !s.memory_total && !s.memory_free &&
                s.group_free == -1,
            "an empty folder knows nothing");
    T_CHECK(s.shm_total == -1 && s.stack_limit == -1 && s.visible == -1 && !s.imex && !s.settings[0] &&
                s.local_ranks == 1,
            "an empty folder knows nothing");
    T_CHECK(s.host[0] && s.thread_stack >= 8 * MIB, "stack of threads %lld", (long long)s.thread_stack);
}

static void check_files(void)
{
    static const char *const set[][2] = {{"NCCL_P2P_DISABLE", "1"},       {"NCCL_ALGO", "Ring"},
                                         {"CUDA_VISIBLE_DEVICES", "0,1"}, {"OMP_PLACES", "cores"},
                                         {"NCCL_SOCKET_IFNAME", "eth0"},  {NULL, NULL}};
    put("/sys/devices/system/cpu/online", "0-63\n");
    put("/sys/devices/system/node/online", "0-1\n");
    put("/proc/self/status", "Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t0-7,64\n");
    put("/proc/cpuinfo", "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n");
    put("/proc/meminfo", "MemTotal:       67108864 kB\nMemFree: 1 kB\nMemAvailable:   33554432 kB\n");
    put("/proc/self/limits", "Limit                     Soft Limit           Hard Limit           Units\n"
                             "Max stack size            8388608              unlimited            bytes\n");
    put("/proc/self/mounts",
        "proc /proc proc rw 0 0\nshm /dev/shm tmpfs rw,nosuid,size=65536k,inode64 0 0\n");
    put("/dev/nvidia-caps-imex-channels/channel0", "");
    environment = set;
    const fx_surround s = look();
    environment = NULL;
    T_CHECK(s.online == 64 && s.allowed == 9 && s.numa_nodes == 2, "%d of %d, %d nodes", s.allowed, s.online,
            s.numa_nodes);
    T_CHECK(!strcmp(s.allowed_list, "0-7,64") && !strcmp(s.processor, "Some CPU @ 2 GHz"), "%s, %s",
            s.allowed_list, s.processor);
    T_CHECK(s.memory_total == 64 * GIB && s.memory_free == 32 * GIB, "%lld", (long long)s.memory_free);
    T_CHECK(s.stack_limit == 8 * MIB && s.imex == 1, "stack %lld, imex %d", (long long)s.stack_limit, s.imex);
    T_CHECK(s.shm_total == 64 * MIB && s.shm_free == 64 * MIB, "shm %lld, %lld", (long long)s.shm_total,
            (long long)s.shm_free);
    T_CHECK(!strcmp(s.settings, "NCCL_P2P_DISABLE=1 NCCL_ALGO=Ring"), "'%s'", s.settings);
    T_CHECK(!strcmp(s.visible_env, "0,1") && !strcmp(s.openmp, "OMP_PLACES") && !strcmp(s.interface, "eth0"),
            "environment");
    put("/proc/self/limits", "Max stack size            unlimited            unlimited            bytes\n");
    T_CHECK(look().stack_limit == FX_NO_LIMIT, "unlimited");
}

static void check_groups(void)
{
    put("/proc/self/cgroup", "0::/job/step\n");
    put("/sys/fs/cgroup/job/step/memory.max", "max\n");
    put("/sys/fs/cgroup/job/step/memory.current", "0\n");
    put("/sys/fs/cgroup/job/memory.max", "4294967296\n"); /* set at the parent */
    put("/sys/fs/cgroup/job/memory.current", "1073741824\n");
    put("/sys/fs/cgroup/job/memory.stat", "anon 5\ninactive_file 268435456\nactive_file 268435456\n");
    put("/sys/fs/cgroup/job/step/cpu.max", "250000 100000\n");
    fx_surround s = look();
    T_CHECK(s.group_free == 4 * GIB - GIB / 2 && s.quota == 3, "version 2: %lld, %d", (long long)s.group_free,
            s.quota);
    put("/sys/fs/cgroup/job/step/cpu.max", "max 100000\n");
    T_CHECK(look().quota == -1, "no quota");
    put("/proc/self/cgroup", "7:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/\n");
    put("/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "2147483648\n");
    put("/sys/fs/cgroup/memory/docker/1/memory.usage_in_bytes", "1073741824\n");
    put("/sys/fs/cgroup/cpu/docker/1/cpu.cfs_quota_us", "200000\n");
    put("/sys/fs/cgroup/cpu/docker/1/cpu.cfs_period_us", "100000\n");
    s = look();
    T_CHECK(s.group_free == GIB && s.quota == 2, "version 1: %lld, %d", (long long)s.group_free, s.quota);
    put("/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/cpu/docker/1/cpu.cfs_quota_us", "-1\n");
    s = look();
    T_CHECK(s.group_free == -1 && s.quota == -1, "version 1 without limits: %lld, %d",
            (long long)s.group_free, s.quota);
    put("/proc/self/cgroup", "nonsense\n::\n0:\n");
    T_CHECK(look().group_free == -1, "malformed lines");
    const fx_rooms here = fx_memory_rooms("");
    T_CHECK(here.system > 0 && here.system < SIZE_MAX, "this machine's memory");
}

/* ---- starts ---- */

static void check_start(const char *const set[][2], const char *launcher, const char *wires, int tasks,
                        int mpi, fx_found_level level, const char *words)
{
    const fx_roots r = fake();
    static fx_findings f;
    f = (fx_findings){.n = 0};
    environment = set;
    const fx_start s = fx_start_look(&r);
    environment = NULL;
    T_CHECK(!strcmp(s.launcher, launcher) && !strcmp(s.wires, wires) && s.tasks == tasks, "%s, %s, %d tasks",
            s.launcher, s.wires, s.tasks);
    fx_judge_start(&s, mpi, &f);
    T_CHECK(f.n == (words != NULL), "%d findings", f.n);
    if (words && f.n)
        T_CHECK(f.list[0].level == level && strstr(f.list[0].what, words), "%s", f.list[0].what);
}

static void check_starts(void)
{
    static const char *const none[][2] = {{NULL, NULL}};
    static const char *const mpirun[][2] = {
        {"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "2"}, {"PMIX_RANK", "2"}, {NULL, NULL}};
    static const char *const srun[][2] = {{"SLURM_STEP_ID", "0"},
                                          {"SLURM_STEP_NUM_TASKS", "4"},
                                          {"SLURM_NTASKS", "4"},
                                          {"SLURM_PROCID", "1"},
                                          {NULL, NULL}};
    static const char *const pmix[][2] = {{"SLURM_STEP_ID", "0"},
                                          {"SLURM_STEP_NUM_TASKS", "4"},
                                          {"PMIX_NAMESPACE", "x"},
                                          {"PMIX_RANK", "0"},
                                          {NULL, NULL}};
    static const char *const pmi2[][2] = {
        {"SLURM_STEPID", "0"}, {"SLURM_NTASKS", "4"}, {"PMI_FD", "9"}, {"SLURM_JOB_ID", "7"}, {NULL, NULL}};
    static const char *const batch[][2] = {{"SLURM_JOB_ID", "7"}, {"SLURM_NTASKS", "4"}, {NULL, NULL}};
    static const char *const hydra[][2] = {{"PMI_SIZE", "2"}, {"PMI_RANK", "1"}, {NULL, NULL}};
    static const char *const odd[][2] = {{"OMPI_COMM_WORLD_SIZE", "-4"}, {"SLURM_NTASKS", "x"}, {NULL, NULL}};
    check_start(none, "none", "none", 1, 1, FX_FOUND_NOTE, NULL);
    check_start(mpirun, "mpirun of Open MPI", "PMIx", 4, 4, FX_FOUND_NOTE, NULL);
    check_start(mpirun, "mpirun of Open MPI", "PMIx", 4, 1, FX_FOUND_FAILURE,
                "MPI has 1 process but mpirun of Open MPI started 4");
    check_start(srun, "srun", "none", 4, 1, FX_FOUND_FAILURE, "srun started 4 tasks but did not wire MPI");
    check_start(pmix, "srun", "PMIx", 4, 4, FX_FOUND_NOTE, NULL);
    check_start(pmix, "srun", "PMIx", 4, 1, FX_FOUND_FAILURE, "MPI has 1 process but srun started 4");
    check_start(pmi2, "srun", "PMI", 4, 2, FX_FOUND_FAILURE, "MPI has 2 processes but srun started 4");
    check_start(batch, "a job's script, without srun", "none", 1, 1, FX_FOUND_NOTE,
                "one process in a job of 4 tasks");
    check_start(hydra, "mpiexec with PMI", "PMI", 2, 2, FX_FOUND_NOTE, NULL);
    check_start(odd, "none", "none", 1, 1, FX_FOUND_NOTE, NULL);
}

int main(void)
{
    T_CHECK(scratch_open() && strlen(scratch) < 200, "no scratch folder");
    snprintf(root, sizeof root, "%s", in_scratch("root"));
    mkdir(root, 0777);
    check_lists();
    check_empty_root();
    check_files();
    check_groups();
    check_starts();
    check_scenes();
    scratch_close();
    return test_end("t_place");
}
