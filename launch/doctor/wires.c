/* Messages between every two ranks: how long, how fast, and are the bytes those that were sent. Two partners play ball; the
 * others wait at the next barrier, or play too where there are many. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "launch/doctor/doctor.h"
#include "parallel/comm_nccl.h"
#include "runtime/core/clock.h"

enum { SMALL_ROUNDS = 20, LARGE_ROUNDS = 3 };

/* ---- one message ---- */

typedef struct ends {
    fx_comm *comm, *host; /* what moves them; what it belongs to */
    fx_backend *be;       /* NULL: host memory */
    char *out, *in;       /* [FX_WIRE_LARGE] where comm moves them */
    uint8_t *look;        /* [FX_WIRE_LARGE] on the host */
} ends;

static fx_status send_to(const ends *e, int peer, size_t bytes)
{
    const fx_xfer x = {.peer = peer, .data = e->out, .bytes = bytes};
    fx_ticket t;
    FX_TRY(fx_comm_transfer(e->comm, 1, &x, 0, NULL, &t));
    FX_TRY(fx_comm_wait(e->comm, &t));
    return fx_comm_settle(e->host);
}

static fx_status receive_from(const ends *e, int peer, size_t bytes)
{
    const fx_xfer x = {.peer = peer, .data = e->in, .bytes = bytes};
    fx_ticket t;
    FX_TRY(fx_comm_transfer(e->comm, 0, NULL, 1, &x, &t));
    FX_TRY(fx_comm_wait(e->comm, &t));
    return fx_comm_settle(e->host);
}

/* There and back; the lower rank serves. */
static fx_status round_trip(const ends *e, int me, int peer, size_t bytes, double *seconds)
{
    const double begin = fx_now_s();
    if (me < peer) FX_TRY(send_to(e, peer, bytes));
    FX_TRY(receive_from(e, peer, bytes));
    if (me > peer) FX_TRY(send_to(e, peer, bytes));
    *seconds = fx_now_s() - begin;
    return FX_OK;
}

static uint8_t byte_of(int from, int to, size_t i)
{
    const uint32_t x = ((uint32_t)i + 1) * 0x9e3779b1u + (uint32_t)(from + 1) * 0x85ebca6bu +
                       (uint32_t)(to + 1) * 0xc2b2ae35u;
    return (uint8_t)(x >> 24 ^ x >> 9);
}

static fx_status put(const ends *e, char *at)
{
    if (e->be) {
        FX_TRY(fx_upload(e->be, fx_view(at, FX_U8, 1, &(int64_t){FX_WIRE_LARGE}), e->look));
        return fx_sync(e->be);
    }
    memcpy(at, e->look, FX_WIRE_LARGE);
    return FX_OK;
}

static fx_status prepare(const ends *e, int me, int peer)
{
    for (size_t i = 0; i < FX_WIRE_LARGE; i++) e->look[i] = byte_of(me, peer, i);
    FX_TRY(put(e, e->out));
    for (size_t i = 0; i < FX_WIRE_LARGE; i++)
        e->look[i] = (uint8_t)~byte_of(peer, me, i); /* no byte is right yet */
    return put(e, e->in);
}

static fx_status count_wrong(const ends *e, int me, int peer, uint64_t *wrong)
{
    if (e->be)
        FX_TRY(fx_download(e->be, e->look, fx_view(e->in, FX_U8, 1, &(int64_t){FX_WIRE_LARGE})));
    else
        memcpy(e->look, e->in, FX_WIRE_LARGE);
    *wrong = 0;
    for (size_t i = 0; i < FX_WIRE_LARGE; i++) *wrong += e->look[i] != byte_of(peer, me, i);
    return FX_OK;
}

static fx_status play(const ends *e, int me, int peer, fx_wire_cell *cell)
{
    double s, large = -1;
    FX_TRY(prepare(e, me, peer));
    FX_TRY(round_trip(e, me, peer, FX_WIRE_LARGE, &s)); /* sets connections up */
    FX_TRY(count_wrong(e, me, peer, &cell->wrong));
    for (int i = 0; i < SMALL_ROUNDS; i++) {
        FX_TRY(round_trip(e, me, peer, FX_WIRE_SMALL, &s));
        if (cell->latency_s < 0 || s / 2 < cell->latency_s) cell->latency_s = s / 2;
    }
    for (int i = 0; i < LARGE_ROUNDS; i++) {
        FX_TRY(round_trip(e, me, peer, FX_WIRE_LARGE, &s));
        if (large < 0 || s < large) large = s;
    }
    cell->rate = large > 0 ? 2.0 * FX_WIRE_LARGE / large : 0;
    return FX_OK;
}

/* ---- all pairs ---- */

