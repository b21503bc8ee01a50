/* Finite-number checks. Every step counts the non-finite values of the noise prediction over all ranks
 * (together with the stop flag, so that all ranks decide alike); on a hit the step is run again and each
 * block's output is scanned, to name the first block and rank. */
#ifndef FX_WATCH_H
#define FX_WATCH_H

#include "runtime/session.h"

#ifdef __cplusplus
extern "C" {
#endif

/* After fx_session_step, or, in a session that runs ahead, after that of the next step. Waits until the step is over.
 * FX_ENUMERIC or FX_ESIGNAL on all ranks, or FX_OK on all; after a wish (fx_stop_wish) FX_ESIGNAL by a vote, and the ranks may go
 * on. Collective. */
fx_status fx_watch_step(fx_session *, int step);
/* The decoder's output, before it becomes bytes: NaN would become black. Collective. */
fx_status fx_watch_pixels(fx_session *, fx_tensor pixels);

#ifdef __cplusplus
}
#endif
#endif
