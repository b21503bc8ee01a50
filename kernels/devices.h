/* What the devices of this process are, and how they reach each other: for placement and for `fluxpar doctor`. Plain data
 * that ranks may send to each other. In a build without devices every call says so (FX_EDEVICE). */
#ifndef FX_KERNELS_DEVICES_H
#define FX_KERNELS_DEVICES_H

#include "runtime/core/status.h"
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* From the CUDA runtime, which makes no context for it. */
typedef struct fx_device_facts {
    int32_t ordinal, visible; /* its number among those that the process sees; how many those are */
    int32_t major, minor, processors;
    int32_t driver, runtime; /* 13000: CUDA 13.0; the newest that the driver knows, and the linked one */
    uint64_t total_bytes;
    char name[64], uuid[44], pci[20]; /* "GPU-...", "0000:1b:00.0" */
    char fault[256];                  /* why a backend cannot open it (architecture); "": it can */
} fx_device_facts;

enum { FX_FABRIC_UNKNOWN = -1, FX_FABRIC_NONE, FX_FABRIC_NOT_STARTED, FX_FABRIC_IN_PROGRESS, FX_FABRIC_DONE };

/* From the driver's management library (libnvidia-ml.so.1, opened when asked for). Unknown: -1, or "". */
typedef struct fx_device_health {
    char driver[32];              /* "580.95.05" */
    uint64_t used_bytes;          /* by everybody */
    int32_t processes;            /* that compute there, this one included */
    int32_t first_process;        /* pid of another one, as the driver counts them; 0: none */
    int32_t links, links_active;  /* NVLinks */
    int32_t fabric, fabric_error; /* FX_FABRIC_*; what the registration ended with (0: good) */
    uint32_t clique;
    char cluster[36]; /* of the NVLink domain (a rack), 32 hex digits; all zero: within a node only */
    char fault[120];  /* why nothing is known; "" */
} fx_device_health;

typedef enum {
    FX_LINK_SELF,
    FX_LINK_NONE, /* through host memory */
    FX_LINK_PEER, /* direct copies, over PCIe or unknown */
    FX_LINK_NVLINK
} fx_device_link_kind;

typedef struct fx_device_ping {
    double seconds; /* of the fastest copy; negative: it did not end in time */
    uint64_t bytes, wrong;
} fx_device_ping;

/* Devices that the process sees, supported or not; 0: none (why: fx_error); -1: no such backend is built in. */
int fx_device_visible(void);
/* The number of what "cuda:N" opens: the Nth that this build has code for. With fewer than that, N. */
int fx_device_ordinal(int nth);
fx_status fx_device_card_of(int device, fx_device_facts *);
void fx_device_health_of(const fx_device_facts *, fx_device_health *);
fx_device_link_kind fx_device_link(const fx_device_facts *from, const fx_device_facts *to);
/* Copies `bytes` from one device's memory into another's, looks at every byte there, and times some copies more. Makes contexts
 * on both; FX_EDEVICE: a call failed. A copy that does not end within deadline_s leaves the process unable to use the device. */
fx_status fx_device_ping_pair(int from, int to, size_t bytes, double deadline_s, fx_device_ping *);
/* Gives back what pings made on the visible devices. */
void fx_device_ping_close(void);

/* What a device backend brings for the calls above; NULL: none is built in (registry.c). */
typedef struct fx_device_calls {
    int (*visible)(void);
    int (*ordinal)(int nth);
    fx_status (*card)(int device, fx_device_facts *);
    void (*health)(const fx_device_facts *, fx_device_health *);
    fx_device_link_kind (*link)(const fx_device_facts *, const fx_device_facts *);
    fx_status (*ping)(int from, int to, size_t bytes, double deadline_s, fx_device_ping *);
    void (*ping_close)(void);
} fx_device_calls;
const fx_device_calls *fx_device_calls_built(void);

#ifdef __cplusplus
}
#endif
#endif
