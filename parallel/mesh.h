/* ranks = ulysses x ring. rank = ring_index * ulysses + ulysses_index: a ulysses group is a run of
 * neighbours. */
#ifndef FX_PARALLEL_MESH_H
#define FX_PARALLEL_MESH_H

#include "runtime/core/status.h"
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_mesh {
    int ranks, ulysses, ring;
} fx_mesh;

/* ulysses, ring: 0 = automatic (ulysses = gcd(heads, ranks)). An impossible pair is FX_EINVAL and names the
 * possible ones. ulysses must divide heads; ulysses * ring = ranks. */
fx_status fx_mesh_make(int ranks, int heads, int ulysses, int ring, fx_mesh *out);
/* "1x6 2x3 3x2 6x1" (ulysses x ring) into buf. */
const char *fx_mesh_choices(int ranks, int heads, char *buf, size_t size);

#ifdef __cplusplus
}
#endif
#endif
