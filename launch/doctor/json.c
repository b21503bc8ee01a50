/* The report of `fluxpar doctor` as JSON; rows and columns of matrices are ranks (of copies: devices of the node). */
#include <jansson.h>
#include <stdio.h>

#include "kernels/ops.h"
#include "launch/doctor/doctor.h"
#include "parallel/comm_nccl.h"

static json_t *text(const char *value)
{
    json_t *t = json_string(value);
    return t ? t : json_string("not UTF-8");
}

/* -1: no limit, or unknown. */
static json_t *limit(int64_t value)
{
    return value < 0 ? json_null() : json_integer((json_int_t)value);
}

static void set(json_t *object, const char *key, json_t *value)
{
    json_object_set_new(object, key, value); /* without memory the result is refused at the end */
}

static json_t *health_json(const fx_device_health *h)
{
    json_t *o = json_object();
    set(o, "driver", text(h->driver));
    set(o, "used_bytes", json_integer((json_int_t)h->used_bytes));
    set(o, "processes", limit(h->processes));
    set(o, "nvlinks", limit(h->links));
    set(o, "nvlinks_active", limit(h->links_active));
    set(o, "fabric_state", limit(h->fabric));
    set(o, "fabric_error", json_integer(h->fabric_error));
    set(o, "cluster", text(h->cluster));
    set(o, "clique", json_integer((json_int_t)h->clique));
    set(o, "unknown_because", text(h->fault));
    return o;
}

static json_t *device_json(const fx_doctor *d, int r)
{
    const fx_surround *me = &d->place.of[r];
    const fx_device_facts *c = &me->card;
    if (!d->devices) return json_null();
    json_t *o = json_object();
    set(o, "name", text(c->name));
    set(o, "uuid", text(c->uuid));
    set(o, "pci", text(c->pci));
    set(o, "ordinal", json_integer(c->ordinal));
    set(o, "visible", json_integer(me->visible));
    set(o, "numa_node", limit(me->device_numa));
    set(o, "total_bytes", json_integer((json_int_t)c->total_bytes));
    set(o, "compute_capability", json_sprintf("%d.%d", c->major, c->minor));
    set(o, "cuda_driver", json_integer(c->driver));
    set(o, "cuda_runtime", json_integer(c->runtime));
    set(o, "imex_channels", json_integer(me->imex));
    set(o, "fault", text(me->device_fault));
    if (d->device.health) set(o, "health", health_json(&d->device.health[r]));
    return o;
}

static json_t *rank_json(const fx_doctor *d, int r)
{
    const fx_surround *me = &d->place.of[r];
    const fx_bound *b = &d->place.bound[r];
    json_t *o = json_object();
    set(o, "rank", json_integer(r));
    set(o, "host", text(me->host));
    set(o, "cores_online", json_integer(me->online));
    set(o, "cores_allowed", json_integer(me->allowed));
    set(o, "cores_quota", limit(me->quota));
    set(o, "numa_nodes", json_integer(me->numa_nodes));
    set(o, "processor", text(me->processor));
    set(o, "cores", json_integer(b->cores));
    set(o, "bound", json_boolean(b->done));
    set(o, "placed", text(b->text));
    set(o, "memory_bytes", json_integer((json_int_t)me->memory_total));
    set(o, "memory_free_bytes", json_integer((json_int_t)me->memory_free));
    set(o, "group_free_bytes", limit(me->group_free));
    set(o, "address_free_bytes", limit(me->address_free));
    set(o, "shm_bytes", limit(me->shm_total));
    set(o, "shm_free_bytes", limit(me->shm_free));
    set(o, "stack_bytes", limit(me->stack_limit));
    set(o, "thread_stack_bytes", json_integer((json_int_t)me->thread_stack));
    set(o, "settings", text(me->settings));
    set(o, "device", device_json(d, r));
    return o;
}

static json_t *matrix(const fx_wire_table *t, int what)
{
    json_t *rows = json_array();
    for (int a = 0; t->cell && a < t->ranks; a++) {
        json_t *row = json_array();
        for (int b = 0; b < t->ranks; b++) {
            const fx_wire_cell *c = &t->cell[a * t->ranks + b];
            json_t *v = a == b      ? json_null()
                        : what == 0 ? json_real(c->latency_s * 1e6)
                        : what == 1 ? json_real(c->rate)
                                    : json_integer((json_int_t)c->wrong);
            json_array_append_new(row, v);
        }
        json_array_append_new(rows, row);
    }
    return rows;
}

