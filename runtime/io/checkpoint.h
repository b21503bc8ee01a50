/* Where weights come from: a component folder of a diffusers checkpoint (safetensors, one file or sharded,
 * with or without an index) or the counter-based generator of synthetic models. Files are untrusted: sizes,
 * offsets and depths are checked before anything is used. Every error names the file and tensor, wanted and
 * found. */
#ifndef FX_IO_CHECKPOINT_H
#define FX_IO_CHECKPOINT_H

#include "runtime/core/status.h"
#include "runtime/core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fx_checkpoint fx_checkpoint;

/* One tensor of a checkpoint. */
typedef struct fx_entry {
    int64_t shape[FX_MAX_DIMS];
    int32_t ndim;
    fx_dtype dtype;
    int32_t file;    /* index into the component's files; -1 synthetic */
    uint64_t offset; /* bytes from the start of that file */
    uint64_t key;    /* synthetic: generator key */
    float amp, mean; /* synthetic */
    const char *tag; /* the type as the file spells it, "F8_E4M3"; dtype is FX_DTYPES where nothing here
                        computes with it */
} fx_entry;

/* Opens <model>/<component>: weight_map of *.safetensors.index.json when there is one, else every
 * *.safetensors in the folder. Errors: FX_EREAD missing folder or file; FX_EFORMAT truncated, overlapping,
 * git-lfs pointer, unknown dtype, tensor twice, index naming a path outside the folder. */
fx_status fx_checkpoint_open(const char *model_dir, const char *component, fx_checkpoint **out);
/* Synthetic component: every name exists with whatever shape is asked for (no -1); values are rounded to
 * bf16, so they are equal on every rank and backend. */
fx_status fx_checkpoint_synthetic(const char *component, uint64_t seed, fx_checkpoint **out);
void fx_checkpoint_close(fx_checkpoint **);
bool fx_checkpoint_is_synthetic(const fx_checkpoint *);

bool fx_checkpoint_has(const fx_checkpoint *, const char *name); /* synthetic: always true */
/* shape[i] = -1 accepts any size (it is filled in). A trailing run of 1s may be missing or extra ([C,C,1,1] =
 * [C,C]). */
fx_status fx_checkpoint_find(const fx_checkpoint *, const char *name, int ndim, const int64_t shape[],
                             fx_entry *out);
/* Reads rows [row0, row0+rows) of dimension 0 converted to dtype into dst. Sequential pread, no mapping.
 * Thread-safe. */
fx_status fx_checkpoint_read(const fx_checkpoint *, const fx_entry *, int64_t row0, int64_t rows,
                             fx_dtype dtype, void *dst);
/* For `inspect` and for "unknown tensor" errors: i-th name in file order, NULL past the end. */
const char *fx_checkpoint_name(const fx_checkpoint *, int64_t i, fx_entry *entry);
int64_t fx_checkpoint_bytes(const fx_checkpoint *); /* file bytes of all tensors */

/* 64-bit hash of headers, sizes and a 4 KiB sample of each tensor, to tell checkpoints apart (XXH3). */
fx_status fx_checkpoint_hash(const fx_checkpoint *, uint64_t *hash);

/* The generator, shared with tests/goldens/rng.py: element i of stream `key`. See runtime/io/synthetic.c. */
uint64_t fx_synthetic_key(const char *component, const char *name, uint64_t seed);
void fx_synthetic_fill(uint64_t key, uint64_t first, int64_t n, float amp, float mean, float *out);

#ifdef __cplusplus
}
#endif
#endif
