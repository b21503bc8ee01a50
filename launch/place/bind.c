/* Binding by hwloc; see bind.h. Cores are what the system runs threads on, hyperthreads included, in the order of the topology,
 * so that the parts of a machine are neighbours. A launcher's mask is never widened. Memory is preferred, not forced: weights
 * larger than a node's memory still fit. */
#include "launch/place/bind.h"

#include <errno.h>
#include <hwloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is needed of the topology and no more: it is quick then. NULL: hwloc could not read it. */
static hwloc_topology_t open_topology(void)
{
    hwloc_topology_t t;
    setenv("HWLOC_HIDE_ERRORS", "2",
           0); /* it would print a page about firmware that describes the machine wrongly */
    if (hwloc_topology_init(&t)) return NULL;
    hwloc_topology_set_all_types_filter(t, HWLOC_TYPE_FILTER_KEEP_NONE);
    hwloc_topology_set_type_filter(t, HWLOC_OBJ_CORE, HWLOC_TYPE_FILTER_KEEP_ALL);
    hwloc_topology_set_type_filter(t, HWLOC_OBJ_PACKAGE, HWLOC_TYPE_FILTER_KEEP_ALL);
    if (hwloc_topology_load(t)) {
        hwloc_topology_destroy(t);
        return NULL;
    }
    return t;
}

static void describe(hwloc_topology_t t, hwloc_const_cpuset_t set, hwloc_const_nodeset_t nodes, fx_bound *out)
{
    char cores[64], list[32];
    hwloc_bitmap_list_snprintf(cores, sizeof cores, set);
    hwloc_bitmap_list_snprintf(list, sizeof list, nodes);
    out->cores = hwloc_bitmap_weight(set);
    snprintf(out->text, sizeof out->text, "core%s %.40s", out->cores == 1 ? "" : "s", cores);
    if (hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_NUMANODE) < 2) return;
    const size_t at = strlen(out->text);
    snprintf(out->text + at, sizeof out->text - at, " of NUMA node%s %.20s",
             hwloc_bitmap_weight(nodes) == 1 ? "" : "s", list);
}

static void bind_to(hwloc_topology_t t, hwloc_const_cpuset_t set, fx_bound *out)
{
    hwloc_nodeset_t nodes = hwloc_bitmap_alloc();
    if (!nodes || hwloc_set_cpubind(t, set, HWLOC_CPUBIND_PROCESS)) {
        snprintf(out->text, sizeof out->text, "not bound: %.60s", nodes ? strerror(errno) : "no memory");
        hwloc_bitmap_free(nodes);
        return;
    }
    hwloc_cpuset_to_nodeset(t, set, nodes);
    out->done = true;
    describe(t, set, nodes, out);
    /* the policy of this thread, which later ones inherit; containers may forbid it, and first use decides then */
    if (hwloc_bitmap_weight(nodes) == 1 && hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_NUMANODE) > 1)
        out->memory =
            !hwloc_set_membind(t, nodes, HWLOC_MEMBIND_BIND, HWLOC_MEMBIND_THREAD | HWLOC_MEMBIND_BYNODESET);
    hwloc_bitmap_free(nodes);
}

/* The cores that the process may run on, and that exist. */
static bool allowed_cores(hwloc_topology_t t, hwloc_bitmap_t out)
{
    if (hwloc_get_cpubind(t, out, HWLOC_CPUBIND_PROCESS)) return false;
    hwloc_bitmap_and(out, out, hwloc_topology_get_topology_cpuset(t));
    return !hwloc_bitmap_iszero(out);
}

/* Keeps `count` cores of `set` from number `from` on, in the topology's order. */
static void keep_some(hwloc_topology_t t, hwloc_bitmap_t set, int from, int count)
{
    const int all = hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_PU);
    int seen = 0;
    for (int i = 0; i < all; i++) {
        const unsigned core = hwloc_get_obj_by_type(t, HWLOC_OBJ_PU, (unsigned)i)->os_index;
        if (!hwloc_bitmap_isset(set, core)) continue;
        if (seen < from || seen >= from + count) hwloc_bitmap_clr(set, core);
        seen++;
    }
}

static void share(hwloc_topology_t t, hwloc_bitmap_t set, int part, int parts, fx_bound *out)
{
    const int each = hwloc_bitmap_weight(set) / parts;
    if (each < 1) {
        snprintf(out->text, sizeof out->text, "not bound: %d ranks share %d core%s", parts,
                 hwloc_bitmap_weight(set), hwloc_bitmap_weight(set) == 1 ? "" : "s");
        return;
    }
    keep_some(t, set, part * each, each);
    bind_to(t, set, out);
}

static void node(hwloc_topology_t t, hwloc_bitmap_t set, int numa, fx_bound *out)
{
    const hwloc_obj_t at = hwloc_get_numanode_obj_by_os_index(t, (unsigned)numa);
    if (at) hwloc_bitmap_and(set, set, at->cpuset);
    if (at && !hwloc_bitmap_iszero(set))
        bind_to(t, set, out);
    else
        snprintf(out->text, sizeof out->text, "not bound: no allowed core is on NUMA node %d", numa);
}

/* parts 0: to NUMA node `number`; else part `number` of the cores. */
static void bind(int number, int parts, fx_bound *out)
{
    *out = (fx_bound){.done = false, .cores = 0, .memory = false, .text = "not bound: no topology"};
    hwloc_topology_t t = open_topology();
    hwloc_bitmap_t set = t ? hwloc_bitmap_alloc() : NULL;
    if (set && allowed_cores(t, set)) {
        if (parts > 0)
            share(t, set, number, parts, out);
        else
            node(t, set, number, out);
    }
    hwloc_bitmap_free(set);
    if (t) hwloc_topology_destroy(t);
}

void fx_bind_share(int part, int parts, fx_bound *out)
{
    bind(part, parts > 1 ? parts : 1, out);
}

void fx_bind_node(int numa, fx_bound *out)
{
    bind(numa, 0, out);
}

const char *fx_bind_describe(void)
{
    static char text[32];
    const unsigned v = hwloc_get_api_version();
    snprintf(text, sizeof text, "%u.%u.%u", v >> 16, v >> 8 & 255, v & 255);
    return text;
}
