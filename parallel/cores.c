/* Threads per rank, from the affinity masks of all ranks. Called once when a pipeline opens. */
#include "parallel/cores.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What a rank tells the others: its host and which cores it may run on. */
typedef struct place {
    char host[64];
    cpu_set_t cores;
} place;

static void here(place *p)
{
    memset(p, 0, sizeof *p);
    if (gethostname(p->host, sizeof p->host - 1)) p->host[0] = '\0';
    if (sched_getaffinity(0, sizeof p->cores, &p->cores)) CPU_SET(0, &p->cores);
}

int fx_cores_allowed(void)
{
    place p;
    here(&p);
    const int n = CPU_COUNT(&p.cores);
    return n > 0 ? n : 1;
}

static bool shares(const place *a, const place *b)
{
    cpu_set_t both;
    CPU_AND(&both, &a->cores, &b->cores);
    return !strcmp(a->host, b->host) && CPU_COUNT(&both) > 0;
}

fx_status fx_cores_threads(fx_comm *comm, int asked, int *threads)
{
    const int ranks = fx_comm_size(comm), rank = fx_comm_rank(comm);
    place *all = calloc((size_t)ranks, sizeof *all);
    size_t *where = calloc(2 * (size_t)ranks, sizeof *where);
    place mine;
    here(&mine);
    fx_status st = all && where ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for the places of %d ranks", ranks);
    for (int i = 0; !st && i < ranks; i++) {
        where[i] = sizeof mine;
        where[ranks + i] = (size_t)i * sizeof mine;
    }
    if (!st) st = fx_comm_all_gather(comm, &mine, all, where, where + ranks);
    int sharing = 0;
    for (int i = 0; !st && i < ranks; i++) sharing += i == rank || shares(&mine, &all[i]);
    if (!st) {
        const int share = CPU_COUNT(&mine.cores) / (sharing ? sharing : 1);
        *threads = asked > 0 ? asked : share > 1 ? share : 1;
    }
    free(all);
    free(where);
    return st;
}
