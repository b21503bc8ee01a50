/* Results of a batch; see results.h. */
#include "launch/batch/results.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch/batch/lines.h"
#include "runtime/core/log.h"
#include "runtime/io/json.h"
#include "runtime/io/output.h"
#include "runtime/text/utf8.h"

#define START "{\"status\":" /* of every line that is written here */

struct fx_results {
    char *path;
    int fd;
    int64_t bytes; /* of the file: whole lines */
    json_t *made;  /* path -> key, of pictures with status ok */
    bool drawn;
    uint64_t number;
};

void fx_results_clean(char *text)
{
    const size_t n = strlen(text);
    size_t bad;
    while (!fx_utf8_valid(text, n, &bad)) text[bad] = '?';
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
}

/* ---- what is there ---- */

static fx_status foreign(const fx_results *r, const fx_line *line)
{
    return FX_FAIL(
        FX_EINVAL,
        "%s is no results file of fluxpar; line %lld is not one that it writes; give another name with "
        "--results",
        r->path, (long long)line->number);
}

/* What a killed writer, or a system that went down, left of a line. */
static bool is_rest(const fx_line *line)
{
    const size_t n = line->size < sizeof START - 1 ? line->size : sizeof START - 1;
    size_t zeros = 0;
    while (zeros < line->size && !line->text[zeros]) zeros++;
    return line->torn && (!memcmp(line->text, START, n) || zeros == line->size);
}

static void remember(fx_results *r, const json_t *row, const char *status)
{
    const char *path = json_string_value(json_object_get(row, "path"));
    const char *key = json_string_value(json_object_get(row, "key"));
    const json_t *seed = json_object_get(row, "seed");
    if (!strcmp(status, "ok") && path && key)
        json_object_set_new(r->made, path, json_string(key));
    else if (!strcmp(status, "drawn") && json_is_integer(seed) && !r->drawn) {
        r->drawn = true;
        r->number = (uint64_t)json_integer_value(seed);
    }
}

static fx_status read_row(fx_results *r, const fx_line *line, bool *end)
{
    json_t *row = line->kind == FX_LINE_TEXT ? fx_json_parse(line->text, line->size, NULL) : NULL;
    const char *status = json_string_value(json_object_get(row, "status"));
    fx_status st = FX_OK;
    *end = !status && line->kind == FX_LINE_TEXT && is_rest(line);
    if (*end) {
        fx_log(FX_LOG_NOTE, "%s: line %lld was not written to its end; it is removed", r->path,
               (long long)line->number);
    } else if (!status)
        st = foreign(r, line);
    else {
        remember(r, row, status);
        r->bytes = line->offset + (int64_t)line->size + !line->torn;
    }
    json_decref(row);
    return st;
}

static fx_status write_failed(const fx_results *r, const char *what)
{
    return FX_FAIL(FX_EWRITE,
                   "the results cannot be written to %s; %s: %s; choose another place with --results",
                   r->path, what, strerror(errno));
}

/* Reads all rows; the file then ends with a whole line. */
static fx_status read_rows(fx_results *r)
{
    fx_lines *lines = NULL;
    fx_line line = {0};
    bool torn = false, end = false;
    const int fd = open(r->path, O_RDONLY | O_CLOEXEC);
    FX_CHECK(fd >= 0, FX_EINVAL, "%s cannot be read; %s; give another name with --results", r->path,
             strerror(errno));
    fx_status st = fx_lines_open(fd, FX_RESULT_BYTES, &lines);
    while (!st && !end) {
        st = fx_lines_next(lines, 1, &line);
        if (st || line.kind == FX_LINE_END) break;
        if (line.kind == FX_LINE_LATER) continue;
        torn = line.torn;
        st = read_row(r, &line, &end);
    }
    fx_lines_close(&lines);
    FX_TRY(st);
    if (ftruncate(r->fd, (off_t)r->bytes)) return write_failed(r, "shorten");
    if (!torn || end) return FX_OK;
    if (write(r->fd, "\n", 1) != 1) return write_failed(r, "write"); /* a whole row that lacks its end */
    r->bytes++;
    return FX_OK;
}

