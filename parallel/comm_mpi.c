/* The MPI transport, the only code that sees mpi.h: nonblocking sends and receives on one duplicate of
 * MPI_COMM_WORLD, completed by MPI_Testsome from the front's wait loop (comm.c), never by a blocking call. A
 * split is a list of world ranks and its own tags. MPI-3.1; built empty without MPI. */
#include "parallel/comm_internal.h"

#ifdef FX_HAVE_MPI
#include <mpi.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "runtime/core/clock.h"

/* MPI counts are int; 1 GiB pieces stay far below and keep every piece aligned. */
static const size_t PIECE = (size_t)1 << 30;

typedef struct mpi_world {
    MPI_Comm comm;
    int tag_limit;
    bool started; /* by us, so we end it */
} mpi_world;

typedef struct mpi_slot {
    int n, left, capacity;
    MPI_Request *request; /* MPI_REQUEST_NULL once complete */
    int *peer, *index;
} mpi_slot;

static fx_status mpi_error(int code, const char *what)
{
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int n = 0;
    if (MPI_Error_string(code, text, &n) != MPI_SUCCESS) text[0] = 0;
    return FX_FAIL(FX_ECOMM, "%s failed: %s; a peer or the connection to it is lost", what, text);
}

#define MPI_TRY(call, what)                                                                                  \
    do {                                                                                                     \
        const int code_ = (call);                                                                            \
        if (code_ != MPI_SUCCESS) return mpi_error(code_, what);                                             \
    } while (0)

static MPI_Comm world_of(const fx_comm *c)
{
    return ((const mpi_world *)c->family->transport)->comm;
}

static int pieces(size_t bytes)
{
    return (int)((bytes + PIECE - 1) / PIECE);
}

static int count_pieces(const fx_comm *c, int n, const fx_xfer x[])
{
    int sum = 0;
    for (int i = 0; i < n; i++)
        if (x[i].peer != c->rank) sum += pieces(x[i].bytes);
    return sum;
}

static fx_status reserve(mpi_slot *s, int n)
{
    if (n <= s->capacity) return FX_OK;
    void *request = realloc(s->request, (size_t)n * sizeof *s->request);
    if (request) s->request = request;
    int *peer = realloc(s->peer, (size_t)n * sizeof *s->peer);
    if (peer) s->peer = peer;
    int *index = realloc(s->index, (size_t)n * sizeof *s->index);
    if (index) s->index = index;
    FX_CHECK(request && peer && index, FX_ENOMEM, "no memory for %d transfers", n);
    s->capacity = n;
    return FX_OK;
}

/* Starts all pieces of a list; own entries are the front's. */
static fx_status start(fx_comm *c, mpi_slot *s, bool sending, int tag, int n, const fx_xfer x[])
{
    for (int i = 0; i < n; i++) {
        if (x[i].peer == c->rank) continue;
        char *data = x[i].data;
        for (size_t done = 0; done < x[i].bytes; done += PIECE) {
            const int count = (int)(x[i].bytes - done < PIECE ? x[i].bytes - done : PIECE);
            const int peer = c->world[x[i].peer];
            MPI_Request *r = &s->request[s->n];
            const int code = sending ? MPI_Isend(data + done, count, MPI_BYTE, peer, tag, world_of(c), r)
                                     : MPI_Irecv(data + done, count, MPI_BYTE, peer, tag, world_of(c), r);
            if (code != MPI_SUCCESS) return mpi_error(code, sending ? "MPI_Isend" : "MPI_Irecv");
            s->peer[s->n++] = x[i].peer;
            s->left++;
        }
    }
    return FX_OK;
}

static fx_status mpi_post(fx_comm *c, int slot, int lane, int sends, const fx_xfer send[], int recvs,
                          const fx_xfer recv[])
{
    mpi_slot *s = (mpi_slot *)c->transport + slot;
    const int tag = 2 * c->id + lane;
    s->n = s->left = 0;
    FX_TRY(reserve(s, count_pieces(c, sends, send) + count_pieces(c, recvs, recv)));
    FX_TRY(start(c, s, false, tag, recvs, recv));
    return start(c, s, true, tag, sends, send);
}

