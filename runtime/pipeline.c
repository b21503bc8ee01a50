/* START HERE. Prompt -> tokens -> text vectors -> noise -> denoise steps -> pixels, on one screen: generate().
 * What depends on the picture's size (buffers, plan, row layout) is in sizes.c and session.c; on the model in model.c; opening
 * and closing are in pipeline_open.c. */
#include "runtime/pipeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/clock.h"
#include "runtime/core/log.h"
#include "runtime/dump.h"
#include "runtime/pipeline_internal.h"
#include "runtime/replay.h"
#include "runtime/request.h"
#include "runtime/watch.h"

static void on_phase(const fx_pipeline *p, fx_phase phase, size_t done, size_t total, double begin_s)
{
    if (p->opt.progress) p->opt.progress(p->opt.progress_ctx, phase, done, total, fx_now_s() - begin_s);
}

static fx_size size_of(const fx_request *r)
{
    return (fx_size){r->width, r->height, r->steps, r->t5_len};
}

static fx_status open_size(fx_pipeline *p, const fx_request *r)
{
    const size_t bytes = 3 * (size_t)r->width * (size_t)r->height;
    FX_TRY(fx_sizes_open(&p->sizes, size_of(r)));
    if (fx_comm_rank(p->comm) || bytes <= p->rgb_bytes) return fx_comm_vote(p->comm, FX_OK, NULL);
    free(p->rgb);
    p->rgb = malloc(bytes);
    p->rgb_bytes = p->rgb ? bytes : 0;
    const fx_status st =
        p->rgb ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for a picture of %dx%d", r->width, r->height);
    return fx_comm_vote(p->comm, st, NULL);
}

/* Prompt -> the encoders' outputs. All ranks keep the same prompts, and make sure of it: one that could not keep a prompt
 * makes all encode it again. */
static fx_status embed(fx_pipeline *p, const fx_request *r)
{
    const fx_session *s = &p->sizes.session;
    int64_t kept = fx_text_kept_has(p->kept, r->prompt, s->t5, s->pooled);
    FX_TRY(fx_comm_all_reduce_i64(p->comm, FX_MIN, &kept, 1));
    p->text_kept = kept;
    if (kept)
        return fx_comm_vote(p->comm, fx_text_kept_fetch(p->kept, p->be, r->prompt, s->t5, s->pooled), NULL);
    FX_TRY(fx_text_encode(p->be, p->comm, &p->model.text, &p->ids, s->t5, s->pooled));
    FX_TRY(fx_comm_settle(p->comm));
    return fx_comm_vote(p->comm, fx_text_kept_keep(p->kept, p->be, r->prompt, s->t5, s->pooled), NULL);
}

/* Prompt -> the transformer's conditions, on every rank. */
static fx_status encode_text(fx_pipeline *p, const fx_request *r)
{
    fx_session *s = &p->sizes.session;
    fx_comm_set_phase(p->comm, "text");
    fx_text_ids_free(&p->ids);
    FX_TRY(fx_comm_vote(p->comm, fx_text_tokenize(&p->model.text, r->prompt, r->t5_len, &p->ids), NULL));
    if (p->ids.cut && fx_comm_rank(p->comm) == 0)
        fx_log(FX_LOG_WARN, "the prompt is longer than %d text tokens; these words were cut: %s", r->t5_len,
               p->ids.cut);
    FX_TRY(embed(p, r));
    FX_TRY(fx_session_set_noise(s, r->seed));
    FX_TRY(fx_gallery_text(&p->gallery, &p->ids));
    FX_TRY(fx_dit_prepare(&s->dit, s->t5, s->pooled, s->sigma, r->guidance));
    return fx_gallery_prepared(&p->gallery);
}

static fx_status start_step(fx_pipeline *p, int step)
{
    char phase[32];
    snprintf(phase, sizeof phase, "denoise step %d", step + 1);
    fx_comm_set_phase(p->comm, phase);
    fx_gallery_begin_step(&p->gallery, &p->sizes.session.dit, step);
    return fx_session_step(&p->sizes.session, step);
}

