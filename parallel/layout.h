/* Who owns which rows of which segment: arithmetic only. The joint order is text | image | condition,
 * everywhere. Rows, not padding: any counts, any rank count; a range may be empty. Ranges of a segment rise
 * with the rank. */
#ifndef FX_PARALLEL_LAYOUT_H
#define FX_PARALLEL_LAYOUT_H

#include "runtime/core/status.h"
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { FX_TEXT, FX_IMAGE, FX_COND, FX_SEGMENTS, FX_ALL = FX_SEGMENTS } fx_segment;
typedef enum { FX_LAYOUT_AUTO, FX_LAYOUT_EVEN, FX_LAYOUT_STREAM } fx_layout_kind;

typedef struct fx_range {
    int64_t begin, count; /* rows of the segment */
} fx_range;

typedef struct fx_layout {
    fx_layout_kind kind; /* what was chosen */
    int ranks;
    int64_t rows[FX_SEGMENTS];     /* whole segments */
    fx_range (*part)[FX_SEGMENTS]; /* [ranks] */
} fx_layout;

/* even: sizes differ by at most one in each segment. stream: text rows on the first ranks, the other segments
 * on the rest (needs ranks >= 2 and both parts non-empty, else FX_EINVAL). auto: fx_layout_choose with
 * FX_LAYOUT_WEIGHT_ROWS. */
fx_status fx_layout_open(fx_layout_kind, int ranks, const int64_t rows[FX_SEGMENTS], fx_layout *out);
void fx_layout_close(fx_layout *);
/* What auto picks: the layout whose busiest rank is cheaper when a matrix product over n rows costs max(n,
 * weight_rows) (few rows: reading the weights is the bill, and a stream-split rank reads one stream's); even
 * when they tie. weight_rows = arithmetic rate / rate of weight bytes: 32 suits CPU cores (0.45 TFLOP/s
 * against 15 GB/s each); GPUs have 206 (H200) to 295 (H100) in bf16. Derivation in parallel/README.md. */
enum { FX_LAYOUT_WEIGHT_ROWS = 32 };
fx_layout_kind fx_layout_choose(int ranks, const int64_t rows[FX_SEGMENTS], int64_t weight_rows);

int64_t fx_layout_total(const fx_layout *);              /* all rows of all segments */
int64_t fx_layout_local(const fx_layout *, int rank);    /* rows of one rank, all segments */
int64_t fx_layout_start(const fx_layout *, int segment); /* first joint row of a segment */
int64_t fx_layout_local_start(const fx_layout *, int rank,
                              int segment); /* where the segment begins in the rank's rows */
const char *fx_layout_name(fx_layout_kind); /* "even" */
/* n rows over ranks, sizes differ by at most one: the split all other code uses (VAE rows, weight ranges). */
fx_range fx_split_even(int64_t n, int ranks, int rank);

#ifdef __cplusplus
}
#endif
#endif
