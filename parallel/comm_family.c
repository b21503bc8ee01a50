/* Settings and statistics that a communicator shares with its splits. */
#include <stdio.h>
#include <string.h>

#include "parallel/comm_internal.h"

void fx_comm_set_timeout(fx_comm *c, double seconds)
{
    c->family->timeout_s = seconds;
}
double fx_comm_timeout(const fx_comm *c)
{
    return c->family->timeout_s;
}
void fx_comm_set_phase(fx_comm *c, const char *phase)
{
    fx_comm_family *f = c->family;
    snprintf(f->phase, sizeof f->phase, "%s", phase ? phase : "");
    f->phase_length = (int)strlen(f->phase);
    if (f->on_phase) f->on_phase(f->phase, true);
}
void fx_comm_set_part(fx_comm *c, const char *part)
{
    fx_comm_family *f = c->family;
    char *end = f->phase + f->phase_length;
    snprintf(end, sizeof f->phase - (size_t)f->phase_length, "%s%s", part ? ", " : "", part ? part : "");
    if (f->on_phase) f->on_phase(f->phase, false);
}
void fx_comm_on_phase(fx_comm *c, void (*call)(const char *phase, bool whole))
{
    c->family->on_phase = call;
}
int fx_comm_culprit(const fx_comm *c)
{
    return c->family->culprit;
}
int fx_comm_blamed(const fx_comm *c)
{
    return c->family->blamed;
}
fx_comm_stats fx_comm_statistics(const fx_comm *c)
{
    return c->family->stats;
}
void fx_comm_reset_statistics(fx_comm *c)
{
    c->family->stats = (fx_comm_stats){0};
}
