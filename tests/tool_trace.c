/* tool_trace [--exchanges N] [--double N] [--single N] < TRACE: reads what `fluxpar plan --trace` printed and looks for what must
 * not be there. Each finding is a line on the standard output, the last line counts them; exit 1 when there is one, 2 when the
 * text is no trace. N: exchanges per block (not given: those of the first), launches per double and per single block on every
 * rank (not given: any, as ranks without rows have fewer).
 *
 * - form: ranks 0, 1, ... with lines numbered from 1; streams and kinds that belong together; a buffer of its bytes per transfer
 * - buffers: between a transfer's line and the wait for its ticket nothing writes what it sends, nothing touches what it receives
 *   (ops, their scratch, other transfers); every ticket is waited for once, in its box
 * - exchanges: in a block, times at which the first transfer begins with none under way; what is under way together has one name
 *   up to its first dot
 * - rows by kernels (`store`, and `wait` for a peer instead of a ticket): what a wait brings is touched by nothing since the last
 *   `give_back`, which told the others that it is free
 * - rows by copy engines (`store` on the stream `wire`): from its line to the wait without ticket and peer, in its box, nothing
 *   writes what it reads
 * - host: the host waits in the box `watch` only
 * - pairs: the sends from a to b are the receives of b from a, in order, in bytes and in name; in each box the stores of a for b
 *   are the bytes that b waits for
 * - end: the ranks, each waiting until all transfers of the ticket have begun on both sides, come to their last lines */
#include "tests/trace_lines.h"

enum { PENDING = 1 << 16, RANKS = 1024, BOXES = 512 };

static line *lines;
static int count, room, ranks, findings;
static int first[RANKS + 1]; /* line of a rank */

static void found(const line *l, const char *what, const char *with)
{
    findings++;
    if (findings <= 40) printf("rank %d line %d: %s%s\n", l->rank, l->number, what, with);
}

/* ---- reading ---- */

static bool read_all(FILE *from)
{
    char *text = NULL;
    size_t size = 0;
    bool ok = true;
    while (ok && getline(&text, &size, from) > 0) {
        if (*text == '#') continue;
        if (count == room) {
            room = room ? 2 * room : 1 << 16;
            lines = realloc(lines, (size_t)room * sizeof *lines);
            if (!lines) abort();
        }
        ok = read_line(text, &lines[count]);
        if (!ok) printf("no line of a trace: %s", text);
        count += ok;
    }
    free(text);
    return ok && count > 0;
}

/* ---- form ---- */

static void check_line(const line *l)
{
    const char *stream = moves(l) || copies(l) ? "wire" : is(l, "host") ? "host" : "compute";
    const bool known = moves(l) || is(l, "launch") || is(l, "wait") || is(l, "host") || is(l, "store");
    if (!known || strcmp(l->stream, stream)) found(l, "form: stream and kind do not belong together", "");
    const bool tells = !strcmp(l->what, "put") || !strcmp(l->what, "pack") ||
                       !strcmp(l->what, "give_back"); /* also without rows */
    if (is(l, "launch") && !tells && (!l->ranges || !l->range[0].write))
        found(l, "form: a launch that writes nothing", "");
    if ((moves(l) || (is(l, "wait") && l->peer < 0 && !joins(l))) != (l->ticket > 0))
        found(l, "form: ticket", "");
    if (!moves(l) && !is(l, "store") && !waits_for_stores(l)) return;
    if (l->peer < 0 || l->peer >= ranks || l->peer == l->rank) found(l, "form: peer", "");
    if (copies(l)) {
        unsigned long long read = 0;
        for (int i = 0; i < l->ranges; i++) read += l->range[i].end - l->range[i].begin;
        if (read != l->bytes) found(l, "form: buffers of a copy", "");
    }
    if (!moves(l)) return;
    if (l->ranges != 1 || l->range[0].end - l->range[0].begin != l->bytes ||
        l->range[0].write != is(l, "recv"))
        found(l, "form: buffer of a transfer", "");
}

static bool split_ranks(void)
{
    for (int i = 0; i < count; i++) {
        const bool next = i == 0 || lines[i].rank != lines[i - 1].rank;
        if (next && (lines[i].rank != ranks || ranks == RANKS)) return false;
        if (next) first[ranks++] = i;
        if (lines[i].number != i - first[ranks - 1] + 1) found(&lines[i], "form: number", "");
    }
    first[ranks] = count;
    for (int i = 0; i < count; i++) check_line(&lines[i]);
    return true;
}

/* ---- buffers and exchanges of one rank ---- */

static const line *pending[PENDING];
static int under_way, transfers; /* all, and those among them with a ticket */

static bool overlap(range a, range b)
{
    return a.begin < b.end && b.begin < a.end;
}

