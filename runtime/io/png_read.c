/* Pictures in: the texts of a PNG (`info`) and its pixels as RGB8 (image-to-image, tests). The file may be
 * anything, so sizes and chunks are bounded and every failure is one message. */
#include "runtime/io/png.h"

#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_SIDE = 32768, MAX_TEXTS = 1000, MAX_TEXT_BYTES = 8 << 20 };
enum { MAX_INFLATE = 1032 }; /* deflate makes at most so many bytes of one */

typedef struct read_job {
    const char *path;
    FILE *file;
    png_structp png;
    png_infop info, end;
    int64_t bytes; /* of the file */
    int width, height;
    bool want_pixels;
    uint8_t *rgb; /* NULL: texts only */
    png_bytep *rows;
    char message[200];
} read_job;

static void on_error(png_structp png, png_const_charp text)
{
    read_job *job = png_get_error_ptr(png);
    snprintf(job->message, sizeof job->message, "%s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

/* libpng takes memory for a chunk as long as its header says, and its own limit is only a warning (1.6.39):
 * lengths are checked here, before it sees them. Leaves the file behind the signature. */
static fx_status check_chunks(read_job *job)
{
    unsigned char head[8];
    struct stat info;
    FX_CHECK(fstat(fileno(job->file), &info) == 0 && S_ISREG(info.st_mode), FX_EINVAL, "%s is not a file",
             job->path);
    job->bytes = info.st_size;
    for (int64_t at = 8; job->bytes - at >= 8;) {
        FX_CHECK(fseeko(job->file, at, SEEK_SET) == 0 && fread(head, 1, 8, job->file) == 8, FX_EINVAL,
                 "cannot read %s", job->path);
        const int64_t n = png_get_uint_32(head);
        const bool optional = head[4] & 0x20;
        FX_CHECK(n <= job->bytes - at - 8 && (!optional || n <= MAX_TEXT_BYTES), FX_EINVAL,
                 "%s is a damaged PNG file; a chunk of %lld bytes at byte %lld, the file has %lld", job->path,
                 (long long)n, (long long)at, (long long)job->bytes);
        if (memcmp(head + 4, "IEND", 4) == 0) break;
        at += n + 12;
    }
    FX_CHECK(fseeko(job->file, 8, SEEK_SET) == 0, FX_EINVAL, "cannot read %s", job->path);
    return FX_OK;
}

static fx_status open_png(const char *path, read_job *job)
{
    unsigned char signature[8];
    job->path = path;
    job->file = fopen(path, "rbe");
    FX_CHECK(job->file, FX_EINVAL, "cannot open %s; %s", path, strerror(errno));
    const bool is_png = fread(signature, 1, 8, job->file) == 8 && png_sig_cmp(signature, 0, 8) == 0;
    FX_CHECK(is_png, FX_EINVAL, "%s is not a PNG file", path);
    FX_TRY(check_chunks(job));
    job->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, job, on_error, on_warning);
    if (job->png) job->info = png_create_info_struct(job->png);
    if (job->info) job->end = png_create_info_struct(job->png);
    FX_CHECK(job->end, FX_ENOMEM, "no memory to read %s", path);
    png_set_user_limits(job->png, MAX_SIDE, MAX_SIDE);
    png_set_chunk_cache_max(job->png, MAX_TEXTS);
    png_set_chunk_malloc_max(job->png, MAX_TEXT_BYTES);
    return FX_OK;
}

static void close_png(read_job *job)
{
    png_destroy_read_struct(&job->png, &job->info, &job->end); /* nothing where there is none */
    if (job->file) fclose(job->file);
    free(job->rows);
}

/* Any colour type and depth -> RGB8. */
static void as_rgb8(png_structp png)
{
    png_set_expand(png);
    png_set_scale_16(png);
    png_set_gray_to_rgb(png);
    png_set_strip_alpha(png);
}

static void take_rows(read_job *job)
{
    const size_t stride = (size_t)job->width * 3;
    job->rgb = malloc(stride * (size_t)job->height);
    job->rows = malloc((size_t)job->height * sizeof *job->rows);
    if (!job->rgb || !job->rows) png_error(job->png, "out of memory");
    if (png_get_rowbytes(job->png, job->info) != stride) png_error(job->png, "unsupported pixel format");
    for (int y = 0; y < job->height; y++) job->rows[y] = job->rgb + (size_t)y * stride;
    png_read_image(job->png, job->rows);
}

/* Decodes and forgets: texts may follow the pixels. */
static void skip_rows(read_job *job)
{
    const int passes = png_set_interlace_handling(job->png);
    png_read_update_info(job->png, job->info);
    for (int i = 0; i < passes * job->height; i++) png_read_row(job->png, NULL, NULL);
}

static fx_status decode(read_job *job)
{
    if (setjmp(png_jmpbuf(job->png))) {
        free(job->rgb);
        job->rgb = NULL;
        return FX_FAIL(FX_EINVAL, "%s is a damaged PNG file; %s", job->path, job->message);
    }
    png_init_io(job->png, job->file);
    png_set_sig_bytes(job->png, 8);
    png_read_info(job->png, job->info);
    job->width = (int)png_get_image_width(job->png, job->info);
    job->height = (int)png_get_image_height(job->png, job->info);
    if ((int64_t)png_get_rowbytes(job->png, job->info) * job->height / MAX_INFLATE > job->bytes)
        png_error(job->png, "more pixels than so small a file can hold");
    if (job->want_pixels) {
        as_rgb8(job->png);
        png_set_interlace_handling(job->png);
        png_read_update_info(job->png, job->info);
        take_rows(job);
    } else
        skip_rows(job);
    png_read_end(job->png, job->end);
    return FX_OK;
}

static fx_status read_png(const char *path, read_job *job)
{
    const fx_status st = open_png(path, job);
    return st == FX_OK ? decode(job) : st;
}

static void report_texts(read_job *job, png_infop info, void (*text)(void *, const char *, const char *),
                         void *ctx)
{
    png_textp list;
    const int n = png_get_text(job->png, info, &list, NULL);
    for (int i = 0; i < n; i++)
        text(ctx, list[i].key, list[i].text); /* libpng has both for every chunk, if only empty ones */
}

fx_status fx_png_read_text(const char *path, int *width, int *height,
                           void (*text)(void *ctx, const char *key, const char *value), void *ctx)
{
    read_job job = {0};
    const fx_status st = read_png(path, &job);
    if (st == FX_OK) {
        *width = job.width;
        *height = job.height;
        report_texts(&job, job.info, text, ctx);
        report_texts(&job, job.end, text, ctx);
    }
    close_png(&job);
    return st;
}

fx_status fx_png_read(const char *path, int *width, int *height, uint8_t **rgb)
{
    read_job job = {0};
    *rgb = NULL;
    job.want_pixels = true;
    const fx_status st = read_png(path, &job);
    if (st == FX_OK) {
        *width = job.width;
        *height = job.height;
        *rgb = job.rgb;
    }
    close_png(&job);
    return st;
}
