/* Words between rank 0 and the first rank of a group, told and heard without waiting. Private to the desk. */
#ifndef FX_PARALLEL_DESK_LINK_H
#define FX_PARALLEL_DESK_LINK_H

#include "parallel/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    FX_WORD_SIGN,    /* I live */
    FX_WORD_JOB,     /* number, body */
    FX_WORD_DONE,    /* number, status, text, blamed; body */
    FX_WORD_MOVE,    /* groups */
    FX_WORD_DROP,    /* jobs that were not begun are not made */
    FX_WORD_DROPPED, /* number: was not made */
    FX_WORD_END,     /* status, text, blamed: no more comes */
    FX_WORD_STOP,    /* a rank of this group was asked to stop */
    FX_WORD_BYE,     /* no more comes from a first rank */
    FX_WORDS
} fx_word_kind;

typedef struct fx_word {
    int32_t kind, groups, status, blamed;
    int64_t number;
    uint64_t bytes; /* of the body that follows */
    char text[960];
} fx_word;

enum {
    FX_LINK_OUT = 7,
    FX_LINK_PEERS = 8
}; /* words under way; links of one communicator: its tickets are FX_COMM_SLOTS */

typedef struct fx_link {
    fx_comm *comm;
    int peer;
    double heard_s, told_s; /* when a word came, when one was told */
    bool listening, body;   /* a receive is posted; it is that of in's body */
    fx_word in;
    void *in_body;
    fx_ticket in_ticket;
    struct {
        fx_word word;
        void *body;
        fx_ticket ticket;
        bool busy;
    } out[FX_LINK_OUT];
} fx_link;

/* Listens to the peer. The link stays where it is until it is closed: its memory is that of transfers. */
fx_status fx_link_open(fx_comm *, int peer, fx_link *);
/* *got: a word is here, its body (malloc'ed, or NULL) is the caller's. Then listens on, unless it was the last one. */
fx_status fx_link_hear(fx_link *, bool *got, fx_word *, void **body);
/* The same, but waits for it: deadline and stop flag of fx_comm_wait. */
fx_status fx_link_wait(fx_link *, fx_word *, void **body);
/* Takes the body. */
fx_status fx_link_tell(fx_link *, const fx_word *, void *body);
/* Says that this rank lives, if nothing was told for interval_s and not too much is under way. */
fx_status fx_link_sign(fx_link *, double interval_s);
/* Until all that was told has been heard. */
fx_status fx_link_flush(fx_link *);
void fx_link_close(fx_link *); /* after the last word, flushed */

#ifdef __cplusplus
}
#endif
#endif
