/* How each rank is bound; contract in judge.h. Ranks whose launcher gave them the same cores divide these among themselves; those
 * with cores of their own keep them. Ranks on devices go to the NUMA node of theirs. */
#include "launch/place/judge.h"

#include <string.h>

fx_binding fx_binding_of(const fx_scene *s, int rank, const char *bind)
{
    const fx_surround *me = &s->of[rank];
    int part = 0, parts = 0;
    if (!strcmp(bind, "off")) return (fx_binding){.number = 0, .parts = -1, .why = "--bind off"};
    if (me->openmp[0]) return (fx_binding){.number = 0, .parts = -1, .why = me->openmp};
    if (s->devices && me->device_numa >= 0 && me->numa_nodes > 1)
        return (fx_binding){.number = me->device_numa, .parts = 0, .why = NULL};
    for (int r = 0; r < s->ranks; r++) {
        const fx_surround *you = &s->of[r];
        if (strcmp(you->host, me->host) || strcmp(you->allowed_list, me->allowed_list)) continue;
        part += r < rank;
        parts++;
    }
    if (parts < 2) return (fx_binding){.number = 0, .parts = -1, .why = "cores of its own"};
    if (s->threads > me->allowed / parts)
        return (fx_binding){.number = 0, .parts = -1, .why = "more threads than its share of cores"};
    return (fx_binding){.number = part, .parts = parts, .why = NULL};
}
