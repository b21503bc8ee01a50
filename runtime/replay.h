/* What one denoise step of a size moves between ranks, moved with nothing computed: how long communication takes by itself.
 * The transfers are those of a plan of that step. Where attention's rows go by kernels, the same rows go as transfers. */
#ifndef FX_REPLAY_H
#define FX_REPLAY_H

#include "runtime/sizes.h"

#ifdef __cplusplus
extern "C" {
#endif

/* seconds[runs]: each over all ranks that moved together, the slowest rank's. The size is open; its buffers are overwritten.
 * Collective. */
fx_status fx_replay_step(fx_sizes *, int runs, double seconds[]);

#ifdef __cplusplus
}
#endif
#endif
