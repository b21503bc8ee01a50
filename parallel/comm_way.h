/* By which way rows in device memory go between ranks. A decision only, from facts that all ranks share, so that all of them
 * decide alike; comm_nccl.c gathers the facts and goes. */
#ifndef FX_PARALLEL_COMM_WAY_H
#define FX_PARALLEL_COMM_WAY_H

#include "parallel/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Transfers of NCCL; or a rank writes into the others' memory, which it reaches by CUDA's handles (IPC; one node) or through
 * NCCL's windows (one NVLink domain, also of many nodes). */
typedef enum { FX_WAY_NCCL, FX_WAY_IPC, FX_WAY_WINDOWS } fx_way;

typedef struct fx_way_facts {
    fx_wire want;
    bool force_windows;     /* FLUXPAR_WINDOWS=1 */
    const char *no_ipc;     /* why these ranks cannot use CUDA's handles; NULL: they may be able to */
    const char *no_windows; /* why there are no windows; NULL: there are */
    int ranks, team;        /* team: as many ranks reach each other's memory by load and store, says NCCL */
    bool alone;             /* one node, and some rank sees no device but its own (comm_fit.h) */
} fx_way_facts;

enum { FX_WAY_TEXT = 256 };
/* The way to try. It may turn out not to be there: then ask again with one more fact. why: of FX_WAY_NCCL where something else
 * was possible to ask for, else "". FX_EDEVICE: what was named (peer, lsa, FLUXPAR_WINDOWS) is not possible, and why; or ranks
 * lost the way to each other's memory because they see one device each, and NCCL was not asked for by name. */
fx_status fx_way_choose(const fx_way_facts *, fx_way *way, char why[FX_WAY_TEXT]);
/* How a run names it: by kernels, rows of attention are stored and only the rest is copied. */
const char *fx_way_name(fx_way, bool by_kernels);

#ifdef __cplusplus
}
#endif
#endif
