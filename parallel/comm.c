/* The front of every communicator: argument checks, tickets, the one wait loop (deadline, stop flag,
 * back-off, the names of late ranks) and statistics. Transports (comm_self.c, comm_plan.c, comm_mpi.c) only
 * move bytes; collectives (comm_collective.c) are built on top. */
#include "parallel/comm_internal.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/core/clock.h"

int fx_comm_rank(const fx_comm *c)
{
    return c->rank;
}
int fx_comm_size(const fx_comm *c)
{
    return c->size;
}
int fx_comm_job_rank(const fx_comm *c, int rank)
{
    return c->world[rank];
}

/* ---- making and closing ---- */

static void release_family(fx_comm_family *f, bool finish)
{
    if (--f->refs > 0) return;
    if (f->ops->close) f->ops->close(f, finish);
    free(f);
}

static void free_comm(fx_comm *c)
{
    free(c->list);
    free(c->scratch);
    free(c);
}

fx_status fx_comm_new(const fx_comm_ops *ops, fx_comm *parent, void *transport, int rank, int size, int id,
                      int *world, fx_comm **out)
{
    fx_comm *c = calloc(1, sizeof *c);
    fx_comm_family *f = parent ? parent->family : calloc(1, sizeof *f);
    fx_xfer *list = malloc(2 * (size_t)size * sizeof *list);
    fx_status st = FX_OK;
    if (!c || !f || !list) {
        st = FX_FAIL(FX_ENOMEM, "no memory for a communicator of %d ranks", size);
        goto out;
    }
    if (!parent) {
        f->transport = transport;
        f->ops = ops;
        f->culprit = f->blamed = -1;
    }
    *c = (fx_comm){
        .ops = ops, .family = f, .rank = rank, .size = size, .id = id, .world = world, .list = list};
    list = NULL;
    if (ops->attach) FX_TRY_OUT(ops->attach(c));
    f->refs++;
    if (id >= f->next_id) f->next_id = id + 1;
    *out = c;
    return FX_OK;
out:
    if (c) free_comm(c);
    if (!parent) free(f);
    free(list);
    return st;
}

static void close_comm(fx_comm **comm, bool finish)
{
    if (!comm || !*comm) return;
    fx_comm *c = *comm;
    close_comm(&c->rows, false);
    if (c->ops->detach) c->ops->detach(c);
    release_family(c->family, finish);
    free(c->world);
    free_comm(c);
    *comm = NULL;
}

void fx_comm_close(fx_comm **comm)
{
    close_comm(comm, false);
}
void fx_comm_finish(fx_comm **comm)
{
    close_comm(comm, true);
}

void fx_comm_abort(fx_comm *c, int exit_code)
{
    if (c && c->family->ops->abort) c->family->ops->abort(c->family, exit_code);
    _exit(exit_code);
}

fx_status fx_comm_scratch(fx_comm *c, size_t bytes, void **out)
{
    if (bytes > c->scratch_bytes) {
        void *grown = realloc(c->scratch, bytes);
        FX_CHECK(grown, FX_ENOMEM, "no memory for %zu bytes of a collective", bytes);
        c->scratch = grown;
        c->scratch_bytes = bytes;
    }
    *out = c->scratch;
    return FX_OK;
}

/* ---- transfers ---- */

/* The first failure stays: whoever calls later must not wait again for a job that is lost. */
static fx_status stick(fx_comm *c, fx_status st)
{
    if (st != FX_OK && c->family->failed == FX_OK) c->family->failed = st;
    return st;
}

static fx_status check_list(const fx_comm *c, const char *what, int n, const fx_xfer x[])
{
    FX_CHECK(n >= 0 && (n == 0 || x), FX_EINVAL, "transfer: %d %s", n, what);
    for (int i = 0; i < n; i++)
        FX_CHECK(x[i].peer >= 0 && x[i].peer < c->size && (x[i].data || !x[i].bytes), FX_EINVAL,
                 "transfer: %s %d names rank %d of %d", what, i, x[i].peer, c->size);
    return FX_OK;
}

static int next_to(int rank, int n, const fx_xfer x[], int from)
{
    while (from < n && (x[from].peer != rank || !x[from].bytes)) from++;
    return from;
}

