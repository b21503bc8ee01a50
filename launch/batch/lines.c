/* Bounded reading by lines; see lines.h. */
#include "launch/batch/lines.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct fx_lines {
    int fd;
    char *data; /* [longest + 2]: what was read and not given out is in begin..end */
    size_t longest, begin, end;
    int64_t number, offset;
    int64_t newlines; /* of a regular file, behind the lines given out */
    bool skipping;    /* within a line that is too long */
    bool over;
};

/* Counted once, so that the rest is known at any time; the file position comes back to the start. */
static int64_t count_newlines(int fd)
{
    struct stat info;
    char block[1 << 16];
    int64_t count = 0;
    off_t at = 0;
    if (fstat(fd, &info) || !S_ISREG(info.st_mode)) return 0;
    for (ssize_t n; (n = pread(fd, block, sizeof block, at)) > 0; at += n)
        for (const char *p = block; (p = memchr(p, '\n', (size_t)(block + n - p))); p++) count++;
    return count;
}

fx_status fx_lines_open(int fd, size_t longest, fx_lines **out)
{
    fx_lines *l = *out = calloc(1, sizeof *l);
    if (l) l->data = malloc(longest + 2);
    if (!l || !l->data) {
        free(l);
        *out = NULL;
        close(fd);
        return FX_FAIL(FX_ENOMEM, "no memory to read lines of %zu bytes", longest);
    }
    l->fd = fd;
    l->longest = longest;
    l->newlines = count_newlines(fd);
    return FX_OK;
}

int64_t fx_lines_left(const fx_lines *l)
{
    return l->newlines > 0 ? l->newlines : 0;
}

void fx_lines_close(fx_lines **lines)
{
    if (!*lines) return;
    close((*lines)->fd);
    free((*lines)->data);
    free(*lines);
    *lines = NULL;
}

/* The line in begin..begin + size, whose newline is there unless torn. */
static void give(fx_lines *l, size_t size, bool torn, fx_line *out)
{
    *out = (fx_line){.kind = l->skipping || size > l->longest ? FX_LINE_TOO_LONG : FX_LINE_TEXT,
                     .text = l->data + l->begin,
                     .size = size,
                     .number = ++l->number,
                     .offset = l->offset,
                     .torn = torn};
    l->data[l->begin + size] = 0;
    l->begin += size + !torn;
    l->offset += (int64_t)size + !torn;
    l->newlines -= !torn;
    l->skipping = false;
}

/* Room for more: what is left moves to the front; a line that fills all the room is dropped up to its newline. */
static void make_room(fx_lines *l)
{
    memmove(l->data, l->data + l->begin, l->end - l->begin);
    l->end -= l->begin;
    l->begin = 0;
    if (l->end <= l->longest) return;
    l->skipping = true;
    l->offset += (int64_t)l->end;
    l->end = 0;
}

/* Reads some; false: nothing came in time. */
static fx_status fill(fx_lines *l, double wait_s, bool *came)
{
    struct pollfd p = {.fd = l->fd, .events = POLLIN};
    *came = false;
    if (poll(&p, 1, wait_s > 0 ? (int)(wait_s * 1000) + 1 : 0) <= 0) return FX_OK;
    const ssize_t n = read(l->fd, l->data + l->end, l->longest + 1 - l->end);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return FX_OK;
    FX_CHECK(n >= 0, FX_EINVAL, "line %lld cannot be read; %s", (long long)l->number + 1, strerror(errno));
    *came = true;
    l->over = n == 0;
    l->end += (size_t)n;
    return FX_OK;
}

fx_status fx_lines_next(fx_lines *l, double wait_s, fx_line *out)
{
    size_t seen = 0; /* of begin..end, without a newline */
    *out = (fx_line){.kind = FX_LINE_END, .number = l->number, .offset = l->offset};
    for (;;) {
        const size_t have = l->end - l->begin;
        const char *at = l->data + l->begin,
                   *newline = have > seen ? memchr(at + seen, '\n', have - seen) : NULL;
        if (newline) {
            give(l, (size_t)(newline - at), false, out);
            return FX_OK;
        }
        if (l->over && (have || l->skipping)) give(l, have, true, out);
        if (l->over) return FX_OK;
        make_room(l);
        seen = l->end - l->begin;
        bool came;
        FX_TRY(fill(l, wait_s, &came));
        if (came) continue;
        out->kind = FX_LINE_LATER;
        return FX_OK;
    }
}
