/* Sigmas against the reference scheduler: bit-equal to every golden model's, the two ends of mu, the constant
 * shift, and configs that are refused by name. */
#include "tests/scratch.h"
#include "tests/test.h"

#include <jansson.h>
#include <math.h>

#include "runtime/io/npy.h"
#include "runtime/sample/schedule.h"

static const char *in_tests(const char *model, const char *name)
{
    static char path[4][1024];
    static int next;
    const char *root = getenv("FX_TESTS_DIR");
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/goldens/%s/%s", root ? root : "tests", model, name);
    return p;
}

static void t_golden(const char *model)
{
    json_t *run = json_load_file(in_tests(model, "golden/run.json"), 0, NULL);
    const int64_t steps = json_integer_value(json_object_get(run, "steps"));
    fx_tensor want = {0}, noise = {0};
    fx_scheduler_config cfg;
    float sigmas[FX_STEPS_MAX + 1];
    T_OK(fx_scheduler_load(in_tests(model, ""), &cfg));
    T_OK(fx_npy_read(in_tests(model, "golden/sigmas.npy"), &want));
    T_OK(fx_npy_read(in_tests(model, "golden/noise.npy"), &noise));
    if (want.data && noise.data) {
        T_OK(fx_sigmas(&cfg, steps, noise.shape[0], sigmas));
        T_CHECK(want.shape[0] == steps + 1 &&
                    !memcmp(want.data, sigmas, (size_t)(steps + 1) * sizeof *sigmas),
                "%s: sigmas differ", model);
    }
    free(want.data);
    free(noise.data);
    json_decref(run);
}

static const char *config(const char *json)
{
    mkdir(in_scratch("m"), 0700);
    mkdir(in_scratch("m/scheduler"), 0700);
    put_text(in_scratch("m/scheduler/scheduler_config.json"), json);
    return in_scratch("m");
}

#define CLASS "\"_class_name\": \"FlowMatchEulerDiscreteScheduler\""

static void t_flux_dev(void)
{
    fx_scheduler_config c;
    float s[5];
    T_OK(fx_scheduler_load(config("{" CLASS ", \"use_dynamic_shifting\": true, \"shift\": 3.0}"), &c));
    T_CHECK(fabs(fx_scheduler_mu(&c, 256) - 0.5) < 1e-12 && fabs(fx_scheduler_mu(&c, 4096) - 1.15) < 1e-12,
            "mu ends");
    T_OK(fx_sigmas(&c, 4, 4096, s));
    /* e / (e + 1/t - 1) with e = exp(1.15), t = 1, 3/4, 1/2, 1/4 */
    static const double want[] = {1, 0.904531, 0.759511, 0.512844, 0};
    for (int i = 0; i < 5; i++) T_CHECK(fabs(s[i] - want[i]) < 1e-6, "sigma %d: %.7f", i, s[i]);
    T_OK(fx_sigmas(&c, 1, 64, s));
    T_CHECK(s[0] == 1 && s[1] == 0, "one step");
}

static void t_constant_shift(void)
{
    fx_scheduler_config c;
    float s[5];
    T_OK(fx_scheduler_load(config("{" CLASS "}"), &c));
    T_OK(fx_sigmas(&c, 4, 4096, s));
    T_CHECK(s[0] == 1 && s[1] == 0.75f && s[2] == 0.5f && s[3] == 0.25f && s[4] == 0, "schnell: no shift");
    T_OK(fx_scheduler_load(config("{" CLASS ", \"shift\": 3}"), &c));
    T_OK(fx_sigmas(&c, 4, 4096, s));
    T_CHECK(s[0] == 1 && s[1] == 0.9f && s[2] == 0.75f && s[3] == 0.5f && s[4] == 0, "shift 3");
}

static void t_refused(void)
{
    fx_scheduler_config c;
    float s[2];
    T_REFUSED(fx_scheduler_load(config("{\"_class_name\": \"DDIMScheduler\"}"), &c), FX_EFORMAT,
              "DDIMScheduler");
    T_REFUSED(fx_scheduler_load(config("{" CLASS ", \"shift_terminal\": 0.02}"), &c), FX_EFORMAT,
              "shift_terminal");
    T_REFUSED(fx_scheduler_load(config("{" CLASS ", \"use_karras_sigmas\": true}"), &c), FX_EFORMAT,
              "use_karras_sigmas");
    T_REFUSED(fx_scheduler_load(config("{" CLASS ", \"use_exponential_sigmas\": true}"), &c), FX_EFORMAT,
              "use_exponential_sigmas");
    T_REFUSED(fx_scheduler_load(config("{" CLASS ", \"use_beta_sigmas\": true}"), &c), FX_EFORMAT,
              "use_beta_sigmas");
    T_REFUSED(fx_scheduler_load(config("{" CLASS ", \"stochastic_sampling\": true}"), &c), FX_EFORMAT,
              "stochastic_sampling");
    T_REFUSED(fx_scheduler_load(config("{" CLASS ", \"invert_sigmas\": true}"), &c), FX_EFORMAT,
              "invert_sigmas");
    T_REFUSED(fx_scheduler_load(config("{" CLASS ", \"time_shift_type\": \"cubic\"}"), &c), FX_EFORMAT,
              "cubic");
    T_REFUSED(fx_scheduler_load(config("{" CLASS ", \"num_train_timesteps\": 500}"), &c), FX_EFORMAT,
              "num_train_timesteps");
    T_REFUSED(fx_scheduler_load(config("{" CLASS ", \"base_image_seq_len\": 4096}"), &c), FX_EFORMAT, "4096");
    T_REFUSED(fx_scheduler_load(config("not json"), &c), FX_EFORMAT, "scheduler_config.json");
    T_OK(
        fx_scheduler_load(config("{" CLASS ", \"shift_terminal\": null, \"use_karras_sigmas\": false}"), &c));
    T_CHECK(fx_sigmas(&c, 0, 16, s) == FX_EINVAL && fx_sigmas(&c, 1001, 16, s) == FX_EINVAL,
            "steps 1 to 1000");
    /* a picture so large that exp(mu) is infinite: each sigma is looked at, the only one too */
    float many[FX_STEPS_MAX + 1];
    T_OK(fx_scheduler_load(config("{" CLASS ", \"use_dynamic_shifting\": true}"), &c));
    T_OK(fx_sigmas(&c, FX_STEPS_MAX, 100000, many));
    T_REFUSED(fx_sigmas(&c, 1, 1000000, many), FX_EINVAL, "1000000 image tokens", "sigma 0 is not finite");
    T_REFUSED(fx_sigmas(&c, 4, 1000000, many), FX_EINVAL, "resolution shift", "smaller picture");
    T_REFUSED(fx_sigmas(&c, 4, 0, many), FX_EINVAL, "0 image tokens");
}

int main(void)
{
    static const char *const models[] = {"h4dev", "h6schnell", "h10shards", "h24dev", "h4shift", "h5odd"};
    if (!scratch_open()) return 1;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) t_golden(models[i]);
    t_flux_dev();
    t_constant_shift();
    t_refused();
    scratch_close();
    return test_end("t_schedule");
}