static fx_status mpi_test(fx_comm *c, int slot, int *left)
{
    mpi_slot *s = (mpi_slot *)c->transport + slot;
    int done = 0;
    if (s->left) MPI_TRY(MPI_Testsome(s->n, s->request, &done, s->index, MPI_STATUSES_IGNORE), "a transfer");
    if (done != MPI_UNDEFINED) s->left -= done;
    *left = s->left;
    return FX_OK;
}

static void mpi_late(const fx_comm *c, int slot, bool late[])
{
    const mpi_slot *s = (const mpi_slot *)c->transport + slot;
    for (int i = 0; i < s->n; i++)
        if (s->request[i] != MPI_REQUEST_NULL) late[s->peer[i]] = true;
}

/* Any call drives the library; nobody ever sends on the last tag. */
static fx_status mpi_progress(fx_comm *c)
{
    const mpi_world *w = c->family->transport;
    int flag;
    MPI_TRY(MPI_Iprobe(MPI_ANY_SOURCE, w->tag_limit, w->comm, &flag, MPI_STATUS_IGNORE), "MPI_Iprobe");
    return FX_OK;
}

static fx_status mpi_attach(fx_comm *c)
{
    const mpi_world *w = c->family->transport;
    FX_CHECK(c->id < w->tag_limit / 2, FX_ECOMM, "too many communicators (%d)", c->id);
    c->transport = calloc(FX_COMM_SLOTS, sizeof(mpi_slot));
    FX_CHECK(c->transport, FX_ENOMEM, "no memory for a communicator");
    return FX_OK;
}

static void mpi_detach(fx_comm *c)
{
    mpi_slot *s = c->transport;
    for (int i = 0; i < FX_COMM_SLOTS; i++) {
        free(s[i].request);
        free(s[i].peer);
        free(s[i].index);
    }
    free(s);
}

static void mpi_close(fx_comm_family *f, bool finish)
{
    mpi_world *w = f->transport;
    if (f->failed == FX_OK) MPI_Comm_free(&w->comm);
    if (finish && w->started && f->failed == FX_OK)
        MPI_Finalize(); /* after a failure it could wait for ever */
    free(w);
}

static void mpi_abort(fx_comm_family *f, int exit_code)
{
    const mpi_world *w = f->transport;
    MPI_Abort(w->comm, exit_code);
}

static const fx_comm_ops mpi_ops = {.name = "mpi",
                                    .post = mpi_post,
                                    .test = mpi_test,
                                    .late = mpi_late,
                                    .attach = mpi_attach,
                                    .detach = mpi_detach,
                                    .close = mpi_close,
                                    .abort = mpi_abort,
                                    .progress = mpi_progress};

/* ---- start ---- */

/* Settings Open MPI reads at start; what the user set wins. Its blocking calls (start and end) shall give the
 * core away, and where the kernel refuses reads of another process (containers), single-copy messages would
 * fail. */
static void prepare_open_mpi(void)
{
    char a = 1, b = 0;
    const struct iovec to = {&b, 1}, from = {&a, 1};
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
    if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != 1)
        setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0);
}

static fx_status start_mpi(bool *started)
{
    int on = 0, have = 0;
    *started = false;
    MPI_TRY(MPI_Initialized(&on), "MPI_Initialized");
    if (on) return FX_OK;
    prepare_open_mpi();
    MPI_TRY(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &have), "MPI_Init_thread");
    FX_CHECK(have >= MPI_THREAD_FUNNELED, FX_ECOMM, "this MPI library supports no threads (level %d)", have);
    *started = true;
    return FX_OK;
}

