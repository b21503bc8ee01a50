/* Signal handlers. They use async-signal-safe calls only: write, setitimer (a plain system call on Linux),
 * _exit.
 *
 * After the first stop signal the ranks leave their loops by themselves and one prints. A rank deep in one
 * long operation (a big matrix product) cannot: the deadline ends it. It is half the second that
 * mpirun leaves between SIGTERM and SIGKILL, so that the line is printed and the temporary file is gone in
 * time. A second signal ends at once.
 *
 * A rank that is gone shows as SIGTERM (mpirun ends the others) or through the watch (board.c): both come here,
 * and whoever prints first looks at the board, because then the dead one is the news and not the signal. */
#include "launch/signals.h"

#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "launch/board.h"
#include "launch/talk.h"
#include "runtime/core/status.h"
#include "runtime/io/png.h"

#define GRACE_S 0.5
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

enum { LOST_CODE = 5, LAST_MS = 3000 };

static volatile sig_atomic_t deadline_code = 4, over_code = -1, stopping, launcher;
static const char *volatile deadline_what;
static const char *volatile stop_advice = "'; the unfinished picture is not written; run it again";
static double grace_s; /* 0: signals do not ask */
static bool hurried;   /* SIGTERM is followed by SIGKILL */
static volatile sig_atomic_t asked;
static atomic_long asked_ms;
static int *_Atomic leaving;

void fx_signals_leaving(int *word)
{
    atomic_store(&leaving, word);
}

static size_t put(char *line, size_t at, size_t size, const char *text)
{
    while (*text && at < size) line[at++] = *text++;
    return at;
}

static const char *signal_text(int number)
{
    switch (number) {
    case SIGINT: return "SIGINT (Ctrl-C)";
    case SIGTERM: return "SIGTERM";
    case SIGHUP: return "SIGHUP";
    case SIGUSR1: return "SIGUSR1";
    case SIGSEGV: return "SIGSEGV (segmentation fault)";
    case SIGBUS: return "SIGBUS (a file that shrank, or no memory behind a page)";
    case SIGABRT: return "SIGABRT";
    case SIGFPE: return "SIGFPE";
    case SIGILL: return "SIGILL (an instruction this processor does not have)";
    }
    return "a signal";
}

/* The error line without stdio: prefix, WHAT " during " PHASE, advice. */
static void print_line(const char *before, const char *what, const char *after)
{
    char line[768];
    int length;
    const char *prefix = fx_talk_prefix(&length);
    if (!fx_talk_claim()) return;
    size_t at = put(line, 0, sizeof line - 1, prefix);
    at = put(line, at, sizeof line - 1, before);
    at = put(line, at, sizeof line - 1, what);
    at = put(line, at, sizeof line - 1, " during '");
    at = put(line, at, sizeof line - 1, fx_talk_phase_now());
    at = put(line, at, sizeof line - 1, after);
    line[at++] = '\n';
    if (write(STDERR_FILENO, line, at) < 0) return;
}

void fx_signals_deadline(double seconds, int exit_code, const char *what)
{
    struct itimerval timer = {
        .it_value = {(time_t)seconds, (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)}};
    deadline_code = exit_code;
    deadline_what = what;
    setitimer(ITIMER_REAL, &timer, NULL);
}

void fx_signals_over(int exit_code)
{
    over_code = exit_code;
}

void fx_signals_leave_last(int exit_code)
{
    fx_talk_mute();
    fx_signals_over(exit_code);
    poll(NULL, 0, LAST_MS);
}

void fx_signals_print(void)
{
    print_line("stopped by ", signal_text(fx_stop_signal()), stop_advice);
}

/* True when a peer or the launcher is gone: that is said instead. */
static bool print_lost(void)
{
    char text[256];
    if (!fx_board_dead(text, sizeof text) && !fx_signals_orphan(text, sizeof text)) return false;
    print_line(text, "; noticed",
               "'; it was killed or it crashed; see its messages, or the kernel log for lack of memory");
    return true;
}

void fx_signals_lost(void)
{
    if (over_code >= 0 || stopping) return; /* it ends already */
    fx_stop_request(SIGTERM);
    fx_signals_deadline(GRACE_S, LOST_CODE, NULL);
}

/* ---- the launcher ---- */

