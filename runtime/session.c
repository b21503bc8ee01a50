/* Buffers and boxes of one picture size. Called by pipeline.c: first over the plan backend (measuring), then
 * for real. */
#include "runtime/session.h"

#include <stdlib.h>

#include "parallel/halo.h"
#include "runtime/collect.h"
#include "runtime/sample/latents.h"
#include "runtime/sample/noise.h"
#include "runtime/watch.h"

static fx_status open_ranges(fx_session *s)
{
    const int ranks = fx_comm_size(s->comm), factor = fx_vae_factor(&s->model->vae.cfg);
    const int64_t grid_w = s->latent_w / 2;
    fx_range *all = calloc(4 * (size_t)ranks, sizeof *all);
    FX_CHECK(all, FX_ENOMEM, "no memory for the row ranges of %d ranks", ranks);
    s->token_range = all;
    s->patch_range = all + ranks;
    s->slab = all + 2 * ranks;
    s->pixel_range = all + 3 * ranks;
    for (int i = 0; i < ranks; i++) {
        const fx_range patch = fx_split_even(s->latent_h / 2, ranks, i); /* rows of 2x2 patches */
        s->token_range[i] = s->layout.part[i][FX_IMAGE];
        s->patch_range[i] = (fx_range){patch.begin * grid_w, patch.count * grid_w};
        s->slab[i] = (fx_range){2 * patch.begin, 2 * patch.count};
        s->pixel_range[i] = (fx_range){2 * patch.begin * factor, 2 * patch.count * factor};
    }
    return FX_OK;
}

/* Each step's length as a vector, so that the step itself finds it in memory. */
static fx_status fill_paces(fx_session *s)
{
    const int64_t channels = s->model->dit_config.out_channels;
    const size_t n = (size_t)s->size.steps * (size_t)channels;
    fx_tensor rows;
    FX_TRY(fx_push1(s->be->arena, s->be->stream, channels, &s->pace));
    FX_TRY(fx_push2(s->be->arena, s->be->stream, s->size.steps, channels, &s->paces));
    const size_t mark = fx_mark(s->be->arena);
    FX_TRY(fx_push2(s->be->arena, FX_F32, s->size.steps, channels, &rows));
    if (!fx_planning(s->be)) {
        float *pace = malloc(n * sizeof *pace);
        FX_CHECK(pace, FX_ENOMEM, "no memory for the schedule of %d steps", s->size.steps);
        for (size_t i = 0; i < n; i++) {
            const size_t step = i / (size_t)channels;
            pace[i] = s->sigma[step + 1] - s->sigma[step];
        }
        const fx_status st = fx_upload(s->be, rows, pace);
        free(pace);
        FX_TRY(st);
    }
    FX_TRY(fx_copy(s->be, s->paces, rows, 1, 0));
    fx_rewind(s->be->arena, mark);
    return FX_OK;
}

static fx_status open_buffers(fx_session *s)
{
    const fx_dit_config *c = &s->model->dit_config;
    const int rank = fx_comm_rank(s->comm);
    fx_arena *a = s->be->arena;
    FX_TRY(fx_push2(a, s->be->stream, s->size.t5_len, c->joint_dim, &s->t5));
    FX_TRY(fx_push2(a, s->be->stream, 1, c->pooled_dim, &s->pooled));
    FX_TRY(fx_push2(a, s->be->stream, s->token_range[rank].count, c->in_channels, &s->latents));
    FX_TRY(fx_push2(a, s->be->stream, s->token_range[rank].count, c->out_channels, &s->noise));
    FX_TRY(fx_push3(a, s->be->stream, 2, s->token_range[rank].count, c->in_channels, &s->before));
    FX_TRY(fill_paces(s));
    return fx_push3(a, FX_U8, s->pixel_range[rank].count, s->size.width, 3, &s->rgb);
}

