/* What the devices are and whether bytes get from one into another; contract in kernels/devices.h. */
#include "kernels/devices.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/internal.h"
#include "kernels/cuda/management.h"
#include "runtime/core/clock.h"

/* ---- cards ---- */

static int visible(void)
{
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0) return count;
    (void)cudaGetLastError();
    (void)fx_cuda_usable(0); /* says why */
    return 0;
}

static void put_uuid(const struct cudaDeviceProp *prop, char out[44])
{
    int at = snprintf(out, 44, "GPU-");
    for (int i = 0; i < 16; i++) {
        const bool dash = i == 4 || i == 6 || i == 8 || i == 10;
        at += snprintf(out + at, (size_t)(44 - at), "%s%02x", dash ? "-" : "",
                       (unsigned char)prop->uuid.bytes[i]);
    }
}

static fx_status card_of(int device, fx_device_facts *c)
{
    struct cudaDeviceProp prop;
    int driver = 0, runtime = 0;
    FX_CUDA(cudaGetDeviceProperties(&prop, device));
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    c->ordinal = device;
    c->visible = visible();
    c->major = prop.major;
    c->minor = prop.minor;
    c->processors = prop.multiProcessorCount;
    c->driver = driver;
    c->runtime = runtime;
    c->total_bytes = prop.totalGlobalMem;
    snprintf(c->name, sizeof c->name, "%.63s", prop.name);
    snprintf(c->pci, sizeof c->pci, "%04x:%02x:%02x.0", (unsigned)prop.pciDomainID & 0xffffu,
             (unsigned)prop.pciBusID & 0xffu, (unsigned)prop.pciDeviceID & 0xffu);
    put_uuid(&prop, c->uuid);
    if (fx_cuda_usable(device) != FX_OK) snprintf(c->fault, sizeof c->fault, "%s", fx_error());
    return FX_OK;
}

static fx_device_link_kind link_of(const fx_device_facts *from, const fx_device_facts *to)
{
    int can = 0;
    if (fx_cuda_nvlink(from, to)) return FX_LINK_NVLINK;
    if (from->ordinal == to->ordinal) return FX_LINK_NONE; /* each in a process that sees its own alone */
    if (cudaDeviceCanAccessPeer(&can, from->ordinal, to->ordinal) != cudaSuccess) (void)cudaGetLastError();
    return can ? FX_LINK_PEER : FX_LINK_NONE;
}

/* ---- pings ---- */

enum { TIMED = 3 };

typedef struct ping {
    int from, to;
    char *source, *target; /* on the devices */
    uint32_t *host;        /* pinned: what is sent, then what has arrived */
    cudaStream_t stream;   /* of `from` */
    size_t bytes;
    double until_s;
} ping;

static uint32_t word_of(const ping *p, size_t i)
{
    const uint32_t x = ((uint32_t)i + 1) * 0x9e3779b1u ^ (uint32_t)(p->from * 31 + p->to + 1) * 0x85ebca6bu;
    return x ^ x >> 15;
}

static fx_status open_ping(ping *p)
{
    FX_CUDA(cudaSetDevice(p->to));
    FX_CUDA(cudaMalloc((void **)&p->target, p->bytes));
    FX_CUDA(cudaMemset(p->target, 0xa5, p->bytes));
    FX_CUDA(cudaDeviceSynchronize());
    FX_CUDA(cudaSetDevice(p->from));
    FX_CUDA(cudaMalloc((void **)&p->source, p->bytes));
    FX_CUDA(cudaMallocHost((void **)&p->host, p->bytes));
    FX_CUDA(cudaStreamCreateWithFlags(&p->stream, cudaStreamNonBlocking));
    int can = 0;
    FX_CUDA(cudaDeviceCanAccessPeer(&can, p->from, p->to));
    if (can && p->from != p->to) {
        const cudaError_t e = cudaDeviceEnablePeerAccess(p->to, 0);
        if (e == cudaErrorPeerAccessAlreadyEnabled)
            (void)cudaGetLastError();
        else
            FX_CUDA(e);
    }
    for (size_t i = 0; i < p->bytes / sizeof *p->host; i++) p->host[i] = word_of(p, i);
    FX_CUDA(cudaMemcpyAsync(p->source, p->host, p->bytes, cudaMemcpyDefault, p->stream));
    return FX_OK;
}

