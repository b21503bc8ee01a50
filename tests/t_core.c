/* runtime/core: status and messages, views, float formats (every 16-bit value and every rounding boundary),
 * the arena and what it refuses, the clock and memory readings, results kept in files. */
#include "tests/test.h"

#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "runtime/core/arena.h"
#include "runtime/core/cache.h"
#include "runtime/core/clock.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/core/tensor.h"

/* ---- status ---- */

static void *other_thread(void *seen)
{
    *(int *)seen = (int)strlen(fx_error());
    (void)FX_FAIL(FX_EREAD, "from the other thread");
    return NULL;
}

static void t_status(void)
{
    pthread_t thread;
    int length = -1;
    T_CHECK(fx_error()[0] == 0, "message before any failure: %s", fx_error());
    T_CHECK(FX_FAIL(FX_EFORMAT, "want %d, found %s", 3, "x") == FX_EFORMAT, "code");
    T_CHECK(strcmp(fx_error(), "want 3, found x") == 0, "%s", fx_error());
    T_CHECK(strstr(fx_error_where(), "t_core.c:") && strstr(fx_error_where(), "t_status"), "%s",
            fx_error_where());
    (void)FX_FAIL(FX_EFORMAT, "loading: %s", fx_error());
    T_CHECK(strcmp(fx_error(), "loading: want 3, found x") == 0, "%s", fx_error());
    pthread_create(&thread, NULL, other_thread, &length);
    pthread_join(thread, NULL);
    T_CHECK(length == 0, "a new thread sees a message");
    T_CHECK(strcmp(fx_error(), "loading: want 3, found x") == 0, "another thread's failure came here: %s",
            fx_error());
}

