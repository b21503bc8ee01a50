/* The devices of all nodes: what the driver says of each, and a copy between every two of a node with its bytes compared. The
 * first rank of a node copies for all of it, while the others wait. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/doctor/doctor.h"

enum { PING_BYTES = 16 << 20 };

static void ping_node(int visible, double seconds, fx_node_pings *out)
{
    fx_device_facts card[FX_PINGS];
    const int n = visible < FX_PINGS ? visible : FX_PINGS;
    for (int d = 0; d < n; d++)
        if (fx_device_card_of(d, &card[d]) != FX_OK) {
            snprintf(out->fault, sizeof out->fault, "%.159s", fx_error());
            return;
        }
    out->devices = n;
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++) {
            fx_ping_cell *c = &out->cell[a * FX_PINGS + b];
            fx_device_ping p;
            c->kind = (int32_t)fx_device_link(&card[a], &card[b]);
            if (a == b || out->fault[0] || fx_stop_signal()) continue;
            if (fx_device_ping_pair(a, b, PING_BYTES, seconds, &p) != FX_OK)
                snprintf(out->fault, sizeof out->fault, "device %d to device %d: %.120s", a, b, fx_error());
            else if (p.seconds < 0)
                snprintf(out->fault, sizeof out->fault,
                         "a copy from device %d to device %d did not end within %.3g s", a, b, seconds);
            c->seconds = p.seconds;
            c->bytes = p.bytes;
            c->wrong = p.wrong;
        }
    if (!out->fault[0]) fx_device_ping_close();
}

static fx_status gather(fx_run *s, const void *mine, void *all, size_t bytes)
{
    const size_t n = (size_t)s->ranks;
    size_t *where = calloc(2 * n, sizeof *where);
    fx_status st = fx_run_vote(s, where ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for what devices say"));
    for (size_t r = 0; where && r < n; r++) {
        where[r] = bytes;
        where[n + r] = r * bytes;
    }
    if (st == FX_OK && where) st = fx_comm_all_gather(s->comm, mine, all, where, where + n);
    free(where);
    return st;
}

fx_status fx_devices_probe(fx_run *s, const fx_scene *scene, double seconds, fx_device_report *out)
{
    const fx_surround *me = &scene->of[s->rank];
    fx_device_health health;
    fx_node_pings *mine = calloc(1, sizeof *mine);
    out->health = calloc((size_t)s->ranks, sizeof *out->health);
    out->pings = calloc((size_t)s->ranks, sizeof *out->pings);
    fx_comm_set_phase(s->comm, "devices");
    fx_status st =
        mine && out->health && out->pings ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for what devices say");
    st = fx_run_vote(s, st);
    if (st != FX_OK || !mine) {
        free(mine);
        return st ? st : FX_ENOMEM; /* the vote has failed then */
    }
    memset(&health, 0, sizeof health);
    fx_device_health_of(&me->card, &health);
    st = gather(s, &health, out->health, sizeof health);
    if (st == FX_OK && me->local_rank == 0 && me->visible > 0) {
        mine->first = s->rank;
        ping_node(me->visible, seconds, mine);
    }
    if (st == FX_OK) st = gather(s, mine, out->pings, sizeof *mine);
    free(mine);
    return st;
}
