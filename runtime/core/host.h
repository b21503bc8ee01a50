/* What a measurement ran on, for people. */
#ifndef FX_CORE_HOST_H
#define FX_CORE_HOST_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_host {
    char processor[96]; /* "Intel(R) Xeon(R) ..."; the architecture where the system names none */
    char system[96];    /* "Linux 6.1.0 x86_64" */
    int cores;          /* online */
    size_t memory_bytes;
    double load; /* average of the last minute: what else ran, when taken before a measurement; -1 unknown */
} fx_host;

fx_host fx_host_read(void);

#ifdef __cplusplus
}
#endif
#endif
