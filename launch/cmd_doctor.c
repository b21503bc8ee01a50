/* `fluxpar doctor`: what this machine or allocation can do, and what is wrong with it. Looks, measures between all ranks, judges
 * and prints. Exit code 0: a job should run; 1: something would make it fail. A rank that is lost meanwhile ends it as
 * any run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "launch/commands.h"
#include "launch/doctor/doctor.h"
#include "launch/model_look.h"
#include "launch/signals.h"
#include "launch/talk.h"
#include "runtime/core/clock.h"

static const double PING_S = 10,
                    NETWORK_S = 2; /* deadlines of a probe, where the ranks' own does not count */

/* The ranks could not meet: the launcher's first process looks at what it sees, and that they could not is a finding. */
static fx_status go_alone(fx_run *s)
{
    s->ranks = s->nodes = 1;
    return fx_comm_open("self", s->timeout_s, &s->comm);
}

/* Devices are looked at where any rank sees one, or they were asked for by name. */
static fx_status choose_devices(fx_doctor *d, const fx_options *o)
{
    int64_t most = strcmp(o->backend, "auto") && strcmp(o->backend, "cuda") ? -1 : fx_device_visible();
    char why[256];
    snprintf(why, sizeof why, "%s", most == 0 ? fx_error() : "");
    FX_TRY(fx_comm_all_reduce_i64(d->s->comm, FX_MAX, &most, 1));
    d->devices = most > 0 || !strcmp(o->backend, "cuda");
    if (most == 0 && !d->devices)
        fx_find(&d->found, FX_FOUND_NOTE, FX_EDEVICE, "devices",
                "no GPU is seen, so pictures are computed on the CPU\n%s\nsee 'nvidia-smi' if there should "
                "be one",
                why);
    return FX_OK;
}

static fx_status measure_devices(fx_doctor *d)
{
    bool good = true;
    FX_TRY(fx_devices_probe(d->s, &d->place.scene, PING_S, &d->device));
    for (int r = 0; r < d->s->ranks; r++)
        good = good && !d->place.of[r].device_fault[0] && !d->device.pings[r].fault[0];
    good = good && !fx_findings_count(&d->place.found, FX_FOUND_FAILURE); /* a shared device would end NCCL */
    if (d->s->ranks < 2 || !good) return FX_OK;
    FX_TRY(fx_wires_device(d->s, false, &d->wire[d->wires++]));
    return fx_wires_device(d->s, true, &d->wire[d->wires++]);
}

/* Weights in bf16: of the CPU once per node, of devices on each. */
static fx_status look_at_model(fx_doctor *d, const char *model)
{
    static fx_look look;
    int64_t values = 0;
    fx_status st = FX_OK;
    if (d->s->rank == 0) st = fx_look_at(model, &look);
    FX_TRY(fx_run_vote(d->s, st));
    if (d->s->rank == 0 && !look.problems) fx_look_weights(model, &look);
    for (int i = 0; i < FX_LOOK_PARTS; i++) values += look.part[i].parameters;
    if (look.problems)
        fx_find(&d->found, FX_FOUND_FAILURE, FX_EFORMAT, "model",
                "model %s cannot be used\n%s\nsee 'fluxpar inspect'", model, look.problem[0]);
    FX_TRY(fx_comm_broadcast(d->s->comm, 0, &values, sizeof values));
    d->place.scene.node_bytes = d->devices ? 0 : 2 * (uint64_t)values;
    d->place.scene.device_bytes = d->devices ? 2 * (uint64_t)values : 0;
    return FX_OK;
}

static fx_status measure(fx_doctor *d, const fx_options *o)
{
    fx_run *s = d->s;
    FX_TRY(fx_place_open(s, d->devices, "auto", 0, &d->place));
    if (o->model) FX_TRY(look_at_model(d, o->model));
    fx_judge_scene(&d->place.scene, &d->place.found);
    if (s->ranks > 1) {
        FX_TRY(fx_network_probe(s, &d->place.scene, NETWORK_S, &d->network));
        FX_TRY(fx_wires_host(s, &d->wire[d->wires++]));
    }
    return d->devices ? measure_devices(d) : FX_OK;
}

static void add_all(fx_findings *to, const fx_findings *from)
{
    for (int i = 0; i < from->n && to->n < FX_FINDINGS; i++) to->list[to->n++] = from->list[i];
    to->left_out += from->left_out;
}

static void judge(fx_doctor *d)
{
    const fx_scene *s = &d->place.scene;
    const char *trouble = d->s->trouble;
    fx_judge_start(&d->start, d->s->ranks, &d->found);
    if (trouble[0] && !fx_findings_count(&d->found, FX_FOUND_FAILURE))
        fx_find(&d->found, FX_FOUND_FAILURE, FX_EINVAL, "mpi",
                "the ranks do not meet, or do not run the same\n%s\nfluxpar ends like that on every such job",
                trouble);
    add_all(&d->found, &d->place.found);
    fx_judge_network(s, d->s->nodes, &d->network, &d->found);
    for (int i = 0; i < d->wires; i++) fx_judge_wires(s, &d->wire[i], &d->found);
    if (!d->device.health) return;
    fx_judge_health(s, d->s->nodes, d->device.health, &d->found);
    for (int r = 0; r < d->s->ranks; r++)
        if (d->device.pings[r].devices || d->device.pings[r].fault[0])
            fx_judge_pings(s, &d->device.pings[r], &d->found);
}

static fx_status report(fx_doctor *d, const fx_options *o)
{
    int64_t bad = fx_findings_count(&d->found, FX_FOUND_FAILURE) > 0;
    fx_status st = FX_OK;
    d->seconds = fx_run_age(d->s);
    if (d->s->rank == 0) {
        if (o->json)
            st = fx_doctor_json(d);
        else
            fx_doctor_print(d);
        if (st == FX_OK) st = fx_results_written();
    }
    FX_TRY(fx_run_vote(d->s, st));
    FX_TRY(fx_comm_all_reduce_i64(d->s->comm, FX_MAX, &bad, 1));
    d->s->verdict = bad != 0;
    return FX_OK;
}

static void close_all(fx_doctor *d)
{
    for (int i = 0; i < d->wires; i++) free(d->wire[i].cell);
    free(d->device.health);
    free(d->device.pings);
    fx_place_close(&d->place);
}

fx_status fx_cmd_doctor(fx_run *s, const fx_options *o)
{
    const bool met = s->comm != NULL;
    const fx_roots roots = fx_roots_default();
    if (!met && s->rank != 0) { /* the first one speaks */
        fx_signals_leave_last(1);
        s->verdict = 1;
        return FX_OK;
    }
    fx_doctor *d = calloc(1, sizeof *d);
    FX_CHECK(d, FX_ENOMEM, "no memory for a report");
    d->s = s;
    d->start = fx_start_look(&roots);
    fx_status st = met ? FX_OK : go_alone(s);
    if (st == FX_OK) st = choose_devices(d, o);
    if (st == FX_OK) st = measure(d, o);
    if (st == FX_OK) judge(d);
    if (st == FX_OK) st = report(d, o);
    close_all(d);
    free(d);
    return st;
}
