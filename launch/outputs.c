/* Output names and checks; see outputs.h. */
#include "launch/outputs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch/report.h"
#include "runtime/io/png.h"

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

static fx_status check_name(const char *name)
{
    static const char *const others[] = {".jpg", ".jpeg", ".webp", ".gif",  ".bmp",
                                         ".tif", ".tiff", ".ppm",  ".avif", ".jxl"};
    FX_CHECK(strcmp(name, "-"), FX_EINVAL,
             "-o - is not possible; a picture is written to a file so that it is never half there; give a "
             "name ending in .png");
    FX_CHECK(strlen(name) < FX_OUTPUTS_MAX - 32, FX_EINVAL,
             "the output name has %zu characters; at most %d are possible; give a shorter one", strlen(name),
             FX_OUTPUTS_MAX - 32);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        FX_CHECK(strcasecmp(ending(name), others[i]), FX_EINVAL,
                 "-o %s asks for %s; only PNG is written; give a name ending in .png", name, others[i]);
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
    if (o->output) FX_TRY(check_name(o->output));
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
