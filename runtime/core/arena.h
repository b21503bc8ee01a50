/* One arena per rank: measure once (with the plan backend), reserve once, then only mark and rewind.
 * A measuring arena hands out addresses that must never be touched and records the peak. */
#ifndef FX_CORE_ARENA_H
#define FX_CORE_ARENA_H

#include "runtime/core/status.h"
#include "runtime/core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { FX_ARENA_ALIGN = 256 }; /* bytes; also what GPU libraries like */

typedef struct fx_arena fx_arena;

/* Measuring arena: no memory, any size fits. */
fx_status fx_arena_measure(fx_arena **out);
/* Real arena over memory the caller owns (`base` aligned to FX_ARENA_ALIGN), or over its own pages when base
 * is NULL (host memory, pages touched once so that a later shortage cannot kill the run). FX_ENOMEM names
 * need and have. */
fx_status fx_arena_open(void *base, size_t bytes, fx_arena **out);
void fx_arena_close(fx_arena **);

/* Contiguous tensor; each push is aligned to FX_ARENA_ALIGN. FX_ENOMEM when the plan was wrong (a bug). */
fx_status fx_push(fx_arena *, fx_dtype, int ndim, const int64_t shape[], fx_tensor *out);
fx_status fx_push1(fx_arena *, fx_dtype, int64_t n, fx_tensor *out);
fx_status fx_push2(fx_arena *, fx_dtype, int64_t rows, int64_t cols, fx_tensor *out);
fx_status fx_push3(fx_arena *, fx_dtype, int64_t x, int64_t y, int64_t z, fx_tensor *out);
size_t fx_mark(const fx_arena *);
void fx_rewind(fx_arena *, size_t mark);
size_t fx_peak(const fx_arena *); /* bytes: the largest extent ever pushed */
bool fx_arena_measuring(const fx_arena *);
/* Where an address lies, in bytes from the arena's beginning; false: outside of what was ever pushed. */
bool fx_arena_offset(const fx_arena *, const void *data, size_t *offset);

#ifdef __cplusplus
}
#endif
#endif
