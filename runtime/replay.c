/* The transfers of one step by themselves; see replay.h. Called by pipeline.c. */
#include "runtime/replay.h"

#include <stdlib.h>

#include "runtime/core/clock.h"

/* A post with its transfers, sends first (first..), or a wait for the post `number`. */
typedef struct move {
    bool post;
    int number, sends, recvs;
    size_t first;
} move;

typedef struct tape {
    const fx_arena *measured; /* of the plan */
    char *base;               /* where its addresses lie in this run */
    move *moves;
    fx_xfer *xfers;
    size_t n_moves, room_moves, n_xfers, room_xfers;
    int posts;
    fx_status st;
} tape;

/* ---- the step goes by ---- */

static bool room(tape *t, void **list, size_t *have, size_t need, size_t each)
{
    if (need <= *have) return true;
    const size_t want = 2 * need + 64;
    void *grown = realloc(*list, want * each);
    if (!grown) t->st = FX_FAIL(FX_ENOMEM, "no memory for a list of %zu transfers", need);
    if (!grown) return false;
    *list = grown;
    *have = want;
    return true;
}

static void keep_transfers(tape *t, int n, const fx_xfer x[])
{
    if (!room(t, (void **)&t->xfers, &t->room_xfers, t->n_xfers + (size_t)n, sizeof *x)) return;
    for (int i = 0; i < n; i++) {
        size_t offset;
        if (!fx_arena_offset(t->measured, x[i].data, &offset))
            t->st = FX_FAIL(FX_ESHAPE, "a transfer of the step lies outside of its memory");
        else
            t->xfers[t->n_xfers++] = (fx_xfer){x[i].peer, t->base + offset, x[i].bytes};
    }
}

static void keep_move(tape *t, move m)
{
    if (room(t, (void **)&t->moves, &t->room_moves, t->n_moves + 1, sizeof m)) t->moves[t->n_moves++] = m;
}

static void on_begin(void *ctx, const fx_session *s)
{
    tape *t = ctx;
    t->measured = s->be->arena;
}

static void on_post(void *ctx, int ticket, const char *label, int sends, const fx_xfer send[], int recvs,
                    const fx_xfer recv[])
{
    tape *t = ctx;
    (void)label;
    if (t->st) return;
    keep_move(t, (move){true, ticket, sends, recvs, t->n_xfers});
    keep_transfers(t, sends, send);
    keep_transfers(t, recvs, recv);
    if (ticket > t->posts) t->posts = ticket;
}

static void on_wait(void *ctx, int ticket, const char *label)
{
    tape *t = ctx;
    (void)label;
    if (!t->st) keep_move(t, (move){false, ticket, 0, 0, 0});
}

/* What moves nothing between ranks, or is not awaited by transfers. */
static void on_op(void *ctx, const fx_plan_op *op)
{
    (void)ctx, (void)op;
}
static void on_box(void *ctx, const char *name)
{
    (void)ctx, (void)name;
}
static void on_copy(void *ctx, void *to, const void *from, size_t bytes)
{
    (void)ctx, (void)to, (void)from, (void)bytes;
}
static void on_host(void *ctx, const char *name, size_t bytes)
{
    (void)ctx, (void)name, (void)bytes;
}

static fx_status write_down(fx_sizes *z, tape *t)
{
    size_t bytes;
    const fx_step_watch watch = {.begin = on_begin,
                                 .ctx = t,
                                 .ops = {.op = on_op, .box = on_box, .ctx = NULL},
                                 .comm = {.post = on_post,
                                          .wait = on_wait,
                                          .copy = on_copy,
                                          .store = NULL, /* not planned by kernels */
                                          .join = NULL,
                                          .await = NULL,
                                          .host = on_host,
                                          .ctx = t}};
    t->base = z->base;
    FX_TRY(fx_session_plan(z->model, z->be, fx_comm_rank(z->now->comm), fx_comm_size(z->now->comm), &z->opt,
                           z->session.size, &watch, &bytes));
    return t->st;
}

/* ---- and is moved ---- */

static fx_status move_all(fx_comm *rows, const tape *t, fx_ticket tickets[])
{
    for (size_t i = 0; i < t->n_moves; i++) {
        const move *m = &t->moves[i];
        const fx_xfer *x = t->xfers + m->first;
        if (m->post)
            FX_TRY(fx_comm_transfer(rows, m->sends, x, m->recvs, x + m->sends, &tickets[m->number]));
        else
            FX_TRY(fx_comm_wait(rows, &tickets[m->number]));
    }
    return FX_OK;
}

static fx_status run_once(fx_sizes *z, const tape *t, fx_ticket tickets[], double *seconds)
{
    FX_TRY(fx_comm_barrier(z->now->comm));
    const double begin = fx_now_s();
    FX_TRY(move_all(fx_comm_rows(z->now->comm), t, tickets));
    FX_TRY(fx_comm_settle(z->now->comm));
    FX_TRY(fx_sync(z->be));
    *seconds = fx_now_s() - begin;
    return FX_OK;
}

fx_status fx_replay_step(fx_sizes *z, int runs, double seconds[])
{
    tape t = {0};
    fx_ticket *tickets = NULL;
    fx_status st;
    fx_comm_set_phase(z->now->comm, "replay of transfers");
    FX_TRY_OUT(fx_comm_vote(z->now->comm, write_down(z, &t), NULL));
    tickets = malloc(((size_t)t.posts + 1) * sizeof *tickets);
    st = tickets ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for %d tickets", t.posts);
    st = fx_comm_vote(z->now->comm, st, NULL);
    if (!st && !tickets) st = FX_ENOMEM; /* the vote has failed then */
    if (st) goto out;
    for (int i = 0; i <= t.posts; i++) tickets[i] = (fx_ticket){-1, 0};
    for (int i = 0; i < runs; i++) FX_TRY_OUT(run_once(z, &t, tickets, &seconds[i]));
    FX_TRY_OUT(fx_comm_all_reduce_f64(z->now->comm, FX_MAX, seconds, runs));
out:
    free(t.moves);
    free(t.xfers);
    free(tickets);
    return st;
}
