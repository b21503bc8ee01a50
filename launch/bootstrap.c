/* Start and end of a run on all ranks; see bootstrap.h. Order at start: comm, size check against the
 * launcher, the node's board, vote on the arguments, comparison of version and arguments (agree.c). Nothing here
 * knows about models. */
#include "launch/bootstrap.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "launch/agree.h"
#include "launch/signals.h"
#include "launch/talk.h"
#include "parallel/cores.h"
#include "runtime/core/clock.h"
#include "runtime/core/log.h"

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

/* More threads than cores, as far as that can be known before ranks meet: those of other nodes count here too. */
static bool crowded(const fx_options *o, const fx_run *s)
{
    return o->threads > fx_cores_allowed() || o->threads * s->launched > sysconf(_SC_NPROCESSORS_ONLN);
}

/* libgomp reads its settings when it is loaded, so they can only be changed by starting over (3 ms). Its
 * default is to spin for about a millisecond between parallel regions. Measured on 2 cores, demo image, 2
 * threads, the steps: alone 0.08 s spinning, 0.14 s passive (each region wakes its threads), 0.08 s with a
 * short spin before sleep; beside other work 7 to 13 s spinning, because a spinning thread holds the core its
 * peer needs, 0.17 to 0.35 s passive, 0.18 s with a short spin. With 2 threads on each of 2 ranks on these
 * cores any spin is too long: 0.15 s against 0.10 s passive. */
static void wait_briefly(char *const argv[], const fx_options *o, const fx_run *s)
{
    char path[4096];
    const fx_command_row *cmd = fx_command_of(o->command);
    if (!cmd || !cmd->ranks || o->help || o->threads == 1) return;
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") || getenv("KMP_BLOCKTIME")) return;
    const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0 || (!crowded(o, s) && setenv("GOMP_SPINCOUNT", "1000", 1)) ||
        setenv("OMP_WAIT_POLICY", "passive", 1))
        return;
    path[n] = 0;
    execv(path, argv); /* where this fails the run goes on as it is */
}

void fx_run_prepare(char *const argv[], const fx_options *o, fx_run *s)
{
    *s = (fx_run){.ranks = 1, .launched = 1, .nodes = 1, .start_s = fx_now_s()};
    s->age_s = process_age();
    if (!fx_comm_launched(&s->launched, &s->rank)) s->launched = 1, s->rank = 0;
    wait_briefly(argv, o, s);
    fx_talk_open(s->rank, s->launched, "cpu", o->quiet, o->verbose);
    fx_signals_install();
    if (s->launched > 1)
        fx_signals_follow_launcher(); /* alone, a run may outlive the shell that started it */
}

/* MPI was not wired to the launcher: every process believes to be rank 0. The launcher's first one speaks,
 * and the others leave after it, because the launcher may end all when one leaves. */
static fx_status not_wired(fx_run *s, const fx_options *o, fx_status st)
{
    if (st == FX_EINVAL && s->rank != 0 && o->command != FX_CMD_DOCTOR)
        fx_signals_leave_last(fx_exit_code(st));
    return st;
}

static fx_status check_size(fx_run *s, const fx_options *o)
{
    if (s->launched <= 1 || s->ranks == s->launched) return FX_OK;
    return not_wired(
        s, o,
        FX_FAIL(FX_EINVAL,
                "MPI started %d rank but the launcher started %d tasks; MPI was not wired to it; use 'srun "
                "--mpi=pmix' ('srun --mpi=list' shows what exists) or 'mpirun -np %d'",
                s->ranks, s->launched, s->launched));
}

static fx_status open_board(fx_run *s)
{
    FX_TRY(fx_node_share_open(s->comm, &s->share));
    FX_TRY(fx_board_open(&s->share, s->rank, &s->board));
    return fx_board_watch(s->board);
}

/* With -v every rank tells its phases. */
static void show_phase(const char *phase, bool whole)
{
    fx_talk_phase(phase);
    if (whole) fx_log(FX_LOG_DETAIL, "%s", phase);
}

/* No call of MPI's start has a deadline of its own. */
static fx_status start_comm(fx_run *s, double timeout_s)
{
    static char what[64];
    snprintf(what, sizeof what, "waited %.3g s for the other ranks", timeout_s);
    fx_talk_phase("start of MPI");
    if (s->launched > 1) fx_signals_deadline(timeout_s, fx_exit_code(FX_ECOMM), what);
    const fx_status st = fx_comm_open("auto", timeout_s, &s->comm);
    fx_signals_deadline(0, 0, NULL);
    return st;
}

