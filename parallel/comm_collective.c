/* Collectives, each a set of transfers between pairs: the same code over every transport, with the deadline
 * and the names of late ranks that waits have. Meant for small and rare data (votes, sizes, text states);
 * rows of the model move by fx_comm_transfer. */
#include "parallel/comm_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LANE = 1, TREE_BYTES = 1 << 16 };

/* A plan: nothing is done, and who watches hears of it. */
static fx_status only_told(fx_comm *c, const char *name, size_t bytes)
{
    c->ops->collective(c, name, bytes);
    return FX_OK;
}

/* ---- broadcast ---- */

/* Small: from the root to all at once, so that a wait names the root. Large: a binomial tree. Rank r counted
 * from the root receives from r minus its highest bit and sends to r + 2^k for the larger 2^k. */
static fx_status broadcast(fx_comm *c, int root, void *data, size_t bytes, double grace_s)
{
    const int me = (c->rank - root + c->size) % c->size;
    const bool tree = bytes > TREE_BYTES && c->size > 4;
    fx_ticket t;
    fx_xfer *send = c->list;
    int first = 1, n = 0;
    if (me) {
        int high = 1;
        while (high * 2 <= me) high *= 2;
        const int parent = tree ? me - high : 0;
        const fx_xfer recv = {(parent + root) % c->size, data, bytes};
        FX_TRY(fx_comm_post(c, LANE, 0, NULL, 1, &recv, &t));
        FX_TRY(fx_comm_wait_grace(c, &t, grace_s));
        first = tree ? high * 2 : c->size;
    }
    if (tree)
        for (int k = first; me + k < c->size; k *= 2)
            send[n++] = (fx_xfer){(me + k + root) % c->size, data, bytes};
    else
        for (int r = first; r < c->size; r++) send[n++] = (fx_xfer){(r + root) % c->size, data, bytes};
    FX_TRY(fx_comm_post(c, LANE, n, send, 0, NULL, &t));
    return fx_comm_wait_grace(c, &t, grace_s);
}

fx_status fx_comm_broadcast(fx_comm *c, int root, void *data, size_t bytes)
{
    FX_CHECK(root >= 0 && root < c->size, FX_EINVAL, "broadcast: root %d of %d ranks", root, c->size);
    if (c->size == 1 || !bytes) return FX_OK;
    if (c->ops->dry) return only_told(c, "broadcast", bytes);
    return broadcast(c, root, data, bytes, 0);
}

/* ---- gathers ---- */

/* bytes = NULL: every rank brings `each` bytes, laid side by side. */
static fx_status gather(fx_comm *c, const void *mine, void *all, const size_t bytes[], const size_t offset[],
                        size_t each, double grace_s)
{
    fx_xfer *send = c->list, *recv = c->list + c->size;
    char *base = all;
    const size_t own = bytes ? bytes[c->rank] : each;
    int n = 0;
    for (int k = 1; k < c->size;
         k++) { /* starting at the neighbour, so that not all ranks call on rank 0 first */
        const int r = (c->rank + k) % c->size;
        send[n] = (fx_xfer){r, (void *)(uintptr_t)mine, own};
        recv[n++] = (fx_xfer){r, base + (offset ? offset[r] : (size_t)r * each), bytes ? bytes[r] : each};
    }
    char *my_place = base + (offset ? offset[c->rank] : (size_t)c->rank * each);
    if (own) memmove(my_place, mine, own);
    fx_ticket t;
    FX_TRY(fx_comm_post(c, LANE, n, send, n, recv, &t));
    return fx_comm_wait_grace(c, &t, grace_s);
}

fx_status fx_comm_all_gather(fx_comm *c, const void *mine, void *all, const size_t bytes[],
                             const size_t offset[])
{
    if (c->ops->dry) return only_told(c, "all_gather", bytes[c->rank]);
    return gather(c, mine, all, bytes, offset, 0, 0);
}

fx_status fx_comm_barrier(fx_comm *c)
{
    char mine = 0, *all;
    void *mem;
    if (c->size == 1) return c->family->failed;
    if (c->ops->dry) return only_told(c, "barrier", 0);
    FX_TRY(fx_comm_scratch(c, (size_t)c->size, &mem));
    all = mem;
    return gather(c, &mine, all, NULL, NULL, 1, 0);
}

/* ---- reductions: every rank gets all values and adds them in rank order, so all have the same bits ---- */

static fx_status gather_values(fx_comm *c, const void *mine, size_t bytes, void **all)
{
    FX_TRY(fx_comm_scratch(c, bytes * (size_t)c->size, all));
    return gather(c, mine, *all, NULL, NULL, bytes, 0);
}

fx_status fx_comm_all_reduce_f64(fx_comm *c, fx_reduce op, double *x, int n)
{
    void *mem;
    if (c->size == 1 || n <= 0) return c->family->failed;
    if (c->ops->dry) return only_told(c, "all_reduce", (size_t)n * sizeof *x);
    FX_TRY(gather_values(c, x, (size_t)n * sizeof *x, &mem));
    const double *all = mem;
    memcpy(x, all, (size_t)n * sizeof *x);
    for (int r = 1; r < c->size; r++)
        for (int i = 0; i < n; i++) {
            const double v = all[(size_t)r * (size_t)n + (size_t)i];
            if (op == FX_SUM)
                x[i] += v;
            else if (op == FX_MIN)
                x[i] = v < x[i] ? v : x[i];
            else
                x[i] = v > x[i] ? v : x[i];
        }
    return FX_OK;
}

