/* The arena: all activations and scratch of one rank. The plan backend runs the real graph over a measuring
 * arena; its peak sizes the real one, which is reserved and touched once before the first step, so that the
 * step loop never allocates and a shortage shows before work starts. */
#include "runtime/core/arena.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/core/clock.h"

/* Far from any real mapping of today's systems, so that touching a planned address faults at once. */
#define FAKE_BASE ((uintptr_t)1 << 56)

struct fx_arena {
    char *base;
    size_t size, used, peak;
    size_t mapped; /* bytes to unmap; 0 when the memory is the caller's */
    bool measuring;
};

static double gib(size_t bytes)
{
    return (double)bytes / (1024.0 * 1024.0 * 1024.0);
}

static fx_status arena_new(fx_arena **out)
{
    *out = calloc(1, sizeof **out);
    FX_CHECK(*out, FX_ENOMEM, "no memory for an arena record");
    return FX_OK;
}

fx_status fx_arena_measure(fx_arena **out)
{
    FX_TRY(arena_new(out));
    (*out)->base = (char *)FAKE_BASE; /* NOLINT: never touched */
    (*out)->size = (size_t)1 << 55;
    (*out)->measuring = true;
    return FX_OK;
}

/* Every page now, while there is someone to tell; MADV_POPULATE_WRITE (Linux 5.14) reports instead of
 * killing. */
static bool touch_pages(char *base, size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
#ifdef MADV_POPULATE_WRITE
    if (madvise(base, bytes, MADV_POPULATE_WRITE) == 0) return true;
    if (errno == ENOMEM || errno == EFAULT || errno == EHWPOISON) return false;
#endif
    for (size_t i = 0; i < bytes; i += page) *(volatile char *)(base + i) = 0;
    return true;
}

static fx_status map_pages(fx_arena *a, size_t bytes)
{
    const char *limit;
    const size_t have = fx_memory_available(&limit);
    FX_CHECK(
        bytes <= have, FX_ENOMEM,
        "activations need %.2f GiB; %.2f GiB are available (%s); make the picture smaller or use more ranks",
        gib(bytes), gib(have), limit);
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    FX_CHECK(base != MAP_FAILED, FX_ENOMEM, "activations need %.2f GiB; mmap: %s (%.2f GiB available)",
             gib(bytes), strerror(errno), gib(have));
    a->base = base;
    a->mapped = bytes;
    (void)madvise(base, bytes, MADV_HUGEPAGE); /* a hint; refused where huge pages are off */
    FX_CHECK(touch_pages(base, bytes), FX_ENOMEM,
             "activations need %.2f GiB; %.2f GiB were available and ran out", gib(bytes), gib(have));
    return FX_OK;
}

fx_status fx_arena_open(void *base, size_t bytes, fx_arena **out)
{
    *out = NULL;
    fx_arena *a;
    FX_CHECK((uintptr_t)base % FX_ARENA_ALIGN == 0, FX_ESHAPE, "arena memory is not aligned to %d",
             FX_ARENA_ALIGN);
    FX_TRY(arena_new(&a));
    a->base = base;
    a->size = bytes;
    if (!base) {
        const fx_status st = map_pages(a, bytes ? bytes : FX_ARENA_ALIGN);
        if (st != FX_OK) {
            fx_arena_close(&a);
            return st;
        }
    }
    *out = a;
    return FX_OK;
}

void fx_arena_close(fx_arena **a)
{
    if (!*a) return;
    if ((*a)->mapped) munmap((*a)->base, (*a)->mapped);
    free(*a);
    *a = NULL;
}

/* Bytes of the tensor rounded up to the alignment; false when that overflows or a size is negative. */
static bool padded_bytes(fx_dtype dtype, int ndim, const int64_t shape[], size_t *out)
{
    size_t bytes = fx_dtype_size(dtype);
    if (ndim < 1 || ndim > FX_MAX_DIMS) return false;
    for (int d = 0; d < ndim; d++)
        if (shape[d] < 0 || __builtin_mul_overflow(bytes, (size_t)shape[d], &bytes)) return false;
    if (bytes > SIZE_MAX - FX_ARENA_ALIGN) return false;
    *out = (bytes + FX_ARENA_ALIGN - 1) / FX_ARENA_ALIGN * FX_ARENA_ALIGN;
    return true;
}

fx_status fx_push(fx_arena *a, fx_dtype dtype, int ndim, const int64_t shape[], fx_tensor *out)
{
    size_t bytes;
    *out = fx_none();
    FX_CHECK(padded_bytes(dtype, ndim, shape, &bytes), FX_ESHAPE,
             "arena: impossible shape (%d dimensions, first %lld)", ndim,
             ndim > 0 ? (long long)shape[0] : 0LL);
    FX_CHECK(bytes <= a->size - a->used, FX_ENOMEM,
             "arena: need %zu bytes at %zu, have %zu; the memory plan was wrong; please report this", bytes,
             a->used, a->size);
    *out = fx_view(a->base + a->used, dtype, ndim, shape);
    a->used += bytes;
    if (a->used > a->peak) a->peak = a->used;
    return FX_OK;
}

fx_status fx_push1(fx_arena *a, fx_dtype dtype, int64_t n, fx_tensor *out)
{
    return fx_push(a, dtype, 1, &n, out);
}

fx_status fx_push2(fx_arena *a, fx_dtype dtype, int64_t rows, int64_t cols, fx_tensor *out)
{
    const int64_t shape[2] = {rows, cols};
    return fx_push(a, dtype, 2, shape, out);
}

fx_status fx_push3(fx_arena *a, fx_dtype dtype, int64_t x, int64_t y, int64_t z, fx_tensor *out)
{
    const int64_t shape[3] = {x, y, z};
    return fx_push(a, dtype, 3, shape, out);
}

size_t fx_mark(const fx_arena *a)
{
    return a->used;
}
void fx_rewind(fx_arena *a, size_t mark)
{
    a->used = mark;
}
size_t fx_peak(const fx_arena *a)
{
    return a->peak;
}
bool fx_arena_measuring(const fx_arena *a)
{
    return a->measuring;
}
bool fx_arena_offset(const fx_arena *a, const void *data, size_t *offset)
{
    const uintptr_t at = (uintptr_t)data, base = (uintptr_t)a->base;
    *offset = at - base;
    return at >= base && at - base < a->peak;
}
