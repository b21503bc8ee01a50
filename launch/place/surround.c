/* Facts for judge.c; see surround.h. Every file is read below the root that was given; what is missing or malformed is
 * unknown, never an error: these facts help, no run depends on them. */
#include "launch/place/surround.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "kernels/ops.h"
#include "runtime/core/clock.h"

static const char *process_env(const char *name)
{
    return getenv(name);
}

fx_roots fx_roots_default(void)
{
    const char *folder = getenv("FLUXPAR_ROOT");
    return (fx_roots){.folder = folder && strlen(folder) < 200 ? folder : "", .env = process_env};
}

/* ---- files ---- */

static FILE *open_file(const fx_roots *r, const char *path)
{
    char full[512];
    const int n = snprintf(full, sizeof full, "%s%s", r->folder, path);
    return n > 0 && n < (int)sizeof full ? fopen(full, "re") : NULL;
}

/* Copies at most size - 1 bytes; text that does not fit ends with "...". */
static void put_text(char *out, size_t size, const char *text)
{
    const size_t n = strcspn(text, "\n");
    if (n < size) {
        memcpy(out, text, n);
        out[n] = 0;
    } else {
        memcpy(out, text, size - 4);
        memcpy(out + size - 4, "...", 4);
    }
}

/* The first line of a file; false: none. */
static bool first_line(const fx_roots *r, const char *path, char *line, int size)
{
    FILE *f = open_file(r, path);
    const bool got = f && fgets(line, size, f);
    if (f) fclose(f);
    if (!got) line[0] = 0;
    line[strcspn(line, "\n")] = 0;
    return got;
}

/* What stands behind `key` and blanks in the first line that begins with it; false: no such line. */
static bool value_of(const fx_roots *r, const char *path, const char *key, char *out, size_t size)
{
    char line[2048];
    bool found = false;
    FILE *f = open_file(r, path);
    out[0] = 0;
    while (f && !found && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, strlen(key))) continue;
        const char *at = line + strlen(key);
        put_text(out, size, at + strspn(at, " \t:"));
        found = true;
    }
    if (f) fclose(f);
    return found;
}

int fx_list_count(const char *list)
{
    int count = 0;
    for (const char *p = list; *p;) {
        char *end;
        const long from = strtol(p, &end, 10);
        long to = from;
        if (end == p || from < 0) break;
        if (*end == '-') {
            p = end + 1;
            to = strtol(p, &end, 10);
            if (end == p || to < from) break;
        }
        if (to - from >= 1 << 20 || count > 1 << 20) break; /* no machine: somebody's text */
        count += (int)(to - from + 1);
        p = end;
        if (*p != ',') break;
        p++;
    }
    return count;
}

/* ---- cores ---- */

/* "max 100000" and "150000 100000" (version 2), or two files (version 1): microseconds of a period, -1 and others: no limit. */
static int quota_of(long long time, long long period)
{
    if (time <= 0 || period <= 0 || time / period > 1 << 20) return FX_NO_LIMIT;
    return (int)((time + period - 1) / period);
}

static int quota(const fx_roots *r)
{
    char line[700], path[900], text[64], second[64];
    int least = FX_NO_LIMIT;
    FILE *f = open_file(r, "/proc/self/cgroup");
    while (f && fgets(line, sizeof line, f)) {
        char *controllers = strchr(line, ':'), *at = controllers ? strchr(controllers + 1, ':') : NULL;
        long long time = 0, period = 0;
        int cores = FX_NO_LIMIT;
        if (!at) continue;
        *at++ = 0;
        at[strcspn(at, "\n")] = 0;
        if (!controllers[1]) { /* version 2 */
            snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", strcmp(at, "/") ? at : "");
            if (first_line(r, path, text, sizeof text) && sscanf(text, "%lld %lld", &time, &period) == 2)
                cores = quota_of(time, period);
        } else if (!strncmp(controllers + 1, "cpu", 3) && (!controllers[4] || controllers[4] == ',')) {
            snprintf(path, sizeof path, "/sys/fs/cgroup/cpu%s/cpu.cfs_quota_us", strcmp(at, "/") ? at : "");
            first_line(r, path, text, sizeof text);
            snprintf(path, sizeof path, "/sys/fs/cgroup/cpu%s/cpu.cfs_period_us", strcmp(at, "/") ? at : "");
            first_line(r, path, second, sizeof second);
            cores = quota_of(strtoll(text, NULL, 10), strtoll(second, NULL, 10));
        }
        if (cores > 0 && (least < 0 || cores < least)) least = cores;
    }
    if (f) fclose(f);
    return least;
}

