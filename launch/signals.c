/* Signal handlers. They use async-signal-safe calls only: write, setitimer (a plain system call on Linux),
 * _exit.
 *
 * After the first stop signal the ranks leave their loops by themselves and one prints. A rank deep in one
 * long operation (a big matrix product) cannot: the deadline ends it. It is shorter than the second that
 * mpirun leaves between SIGTERM and SIGKILL, so that the line is printed and the temporary file is gone in
 * time. A second signal ends at once. */
#include "launch/signals.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "launch/talk.h"
#include "runtime/core/status.h"
#include "runtime/io/png.h"

#define GRACE_S 0.8
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

static volatile sig_atomic_t deadline_code = 4, over_code = -1, stopping;
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
    case SIGSEGV: return "SIGSEGV (segmentation fault)";
    case SIGBUS: return "SIGBUS (a file that shrank, or no memory behind a page)";
    case SIGABRT: return "SIGABRT";
    case SIGFPE: return "SIGFPE";
    case SIGILL: return "SIGILL (an instruction this processor does not have)";
    }
    return "a signal";
}

/* The error line without stdio: prefix, "SIGSEGV during denoise", advice. */
static void print_line(const char *before, int number, const char *after)
{
    char line[512];
    int length;
    const char *prefix = fx_talk_prefix(&length);
    if (!fx_talk_claim()) return;
    size_t at = put(line, 0, sizeof line - 1, prefix);
    at = put(line, at, sizeof line - 1, before);
    at = put(line, at, sizeof line - 1, signal_text(number));
    at = put(line, at, sizeof line - 1, " during ");
    at = put(line, at, sizeof line - 1, fx_talk_phase_now());
    at = put(line, at, sizeof line - 1, after);
    line[at++] = '\n';
    if (write(STDERR_FILENO, line, at) < 0) return;
}

void fx_signals_deadline(double seconds, int exit_code)
{
    struct itimerval timer = {
        .it_value = {(time_t)seconds, (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)}};
    deadline_code = exit_code;
    setitimer(ITIMER_REAL, &timer, NULL);
}

void fx_signals_over(int exit_code)
{
    over_code = exit_code;
}

void fx_signals_print(void)
{
    print_line("stopped by ", fx_stop_signal(), "; the unfinished picture is not written; run it again");
}

static void on_stop(int number)
{
    if (over_code >= 0) _exit(over_code);
    if (stopping) {
        fx_png_cleanup();
        _exit(128 + fx_stop_signal());
    }
    stopping = 1;
    int *word = atomic_load(&leaving);
    if (word) __atomic_store_n(word, 1, __ATOMIC_SEQ_CST);
    fx_stop_request(number);
    fx_signals_deadline(GRACE_S, 128 + number);
}

static void on_deadline(int number)
{
    (void)number;
    fx_png_cleanup();
    if (stopping) fx_signals_print();
    _exit(deadline_code);
}

static void on_fatal(int number)
{
    fx_png_cleanup();
    print_line(
        "died of ", number,
        "; this is a fault of fluxpar or of a library; report it with the output of 'fluxpar --version'");
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
    install(SIGALRM, on_deadline, 0);
    signal(SIGPIPE, SIG_IGN); /* a closed pipe behind the progress lines must not end the run */
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an ordinary write error */
    if (SANITIZED) return;    /* the sanitizers report these better */
    sigaltstack(&alternate, NULL);
    for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
        install(fatal[i], on_fatal, SA_ONSTACK | SA_RESETHAND);
}
