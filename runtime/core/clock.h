/* Monotonic seconds, and memory readings of this process. */
#ifndef FX_CORE_CLOCK_H
#define FX_CORE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

double fx_now_s(void);
/* 0 where there is no limit: s <= 0. */
static inline uint64_t fx_limit_ns(double s)
{
    return s > 0 ? (uint64_t)(s * 1e9) : 0;
}
/* From /proc/self/status: peak resident bytes, now, and the file-backed and shared parts of now. 0 where
 * unknown. */
typedef struct fx_memory {
    size_t peak_bytes, rss_bytes, file_bytes, shmem_bytes;
} fx_memory;
fx_memory fx_memory_read(void);
/* Bytes this process may still take: the least of MemAvailable, its cgroups' limits (page cache counts as
 * free) and RLIMIT_AS. *limited_by (may be NULL) names which one in words. */
size_t fx_memory_available(const char **limited_by);
/* The same for each of so many processes of this node that are about to take equal parts at the same time: the
 * machine and the cgroup have their room once, RLIMIT_AS is each one's own. */
size_t fx_memory_share(int processes, const char **limited_by);
/* The parts of it in bytes, SIZE_MAX where there is no limit: MemAvailable, the cgroups' (versions 1 and 2), RLIMIT_AS.
 * root: "", or for tests a folder laid out like / (RLIMIT_AS is this process's in any case). */
typedef struct fx_rooms {
    size_t system, group, space;
} fx_rooms;
fx_rooms fx_memory_rooms(const char *root);

#ifdef __cplusplus
}
#endif
#endif
