/* What desk.c (every rank: words for its group) and desk_list.c (rank 0: who makes what) share. */
#ifndef FX_PARALLEL_DESK_INTERNAL_H
#define FX_PARALLEL_DESK_INTERNAL_H

#include "parallel/desk.h"
#include "parallel/desk_link.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { FX_DESK_QUEUE = 8 }; /* words that wait for a group */

typedef struct fx_desk_word {
    fx_word word;
    void *body;
} fx_desk_word;

/* Rank 0's view of the first rank of a group. */
typedef struct fx_desk_seat {
    fx_link link; /* not of rank 0 itself */
    int rank;
    int groups; /* it is the first of one of so many; 0: of none any more */
    int busy;   /* jobs it has */
} fx_desk_seat;

struct fx_desk {
    fx_comm *world, *team; /* borrowed */
    fx_comm **line;        /* [lines] for words; NULL where this rank is not in it */
    int lines, rank, groups;
    fx_groups policy;
    fx_desk_calls calls;
    double interval_s; /* between signs */
    /* the first rank of a group */
    fx_link link; /* to rank 0 */
    fx_desk_word queue[FX_DESK_QUEUE];
    int queued;
    bool stopping;    /* rank 0 was told */
    bool finished;    /* all words have been heard */
    bool drop;        /* jobs in it are not made any more */
    fx_status failed; /* of a tick */
    char failed_text[1024];
    /* rank 0 */
    fx_desk_seat *seat;
    int seats, stage; /* stage: groups of this stage, which some may not have moved to yet */
    int64_t left;     /* jobs of this stage that are not handed out */
    bool over, ended; /* nothing more is handed out; END is told */
    fx_status verdict;
    int blamed;
    char verdict_text[960]; /* as long as a word's */
    double served_s;
};

/* A word for this rank's own group. Takes the body. */
fx_status fx_desk_queue(fx_desk *, const fx_word *, void *body);

/* ---- rank 0 ---- */
fx_status fx_desk_open_list(fx_desk *);
void fx_desk_close_list(fx_desk *);
/* Hears all, decides, tells: never waits. */
fx_status fx_desk_serve(fx_desk *);
/* A word of the group whose first rank has this seat. Takes the body. */
fx_status fx_desk_heard(fx_desk *, int seat, const fx_word *, void *body);
fx_status fx_desk_wait_byes(fx_desk *);

#ifdef __cplusplus
}
#endif
#endif