fx_status fx_session_open(const fx_model *m, fx_backend *be, fx_comm *comm, const fx_session_options *opt,
                          fx_size size, fx_session *out)
{
    const int factor = fx_vae_factor(&m->vae.cfg);
    *out = (fx_session){.size = size,
                        .model = m,
                        .be = be,
                        .comm = comm,
                        .latent_h = size.height / factor,
                        .latent_w = size.width / factor,
                        .channels = m->dit_config.in_channels / 4,
                        .noise_dtype = opt->noise_dtype,
                        .step = opt->step};
    const int64_t rows[FX_SEGMENTS] = {
        [FX_TEXT] = size.t5_len, [FX_IMAGE] = out->latent_h / 2 * (out->latent_w / 2)};
    const fx_dit_options dit = {.mesh = opt->mesh,
                                .exact = opt->exact,
                                .by_kernels = opt->by_kernels,
                                .steps = size.steps,
                                .text_tokens = size.t5_len,
                                .grid_height = out->latent_h / 2,
                                .grid_width = out->latent_w / 2};
    out->sigma = calloc((size_t)size.steps + 1, sizeof *out->sigma);
    out->step_s = calloc((size_t)size.steps, sizeof *out->step_s);
    FX_CHECK(out->sigma && out->step_s, FX_ENOMEM, "no memory for the schedule of %d steps", size.steps);
    FX_TRY(fx_sigmas(&m->scheduler, size.steps, rows[FX_IMAGE], out->sigma));
    FX_TRY(fx_layout_open(opt->layout, opt->mesh.ranks, rows, &out->layout));
    FX_TRY(open_ranges(out));
    FX_TRY(open_buffers(out));
    return fx_dit_open(&m->dit_config, &m->dit, be, comm, &out->layout, &dit, &out->dit);
}

void fx_session_close(fx_session *s)
{
    if (s->dit.cfg) fx_dit_close(&s->dit);
    fx_layout_close(&s->layout);
    free(s->token_range);
    free(s->sigma);
    free(s->step_s);
    *s = (fx_session){0};
}

/* The noise of the whole picture is drawn as the reference does, in one stream; each rank keeps its own rows.
 */
fx_status fx_session_set_noise(fx_session *s, uint64_t seed)
{
    const size_t mark = fx_mark(s->be->arena);
    fx_tensor rows;
    FX_TRY(fx_push2(s->be->arena, FX_F32, s->latents.shape[0], s->latents.shape[1], &rows));
    if (!fx_planning(s->be)) {
        const int64_t n = s->channels * s->latent_h * s->latent_w;
        const fx_range mine = s->token_range[fx_comm_rank(s->comm)];
        float *noise = malloc((size_t)n * sizeof *noise), *packed = malloc(fx_bytes(rows) + 1);
        fx_status st = noise && packed
                           ? FX_OK
                           : FX_FAIL(FX_ENOMEM, "no memory for the noise (%lld values)", (long long)n);
        if (!st) st = fx_noise_normal(seed, s->noise_dtype, n, noise);
        if (!st) {
            fx_pack_noise(noise, s->channels, s->latent_h, s->latent_w, mine.begin, mine.count, packed);
            st = fx_upload(s->be, rows, packed);
        }
        free(noise);
        free(packed);
        FX_TRY(st);
    }
    FX_TRY(fx_copy(s->be, s->latents, rows, 1, 0));
    fx_rewind(s->be->arena, mark);
    return FX_OK;
}

/* ---- steps ---- */

void fx_session_begin_steps(fx_session *s, bool watched)
{
    s->ahead = s->step && !watched && s->be->recorder && fx_exchange_repeats(s->dit.exchange);
}

/* What is the same in every step. */
static fx_status step_body(fx_session *s)
{
    FX_TRY(fx_dit_step(&s->dit, s->latents, s->noise));
    if (s->ahead) FX_TRY(s->be->recorder->count(s->be, s->noise));
    fx_plan_box(s->be, "euler", -1);
    return fx_gate_add(s->be, s->latents, s->pace, s->noise);
}

static fx_status record(fx_session *s)
{
    const uint64_t before = fx_comm_statistics(s->comm).bytes_sent;
    FX_TRY(s->be->recorder->begin(s->be));
    const fx_status st = step_body(s), ended = s->be->recorder->end(s->be, &s->step->recording);
    FX_TRY(st);
    s->step->bytes = fx_comm_statistics(s->comm).bytes_sent - before;
    return ended;
}

static fx_status select_step(fx_session *s, int step)
{
    fx_plan_box(s->be, "select", -1);
    FX_TRY(fx_copy(s->be, s->pace, fx_row(s->paces, step), 1, 0));
    return fx_dit_select(&s->dit, step);
}

fx_status fx_session_step(fx_session *s, int step)
{
    FX_TRY(select_step(s, step));
    FX_TRY(fx_copy(s->be, fx_row(s->before, step % 2), s->latents, 1, 0));
    const bool again = s->ahead && s->step->recording;
    if (again) fx_comm_note_sent(s->comm, s->step->bytes);
    if (s->ahead && s->step->warm && !again) FX_TRY(record(s)); /* counts what the first play sends */
    if (s->ahead && s->step->recording)
        FX_TRY(s->be->recorder->play(s->be, s->step->recording));
    else
        FX_TRY(step_body(s));
    if (s->step) s->step->warm = true;
    return s->ahead ? s->be->recorder->fetch(s->be, step % FX_RECORD_SLOTS) : FX_OK;
}

