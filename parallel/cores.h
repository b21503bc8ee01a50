/* How many compute threads a rank may use: its allowed cores, shared fairly with the node's ranks that may
 * use the same ones. */
#ifndef FX_PARALLEL_CORES_H
#define FX_PARALLEL_CORES_H

#include "parallel/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* asked > 0 is taken as it is; 0: max(1, allowed cores / ranks of this node that share them). Collective. */
fx_status fx_cores_threads(fx_comm *, int asked, int *threads);
int fx_cores_allowed(void); /* of this process, from its affinity mask */

#ifdef __cplusplus
}
#endif
#endif