static void t_exit_codes(void)
{
    static const struct {
        fx_status status;
        int code;
    } all[] = {{FX_OK, 0},      {FX_EINVAL, 2}, {FX_ESHAPE, 4},   {FX_EFORMAT, 3}, {FX_EREAD, 3},
               {FX_EDEVICE, 4}, {FX_ECOMM, 5},  {FX_ENUMERIC, 6}, {FX_EWRITE, 7},  {FX_ENOMEM, 8}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        T_CHECK(fx_exit_code(all[i].status) == all[i].code, "%s gives %d", fx_status_name(all[i].status),
                fx_exit_code(all[i].status));
    T_CHECK(strcmp(fx_status_name(FX_EFORMAT), "FX_EFORMAT") == 0, "name");
    T_CHECK(fx_stop_signal() == 0, "stop flag set at start");
    T_CHECK(fx_exit_code(FX_ESIGNAL) == 143, "a peer's signal gives %d", fx_exit_code(FX_ESIGNAL));
    fx_stop_request(SIGINT);
    fx_stop_request(SIGTERM); /* the first one counts */
    T_CHECK(fx_stop_signal() == SIGINT && fx_exit_code(FX_ESIGNAL) == 130, "%d", fx_exit_code(FX_ESIGNAL));
}

static char last_log[100];
static void keep_log(fx_log_level level, const char *message)
{
    snprintf(last_log, sizeof last_log, "%d %s", (int)level, message);
}

static void t_log(void)
{
    fx_log(FX_LOG_WARN, "nobody listens");
    fx_log_install(keep_log);
    fx_log(FX_LOG_NOTE, "step %d", 7);
    T_CHECK(strcmp(last_log, "1 step 7") == 0, "%s", last_log);
    fx_log_install(NULL);
    fx_log(FX_LOG_WARN, "nobody listens");
    T_CHECK(strcmp(last_log, "1 step 7") == 0, "%s", last_log);
}

/* ---- views ---- */

static void t_views(void)
{
    float data[24];
    char text[64];
    for (int i = 0; i < 24; i++) data[i] = (float)i;
    const fx_tensor t = fx_view3(data, FX_F32, 2, 3, 4);
    T_CHECK(fx_numel(t) == 24 && fx_bytes(t) == 96 && fx_contiguous(t), "view3");
    T_CHECK(strcmp(fx_shape_str(t, text, sizeof text), "[2,3,4] f32") == 0, "%s", text);
    T_CHECK(strcmp(fx_shape_str(fx_none(), text, sizeof text), "[] f64") == 0, "%s", text);
    T_CHECK(strlen(fx_shape_str(t, text, 6)) == 5, "cut to fit: %s", text);
    T_CHECK(!fx_present(fx_none()) && fx_numel(fx_none()) == 0 && fx_present(t), "absent");
    const fx_tensor row = fx_row(t, 1);
    T_CHECK(!row.shape[row.ndim] && !row.stride[row.ndim], "behind the last dimension nothing is left");
    T_CHECK(row.ndim == 2 && row.shape[0] == 3 && *(float *)row.data == 12, "row");
    const fx_tensor part = fx_cols(row, 1, 2);
    T_CHECK(*(float *)part.data == 13 && part.shape[1] == 2 && part.stride[0] == 4 && !fx_contiguous(part),
            "cols");
    const fx_tensor middle = fx_slice(t, 1, 2, 1);
    T_CHECK(*(float *)middle.data == 8 && middle.shape[1] == 1 && !fx_contiguous(middle), "slice");
    const fx_tensor one = fx_rows(t, 1, 1);
    T_CHECK(fx_contiguous(one), "one row is contiguous");
    const fx_tensor heads = fx_heads(fx_cols(fx_view2(data, FX_F32, 3, 8), 2, 6), 3);
    T_CHECK(heads.ndim == 3 && heads.shape[1] == 3 && heads.shape[2] == 2 && heads.stride[0] == 8 &&
                heads.stride[1] == 2,
            "heads keep the row stride");
    const fx_tensor flat = fx_flat(heads);
    T_CHECK(flat.ndim == 2 && flat.shape[1] == 6 && flat.stride[0] == 8 && flat.stride[1] == 1, "flat");
    const fx_tensor pixels = fx_pixels(t);
    T_CHECK(pixels.ndim == 2 && pixels.shape[0] == 6 && pixels.shape[1] == 4 && pixels.stride[0] == 4,
            "pixels");
    const int order[] = {2, 0, 1};
    const fx_tensor p = fx_permute(t, order);
    T_CHECK(p.shape[0] == 4 && p.stride[0] == 1 && p.shape[1] == 2 && p.stride[1] == 12 && p.stride[2] == 4,
            "permute");
    T_CHECK(fx_rows(fx_view2(NULL, FX_F32, 4, 4), 2, 2).data == NULL, "views of nothing stay NULL");
    T_CHECK(fx_present(fx_rows(t, t.shape[0], 0)), "no rows, behind the last");
    T_CHECK(!fx_present(fx_rows(t, 1, t.shape[0])) && !fx_present(fx_cols(t, -1, 1)) &&
                !fx_present(fx_slice(t, 1, 0, -1)) && !fx_present(fx_row(t, t.shape[0])) &&
                !fx_present(fx_rows(fx_none(), 0, 0)),
            "slices beyond the end are absent");
}

/* ---- float formats ---- */

static float half_value(unsigned h) /* by the definition of binary16 */
{
    const int e = (int)(h >> 10 & 31);
    const double m = h & 1023, v = e == 0 ? ldexp(m, -24) : ldexp(1024 + m, e - 25);
    return (float)(h & 0x8000 ? -v : v);
}

/* Between neighbours a < b of a 16-bit format: below the middle to a, above to b, the middle to the even one.
 */
static int boundary(uint16_t (*round)(float), uint16_t lower, double a, double b)
{
    const double middle = (a + b) / 2;
    const float m = (float)middle, down = nextafterf(m, (float)a), up = nextafterf(m, (float)b);
    const uint16_t higher = (uint16_t)(lower + 1), even = lower & 1 ? higher : lower;
    if ((double)m != middle) return 0; /* needs an exact middle; every 16-bit pair has one in f32 */
    return round(m) == even && round(down) == lower && round(up) == higher;
}

static void t_half(void)
{
    int back = 0, value = 0, edge = 0;
    for (unsigned h = 0; h < 0x7c00; h++) {
        const uint16_t p = (uint16_t)h, n = (uint16_t)(h | 0x8000);
        value += fx_f16_to_f32(p) == half_value(h) && fx_f16_to_f32(n) == -half_value(h);
        back += fx_f32_to_f16(fx_f16_to_f32(p)) == p && fx_f32_to_f16(fx_f16_to_f32(n)) == n;
        edge += boundary(fx_f32_to_f16, p, half_value(h), h == 0x7bff ? 65536.0 : half_value(h + 1));
    }
    T_CHECK(value == 0x7c00 && back == 0x7c00 && edge == 0x7c00, "%d values, %d back, %d edges of %d", value,
            back, edge, 0x7c00);
    T_CHECK(fx_f32_to_f16(INFINITY) == 0x7c00 && fx_f32_to_f16(-INFINITY) == 0xfc00, "infinity");
    T_CHECK(isinf(fx_f16_to_f32(0x7c00)) && isnan(fx_f16_to_f32(0x7e01)), "special values");
    const uint32_t least = 0x7f800001u; /* the smallest NaN */
    float least_nan;
    memcpy(&least_nan, &least, sizeof least_nan);
    T_CHECK(isnan(fx_f16_to_f32(fx_f32_to_f16(least_nan))), "the smallest NaN");
    T_CHECK(isnan(fx_f16_to_f32(fx_f32_to_f16(NAN))) && fx_f32_to_f16(1e30f) == 0x7c00, "NaN and overflow");
    T_CHECK(fx_f32_to_f16(1e-10f) == 0 && fx_f32_to_f16(-1e-10f) == 0x8000, "underflow keeps the sign");
}

static void t_bf16(void)
{
    int back = 0, edge = 0, nan = 0;
    for (unsigned h = 0; h < 0x7f80; h++) {
        const uint16_t p = (uint16_t)h;
        const float v = fx_bf16_to_f32(p);
        const double next = h == 0x7f7f ? ldexp(1, 128) : (double)fx_bf16_to_f32((uint16_t)(h + 1));
        back += fx_f32_to_bf16(v) == p && fx_f32_to_bf16(-v) == (p | 0x8000);
        edge += boundary(fx_f32_to_bf16, p, v, next);
    }
    T_CHECK(back == 0x7f80 && edge == 0x7f80, "%d back, %d edges of %d", back, edge, 0x7f80);
    for (uint32_t u = 0x7f800001u; u < 0x7fffff00u; u += 0x101u) {
        float x;
        memcpy(&x, &u, 4);
        nan += !isnan(fx_bf16_to_f32(fx_f32_to_bf16(x)));
    }
    T_CHECK(nan == 0, "%d NaN became numbers", nan);
    T_CHECK(fx_f32_to_bf16(INFINITY) == 0x7f80, "infinity");
}

static void t_convert(void)
{
    enum { N = 67 };
    static const fx_dtype kinds[] = {FX_F64, FX_F32, FX_BF16, FX_F16};
    double want[N], got[N];
    uint64_t a[N], b[N];
    for (int i = 0; i < N; i++) want[i] = (i - 33) * 0.125; /* exact in every format */
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            fx_convert(a, kinds[i], want, FX_F64, N);
            fx_convert(b, kinds[j], a, kinds[i], N);
            fx_convert(got, FX_F64, b, kinds[j], N);
            T_CHECK(memcmp(want, got, sizeof want) == 0, "%s to %s", fx_dtype_name(kinds[i]),
                    fx_dtype_name(kinds[j]));
        }
    /* 1 + 2^-8 is halfway between two bf16; a bit far below must still decide (no double rounding through
     * f32). */
    const double hard[] = {1 + 0x1p-8 + 0x1p-40, 1 + 0x1p-8, 1 + 3 * 0x1p-8 - 0x1p-40,
                           -(1 + 0x1p-8 + 0x1p-40)};
    const uint16_t right[] = {0x3f81, 0x3f80, 0x3f81, 0xbf81};
    uint16_t out[4];
    fx_convert(out, FX_BF16, hard, FX_F64, 4);
    T_CHECK(memcmp(out, right, sizeof out) == 0, "f64 to bf16: %04x %04x %04x %04x", out[0], out[1], out[2],
            out[3]);
    const double fine[] = {1 + 0x1p-11 + 0x1p-45, 1 + 0x1p-11};
    fx_convert(out, FX_F16, fine, FX_F64, 2);
    T_CHECK(out[0] == 0x3c01 && out[1] == 0x3c00, "f64 to f16: %04x %04x", out[0], out[1]);
}

