/* The report of `fluxpar doctor` for people: a line per node and thing, a matrix per way between ranks, findings, the verdict. */
#include <stdio.h>
#include <string.h>

#include "kernels/ops.h"
#include "launch/doctor/doctor.h"
#include "parallel/comm_nccl.h"

enum { MATRIX_MOST = 16 }; /* ranks; of more the extremes are told */

static double gib(int64_t bytes)
{
    return (double)bytes / 0x1p30;
}

static void print_node(const fx_doctor *d, int r)
{
    const fx_surround *me = &d->place.of[r];
    char line[512];
    fx_place_line(&d->place, r, line, sizeof line);
    printf("node     %s\n", line);
    printf("  cpu    %s, %d cores, %d NUMA node%s", me->processor[0] ? me->processor : "unknown", me->online,
           me->numa_nodes, me->numa_nodes == 1 ? "" : "s");
    if (me->quota > 0) printf(", time of %d cores (cgroup)", me->quota);
    printf("\n  memory %.1f GiB, %.1f free", gib(me->memory_total), gib(me->memory_free));
    if (me->group_free >= 0) printf(", %.1f of the container's or job's limit", gib(me->group_free));
    if (me->address_free >= 0) printf(", %.1f of address space", gib(me->address_free));
    if (me->shm_total >= 0) printf("; /dev/shm %.2f GiB, %.2f free", gib(me->shm_total), gib(me->shm_free));
    printf("; stacks %s, of threads %lld MiB\n", me->stack_limit < 0 ? "unlimited" : "limited",
           (long long)(me->thread_stack >> 20));
}

static void print_device(const fx_doctor *d, int r)
{
    const fx_surround *me = &d->place.of[r];
    const fx_device_facts *c = &me->card;
    static const char *const fabric[] = {"none", "not started", "in progress", "complete"};
    if (!c->uuid[0]) {
        printf("device   rank %d: none: %s\n", r, me->device_fault);
        return;
    }
    printf("device   rank %d: %s, %d.%d, %.1f GiB, %.11s, PCI %s, NUMA node %d, %d of %d seen, CUDA %d.%d "
           "(driver's %d.%d)",
           r, c->name, c->major, c->minor, gib((int64_t)c->total_bytes), c->uuid, c->pci, me->device_numa,
           c->ordinal, c->visible, c->runtime / 1000, c->runtime / 10 % 100, c->driver / 1000,
           c->driver / 10 % 100);
    if (d->device.health) {
        const fx_device_health *h = &d->device.health[r];
        if (h->driver[0]) printf(", driver %s", h->driver);
        if (h->links >= 0) printf(", %d of %d NVLinks up", h->links_active, h->links);
        if (h->fabric >= 0 && h->fabric <= FX_FABRIC_DONE)
            printf(", fabric %s, clique %u, IMEX channels %d", fabric[h->fabric], h->clique, me->imex);
    }
    printf("\n");
}

/* ---- matrices ---- */

static double value_of(const fx_wire_table *t, int a, int b, bool rate)
{
    const fx_wire_cell *c = &t->cell[a * t->ranks + b];
    return rate ? c->rate / 1e9 : c->latency_s * 1e6;
}

static void print_all(const fx_wire_table *t, bool rate)
{
    printf("  %6s", "rank");
    for (int b = 0; b < t->ranks; b++) printf(" %8d", b);
    printf("\n");
    for (int a = 0; a < t->ranks; a++) {
        printf("  %6d", a);
        for (int b = 0; b < t->ranks; b++) {
            if (a == b)
                printf(" %8s", "-");
            else
                printf(" %8.*f", rate ? 3 : 1, value_of(t, a, b, rate));
        }
        printf("\n");
    }
}

static void print_extremes(const fx_wire_table *t, bool rate)
{
    int low[2] = {0, 1}, high[2] = {0, 1};
    for (int a = 0; a < t->ranks; a++)
        for (int b = 0; b < t->ranks; b++) {
            if (a == b) continue;
            if (value_of(t, a, b, rate) < value_of(t, low[0], low[1], rate)) low[0] = a, low[1] = b;
            if (value_of(t, a, b, rate) > value_of(t, high[0], high[1], rate)) high[0] = a, high[1] = b;
        }
    printf("  least %.3f (rank %d with %d), most %.3f (rank %d with %d); all in --json\n",
           value_of(t, low[0], low[1], rate), low[0], low[1], value_of(t, high[0], high[1], rate), high[0],
           high[1]);
}