/* All that is in the stream; FX_ECOMM: not in time. */
static fx_status finish(const ping *p)
{
    for (;;) {
        const cudaError_t e = cudaStreamQuery(p->stream);
        if (e == cudaSuccess) return FX_OK;
        if (e != cudaErrorNotReady) return fx_cuda_failed("a copy between devices", cudaGetErrorString(e));
        FX_CHECK(fx_now_s() < p->until_s, FX_ECOMM, "a copy from device %d to device %d does not end",
                 p->from, p->to);
        nanosleep(&(struct timespec){.tv_sec = 0, .tv_nsec = 20000}, NULL);
    }
}

static fx_status copy(const ping *p, double *seconds)
{
    const double begin = fx_now_s();
    FX_CUDA(cudaMemcpyPeerAsync(p->target, p->to, p->source, p->from, p->bytes, p->stream));
    FX_TRY(finish(p));
    *seconds = fx_now_s() - begin;
    return FX_OK;
}

static fx_status count_wrong(const ping *p, uint64_t *wrong)
{
    memset(p->host, 0, p->bytes);
    FX_CUDA(cudaMemcpyAsync(p->host, p->target, p->bytes, cudaMemcpyDefault, p->stream));
    FX_TRY(finish(p));
    *wrong = 0;
    for (size_t i = 0; i < p->bytes / sizeof *p->host; i++) {
        const uint32_t differ = p->host[i] ^ word_of(p, i);
        for (int k = 0; k < 4; k++) *wrong += (differ >> 8 * k & 255) != 0;
    }
    return FX_OK;
}

static fx_status run_ping(ping *p, fx_device_ping *out)
{
    double seconds = 0;
    FX_TRY(open_ping(p));
    FX_TRY(finish(p));
    FX_TRY(copy(p, &seconds)); /* the first one sets up */
    FX_TRY(count_wrong(p, &out->wrong));
    for (int i = 0; i < TIMED; i++) {
        FX_TRY(copy(p, &seconds));
        if (out->seconds < 0 || seconds < out->seconds) out->seconds = seconds;
    }
    return FX_OK;
}

/* After a copy that does not end nothing can be given back: freeing waits for it. */
static void close_ping(ping *p)
{
    if (p->stream) (void)cudaStreamDestroy(p->stream);
    if (p->host) (void)cudaFreeHost(p->host);
    if (p->source) (void)cudaFree(p->source);
    if (p->target && cudaSetDevice(p->to) == cudaSuccess) (void)cudaFree(p->target);
    (void)cudaGetLastError();
}

static fx_status ping_pair(int from, int to, size_t bytes, double deadline_s, fx_device_ping *out)
{
    ping p = {.from = from, .to = to, .bytes = bytes / 4 * 4, .until_s = fx_now_s() + deadline_s};
    int before = 0;
    *out = (fx_device_ping){.seconds = -1, .bytes = p.bytes, .wrong = 0};
    FX_CUDA(cudaGetDevice(&before));
    const fx_status st = run_ping(&p, out);
    if (st == FX_ECOMM) return FX_OK; /* said by `seconds` */
    close_ping(&p);
    FX_CUDA(cudaSetDevice(before));
    return st;
}

static void ping_close(void)
{
    const int n = visible();
    for (int d = 0; d < n; d++)
        if (cudaSetDevice(d) == cudaSuccess) (void)cudaDeviceReset();
    (void)cudaSetDevice(0);
    (void)cudaGetLastError();
}

const fx_device_calls fx_cuda_device_calls = {.visible = visible,
                                              .ordinal = fx_cuda_ordinal,
                                              .card = card_of,
                                              .health = fx_cuda_health,
                                              .link = link_of,
                                              .ping = ping_pair,
                                              .ping_close = ping_close};
