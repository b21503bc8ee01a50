/* Inside kernels/ only: what the guard backend does before and after each call of another backend. A watch lists the
 * views of one call; before: outputs and scratch get a filler, inputs a hash; after: outputs must be written and finite,
 * inputs, what lies between the rows of outputs, and the canaries round the scratch must be as they were. */
#ifndef FX_KERNELS_GUARD_WATCH_H
#define FX_KERNELS_GUARD_WATCH_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    FX_WATCH_ARGS = 6,
    FX_WATCH_CANARY = FX_ARENA_ALIGN, /* bytes before and after the scratch of an op */
    FX_WATCH_FILLER = 0x7ffd          /* as 16-bit words a quiet NaN in f64, f32, bf16 and f16 */
};

/* ends of the messages: whose fault it is */
#define FX_WATCH_OP     "; the op broke the contract of kernels/ops.h; please report this"
#define FX_WATCH_CALLER "; the caller broke the contract of kernels/ops.h; please report this"

typedef enum { FX_WATCH_IN, FX_WATCH_OUT, FX_WATCH_INOUT } fx_watch_role;

typedef struct fx_watched {
    const char *name;
    fx_watch_role role;
    fx_tensor t;
    bool minus_inf;      /* may hold -inf: lse, bias */
    uint64_t hash;       /* IN */
    unsigned char *span; /* OUT, INOUT with gaps: all bytes from the first to the last element */
} fx_watched;

typedef struct fx_watch {
    const char *op;
    int64_t call; /* number of this call, from 1 */
    fx_watched arg[FX_WATCH_ARGS];
    int args;
    const void *weight;
    size_t weight_bytes, scratch_bytes;
    uint64_t weight_hash;
    unsigned char *scratch; /* with its canaries; NULL: none */
    bool broken_input;      /* NaN or infinity came in: it may go out */
} fx_watch;

/* Adds a view; an absent or empty one is left out. An output that is also listed as an input (the same view) is INOUT. */
void fx_watch_view(fx_watch *, const char *name, fx_watch_role, fx_tensor);
void fx_watch_inf(fx_watch *, const char *name, fx_watch_role, fx_tensor); /* the same; -inf is a value */
/* FX_ESHAPE: an input holds the filler, so nothing wrote it; FX_ENOMEM. Then release() only. */
fx_status fx_watch_before(fx_watch *);
/* FX_ESHAPE names the op, its number and what it did; FX_ENUMERIC: finite inputs gave NaN or infinity. */
fx_status fx_watch_after(fx_watch *);
void fx_watch_release(fx_watch *);

void *fx_watch_scratch(const fx_watch *); /* what the op gets */
void fx_watch_fill(fx_tensor, uint16_t pattern);
uint64_t fx_watch_hash(fx_tensor);
int64_t fx_watch_count_nonfinite(fx_tensor);

#ifdef __cplusplus
}
#endif
#endif
