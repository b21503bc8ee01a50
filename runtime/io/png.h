/* Pictures out and in: RGB8 PNG through libpng, written to a temporary name, synced and renamed. */
#ifndef FX_IO_PNG_H
#define FX_IO_PNG_H

#include "runtime/core/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_png_text {
    const char *key, *value; /* UTF-8; iTXt is used when value is not Latin-1 ASCII, else tEXt */
} fx_png_text;

/* FX_EWRITE names path and errno text; the temporary file is removed on every failure. The bytes depend on
 * pixels and texts alone (no time, not of threads). overwrite false: FX_EINVAL when path exists, checked again at rename (no
 * race). */
fx_status fx_png_write(const char *path, const uint8_t *rgb, int width, int height, int texts,
                       const fx_png_text[], bool overwrite, int threads);
/* Checks before work starts that `path` can be created there: directory exists and is writable, not an
 * existing file (unless overwrite), not a directory. */
fx_status fx_png_check_output(const char *path, bool overwrite);
/* Removes this process's temporary file, if one exists (signal and failure paths). Async-signal-safe. */
void fx_png_cleanup(void);

/* Reads the text chunks of a PNG (bounded); callback per chunk. Also returns size. */
fx_status fx_png_read_text(const char *path, int *width, int *height,
                           void (*text)(void *ctx, const char *key, const char *value), void *ctx);
/* Reads pixels as RGB8 (alpha dropped onto nothing, 16 bit reduced); *rgb is malloc'ed. */
fx_status fx_png_read(const char *path, int *width, int *height, uint8_t **rgb);

#ifdef __cplusplus
}
#endif
#endif
