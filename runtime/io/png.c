/* Pictures out: the pixels of the VAE and the texts that say how they were made become one PNG. Settings of
 * the encoder are fixed and no time is stored, so equal pixels and texts give equal bytes. libpng writes what is before the
 * pixels; these are compressed by all threads (png_pixels.c), which libpng cannot. png_read.c is the way back in. */
#include "runtime/io/png.h"

#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "runtime/io/output.h"
#include "runtime/io/png_pixels.h"

/* What one write needs; lives outside the frame that setjmp returns to. */
typedef struct png_job {
    const char *path;
    const uint8_t *rgb;
    int width, height, texts, threads, fd, error;
    const fx_png_text *text;
    png_text *chunks;
    char message[200];
} png_job;

static void on_error(png_structp png, png_const_charp text)
{
    png_job *job = png_get_error_ptr(png);
    snprintf(job->message, sizeof job->message, "%s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

static bool put(png_job *job, const uint8_t *data, size_t n)
{
    while (n > 0) {
        const ssize_t wrote = write(job->fd, data, n);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) {
            job->error = wrote < 0 ? errno : ENOSPC;
            return false;
        }
        data += wrote;
        n -= (size_t)wrote;
    }
    return true;
}

static void write_bytes(png_structp png, png_bytep data, size_t n)
{
    if (!put(png_get_io_ptr(png), data, n)) png_error(png, "write");
}

static void set_u32(uint8_t out[4], uLong value)
{
    for (int i = 0; i < 4; i++) out[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* Length, kind, data, check sum of kind and data. */
static bool put_chunk(png_job *job, const char *kind, const uint8_t *data, size_t n)
{
    uint8_t head[8], tail[4];
    set_u32(head, (uLong)n);
    memcpy(head + 4, kind, 4);
    set_u32(tail, crc32_z(crc32_z(0, head + 4, 4), data ? data : head, n));
    return put(job, head, sizeof head) && put(job, data, n) && put(job, tail, sizeof tail);
}

static bool put_pixels(void *ctx, const uint8_t *bytes, size_t n)
{
    return put_chunk(ctx, "IDAT", bytes, n);
}

static void flush_bytes(png_structp png)
{
    (void)png;
}

static bool is_ascii(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s >= 0x80) return false;
    return true;
}

/* Uncompressed: small, and readable with any tool. */
static void set_texts(png_structp png, png_infop info, png_job *job)
{
    static char none[] = "";
    for (int i = 0; i < job->texts; i++) {
        const bool ascii = is_ascii(job->text[i].value);
        png_text *t = &job->chunks[i];
        t->compression = ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
        t->key = (char *)job->text[i].key; /* libpng copies both and counts their bytes */
        t->text = (char *)job->text[i].value;
        t->lang = t->lang_key = none;
    }
    png_set_text(png, info, job->chunks, job->texts);
}

static fx_status encode_failed(const png_job *job)
{
    if (job->error)
        return FX_FAIL(FX_EWRITE, "cannot write %s; %s; free some space or choose another folder with -o",
                       job->path, strerror(job->error));
    return FX_FAIL(FX_EWRITE, "cannot write %s; PNG encoder: %s", job->path, job->message);
}

/* Everything before the pixels. */
static fx_status begin(png_job *job)
{
    png_infop info = NULL;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, job, on_error, on_warning);
    if (png) info = png_create_info_struct(png);
    if (!info) {
        png_destroy_write_struct(&png, NULL);
        return FX_FAIL(FX_ENOMEM, "no memory to write %s", job->path);
    }
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        return encode_failed(job);
    }
    png_set_write_fn(png, job, write_bytes, flush_bytes);
    png_set_IHDR(png, info, (png_uint_32)job->width, (png_uint_32)job->height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    set_texts(png, info, job);
    png_write_info(png, info);
    png_destroy_write_struct(&png, &info);
    return FX_OK;
}

static fx_status encode(png_job *job)
{
    FX_TRY(begin(job));
    const fx_status st = fx_png_pixels(job->rgb, job->width, job->height, job->threads, put_pixels, job);
    if (st == FX_EWRITE || (!st && !put_chunk(job, "IEND", NULL, 0))) return encode_failed(job);
    return st;
}

fx_status fx_png_write(const char *path, const uint8_t *rgb, int width, int height, int texts,
                       const fx_png_text text[], bool overwrite, int threads)
{
    png_job job = {path, rgb, width, height, texts, threads, -1, 0, text, NULL, ""};
    FX_CHECK(width > 0 && height > 0, FX_EINVAL, "%s: a picture of %d x %d pixels", path, width, height);
    FX_TRY(fx_output_check(path, overwrite));
    job.chunks = calloc((size_t)texts + 1, sizeof *job.chunks);
    FX_CHECK(job.chunks, FX_ENOMEM, "no memory to write %s", path);
    fx_status st = fx_output_begin(path, &job.fd);
    if (st == FX_OK) {
        st = encode(&job);
        if (st == FX_OK)
            st = fx_output_commit(path, job.fd, overwrite);
        else
            fx_output_abort(job.fd);
    }
    free(job.chunks);
    return st;
}

fx_status fx_png_check_output(const char *path, bool overwrite)
{
    return fx_output_check(path, overwrite);
}

void fx_png_cleanup(void)
{
    fx_output_cleanup();
}