static void check_buffers(const line *l)
{
    char with[96];
    for (int i = 0; i < l->ranges; i++)
        for (int p = 0; p < under_way; p++)
            for (int k = 0; k < pending[p]->ranges; k++) {
                const range busy = pending[p]->range[k];
                if (!overlap(l->range[i], busy) || !(l->range[i].write || busy.write)) continue;
                snprintf(with, sizeof with, "%s with the %s of line %d, %s", l->what, pending[p]->kind,
                         pending[p]->number, pending[p]->what);
                found(l, "buffers: overlap of ", with);
            }
}

/* Of a ticket, or (-1) all copies. */
static void finish_ticket(const line *l)
{
    int left = 0;
    for (int p = 0; p < under_way; p++)
        if (pending[p]->ticket != l->ticket) pending[left++] = pending[p];
    if (left == under_way) found(l, "buffers: a wait for nothing under way: ", l->what);
    if (!joins(l)) transfers -= under_way - left;
    under_way = left;
}

/* What peers store has been free since this rank's last give_back, or since the beginning. */
static void check_stored(int i)
{
    char with[96];
    for (int k = i - 1; k >= first[lines[i].rank]; k--) {
        const line *l = &lines[k];
        if (is(l, "launch") && !strcmp(l->what, "give_back")) return;
        if (!is(l, "launch") && !moves(l)) continue;
        for (int a = 0; a < l->ranges; a++)
            for (int b = 0; b < lines[i].ranges; b++) {
                if (!overlap(l->range[a], lines[i].range[b])) continue;
                snprintf(with, sizeof with, "%s of line %d with what rank %d stores", l->what, l->number,
                         lines[i].peer);
                found(&lines[i], "buffers: overlap of ", with);
            }
    }
}

static bool same_head(const char *a, const char *b)
{
    const size_t n = strcspn(a, ".");
    return n == strcspn(b, ".") && !strncmp(a, b, n);
}

static void keep(const line *l)
{
    if (under_way == PENDING) exit(2);
    pending[under_way++] = l;
}

/* Begins; returns whether it is the first of an exchange. */
static bool begin_transfer(const line *l)
{
    const bool alone = !transfers++;
    if (!alone && !same_head(pending[0]->what, l->what))
        found(l, "exchanges: begins while another is under way: ", l->what);
    keep(l);
    return alone;
}

/* ---- boxes ---- */

typedef struct box {
    char name[24];
    int launches, exchanges;
    const line *last; /* wait for stores */
} box;
static box first_rank[BOXES], this_rank[BOXES];
static int blocks; /* of all ranks */
static int want_exchanges = -1, want_double = -1, want_single = -1;

static bool is_block(const char *name)
{
    return !strncmp(name, "double_", 7) || !strncmp(name, "single_", 7);
}

static void close_box(const line *l, const box *b)
{
    char with[96];
    const int want = b->name[0] == 'd' ? want_double : want_single;
    if (under_way) found(l, "buffers: not waited for at the end of ", b->name);
    under_way = transfers = 0;
    if (!is_block(b->name)) {
        if (b->exchanges) found(l, "exchanges: outside of a block, in ", b->name);
        return;
    }
    blocks++;
    if (want_exchanges < 0) want_exchanges = b->exchanges;
    snprintf(with, sizeof with, "%d in %s, want %d", b->exchanges, b->name, want_exchanges);
    if (b->exchanges != want_exchanges) found(l, "exchanges: ", with);
    snprintf(with, sizeof with, "%d in %s, want %d", b->launches, b->name, want);
    if (want >= 0 && b->launches != want) found(l, "launches: ", with);
}

/* Walks the lines of a rank; returns the number of boxes. */
static int walk_rank(int rank, box *all)
{
    int n = 0;
    under_way = transfers = 0;
    for (int i = first[rank]; i < first[rank + 1]; i++) {
        const line *l = &lines[i];
        if (!n || strcmp(all[n - 1].name, l->box)) {
            if (n) close_box(l - 1, &all[n - 1]);
            if (n == BOXES) exit(2);
            all[n] = (box){0};
            memcpy(all[n++].name, l->box, sizeof l->box);
        }
        check_buffers(l);
        all[n - 1].launches += is(l, "launch");
        if (moves(l)) all[n - 1].exchanges += begin_transfer(l);
        if (copies(l)) keep(l);
        if (is(l, "wait") && l->peer < 0) finish_ticket(l);
        if (waits_for_stores(l)) {
            const line *last = all[n - 1].last;
            all[n - 1].exchanges += !last || !same_head(last->what, l->what);
            all[n - 1].last = l;
            check_stored(i);
        }
        if (is(l, "host") && strcmp(l->box, "watch")) found(l, "host: waits in ", l->box);
    }
    close_box(&lines[first[rank + 1] - 1], &all[n - 1]);
    return n;
}

