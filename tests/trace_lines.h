/* A line of `fluxpar plan --trace` as tests/tool_trace.c reads it, and what kinds of lines there are. */
#ifndef FX_TESTS_TRACE_LINES_H
#define FX_TESTS_TRACE_LINES_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANGES = 23 };

typedef struct range {
    bool write;
    unsigned long long begin, end;
} range;

typedef struct line {
    int rank, number, peer, ticket, ranges;
    int other; /* line of the other side of a transfer, or -1 */
    bool begun;
    unsigned long long bytes;
    char stream[12], kind[12], box[24], what[32];
    range range[RANGES]; /* without weights */
} line;

static inline bool is(const line *l, const char *kind)
{
    return !strcmp(l->kind, kind);
}
static inline bool moves(const line *l)
{
    return is(l, "send") || is(l, "recv");
}
/* A store by a copy engine. */
static inline bool copies(const line *l)
{
    return is(l, "store") && !strcmp(l->stream, "wire");
}
/* For this rank's copies. */
static inline bool joins(const line *l)
{
    return is(l, "wait") && l->peer < 0 && l->ticket < 0;
}
static inline bool waits_for_stores(const line *l)
{
    return is(l, "wait") && l->peer >= 0;
}

static inline int number_or_dash(const char *text)
{
    return *text == '-' ? -1 : atoi(text);
}

static inline bool read_ranges(line *l, char *text)
{
    char *next = NULL;
    for (char *w = strtok_r(text, " \n", &next); w; w = strtok_r(NULL, " \n", &next)) {
        unsigned long long at, length;
        char way;
        if (!strcmp(w, "-") || sscanf(w, "r:weights+%llu", &length) == 1) continue;
        if (l->ranges == RANGES || sscanf(w, "%c:%llu+%llu", &way, &at, &length) != 3 || !strchr("rw", way))
            return false;
        l->range[l->ranges++] = (range){way == 'w', at, at + length};
    }
    return true;
}

static inline bool read_line(char *text, line *l)
{
    char peer[12], ticket[12];
    int used = 0;
    *l = (line){.other = -1};
    const int n = sscanf(text, "%d %d %11s %11s %23s %31s %11s %11s %llu %*s%n", &l->rank, &l->number,
                         l->stream, l->kind, l->box, l->what, peer, ticket, &l->bytes, &used);
    if (n != 9 || !used) return false;
    l->peer = number_or_dash(peer);
    l->ticket = number_or_dash(ticket);
    return read_ranges(l, text + used);
}

#endif
