/* What a path given as a model is: read from names, configs and file headers only, so it is quick for 30 GB
 * of weights. */
#ifndef FX_LAUNCH_MODEL_LOOK_H
#define FX_LAUNCH_MODEL_LOOK_H

#include "runtime/core/status.h"
#include "runtime/core/tensor.h"

enum { FX_LOOK_PARTS = 4, FX_LOOK_PROBLEMS = 12 };

typedef struct fx_look_part {
    const char *name; /* "transformer" ... */
    int64_t files, tensors, parameters, bytes;
    int64_t of_dtype[FX_DTYPES]; /* tensors */
} fx_look_part;

typedef struct fx_look {
    char layout[64]; /* "diffusers folder", "BFL single file", "GGUF file", "synthetic" ... */
    char kind[32];   /* "flux-dev", "flux-schnell", "flux-fill" ..., "" when it cannot be told */
    char title[160]; /* for people */
    bool configs;    /* the sizes below are known */
    bool guidance;
    int64_t in_channels, heads, head_dim, double_blocks, single_blocks;
    int64_t factor, multiple; /* VAE: pixels per latent; sizes are multiples of `multiple` = 2 * factor */
    uint64_t hash;            /* fx_look_weights */
    fx_look_part part[FX_LOOK_PARTS];
    int problems; /* each "what; why; what to do" */
    char problem[FX_LOOK_PROBLEMS][512];
} fx_look;

/* FX_EREAD when there is nothing at path. Whatever is wrong with what is there becomes a problem, not a
 * failure. */
fx_status fx_look_at(const char *path, fx_look *out);
/* Adds tensor counts, sizes, dtypes and the hash, from the headers of the weight files. Diffusers folders
 * only. */
void fx_look_weights(const char *path, fx_look *);
/* fx_look_file.c: a single file (safetensors, GGUF, pickle, git-lfs pointer ...). */
void fx_look_file(const char *path, fx_look *);
__attribute__((format(printf, 2, 3))) void fx_look_problem(fx_look *, const char *fmt, ...);

#endif
