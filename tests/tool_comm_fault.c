/* Faults that end a job, one per run: "late", "stopped", "killed" (the last rank), "signal" (the others); and
 * "big", which moves more than 2 GiB between two ranks. Started and judged by tests/sh_mpi.sh. */
#include <signal.h>
#include <time.h>

#include "parallel/comm.h"
#include "runtime/core/clock.h"
#include "tests/test_ranks.h"

static void pause_s(double s)
{
    nanosleep(&(struct timespec){(time_t)s, (long)((s - (double)(time_t)s) * 1e9)}, NULL);
}

/* Waits in all ranks but the last, which does what `fault` says. Prints the error and ends the job; sh_mpi.sh
 * reads. */
static int fault(fx_comm *c, const char *what)
{
    const int last = fx_comm_size(c) - 1;
    fx_comm *sub;
    if (fx_comm_split(c, 0, last - fx_comm_rank(c), &sub)) return 1; /* other numbers than in the whole job */
    fx_comm_set_phase(c, "denoise step 3");
    if (fx_comm_barrier(c)) return 1;
    fx_comm_set_timeout(sub, 1); /* all have come: a slow start must not look like the fault */
    if (fx_comm_rank(c) == last) {
        if (!strcmp(what, "stopped")) raise(SIGSTOP); /* mpirun wakes it to end it */
        if (!strcmp(what, "killed")) raise(SIGKILL);
        pause_s(30);
    } else if (!strcmp(what, "signal"))
        fx_stop_request(SIGTERM);
    const double begin = fx_now_s();
    const fx_status st = fx_comm_barrier(sub);
    printf("%s after %.1f s: %s\n", fx_status_name(st), fx_now_s() - begin, fx_error());
    if (fx_comm_barrier(c) != st || fx_comm_vote(sub, FX_OK, NULL) != st)
        printf("the failure was forgotten\n");
    fflush(stdout);
    fx_comm_abort(c, fx_exit_code(st));
}

static int big(fx_comm *c)
{
    const size_t bytes = ((size_t)5 << 29) + 12345; /* 2.5 GiB */
    const int me = fx_comm_rank(c);
    unsigned char *data = malloc(bytes);
    fx_ticket t;
    if (!data || fx_comm_size(c) != 2) {
        free(data);
        return 77;
    }
    for (size_t i = 0; i < bytes; i++) data[i] = me ? 0 : (unsigned char)(i * 2654435761u >> 13);
    const fx_xfer x = {1 - me, data, bytes};
    const double begin = fx_now_s();
    T_OK(me ? fx_comm_transfer(c, 0, NULL, 1, &x, &t) : fx_comm_transfer(c, 1, &x, 0, NULL, &t));
    T_OK(fx_comm_wait(c, &t));
    size_t bad = 0;
    for (size_t i = 0; i < bytes; i++) bad += data[i] != (unsigned char)(i * 2654435761u >> 13);
    T_CHECK(bad == 0, "%zu bytes wrong", bad);
    if (me) printf("2.5 GiB in %.2f s\n", fx_now_s() - begin);
    free(data);
    return test_end_ranks(c, "comm big");
}

int main(int argc, char **argv)
{
    fx_comm *c;
    if (argc != 2 || fx_comm_open("auto", 60, &c) != FX_OK) {
        printf("cannot open: %s\n", fx_error());
        return 2;
    }
    const int rc = !strcmp(argv[1], "big") ? big(c) : fault(c, argv[1]);
    fx_comm_finish(&c);
    return rc;
}
