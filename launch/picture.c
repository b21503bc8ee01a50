/* One picture; see picture.h. */
#include "launch/picture.h"

#include <stdio.h>

#include "launch/commands.h"
#include "launch/metadata.h"
#include "launch/signals.h"
#include "launch/talk.h"
#include "runtime/core/clock.h"
#include "runtime/io/png.h"

enum { REPORT_IMAGES = 10000 }; /* a report is one piece of memory; a batch has its results file */

/* Seconds until the picture has its name. After the steps come decoder and file: as long as the last time, or like some
 * steps. */
static double seconds_left(const fx_work *w, size_t done, size_t total, double seconds)
{
    const double step_s = seconds / (double)done;
    return step_s * (double)(total - done) + (w->tail_s > 0 ? w->tail_s : 4 * step_s);
}

void fx_picture_progress(void *ctx, fx_phase phase, size_t done, size_t total, double seconds)
{
    fx_work *w = ctx;
    double left_s;
    fx_progress_show(&w->progress, phase, done, total, seconds);
    fx_desk_tick(w->desk);
    const int asked = fx_signals_asked(&left_s);
    if (!asked || (phase != FX_PHASE_LOAD && phase != FX_PHASE_DENOISE)) return;
    const bool in_time =
        phase == FX_PHASE_DENOISE && done && seconds_left(w, done, total, seconds) < 0.8 * left_s;
    if (in_time || done == total) return;
    if (phase == FX_PHASE_LOAD)
        fx_stop_request(asked);
    else
        fx_stop_wish(asked); /* other groups may finish theirs */
}

static fx_status write_picture(fx_work *w, const fx_options *used, const fx_result *result, const char *path,
                               double *png_s)
{
    fx_metadata meta;
    const double start = fx_now_s();
    FX_TRY(fx_metadata_make(used, w->facts, &meta));
    const fx_png_text texts[] = {{"parameters", meta.parameters}, {"fluxpar", meta.json}};
    const fx_status st = fx_png_write(path, result->rgb, result->width, result->height, 2, texts, used->force,
                                      w->facts->threads);
    fx_metadata_free(&meta);
    *png_s = fx_now_s() - start;
    return st;
}

fx_status fx_picture_make(fx_work *w, const fx_options *used, const fx_request *request, const char *path,
                          fx_result *result, fx_made *made)
{
    fx_comm *team = fx_pipeline_team(w->pipe);
    const double start = fx_now_s();
    double png_s = 0;
    FX_TRY(fx_pipeline_generate(w->pipe, request, result));
    fx_progress_clear(&w->progress);
    fx_comm_set_phase(team, "png");
    FX_TRY(
        fx_comm_vote(team, fx_comm_rank(team) ? FX_OK : write_picture(w, used, result, path, &png_s), NULL));
    *made = (fx_made){.text_s = result->time.text,
                      .denoise_s = result->time.denoise,
                      .vae_s = result->time.vae,
                      .png_s = png_s,
                      .total_s = fx_now_s() - start,
                      .text_kept = result->text_kept};
    w->tail_s = made->vae_s + png_s;
    return FX_OK;
}

fx_status fx_picture_tell(fx_work *w, const fx_options *used, const fx_result *result, const char *path,
                          const fx_made *made)
{
    const fx_picture p = {used, result, path, made->png_s, fx_run_age(w->s)};
    fx_progress_clear(&w->progress);
    fx_report_check_memory(&p);
    if (w->used.batch)
        fx_talk("  %s: %dx%d, seed %llu, %.3f s (text %.3f%s, denoise %.3f, vae %.3f, png %.3f)", path,
                result->width, result->height, (unsigned long long)used->seed, made->total_s, made->text_s,
                made->text_kept ? " kept" : "", made->denoise_s, made->vae_s, made->png_s);
    else
        fx_report_print(&p, w->load_s, w->s->ranks);
    if (w->used.report && json_array_size(w->report.images) < REPORT_IMAGES)
        FX_TRY(fx_report_add(&w->report, &p));
    printf("%s\n", path);
    return fx_results_written();
}
