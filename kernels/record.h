/* Recording a run of ops, where the device can take them all at once (CUDA graphs), and looking at results without stopping
 * it. A backend that can has a recorder (fx_backend.recorder); the others have none and every op runs when it is called.
 *
 *   begin; ops, with the same addresses each time, no upload, download or sync; end -> recording
 *   play(recording) = those ops again, in stream order, with what now lies at those addresses */
#ifndef FX_KERNELS_RECORD_H
#define FX_KERNELS_RECORD_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { FX_RECORD_SLOTS = 2 };

struct fx_recorder {
    /* Ops are noted and not run until end. Plans and code of the ops must be there: run them once before. */
    fx_status (*begin)(fx_backend *);
    /* Always after begin, also when an op failed between them; then *recording is NULL. */
    fx_status (*end)(fx_backend *, void **recording);
    fx_status (*play)(fx_backend *, void *recording);
    void (*drop)(fx_backend *, void *recording); /* NULL is nothing */
    /* The number of NaN and infinities in x[T,C], kept on the device; may be recorded. */
    fx_status (*count)(fx_backend *, fx_tensor x);
    /* Brings the number to a slot, in stream order; fetched waits until it is there, and all before it is done. */
    fx_status (*fetch)(fx_backend *, int slot);
    fx_status (*fetched)(fx_backend *, int slot, int64_t *count);
};

#ifdef __cplusplus
}
#endif
#endif