fx_status fx_session_rewind(fx_session *s, int step)
{
    FX_TRY(fx_copy(s->be, s->latents, fx_row(s->before, step % 2), 1, 0));
    return select_step(s, step);
}

fx_status fx_session_decode(fx_session *s)
{
    fx_backend *be = s->be;
    const int rank = fx_comm_rank(s->comm);
    const fx_vae_config *v = &s->model->vae.cfg;
    const int64_t w = s->latent_w, rows = s->slab[rank].count;
    const size_t mark = fx_mark(be->arena);
    fx_vae_run run;
    fx_tensor tokens, z, pixels;
    FX_TRY(fx_push2(be->arena, be->stream, s->patch_range[rank].count, 4 * s->channels, &tokens));
    FX_TRY(fx_push3(be->arena, be->dtype, rows, w, s->channels, &z));
    FX_TRY(fx_push3(be->arena, be->dtype, s->rgb.shape[0], s->size.width, 3, &pixels));
    FX_TRY(fx_redistribute(be, s->comm, s->token_range, s->latents, s->patch_range, tokens));
    FX_TRY(fx_unpack_latents(be, tokens, z, (float)(1.0 / v->scaling), (float)v->shift));
    if (s->dump) FX_TRY(fx_dump_rows(s->dump, "vae_in", s->slab, s->latent_h, z));
    FX_TRY(fx_vae_run_open(&s->model->vae, be, s->comm, s->slab, s->latent_h, &run));
    const fx_status st = fx_vae_decode(&run, z, pixels);
    fx_vae_run_close(&run);
    FX_TRY(st);
    if (s->dump) FX_TRY(fx_dump_rows(s->dump, "pixels", s->pixel_range, s->size.height, pixels));
    FX_TRY(fx_watch_pixels(s, pixels));
    FX_TRY(fx_to_rgb8(be, s->rgb, pixels));
    fx_rewind(be->arena, mark);
    return FX_OK;
}

fx_status fx_session_gather_rgb(fx_session *s, uint8_t *picture)
{
    return fx_collect_rows(s->be, s->comm, s->pixel_range, s->rgb, picture);
}

static void observe(fx_session *s, const fx_step_watch *w)
{
    fx_plan_observe(s->be, w ? &w->ops : NULL);
    fx_comm_observe(s->comm, w ? &w->comm : NULL);
}

/* The body of the pipeline's denoise loop. */
static fx_status rehearse_step(fx_session *s, const fx_step_watch *w)
{
    if (w && !w->whole) w->begin(w->ctx, s);
    observe(s, w);
    FX_TRY(fx_session_step(s, 0));
    FX_TRY(fx_watch_step(s, 0));
    if (w && !w->whole) observe(s, NULL);
    return FX_OK;
}

/* One of everything that a picture needs, in the order of fx_pipeline_generate; a step repeats, so one is
 * enough. */
static fx_status rehearse(fx_session *s, const fx_step_watch *w)
{
    const fx_text_ids ids = {.clip_count = s->model->text.clip_len, .t5_count = s->size.t5_len};
    if (w && w->whole) {
        w->begin(w->ctx, s);
        observe(s, w);
        fx_plan_box(s->be, "text", -1);
    }
    FX_TRY(fx_text_encode(s->be, s->comm, &s->model->text, &ids, s->t5, s->pooled));
    FX_TRY(fx_session_set_noise(s, 0));
    FX_TRY(fx_dit_prepare(&s->dit, s->t5, s->pooled, s->sigma, 0));
    FX_TRY(rehearse_step(s, w));
    if (w && w->whole) fx_plan_box(s->be, "vae", -1);
    return fx_session_decode(s);
}

fx_status fx_session_plan(const fx_model *m, fx_backend *be, int rank, int ranks,
                          const fx_session_options *opt, fx_size size, const fx_step_watch *w,
                          size_t *arena_bytes)
{
    fx_backend *plan = NULL;
    fx_comm *comm = NULL;
    fx_arena *arena = NULL;
    fx_session s = {0};
    fx_status st;
    FX_TRY_OUT(fx_backend_plan(be, &plan));
    FX_TRY_OUT(fx_comm_open_plan(rank, ranks, &comm));
    FX_TRY_OUT(fx_arena_measure(&arena));
    plan->arena = arena;
    FX_TRY_OUT(fx_session_open(m, plan, comm, opt, size, &s));
    FX_TRY_OUT(rehearse(&s, w));
    *arena_bytes = fx_peak(arena);
out:
    fx_session_close(&s);
    fx_arena_close(&arena);
    fx_comm_close(&comm);
    fx_backend_close(&plan);
    return st;
}