/* Where nobody looks on, a device gets the next step before the last one is over: it never waits for the host. */
static fx_status denoise(fx_pipeline *p, int steps)
{
    fx_session *s = &p->sizes.session;
    const double begin_s = fx_now_s();
    double last_s = begin_s;
    fx_session_begin_steps(s, fx_gallery_open_in_steps(&p->gallery));
    const int ahead = s->ahead ? 1 : 0;
    for (int next = 0; next < steps + ahead; next++) {
        const int step = next - ahead;
        if (next < steps) FX_TRY(start_step(p, next));
        if (step < 0) continue;
        FX_TRY(fx_watch_step(s, step));
        if (!ahead) FX_TRY(fx_gallery_step(&p->gallery));
        s->step_s[step] = fx_now_s() - last_s;
        last_s += s->step_s[step];
        on_phase(p, FX_PHASE_DENOISE, (size_t)step + 1, (size_t)steps, begin_s);
    }
    return FX_OK;
}

static fx_status decode(fx_pipeline *p)
{
    fx_session *s = &p->sizes.session;
    fx_comm_set_phase(p->comm, "vae");
    FX_TRY(fx_session_decode(s));
    FX_TRY(fx_session_gather_rgb(s, p->rgb));
    return fx_gallery_rgb(&p->gallery, p->rgb);
}

/* ---- the report ---- */

static fx_status gather_reports(fx_pipeline *p, double denoise_wait_s)
{
    const int ranks = fx_comm_size(p->comm);
    const fx_memory memory = fx_memory_read();
    const fx_comm_stats comm = fx_comm_statistics(p->comm);
    const fx_rank_report mine = {.peak_bytes = memory.peak_bytes,
                                 .file_bytes = memory.file_bytes,
                                 .weight_bytes = p->facts.weight_bytes,
                                 .arena_bytes = p->sizes.arena_bytes,
                                 .arena_peak_bytes = fx_peak(p->sizes.arena),
                                 .text_bytes = fx_text_kept_bytes(p->kept),
                                 .comm_bytes = comm.bytes_sent,
                                 .comm_wait_s = comm.wait_s,
                                 .denoise_wait_s = denoise_wait_s};
    size_t *where = calloc(2 * (size_t)ranks, sizeof *where);
    FX_CHECK(where, FX_ENOMEM, "no memory for the report");
    for (int i = 0; i < ranks; i++) {
        where[i] = sizeof mine;
        where[ranks + i] = (size_t)i * sizeof mine;
    }
    const fx_status st = fx_comm_all_gather(p->comm, &mine, p->reports, where, where + ranks);
    free(where);
    return st;
}

/* Times as every rank saw them -> the slowest rank's. */
static fx_status fill_result(fx_pipeline *p, const double mark_s[4], double denoise_wait_s, fx_result *out)
{
    const fx_session *s = &p->sizes.session;
    double t[5] = {p->load_s, mark_s[1] - mark_s[0], mark_s[2] - mark_s[1], mark_s[3] - mark_s[2],
                   mark_s[3] - mark_s[0]};
    FX_TRY(fx_comm_all_reduce_f64(p->comm, FX_MAX, t, 5));
    FX_TRY(fx_comm_all_reduce_f64(p->comm, FX_MAX, s->step_s, s->size.steps));
    FX_TRY(gather_reports(p, denoise_wait_s));
    *out = (fx_result){.width = s->size.width,
                       .height = s->size.height,
                       .rgb = fx_comm_rank(p->comm) ? NULL : p->rgb,
                       .first = fx_comm_job_rank(p->comm, 0),
                       .ranks = fx_comm_size(p->comm),
                       .rank = p->reports,
                       .cut = p->ids.cut,
                       .text_kept = p->text_kept};
    out->time = (fx_timings){
        .load = t[0], .text = t[1], .denoise = t[2], .vae = t[3], .total = t[4], .step = s->step_s};
    return FX_OK;
}

static fx_status generate(fx_pipeline *p, const fx_request *request, bool with_decoder, fx_result *out)
{
    fx_request r = *request;
    const fx_dump dump = {r.dump_dir, p->be, p->comm};
    double mark_s[4];
    FX_TRY(fx_comm_vote(p->comm, fx_pipeline_complete(p, &r), NULL));
    fx_comm_set_phase(p->comm, "plan");
    FX_TRY(open_size(p, &r));
    p->sizes.session.dump = r.dump_dir ? &dump : NULL;
    p->gallery = (fx_gallery){&p->sizes.session, &r, 0};
    fx_comm_reset_statistics(p->comm);

    mark_s[0] = fx_now_s();
    FX_TRY(encode_text(p, &r));
    mark_s[1] = fx_now_s();
    on_phase(p, FX_PHASE_TEXT, 1, 1, mark_s[0]);
    const double wait_s = fx_comm_statistics(p->comm).wait_s;
    FX_TRY(denoise(p, r.steps));
    mark_s[2] = fx_now_s();
    const double denoise_wait_s = fx_comm_statistics(p->comm).wait_s - wait_s;
    if (with_decoder) FX_TRY(decode(p));
    mark_s[3] = fx_now_s();
    on_phase(p, FX_PHASE_VAE, 1, 1, mark_s[2]);
    p->sizes.session.dump = NULL;
    p->sizes.session.dit.observe = NULL;
    FX_TRY(fill_result(p, mark_s, denoise_wait_s, out));
    if (!with_decoder) out->rgb = NULL;
    return FX_OK;
}