/* ---- opening ---- */

/* So that the file itself outlives a system that goes down. */
static void sync_folder(const char *path)
{
    char dir[4096];
    const char *slash = strrchr(path, '/');
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    (void)fsync(fd);
    close(fd);
}

static fx_status open_file(fx_results *r, bool resume, bool force)
{
    struct stat info;
    r->fd = open(r->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
    if (r->fd < 0) return write_failed(r, "open");
    FX_CHECK(!fstat(r->fd, &info) && S_ISREG(info.st_mode), FX_EINVAL,
             "--results %s is not a file; what is in it must be synced and read again; give a file name",
             r->path);
    /* Where the file system knows no locks there is none. */
    FX_CHECK(!flock(r->fd, LOCK_EX | LOCK_NB) || errno != EWOULDBLOCK, FX_EINVAL,
             "%s is in use; another run of this batch writes it; wait for its end or stop it", r->path);
    FX_CHECK(!info.st_size || resume || force, FX_EINVAL,
             "%s exists; it says what an earlier run has made; --resume goes on from there, -f begins anew",
             r->path);
    if (info.st_size && !resume && ftruncate(r->fd, 0)) return write_failed(r, "empty");
    sync_folder(r->path);
    return resume ? read_rows(r) : FX_OK;
}

fx_status fx_results_open(const char *path, bool resume, bool force, fx_results **out)
{
    fx_results *r = *out = calloc(1, sizeof *r);
    if (r) *r = (fx_results){.path = strdup(path), .fd = -1, .made = json_object()};
    fx_status st =
        r && r->path && r->made ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for the results of the batch");
    if (!st) st = open_file(r, resume, force);
    if (st) fx_results_close(out);
    return st;
}

void fx_results_close(fx_results **results)
{
    fx_results *r = *results;
    if (!r) return;
    if (r->fd >= 0) close(r->fd);
    free(r->path);
    json_decref(r->made);
    free(r);
    *results = NULL;
}

/* ---- rows ---- */

bool fx_results_has(const fx_results *r, const char *path, const char *key)
{
    const char *made = json_string_value(json_object_get(r->made, path));
    return made && !strcmp(made, key);
}

fx_status fx_results_add(fx_results *r, json_t *row)
{
    char *text = row ? json_dumps(row, JSON_COMPACT | JSON_REAL_PRECISION(10)) : NULL;
    json_decref(row);
    FX_CHECK(text, FX_ENOMEM, "no memory for a result");
    const size_t n = strlen(text);
    text[n] = '\n'; /* in place of the zero byte: one write */
    const ssize_t done = write(r->fd, text, n + 1);
    free(text);
    if (done != (ssize_t)n + 1) {
        const int error = done < 0 ? errno : ENOSPC;
        if (done > 0) (void)!ftruncate(r->fd, (off_t)r->bytes);
        errno = error;
        return write_failed(r, "write");
    }
    r->bytes += (int64_t)n + 1;
    if (fsync(r->fd) && errno != EINVAL && errno != ENOTSUP) return write_failed(r, "sync");
    return FX_OK;
}

fx_status fx_results_drawn(fx_results *r, uint64_t *out)
{
    uint32_t number = 0;
    if (!r->drawn) {
        FX_CHECK(getrandom(&number, sizeof number, 0) == sizeof number, FX_EDEVICE,
                 "the system gives no random number; %s; give a seed with -S", strerror(errno));
        FX_TRY(fx_results_add(r, json_pack("{s:s, s:I}", "status", "drawn", "seed", (json_int_t)number)));
        r->drawn = true;
        r->number = number;
    }
    *out = r->number;
    return FX_OK;
}