fx_status fx_run_open(fx_run *s, const fx_options *o, fx_status parsed)
{
    if (parsed != FX_OK && s->launched <= 1) return parsed;
    char message[2048]; /* of the parser; the calls below may fail and overwrite it */
    snprintf(message, sizeof message, "%s", fx_error());
    s->timeout_s = o->timeout > 0 ? o->timeout : 60;
    const fx_status opened = start_comm(s, s->timeout_s);
    if (opened != FX_OK) return not_wired(s, o, opened);
    fx_signals_install();
    s->ranks = fx_comm_size(s->comm);
    FX_TRY(check_size(s, o));
    s->rank = fx_comm_rank(s->comm);
    fx_talk_open(s->rank, s->ranks, "cpu", o->quiet, o->verbose);
    fx_comm_on_phase(s->comm, show_phase);
    fx_comm_set_phase(s->comm, "start");
    if (s->ranks > 1) FX_TRY(fx_run_vote(s, open_board(s)));
    if (parsed != FX_OK) parsed = FX_FAIL(parsed, "%s", message);
    FX_TRY(fx_run_vote(s, parsed));
    return s->ranks > 1 ? fx_agree_program(s, o) : FX_OK;
}

/* ---- votes and the end ---- */

fx_status fx_run_vote(fx_run *s, fx_status mine)
{
    return fx_comm_vote(s->comm, mine, NULL);
}

/* mpirun answers the death of one rank with SIGTERM for the others, and MPI with an error of a transfer: then
 * the dead one is the news. A peer that is stopped is why a deadline passed. */
static fx_status name_the_lost(const fx_run *s, fx_status st)
{
    char text[256], before[1024];
    if (st != FX_ESIGNAL && st != FX_ECOMM) return st;
    for (int look = 0; look < 4; look++) { /* an error or a signal may come before its cause is seen */
        if (fx_board_dead(text, sizeof text) || fx_signals_orphan(text, sizeof text))
            return FX_FAIL(FX_ECOMM,
                           "%s; noticed during '%s'; it was killed or it crashed; see its messages, or the "
                           "kernel log for lack of memory",
                           text, fx_talk_phase_now());
        usleep(s->launched > 1 ? 25000 : 0);
    }
    if (st == FX_ESIGNAL || !fx_board_stopped(text, sizeof text)) return st;
    snprintf(before, sizeof before, "%s", fx_error());
    return FX_FAIL(st, "%s; %s", before, text);
}

/* A signal or a lost peer: nothing collective works any more, so nothing is closed. */
static void leave(fx_run *s, fx_status st, int code)
{
    fx_signals_deadline(1.0, code, NULL); /* MPI itself may hang now */
    s->lost = true;
    if (st == FX_ESIGNAL)
        fx_signals_print();
    else
        fx_talk_error(st, -1, fx_error());
    fx_talk_hold();
    /* mpirun ends the others by itself when one leaves, a second faster than after MPI_Abort; srun may not.
     */
    const bool watched = st == FX_ESIGNAL && getenv("OMPI_COMM_WORLD_SIZE") && !getenv("SLURM_STEP_ID");
    char text[64]; /* without a launcher there is nobody who could end the others; each gets its own signal */
    if (s->comm && s->ranks > 1 && !watched && !fx_signals_orphan(text, sizeof text))
        fx_comm_abort(s->comm, code);
}

/* All ranks know of a failure that was voted on: its rank prints, and all leave together. Any other is this
 * rank's own, and its peers wait for something that will not come. */
static void print_failure(fx_run *s, fx_status st)
{
    const int code = fx_exit_code(st), culprit = s->comm ? fx_comm_culprit(s->comm) : -1;
    const bool several = s->comm && s->ranks > 1, agreed = culprit >= 0;
    if (s->rank == culprit || !agreed || !s->board) fx_talk_error(st, -1, fx_error());
    fx_signals_over(code);
    if (several && !agreed) {
        fx_signals_deadline(1.0, code, NULL);
        fx_comm_abort(s->comm, code);
    }
    /* Printed before anybody leaves: a launcher may end all ranks when one does. The first one may leave
     * while others are still in the barrier, and the launcher's SIGTERM reaches them there. */
    if (several && fx_comm_barrier(s->comm) != FX_OK) fx_comm_abort(s->comm, code);
}

int fx_run_end(fx_run *s, fx_status st)
{
    st = name_the_lost(s, st);
    fx_board_leave(s->board);
    const int code = st == FX_OK ? s->verdict : fx_exit_code(st);
    if (st == FX_ECOMM || st == FX_ESIGNAL) {
        leave(s, st, code);
        return code;
    }
    if (st != FX_OK) print_failure(s, st);
    fx_signals_over(code);
    fx_talk_mute();
    fx_board_close(&s->share, &s->board);
    if (s->share.ctx) fx_node_share_close(&s->share);
    fx_signals_deadline(s->timeout_s, code, NULL); /* closing MPI waits for all ranks, without a deadline */
    if (s->comm) fx_comm_finish(&s->comm);
    return code;
}
