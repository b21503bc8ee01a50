/* Backend name -> table of ops. The only file besides parallel/comm_open.c that knows which backends were
 * built in. A table with an empty slot is refused here, so that no call site ever checks for NULL. */
#include "kernels/devices.h"
#include "kernels/guard.h"
#include "kernels/ops.h"
#include "kernels/plan.h"
#include "kernels/ref/ref.h"
#include "kernels/window.h"
#if FX_HAVE_CPU
#include "kernels/cpu/cpu.h"
#endif
#if FX_HAVE_ONEDNN
#include "kernels/onednn/onednn.h"
#endif
#if FX_HAVE_CUDA
#include "kernels/cuda/cuda.h"
#endif
#if FX_HAVE_TWIN
#include "kernels/twin/open.h"
#endif
#if FX_HAVE_CUDA || FX_HAVE_TWIN
#include "kernels/cuda/slots.h"
#endif

#include <stdlib.h>
#include <string.h>

/* clang-format off */
#define EACH_SLOT(X)                                                                                         \
    X(packed_bytes)                                                                                          \
    X(pack) X(linear_scratch) X(conv2d_scratch) X(attention_scratch) X(linear) X(conv2d) X(attention)        \
        X(attention_merge) X(norm_mod) X(layer_norm) X(rms_norm) X(gate_add) X(gate_norm) X(qk_norm_rope) X(axpy)         \
            X(activate) X(glu) X(embed) X(copy) X(row_stats) X(group_norm) X(upsample2x) X(to_rgb8)          \
                X(count_nonfinite) X(upload) X(download) X(sync) X(close)
/* clang-format on */

#define ONE(slot) +1
_Static_assert(sizeof(fx_ops) == sizeof(const char *) + (0 EACH_SLOT(ONE)) * sizeof(void (*)(void)),
               "EACH_SLOT lists every op of fx_ops");
#undef ONE

static const char *empty_slot(const fx_ops *ops)
{
#define SLOT(slot)                                                                                           \
    if (!ops->slot) return #slot;
    EACH_SLOT(SLOT)
#undef SLOT
    return NULL;
}

fx_status fx_ops_complete(const fx_ops *ops)
{
    const char *slot = empty_slot(ops);
    FX_CHECK(!slot, FX_EDEVICE, "backend '%s' has no %s; the table of ops must be complete", ops->name, slot);
    return FX_OK;
}

static const char guard_name[] = "guard", guard_of[] = "guard:";

const char *fx_backend_computing(const char *name)
{
    if (!strncmp(name, guard_of, sizeof guard_of - 1)) name += sizeof guard_of - 1;
    return !strcmp(name, "auto") || !strcmp(name, guard_name) ? fx_backend_auto() : name;
}

static fx_status open_named(const char *name, fx_dtype dtype, int threads, fx_backend **out)
{
    (void)dtype; /* ref has no choice */
    name = fx_backend_computing(name);
#if FX_HAVE_CPU
    if (strcmp(name, "cpu") == 0) return fx_cpu_open(dtype, threads, out);
#endif
#if FX_HAVE_ONEDNN
    if (strcmp(name, "onednn") == 0) return fx_onednn_open(dtype, threads, out);
#endif
#if FX_HAVE_CUDA /* not in the list, which is for all machines: named, or not used */
    if (strcmp(name, "cuda") == 0) return fx_cuda_open(dtype, 0, out);
    if (strncmp(name, "cuda:", 5) == 0 && name[5] && strspn(name + 5, "0123456789") == strlen(name + 5) &&
        strlen(name) < 9)
        return fx_cuda_open(dtype, atoi(name + 5), out);
    if (strcmp(name, "cuda-staged") == 0) return fx_cuda_open_staged(dtype, 0, (size_t)4 << 30, out);
#endif
#if FX_HAVE_TWIN /* for tests: it is not in the list */
    if (strcmp(name, "twin") == 0) return fx_twin_open(dtype, threads, out);
#endif
    if (strcmp(name, "ref") == 0) return fx_ref_open(threads, out);
    return FX_FAIL(FX_EINVAL, "backend '%s' is not built in; choose auto or one of: %s", name,
                   fx_backend_list());
}

