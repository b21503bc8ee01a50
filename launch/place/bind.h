/* Puts this process on cores of its node and its memory beside them, by the node's topology. bind.c asks hwloc; a build without
 * it has bind_none.c, which leaves everything where the launcher put it. */
#ifndef FX_LAUNCH_BIND_H
#define FX_LAUNCH_BIND_H

#include <stdbool.h>
#include <stddef.h>

typedef struct fx_bound {
    bool done;
    int cores;     /* that the process may run on now; for who reads it (place.c) */
    bool memory;   /* new memory comes from beside them */
    char text[96]; /* "cores 0-7 of NUMA node 0", or why not bound */
} fx_bound;

/* Part `part` of `parts` equal parts of the cores that the process may run on, neighbours in the topology; fewer cores than
 * parts: not bound. */
void fx_bind_share(int part, int parts, fx_bound *out);
/* The cores of a NUMA node that the process may run on; none: not bound. */
void fx_bind_node(int numa, fx_bound *out);
/* "2.9.0", or why there is none. */
const char *fx_bind_describe(void);

#endif
