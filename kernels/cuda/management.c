/* See management.h. The few types and numbers below are those of the library's stable interface (its names begin with nvml). */
#include "kernels/cuda/management.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef void *nvml_device;
enum { NVML_OK = 0, P2P_NVLINK = 2, P2P_OK = 0, LINKS_MOST = 36, PROCESSES_MOST = 64 };

typedef struct nvml_memory {
    unsigned long long total, free, used;
} nvml_memory;

typedef struct nvml_fabric {
    unsigned char cluster[16];
    int status;
    unsigned clique;
    unsigned char state;
} nvml_fabric;

typedef struct nvml_process {
    unsigned pid;
    unsigned long long used;
    unsigned instance, compute_instance;
} nvml_process;

/* What the library has; a call that it lacks is NULL. */
static struct {
    char fault[120];
    int (*init)(void);
    const char *(*error)(int);
    int (*driver)(char *, unsigned);
    int (*by_uuid)(const char *, nvml_device *);
    int (*memory)(nvml_device, nvml_memory *);
    int (*fabric)(nvml_device, nvml_fabric *);
    int (*link)(nvml_device, unsigned, unsigned *active);
    int (*p2p)(nvml_device, nvml_device, int, int *status);
    int (*processes)(nvml_device, unsigned *n, nvml_process *);
} lib;

/* Object pointers and function pointers are of one size wherever dlsym exists. */
static void find(void *handle, const char *name, void *call)
{
    void *at = dlsym(handle, name);
    memcpy(call, &at, sizeof at);
}

static void open_library(void)
{
    void *handle = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        snprintf(lib.fault, sizeof lib.fault, "libnvidia-ml.so.1 of the driver cannot be opened");
        return;
    }
    find(handle, "nvmlInit_v2", &lib.init);
    find(handle, "nvmlErrorString", &lib.error);
    find(handle, "nvmlSystemGetDriverVersion", &lib.driver);
    find(handle, "nvmlDeviceGetHandleByUUID", &lib.by_uuid);
    find(handle, "nvmlDeviceGetMemoryInfo", &lib.memory);
    find(handle, "nvmlDeviceGetGpuFabricInfo", &lib.fabric);
    find(handle, "nvmlDeviceGetNvLinkState", &lib.link);
    find(handle, "nvmlDeviceGetP2PStatus", &lib.p2p);
    find(handle, "nvmlDeviceGetComputeRunningProcesses_v3", &lib.processes);
    const int e = lib.init ? lib.init() : -1;
    if (e != NVML_OK || !lib.by_uuid)
        snprintf(lib.fault, sizeof lib.fault, "NVML does not start: %.80s",
                 lib.init && lib.error ? lib.error(e) : "it lacks a call");
}

static const char *opened(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, open_library);
    return lib.fault;
}

static bool device_of(const fx_device_facts *card, nvml_device *out)
{
    *out = NULL;
    return !*opened() && card->uuid[0] && lib.by_uuid(card->uuid, out) == NVML_OK;
}

static void put_fabric(nvml_device d, fx_device_health *h)
{
    nvml_fabric f;
    memset(&f, 0, sizeof f);
    if (!lib.fabric || lib.fabric(d, &f) != NVML_OK) return;
    h->fabric = f.state;
    h->fabric_error = f.state == FX_FABRIC_DONE ? f.status : 0; /* it means something then only */
    h->clique = f.clique;
    for (int i = 0; i < 16; i++) snprintf(h->cluster + 2 * i, 3, "%02x", f.cluster[i]);
}

static void put_links(nvml_device d, fx_device_health *h)
{
    unsigned active = 0;
    h->links = h->links_active = 0;
    for (unsigned i = 0; lib.link && i < LINKS_MOST; i++) {
        if (lib.link(d, i, &active) != NVML_OK) continue;
        h->links++;
        h->links_active += active == 1;
    }
}

static void put_processes(nvml_device d, fx_device_health *h)
{
    nvml_process list[PROCESSES_MOST];
    unsigned n = PROCESSES_MOST;
    memset(list, 0, sizeof list);
    if (!lib.processes || lib.processes(d, &n, list) != NVML_OK) return;
    h->processes = (int)n;
    for (unsigned i = 0; i < n && i < PROCESSES_MOST && !h->first_process; i++)
        if (list[i].pid != (unsigned)getpid()) h->first_process = (int)list[i].pid;
}

void fx_cuda_health(const fx_device_facts *card, fx_device_health *h)
{
    nvml_device d;
    nvml_memory m;
    if (!device_of(card, &d)) {
        snprintf(h->fault, sizeof h->fault, "%s", *opened() ? opened() : "NVML does not know the device");
        return;
    }
    if (!lib.driver || lib.driver(h->driver, sizeof h->driver) != NVML_OK) h->driver[0] = 0;
    memset(&m, 0, sizeof m);
    if (lib.memory && lib.memory(d, &m) == NVML_OK) h->used_bytes = m.used;
    put_fabric(d, h);
    put_links(d, h);
    put_processes(d, h);
}

bool fx_cuda_nvlink(const fx_device_facts *a, const fx_device_facts *b)
{
    nvml_device x, y;
    int status = -1;
    return device_of(a, &x) && device_of(b, &y) && lib.p2p && lib.p2p(x, y, P2P_NVLINK, &status) == NVML_OK &&
           status == P2P_OK;
}
