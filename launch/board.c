/* Who is alive on this node, and doing what; see board.h. The memory is anonymous and shared (node_share.h),
 * nothing is left behind. Each rank watches the others through pidfds, which also see a process that nobody
 * has waited for yet, and cannot be fooled by a pid used again. */
#include "launch/board.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "launch/signals.h"

enum { SEATS = 1024, LOOK_MS = 100 }; /* ranks of a node; between looks where the system has no pidfds */

typedef struct seat {
    int pid, rank;
    int leaving; /* ends by itself: a signal, an error, the normal end */
    fx_phase_slot phase;
} seat;

struct fx_board {
    uint64_t mark; /* of node_share.c */
    int claim;     /* of talk.h; words here are shared between processes: atomic access only */
    seat seats[SEATS];
};

/* What this process knows of the board; read by signal handlers. */
static struct {
    fx_board *board;
    int size, me; /* seats taken, this rank's */
    int fd[SEATS];
    int wake; /* eventfd that ends the watch, -1: no watch */
    pthread_t thread;
} own = {.wake = -1};

static void put_word(int *word, int value)
{
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}
static int get_word(const int *word)
{
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

/* ---- open and close ---- */

fx_status fx_board_open(fx_share *share, int rank, fx_board **out)
{
    void *memory = NULL;
    *out = NULL;
    FX_TRY(share->alloc(share->ctx, sizeof(fx_board), &memory));
    fx_board *b = memory;
    own.me = share->local_rank;
    if (own.me < SEATS) {
        seat *s = &b->seats[own.me];
        put_word(&s->rank, rank);
        put_word(&s->pid, (int)getpid());
        fx_signals_leaving(&s->leaving);
        fx_talk_phase_share(&s->phase);
    }
    fx_talk_share(&b->claim);
    *out = b;
    FX_TRY(share->barrier(share->ctx, FX_OK));
    own.size = share->local_size < SEATS ? share->local_size : SEATS;
    for (int i = 0; i < own.size; i++)
        own.fd[i] = i == own.me ? -1 : (int)syscall(SYS_pidfd_open, get_word(&b->seats[i].pid), 0);
    __atomic_store_n(&own.board, b, __ATOMIC_SEQ_CST);
    return FX_OK;
}

void fx_board_leave(fx_board *b)
{
    if (b && own.me < SEATS) put_word(&b->seats[own.me].leaving, 1);
}

static void end_watch(void)
{
    const uint64_t one = 1;
    if (own.wake < 0) return;
    if (write(own.wake, &one, sizeof one) == (ssize_t)sizeof one) pthread_join(own.thread, NULL);
    close(own.wake);
    own.wake = -1;
}

void fx_board_close(fx_share *share, fx_board **board)
{
    if (!*board) return;
    end_watch();
    __atomic_store_n(&own.board, NULL, __ATOMIC_SEQ_CST);
    for (int i = 0; i < own.size; i++)
        if (own.fd[i] >= 0) close(own.fd[i]);
    own.size = 0;
    fx_signals_leaving(NULL);
    fx_talk_phase_share(NULL);
    share->release(share->ctx, *board, sizeof **board);
    *board = NULL;
}

/* ---- who is gone ---- */

/* A pidfd becomes readable when its process has ended, waited for or not. */
static bool gone(const fx_board *b, int i)
{
    struct pollfd p = {.fd = own.fd[i], .events = POLLIN};
    const int pid = get_word(&b->seats[i].pid);
    if (i == own.me || !pid || get_word(&b->seats[i].leaving)) return false;
    if (own.fd[i] >= 0 ? poll(&p, 1, 0) <= 0 : !kill(pid, 0) || errno != ESRCH) return false;
    return !get_word(&b->seats[i].leaving); /* it may have said so between the two looks */
}

static size_t put(char *text, size_t at, size_t size, const char *more)
{
    while (*more && at + 1 < size) text[at++] = *more++;
    text[at] = 0;
    return at;
}

static size_t put_number(char *text, size_t at, size_t size, int number)
{
    char digits[16];
    int i = sizeof digits - 1;
    digits[i] = 0;
    do {
        digits[--i] = (char)('0' + number % 10);
        number /= 10;
    } while (number && i);
    return put(text, at, size, digits + i);
}

/* "rank 2 (process 4711) STATE 'denoise step 3'". Async-signal-safe. */
static void describe(const seat *s, const char *state, char *text, size_t size)
{
    char phase[FX_PHASE_CHARS];
    size_t at = put(text, 0, size, "rank ");
    at = put_number(text, at, size, get_word(&s->rank));
    at = put(text, at, size, " (process ");
    at = put_number(text, at, size, get_word(&s->pid));
    at = put(text, at, size, state);
    fx_talk_phase_of(&s->phase, phase);
    at = put(text, at, size, phase);
    put(text, at, size, "'");
}

bool fx_board_dead(char *text, size_t size)
{
    const fx_board *b = __atomic_load_n(&own.board, __ATOMIC_SEQ_CST);
    const int saved = errno;
    bool found = false;
    for (int i = 0; b && i < own.size && !found; i++) {
        found = gone(b, i);
        if (found) describe(&b->seats[i], ") is gone; it was in '", text, size);
    }
    errno = saved;
    return found;
}

/* Field 3 of /proc/PID/stat, after the name in brackets. */
static bool stopped(int pid)
{
    char path[64], line[512], *at;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "re");
    const size_t n = file ? fread(line, 1, sizeof line - 1, file) : 0;
    if (file) fclose(file);
    line[n] = 0;
    at = strrchr(line, ')');
    return at && (at[2] == 'T' || at[2] == 't');
}

bool fx_board_stopped(char *text, size_t size)
{
    const fx_board *b = own.board;
    for (int i = 0; b && i < own.size; i++) {
        const int pid = get_word(&b->seats[i].pid);
        if (i == own.me || !pid || !stopped(pid)) continue;
        describe(&b->seats[i], ") is stopped in '", text, size);
        return true;
    }
    return false;
}

/* ---- the watch ---- */

static bool any_gone(const fx_board *b)
{
    for (int i = 0; i < own.size; i++)
        if (gone(b, i)) return true;
    return false;
}

/* Until a peer is gone or the run ends. A peer that left by itself is no longer watched. */
static void *watch(void *arg)
{
    const fx_board *b = arg;
    struct pollfd list[SEATS + 1];
    for (;;) {
        int n = 1, blind = 0;
        list[0] = (struct pollfd){.fd = own.wake, .events = POLLIN};
        for (int i = 0; i < own.size; i++) {
            if (i == own.me || get_word(&b->seats[i].leaving)) continue;
            blind |= own.fd[i] < 0;
            list[n++] = (struct pollfd){.fd = own.fd[i], .events = POLLIN};
        }
        if (poll(list, (nfds_t)n, blind ? LOOK_MS : -1) < 0 && errno != EINTR) return NULL;
        if (list[0].revents) return NULL;
        if (any_gone(b)) {
            fx_signals_lost();
            return NULL;
        }
    }
}

fx_status fx_board_watch(fx_board *b)
{
    sigset_t all, before;
    if (own.size < 2) return FX_OK;
    own.wake = eventfd(0, EFD_CLOEXEC);
    FX_CHECK(own.wake >= 0, FX_EDEVICE, "no eventfd to watch the other ranks with; %s", strerror(errno));
    sigfillset(&all); /* signals belong to the threads that compute */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int code = pthread_create(&own.thread, NULL, watch, b);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!code) return FX_OK;
    close(own.wake);
    own.wake = -1;
    return FX_FAIL(FX_ENOMEM, "no thread to watch the other ranks with; %s", strerror(code));
}
