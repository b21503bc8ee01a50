/* JSON into a file; see json_file.h. */
#include "launch/json_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/io/output.h"

/* The file layer speaks of -o in its advice; here it is another flag. */
static fx_status of_flag(fx_status st, const char *flag)
{
    char text[1024], *advice;
    if (st == FX_OK) return st;
    snprintf(text, sizeof text, "%s", fx_error());
    advice = strrchr(text, ';');
    if (advice) *advice = 0;
    return FX_FAIL(st, "%s; choose another place with --%s", text, flag);
}

fx_status fx_json_check(const char *path, bool overwrite, const char *flag)
{
    return of_flag(fx_output_check(path, overwrite), flag);
}

fx_status fx_json_write(const json_t *root, const char *path, const char *flag)
{
    int fd;
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(10));
    FX_CHECK(text, FX_ENOMEM, "no memory for the JSON of --%s", flag);
    fx_status st = fx_output_begin(path, &fd);
    if (st == FX_OK && (dprintf(fd, "%s\n", text) != (int)strlen(text) + 1)) {
        st = FX_FAIL(FX_EWRITE, "cannot write %s; %s; ", path, strerror(errno));
        fx_output_abort(fd);
    } else if (st == FX_OK)
        st = fx_output_commit(path, fd, true);
    free(text);
    return of_flag(st, flag);
}
