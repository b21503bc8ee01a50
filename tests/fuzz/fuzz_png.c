/* A PNG file given to the reader of texts and, when its header asks for few pixels, to the reader of
 * pixels. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "runtime/io/png.h"

enum { MAX_PIXELS = 1 << 18 };

static void on_text(void *ctx, const char *key, const char *value)
{
    *(size_t *)ctx += strlen(key) + strlen(value);
}

FUZZ_TARGET(png)
{
    static const char name[] = "in.png";
    int width = 0, height = 0;
    size_t bytes = 0;
    uint8_t *rgb = NULL;
    fuzz_write(name, data, size);
    if (fx_png_read_text(fuzz_path(name), &width, &height, on_text, &bytes) == FX_OK)
        FUZZ_EXPECT(width > 0 && height > 0);
    if ((int64_t)width * height > MAX_PIXELS) return 0;
    if (fx_png_read(fuzz_path(name), &width, &height, &rgb) == FX_OK) {
        volatile uint8_t last = rgb[(size_t)width * (size_t)height * 3 - 1];
        (void)last;
    }
    free(rgb);
    return 0;
}
