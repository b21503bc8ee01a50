/* A second communicator for a backend's own memory (fx_comm_rows), with a stand-in for a device: copies of own rows and the
 * end of transfers are the transport's affair, the rest is the front's. */
#include "parallel/comm_internal.h"
#include "tests/comm/comm_test.h"
#include "tests/test_ranks.h"

#include <stdlib.h>
#include <string.h>

enum { BYTES = 100000 };

static struct {
    fx_comm *host;
    fx_ticket ticket[FX_COMM_SLOTS];
    int copies, looks, until; /* drain: nothing is left at look number `until` */
    bool closed, gives_up;
} device;

static fx_status device_post(fx_comm *c, int slot, int lane, int sends, const fx_xfer send[], int recvs,
                             const fx_xfer recv[])
{
    fx_xfer out[8], in[8];
    int n_out = 0, n_in = 0;
    (void)lane;
    for (int i = 0; i < sends; i++)
        if (send[i].peer != c->rank) out[n_out++] = send[i];
    for (int i = 0; i < recvs; i++)
        if (recv[i].peer != c->rank) in[n_in++] = recv[i];
    return fx_comm_transfer(device.host, n_out, out, n_in, in, &device.ticket[slot]);
}

static fx_status device_test(fx_comm *c, int slot, int *left)
{
    (void)c;
    *left = 0;
    return fx_comm_wait(device.host, &device.ticket[slot]);
}

static void device_late(const fx_comm *c, int slot, bool late[])
{
    (void)slot;
    late[c->rank] = device.gives_up;
}

static fx_status device_copy(fx_comm *c, void *to, const void *from, size_t bytes)
{
    (void)c;
    device.copies++;
    memcpy(to, from, bytes);
    return FX_OK;
}

static fx_status device_drain(fx_comm *c, int *left)
{
    (void)c;
    *left = ++device.looks < device.until;
    if (!*left && device.gives_up) *left = -1;
    return FX_OK;
}

static void device_detach(fx_comm *c)
{
    (void)c;
    device.closed = true;
}

static const fx_comm_ops device_ops = {.name = "stand-in",
                                       .post = device_post,
                                       .test = device_test,
                                       .late = device_late,
                                       .detach = device_detach,
                                       .copy = device_copy,
                                       .drain = device_drain};

static void check_transfers(fx_comm *c, fx_comm *rows)
{
    const int me = fx_comm_rank(c), size = fx_comm_size(c), left = (me + size - 1) % size;
    int32_t out[2] = {100 + me, 200 + me}, in[2] = {0, 0};
    const fx_xfer send[2] = {{(me + 1) % size, &out[0], 4}, {me, &out[1], 4}},
                  recv[2] = {{left, &in[0], 4}, {me, &in[1], 4}};
    fx_ticket t;
    T_OK(fx_comm_transfer(rows, 2, send, 2, recv, &t));
    T_OK(fx_comm_wait(rows, &t));
    T_CHECK(in[0] == 100 + left && in[1] == 200 + me, "rows: got %d and %d", in[0], in[1]);
    T_CHECK(device.copies == (size == 1 ? 2 : 1), "%d copies of own rows", device.copies);
    unsigned char *data = malloc(BYTES);
    size_t bad = 0;
    for (size_t i = 0; i < BYTES; i++) data[i] = me == size - 1 ? (unsigned char)(i * 7) : 0;
    T_OK(fx_comm_broadcast(rows, size - 1, data, BYTES));
    for (size_t i = 0; i < BYTES; i++) bad += data[i] != (unsigned char)(i * 7);
    T_CHECK(!bad, "rows: %zu wrong bytes after a broadcast", bad);
    free(data);
}

/* The device's own waits have a limit: when it gives up, the host does not wait for its own. */
static void check_giving_up(void)
{
    int *world = calloc(1, sizeof *world);
    fx_comm *self;
    T_OK(fx_comm_open("self", 60, &self));
    for (int looks = 1; looks < 4; looks += 2) {
        memset(&device, 0, sizeof device);
        device.until = looks;
        device.gives_up = true;
        if (looks == 1) T_OK(fx_comm_new(&device_ops, self, NULL, 0, 1, self->id, world, &self->rows));
        const fx_status st = fx_comm_settle(self);
        T_CHECK(st == FX_ECOMM && strstr(fx_error(), "rank 0 waited 60 s in") &&
                    strstr(fx_error(), "for rank 0;"),
                "%d: %s", (int)st, fx_error());
        T_CHECK(device.looks == looks, "after %d looks of %d", device.looks, looks);
        self->family->failed = FX_OK;
    }
    fx_comm_close(&self);
}

void comm_test_rows(fx_comm *c)
{
    const int size = fx_comm_size(c);
    int *world = malloc((size_t)size * sizeof *world);
    T_CHECK(fx_comm_rows(c) == c, "without a device, rows move as all else does");
    T_OK(fx_comm_settle(c));
    memset(&device, 0, sizeof device);
    device.host = c;
    for (int r = 0; r < size; r++) world[r] = r;
    T_OK(fx_comm_new(&device_ops, c, NULL, fx_comm_rank(c), size, c->id, world, &c->rows));
    fx_comm *rows = fx_comm_rows(c);
    T_CHECK(rows != c && fx_comm_size(rows) == size, "a communicator of its own");
    check_transfers(c, rows);
    const double waited = fx_comm_statistics(c).wait_s;
    device.until = 5;
    T_OK(fx_comm_settle(c));
    T_CHECK(device.looks == 5, "settled after %d looks of 5", device.looks);
    T_CHECK(fx_comm_statistics(c).wait_s == waited, "waiting for a device is not exposed communication");
    fx_comm_close(&c->rows);
    T_CHECK(device.closed && fx_comm_rows(c) == c, "closed");
    T_OK(fx_comm_barrier(c)); /* the host's communicator goes on */
    check_giving_up();
}