/* Transfers from this rank to itself, matched in order within the call. */
static fx_status copy_own(fx_comm *c, int sends, const fx_xfer send[], int recvs, const fx_xfer recv[])
{
    int s = next_to(c->rank, sends, send, 0), r = next_to(c->rank, recvs, recv, 0);
    while (s < sends && r < recvs) {
        FX_CHECK(send[s].bytes == recv[r].bytes, FX_EINVAL,
                 "transfer: rank %d sends itself %zu bytes and expects %zu", c->rank, send[s].bytes,
                 recv[r].bytes);
        if (c->ops->copy)
            FX_TRY(c->ops->copy(c, recv[r].data, send[s].data, send[s].bytes));
        else
            memmove(recv[r].data, send[s].data, send[s].bytes);
        s = next_to(c->rank, sends, send, s + 1);
        r = next_to(c->rank, recvs, recv, r + 1);
    }
    FX_CHECK(s == sends && r == recvs, FX_EINVAL,
             "transfer: rank %d sends to itself without a matching receive", c->rank);
    return FX_OK;
}

static int free_slot(const fx_comm *c)
{
    for (int i = 0; i < FX_COMM_SLOTS; i++)
        if (!c->slot[i].busy) return i;
    return -1;
}

static uint64_t others(const fx_comm *c, int n, const fx_xfer x[], uint64_t *bytes)
{
    uint64_t count = 0;
    for (int i = 0; i < n; i++) {
        if (x[i].peer == c->rank || !x[i].bytes) continue;
        count++;
        *bytes += x[i].bytes;
    }
    return count;
}

fx_status fx_comm_post(fx_comm *c, int lane, int sends, const fx_xfer send[], int recvs, const fx_xfer recv[],
                       fx_ticket *out)
{
    uint64_t sent = 0, received = 0;
    *out = (fx_ticket){-1, 0};
    if (c->family->failed != FX_OK) return c->family->failed;
    FX_TRY(check_list(c, "send", sends, send));
    FX_TRY(check_list(c, "receive", recvs, recv));
    FX_TRY(copy_own(c, sends, send, recvs, recv));
    const uint64_t n_sent = others(c, sends, send, &sent), n_received = others(c, recvs, recv, &received);
    if (!n_sent && !n_received) return FX_OK;
    const int i = free_slot(c);
    FX_CHECK(i >= 0, FX_EINVAL, "transfer: %d tickets are pending; wait for some", FX_COMM_SLOTS);
    FX_TRY(stick(c, c->ops->post(c, i, lane, sends, send, recvs, recv)));
    c->slot[i].busy = true;
    c->family->stats.bytes_sent += sent;
    c->family->stats.transfers += n_sent;
    *out = (fx_ticket){i, ++c->slot[i].generation};
    return FX_OK;
}

fx_status fx_comm_transfer(fx_comm *c, int sends, const fx_xfer send[], int recvs, const fx_xfer recv[],
                           fx_ticket *out)
{
    const fx_status st = fx_comm_post(c, 0, sends, send, recvs, recv, out);
    c->label = NULL;
    return st;
}

void fx_comm_label(fx_comm *c, const char *what)
{
    c->label = what;
}

fx_status fx_comm_progress(fx_comm *c)
{
    if (c->family->failed != FX_OK) return c->family->failed;
    return c->ops->progress ? stick(c, c->ops->progress(c)) : FX_OK;
}

/* ---- waiting ---- */

/* "rank 2" or "ranks 1, 2, 5 and 9 more", in ranks of the root communicator. */
static void name_late(fx_comm *c, int slot, char *text, size_t size)
{
    enum { NAMED = 8 };
    bool *late = calloc((size_t)c->size, sizeof *late);
    int n = 0;
    if (!late) {
        snprintf(text, size, "a peer");
        return;
    }
    c->ops->late(c, slot, late);
    for (int r = 0; r < c->size; r++) n += late[r];
    size_t used = (size_t)snprintf(text, size, n == 1 ? "rank" : "ranks");
    for (int r = 0, k = 0; r < c->size && k < NAMED && used < size; r++)
        if (late[r]) used += (size_t)snprintf(text + used, size - used, "%s %d", k++ ? "," : "", c->world[r]);
    if (n > NAMED && used < size) snprintf(text + used, size - used, " and %d more", n - NAMED);
    free(late);
}

static fx_status deadline_error(fx_comm *c, int slot)
{
    char peers[160];
    name_late(c, slot, peers, sizeof peers);
    return FX_FAIL(
        FX_ECOMM,
        "rank %d waited %.3g s in '%s' for %s; a peer is stopped, lost or slow; see its messages, or "
        "give more time with --timeout",
        c->world[c->rank], c->family->timeout_s, c->family->phase, peers);
}

