/* Pictures of several strips (runtime/io/png_pixels.h): any number of threads writes the same file, which holds the pixels and is
 * hardly larger than libpng's. Part of t_png. */
#include "tests/png/strips.h"

#include <png.h>

#include "runtime/io/png.h"
#include "tests/test.h"

static size_t slurp(const char *path, char *buf, size_t size)
{
    FILE *f = fopen(path, "rb");
    const size_t n = f ? fread(buf, 1, size, f) : 0;
    if (f) fclose(f);
    return n;
}

/* What libpng itself makes of these pixels, with one filter for all rows and the same strategy. */
static size_t plain_size(const char *path, const uint8_t *rgb, int w, int h)
{
    FILE *f = fopen(path, "wb");
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_init_io(png, f);
    png_set_compression_level(png, 1);
    png_set_compression_strategy(png, 3); /* Z_RLE */
    png_set_filter(png, PNG_FILTER_TYPE_BASE, PNG_FILTER_PAETH);
    png_set_IHDR(png, info, (png_uint_32)w, (png_uint_32)h, 8, PNG_COLOR_TYPE_RGB, 0, 0, 0);
    png_write_info(png, info);
    for (int y = 0; y < h; y++) png_write_row(png, rgb + (size_t)y * (size_t)w * 3);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    const long n = ftell(f);
    fclose(f);
    remove(path);
    return (size_t)n;
}

/* A pattern that comes back after `period` rows, a slope and noise. */
static void paint(uint8_t *rgb, int w, int h, int period, unsigned noise)
{
    uint32_t state = 7;
    for (int y = 0; y < h; y++)
        for (int i = 0; i < 3 * w; i++) {
            state = state * 1664525u + 1013904223u;
            rgb[(size_t)y * (size_t)w * 3 + (size_t)i] =
                (uint8_t)(((unsigned)i * (unsigned)i >> 3) * (unsigned)(y % period) + (state >> 16) % noise);
        }
}

/* One picture with some numbers of threads: the same file, the same pixels, hardly larger than from one stream. */
static void strips(const char *path, int w, int h, int period, unsigned noise)
{
    static const int threads[] = {1, 2, 3, 7, 64, 1000};
    const size_t bytes = (size_t)w * (size_t)h * 3, room = bytes + bytes / 64 + 65536;
    uint8_t *rgb = malloc(bytes), *back = NULL;
    char *first = malloc(room), *other = malloc(room);
    size_t n = 0;
    paint(rgb, w, h, period, noise);
    for (int t = 0; t < 6; t++) {
        T_OK(fx_png_write(path, rgb, w, h, 0, NULL, true, threads[t]));
        const size_t m = slurp(path, t ? other : first, room);
        if (t == 0) n = m;
        T_CHECK(m == n && memcmp(first, t ? other : first, n) == 0, "%dx%d: other bytes with %d threads", w,
                h, threads[t]);
    }
    int rw = 0, rh = 0;
    T_OK(fx_png_read(path, &rw, &rh, &back));
    T_CHECK(rw == w && rh == h && back && memcmp(back, rgb, bytes) == 0, "%dx%d: other pixels", w, h);
    const size_t plain = plain_size(path, rgb, w, h);
    T_CHECK(n <= plain + plain / 50 + 100, "%dx%d: %zu bytes, %zu from one stream", w, h, n, plain);
    free(rgb), free(back), free(first), free(other);
}

void check_strips(const char *path)
{
    const int line = 3 * 200 + 1, rows = ((3 << 15) + line - 1) / line; /* of a strip 200 pixels wide */
    strips(path, 200, rows, 5, 9);                                      /* exactly one, two, and a row more */
    strips(path, 200, 2 * rows, 5, 9);
    strips(path, 200, 2 * rows + 1, 30, 3);
    strips(path, 2, 32768, 7, 2);
    strips(path, 32768, 7, 3, 1); /* a row is longer than a strip */
    strips(path, 1024, 700, 40, 1);
    strips(path, 500, 333, 333, 256); /* noise: blocks that are only stored */
}
