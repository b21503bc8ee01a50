/* How far two pictures are apart: tool_pictures A.png B.png [LEAST]   prints the largest and the mean difference of their values
 * and the ratio of signal to noise (PSNR, dB; 99: equal). Exit 0; 1: less than LEAST dB, or of different sizes; 2: usage, no
 * picture. Run by tests/gpu/run.sh: a picture of a GPU beside the CPU's. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/io/png.h"

static double compare(const uint8_t *a, const uint8_t *b, size_t n)
{
    double sum = 0, squares = 0;
    int most = 0;
    for (size_t i = 0; i < n; i++) {
        const int d = abs(a[i] - b[i]);
        if (d > most) most = d;
        sum += d;
        squares += (double)d * d;
    }
    const double psnr = squares > 0 ? 10 * log10(255.0 * 255.0 * (double)n / squares) : 99;
    printf("differ by at most %d, %.3f in the mean, PSNR %.2f dB\n", most, sum / (double)n, psnr);
    return psnr;
}

int main(int argc, char **argv)
{
    int width[2] = {0, 0}, height[2] = {0, 0};
    uint8_t *rgb[2] = {NULL, NULL};
    int rc = argc < 3 || argc > 4 ? 2 : 0;
    if (rc) printf("usage: tool_pictures A.png B.png [LEAST]\n");
    for (int i = 0; !rc && i < 2; i++)
        if (fx_png_read(argv[i + 1], &width[i], &height[i], &rgb[i]) != FX_OK) {
            printf("%s\n", fx_error());
            rc = 2;
        }
    if (!rc && (width[0] != width[1] || height[0] != height[1])) {
        printf("%d x %d and %d x %d\n", width[0], height[0], width[1], height[1]);
        rc = 1;
    }
    if (!rc && compare(rgb[0], rgb[1], 3 * (size_t)width[0] * (size_t)height[0]) <
                   (argc > 3 ? strtod(argv[3], NULL) : 0))
        rc = 1;
    free(rgb[0]);
    free(rgb[1]);
    return rc;
}
