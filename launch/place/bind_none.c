/* Without hwloc: processes stay where the launcher put them, and threads share the allowed cores (parallel/cores.c). */
#include "launch/place/bind.h"

#include <stdio.h>

static void not_bound(fx_bound *out)
{
    *out = (fx_bound){.done = false, .cores = 0, .memory = false, .text = "not bound: built without hwloc"};
}

void fx_bind_share(int part, int parts, fx_bound *out)
{
    (void)part, (void)parts;
    not_bound(out);
}

void fx_bind_node(int numa, fx_bound *out)
{
    (void)numa;
    not_bound(out);
}

const char *fx_bind_describe(void)
{
    return "none; ranks stay where the launcher puts them (sched_getaffinity)";
}
