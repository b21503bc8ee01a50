/* Step count and image size -> sigmas, once per image, before the step loop. Every operation is rounded where
 * the reference rounds it: the grid in f64, then f32 throughout, constants computed in f64 and used as f32.
 * Source: Esser et al. 2024 (arXiv 2403.03206), section 5.3.2; diffusers' FlowMatchEulerDiscreteScheduler. */
#include "runtime/sample/schedule.h"

#include <math.h>
#include <string.h>

#include "runtime/io/json.h"

static fx_status refuse_unimplemented(const fx_config *c)
{
    static const char *const off[] = {"use_karras_sigmas",   "use_exponential_sigmas", "use_beta_sigmas",
                                      "stochastic_sampling", "invert_sigmas",          "use_flow_sigmas"};
    const double zero = 0;
    double terminal = 0;
    FX_TRY(fx_config_only_string(c, "_class_name", "FlowMatchEulerDiscreteScheduler"));
    for (size_t i = 0; i < sizeof off / sizeof *off; i++)
        if (fx_config_has(c, off[i])) FX_TRY(fx_config_only_bool(c, off[i], false));
    FX_TRY(fx_config_real(c, "shift_terminal", -1e9, 1e9, &zero, &terminal));
    FX_CHECK(terminal == 0, FX_EFORMAT, "%s: shift_terminal is %g; that is not implemented", c->path,
             terminal);
    return fx_config_only_int(c, "num_train_timesteps", 1000);
}

static fx_status read_config(const fx_config *c, fx_scheduler_config *s)
{
    const bool no = false;
    const double one = 1, base_shift = 0.5, max_shift = 1.15;
    const int64_t base = 256, max = 4096;
    char type[32];
    FX_TRY(refuse_unimplemented(c));
    FX_TRY(fx_config_bool(c, "use_dynamic_shifting", &no, &s->dynamic));
    FX_TRY(fx_config_real(c, "shift", 1e-6, 1e6, &one, &s->shift));
    FX_TRY(fx_config_real(c, "base_shift", -50, 50, &base_shift, &s->base_shift));
    FX_TRY(fx_config_real(c, "max_shift", -50, 50, &max_shift, &s->max_shift));
    FX_TRY(fx_config_int(c, "base_image_seq_len", 0, 1 << 30, &base, &s->base_tokens));
    FX_TRY(fx_config_int(c, "max_image_seq_len", 0, 1 << 30, &max, &s->max_tokens));
    FX_CHECK(
        s->base_tokens != s->max_tokens, FX_EFORMAT,
        "%s: base_image_seq_len and max_image_seq_len are both %lld; the shift between them is undefined",
        c->path, (long long)s->base_tokens);
    FX_TRY(fx_config_string(c, "time_shift_type", "exponential", type, sizeof type));
    s->linear = !strcmp(type, "linear");
    FX_CHECK(s->linear || !strcmp(type, "exponential"), FX_EFORMAT,
             "%s: time_shift_type '%s'; implemented are 'exponential' and 'linear'", c->path, type);
    return FX_OK;
}

fx_status fx_scheduler_load(const char *model_dir, fx_scheduler_config *out)
{
    fx_config c;
    FX_TRY(fx_config_open(model_dir, "scheduler", "scheduler_config.json", &c));
    *out = (fx_scheduler_config){0};
    const fx_status st = read_config(&c, out);
    fx_config_close(&c);
    return st;
}

double fx_scheduler_mu(const fx_scheduler_config *s, int64_t image_tokens)
{
    const double slope = (s->max_shift - s->base_shift) / (double)(s->max_tokens - s->base_tokens);
    const double offset = s->base_shift - slope * (double)s->base_tokens;
    return (double)image_tokens * slope + offset;
}

fx_status fx_sigmas(const fx_scheduler_config *s, int64_t steps, int64_t image_tokens, float *sigmas)
{
    FX_CHECK(steps >= 1 && steps <= FX_STEPS_MAX, FX_EINVAL, "steps is %lld; wanted 1 to %d",
             (long long)steps, FX_STEPS_MAX);
    FX_CHECK(image_tokens > 0, FX_EINVAL, "sigmas: %lld image tokens", (long long)image_tokens);
    const double mu = fx_scheduler_mu(s, image_tokens), last = 1.0 / (double)steps;
    const double gap = steps > 1 ? (last - 1.0) / (double)(steps - 1) : 0;
    const float a = (float)(s->linear ? mu : exp(mu)), shift = (float)s->shift,
                less_one = (float)(s->shift - 1);
    for (int64_t i = 0; i < steps; i++) {
        const float t = (float)(i && i == steps - 1 ? last : (double)i * gap + 1.0);
        sigmas[i] = s->dynamic ? a / (a + (1.0f / t - 1.0f)) : shift * t / (1.0f + less_one * t);
    }
    sigmas[steps] = 0;
    for (int64_t i = 0; i < steps; i++)
        FX_CHECK(isfinite(sigmas[i]), FX_EINVAL,
                 "%lld image tokens are too many for this model's resolution shift; sigma %lld is not finite "
                 "(mu %g, shift "
                 "%g); make a smaller picture",
                 (long long)image_tokens, (long long)i, mu, s->shift);
    return FX_OK;
}
