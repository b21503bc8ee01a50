/* What the fuzz targets share. Each tests/fuzz/fuzz_NAME.c is one libFuzzer program (FX_FUZZ=ON); the same
 * files are also linked into t_fuzz_replay, which feeds them the committed inputs in every run of the
 * tests. */
#ifndef FX_FUZZ_H
#define FX_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define FUZZ_TARGETS(X) X(safetensors) X(config) X(clip_files) X(t5_files) X(prompt) X(png) X(jobs) X(machine)

#ifdef FUZZ_REPLAY
#define FUZZ_DECLARE(name) int fuzz_##name(const uint8_t *data, size_t size);
FUZZ_TARGETS(FUZZ_DECLARE)
#define FUZZ_TARGET(name) int fuzz_##name(const uint8_t *data, size_t size)
#else
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
#define FUZZ_TARGET(name) int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
#endif

/* A property that must hold for every input. */
#define FUZZ_EXPECT(ok)                                                                                      \
    do {                                                                                                     \
        if (!(ok)) {                                                                                         \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #ok);                           \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

enum { FUZZ_PARTS = 6 };

/* A folder of this process in memory (tmpfs where there is one), made at the first call, removed at exit. */
const char *fuzz_folder(void);
/* folder/name; valid until the next call. */
const char *fuzz_path(const char *name);
void fuzz_make_folder(const char *name);
void fuzz_write(const char *name, const void *data, size_t size);
void fuzz_remove(const char *name);

/* One part of an input; data NULL: the input has no such part. */
typedef struct fuzz_part {
    const uint8_t *data;
    size_t size;
} fuzz_part;
/* An input of several files: "\n%%D\n" begins part D, a digit below FUZZ_PARTS; what comes before the first
 * such line is part 0. Text, so that corpora can be read and mutations keep the frame. */
void fuzz_split(const uint8_t *data, size_t size, fuzz_part parts[FUZZ_PARTS]);
/* Writes part i as name[i], or removes that file when the part is absent. */
void fuzz_write_parts(const uint8_t *data, size_t size, int count, const char *const name[]);

#endif
