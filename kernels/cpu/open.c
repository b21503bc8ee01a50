/* Opens the CPU backend: picks the matrix tile for this processor, makes the thread buffers, fills the table
 * of ops. Also how ops spread ranges and tasks over threads. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/internal.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- threads ---- */

void fx_cpu_ranges(const fx_backend *be, int64_t n, int64_t grain, fx_range_fn fn, const void *job)
{
    const int64_t most = (n + grain - 1) / grain, parts = most < be->threads ? most : be->threads;
    if (n <= 0) return;
    if (parts <= 1) {
        fn(job, 0, n, 0);
        return;
    }
#pragma omp parallel for num_threads(be->threads) schedule(static, 1)
    for (int64_t p = 0; p < parts; p++) fn(job, n * p / parts, n * (p + 1) / parts, omp_get_thread_num());
}

void fx_cpu_tasks(const fx_backend *be, int64_t n, fx_range_fn fn, const void *job)
{
    if (n <= 0) return;
    if (be->threads == 1 || n == 1) {
        fn(job, 0, n, 0);
        return;
    }
#pragma omp parallel for num_threads(be->threads) schedule(dynamic, 1)
    for (int64_t i = 0; i < n; i++) fn(job, i, i + 1, omp_get_thread_num());
}

/* ---- small slots ---- */

static fx_status cpu_upload(fx_backend *be, fx_tensor device, const void *host)
{
    (void)be;
    memcpy(device.data, host, fx_bytes(device));
    return FX_OK;
}

static fx_status cpu_download(fx_backend *be, void *host, fx_tensor device)
{
    (void)be;
    memcpy(host, device.data, fx_bytes(device));
    return FX_OK;
}

static fx_status cpu_sync(fx_backend *be)
{
    (void)be;
    return FX_OK;
}

static void cpu_close(fx_backend *be)
{
    fx_cpu *cpu = be ? fx_cpu_of(be) : NULL;
    if (!cpu) return;
    free(cpu->memory);
    free(cpu->buf);
    free(cpu);
    be->impl = NULL;
}

static const fx_ops cpu_ops = {
    .name = "cpu",
    .packed_bytes = fx_cpu_packed_bytes,
    .pack = fx_cpu_pack,
    .linear_scratch = fx_cpu_linear_scratch,
    .conv2d_scratch = fx_cpu_conv2d_scratch,
    .attention_scratch = fx_cpu_attention_scratch,
    .linear = fx_cpu_linear,
    .conv2d = fx_cpu_conv2d,
    .attention = fx_cpu_attention,
    .attention_merge = fx_cpu_attention_merge,
    .norm_mod = fx_cpu_norm_mod,
    .layer_norm = fx_cpu_layer_norm,
    .rms_norm = fx_cpu_rms_norm,
    .gate_add = fx_cpu_gate_add,
    .gate_norm = fx_cpu_gate_norm,
    .qk_norm_rope = fx_cpu_qk_norm_rope,
    .axpy = fx_cpu_axpy,
    .activate = fx_cpu_activate,
    .glu = fx_cpu_glu,
    .embed = fx_cpu_embed,
    .copy = fx_cpu_copy,
    .row_stats = fx_cpu_row_stats,
    .group_norm = fx_cpu_group_norm,
    .upsample2x = fx_cpu_upsample2x,
    .to_rgb8 = fx_cpu_to_rgb8,
    .count_nonfinite = fx_cpu_count_nonfinite,
    .upload = cpu_upload,
    .download = cpu_download,
    .sync = cpu_sync,
    .close = cpu_close,
};

/* ---- open ---- */

static const fx_cpu_tile *choose_tile(fx_cpu_isa isa, fx_dtype dtype)
{
#if FX_X86
    if (dtype == FX_BF16 && isa >= FX_ISA_AMX) return &fx_cpu_tile_amx;
    if (dtype == FX_BF16 && isa >= FX_ISA_BF16) return &fx_cpu_tile_bf16;
    if (isa >= FX_ISA_AVX512) return &fx_cpu_tile_avx512;
    if (isa >= FX_ISA_AVX2) return &fx_cpu_tile_avx2;
#elif FX_NEON
    (void)dtype;
    if (isa >= FX_ISA_NEON) return &fx_cpu_tile_neon;
#else
    (void)isa, (void)dtype;
#endif
    return &fx_cpu_tile_base;
}

enum { HUGE_PAGE = 2 << 20 }; /* bytes */

static fx_status make_buffers(fx_cpu *cpu, int threads)
{
    const size_t one = FX_BUF_C + FX_BUF_A + FX_BUF_B, bytes = one * (size_t)threads;
    cpu->buf = calloc((size_t)threads, sizeof *cpu->buf);
    cpu->memory = aligned_alloc(HUGE_PAGE, (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    FX_CHECK(cpu->buf && cpu->memory, FX_ENOMEM, "cpu backend: no memory for %d thread buffers of %zu bytes",
             threads, one);
    (void)madvise(cpu->memory, bytes, MADV_HUGEPAGE); /* a hint */
    memset(cpu->memory, 0, bytes);
    for (int t = 0; t < threads; t++) {
        char *base = (char *)cpu->memory + one * (size_t)t;
        cpu->buf[t] = (fx_cpu_buf){.c = (float *)base, .a = base + FX_BUF_C, .b = base + FX_BUF_C + FX_BUF_A};
    }
    return FX_OK;
}

fx_status fx_cpu_open(fx_dtype dtype, int threads, fx_backend **out)
{
    *out = NULL;
    fx_backend *be = calloc(1, sizeof *be);
    fx_cpu *cpu = calloc(1, sizeof *cpu);
    if (!be || !cpu) {
        free(be);
        free(cpu);
        return FX_FAIL(FX_ENOMEM, "cpu backend: no memory");
    }
    *be = (fx_backend){.ops = &cpu_ops, .dtype = dtype, .stream = FX_F32, .threads = threads, .impl = cpu};
    be->rows_exact = true;
    cpu->isa = fx_cpu_isa_level();
    cpu->tile = choose_tile(cpu->isa, dtype);
    const fx_status st = make_buffers(cpu, threads);
    if (st) {
        cpu_close(be);
        free(be);
        return st;
    }
    *out = be;
    return FX_OK;
}

const char *fx_cpu_describe(const fx_backend *be)
{
    static _Thread_local char text[96];
    const char *isa = fx_cpu_isa_name(fx_cpu_isa_level());
    if (be)
        snprintf(text, sizeof text, "%s, %d thread%s", isa, be->threads, be->threads == 1 ? "" : "s");
    else
        snprintf(text, sizeof text, "%s", isa);
    return text;
}
