/* `fluxpar version` and `fluxpar help`: no MPI start. Library versions are those that run, where they can
 * tell. */
#include <jansson.h>
#include <png.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>
#include <xxhash.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "kernels/ops.h"
#include "launch/place/bind.h"
#include "launch/commands.h"
#include "parallel/comm_nccl.h"

static void print_compiler(void)
{
#if defined(__clang__)
    printf("compiler        clang %d.%d.%d\n", __clang_major__, __clang_minor__, __clang_patchlevel__);
#elif defined(__GNUC__)
    printf("compiler        gcc %d.%d.%d\n", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#endif
}

static void print_backends(void)
{
    char list[128], *next = NULL;
    snprintf(list, sizeof list, "%s", fx_backend_list());
    for (char *name = strtok_r(list, " ", &next); name; name = strtok_r(NULL, " ", &next)) {
        fx_backend *be = NULL;
        const char *text =
            fx_backend_open(name, FX_F32, 1, &be) == FX_OK ? fx_backend_describe(be) : fx_error();
        printf("backend %-7s %s\n", name, text);
        fx_backend_close(&be);
    }
}

fx_status fx_cmd_version(fx_run *s, const fx_options *o)
{
    char pcre[64] = "?";
    (void)s;
    (void)o;
    pcre2_config(PCRE2_CONFIG_VERSION, pcre);
    pcre[strcspn(pcre, " ")] = 0;
    printf("fluxpar         %s\n", FX_VERSION);
    print_compiler();
    print_backends();
    if (fx_device_libraries()) {
        const int devices = fx_device_count();
        printf("backend cuda    %s, %s\n", fx_device_libraries(), fx_nccl_describe());
        if (devices > 0)
            printf("GPUs            %d usable\n", devices);
        else
            printf("GPUs            none: %s\n", fx_error());
    }
    printf("MPI             %s\n", fx_comm_describe());
    printf("hwloc           %s\n", fx_bind_describe());
    printf("jansson         %s\n", jansson_version_str());
    printf("libpng          %s\n", png_get_libpng_ver(NULL));
    printf("PCRE2           %s\n", pcre);
    printf("utf8proc        %s\n", utf8proc_version());
    printf("xxHash          %u.%u.%u\n", XXH_versionNumber() / 10000, XXH_versionNumber() / 100 % 100,
           XXH_versionNumber() % 100);
    return fx_results_written();
}

/* `help generate`, `generate --help`, or the program's own. */
fx_status fx_cmd_help(fx_run *s, const fx_options *o)
{
    unsigned bit = o->command;
    (void)s;
    if (bit == FX_CMD_HELP && o->path) {
        bit = 0;
        for (int i = 0; i < fx_command_row_count; i++)
            if (!strcmp(fx_command_rows[i].name, o->path)) bit = fx_command_rows[i].bit;
        FX_CHECK(bit, FX_EINVAL, "no help for %s; it is no subcommand; see 'fluxpar --help'", o->path);
    }
    fx_options_help(stdout, bit);
    return fx_results_written();
}