/* Ranks may share cores: spin only as long as a message normally takes, then give the core away, then sleep.
 */
static void back_off(double idle_s)
{
    if (idle_s < 50e-6) return;
    if (idle_s < 1e-3) {
        sched_yield();
        return;
    }
    nanosleep(&(struct timespec){0, idle_s < 0.1 ? 50000 : 100000}, NULL);
}

static fx_status look(fx_comm *c, int slot, int *left)
{
    return slot < 0 ? c->ops->drain(c, left) : c->ops->test(c, slot, left);
}

/* slot -1: all of them, to the end (drain). */
static fx_status wait_loop(fx_comm *c, int slot, double grace_s)
{
    int left, before = -1;
    FX_TRY(look(c, slot, &left));
    if (!left) return FX_OK;
    if (left < 0) return deadline_error(c, slot);
    const double begin = fx_now_s();
    double start = begin, last = begin, moved = begin; /* start of the deadline, last look, last progress */
    while (left) {
        FX_TRY(look(c, slot, &left));
        const double now = fx_now_s();
        if (now - last > 1) start += now - last; /* this process was stopped; that is not the peers' fault */
        last = now;
        if (left < 0) return deadline_error(c, slot);
        if (left != before) moved = now;
        before = left;
        if (!left) break;
        if (fx_stop_signal() && now - begin >= grace_s)
            return FX_FAIL(FX_ESIGNAL, "stopped by signal %d in '%s'", fx_stop_signal(), c->family->phase);
        if (c->family->timeout_s > 0 && now - start > c->family->timeout_s) return deadline_error(c, slot);
        back_off(now - moved);
    }
    if (slot >= 0)
        c->family->stats.wait_s += last - begin; /* a drain mostly waits for what the device computes */
    return FX_OK;
}

static fx_status check_ticket(const fx_comm *c, fx_ticket t)
{
    FX_CHECK(t.slot < FX_COMM_SLOTS && c->slot[t.slot].busy && c->slot[t.slot].generation == t.generation,
             FX_EINVAL, "wait: ticket %d was waited for already", t.slot);
    return FX_OK;
}

fx_status fx_comm_poll(fx_comm *c, fx_ticket *t, bool *done)
{
    int left = 0;
    *done = false;
    if (c->family->failed != FX_OK) return c->family->failed;
    if (t->slot >= 0) {
        FX_TRY(check_ticket(c, *t));
        FX_TRY(stick(c, look(c, t->slot, &left)));
        if (left) return FX_OK;
        c->slot[t->slot].busy = false;
        *t = (fx_ticket){-1, 0};
    }
    *done = true;
    return FX_OK;
}

fx_status fx_comm_wait_grace(fx_comm *c, fx_ticket *t, double grace_s)
{
    const fx_ticket ticket = *t;
    *t = (fx_ticket){-1, 0};
    if (c->family->failed != FX_OK) return c->family->failed;
    if (ticket.slot < 0) return FX_OK;
    FX_TRY(check_ticket(c, ticket));
    FX_TRY(stick(c, wait_loop(c, ticket.slot, grace_s)));
    c->slot[ticket.slot].busy = false;
    return FX_OK;
}

fx_status fx_comm_wait(fx_comm *c, fx_ticket *t)
{
    return fx_comm_wait_grace(c, t, 0);
}

/* ---- the memory of a device ---- */

fx_comm *fx_comm_rows(fx_comm *c)
{
    return c->rows ? c->rows : c;
}

fx_status fx_comm_check(fx_comm *c)
{
    fx_comm *rows = fx_comm_rows(c);
    if (c->family->failed != FX_OK) return c->family->failed;
    return rows->ops->gave_up && rows->ops->gave_up(rows) ? stick(rows, deadline_error(rows, -1)) : FX_OK;
}

void fx_comm_note_sent(fx_comm *c, uint64_t bytes)
{
    c->family->stats.bytes_sent += bytes;
}

fx_status fx_comm_settle(fx_comm *c)
{
    fx_comm *rows = fx_comm_rows(c);
    if (!rows->ops->drain) return FX_OK;
    if (c->family->failed != FX_OK) return c->family->failed;
    return stick(rows, wait_loop(rows, -1, 0));
}