static json_t *wire_json(const fx_wire_table *t)
{
    json_t *o = json_object();
    set(o, "name", text(t->name));
    set(o, "fault", text(t->fault));
    set(o, "small_bytes", json_integer(FX_WIRE_SMALL));
    set(o, "large_bytes", json_integer(FX_WIRE_LARGE));
    set(o, "latency_us", matrix(t, 0));
    set(o, "bytes_per_s", matrix(t, 1));
    set(o, "wrong_bytes", matrix(t, 2));
    return o;
}

static json_t *pings_json(const fx_doctor *d, const fx_node_pings *p)
{
    static const char *const kind[] = {"self", "host", "peer", "nvlink"};
    json_t *o = json_object(), *cells = json_array();
    for (int a = 0; a < p->devices; a++)
        for (int b = 0; b < p->devices; b++) {
            const fx_ping_cell *c = &p->cell[a * FX_PINGS + b];
            if (a == b) continue;
            json_t *one = json_object();
            set(one, "from", json_integer(a));
            set(one, "to", json_integer(b));
            set(one, "link", text(kind[c->kind >= 0 && c->kind < 4 ? c->kind : 0]));
            set(one, "seconds", json_real(c->seconds));
            set(one, "bytes", json_integer((json_int_t)c->bytes));
            set(one, "wrong", json_integer((json_int_t)c->wrong));
            json_array_append_new(cells, one);
        }
    set(o, "host", text(d->place.of[p->first].host));
    set(o, "fault", text(p->fault));
    set(o, "copies", cells);
    return o;
}

static json_t *network_json(const fx_network *n)
{
    json_t *list = json_array();
    for (int i = 0; i < n->faces; i++) {
        json_t *o = json_object();
        set(o, "interface", text(n->face[i].name));
        set(o, "address", text(n->face[i].address));
        set(o, "mbit_per_s", json_integer(n->face[i].speed));
        set(o, "tried_by", json_integer(n->asked));
        set(o, "reached_by", json_integer(n->reached[i]));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *findings_json(const fx_findings *f)
{
    json_t *list = json_array();
    for (int i = 0; i < f->n; i++) {
        json_t *o = json_object();
        set(o, "level", text(fx_level_name(f->list[i].level)));
        set(o, "topic", text(f->list[i].topic));
        set(o, "what", text(f->list[i].what));
        set(o, "why", text(f->list[i].why));
        set(o, "do", text(f->list[i].fix));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *mpi_json(const fx_doctor *d)
{
    json_t *o = json_object();
    set(o, "library", text(fx_comm_describe()));
    set(o, "launcher", text(d->start.launcher));
    set(o, "wires", text(d->start.wires));
    set(o, "tasks", json_integer(d->start.tasks));
    set(o, "job_tasks", json_integer(d->start.job_tasks));
    return o;
}

fx_status fx_doctor_json(const fx_doctor *d)
{
    json_t *root = json_object(), *ranks = json_array(), *wires = json_array(), *pings = json_array();
    for (int r = 0; r < d->s->ranks; r++) json_array_append_new(ranks, rank_json(d, r));
    for (int i = 0; i < d->wires; i++) json_array_append_new(wires, wire_json(&d->wire[i]));
    for (int r = 0; d->device.pings && r < d->s->ranks; r++)
        if (d->device.pings[r].devices) json_array_append_new(pings, pings_json(d, &d->device.pings[r]));
    set(root, "version", text(FX_VERSION));
    set(root, "ranks", json_integer(d->s->ranks));
    set(root, "nodes", json_integer(d->s->nodes));
    set(root, "mpi", mpi_json(d));
    set(root, "hwloc", text(fx_bind_describe()));
    set(root, "libraries", fx_device_libraries() ? text(fx_device_libraries()) : json_null());
    set(root, "nccl", text(fx_nccl_describe()));
    set(root, "rank", ranks);
    set(root, "network", network_json(&d->network));
    set(root, "devices", pings);
    set(root, "between", wires);
    set(root, "findings", findings_json(&d->found));
    set(root, "left_out", json_integer(d->found.left_out));
    set(root, "failures", json_integer(fx_findings_count(&d->found, FX_FOUND_FAILURE)));
    set(root, "warnings", json_integer(fx_findings_count(&d->found, FX_FOUND_WARNING)));
    set(root, "seconds", json_real(d->seconds));
    const int bad = json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(8));
    putchar('\n');
    json_decref(root);
    return bad ? FX_FAIL(FX_EWRITE,
                         "the report cannot be written as JSON; check where the standard output goes")
               : FX_OK;
}
