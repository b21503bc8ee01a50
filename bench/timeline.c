/* What a GPU did when: a library that CUDA loads into any program, which writes each kernel, copy and fill with its times.
 * Not part of fluxpar; needs CUPTI, which comes with the toolkit.
 *   CUDA_INJECTION64_PATH=build/bench/timeline.so FX_TIMELINE=times fluxpar generate ...
 * writes times.PID: a line "begin_ns end_ns stream name <CTAs x threads, registers, shared memory>" per launch;
 * bench/timeline.py sums them up. */
#include <cupti.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { BUFFER = 8 << 20, ALIGN = 8 };

static FILE *out;

static void line(uint64_t begin, uint64_t end, uint32_t stream, const char *name)
{
    fprintf(out, "%" PRIu64 " %" PRIu64 " %" PRIu32 " %s\n", begin, end, stream, name);
}

static void take(const CUpti_Activity *record)
{
    if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
        const CUpti_ActivityKernel10 *k = (const void *)record;
        char name[512];
        snprintf(name, sizeof name, "%.400s <%d x %d, %d registers, %d bytes>", k->name,
                 k->gridX * k->gridY * k->gridZ, k->blockX * k->blockY * k->blockZ, k->registersPerThread,
                 k->dynamicSharedMemory + k->staticSharedMemory);
        line(k->start, k->end, k->streamId, name);
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
        const CUpti_ActivityMemcpy6 *m = (const void *)record;
        char name[64];
        snprintf(name, sizeof name, "[copy kind %d, %" PRIu64 " bytes]", m->copyKind, m->bytes);
        line(m->start, m->end, m->streamId, name);
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY2) {
        const CUpti_ActivityMemcpyPtoP4 *m = (const void *)record;
        char name[64];
        snprintf(name, sizeof name, "[copy to peer, %" PRIu64 " bytes]", m->bytes);
        line(m->start, m->end, m->streamId, name);
    } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
        const CUpti_ActivityMemset4 *m = (const void *)record;
        line(m->start, m->end, m->streamId, "[fill]");
    }
}

static void CUPTIAPI buffer_wanted(uint8_t **buffer, size_t *size, size_t *records)
{
    *size = BUFFER;
    *records = 0;
    *buffer = aligned_alloc(ALIGN, BUFFER);
}

static void CUPTIAPI buffer_full(CUcontext context, uint32_t stream, uint8_t *buffer, size_t size,
                                 size_t used)
{
    CUpti_Activity *record = NULL;
    (void)context, (void)stream, (void)size;
    while (out && cuptiActivityGetNextRecord(buffer, used, &record) == CUPTI_SUCCESS) take(record);
    free(buffer);
}

static void finish(void)
{
    (void)cuptiActivityFlushAll(1);
    if (out && fclose(out)) perror("timeline");
    out = NULL;
}

/* Called by CUDA when it starts. */
__attribute__((visibility("default"))) int InitializeInjection(void);
int InitializeInjection(void)
{
    static const CUpti_ActivityKind kinds[] = {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,
                                               CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMCPY2,
                                               CUPTI_ACTIVITY_KIND_MEMSET};
    char path[512];
    const char *where = getenv("FX_TIMELINE");
    snprintf(path, sizeof path, "%s.%d", where ? where : "timeline", (int)getpid());
    out = fopen(path, "w");
    if (!out || cuptiActivityRegisterCallbacks(buffer_wanted, buffer_full) != CUPTI_SUCCESS) return 0;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) (void)cuptiActivityEnable(kinds[i]);
    atexit(finish);
    return 1;
}
