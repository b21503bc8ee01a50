/* Tiny test helper. A test program prints one line per failed check and "NAME: N passed, N failed, N skipped" last;
 * exit 0 all passed, 1 something failed, 77 everything skipped. */
#ifndef FX_TEST_H
#define FX_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Weak: a program of several files has one set of counters. */
__attribute__((weak)) int test_passed, test_failed, test_skipped;

/* Counts one check; on failure prints where and the message. */
#define T_CHECK(ok, ...)                                                                                     \
    do {                                                                                                     \
        if (ok)                                                                                              \
            test_passed++;                                                                                   \
        else {                                                                                               \
            test_failed++;                                                                                   \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #ok);                                                  \
            printf(__VA_ARGS__);                                                                             \
            printf("\n");                                                                                    \
        }                                                                                                    \
    } while (0)
#define T_SKIP(...)                                                                                          \
    do {                                                                                                     \
        test_skipped++;                                                                                      \
        printf("skipped: ");                                                                                 \
        printf(__VA_ARGS__);                                                                                 \
        printf("\n");                                                                                        \
    } while (0)
/* A library call that must succeed. */
#define T_OK(call) T_CHECK((call) == FX_OK, "%s", fx_error())

static inline int test_end(const char *name)
{
    printf("%s: %d passed, %d failed, %d skipped\n", name, test_passed, test_failed, test_skipped);
    if (test_failed) return 1;
    return test_passed || !test_skipped ? 0 : 77;
}

#endif