/* ---- arena ---- */

static void t_arena_same(fx_arena *a)
{
    fx_tensor x, y;
    T_OK(fx_push2(a, FX_BF16, 3, 5, &x));
    const size_t mark = fx_mark(a);
    T_CHECK(mark == 256, "30 bytes take %zu", mark);
    T_OK(fx_push3(a, FX_F32, 10, 10, 10, &y));
    T_CHECK((uintptr_t)y.data % FX_ARENA_ALIGN == 0 && (char *)y.data - (char *)x.data == 256, "alignment");
    T_CHECK(fx_contiguous(y) && y.shape[2] == 10 && y.dtype == FX_F32, "view");
    fx_rewind(a, mark);
    T_OK(fx_push1(a, FX_U8, 1, &x));
    T_CHECK(x.data == y.data, "rewound memory is used again");
    T_CHECK(fx_peak(a) == 256 + 4096 && fx_mark(a) == 512, "peak %zu, mark %zu", fx_peak(a), fx_mark(a));
    T_OK(fx_push1(a, FX_F32, 0, &x));
    T_CHECK(fx_mark(a) == 512, "nothing takes nothing");
    size_t at = 0;
    T_CHECK(fx_arena_offset(a, (char *)y.data + 7, &at) && at == 263, "offset %zu", at);
    T_CHECK(fx_arena_offset(a, (char *)y.data + 4095, &at) && !fx_arena_offset(a, (char *)y.data + 4096, &at),
            "up to the peak");
    T_CHECK(!fx_arena_offset(a, NULL, &at) && !fx_arena_offset(a, (char *)y.data - 257, &at),
            "before the arena");
}

