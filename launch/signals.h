/* Signals: SIGINT, SIGTERM, SIGHUP and SIGUSR1 raise the stop flag and start a hard deadline; SIGSEGV, SIGBUS,
 * SIGABRT, SIGFPE and SIGILL print one line and end the process. */
#ifndef FX_LAUNCH_SIGNALS_H
#define FX_LAUNCH_SIGNALS_H

#include <stdbool.h>
#include <stddef.h>

/* Call at start, and again after MPI has started (it installs handlers of its own). */
void fx_signals_install(void);
/* *word becomes 1 when a stop signal arrives: other ranks then know that this one leaves by itself. NULL:
 * none. */
void fx_signals_leaving(int *word);
/* The run is over and all is said: from now on a signal only ends the process, with this exit code. (mpirun
 * sends SIGTERM to all ranks as soon as one of them has left with another code than 0.) */
void fx_signals_over(int exit_code);
/* For a rank that has nothing to say where one rank speaks for all: waits until the launcher ends it, because
 * that one has left, or 3 s. Its exit code is set. */
void fx_signals_leave_last(int exit_code);
/* From now on SIGUSR1 only asks for the end, and SIGTERM where nobody follows it with SIGKILL in a second (mpirun does; srun
 * and a shell do not): the process has so many seconds, then it ends as after any stop signal. A second signal is not
 * asking, unless it is the same within a second (a launcher may pass on what the rank got already). advice: the end of the
 * error line of a stop signal. seconds 0: as without. */
void fx_signals_grace(double seconds, const char *advice);
/* The signal that asked, or 0; *left_s (may be NULL): what is left of the seconds. */
int fx_signals_asked(double *left_s);
/* The error line of a stop signal: which, and during what. */
void fx_signals_print(void);
/* From now on the process has this long to end; then it is ended with this exit code, temporary files
 * removed. `what` (may be NULL): the error line says that this took too long. seconds 0: no deadline. */
void fx_signals_deadline(double seconds, int exit_code, const char *what);
/* A peer is gone: as if a stop signal had come, but the line names the peer and the exit code is 5. */
void fx_signals_lost(void);
/* This process shall get SIGTERM when its launcher ends, however that ends. */
void fx_signals_follow_launcher(void);
/* "the launcher (process 4711) is gone", when it is. Async-signal-safe. */
bool fx_signals_orphan(char *text, size_t size);

#endif
