/* The pixels of a PNG, compressed by several threads; private to runtime/io. Rows are filtered (Paeth) and deflated in strips
 * that do not know of each other; all strips one behind the other are one zlib stream. How rows are cut depends on the width
 * alone, so the bytes do not depend on the number of threads. Source: RFC 1950, RFC 1951; zlib's manual, Z_SYNC_FLUSH. */
#ifndef FX_IO_PNG_PIXELS_H
#define FX_IO_PNG_PIXELS_H

#include "runtime/core/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Takes the next part of the stream; false ends the work. */
typedef bool (*fx_png_part)(void *ctx, const uint8_t *bytes, size_t count);

/* rgb [height, width, 3]. Parts come in order, on the calling thread. Memory: 500 KiB for each thread, at most 64 of them.
 * FX_ENOMEM; FX_EWRITE when part() said so. */
fx_status fx_png_pixels(const uint8_t *rgb, int width, int height, int threads, fx_png_part part, void *ctx);

#endif