static void walk_ranks(void)
{
    const int n = walk_rank(0, first_rank);
    for (int r = 1; r < ranks; r++) {
        bool same = walk_rank(r, this_rank) == n;
        for (int b = 0; same && b < n; b++)
            same = !strcmp(first_rank[b].name, this_rank[b].name) &&
                   first_rank[b].launches == this_rank[b].launches;
        if (!same && want_double >= 0) found(&lines[first[r]], "launches: not those of rank 0", "");
    }
}

/* ---- between ranks ---- */

static int next_between(const char *kind, int i, int end, int peer)
{
    while (i < end && (lines[i].peer != peer || strcmp(lines[i].kind, kind))) i++;
    return i;
}

static void check_pair(int from, int to)
{
    int s = first[from], r = first[to];
    for (;;) {
        s = next_between("send", s, first[from + 1], to);
        r = next_between("recv", r, first[to + 1], from);
        const bool more_s = s < first[from + 1], more_r = r < first[to + 1];
        if (!more_s && !more_r) return;
        if (more_s != more_r || lines[s].bytes != lines[r].bytes || strcmp(lines[s].what, lines[r].what) ||
            strcmp(lines[s].box, lines[r].box)) {
            found(more_s ? &lines[s] : &lines[r],
                  "pairs: a send without its receive, or the reverse: ", lines[more_s ? s : r].what);
            return;
        }
        lines[s].other = r;
        lines[r++].other = s++;
    }
}

/* Bytes that move in the box of line i under the same head: stores of `from` for `to`, or what `to` waits for from it. */
static unsigned long long bytes_of(int rank, int peer, const char *kind, const line *like)
{
    unsigned long long sum = 0;
    for (int i = first[rank]; i < first[rank + 1]; i++)
        if (lines[i].peer == peer && is(&lines[i], kind) && !strcmp(lines[i].box, like->box) &&
            same_head(lines[i].what, like->what))
            sum += lines[i].bytes;
    return sum;
}

static void check_stores(void)
{
    for (int i = 0; i < count; i++) {
        const line *l = &lines[i];
        const bool store = is(l, "store");
        if (!store && !waits_for_stores(l)) continue;
        if (bytes_of(store ? l->rank : l->peer, store ? l->peer : l->rank, "store", l) !=
            bytes_of(store ? l->peer : l->rank, store ? l->rank : l->peer, "wait", l))
            found(l, "pairs: stores are not what is waited for: ", l->what);
    }
}

/* The last store of the peer for what line i waits for has begun; there is one. */
static bool stores_have_begun(int i)
{
    const line *l = &lines[i];
    for (int k = first[l->peer + 1] - 1; k >= first[l->peer]; k--)
        if (lines[k].peer == l->rank && is(&lines[k], "store") && !strcmp(lines[k].box, l->box) &&
            same_head(lines[k].what, l->what))
            return lines[k].begun;
    return false;
}

/* All transfers of the ticket that line i waits for have begun on both sides. */
static bool may_go_on(int i)
{
    if (waits_for_stores(&lines[i])) return stores_have_begun(i);
    int t = i - 1;
    while (t >= first[lines[i].rank] && lines[t].ticket != lines[i].ticket) t--;
    for (; t >= first[lines[i].rank] && lines[t].ticket == lines[i].ticket && moves(&lines[t]); t--)
        if (lines[t].other >= 0 && !lines[lines[t].other].begun) return false;
    return true;
}

static void check_end(void)
{
    static int at[RANKS];
    bool moved = true;
    for (int r = 0; r < ranks; r++) at[r] = first[r];
    while (moved) {
        moved = false;
        for (int r = 0; r < ranks; r++)
            for (; at[r] < first[r + 1] && (!is(&lines[at[r]], "wait") || may_go_on(at[r])); at[r]++)
                lines[at[r]].begun = moved = true;
    }
    for (int r = 0; r < ranks; r++)
        if (at[r] < first[r + 1]) found(&lines[at[r]], "end: waits for ever for ", lines[at[r]].what);
}

int main(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        int *to = !strcmp(argv[i], "--exchanges") ? &want_exchanges
                  : !strcmp(argv[i], "--double")  ? &want_double
                                                  : &want_single;
        *to = atoi(argv[i + 1]);
    }
    if (!read_all(stdin) || !split_ranks()) {
        printf("trace: not one\n");
        return 2;
    }
    walk_ranks();
    for (int a = 0; a < ranks; a++)
        for (int b = 0; b < ranks; b++)
            if (a != b) check_pair(a, b);
    check_stores();
    check_end();
    printf("trace: %d ranks, %d blocks, %d lines, %d exchanges per block; %d findings\n", ranks, blocks,
           count, want_exchanges, findings);
    free(lines);
    return findings ? 1 : 0;
}
