/* fluxpar as a library: prompt in, picture out, on any number of ranks. A complete program:
 *
 *   fx_comm *comm;
 *   fx_pipeline *pipe;
 *   fx_pipeline_options opt = fx_pipeline_default_options("launch/demo/model");
 *   fx_request req = fx_default_request("a slice of pizza on a blue background");
 *   fx_result res;
 *   if (fx_comm_open("auto", 60, &comm) || fx_pipeline_open(&opt, comm, &pipe) || fx_pipeline_complete(pipe, &req) ||
 *       fx_pipeline_generate(pipe, &req, &res))
 *       fprintf(stderr, "%s\n", fx_error());
 *   else if (fx_comm_rank(comm) == 0)
 *       fx_png_write("pizza.png", res.rgb, res.width, res.height, 0, NULL, true, 1);
 *   fx_pipeline_close(&pipe);
 *   fx_comm_finish(&comm);
 *
 * Every call is collective: all ranks of `comm` make it with equal arguments, and all get the same status (the error text
 * of the failing rank is on every rank).
 *
 * Groups of ranks can make different pictures at the same time (options.groups): weights are there once, and each rank is in
 * one team of each width. fx_pipeline_select says which; from then on complete, generate and denoise_only are collective
 * over that team alone. */
#ifndef FX_PIPELINE_H
#define FX_PIPELINE_H

#include "parallel/comm.h"
#include "parallel/exchange.h"
#include "parallel/layout.h"
#include "runtime/core/status.h"
#include "runtime/core/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { FX_PHASE_LOAD, FX_PHASE_TEXT, FX_PHASE_DENOISE, FX_PHASE_VAE, FX_PHASES } fx_phase;

/* Called on every rank: load counts bytes, denoise counts steps; seconds since the phase began. */
typedef void (*fx_progress)(void *ctx, fx_phase, size_t done, size_t total, double seconds);

/* How the ranks of a picture are laid out: 0 and AUTO are what the runtime takes by itself. */
typedef struct fx_pipeline_choice {
    int ulysses, ring;
    fx_layout_kind layout;
} fx_pipeline_choice;

typedef struct fx_pipeline_options {
    const char *model;   /* diffusers folder, or synthetic:flux-dev[:D+S], synthetic:flux-schnell[:D+S] */
    const char *backend; /* "auto" "cpu" "onednn" "ref" "guard" (kernels/ops.h) */
    fx_dtype dtype;      /* FX_BF16 or FX_F32 */
    int threads; /* per rank; 0 = automatic: max(1, allowed cores / ranks of the node that share them) */
    int groups;  /* 0 or 1: all ranks make one picture; else a divisor of the ranks (parallel/groups.h) */
    int at_once; /* groups that are used, a divisor of groups; 0: all. Teams: this number and all its divisors */
    int ulysses, ring; /* of one of `groups` groups; 0 = automatic */
    fx_layout_kind layout;
    fx_exact exact;
    fx_wire exchange;  /* between devices (parallel/comm.h) */
    bool record;       /* on a device, record a denoise step once and play it (CUDA graphs) */
    size_t text_bytes; /* of embedded prompts kept, so that the same one is encoded once; 0: none */
    /* NULL, or asked on rank 0 of several when neither mesh nor layout nor groups are given; device: as fx_backend_describe
     * says. */
    fx_status (*choose)(void *ctx, const char *device, int ranks, fx_pipeline_choice *);
    void *choose_ctx;
    /* NULL, or a picture that is going to be made: it is completed, and what its activations need is held against the host's
     * memory together with the weights, before any of these is read. Borrowed by fx_pipeline_open alone. */
    const struct fx_request *first;
    fx_progress progress;
    void *progress_ctx;
} fx_pipeline_options;

/* What a run shows of itself, on every rank at the same moments: "text" (embedded) and "noise" before step 0, in each
 * step every block's output ("double_NN_txt", "double_NN_img", "single_NN") and then "latents". */
typedef struct fx_sight {
    int step; /* from 0 */
    const char *name;
    const fx_layout *layout;
    int segment;    /* FX_TEXT, FX_IMAGE, FX_ALL: rows[layout's local rows of it, columns] */
    fx_tensor rows; /* this rank's, in the backend's memory */
    fx_backend *be;
} fx_sight;

/* May be collective over the pipeline's comm. A failure ends the run. */
typedef fx_status (*fx_onlooker)(void *ctx, const fx_sight *);

typedef struct fx_request {
    const char *prompt; /* UTF-8; "" is valid */
    int width, height;  /* pixels; 0 = the model's own size */
    int steps;          /* 0 = 28 with a guidance embedding, else 4 */
    double guidance;    /* negative = 3.5; ignored by models without a guidance embedding */
    uint64_t seed;
    int t5_len;           /* 0 = model_max_length of tokenizer_2, at most 512 */
    const char *dump_dir; /* NULL, or an existing folder for .npy files (rank 0 writes) */
    fx_onlooker onlooker; /* NULL, or called with everything in fx_sight */
    void *onlooker_ctx;
} fx_request;

