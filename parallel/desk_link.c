/* Words of the desk; contract in desk_link.h. A body follows its word as a transfer of its own. */
#include "parallel/desk_link.h"

#include <stdlib.h>

#include "parallel/desk.h"
#include "runtime/core/clock.h"

static const fx_ticket none = {-1, 0};

static fx_status listen(fx_link *l)
{
    const fx_xfer in = {l->peer, &l->in, sizeof l->in};
    l->body = false;
    l->in_body = NULL;
    FX_TRY(fx_comm_transfer(l->comm, 0, NULL, 1, &in, &l->in_ticket));
    l->listening = true;
    return FX_OK;
}

fx_status fx_link_open(fx_comm *c, int peer, fx_link *l)
{
    *l = (fx_link){.comm = c, .peer = peer, .heard_s = fx_now_s(), .told_s = fx_now_s()};
    for (int i = 0; i < FX_LINK_OUT; i++) l->out[i].ticket = none;
    return listen(l);
}

/* ---- hearing ---- */

static fx_status listen_for_body(fx_link *l)
{
    FX_CHECK(l->in.kind >= 0 && l->in.kind < FX_WORDS && l->in.bytes <= FX_DESK_BODY, FX_ECOMM,
             "rank %d sent word %d with %llu bytes to the desk", fx_comm_job_rank(l->comm, l->peer),
             l->in.kind, (unsigned long long)l->in.bytes);
    l->in_body = malloc(l->in.bytes);
    FX_CHECK(l->in_body, FX_ENOMEM, "no memory for a job of %llu bytes", (unsigned long long)l->in.bytes);
    const fx_xfer in = {l->peer, l->in_body, l->in.bytes};
    l->body = true;
    return fx_comm_transfer(l->comm, 0, NULL, 1, &in, &l->in_ticket);
}

/* The receive that was posted has arrived. */
static fx_status arrived(fx_link *l, bool *got, fx_word *w, void **body)
{
    l->heard_s = fx_now_s();
    if (!l->body && l->in.bytes) return listen_for_body(l);
    *got = true;
    *w = l->in;
    *body = l->in_body;
    l->listening = false;
    return w->kind == FX_WORD_END || w->kind == FX_WORD_BYE ? FX_OK : listen(l);
}

fx_status fx_link_hear(fx_link *l, bool *got, fx_word *w, void **body)
{
    bool here = true;
    *got = false;
    while (l->listening && here && !*got) {
        FX_TRY(fx_comm_poll(l->comm, &l->in_ticket, &here));
        if (here) FX_TRY(arrived(l, got, w, body));
    }
    return FX_OK;
}

fx_status fx_link_wait(fx_link *l, fx_word *w, void **body)
{
    bool got = false;
    FX_CHECK(l->listening, FX_ECOMM, "the desk waits for a word after the last one");
    while (!got) {
        FX_TRY(fx_comm_wait(l->comm, &l->in_ticket));
        FX_TRY(arrived(l, &got, w, body));
    }
    return FX_OK;
}

/* ---- telling ---- */

/* Places whose words have been heard are free again. */
static fx_status tidy(fx_link *l, int *free_places)
{
    *free_places = 0;
    for (int i = 0; i < FX_LINK_OUT; i++) {
        bool heard = false;
        if (l->out[i].busy) FX_TRY(fx_comm_poll(l->comm, &l->out[i].ticket, &heard));
        if (heard) {
            free(l->out[i].body);
            l->out[i].body = NULL;
            l->out[i].busy = false;
        }
        *free_places += !l->out[i].busy;
    }
    return FX_OK;
}

fx_status fx_link_tell(fx_link *l, const fx_word *w, void *body)
{
    int places, i = 0;
    fx_status st = tidy(l, &places);
    if (!st && !places) st = fx_link_flush(l);
    if (st) {
        free(body);
        return st;
    }
    while (l->out[i].busy) i++;
    l->out[i].word = *w;
    l->out[i].body = body;
    l->out[i].busy = true;
    l->told_s = fx_now_s();
    const fx_xfer out[2] = {{l->peer, &l->out[i].word, sizeof *w}, {l->peer, body, body ? w->bytes : 0}};
    return fx_comm_transfer(l->comm, 2, out, 0, NULL, &l->out[i].ticket);
}

fx_status fx_link_sign(fx_link *l, double interval_s)
{
    int places;
    if (fx_now_s() - l->told_s < interval_s) return FX_OK;
    FX_TRY(tidy(l, &places));
    return places > FX_LINK_OUT / 2 ? fx_link_tell(l, &(fx_word){.kind = FX_WORD_SIGN}, NULL) : FX_OK;
}

fx_status fx_link_flush(fx_link *l)
{
    int places;
    for (int i = 0; i < FX_LINK_OUT; i++)
        if (l->out[i].busy) FX_TRY(fx_comm_wait(l->comm, &l->out[i].ticket));
    return tidy(l, &places);
}

void fx_link_close(fx_link *l)
{
    for (int i = 0; i < FX_LINK_OUT; i++) free(l->out[i].body);
    if (l->listening) free(l->in_body);
    *l = (fx_link){0};
}