static fx_status duplicate_world(mpi_world *w, double timeout_s)
{
    MPI_Request r;
    int done = 0, found = 0, *limit = NULL;
    const double begin = fx_now_s();
    MPI_TRY(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    MPI_TRY(MPI_Comm_idup(MPI_COMM_WORLD, &w->comm, &r), "MPI_Comm_idup");
    while (!done) {
        MPI_TRY(MPI_Test(&r, &done, MPI_STATUS_IGNORE), "MPI_Comm_idup");
        FX_CHECK(done || timeout_s <= 0 || fx_now_s() - begin < timeout_s, FX_ECOMM,
                 "the ranks did not meet within %.3g s after MPI start; a rank is stopped or lost",
                 timeout_s);
        if (!done) sched_yield();
    }
    MPI_TRY(MPI_Comm_set_errhandler(w->comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    MPI_TRY(MPI_Comm_get_attr(w->comm, MPI_TAG_UB, &limit, &found), "MPI_Comm_get_attr");
    w->tag_limit = found ? *limit : 32767;
    return FX_OK;
}

/* srun without MPI support, or an mpirun of another MPI, starts many jobs of one rank each: never go on like
 * that. */
static fx_status check_size(int size)
{
    int ranks = 1, rank = 0;
    if (!fx_comm_launched(&ranks, &rank) || ranks == size) return FX_OK;
    return FX_FAIL(
        FX_EINVAL,
        "MPI started %d process%s but the launcher started %d tasks (this is task %d); the launcher and "
        "this MPI (%s) do not know each other; use 'srun --mpi=pmix' ('srun --mpi=list' shows what exists) "
        "or the mpirun of this MPI",
        size, size == 1 ? "" : "es", ranks, rank, fx_comm_describe());
}

static fx_status open_world(mpi_world *w, double timeout_s, int *rank, int *size)
{
    FX_TRY(start_mpi(&w->started));
    MPI_TRY(MPI_Comm_rank(MPI_COMM_WORLD, rank), "MPI_Comm_rank");
    MPI_TRY(MPI_Comm_size(MPI_COMM_WORLD, size), "MPI_Comm_size");
    FX_TRY(check_size(*size));
    return duplicate_world(w, timeout_s);
}

fx_status fx_comm_open_mpi(double timeout_s, fx_comm **out)
{
    int rank = 0, size = 0, *world = NULL;
    mpi_world *w = calloc(1, sizeof *w);
    FX_CHECK(w, FX_ENOMEM, "no memory for a communicator");
    fx_status st = open_world(w, timeout_s, &rank, &size);
    if (st == FX_OK && !(world = malloc((size_t)size * sizeof *world)))
        st = FX_FAIL(FX_ENOMEM, "no memory for ranks");
    for (int r = 0; st == FX_OK && r < size; r++) world[r] = r;
    if (st == FX_OK) st = fx_comm_new(&mpi_ops, NULL, w, rank, size, 0, world, out);
    if (st != FX_OK) {
        free(world);
        free(w);
        return st;
    }
    fx_comm_set_timeout(*out, timeout_s);
    return FX_OK;
}

/* "Open MPI v4.1.4, package: ..." and "MPICH Version:\t4.0.2\nMPICH Release ..." become name and number. */
const char *fx_comm_describe_mpi(void)
{
    static char name[64];
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int n = 0;
    if (name[0]) return name;
    if (MPI_Get_library_version(text, &n) != MPI_SUCCESS) return "MPI";
    size_t k = 0;
    for (const char *p = text; *p && *p != ',' && *p != '\n' && k + 1 < sizeof name; p++) {
        const bool space = *p == ' ' || *p == '\t' || *p == ':';
        if (*p == 'v' && k && name[k - 1] == ' ' && p[1] >= '0' && p[1] <= '9') continue;
        if (space && (!k || name[k - 1] == ' ')) continue;
        name[k++] = space ? ' ' : *p;
    }
    return name;
}

#else
fx_status fx_comm_open_mpi(double timeout_s, fx_comm **out)
{
    (void)timeout_s;
    *out = NULL;
    return FX_FAIL(FX_EINVAL, "this program was built without MPI (FX_MPI=OFF); it runs on one rank; "
                              "start it without mpirun, or build with MPI");
}

const char *fx_comm_describe_mpi(void)
{
    return "none";
}
#endif
