/* The matrix tile on AMX: 32x32 results in four tile registers, 32 values of k per step, f32 accumulation.
 * source: Intel 64 and IA-32 optimization manual, chapter on AMX. */
#include "kernels/cpu/internal.h"

#if FX_X86
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

static const tile_config full_tiles __attribute__((aligned(64))) = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

static bool processor_has_amx(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    return (d >> 22 & 1) && (d >> 24 & 1); /* AMX-BF16, AMX-TILE */
}

bool fx_cpu_amx_permitted(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
#ifdef SYS_arch_prctl
    return processor_has_amx() && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}

FX_TARGET_AMX static void amx_begin(void)
{
    _tile_loadconfig(&full_tiles);
}

FX_TARGET_AMX static void amx_end(void)
{
    _tile_release();
}

/* The panel after this one, fetched into L2 meanwhile: `lines` cache lines per step of k. */
typedef struct successor {
    const char *at;
    int64_t lines;
} successor;

/* Two row tiles by two column tiles: 0 1 / 2 3 accumulate; 4 5 rows of a; 6 7 columns of the panel. */
FX_TARGET_AMX static void rows_32(int64_t k, const uint16_t *a, int64_t lda, const uint16_t *panel, float *c,
                                  int64_t ldc, bool acc, successor next)
{
    const int64_t a_bytes = lda * 2, c_bytes = ldc * 4;
    float *low = c + 16 * ldc;
    if (acc) {
        _tile_loadd(0, c, c_bytes);
        _tile_loadd(1, c + 16, c_bytes);
        _tile_loadd(2, low, c_bytes);
        _tile_loadd(3, low + 16, c_bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    const uint16_t *a_low = a + 16 * lda;
    for (int64_t i = 0; i < k; i += 32) {
        const uint16_t *p = panel + i * FX_PANEL;
        _tile_loadd(6, p, 128);
        _tile_loadd(4, a + i, a_bytes);
        _tile_loadd(7, p + 32, 128);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        for (int64_t l = 0; l < next.lines; l++, next.at += 64) _mm_prefetch(next.at, _MM_HINT_T1);
        _tile_loadd(5, a_low + i, a_bytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, c_bytes);
    _tile_stored(1, c + 16, c_bytes);
    _tile_stored(2, low, c_bytes);
    _tile_stored(3, low + 16, c_bytes);
}

FX_TARGET_AMX static void rows_16(int64_t k, const uint16_t *a, int64_t lda, const uint16_t *panel, float *c,
                                  int64_t ldc, bool acc)
{
    if (acc) {
        _tile_loadd(0, c, ldc * 4);
        _tile_loadd(1, c + 16, ldc * 4);
    } else {
        _tile_zero(0);
        _tile_zero(1);
    }
    for (int64_t i = 0; i < k; i += 32) {
        _tile_loadd(4, a + i, lda * 2);
        _tile_loadd(6, panel + i * FX_PANEL, 128);
        _tile_loadd(7, panel + i * FX_PANEL + 32, 128);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, c, ldc * 4);
    _tile_stored(1, c + 16, ldc * 4);
}

static void amx_run(int64_t m, int64_t k, const void *a, int64_t lda, const void *panel, float *c,
                    int64_t ldc, bool acc)
{
    const uint16_t *rows = a;
    const int64_t blocks = (m + 15) / 32,
                  lines = blocks ? (32 + blocks - 1) / blocks : 0; /* 32 lines per step of k */
    successor next = {(const char *)panel + k * FX_PANEL * 2, lines < 4 ? lines : 4};
    int64_t i = 0;
    for (; i + 16 < m; i += 32, next.at += next.lines * k / 32 * 64) {
        rows_32(k, rows + i * lda, lda, panel, c + i * ldc, ldc, acc, next);
    }
    for (; i < m; i += 16) rows_16(k, rows + i * lda, lda, panel, c + i * ldc, ldc, acc);
}

const fx_cpu_tile fx_cpu_tile_amx = {FX_BF16, FX_PANEL, true, amx_run, amx_begin, amx_end};

#else
bool fx_cpu_amx_permitted(void)
{
    return false;
}
#endif
