/* Files that a test breaks: a scratch folder of its own, removed at the end, and the essential words of
 * messages. */
#ifndef FX_TEST_SCRATCH_H
#define FX_TEST_SCRATCH_H

#include <ftw.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/core/status.h"

static char scratch[512];

static inline int scratch_remove_one(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline void scratch_remove(const char *path)
{
    nftw(path, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline bool scratch_open(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(scratch, sizeof scratch, "%s/fx_test_XXXXXX", base && strlen(base) < 400 ? base : "/tmp");
    return mkdtemp(scratch) != NULL;
}

static inline void scratch_close(void)
{
    scratch_remove(scratch);
}

/* scratch/<name>; a few results stay valid at a time. */
__attribute__((format(printf, 1, 2))) static inline const char *in_scratch(const char *fmt, ...)
{
    static char paths[8][1024];
    static int next;
    char *path = paths[next++ % 8];
    const int n = snprintf(path, sizeof paths[0], "%s/", scratch);
    va_list args;
    va_start(args, fmt);
    vsnprintf(path + n, sizeof paths[0] - (size_t)n, fmt, args);
    va_end(args);
    return path;
}

static inline void put_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n) printf("cannot write %s\n", path);
    if (f) fclose(f);
}

static inline void put_text(const char *path, const char *text)
{
    put_file(path, text, strlen(text));
}

/* The status and every word of a NULL-terminated list must be in the last message. */
#define T_REFUSED(call, code, ...)                                                                           \
    do {                                                                                                     \
        const fx_status got_ = (call);                                                                       \
        const char *const words_[] = {__VA_ARGS__};                                                          \
        T_CHECK(got_ == (code), "got %s: %s", fx_status_name(got_), fx_error());                             \
        for (size_t w_ = 0; w_ < sizeof words_ / sizeof *words_; w_++)                                       \
            T_CHECK(strstr(fx_error(), words_[w_]), "no \"%s\" in: %s", words_[w_], fx_error());             \
    } while (0)

#endif
