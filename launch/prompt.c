/* The prompt; see prompt.h. A file loses the newline at its end and may hold one MiB; "-" is the standard
 * input, which mpirun and srun hand to rank 0. */
#include "launch/prompt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/text/utf8.h"

enum { PROMPT_FILE_MAX = 1 << 20 };

static fx_status read_stream(FILE *file, const char *name, char **out, uint64_t *length)
{
    char *text = malloc(PROMPT_FILE_MAX + 2);
    FX_CHECK(text, FX_ENOMEM, "no memory for the prompt file");
    size_t n = fread(text, 1, PROMPT_FILE_MAX + 1, file);
    *out = text;
    FX_CHECK(!ferror(file), FX_EINVAL, "--prompt-file %s cannot be read; %s; give a text file", name,
             strerror(errno));
    FX_CHECK(
        n <= PROMPT_FILE_MAX, FX_EINVAL,
        "--prompt-file %s is larger than 1 MiB; a prompt has at most a few hundred words; give another file",
        name);
    FX_CHECK(!memchr(text, 0, n), FX_EINVAL,
             "--prompt-file %s holds a zero byte; it is not a text file; give UTF-8 text", name);
    if (n && text[n - 1] == '\n') n--;
    if (n && text[n - 1] == '\r') n--;
    text[n] = 0;
    *length = n;
    return FX_OK;
}

static fx_status read_file(const char *name, char **out, uint64_t *length)
{
    const bool standard = !strcmp(name, "-");
    FILE *file = standard ? stdin : fopen(name, "r");
    FX_CHECK(file, FX_EINVAL, "--prompt-file %s cannot be opened; %s; correct the name", name,
             strerror(errno));
    const fx_status st = read_stream(file, name, out, length);
    if (!standard) fclose(file);
    return st;
}

static fx_status from_file(fx_run *s, const fx_options *o, char **out)
{
    uint64_t length = 0;
    FX_TRY(fx_run_vote(s, s->rank == 0 ? read_file(o->prompt_file, out, &length) : FX_OK));
    FX_TRY(fx_comm_broadcast(s->comm, 0, &length, sizeof length));
    if (s->rank != 0) *out = calloc(1, length + 1);
    FX_TRY(fx_run_vote(s, *out ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for the prompt")));
    return fx_comm_broadcast(s->comm, 0, *out, length + 1);
}

fx_status fx_prompt_get(fx_run *s, const fx_options *o, char **out)
{
    size_t length;
    *out = NULL;
    if (o->prompt_file)
        FX_TRY(from_file(s, o, out));
    else if (!(*out = strdup(o->prompt)))
        return FX_FAIL(FX_ENOMEM, "no memory for the prompt");
    return fx_run_vote(s, fx_prompt_check(*out, &length));
}