/* A launcher that is killed cannot end its ranks; the kernel does. Asked twice, because it may be gone before
 * the request counts. */
void fx_signals_follow_launcher(void)
{
    const int parent = (int)getppid();
    launcher = parent;
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 && (int)getppid() != parent) raise(SIGTERM);
}

bool fx_signals_orphan(char *text, size_t size)
{
    if (!launcher || (int)getppid() == launcher) return false;
    text[put(text, 0, size - 1, "the launcher of this rank is gone")] = 0;
    return true;
}

/* ---- asking ---- */

static long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void fx_signals_grace(double seconds, const char *advice)
{
    const bool slurm = getenv("SLURM_STEP_ID") || getenv("SLURM_STEPID");
    hurried =
        !slurm && (getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMI_SIZE") || getenv("MV2_COMM_WORLD_SIZE"));
    grace_s = seconds;
    stop_advice = advice;
}

int fx_signals_asked(double *left_s)
{
    const int number = asked;
    if (left_s) *left_s = number ? grace_s - 1e-3 * (double)(now_ms() - atomic_load(&asked_ms)) : grace_s;
    return number;
}

/* True: the signal asks, and no more is to be done in its handler. */
static bool asks(int number)
{
    if (asked) return number == asked && now_ms() - atomic_load(&asked_ms) < 1000;
    if (grace_s <= 0 || !(number == SIGUSR1 || (number == SIGTERM && !hurried))) return false;
    if (launcher && (int)getppid() != launcher) return false; /* the kernel's, because the launcher is gone */
    atomic_store(&asked_ms, now_ms());
    asked = number;
    fx_signals_deadline(grace_s, 128 + number, NULL);
    return true;
}

/* ---- handlers ---- */

/* This rank ends by itself: it is not to be called dead. */
static void tell_others(void)
{
    int *word = atomic_load(&leaving);
    if (word) __atomic_store_n(word, 1, __ATOMIC_SEQ_CST);
}

static void on_stop(int number)
{
    if (over_code >= 0) _exit(over_code);
    if (!stopping && asks(number)) return;
    if (stopping) {
        fx_png_cleanup();
        _exit(128 + fx_stop_signal());
    }
    stopping = 1;
    tell_others();
    fx_stop_request(number);
    fx_signals_deadline(GRACE_S, 128 + number, NULL);
}

static void on_deadline(int number)
{
    (void)number;
    fx_png_cleanup();
    if (over_code >= 0) _exit(deadline_code); /* all is said */
    if (asked && !fx_stop_signal()) {
        tell_others();
        fx_stop_request(asked);
    }
    if (fx_stop_signal()) {
        if (print_lost())
            deadline_code = LOST_CODE;
        else
            fx_signals_print();
    } else if (deadline_what) {
        print_line(deadline_what, "",
                   "'; a rank is stopped, lost or slow; see its messages, or give more time with --timeout");
    }
    fx_talk_hold();
    _exit(deadline_code);
}

static void on_fatal(int number)
{
    fx_png_cleanup();
    print_line(
        "died of ", signal_text(number),
        "'; this is a fault of fluxpar or of a library; report it with the output of 'fluxpar --version'");
    _exit(4);
}

static void install(int number, void (*handler)(int), int flags)
{
    struct sigaction action, old;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigfillset(&action.sa_mask);
    if (handler == on_stop) {
        sigemptyset(&action.sa_mask); /* a second one must come through */
        if (!sigaction(number, NULL, &old) && number == SIGHUP && old.sa_handler == SIG_IGN)
            return; /* nohup */
    }
    sigaction(number, &action, NULL);
}

void fx_signals_install(void)
{
    static char stack[65536]; /* a stack overflow must be reported from another stack */
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    install(SIGINT, on_stop, 0);
    install(SIGTERM, on_stop, 0);
    install(SIGHUP, on_stop, 0);
    install(SIGUSR1, on_stop, 0);
    install(SIGALRM, on_deadline, 0);
    signal(SIGPIPE, SIG_IGN); /* a closed pipe behind the progress lines must not end the run */
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an ordinary write error */
    if (SANITIZED) return;    /* the sanitizers report these better */
    sigaltstack(&alternate, NULL);
    for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
        install(fatal[i], on_fatal, SA_ONSTACK | SA_RESETHAND);
}