/* Requests to be planned -> their sizes, defaults filled in. */
static fx_status sizes_of(const fx_pipeline *p, const fx_request *requests, int n, fx_request r[],
                          fx_size size[])
{
    FX_CHECK(n <= FX_WARM_MOST, FX_EINVAL, "%d sizes to warm up; at most %d", n, FX_WARM_MOST);
    for (int i = 0; i < n; i++) {
        r[i] = requests[i];
        r[i].dump_dir = NULL, r[i].onlooker = NULL;
        FX_TRY(fx_pipeline_complete(p, &r[i]));
        size[i] = size_of(&r[i]);
    }
    return FX_OK;
}

fx_status fx_pipeline_reserve(fx_pipeline *p, const fx_request *requests, int n)
{
    fx_request r[FX_WARM_MOST];
    fx_size size[FX_WARM_MOST];
    fx_comm_set_phase(p->sizes.whole, "plan");
    FX_TRY(fx_comm_vote(p->sizes.whole, sizes_of(p, requests, n, r, size), NULL));
    return fx_sizes_reserve(&p->sizes, size, n);
}

/* Text, one step that runs and one that is recorded, and the decoder. */
static fx_status warm_up(fx_pipeline *p, const fx_request *r)
{
    FX_TRY(open_size(p, r));
    p->gallery = (fx_gallery){&p->sizes.session, r, 0};
    FX_TRY(encode_text(p, r));
    FX_TRY(denoise(p, r->steps < 2 ? r->steps : 2));
    return decode(p);
}

/* All teams of a width at the same time. */
static fx_status warm_up_teams(fx_pipeline *p, const fx_request r[], int n)
{
    for (int t = p->sizes.teams - 1; t >= 0; t--) {
        FX_TRY(fx_pipeline_select(p, p->sizes.team[t].groups));
        fx_status st = FX_OK;
        for (int i = 0; !st && i < n; i++) st = warm_up(p, &r[i]);
        FX_TRY(fx_comm_vote(p->sizes.whole, st, NULL));
    }
    return FX_OK;
}

fx_status fx_pipeline_warm_up(fx_pipeline *p, const fx_request *requests, int n)
{
    const fx_progress progress = p->opt.progress;
    const int groups = p->sizes.now->groups;
    fx_request r[FX_WARM_MOST] = {0};
    fx_size size[FX_WARM_MOST];
    fx_comm_set_phase(p->sizes.whole, "warm-up");
    FX_TRY(fx_comm_vote(p->sizes.whole, sizes_of(p, requests, n, r, size), NULL));
    FX_TRY(fx_sizes_reserve(&p->sizes, size, n));
    p->opt.progress = NULL; /* no phase of a picture */
    const fx_status st = warm_up_teams(p, r, n);
    p->opt.progress = progress;
    return st ? st : fx_pipeline_select(p, groups);
}

/* A picture that failed leaves what it had taken of its size's memory taken. */
static fx_status afresh_after(fx_pipeline *p, fx_status st)
{
    if (st != FX_OK && st != FX_ECOMM && st != FX_ESIGNAL && fx_comm_agreed(p->comm))
        fx_sizes_leave(&p->sizes);
    return st;
}

fx_status fx_pipeline_generate(fx_pipeline *p, const fx_request *r, fx_result *out)
{
    return afresh_after(p, generate(p, r, true, out));
}

fx_status fx_pipeline_denoise_only(fx_pipeline *p, const fx_request *r, fx_result *out)
{
    return afresh_after(p, generate(p, r, false, out));
}

fx_status fx_pipeline_exchange_only(fx_pipeline *p, const fx_request *request, int runs, double seconds[])
{
    fx_request r = *request;
    FX_TRY(fx_comm_vote(p->comm, fx_pipeline_complete(p, &r), NULL));
    fx_comm_set_phase(p->comm, "plan");
    FX_TRY(open_size(p, &r));
    return fx_replay_step(&p->sizes, runs, seconds);
}