fx_status fx_backend_open(const char *name, fx_dtype dtype, int threads, fx_backend **out)
{
    *out = NULL;
    FX_CHECK(dtype == FX_F32 || dtype == FX_BF16, FX_EINVAL,
             "dtype %s cannot be computed in; choose f32 or bf16", fx_dtype_name(dtype));
    FX_CHECK(threads >= 1, FX_EINVAL, "%d threads; want at least 1", threads);
    fx_backend *be = NULL;
    FX_TRY(open_named(name, dtype, threads, &be));
    if (fx_on_device(be)) be->threads = threads; /* of the host: reading and converting weights */
    fx_status st = fx_ops_complete(be->ops);
    if (!st && !strncmp(name, guard_name, sizeof guard_name - 1)) {
        fx_backend *watched = be;
        st = fx_backend_guard(watched, &be);
        if (st) be = watched;
    }
    if (st) {
        fx_backend_close(&be);
        return st;
    }
    *out = be;
    return FX_OK;
}

void fx_backend_close(fx_backend **be)
{
    if (!*be) return;
    if ((*be)->ops->close) (*be)->ops->close(*be);
    free(*be);
    *be = NULL;
}

/* ---- memory of device backends ---- */

bool fx_on_device(const fx_backend *be)
{
    return strcmp(be->ops->name, "cuda") == 0;
}

fx_status fx_device_alloc(fx_backend *be, size_t bytes, void **out)
{
    *out = NULL;
#if FX_HAVE_CUDA
    if (fx_on_device(be)) return fx_cuda_alloc(be, bytes, out);
#endif
    return FX_FAIL(FX_EDEVICE, "backend %s has no memory of its own (%zu bytes)", be->ops->name, bytes);
}

void fx_device_free(fx_backend *be, void *data)
{
#if FX_HAVE_CUDA
    if (data && fx_on_device(be)) fx_cuda_free(be, data);
#else
    (void)be, (void)data;
#endif
}

fx_status fx_device_pinned(fx_backend *be, size_t bytes, void **out)
{
    *out = NULL;
#if FX_HAVE_CUDA
    if (fx_on_device(be)) return fx_cuda_pinned(be, bytes, out);
#endif
    return FX_FAIL(FX_EDEVICE, "backend %s has no memory of its own (%zu bytes)", be->ops->name, bytes);
}

void fx_device_unpin(fx_backend *be, void *data)
{
#if FX_HAVE_CUDA
    if (data && fx_on_device(be)) fx_cuda_unpin(be, data);
#else
    (void)be, (void)data;
#endif
}

fx_status fx_device_draw(fx_backend *be, void *x, fx_dtype dtype, int64_t n, uint64_t key, uint64_t first,
                         float amp, float mean)
{
#if FX_HAVE_CUDA
    if (fx_on_device(be)) return fx_cuda_draw(be, x, dtype, n, key, first, amp, mean);
#endif
    (void)x, (void)dtype, (void)n, (void)key, (void)first, (void)amp, (void)mean;
    return FX_FAIL(FX_EDEVICE, "backend %s has no memory of its own", be->ops->name);
}

fx_status fx_device_copy(fx_backend *be, void *to, const void *from, size_t bytes)
{
#if FX_HAVE_CUDA
    if (fx_on_device(be)) return fx_cuda_copy_bytes(be, to, from, bytes);
#endif
    (void)to, (void)from;
    return FX_FAIL(FX_EDEVICE, "backend %s has no memory of its own (%zu bytes)", be->ops->name, bytes);
}

fx_status fx_device_no_room(size_t bytes, const char *why)
{
#if FX_HAVE_CUDA
    return fx_cuda_no_room(bytes, why);
#else
    return FX_FAIL(FX_ENOMEM, "no memory for %zu bytes%s on a device", bytes, why);
#endif
}

void *fx_device_stream(const fx_backend *be)
{
#if FX_HAVE_CUDA
    if (fx_on_device(be)) return fx_cuda_stream_of(be);
#endif
    (void)be;
    return NULL;
}

int fx_device_count(void)
{
#if FX_HAVE_CUDA
    return fx_cuda_devices();
#else
    return -1;
#endif
}

const char *fx_device_libraries(void)
{
#if FX_HAVE_CUDA
    return fx_cuda_libraries();
#else
    return NULL;
#endif
}

