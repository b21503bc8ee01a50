/* Who measures with whom in which round; contract in doctor.h. */
#include "launch/doctor/doctor.h"

enum { ALONE = 8 }; /* ranks of which one pair at a time is measured */

int fx_wire_rounds(int ranks)
{
    if (ranks <= ALONE) return ranks * (ranks - 1) / 2;
    return ranks + ranks % 2 - 1;
}

/* All in pairs: places in a circle, of which the last stands still; an odd one out plays with nobody. */
static int partner_in_circle(int ranks, int round, int rank)
{
    const int n = ranks + ranks % 2 - 1; /* places that turn */
    int other = rank == n ? round * ((n + 1) / 2) % n : ((round - rank) % n + n) % n;
    if (rank != n && other == rank) other = n;
    return other < ranks ? other : -1;
}

int fx_wire_partner(int ranks, int round, int rank)
{
    if (ranks > ALONE) return partner_in_circle(ranks, round, rank);
    for (int a = 0; a < ranks; a++)
        for (int b = a + 1; b < ranks; b++)
            if (!round--) return rank == a ? b : rank == b ? a : -1;
    return -1;
}
