/* The transport of a measuring run: it has a rank and a size and moves nothing, so that one process can walk
 * the graph of any rank of any job over a measuring arena. Data pointers are never read or written. Who watches
 * (comm_plan.h) sees what would move. */
#include "parallel/comm_plan.h"

#include <stdlib.h>

#include "parallel/comm_internal.h"

typedef struct plan_state {
    const fx_comm_watch *watch;
    int posts;
    int number[FX_COMM_SLOTS]; /* of the post that a slot holds */
    const char *label[FX_COMM_SLOTS];
    fx_xfer *list; /* [room] sends, then receives with other ranks */
    int room;
} plan_state;

static plan_state *state_of(const fx_comm *c)
{
    return c->transport;
}

/* Appends what really moves. */
static int take(const fx_comm *c, fx_xfer *list, int n, const fx_xfer x[])
{
    int taken = 0;
    for (int i = 0; i < n; i++)
        if (x[i].peer != c->rank && x[i].bytes) list[taken++] = x[i];
    return taken;
}

static fx_status plan_post(fx_comm *c, int slot, int lane, int sends, const fx_xfer send[], int recvs,
                           const fx_xfer recv[])
{
    plan_state *s = state_of(c);
    (void)lane; /* collectives do not come here */
    s->number[slot] = ++s->posts;
    s->label[slot] = c->label ? c->label : "rows";
    if (!s->watch) return FX_OK;
    if (sends + recvs > s->room) {
        fx_xfer *grown = realloc(s->list, (size_t)(sends + recvs) * sizeof *grown);
        FX_CHECK(grown, FX_ENOMEM, "no memory for a list of %d transfers", sends + recvs);
        s->list = grown;
        s->room = sends + recvs;
    }
    const int out = take(c, s->list, sends, send), in = take(c, s->list + out, recvs, recv);
    s->watch->post(s->watch->ctx, s->number[slot], s->label[slot], out, s->list, in, s->list + out);
    return FX_OK;
}

/* The wait loop asks once, because nothing is ever left. */
static fx_status plan_test(fx_comm *c, int slot, int *left)
{
    const plan_state *s = state_of(c);
    *left = 0;
    if (s->watch) s->watch->wait(s->watch->ctx, s->number[slot], s->label[slot]);
    return FX_OK;
}

static void plan_late(const fx_comm *c, int slot, bool late[])
{
    (void)c, (void)slot, (void)late;
}

static fx_status plan_copy(fx_comm *c, void *to, const void *from, size_t bytes)
{
    const plan_state *s = state_of(c);
    if (s->watch) s->watch->copy(s->watch->ctx, to, from, bytes);
    return FX_OK;
}

static void plan_collective(fx_comm *c, const char *name, size_t bytes)
{
    const plan_state *s = state_of(c);
    if (s->watch) s->watch->host(s->watch->ctx, name, bytes);
}

void fx_comm_plan_store(const fx_comm *c, const char *label, int peer, size_t bytes, int n,
                        const fx_xfer from[])
{
    const plan_state *s = state_of(c);
    if (s->watch && bytes) s->watch->store(s->watch->ctx, label, peer, bytes, n, from);
}

void fx_comm_plan_join(const fx_comm *c, const char *label)
{
    const plan_state *s = state_of(c);
    if (s->watch) s->watch->join(s->watch->ctx, label);
}

void fx_comm_plan_await(const fx_comm *c, const char *label, int peer, size_t bytes, int n,
                        const fx_xfer place[])
{
    const plan_state *s = state_of(c);
    if (s->watch && bytes) s->watch->await(s->watch->ctx, label, peer, bytes, n, place);
}

static fx_status plan_drain(fx_comm *c, int *left)
{
    *left = 0;
    if (c->size > 1) plan_collective(c, "settle", 0);
    return FX_OK;
}

static fx_status plan_attach(fx_comm *c)
{
    c->transport = calloc(1, sizeof(plan_state));
    FX_CHECK(c->transport, FX_ENOMEM, "no memory for a communicator");
    return FX_OK;
}

static void plan_detach(fx_comm *c)
{
    plan_state *s = state_of(c);
    free(s->list);
    free(s);
}

static const fx_comm_ops plan_ops = {.name = "plan",
                                     .dry = true,
                                     .post = plan_post,
                                     .test = plan_test,
                                     .late = plan_late,
                                     .attach = plan_attach,
                                     .detach = plan_detach,
                                     .copy = plan_copy,
                                     .drain = plan_drain,
                                     .collective = plan_collective};

fx_status fx_comm_open_plan(int rank, int size, fx_comm **out)
{
    *out = NULL;
    FX_CHECK(size >= 1 && rank >= 0 && rank < size, FX_EINVAL, "plan communicator: rank %d of %d", rank,
             size);
    int *world = malloc((size_t)size * sizeof *world);
    FX_CHECK(world, FX_ENOMEM, "no memory for a communicator");
    for (int r = 0; r < size; r++) world[r] = r;
    const fx_status st = fx_comm_new(&plan_ops, NULL, NULL, rank, size, 0, world, out);
    if (st != FX_OK) free(world);
    return st;
}

bool fx_comm_planning(const fx_comm *c)
{
    return c->ops == &plan_ops;
}

void fx_comm_observe(fx_comm *plan, const fx_comm_watch *watch)
{
    state_of(plan)->watch = watch;
}