static void look_cores(const fx_roots *r, fx_surround *s)
{
    char list[2048];
    if (first_line(r, "/sys/devices/system/cpu/online", list, sizeof list)) s->online = fx_list_count(list);
    if (value_of(r, "/proc/self/status", "Cpus_allowed_list:", list, sizeof list)) {
        s->allowed = fx_list_count(list);
        put_text(s->allowed_list, sizeof s->allowed_list, list);
    }
    if (first_line(r, "/sys/devices/system/node/online", list, sizeof list)) {
        s->numa_nodes = fx_list_count(list);
        put_text(s->numa_list, sizeof s->numa_list, list);
    }
    value_of(r, "/proc/cpuinfo", "model name", s->processor, sizeof s->processor);
    s->quota = quota(r);
}

/* ---- memory ---- */

static int64_t as_limit(size_t bytes)
{
    return bytes >= (size_t)1 << 60 ? FX_NO_LIMIT
                                    : (int64_t)bytes; /* version 1 says "none" by a huge number */
}

static int64_t kilobytes(const fx_roots *r, const char *key)
{
    char text[64];
    return value_of(r, "/proc/meminfo", key, text, sizeof text) ? strtoll(text, NULL, 10) * 1024 : 0;
}

/* "size=65536k" of a mount's options: containers limit /dev/shm by it. -1: it has none. */
static int64_t shm_option(const fx_roots *r)
{
    char line[1024];
    int64_t bytes = -1;
    FILE *f = open_file(r, "/proc/self/mounts");
    while (f && fgets(line, sizeof line, f)) {
        const char *at = strstr(line, " /dev/shm tmpfs "), *size = at ? strstr(at, "size=") : NULL;
        char *unit;
        if (!size) continue;
        bytes = strtoll(size + 5, &unit, 10);
        bytes *= *unit == 'k' ? 1 << 10 : *unit == 'm' ? 1 << 20 : *unit == 'g' ? 1 << 30 : 1;
    }
    if (f) fclose(f);
    return bytes;
}

static void look_shm(const fx_roots *r, fx_surround *s)
{
    char path[512];
    struct statvfs v;
    s->shm_total = s->shm_free = shm_option(r);
    snprintf(path, sizeof path, "%s/dev/shm", r->folder);
    if (statvfs(path, &v)) return;
    const int64_t total = (int64_t)(v.f_frsize * v.f_blocks), left = (int64_t)(v.f_frsize * v.f_bavail);
    if (s->shm_total < 0 || total < s->shm_total) s->shm_total = total;
    if (s->shm_free < 0 || left < s->shm_free) s->shm_free = left;
}

static void look_memory(const fx_roots *r, fx_surround *s)
{
    const fx_rooms rooms = fx_memory_rooms(r->folder);
    char text[128];
    s->memory_total = kilobytes(r, "MemTotal:");
    s->memory_free = as_limit(rooms.system) < 0 ? 0 : as_limit(rooms.system);
    s->group_free = as_limit(rooms.group);
    s->address_free = as_limit(rooms.space);
    look_shm(r, s);
    s->stack_limit = FX_NO_LIMIT;
    if (value_of(r, "/proc/self/limits", "Max stack size", text, sizeof text) && text[0] != 'u')
        s->stack_limit = strtoll(text, NULL, 10);
}

int64_t fx_threads_stack(void)
{
    const size_t least = (size_t)8 << 20;
    pthread_attr_t a;
    size_t now = 0;
    if (pthread_getattr_default_np(&a)) return 0;
    if (!pthread_attr_getstacksize(&a, &now) && now < least && !pthread_attr_setstacksize(&a, least) &&
        !pthread_setattr_default_np(&a))
        now = least;
    pthread_attr_destroy(&a);
    return (int64_t)now;
}

/* ---- environment ---- */

static const char *env(const fx_roots *r, const char *name)
{
    const char *text = r->env(name);
    return text ? text : "";
}

