/* Options and requests: defaults from the model, ranges, and the messages a user sees when something is out
 * of range. */
#include "runtime/request.h"

#include <stdio.h>
#include <string.h>

enum { MAX_STEPS = 1000, MAX_GUIDANCE = 100, MAX_T5 = 512, MAX_PIXELS = 1 << 15 };

fx_pipeline_options fx_pipeline_default_options(const char *model)
{
    return (fx_pipeline_options){.model = model,
                                 .backend = "auto",
                                 .dtype = FX_BF16,
                                 .layout = FX_LAYOUT_AUTO,
                                 .exact = FX_EXACT_AUTO,
                                 .record = true,
                                 .text_bytes = (size_t)64 << 20};
}

fx_request fx_default_request(const char *prompt)
{
    return (fx_request){.prompt = prompt, .guidance = -1};
}

fx_status fx_request_check_side(const char *name, int value, int multiple)
{
    const int below = value / multiple * multiple, above = below + multiple;
    FX_CHECK(value > 0 && value <= MAX_PIXELS, FX_EINVAL, "--%s %d is out of range; use %d to %d", name,
             value, multiple, MAX_PIXELS);
    FX_CHECK(value % multiple == 0 || below == 0, FX_EINVAL,
             "--%s %d is not a multiple of %d; nearest are %d and %d", name, value, multiple, below, above);
    FX_CHECK(value % multiple == 0, FX_EINVAL, "--%s %d is not a multiple of %d; the smallest is %d", name,
             value, multiple, above);
    return FX_OK;
}

void fx_request_facts(const fx_model *m, fx_model_facts *f)
{
    *f = (fx_model_facts){.width = m->width,
                          .height = m->height,
                          .size_multiple = fx_model_size_multiple(m),
                          .guidance = m->dit_config.guidance,
                          .steps = m->dit_config.guidance ? 28 : 4,
                          .t5_len = m->text.t5_len,
                          .heads = (int)m->dit_config.heads,
                          .double_blocks = m->dit_config.double_blocks,
                          .single_blocks = m->dit_config.single_blocks,
                          .hash = m->hash,
                          .parameters = fx_store_parameters(m->store),
                          .weight_bytes = fx_store_bytes(m->store)};
    strcpy(f->kind, f->guidance ? "flux-dev" : "flux-schnell");
}

fx_status fx_request_complete(const fx_model_facts *f, fx_request *r)
{
    if (!r->width) r->width = f->width;
    if (!r->height) r->height = f->height;
    if (!r->steps) r->steps = f->steps;
    if (!r->t5_len) r->t5_len = f->t5_len;
    if (r->guidance < 0) r->guidance = 3.5;
    FX_CHECK(r->prompt, FX_EINVAL, "no prompt");
    FX_TRY(fx_request_check_side("width", r->width, f->size_multiple));
    FX_TRY(fx_request_check_side("height", r->height, f->size_multiple));
    FX_CHECK(r->steps >= 1 && r->steps <= MAX_STEPS, FX_EINVAL, "--steps %d is out of range; use 1 to %d",
             r->steps, MAX_STEPS);
    FX_CHECK(r->guidance >= 0 && r->guidance <= MAX_GUIDANCE, FX_EINVAL,
             "--guidance %g is out of range; use 0 to %d", r->guidance, MAX_GUIDANCE);
    FX_CHECK(r->t5_len >= 1 && r->t5_len <= MAX_T5, FX_EINVAL, "--t5-len %d is out of range; use 1 to %d",
             r->t5_len, MAX_T5);
    return FX_OK;
}