fx_status fx_comm_all_reduce_i64(fx_comm *c, fx_reduce op, int64_t *x, int n)
{
    void *mem;
    if (c->size == 1 || n <= 0) return c->family->failed;
    if (c->ops->dry) return only_told(c, "all_reduce", (size_t)n * sizeof *x);
    FX_TRY(gather_values(c, x, (size_t)n * sizeof *x, &mem));
    const int64_t *all = mem;
    memcpy(x, all, (size_t)n * sizeof *x);
    for (int r = 1; r < c->size; r++)
        for (int i = 0; i < n; i++) {
            const int64_t v = all[(size_t)r * (size_t)n + (size_t)i];
            if (op == FX_SUM)
                x[i] += v;
            else if (op == FX_MIN)
                x[i] = v < x[i] ? v : x[i];
            else
                x[i] = v > x[i] ? v : x[i];
        }
    return FX_OK;
}

/* ---- vote ---- */

typedef struct ballot {
    int32_t status, stop_signal;
} ballot;

/* A rank that caught a signal must still be heard: for this long a vote does not look at the stop flag. */
static const double VOTE_GRACE_S = 1.0;

static fx_status share_message(fx_comm *c, int from, fx_status st)
{
    char text[1024] = "";
    if (c->rank == from) snprintf(text, sizeof text, "%s", fx_error());
    FX_TRY(broadcast(c, from, text, sizeof text, VOTE_GRACE_S));
    return c->rank == from ? st : FX_FAIL(st, "%s", text);
}

fx_status fx_comm_vote(fx_comm *c, fx_status mine, int *culprit)
{
    ballot own = {(int32_t)mine, fx_stop_signal()}, *all; /* the signal counts with FX_ESIGNAL only */
    void *mem;
    if (culprit) *culprit = mine == FX_OK ? -1 : c->rank;
    if (c->size == 1 && c->id == 0 && mine != FX_OK) c->family->culprit = c->rank;
    if (c->size == 1 && mine != FX_OK) c->family->blamed = c->world[0];
    if (c->size == 1) return mine;
    if (c->ops->dry) {
        c->ops->collective(c, "vote", sizeof own);
        return mine;
    }
    if (c->family->failed != FX_OK) return mine != FX_OK ? mine : c->family->failed;
    FX_TRY(fx_comm_scratch(c, sizeof own * (size_t)c->size, &mem));
    all = mem;
    FX_TRY(gather(c, &own, all, NULL, NULL, sizeof own, VOTE_GRACE_S));
    for (int r = 0; r < c->size; r++) {
        if (all[r].status == FX_OK) continue;
        const fx_status st = (fx_status)all[r].status;
        if (culprit) *culprit = r;
        c->family->blamed = c->world[r];
        if (c->id == 0) c->family->culprit = r; /* a vote of some ranks is not yet one of all */
        c->agreed = true;
        if (st == FX_ESIGNAL && !fx_stop_signal()) fx_stop_request(all[r].stop_signal);
        return share_message(c, r, st);
    }
    return FX_OK;
}

bool fx_comm_agreed(const fx_comm *c)
{
    return c->size == 1 || c->agreed;
}

void fx_comm_forgive(fx_comm *c)
{
    c->agreed = false;
    if (c->id == 0) c->family->culprit = -1;
}

/* ---- split ---- */

typedef struct member {
    int32_t color, key, rank, next_id;
} member;

static int by_key(const void *a, const void *b)
{
    const member *x = a, *y = b;
    const int order = (x->key > y->key) - (x->key < y->key);
    return order ? order : x->rank - y->rank;
}

/* No new object of the transport: a split is a list of ranks and a number that keeps its messages apart. */
fx_status fx_comm_split(fx_comm *c, int color, int key, fx_comm **out)
{
    *out = NULL;
    FX_CHECK(!c->ops->dry, FX_EINVAL, "a plan communicator cannot be split; open one of the wanted size");
    member own = {color, key, c->rank, c->family->next_id};
    const size_t size = (size_t)c->size;
    member *all = malloc(size * sizeof *all);
    int *world = malloc(size * sizeof *world);
    fx_status st = FX_OK;
    int n = 0, id = 0, rank = 0;
    if (!all || !world) {
        st = FX_FAIL(FX_ENOMEM, "no memory to split a communicator of %d ranks", c->size);
        goto out;
    }
    FX_TRY_OUT(gather(c, &own, all, NULL, NULL, sizeof own, 0));
    for (int r = 0; r < c->size; r++) {
        if (all[r].next_id > id) id = all[r].next_id;
        if (all[r].color == color) all[n++] = all[r];
    }
    if (color < 0) goto out; /* this rank is in none */
    qsort(all, (size_t)n, sizeof *all, by_key);
    for (int i = 0; i < n; i++) {
        world[i] = c->world[all[i].rank];
        if (all[i].rank == c->rank) rank = i;
    }
    st = fx_comm_new(c->ops, c, NULL, rank, n, id, world, out);
    if (st == FX_OK) world = NULL;
out:
    free(all);
    free(world);
    return st;
}
