/* Devices that are not there and whose copies work, for `fluxpar doctor` (tests/sh_devices.sh): loaded before CUDA's runtime,
 * it lists FX_DEVICES of them, keeps their memory in the host's and copies at once. FX_COPIES="wrong": a byte of what goes from
 * device 0 to 1 is changed; "hang": that copy does not end; "apart": no device reaches another's memory. Compiled with -DNVML it
 * is the driver's management library of the same devices: FX_FABRIC=state, FX_LINKS=links that are up on the last device,
 * FX_OTHERS=1: somebody else's process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int number(const char *name, int otherwise)
{
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

#ifndef NVML
#include <cuda_runtime_api.h>

static int current, hangs;

static int copies(const char *how)
{
    const char *text = getenv("FX_COPIES");
    return text && !strcmp(text, how);
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = number("FX_DEVICES", 0);
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int which)
{
    memset(prop, 0, sizeof *prop);
    snprintf(prop->name, sizeof prop->name, "Made-up GPU");
    prop->major = 9;
    prop->totalGlobalMem = (size_t)80 << 30;
    prop->pciBusID = 0x1b + which;
    prop->uuid.bytes[0] = (char)(which + 1);
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int which)
{
    current = which;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *which)
{
    *which = current;
    return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int a, int b)
{
    *can = a != b && !copies("apart");
    return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags)
{
    (void)peer, (void)flags;
    return cudaErrorPeerAccessAlreadyEnabled;
}

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    *out = malloc(bytes);
    return *out ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    return cudaMalloc(out, bytes);
}

cudaError_t cudaFree(void *data)
{
    free(data);
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *data)
{
    return cudaFree(data);
}

cudaError_t cudaMemset(void *data, int value, size_t bytes)
{
    memset(data, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    (void)kind, (void)stream;
    memcpy(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device, size_t bytes,
                                cudaStream_t stream)
{
    const int chosen = from_device == 0 && to_device == 1;
    (void)stream;
    memcpy(to, from, bytes);
    if (chosen && copies("wrong")) ((char *)to)[bytes / 2] ^= 1;
    hangs = chosen && copies("hang");
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    (void)flags;
    *out = (cudaStream_t)(void *)&current;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    (void)stream;
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    (void)stream;
    return hangs ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    return cudaSuccess;
}

cudaError_t cudaDeviceReset(void)
{
    return cudaSuccess;
}

#else

int nvmlInit_v2(void);
int nvmlSystemGetDriverVersion(char *, unsigned);
int nvmlDeviceGetHandleByUUID(const char *, void **);
int nvmlDeviceGetMemoryInfo(void *, unsigned long long *);
int nvmlDeviceGetGpuFabricInfo(void *, void *);
int nvmlDeviceGetNvLinkState(void *, unsigned, unsigned *);
int nvmlDeviceGetP2PStatus(void *, void *, int, int *);
int nvmlDeviceGetComputeRunningProcesses_v3(void *, unsigned *, void *);

int nvmlInit_v2(void)
{
    return 0;
}

int nvmlSystemGetDriverVersion(char *text, unsigned size)
{
    return snprintf(text, size, "580.95.05") < 0;
}

/* The handle is the first number of the UUID: 1 for the first device. */
int nvmlDeviceGetHandleByUUID(const char *uuid, void **out)
{
    *out = (void *)(size_t)(strtoul(uuid + 4, NULL, 16) >> 24);
    return *out ? 0 : 6;
}

int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *total_free_used)
{
    (void)device;
    total_free_used[0] = 80ull << 30;
    total_free_used[2] = 18ull << 30;
    total_free_used[1] = total_free_used[0] - total_free_used[2];
    return 0;
}

int nvmlDeviceGetGpuFabricInfo(void *device, void *out)
{
    const unsigned clique = 7;
    (void)device;
    memset(out, 0, 28);
    memcpy((char *)out + 20, &clique, 4); /* behind 16 bytes of the cluster's name and the status */
    ((unsigned char *)out)[24] = (unsigned char)number("FX_FABRIC", 3);
    return 0;
}

int nvmlDeviceGetNvLinkState(void *device, unsigned link, unsigned *active)
{
    const int last = (size_t)device == (size_t)number("FX_DEVICES", 0);
    *active = (int)link < (last ? number("FX_LINKS", 18) : 18);
    return link < 18 ? 0 : 2;
}

int nvmlDeviceGetP2PStatus(void *a, void *b, int what, int *status)
{
    (void)a, (void)b;
    *status = what != 2;
    return 0;
}

/* One process that is not ours. */
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *n, void *list)
{
    const unsigned pid = 8123;
    (void)device;
    *n = number("FX_OTHERS", 0) ? 1 : 0;
    if (*n) memcpy(list, &pid, sizeof pid);
    return 0;
}
#endif
