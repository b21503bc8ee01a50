/* Signs of a rank that works alone; contract in beats.h. */
#include "parallel/beats.h"

enum { ON, OVER };

static fx_status beat(fx_beats *b, int word)
{
    if (b->status == FX_OK && b->comm && fx_comm_size(b->comm) > 1)
        b->status = fx_comm_broadcast(b->comm, 0, &word, sizeof word);
    return b->status;
}

fx_status fx_beats_on(fx_beats *b)
{
    return beat(b, ON);
}

fx_status fx_beats_over(fx_beats *b)
{
    return beat(b, OVER);
}

fx_status fx_beats_wait(fx_comm *comm)
{
    int word = ON;
    while (word != OVER) FX_TRY(fx_comm_broadcast(comm, 0, &word, sizeof word));
    return FX_OK;
}
