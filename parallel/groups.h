/* Groups: ranks that make different pictures at the same time. P ranks = G groups x (ulysses x ring). Latency comes first: with
 * fewer pictures waiting than groups, groups merge into fewer, wider ones, at the end of a picture. Decisions only, from
 * numbers that rank 0 knows; who carries them out is parallel/desk.c. */
#ifndef FX_PARALLEL_GROUPS_H
#define FX_PARALLEL_GROUPS_H

#include "parallel/mesh.h"
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    FX_GROUPS_MOST = 1024,   /* groups */
    FX_GROUPS_WIDTHS = 32,   /* divisors of a number up to FX_GROUPS_MOST: at most 32 */
    FX_GROUPS_AUTO_RANKS = 8 /* automatic: ranks of one picture at most, while there are enough pictures */
};

typedef struct fx_groups {
    int ranks, groups; /* groups divides ranks */
    int64_t merge;     /* groups merge when fewer pictures than this wait; 0: never */
} fx_groups;

/* groups 0: as few as possible of at most FX_GROUPS_AUTO_RANKS ranks each. merge < 0: as many as there are groups. FX_EINVAL
 * names the possible numbers. */
fx_status fx_groups_make(int ranks, int groups, int64_t merge, fx_groups *out);

/* What comes next: so many pictures by so many groups; then it is asked again. */
typedef struct fx_groups_stage {
    int groups;
    int64_t pictures;
} fx_groups_stage;

/* `now` groups are there (a divisor of groups) and `waiting` pictures (1 or more). With fewer waiting than min(merge, now):
 * the largest divisor of `now` that is not more than the waiting. Then full rounds of a picture for each group; what is left
 * over is decided again, unless it is too much to merge for. */
fx_groups_stage fx_groups_next(const fx_groups *, int now, int64_t waiting);
/* All stages of so many pictures; the number of them. */
int fx_groups_stages(const fx_groups *, int64_t waiting, fx_groups_stage out[FX_GROUPS_WIDTHS]);
/* All that `now` groups can become, itself first, falling, 1 last; the number of them. */
int fx_groups_widths(int now, int out[FX_GROUPS_WIDTHS]);

/* The mesh of one of `now` groups. ulysses, ring (0: automatic) are those of one of `groups` groups; a merged one keeps
 * ulysses where it can, and has a longer ring. FX_EINVAL: fx_mesh_make. */
fx_status fx_groups_mesh(const fx_groups *, int now, int heads, int ulysses, int ring, fx_mesh *out);
/* "4 groups of 2 ranks: 12 pictures; then 1 of 8: 1" into buf. */
const char *fx_groups_text(const fx_groups *, int64_t waiting, char *buf, size_t size);

#ifdef __cplusplus
}
#endif
#endif
