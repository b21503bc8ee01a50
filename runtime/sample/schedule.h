/* Noise levels of the steps: FlowMatchEulerDiscreteScheduler as FluxPipeline drives it. */
#ifndef FX_SAMPLE_SCHEDULE_H
#define FX_SAMPLE_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/core/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { FX_STEPS_MAX = 1000 };

typedef struct fx_scheduler_config {
    bool dynamic; /* shift by resolution, else by the constant `shift` */
    bool linear;  /* time_shift_type: linear, else exponential */
    double shift, base_shift, max_shift;
    int64_t base_tokens, max_tokens; /* packed image tokens at which base_shift and max_shift hold */
} fx_scheduler_config;

/* scheduler/scheduler_config.json of a model folder. What is not implemented is FX_EFORMAT, by name. */
fx_status fx_scheduler_load(const char *model_dir, fx_scheduler_config *out);

/* Shift exponent for an image of that many packed tokens (h/16 * w/16 for FLUX.1): linear, 256 -> 0.5, 4096
 * -> 1.15. */
double fx_scheduler_mu(const fx_scheduler_config *, int64_t image_tokens);

/* sigmas[steps + 1], falling from 1 to the final 0. The model's timestep is sigma * 1000; a step moves the
 * latents by (sigmas[i + 1] - sigmas[i]) * prediction. */
fx_status fx_sigmas(const fx_scheduler_config *, int64_t steps, int64_t image_tokens, float *sigmas);

#ifdef __cplusplus
}
#endif
#endif
