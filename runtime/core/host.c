/* Names and sizes of this machine; see host.h. */
#include "runtime/core/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* "model name : X" of x86; Arm's file has no name, and the architecture must do. */
static void processor_name(char *out, size_t size, const char *otherwise)
{
    char line[512];
    FILE *file = fopen("/proc/cpuinfo", "r");
    snprintf(out, size, "%s", otherwise);
    while (file && fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon) continue;
        colon += 1 + strspn(colon + 1, " ");
        snprintf(out, size, "%.*s", (int)strcspn(colon, "\n"), colon);
        break;
    }
    if (file) fclose(file);
}

fx_host fx_host_read(void)
{
    fx_host m = {.load = -1};
    struct utsname u;
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    if (uname(&u)) memset(&u, 0, sizeof u);
    snprintf(m.system, sizeof m.system, "%.30s %.40s %.20s", u.sysname, u.release, u.machine);
    processor_name(m.processor, sizeof m.processor, u.machine);
    m.cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
    m.memory_bytes = pages > 0 && page > 0 ? (size_t)pages * (size_t)page : 0;
    if (getloadavg(&m.load, 1) != 1) m.load = -1;
    return m;
}