static void t_arena(void)
{
    fx_arena *a, *plan;
    fx_tensor t;
    const int64_t negative[] = {4, -1}, huge[] = {INT64_MAX, 16};
    T_OK(fx_arena_measure(&plan));
    t_arena_same(plan);
    T_CHECK(fx_arena_measuring(plan), "measuring");
    T_OK(fx_push1(plan, FX_F32, (int64_t)1 << 45, &t)); /* a plan may be larger than memory */
    T_CHECK(fx_push(plan, FX_F32, 2, negative, &t) == FX_ESHAPE && !fx_present(t), "negative size");
    T_CHECK(fx_push(plan, FX_F32, 2, huge, &t) == FX_ESHAPE, "overflow");
    T_OK(fx_arena_open(NULL, 8192, &a));
    t_arena_same(a);
    T_CHECK(!fx_arena_measuring(a), "real");
    T_OK(fx_push1(a, FX_U8, 8192 - 512, &t));
    memset(t.data, 1, fx_bytes(t));
    T_CHECK(fx_push1(a, FX_U8, 1, &t) == FX_ENOMEM && strstr(fx_error(), "plan"), "%s", fx_error());
    fx_arena_close(&plan);
    fx_arena_close(&a);
    fx_arena_close(&a);
    T_CHECK(!a, "close clears");
}

static void t_arena_memory(void)
{
    _Alignas(256) static char mine[1024];
    fx_arena *a;
    fx_tensor t;
    T_CHECK(fx_arena_open(NULL, (size_t)1 << 46, &a) == FX_ENOMEM && !a, "64 TiB were given");
    T_CHECK(strstr(fx_error(), "65536.00 GiB") && strstr(fx_error(), "available"), "need and have: %s",
            fx_error());
    T_CHECK(!strstr(fx_error(), "mmap"), "only the system refused: %s", fx_error());
    T_CHECK(fx_arena_open(mine + 8, 512, &a) == FX_ESHAPE, "unaligned memory");
    T_OK(fx_arena_open(mine, sizeof mine, &a));
    T_OK(fx_push1(a, FX_U8, 1024, &t));
    T_CHECK(t.data == mine, "caller's memory");
    fx_arena_close(&a);
}

static void t_clock(void)
{
    const char *limit = NULL;
    const double start = fx_now_s();
    usleep(20000);
    const double took = fx_now_s() - start;
    T_CHECK(took >= 0.019 && took < 5, "20 ms took %g s", took);
    const size_t have = fx_memory_available(&limit);
    T_CHECK(have > 0 && have < SIZE_MAX && limit && limit[0], "%zu", have);
    const size_t part = fx_memory_share(1000, &limit); /* an address space is each one's own */
    T_CHECK(part <= have / 100 || strstr(limit, "address"), "a thousandth of %zu is %zu", have, part);
    enum { TAKE = 64 << 20 };
    const fx_memory before = fx_memory_read();
    fx_arena *a;
    T_OK(fx_arena_open(NULL, TAKE, &a));
    const fx_memory after = fx_memory_read();
    T_CHECK(before.rss_bytes > 0 && before.file_bytes > 0 && before.file_bytes <= before.rss_bytes,
            "rss %zu file %zu", before.rss_bytes, before.file_bytes);
    T_CHECK(after.rss_bytes >= before.rss_bytes + TAKE - (4 << 20), "an open arena is resident: %zu -> %zu",
            before.rss_bytes, after.rss_bytes);
    T_CHECK(after.peak_bytes >= after.rss_bytes, "peak");
    fx_arena_close(&a);
}

