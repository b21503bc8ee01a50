/* Everything a person reads on the standard error: the one error line, notes and warnings, the lines of a
 * run. Each line is one write, so that lines of several ranks never mix. */
#ifndef FX_LAUNCH_TALK_H
#define FX_LAUNCH_TALK_H

#include "runtime/core/status.h"
#include <stdbool.h>

/* Until it is called, this process is rank 0 of 1 on this host. Installs the sink of fx_log. */
void fx_talk_open(int rank, int ranks, const char *device, bool quiet, bool verbose);
bool fx_talk_quiet(void);
const char *fx_talk_host(void);

/* The first process to claim prints; word lies in memory that the ranks of a node share. NULL: a private one,
 * and between processes of one launcher a name of this system that lives as long as its holder. */
void fx_talk_share(int *word);
void fx_talk_mute(void);  /* no error line from now on; the shared word is not used any more */
bool fx_talk_claim(void); /* async-signal-safe */
/* After the line and before the end of a process whose claim is a name: half a second in which the others, who
 * end at the same moment, find it taken. Async-signal-safe. */
void fx_talk_hold(void);

/* A line of the run: rank 0, not with -q. Adds the newline. */
__attribute__((format(printf, 1, 2))) void fx_talk(const char *fmt, ...);
/* "fluxpar: error: rank R (host, device): MESSAGE", if no other rank has printed. rank -1: this one. */
void fx_talk_error(fx_status, int rank, const char *message);

/* For signal handlers: the prefix "fluxpar: error: rank R (host, device): " and its length. */
const char *fx_talk_prefix(int *length);
/* What a rank does ("denoise step 3"): for the line of a fatal signal, and for its peers when it is gone. Two
 * texts in turn, so that a reader in a handler or in another process never sees a half-written one. */
enum { FX_PHASE_CHARS = 80 };
typedef struct fx_phase_slot {
    int which;
    char text[2][FX_PHASE_CHARS];
} fx_phase_slot;
void fx_talk_phase(const char *phase);
const char *fx_talk_phase_now(void);
/* From now on the phase is kept here (memory that the ranks of a node share); NULL: in this process. */
void fx_talk_phase_share(fx_phase_slot *);
void fx_talk_phase_of(const fx_phase_slot *, char text[FX_PHASE_CHARS]); /* async-signal-safe */

#endif
