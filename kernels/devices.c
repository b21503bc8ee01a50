/* The devices of this process, by the backend that is built in; contract in devices.h. */
#include "kernels/devices.h"

#include <stdio.h>
#include <string.h>

static const char none[] = "this build has no device backend; build with -DFX_CUDA=ON";

int fx_device_visible(void)
{
    const fx_device_calls *c = fx_device_calls_built();
    return c ? c->visible() : -1;
}

int fx_device_ordinal(int nth)
{
    const fx_device_calls *c = fx_device_calls_built();
    return c ? c->ordinal(nth) : nth;
}

fx_status fx_device_card_of(int device, fx_device_facts *out)
{
    const fx_device_calls *c = fx_device_calls_built();
    memset(out, 0, sizeof *out); /* padding too: it travels */
    return c ? c->card(device, out) : FX_FAIL(FX_EDEVICE, "%s", none);
}

void fx_device_health_of(const fx_device_facts *card, fx_device_health *out)
{
    const fx_device_calls *c = fx_device_calls_built();
    memset(out, 0, sizeof *out);
    out->fabric = FX_FABRIC_UNKNOWN;
    out->links = out->links_active = out->processes = -1;
    if (c)
        c->health(card, out);
    else
        snprintf(out->fault, sizeof out->fault, "%s", none);
}

fx_device_link_kind fx_device_link(const fx_device_facts *from, const fx_device_facts *to)
{
    const fx_device_calls *c = fx_device_calls_built();
    if (from->uuid[0] && !strcmp(from->uuid, to->uuid)) return FX_LINK_SELF;
    return c ? c->link(from, to) : FX_LINK_NONE;
}

fx_status fx_device_ping_pair(int from, int to, size_t bytes, double deadline_s, fx_device_ping *out)
{
    const fx_device_calls *c = fx_device_calls_built();
    *out = (fx_device_ping){.seconds = -1, .bytes = bytes, .wrong = 0};
    return c ? c->ping(from, to, bytes, deadline_s, out) : FX_FAIL(FX_EDEVICE, "%s", none);
}

void fx_device_ping_close(void)
{
    const fx_device_calls *c = fx_device_calls_built();
    if (c) c->ping_close();
}
