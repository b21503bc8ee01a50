/* Output names and checks; see outputs.h. */
#include "launch/outputs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch/report.h"
#include "runtime/io/png.h"
#include "runtime/text/utf8.h"

static const char *ending(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && !strchr(dot, '/') && dot != name ? dot : name + strlen(name);
}

void fx_outputs_name(const fx_options *o, uint64_t seed, char out[FX_OUTPUTS_MAX])
{
    const unsigned long long n = seed;
    if (!o->output)
        snprintf(out, FX_OUTPUTS_MAX, "fluxpar-%llu.png", n);
    else if (o->count == 1)
        snprintf(out, FX_OUTPUTS_MAX, "%s", o->output);
    else
        snprintf(out, FX_OUTPUTS_MAX, "%.*s-%llu%s", (int)(ending(o->output) - o->output), o->output, n,
                 ending(o->output));
}

fx_status fx_outputs_job_name(const char *name, int64_t images, uint64_t seed, char out[FX_OUTPUTS_MAX])
{
    int n = snprintf(out, FX_OUTPUTS_MAX, "%s", name);
    if (images > 1)
        n = snprintf(out, FX_OUTPUTS_MAX, "%.*s-%llu%s", (int)(ending(name) - name), name,
                     (unsigned long long)seed, ending(name));
    FX_CHECK(n < FX_OUTPUTS_MAX, FX_EINVAL, "the output name is too long; shorten it");
    return FX_OK;
}

/* The number that the word in braces at text stands for; false: no such word. */
static bool placeholder(const char *text, const uint64_t value[3], uint64_t *out)
{
    static const char *const word[3] = {"{line}", "{image}", "{seed}"};
    for (int i = 0; i < 3; i++) {
        if (strncmp(text, word[i], strlen(word[i]))) continue;
        *out = value[i];
        return true;
    }
    return false;
}

fx_status fx_outputs_batch_name(const char *pattern, int64_t line, int64_t image, int64_t images,
                                uint64_t seed, char out[FX_OUTPUTS_MAX])
{
    const uint64_t value[3] = {(uint64_t)line, (uint64_t)image, seed};
    size_t at = 0;
    char name[FX_OUTPUTS_MAX];
    if (!strchr(pattern, '{')) {
        snprintf(name, sizeof name, "%.*s-%lld%s", (int)(ending(pattern) - pattern), pattern, (long long)line,
                 ending(pattern));
        return fx_outputs_job_name(name, images, seed, out);
    }
    for (const char *c = pattern; *c; c++) {
        uint64_t number;
        const bool word = *c == '{' && placeholder(c, value, &number);
        at += (size_t)(word ? snprintf(out + at, FX_OUTPUTS_MAX - at, "%llu", (unsigned long long)number)
                            : snprintf(out + at, FX_OUTPUTS_MAX - at, "%c", *c));
        FX_CHECK(at < FX_OUTPUTS_MAX, FX_EINVAL, "the output name is too long; shorten it");
        if (word) c = strchr(c, '}');
    }
    return FX_OK;
}

fx_status fx_outputs_check_name(const char *what, const char *name)
{
    static const char *const others[] = {".jpg", ".jpeg", ".webp", ".gif",  ".bmp",
                                         ".tif", ".tiff", ".ppm",  ".avif", ".jxl"};
    FX_CHECK(strcmp(name, "-"), FX_EINVAL,
             "%s - is not possible; a picture is written to a file so that it is never half there; give a "
             "name ending in .png",
             what);
    FX_CHECK(strlen(name) < FX_OUTPUTS_MAX - 32, FX_EINVAL,
             "the output name has %zu characters; at most %d are possible; give a shorter one", strlen(name),
             FX_OUTPUTS_MAX - 32);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        FX_CHECK(strcasecmp(ending(name), others[i]), FX_EINVAL,
                 "%s %s asks for %s; only PNG is written; give a name ending in .png", what, name, others[i]);
    return FX_OK;
}

static fx_status check_dump(const char *dir)
{
    struct stat info;
    if (mkdir(dir, 0777) && errno != EEXIST)
        return FX_FAIL(FX_EWRITE, "dump folder %s cannot be made; %s; give another with --dump", dir,
                       strerror(errno));
    FX_CHECK(!stat(dir, &info) && S_ISDIR(info.st_mode), FX_EINVAL,
             "--dump %s is not a folder; the tensors are many files; give a folder", dir);
    FX_CHECK(!access(dir, W_OK | X_OK), FX_EWRITE,
             "dump folder %s is not writable; %s; give another with --dump", dir, strerror(errno));
    return FX_OK;
}

fx_status fx_outputs_check(const fx_options *o)
{
    char path[FX_OUTPUTS_MAX];
    if (o->output) FX_TRY(fx_outputs_check_name("-o", o->output));
    for (int64_t i = 0; i < o->count; i++) {
        fx_outputs_name(o, o->seed + (uint64_t)i, path);
        FX_TRY(fx_png_check_output(path, o->force));
        FX_CHECK(!o->report || strcmp(path, o->report), FX_EINVAL,
                 "--report %s is the picture's own name; one would destroy the other; give another name",
                 path);
    }
    if (o->report) FX_TRY(fx_report_check(o->report, o->force));
    return o->dump ? check_dump(o->dump) : FX_OK;
}

void fx_outputs_real_name(const char *path, char out[FX_OUTPUTS_MAX])
{
    char folder[FX_OUTPUTS_MAX];
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    char *real = realpath(folder, NULL);
    if (!real || snprintf(out, FX_OUTPUTS_MAX, "%s/%s", real, name) >= FX_OUTPUTS_MAX)
        snprintf(out, FX_OUTPUTS_MAX, "%s", path);
    free(real);
}

/* Braces that stand for nothing are a mistake, and JSON cannot hold names that are not UTF-8. */
static fx_status check_pattern(const char *pattern)
{
    const uint64_t none[3] = {0};
    uint64_t number;
    size_t bad;
    FX_TRY(fx_outputs_check_name("-o", pattern));
    FX_CHECK(fx_utf8_valid(pattern, strlen(pattern), &bad), FX_EINVAL,
             "-o is not UTF-8 at byte %zu; the results file of a batch holds text; give another name", bad);
    for (const char *c = strchr(pattern, '{'); c; c = strchr(c + 1, '{'))
        FX_CHECK(placeholder(c, none, &number), FX_EINVAL,
                 "-o %s: nothing is known for %.24s; a batch fills in {line}, {image} and {seed}; correct it",
                 pattern, c);
    return FX_OK;
}

fx_status fx_outputs_check_batch(const fx_options *o)
{
    if (o->output) FX_TRY(check_pattern(o->output));
    if (o->report) FX_TRY(fx_report_check(o->report, o->force));
    return o->dump ? check_dump(o->dump) : FX_OK;
}