fx_status fx_device_constant(fx_backend *be, const void *device, const float *host, int64_t n)
{
#if FX_HAVE_CUDA
    if (fx_on_device(be)) return fx_cuda_keep_bias(be, device, host, n);
#else
    (void)be, (void)device, (void)host, (void)n;
#endif
    return FX_OK;
}

const fx_device_calls *fx_device_calls_built(void)
{
#if FX_HAVE_CUDA
    return &fx_cuda_device_calls;
#else
    return NULL;
#endif
}

/* ---- the exchange by kernels ---- */

typedef struct window_calls {
    __typeof__(fx_window_put) *put;
    __typeof__(fx_window_wait) *wait;
    __typeof__(fx_window_give_back) *give_back;
    __typeof__(fx_window_pack) *pack;
    __typeof__(fx_window_send) *send;
    __typeof__(fx_window_join) *join;
} window_calls;

static const window_calls *window_calls_of(const fx_backend *be)
{
#if FX_HAVE_CUDA
    static const window_calls cuda = {fx_cuda_window_put,  fx_cuda_window_wait, fx_cuda_window_give_back,
                                      fx_cuda_window_pack, fx_cuda_window_send, fx_cuda_window_join};
    if (fx_on_device(be)) return &cuda;
#endif
#if FX_HAVE_TWIN
    static const window_calls twin = {fx_twin_window_put,  fx_twin_window_wait, fx_twin_window_give_back,
                                      fx_twin_window_pack, fx_twin_window_send, fx_twin_window_join};
    if (be->dtype == FX_BF16 && strcmp(be->ops->name, "twin") == 0) return &twin;
#endif
    (void)be;
    return NULL;
}

bool fx_window_kernels(const fx_backend *be)
{
    return window_calls_of(be) != NULL;
}

#define WINDOW_CALL(op, be, ...)                                                                             \
    const window_calls *calls = window_calls_of(be);                                                         \
    FX_CHECK(calls, FX_EDEVICE, "backend %s has no kernels for the exchange", (be)->ops->name);              \
    return calls->op(be, ##__VA_ARGS__)

fx_status fx_window_put(fx_backend *be, const fx_window *w, const fx_window_run run[], int n, float eps)
{
    WINDOW_CALL(put, be, w, run, n, eps);
}

fx_status fx_window_wait(fx_backend *be, const fx_window *w, int what)
{
    WINDOW_CALL(wait, be, w, what);
}

fx_status fx_window_give_back(fx_backend *be, const fx_window *w, fx_tensor o, const fx_window_owner *owners,
                              int n)
{
    WINDOW_CALL(give_back, be, w, o, owners, n);
}

fx_status fx_window_pack(fx_backend *be, const fx_window *w, const fx_window_run run[], int n, float eps,
                         fx_tensor staged)
{
    WINDOW_CALL(pack, be, w, run, n, eps, staged);
}

fx_status fx_window_send(fx_backend *be, const fx_window_copy copies[], int n)
{
    WINDOW_CALL(send, be, copies, n);
}

fx_status fx_window_join(fx_backend *be)
{
    WINDOW_CALL(join, be);
}

const char *fx_backend_list(void)
{
#if FX_HAVE_ONEDNN
    return "cpu onednn ref guard";
#elif FX_HAVE_CPU
    return "cpu ref guard";
#else
    return "ref guard";
#endif
}

const char *fx_backend_auto(void)
{
#if FX_HAVE_ONEDNN
    return fx_cpu_has_tiles() ? "cpu" : "onednn";
#elif FX_HAVE_CPU
    return "cpu";
#else
    return "ref";
#endif
}

const char *fx_backend_describe(const fx_backend *be)
{
    if (fx_planning(be))
        return fx_plan_inner(be) ? fx_backend_describe(fx_plan_inner(be)) : "the graph alone";
    if (fx_guarding(be)) return fx_guard_describe(be);
#if FX_HAVE_CPU
    if (strcmp(be->ops->name, "cpu") == 0) return fx_cpu_describe(be);
#endif
#if FX_HAVE_ONEDNN
    if (strcmp(be->ops->name, "onednn") == 0) return fx_onednn_describe(be);
#endif
#if FX_HAVE_CUDA
    if (strcmp(be->ops->name, "cuda") == 0) return fx_cuda_describe(be);
#endif
#if FX_HAVE_TWIN
    if (strcmp(be->ops->name, "twin") == 0) return "CUDA kernels on the CPU";
#endif
    return "f64 reference loops";
}
