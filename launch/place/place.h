/* Where the ranks of a run are: their surroundings exchanged and judged before any work, each rank bound to its cores, one line
 * per node. */
#ifndef FX_LAUNCH_PLACE_H
#define FX_LAUNCH_PLACE_H

#include "launch/place/bind.h"
#include "launch/bootstrap.h"
#include "launch/place/judge.h"

typedef struct fx_place {
    fx_scene scene;
    fx_surround *of;   /* [ranks] before binding */
    fx_bound *bound;   /* [ranks] */
    fx_findings found; /* for who judges the scene */
    fx_device_link_kind worst,
        best; /* links between the devices of a node's ranks, as its first rank sees them */
} fx_place;

/* Collective. Looks, exchanges, binds (bind "off": not). devices: the run computes on devices. Free it also after a
 * failure. */
fx_status fx_place_open(fx_run *, bool devices, const char *bind, int threads, fx_place *out);
void fx_place_close(fx_place *);
/* "host: ranks 0-3; 64 cores, 16 each (cores 0-15 ...); 4 x NVIDIA H200; NVLink" of the node whose lowest rank is `first`. */
void fx_place_line(const fx_place *, int first, char *out, size_t size);

/* For runs: the above, warnings and the lines of all nodes on rank 0's standard error, and the first failure as this run's. */
fx_status fx_place_run(fx_run *, const fx_options *);

#endif