static fx_status play_all(fx_run *s, const ends *e, fx_wire_cell *mine)
{
    const int rounds = fx_wire_rounds(s->ranks);
    char part[48];
    for (int r = 0; r < s->ranks; r++) mine[r] = (fx_wire_cell){.latency_s = -1, .rate = 0, .wrong = 0};
    for (int round = 0; round < rounds; round++) {
        const int peer = fx_wire_partner(s->ranks, round, s->rank);
        snprintf(part, sizeof part, "messages with rank %d", peer);
        if (peer >= 0) fx_comm_set_part(s->comm, part);
        if (peer >= 0) FX_TRY(play(e, s->rank, peer, &mine[peer]));
        fx_comm_set_part(s->comm, NULL);
        FX_TRY(fx_comm_barrier(s->comm));
    }
    return FX_OK;
}

static fx_status gather_rows(fx_run *s, const fx_wire_cell *mine, fx_wire_cell *all)
{
    const size_t n = (size_t)s->ranks, row = n * sizeof *mine;
    size_t *where = calloc(2 * n, sizeof *where);
    const fx_status st =
        fx_run_vote(s, where ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for the ranks' figures"));
    for (size_t r = 0; where && r < n; r++) {
        where[r] = row;
        where[n + r] = r * row;
    }
    const fx_status end = st || !where ? st : fx_comm_all_gather(s->comm, mine, all, where, where + n);
    free(where);
    return end;
}

static fx_status measure(fx_run *s, const ends *e, fx_wire_table *t)
{
    const size_t n = (size_t)s->ranks;
    fx_wire_cell *mine = calloc(n, sizeof *mine);
    t->cell = calloc(n * n, sizeof *t->cell);
    t->ranks = s->ranks;
    fx_status st = mine && t->cell ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for the ranks' figures");
    st = fx_run_vote(s, st);
    if (st == FX_OK && mine && t->cell) st = play_all(s, e, mine);
    if (st == FX_OK && mine && t->cell) st = gather_rows(s, mine, t->cell);
    free(mine);
    return st;
}

fx_status fx_wires_host(fx_run *s, fx_wire_table *t)
{
    ends e = {.comm = s->comm,
              .host = s->comm,
              .be = NULL,
              .out = malloc(FX_WIRE_LARGE),
              .in = malloc(FX_WIRE_LARGE),
              .look = malloc(FX_WIRE_LARGE)};
    fx_comm_set_phase(s->comm, "messages between ranks");
    snprintf(t->name, sizeof t->name, "%s, host memory", fx_comm_describe());
    fx_status st = e.out && e.in && e.look ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for messages");
    st = fx_run_vote(s, st);
    if (st == FX_OK) st = measure(s, &e, t);
    free(e.out);
    free(e.in);
    free(e.look);
    return st;
}

/* ---- devices ---- */

static fx_status open_rows(fx_run *s, bool nccl, fx_backend **be)
{
    char name[32];
    const int devices = fx_device_count();
    snprintf(name, sizeof name, "cuda:%d", devices > 0 ? s->share.local_rank % devices : 0);
    FX_TRY(fx_run_vote(s, fx_backend_open(name, FX_BF16, 1, be)));
    return fx_run_vote(s, fx_comm_open_rows(s->comm, *be, nccl ? FX_WIRE_NCCL : FX_WIRE_AUTO));
}

static fx_status measure_rows(fx_run *s, ends *e, fx_wire_table *t)
{
    size_t bytes = 2 * (size_t)FX_WIRE_LARGE;
    void *memory = NULL;
    e->look = malloc(FX_WIRE_LARGE);
    fx_status st = fx_run_vote(s, e->look ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for messages"));
    if (st == FX_OK) st = fx_comm_take_rows(s->comm, e->be, &bytes, &memory);
    if (st == FX_OK) {
        e->comm = fx_comm_rows(s->comm);
        e->out = memory;
        e->in = e->out + FX_WIRE_LARGE;
        st = measure(s, e, t);
    }
    if (st != FX_ECOMM && st != FX_ESIGNAL) fx_comm_give_rows(s->comm, e->be, memory);
    free(e->look);
    return st;
}

/* A way that all ranks find closed is a finding, not the end. */
fx_status fx_wires_device(fx_run *s, bool nccl, fx_wire_table *t)
{
    ends e = {.host = s->comm, .be = NULL};
    fx_comm_set_phase(s->comm, nccl ? "messages between devices by NCCL" : "messages between devices");
    snprintf(t->name, sizeof t->name, "device memory%s", nccl ? ", by NCCL" : "");
    fx_status st = open_rows(s, nccl, &e.be);
    const bool opened = st == FX_OK;
    if (opened) {
        snprintf(t->name, sizeof t->name, "device memory, by %.60s",
                 nccl ? "NCCL" : fx_comm_rows_text(s->comm));
        st = measure_rows(s, &e, t);
    }
    if (opened ? st != FX_OK : st == FX_ESIGNAL || fx_comm_check(s->comm) != FX_OK)
        return st; /* not all ranks know of it, or nothing collective works any more */
    if (!opened) snprintf(t->fault, sizeof t->fault, "%s", fx_error());
    fx_comm_forgive(s->comm);
    fx_comm_close_rows(s->comm);
    fx_backend_close(&e.be);
    return FX_OK;
}