/* Times in seconds are the maximum over ranks. */
typedef struct fx_timings {
    double load, text, denoise, vae, total; /* load: of fx_pipeline_open; total: of fx_pipeline_generate */
    const double *step;                     /* [steps] */
} fx_timings;

typedef struct fx_rank_report {
    uint64_t peak_bytes;       /* VmHWM */
    uint64_t file_bytes;       /* file-backed part of the resident set */
    uint64_t weight_bytes;     /* packed weights this rank maps (shared by the ranks of a node) */
    uint64_t arena_bytes;      /* planned arena */
    uint64_t arena_peak_bytes; /* what of it was used so far: the same after a picture */
    uint64_t text_bytes;       /* of embedded prompts kept */
    uint64_t comm_bytes;       /* sent to other ranks during generate */
    double comm_wait_s;        /* exposed communication during generate */
    double denoise_wait_s;     /* of which in the denoise loop */
} fx_rank_report;

typedef struct fx_result {
    int width, height;
    const uint8_t
        *rgb; /* [height, width, 3] on the team's rank 0, else NULL; valid until the next generate or close */
    fx_timings time;
    int first, ranks;           /* the team: its first rank in the job, how many */
    const fx_rank_report *rank; /* [ranks] on its rank 0 */
    const char *cut;            /* words of the prompt that T5 truncation cut, or NULL */
    bool text_kept;             /* the embedded prompt was there from an earlier picture */
} fx_result;

/* Facts that do not change between requests. */
typedef struct fx_model_facts {
    char kind[32];     /* "flux-dev" (guidance embedding) or "flux-schnell" */
    int width, height; /* default size */
    int size_multiple; /* width and height must be multiples of it */
    int steps;         /* default */
    int t5_len;        /* default = longest */
    bool guidance;     /* has a guidance embedding */
    int heads, double_blocks, single_blocks;
    uint64_t hash;         /* of the checkpoint's headers and samples */
    double parameters;     /* of all components */
    fx_mesh mesh;          /* of the team that is selected */
    fx_layout_kind layout; /* as asked; the one used by a request may be chosen by its size */
    bool exact;            /* bytes equal those of one rank */
    const char *exchange;  /* between the team's devices (fx_comm_rows_text), else "" */
    int threads;
    size_t weight_bytes;
    const char *backend; /* description */
} fx_model_facts;

typedef struct fx_pipeline fx_pipeline;

fx_pipeline_options fx_pipeline_default_options(const char *model);
fx_request fx_default_request(const char *prompt);

/* Reads configs, checks every shape, loads the weights. Errors: FX_EINVAL mesh, FX_EFORMAT/FX_EREAD model, FX_ENOMEM. */
fx_status fx_pipeline_open(const fx_pipeline_options *, fx_comm *, fx_pipeline **out);
const fx_model_facts *fx_pipeline_facts(const fx_pipeline *);
/* From now on this rank makes pictures with its team of so many groups: 1 (after open), options.at_once or a divisor of it. To
 * be called by all of that team, between pictures. */
fx_status fx_pipeline_select(fx_pipeline *, int groups);
fx_comm *fx_pipeline_team(const fx_pipeline *); /* of the team; closed with the pipeline */
/* Collective over all ranks, whatever is selected: plans pictures of these sizes for every team and takes memory for the largest,
 * so that no team needs more later (on a device it could not have more). At most FX_WARM_MOST sizes at a time. */
fx_status fx_pipeline_reserve(fx_pipeline *, const fx_request *, int n);
/* Fills the defaults in and checks ranges; FX_EINVAL names what is allowed (the nearest two sizes, ...). */
fx_status fx_pipeline_complete(const fx_pipeline *, fx_request *);
enum { FX_WARM_MOST = 8 }; /* sizes that are kept at a time */
/* Collective over all ranks. Makes ready for pictures of these sizes in every team: reserves, and runs the parts of a picture
 * once each, so that the first picture of a size takes as long as the second. n: at most FX_WARM_MOST. */
fx_status fx_pipeline_warm_up(fx_pipeline *, const fx_request *, int n);
/* Plans the memory for this size when it changed, then makes the picture. FX_ENUMERIC: non-finite latents, with step,
 * block and rank. FX_ESIGNAL when the stop flag was raised. After a failure that all ranks agreed on (fx_comm_agreed) other
 * than FX_ECOMM and FX_ESIGNAL, the next picture can be made. */
fx_status fx_pipeline_generate(fx_pipeline *, const fx_request *, fx_result *);
/* The same without the decoder: rgb is NULL. For benchmarks of the denoise loop. */
fx_status fx_pipeline_denoise_only(fx_pipeline *, const fx_request *, fx_result *);
/* What one step of this size moves between ranks, moved with nothing computed, so many times: seconds[runs], the slowest
 * rank's. Attention's rows that go by kernels between devices go as transfers here. */
fx_status fx_pipeline_exchange_only(fx_pipeline *, const fx_request *, int runs, double seconds[]);
void fx_pipeline_close(fx_pipeline **);

#ifdef __cplusplus
}
#endif
#endif
