/* Devices that are not there, for what a user is told of them (tests/sh_devices.sh): loaded before CUDA's runtime, it lists those
 * of FX_DEVICES ("A100:80,H100:90": names and ten times the compute capability; "": a driver without devices) and refuses to use
 * any, saying which one was asked for. Nothing is computed. */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The word of device n, and where it ends; NULL: there are not so many. */
static const char *device(int n, size_t *length)
{
    const char *p = getenv("FX_DEVICES");
    if (!p || !*p) return NULL;
    for (; n; n--) {
        p = strchr(p, ',');
        if (!p++) return NULL;
    }
    *length = strcspn(p, ",");
    return p;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    size_t n;
    for (*count = 0; device(*count, &n); ++*count) continue;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int which)
{
    size_t n;
    const char *text = device(which, &n), *mark = text ? memchr(text, ':', n) : NULL;
    if (!mark) return cudaErrorInvalidDevice;
    const int sm = atoi(mark + 1);
    memset(prop, 0, sizeof *prop);
    snprintf(prop->name, sizeof prop->name, "%.*s", (int)(mark - text), text);
    prop->major = sm / 10;
    prop->minor = sm % 10;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int which)
{
    fprintf(stderr, "device %d is taken\n", which);
    return cudaErrorDevicesUnavailable;
}
