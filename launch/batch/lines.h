/* A file read line by line, with bounded memory and without waiting longer than told: jobs files and results files, which
 * may be a pipe, may hold anything, and may end in the middle of a line. */
#ifndef FX_LAUNCH_LINES_H
#define FX_LAUNCH_LINES_H

#include "runtime/core/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { FX_LINE_TEXT, FX_LINE_TOO_LONG, FX_LINE_LATER, FX_LINE_END } fx_line_kind;

typedef struct fx_line {
    fx_line_kind kind;
    char *text; /* TEXT: without its newline, a zero byte behind it; until the next call */
    size_t size;
    int64_t number, offset; /* from 1; bytes of the file before it */
    bool torn;              /* the file ended before the newline came */
} fx_line;

typedef struct fx_lines fx_lines;

/* Takes the descriptor (fx_lines_close closes it). A longer line is skipped. FX_ENOMEM. */
fx_status fx_lines_open(int fd, size_t longest, fx_lines **out);
/* LATER: nothing came within wait_s, or a signal did. FX_EINVAL: it cannot be read. */
fx_status fx_lines_next(fx_lines *, double wait_s, fx_line *out);
/* Newlines between here and the end of a regular file; 0 where that cannot be known. */
int64_t fx_lines_left(const fx_lines *);
void fx_lines_close(fx_lines **);

#endif