static void print_wires(const fx_wire_table *t)
{
    if (t->fault[0] || !t->cell) {
        printf("between  %s: not measured: %s\n", t->name, t->fault);
        return;
    }
    for (int rate = 0; rate < 2; rate++) {
        if (rate)
            printf("between  %s: GB/s one way, %d MiB\n", t->name, FX_WIRE_LARGE >> 20);
        else
            printf("between  %s: latency in us one way, %d bytes\n", t->name, FX_WIRE_SMALL);
        if (t->ranks <= MATRIX_MOST)
            print_all(t, rate);
        else
            print_extremes(t, rate);
    }
}

static void print_pings(const fx_doctor *d, const fx_node_pings *p)
{
    static const char *const kind[] = {"self", "host", "peer", "nvlink"};
    if (!p->devices) return;
    printf("copies   between the devices of %s: GB/s, %s\n", d->place.of[p->first].host, "bytes compared");
    for (int a = 0; a < p->devices; a++) {
        printf("  %6d", a);
        for (int b = 0; b < p->devices; b++) {
            const fx_ping_cell *c = &p->cell[a * FX_PINGS + b];
            char text[32];
            if (a == b)
                snprintf(text, sizeof text, "-");
            else
                snprintf(text, sizeof text, "%.1f %s",
                         c->seconds > 0 ? (double)c->bytes / c->seconds / 1e9 : 0,
                         c->wrong ? "WRONG" : kind[c->kind >= 0 && c->kind < 4 ? c->kind : 0]);
            printf(" %14s", text);
        }
        printf("\n");
    }
}

static void print_network(const fx_doctor *d)
{
    const fx_network *n = &d->network;
    for (int i = 0; i < n->faces; i++) {
        printf("network  %s %s", n->face[i].name, n->face[i].address);
        if (n->face[i].speed) printf(", %d Mbit/s", n->face[i].speed);
        printf(": reached by %d of %d that tried\n", n->reached[i], n->asked);
    }
}

void fx_doctor_print(const fx_doctor *d)
{
    const fx_run *s = d->s;
    printf("fluxpar %s doctor: %d rank%s on %d node%s\n", FX_VERSION, s->ranks, s->ranks == 1 ? "" : "s",
           s->nodes, s->nodes == 1 ? "" : "s");
    printf("mpi      %s; started by %s, wired by %s\n", fx_comm_describe(), d->start.launcher,
           d->start.wires);
    if (fx_device_libraries()) printf("library  %s, %s\n", fx_device_libraries(), fx_nccl_describe());
    printf("library  hwloc %s\n", fx_bind_describe());
    for (int r = 0; r < s->ranks; r++)
        if (fx_first_of_node(&d->place.scene, r) == r) print_node(d, r);
    for (int r = 0; d->devices && r < s->ranks; r++) print_device(d, r);
    print_network(d);
    for (int r = 0; d->device.pings && r < s->ranks; r++) print_pings(d, &d->device.pings[r]);
    for (int i = 0; i < d->wires; i++) print_wires(&d->wire[i]);
    for (int i = 0; i < d->found.n; i++) {
        const fx_finding *f = &d->found.list[i];
        printf("%-8s %s: %s\n  why    %s\n  do     %s\n", fx_level_name(f->level), f->topic, f->what, f->why,
               f->fix);
    }
    if (d->found.left_out) printf("note     %d more findings are not shown\n", d->found.left_out);
    const int bad = fx_findings_count(&d->found, FX_FOUND_FAILURE),
              warn = fx_findings_count(&d->found, FX_FOUND_WARNING);
    printf("verdict  %s: %d failure%s, %d warning%s, %.1f s\n", bad ? "a job would fail" : "ok", bad,
           bad == 1 ? "" : "s", warn, warn == 1 ? "" : "s", d->seconds);
}
