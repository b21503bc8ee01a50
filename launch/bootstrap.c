/* Start and end of a run on all ranks; see bootstrap.h. Order at start: comm, size check against the
 * launcher, the node's board, vote on the arguments, comparison of version and arguments. Nothing here knows
 * about models. */
#include "launch/bootstrap.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "launch/signals.h"
#include "launch/talk.h"
#include "runtime/core/clock.h"

/* One page per node, in memory its ranks share: who prints the error, and who is alive. */
enum { BOARD_RANKS = 1024 };
typedef struct board {
    uint64_t mark; /* of node_share.c */
    int claim;     /* words of this page are shared between processes: atomic access only */
    struct {
        int pid, rank, leaving; /* leaving: this rank ends by itself (a signal, an error) */
    } local[BOARD_RANKS];
} board;

static void put_word(int *word, int value)
{
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}
static int get_word(const int *word)
{
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

/* ---- start ---- */

static double process_age(void)
{
    char text[1024], *at;
    unsigned long long ticks = 0;
    struct timespec now;
    FILE *file = fopen("/proc/self/stat", "r");
    const size_t n = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file) fclose(file);
    text[n] = 0;
    at = strrchr(text, ')'); /* field 2 may contain blanks; starttime is field 22 */
    for (int field = 2; at && field < 22; field++) at = strchr(at + 1, ' ');
    if (!at || sscanf(at, " %llu", &ticks) != 1 || clock_gettime(CLOCK_BOOTTIME, &now)) return 0;
    const double age =
        (double)now.tv_sec + 1e-9 * (double)now.tv_nsec - (double)ticks / (double)sysconf(_SC_CLK_TCK);
    return age > 0 ? age : 0;
}

double fx_run_age(const fx_run *s)
{
    return s->age_s + fx_now_s() - s->start_s;
}

/* libgomp reads its settings when it is loaded, so they can only be changed by starting over (3 ms). Its
 * default is to spin for about a millisecond between parallel regions. Measured on 2 cores, demo image, 2
 * threads: alone 0.2 to 0.3 s either way; beside other work 0.2 s passive, 7 to 13 s spinning, because a
 * spinning thread holds the core its peer needs. */
static void wait_passively(char *const argv[], const fx_options *o)
{
    char path[4096];
    const fx_command_row *cmd = fx_command_of(o->command);
    if (!cmd || !cmd->ranks || o->help || o->threads == 1) return;
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") || getenv("KMP_BLOCKTIME")) return;
    const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0 || setenv("OMP_WAIT_POLICY", "passive", 1)) return;
    path[n] = 0;
    execv(path, argv); /* where this fails the run goes on as it is */
}

void fx_run_prepare(char *const argv[], const fx_options *o, fx_run *s)
{
    *s = (fx_run){.ranks = 1, .launched = 1, .nodes = 1, .culprit = -1, .start_s = fx_now_s()};
    s->age_s = process_age();
    if (!fx_comm_launched(&s->launched, &s->rank)) s->launched = 1, s->rank = 0;
    wait_passively(argv, o);
    fx_talk_open(s->rank, s->launched, "cpu", o->quiet, o->verbose);
    fx_signals_install();
}

/* MPI was not wired to the launcher: every process believes to be rank 0. The launcher's first one speaks,
 * and the others leave after it, because the launcher may end all when one leaves. */
static fx_status not_wired(fx_run *s, fx_status st)
{
    if (st == FX_EINVAL && s->rank != 0) {
        fx_talk_claim();
        usleep(500000);
    }
    return st;
}

static fx_status check_size(fx_run *s)
{
    if (s->launched <= 1 || s->ranks == s->launched) return FX_OK;
    return not_wired(
        s,
        FX_FAIL(FX_EINVAL,
                "MPI started %d rank but the launcher started %d tasks; MPI was not wired to it; use 'srun "
                "--mpi=pmix' ('srun --mpi=list' shows what exists) or 'mpirun -np %d'",
                s->ranks, s->launched, s->launched));
}

static fx_status open_board(fx_run *s)
{
    void *page = NULL;
    FX_TRY(fx_node_share_open(s->comm, &s->share));
    FX_TRY(s->share.alloc(s->share.ctx, sizeof(board), &page));
    s->board = page;
    board *b = page;
    if (s->share.local_rank < BOARD_RANKS) {
        put_word(&b->local[s->share.local_rank].rank, s->rank);
        put_word(&b->local[s->share.local_rank].pid, (int)getpid());
        fx_signals_leaving(&b->local[s->share.local_rank].leaving);
    }
    FX_TRY(s->share.barrier(s->share.ctx, FX_OK));
    fx_talk_share(&b->claim);
    return FX_OK;
}

