/* Everything that depends on the size of a request: the planned arena, the layout of rows over ranks, the
 * exchange and the buffers of one picture. Opened once per size, kept while requests have the same size. The
 * same code opens it over the plan backend to measure, then over the real one, so that plan and run cannot
 * disagree. */
#ifndef FX_SESSION_H
#define FX_SESSION_H

#include "kernels/plan.h"
#include "kernels/record.h"
#include "parallel/comm_plan.h"
#include "runtime/dit/dit.h"
#include "runtime/dump.h"
#include "runtime/model.h"
#include "runtime/pipeline.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a session's size depends on. */
typedef struct fx_size {
    int width, height, steps, t5_len;
} fx_size;

/* A step of a size, for the next sessions of that size over the same memory. Kept by their owner. */
typedef struct fx_step_record {
    bool warm;       /* a step has run: plans and code of its ops are there */
    void *recording; /* kernels/record.h, or NULL */
    uint64_t bytes;  /* what it sends to other ranks */
} fx_step_record;

typedef struct fx_session {
    fx_size size;
    const fx_model *model;                /* borrowed */
    fx_backend *be;                       /* borrowed; buffers live in its arena */
    fx_comm *comm;                        /* borrowed */
    int64_t latent_h, latent_w, channels; /* latents [channels, latent_h, latent_w] */
    fx_layout layout;
    fx_range *token_range, *patch_range,
        *pixel_range; /* [ranks]: image tokens by layout, by patch rows; pixel rows */
    fx_range *slab;   /* [ranks] latent rows for the VAE */
    fx_dit dit;
    fx_tensor t5, pooled;     /* [t5_len, joint_dim], [1, pooled_dim] stream, whole on every rank */
    fx_tensor latents, noise; /* [image_rows, 4c] stream: this rank's tokens, and the model's output */
    fx_tensor before;         /* [2, image_rows, 4c] stream: the latents before step i, in [i % 2] */
    fx_tensor paces,
        pace; /* [steps, 4c], [4c] stream: sigma[i+1] - sigma[i] for all steps and for the selected one */
    fx_tensor rgb;        /* [my pixel rows, width, 3] u8 */
    float *sigma;         /* [steps + 1] */
    fx_step_record *step; /* borrowed; NULL: steps are not recorded */
    bool ahead;           /* the host does not wait for a step before it starts the next */
    double *step_s;       /* [steps] */
    fx_dtype noise_dtype;
    const fx_dump *dump; /* NULL, or where the decoder shows vae_in and pixels */
} fx_session;

typedef struct fx_session_options {
    fx_mesh mesh;
    fx_layout_kind layout;
    fx_exact exact;
    fx_dtype noise_dtype; /* FX_F32 or FX_BF16: which of torch's two normal streams */
    bool by_kernels;      /* while planning: attention's rows would go by kernels between devices */
    fx_step_record *step; /* NULL, or steps may be recorded, where backend and exchange can */
} fx_session_options;

/* Opens the buffers over be (its arena is set). Collective unless comm is a plan comm. */
fx_status fx_session_open(const fx_model *, fx_backend *be, fx_comm *, const fx_session_options *, fx_size,
                          fx_session *out);
void fx_session_close(fx_session *);

/* The boxes of one picture; collective. */
fx_status fx_session_set_noise(fx_session *, uint64_t seed); /* latents = this rank's rows of the noise */
/* Before the steps of a picture. watched: someone looks at what happens within a step, so each runs by itself. */
void fx_session_begin_steps(fx_session *, bool watched);
/* noise = model(latents), latents += (sigma[step+1] - sigma[step]) * noise. The step is then given to the device, and over
 * when fx_watch_step says so. A step that repeats is recorded once and played. */
fx_status fx_session_step(fx_session *, int step);
/* Brings the latents of before the step back and selects it. step: the last or the one before. */
fx_status fx_session_rewind(fx_session *, int step);
fx_status fx_session_decode(fx_session *); /* latents -> rgb */
fx_status fx_session_gather_rgb(fx_session *,
                                uint8_t *picture); /* rank 0: all rows into picture[height, width, 3] */

/* Who looks on while a plan goes through one step of the denoise loop: every op, transfer and wait, between begin and the
 * Euler step, in the order in which a run issues them. whole: before it the text (box "text"), after it the decoder ("vae")
 * are shown as well. */
typedef struct fx_step_watch {
    void (*begin)(void *ctx, const fx_session *);
    void *ctx;
    bool whole;
    fx_plan_watch ops;
    fx_comm_watch comm;
} fx_step_watch;

/* Runs the whole graph once over the plan backend: the arena bytes this rank needs for this size. watch: NULL, or shown the
 * step. The model need not be loaded. */
fx_status fx_session_plan(const fx_model *, fx_backend *, int rank, int ranks, const fx_session_options *,
                          fx_size, const fx_step_watch *, size_t *arena_bytes);

#ifdef __cplusplus
}
#endif
#endif
