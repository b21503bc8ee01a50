/* What the kernel says about this process: the time, the memory it uses and the memory it may still take.
 * Feeds the report, the progress line and the refusal to start what cannot fit. */
#include "runtime/core/clock.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

double fx_now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* "VmHWM:   123 kB" -> bytes */
static void take_kb(const char *line, const char *key, size_t *out)
{
    const size_t n = strlen(key);
    if (strncmp(line, key, n) == 0 && line[n] == ':') *out = (size_t)strtoull(line + n + 1, NULL, 10) * 1024;
}

fx_memory fx_memory_read(void)
{
    fx_memory m = {0, 0, 0, 0};
    char line[256];
    FILE *f = fopen("/proc/self/status", "re");
    if (!f) return m;
    while (fgets(line, sizeof line, f)) {
        take_kb(line, "VmHWM", &m.peak_bytes);
        take_kb(line, "VmRSS", &m.rss_bytes);
        take_kb(line, "RssFile", &m.file_bytes);
        take_kb(line, "RssShmem", &m.shmem_bytes);
    }
    fclose(f);
    return m;
}

/* A number in a file of the kernel; SIZE_MAX where the file is missing or says "max". */
static size_t read_number(const char *dir, const char *name)
{
    char path[1700], line[64];
    size_t value = SIZE_MAX;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "re");
    if (!f) return SIZE_MAX;
    if (fgets(line, sizeof line, f) && line[0] >= '0' && line[0] <= '9')
        value = (size_t)strtoull(line, NULL, 10);
    fclose(f);
    return value;
}

/* The page cache counts as used in a cgroup, but the kernel gives it back on demand. */
static size_t read_cache(const char *dir)
{
    char path[1700], line[128];
    size_t bytes = 0;
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    while (fgets(line, sizeof line, f))
        if (strncmp(line, "inactive_file ", 14) == 0 || strncmp(line, "active_file ", 12) == 0)
            bytes += (size_t)strtoull(strchr(line, ' '), NULL, 10);
    fclose(f);
    return bytes;
}

static size_t group_room(const char *dir, const char *limit_name, const char *used_name)
{
    const size_t limit = read_number(dir, limit_name), used = read_number(dir, used_name);
    if (limit == SIZE_MAX || used == SIZE_MAX) return SIZE_MAX;
    const size_t cache = read_cache(dir), held = used > cache ? used - cache : 0;
    return limit > held ? limit - held : 0;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Room in the group at root/path and in each of its parents (a container may set the limit at any of them).
 */
static size_t tree_room(const char *root, char *path, const char *limit_name, const char *used_name)
{
    char dir[1600];
    size_t room = SIZE_MAX;
    for (;;) {
        snprintf(dir, sizeof dir, "%s%s", root, path);
        room = smaller(room, group_room(dir, limit_name, used_name));
        char *slash = strrchr(path, '/');
        if (!slash) return room;
        *slash = 0;
    }
}

static FILE *open_below(const char *root, const char *path)
{
    char full[600];
    const int n = snprintf(full, sizeof full, "%s%s", root, path);
    return n > 0 && n < (int)sizeof full ? fopen(full, "re") : NULL;
}

/* /proc/self/cgroup: "0::/path" (version 2) or "5:memory:/path" (version 1). */
static size_t cgroup_room(const char *root)
{
    char line[900], groups[600];
    size_t room = SIZE_MAX;
    FILE *f = open_below(root, "/proc/self/cgroup");
    if (!f) return SIZE_MAX;
    while (fgets(line, sizeof line, f)) {
        char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path) continue;
        *path++ = 0;
        path[strcspn(path, "\n")] = 0;
        const bool second = controllers[1] == 0;
        snprintf(groups, sizeof groups, "%s/sys/fs/cgroup%s", root, second ? "" : "/memory");
        if (second)
            room = smaller(room, tree_room(groups, path, "memory.max", "memory.current"));
        else if (strcmp(controllers + 1, "memory") == 0)
            room = smaller(room, tree_room(groups, path, "memory.limit_in_bytes", "memory.usage_in_bytes"));
    }
    fclose(f);
    return room;
}

static size_t system_room(const char *root)
{
    char line[256];
    size_t bytes = SIZE_MAX;
    FILE *f = open_below(root, "/proc/meminfo");
    if (!f) return SIZE_MAX;
    while (fgets(line, sizeof line, f)) take_kb(line, "MemAvailable", &bytes);
    fclose(f);
    return bytes;
}

static size_t address_room(void)
{
    struct rlimit limit;
    size_t used = 0;
    char line[256];
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return SIZE_MAX;
    FILE *f = fopen("/proc/self/status", "re");
    if (!f) return SIZE_MAX;
    while (fgets(line, sizeof line, f)) take_kb(line, "VmSize", &used);
    fclose(f);
    return limit.rlim_cur > used ? (size_t)limit.rlim_cur - used : 0;
}

fx_rooms fx_memory_rooms(const char *root)
{
    return (fx_rooms){.system = system_room(root), .group = cgroup_room(root), .space = address_room()};
}

size_t fx_memory_available(const char **limited_by)
{
    return fx_memory_share(1, limited_by);
}

size_t fx_memory_share(int processes, const char **limited_by)
{
    const size_t parts = processes > 1 ? (size_t)processes : 1;
    const fx_rooms room = fx_memory_rooms("");
    const size_t system = room.system / parts, group = room.group / parts, space = room.space;
    const size_t least = smaller(system, smaller(group, space));
    if (limited_by)
        *limited_by = least == system  ? "free memory of this machine"
                      : least == group ? "memory limit of this container or job (cgroup)"
                                       : "address space limit (ulimit -v)";
    return least;
}