/* ---- agreement ---- */

typedef struct card {
    char version[32], host[64];
    uint64_t arguments;
} card;

/* All flag values one after the other, each closed by a zero byte. */
static char *argument_list(const fx_options *o, size_t *size)
{
    char *list = NULL;
    FILE *to = open_memstream(&list, size);
    if (!to) return NULL;
    for (int i = 0; i < fx_flag_count; i++) {
        char number[64];
        fputs(o->given >> i & 1 ? fx_flag_text(o, &fx_flags[i], number, sizeof number) : "", to);
        fputc(0, to);
    }
    return fclose(to) ? NULL : list;
}

static uint64_t fnv(const char *bytes, size_t n)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001b3u;
    return hash;
}

/* Names the first flag in which this rank differs from rank 0. Collective. */
static fx_status name_difference(fx_run *s, const char *mine, size_t mine_size)
{
    uint64_t size = mine_size;
    FX_TRY(fx_comm_broadcast(s->comm, 0, &size, sizeof size));
    char *first = calloc(1, size + 1);
    fx_status st = fx_run_vote(s, first ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory to compare the arguments"));
    if (!first || st != FX_OK) {
        free(first);
        return st;
    }
    if (s->rank == 0) memcpy(first, mine, size);
    st = fx_comm_broadcast(s->comm, 0, first, size);
    const char *a = mine, *b = first;
    for (int i = 0; st == FX_OK && i < fx_flag_count; i++, a += strlen(a) + 1, b += strlen(b) + 1)
        if (strcmp(a, b))
            st = FX_FAIL(FX_EINVAL,
                         "this rank has --%s '%.100s' and rank 0 has '%.100s'; all ranks need the same "
                         "arguments; start them with one command line",
                         fx_flags[i].name, a, b);
    free(first);
    return st;
}

static fx_status compare(fx_run *s, const card *cards, const char *mine, size_t size)
{
    bool equal = true;
    const card *own = &cards[s->rank];
    for (int r = 0; r < s->ranks; r++) equal &= cards[r].arguments == cards[0].arguments;
    fx_status st = FX_OK;
    if (strcmp(own->version, cards[0].version))
        st = FX_FAIL(FX_EINVAL,
                     "this rank runs fluxpar %s and rank 0 (%s) runs %s; all ranks need the same version; "
                     "install one on all nodes",
                     own->version, cards[0].host, cards[0].version);
    FX_TRY(fx_run_vote(s, st));
    return equal ? FX_OK : fx_run_vote(s, name_difference(s, mine, size));
}

static fx_status agree(fx_run *s, const fx_options *o)
{
    size_t size = 0;
    const size_t n = (size_t)s->ranks;
    card own = {.version = FX_VERSION};
    char *list = argument_list(o, &size);
    card *cards = calloc(n, sizeof *cards);
    size_t *bytes = calloc(2 * n, sizeof *bytes);
    fx_status st = list && cards && bytes ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory to compare the arguments");
    st = fx_run_vote(s, st);
    if (!list || !cards || !bytes || st != FX_OK) goto out;
    snprintf(own.host, sizeof own.host, "%s", fx_talk_host());
    own.arguments = fnv(list, size);
    for (size_t r = 0; r < n; r++) {
        bytes[r] = sizeof own;
        bytes[n + r] = r * sizeof own;
    }
    FX_TRY_OUT(fx_comm_all_gather(s->comm, &own, cards, bytes, bytes + n));
    s->nodes = 1;
    for (size_t r = 1; r < n; r++) {
        bool seen = false;
        for (size_t q = 0; q < r; q++) seen |= !strcmp(cards[q].host, cards[r].host);
        s->nodes += !seen;
    }
    st = compare(s, cards, list, size);
out:
    free(list);
    free(cards);
    free(bytes);
    return st;
}

fx_status fx_run_open(fx_run *s, const fx_options *o, fx_status parsed)
{
    if (parsed != FX_OK && s->launched <= 1) return parsed;
    char message[2048]; /* of the parser; the calls below may fail and overwrite it */
    snprintf(message, sizeof message, "%s", fx_error());
    fx_talk_phase("start of MPI");
    const fx_status opened = fx_comm_open("auto", o->timeout, &s->comm);
    if (opened != FX_OK) return not_wired(s, opened);
    fx_signals_install();
    s->ranks = fx_comm_size(s->comm);
    FX_TRY(check_size(s));
    s->rank = fx_comm_rank(s->comm);
    fx_talk_open(s->rank, s->ranks, "cpu", o->quiet, o->verbose);
    fx_comm_set_phase(s->comm, "start");
    if (s->ranks > 1) FX_TRY(fx_run_vote(s, open_board(s)));
    if (parsed != FX_OK) parsed = FX_FAIL(parsed, "%s", message);
    FX_TRY(fx_run_vote(s, parsed));
    return s->ranks > 1 ? agree(s, o) : FX_OK;
}

/* ---- votes and the end ---- */

fx_status fx_run_vote(fx_run *s, fx_status mine)
{
    const fx_status st = fx_comm_vote(s->comm, mine, &s->culprit);
    if (st == FX_OK) s->culprit = -1;
    return st;
}

/* mpirun answers the death of one rank with SIGTERM for the others: then the dead one is the news, not the
 * signal. */
static fx_status name_the_dead(const fx_run *s, fx_status st)
{
    board *b = s->board;
    if (st != FX_ESIGNAL || !b) return st;
    for (int i = 0; i < s->share.local_size && i < BOARD_RANKS; i++) {
        const int pid = get_word(&b->local[i].pid);
        if (!pid || get_word(&b->local[i].leaving) || i == s->share.local_rank || !kill(pid, 0)) continue;
        return FX_FAIL(FX_ECOMM,
                       "rank %d (process %d) is gone, noticed during %s; it was killed or it crashed; see "
                       "its messages, or the kernel log for lack of memory",
                       get_word(&b->local[i].rank), pid, fx_talk_phase_now());
    }
    return st;
}

/* After a vote inside a library call only the failing rank has its own message; find out which one that is.
 */
static void find_culprit(fx_run *s)
{
    int64_t rank = strstr(fx_error_where(), "share_message") ? INT64_MAX : s->rank;
    if (s->culprit >= 0 || s->ranks == 1) return;
    if (fx_comm_all_reduce_i64(s->comm, FX_MIN, &rank, 1) == FX_OK && rank < s->ranks) s->culprit = (int)rank;
}

/* A signal or a lost peer: nothing collective works any more, so nothing is closed. */
static void leave(fx_run *s, fx_status st, int code)
{
    fx_signals_deadline(1.0, code); /* MPI itself may hang now */
    s->lost = true;
    if (st == FX_ESIGNAL)
        fx_signals_print();
    else
        fx_talk_error(st, -1, fx_error());
    /* mpirun ends the others by itself when one leaves, a second faster than after MPI_Abort; srun may not.
     */
    const bool watched = st == FX_ESIGNAL && getenv("OMPI_COMM_WORLD_SIZE");
    if (s->comm && s->ranks > 1 && !watched) fx_comm_abort(s->comm, code);
}

static void print_failure(fx_run *s, fx_status st)
{
    char message[2048];
    snprintf(message, sizeof message, "%s", fx_error());
    if (s->comm) find_culprit(s);
    if (s->rank == (s->culprit >= 0 ? s->culprit : 0) || !s->board) fx_talk_error(st, -1, message);
    /* Printed before anybody leaves: a launcher may end all ranks when one does. The first one may leave
     * while others are still in the barrier, and the launcher's SIGTERM reaches them there. */
    fx_signals_over(fx_exit_code(st));
    if (s->comm && s->ranks > 1 && fx_comm_barrier(s->comm) != FX_OK)
        fx_comm_abort(s->comm, fx_exit_code(st));
}

int fx_run_end(fx_run *s, fx_status st)
{
    board *b = s->board;
    st = name_the_dead(s, st);
    if (b && s->share.local_rank < BOARD_RANKS) put_word(&b->local[s->share.local_rank].leaving, 1);
    const int code = fx_exit_code(st);
    if (st == FX_ECOMM || st == FX_ESIGNAL) {
        leave(s, st, code);
        return code;
    }
    if (st != FX_OK) print_failure(s, st);
    fx_signals_over(code);
    fx_talk_mute();
    fx_signals_leaving(NULL);
    if (s->share.release && b) s->share.release(s->share.ctx, b, sizeof *b);
    if (s->share.ctx) fx_node_share_close(&s->share);
    if (s->comm) fx_comm_finish(&s->comm);
    return code;
}