static void look_environment(const fx_roots *r, fx_surround *s)
{
    static const char *const harmful[] = {"NCCL_P2P_DISABLE",  "NCCL_P2P_LEVEL",      "NCCL_SHM_DISABLE",
                                          "NCCL_ALGO",         "NCCL_PROTO",          "NCCL_CUMEM_ENABLE",
                                          "NCCL_MNNVL_ENABLE", "CUDA_LAUNCH_BLOCKING"};
    static const char *const placing[] = {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"};
    size_t at = 0;
    for (size_t i = 0; i < sizeof harmful / sizeof harmful[0]; i++) {
        const char *value = env(r, harmful[i]);
        if (!*value || at + strlen(harmful[i]) + 32 > sizeof s->settings) continue;
        at += (size_t)snprintf(s->settings + at, sizeof s->settings - at, "%s%s=%.20s", at ? " " : "",
                               harmful[i], value);
    }
    for (size_t i = 0; i < sizeof placing / sizeof placing[0] && !s->openmp[0]; i++)
        if (*env(r, placing[i])) put_text(s->openmp, sizeof s->openmp, placing[i]);
    put_text(s->visible_env, sizeof s->visible_env, env(r, "CUDA_VISIBLE_DEVICES"));
    put_text(s->interface, sizeof s->interface, env(r, "NCCL_SOCKET_IFNAME"));
}

static bool number_of(const fx_roots *r, const char *name, int *out)
{
    const char *text = env(r, name);
    char *end;
    const long v = strtol(text, &end, 10);
    if (!*text || *end || v < 0 || v > INT32_MAX) return false;
    *out = (int)v;
    return true;
}

fx_start fx_start_look(const fx_roots *r)
{
    fx_start s = {.launcher = "none", .wires = "none", .tasks = 1, .task = 0, .job_tasks = 0};
    const bool step = *env(r, "SLURM_STEP_ID") || *env(r, "SLURM_STEPID");
    number_of(r, "SLURM_NTASKS", &s.job_tasks);
    if (number_of(r, "OMPI_COMM_WORLD_SIZE", &s.tasks)) {
        s.launcher = "mpirun of Open MPI";
        number_of(r, "OMPI_COMM_WORLD_RANK", &s.task);
    } else if (step && (number_of(r, "SLURM_STEP_NUM_TASKS", &s.tasks) || s.job_tasks)) {
        s.launcher = "srun";
        if (s.tasks < 2 && s.job_tasks) s.tasks = s.job_tasks;
        number_of(r, "SLURM_PROCID", &s.task);
    } else if (number_of(r, "PMI_SIZE", &s.tasks)) {
        s.launcher = "mpiexec with PMI";
        number_of(r, "PMI_RANK", &s.task);
    } else if (*env(r, "SLURM_JOB_ID"))
        s.launcher = "a job's script, without srun";
    if (*env(r, "PMIX_NAMESPACE") || *env(r, "PMIX_RANK"))
        s.wires = "PMIx";
    else if (*env(r, "PMI_FD") || *env(r, "PMI_PORT") || *env(r, "PMI_RANK"))
        s.wires = "PMI";
    return s;
}

/* ---- devices ---- */

static int imex_channels(const fx_roots *r)
{
    char path[512];
    int n = 0;
    for (int i = 0; i < 64; i++) {
        snprintf(path, sizeof path, "%s/dev/nvidia-caps-imex-channels/channel%d", r->folder, i);
        n += !access(path, R_OK | W_OK);
    }
    return n;
}

static void look_device(const fx_roots *r, int device, fx_surround *s)
{
    char path[128], text[32];
    s->visible = device < 0 ? -1 : fx_device_visible();
    s->imex = imex_channels(r);
    if (s->visible == 0) put_text(s->device_fault, sizeof s->device_fault, fx_error());
    if (s->visible <= 0) return;
    const int usable = fx_device_count();
    if (fx_device_card_of(fx_device_ordinal(usable > 0 ? device % usable : 0), &s->card) != FX_OK) {
        put_text(s->device_fault, sizeof s->device_fault, fx_error());
        return;
    }
    put_text(s->device_fault, sizeof s->device_fault, s->card.fault);
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/numa_node", s->card.pci);
    if (first_line(r, path, text, sizeof text)) s->device_numa = (int)strtol(text, NULL, 10);
}

void fx_surround_look(const fx_roots *r, int device, fx_surround *s)
{
    memset(s, 0, sizeof *s); /* padding too: it travels */
    s->quota = s->device_numa = -1;
    s->local_ranks = 1;
    if (gethostname(s->host, sizeof s->host - 1)) put_text(s->host, sizeof s->host, "?");
    s->host[strcspn(s->host, ".")] = 0;
    look_cores(r, s);
    look_memory(r, s);
    s->thread_stack = fx_threads_stack();
    look_environment(r, s);
    look_device(r, device, s);
}