/* ---- results kept between runs ---- */

static bool cached(const char *key, const char *want)
{
    void *data = NULL;
    size_t bytes = 0;
    const bool found = fx_cache_read("test", key, strlen(key), &data, &bytes);
    const bool equal = found && bytes == strlen(want) && !memcmp(data, want, bytes + 1);
    free(data);
    return equal;
}

static int entries(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    for (const struct dirent *e; d && (e = readdir(d));) n += e->d_name[0] != '.';
    if (d) closedir(d);
    return n;
}

static void t_cache(void)
{
    char dir[4096], deep[4200], file[4400], text[300] = "";
    snprintf(dir, sizeof dir, "%s/fx_cache.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    T_CHECK(mkdtemp(dir) != NULL, "mkdtemp");
    snprintf(deep, sizeof deep, "%s/a/b", dir);
    T_CHECK(!setenv("FLUXPAR_CACHE", deep, 1), "setenv");
    T_CHECK(!cached("key", "value"), "found before it was written");
    fx_cache_write("test", "key", 3, "value", 5);
    fx_cache_write("test", "other", 5, "", 0);
    T_CHECK(cached("key", "value") && cached("other", "") && !cached("ke", "value"),
            "what was written is not read");
    fx_cache_write("test", "key", 3, "later value", 11);
    T_CHECK(cached("key", "later value") && entries(deep) == 2, "%d files", entries(deep));

    /* a changed byte anywhere, a cut, and more bytes than the header says */
    snprintf(file, sizeof file, "find %s -name 'test-*' -size +50c", deep);
    FILE *list = popen(file, "r");
    T_CHECK(list && fgets(file, 300, list), "the file of 'key' is not there");
    if (list) pclose(list);
    file[strcspn(file, "\n")] = 0;
    FILE *f = fopen(file, "r");
    const size_t size = f ? fread(text, 1, sizeof text, f) : 0;
    if (f) fclose(f);
    T_CHECK(size == 40 + 3 + 11, "%zu bytes", size);
    for (size_t i = 0; i < size; i++) {
        text[i] ^= 4;
        f = fopen(file, "w");
        if (f) fwrite(text, 1, size, f), fclose(f);
        T_CHECK(!cached("key", "later value"), "byte %zu changed and nobody minds", i);
        text[i] ^= 4;
    }
    f = fopen(file, "w");
    if (f) fwrite(text, 1, size - 1, f), fclose(f);
    T_CHECK(!cached("key", "later value"), "a cut file is read");
    fx_cache_write("test", "key", 3, "again", 5);
    T_CHECK(cached("key", "again"), "a spoilt file is not replaced");

    /* no folder can be made, and none is wanted */
    T_CHECK(!setenv("FLUXPAR_CACHE", "/dev/null/x", 1), "setenv");
    fx_cache_write("test", "key", 3, "value", 5);
    T_CHECK(!cached("key", "value"), "/dev/null/x keeps things");
    T_CHECK(!setenv("FLUXPAR_CACHE", "", 1), "setenv");
    fx_cache_write("test", "key", 3, "value", 5);
    T_CHECK(!cached("key", "value"), "no folder keeps things");
    unsetenv("FLUXPAR_CACHE");
    T_CHECK(!setenv("XDG_CACHE_HOME", dir, 1), "setenv");
    fx_cache_write("test", "key", 3, "value", 5);
    snprintf(deep, sizeof deep, "%s/fluxpar", dir);
    T_CHECK(cached("key", "value") && entries(deep) == 1, "not in XDG_CACHE_HOME");
    unsetenv("XDG_CACHE_HOME");
    snprintf(file, sizeof file, "rm -rf '%s'", dir);
    T_CHECK(system(file) == 0, "rm");
}

int main(void)
{
    t_cache();
    t_status();
    t_log();
    t_views();
    t_half();
    t_bf16();
    t_convert();
    t_arena();
    t_arena_memory();
    t_clock();
    t_exit_codes(); /* last: it sets the stop flag */
    return test_end("t_core");
}
