/* The transport contract: asynchronous, uneven, ordered. comm.c and comm_collective.c are the front of every
 * transport; comm_self.c (one rank), comm_plan.c (measuring), comm_mpi.c, later comm_nccl.c move the bytes.
 *
 * Where the backend's memory is a device's, its rows move by the communicator of fx_comm_rows; all else is host memory.
 *
 * Everything that moves rows is a set of point-to-point transfers posted together (`fx_comm_transfer`): an
 * uneven all-to-all, a ring hop and a gather are such sets, received in place, with no staging. Transfers
 * between two ranks match in posting order. Buffers are off limits until the ticket is waited for. Every wait
 * has the comm's deadline, watches the stop flag (status.h) and fails with FX_ECOMM or FX_ESIGNAL; after a
 * failure every later call fails at once and the process must end through fx_comm_abort. */
#ifndef FX_PARALLEL_COMM_H
#define FX_PARALLEL_COMM_H

#include "runtime/core/status.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_comm fx_comm;
typedef struct fx_ticket {
    int32_t slot; /* -1: nothing pending */
    uint32_t generation;
} fx_ticket;

typedef struct fx_xfer {
    int peer; /* rank in this comm; may be this rank (a copy) */
    void *data;
    size_t bytes; /* 0: skipped on both sides */
} fx_xfer;

typedef enum { FX_SUM, FX_MIN, FX_MAX } fx_reduce;

/* How rows in device memory move (comm_way.h): attention's by kernels that write into the peer's memory (LSA; parallel/window.c),
 * all else by copy engines that write there (PEER: attention's too), or all by NCCL. AUTO: LSA where it is possible. */
typedef enum { FX_WIRE_AUTO, FX_WIRE_PEER, FX_WIRE_NCCL, FX_WIRE_LSA } fx_wire;

typedef struct fx_comm_stats {
    uint64_t bytes_sent; /* to other ranks */
    uint64_t transfers;
    double
        wait_s; /* time the host spent in waits, collectives included: exposed communication; what a device's stream
                      waits for rows is not in it */
} fx_comm_stats;

int fx_comm_rank(const fx_comm *);
int fx_comm_size(const fx_comm *);
int fx_comm_job_rank(const fx_comm *, int rank); /* its number in the whole job */
double fx_comm_timeout(const fx_comm *);         /* seconds, <= 0: none */

fx_status fx_comm_transfer(fx_comm *, int sends, const fx_xfer send[], int recvs, const fx_xfer recv[],
                           fx_ticket *out);
fx_status fx_comm_wait(fx_comm *, fx_ticket *); /* clears it; none pending is FX_OK */
/* Looks once, without waiting; *done: it has arrived, and the ticket is cleared. */
fx_status fx_comm_poll(fx_comm *, fx_ticket *, bool *done);
/* What the next transfer brings ("in.k.image"), for those who watch a plan (comm_plan.h); kept by address. */
void fx_comm_label(fx_comm *, const char *what);
fx_status fx_comm_progress(fx_comm *); /* lets transfers move during long compute; cheap */

/* The communicator that moves the backend's memory: the same one, or the one that fx_comm_open_rows (comm_nccl.h)
 * gave it. There, a wait puts the arrival into the order of the device's stream and the host goes on at once; of the
 * collectives only broadcast is for it. */
fx_comm *fx_comm_rows(fx_comm *);
/* Waits on the host, with deadline and stop flag, until all that was posted on fx_comm_rows has arrived: before the host
 * waits for the device in any other way, which would have neither. */
fx_status fx_comm_settle(fx_comm *);
/* Without waiting: FX_ECOMM, with its name, when a device has waited in vain for another rank. */
fx_status fx_comm_check(fx_comm *);
/* Bytes that no transfer counts: stored by kernels, or sent by work that is played again (kernels/record.h). */
void fx_comm_note_sent(fx_comm *, uint64_t bytes);

fx_status fx_comm_broadcast(fx_comm *, int root, void *data, size_t bytes);
fx_status fx_comm_all_gather(fx_comm *, const void *mine, void *all, const size_t bytes[],
                             const size_t offset[]);
fx_status fx_comm_all_reduce_f64(fx_comm *, fx_reduce, double *, int n); /* summed in rank order */
fx_status fx_comm_all_reduce_i64(fx_comm *, fx_reduce, int64_t *, int n);
fx_status fx_comm_barrier(fx_comm *);
/* Every rank brings its status; all get the status and the message (fx_error()) of the lowest failing rank,
 * and its number
 * (-1: none failed). Returns that status: how phases end. A rank that caught a signal votes FX_ESIGNAL; its
 * peers take over the signal (for this, a vote looks at the stop flag only after one second). */
fx_status fx_comm_vote(fx_comm *, fx_status mine, int *culprit);

/* Ranks of equal color, ordered by key; color < 0: none (NULL). Messages name ranks by their number in the
 * whole job. Deadline, phase, statistics and failure are one for a communicator and all its splits. Not for
 * plan comms. */
fx_status fx_comm_split(fx_comm *, int color, int key, fx_comm **out);
void fx_comm_set_timeout(fx_comm *, double seconds); /* <= 0: wait for ever */
/* What this rank is doing ("denoise step 3"), for messages; cheap, kept by the comm and its splits. A part
 * ("ring hop 2") is added to it until the next phase or part; NULL: none. */
void fx_comm_set_phase(fx_comm *, const char *phase);
void fx_comm_set_part(fx_comm *, const char *part);
/* Called on every change with the phase and its part, so that others (launch/) can show it; whole: a new phase,
 * not only another part. */
void fx_comm_on_phase(fx_comm *, void (*call)(const char *phase, bool whole));
/* The rank that brought the failure of the last failed vote of the whole job; -1: all ranks do not know of one. */
int fx_comm_culprit(const fx_comm *);
/* A vote on this communicator has failed, so that all its ranks know and none of them waits for another: they may go on
 * together, after fx_comm_forgive. Otherwise a failure is this rank's own. */
bool fx_comm_agreed(const fx_comm *);
void fx_comm_forgive(fx_comm *);
/* The same of the last failed vote of any split: rank in the whole job, -1: none. */
int fx_comm_blamed(const fx_comm *);
fx_comm_stats fx_comm_statistics(const fx_comm *);
void fx_comm_reset_statistics(fx_comm *);
void fx_comm_close(fx_comm **);

/* kinds: "self"; "mpi" (initialises MPI with MPI_THREAD_FUNNELED when needed); "auto": mpi when started by a
 * launcher. A plan comm has a rank and a size and moves nothing: the same graph runs over it while measuring, and
 * comm_plan.h shows what it would move. */
fx_status fx_comm_open(const char *kind, double timeout_s, fx_comm **out);
fx_status fx_comm_open_plan(int rank, int size, fx_comm **out);
bool fx_comm_planning(
    const fx_comm *); /* a plan comm: goes with the plan backend, whose addresses no other may touch */
/* True when this process was started by mpirun or srun with more than one task (from the environment, no MPI
 * call). */
bool fx_comm_launched(int *ranks, int *rank);
const char *fx_comm_describe(void); /* "Open MPI 4.1.4" or "none" */
/* Ends all ranks of the job with this exit code; does not return. */
__attribute__((noreturn)) void fx_comm_abort(fx_comm *, int exit_code);
/* Normal end: closes MPI when fx_comm_open started it. */
void fx_comm_finish(fx_comm **);

#ifdef __cplusplus
}
#endif
#endif
