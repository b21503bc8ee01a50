/* `fluxpar selftest`: do these ranks compute what one rank computes. Flags and checks as in generate; the two runs and
 * the comparison are runtime/selftest.c. Results (a line per step and the verdict, or JSON) go to the standard output. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "launch/agree.h"
#include "launch/commands.h"
#include "launch/metadata.h"
#include "launch/place/place.h"
#include "launch/progress.h"
#include "launch/prompt.h"
#include "launch/recipe.h"
#include "launch/talk.h"
#include "runtime/selftest.h"

static const char default_prompt[] = "a slice of pizza on a blue background";
enum { DEFAULT_STEPS = 4, DEFAULT_SEED = 1 };

typedef struct job {
    fx_run *s;
    fx_options used;
    char *prompt;
    fx_progress_state progress;
} job;

static fx_status prepare(job *j)
{
    fx_run *s = j->s;
    fx_options *o = &j->used;
    char echo[1024];
    if (!o->prompt && !o->prompt_file) o->prompt = default_prompt;
    if (!o->steps) o->steps = DEFAULT_STEPS;
    if (!fx_flag_given(o, "seed")) o->seed = DEFAULT_SEED;
    fx_options_echo(o, echo, sizeof echo);
    fx_talk("fluxpar %s selftest %s", FX_VERSION, echo);
    fx_talk_phase("checks");
    FX_TRY(fx_prompt_get(s, o, &j->prompt));
    o->prompt = j->prompt;
    FX_TRY(fx_run_vote(s, s->rank == 0 ? fx_recipe_check(o, s->ranks) : FX_OK));
    FX_TRY(fx_agree_model(s, o->model));
    FX_TRY(fx_recipe_backend(s->comm, s->ranks, s->nodes, o));
    fx_talk_open(s->rank, s->ranks, o->backend, o->quiet, o->verbose);
    return fx_place_run(s, o);
}

/* ---- while it runs ---- */

static void on_begin(void *ctx, bool alone)
{
    const job *j = ctx;
    const int ranks = j->s->ranks;
    fx_talk_phase(alone ? "the run of rank 0 alone" : "load");
    if (ranks > 1)
        fx_talk(alone ? "run 1    rank 0 alone; the others wait" : "run 2    all %d ranks", ranks);
    else
        fx_talk(alone ? "run 1    one thread" : "run 2    all threads");
}

static void on_step(void *ctx, int step, const fx_selftest_step *s)
{
    job *j = ctx;
    fx_progress_clear(&j->progress);
    if (j->used.json || j->s->rank != 0) return;
    char blocks[64] = "not compared";
    if (s->blocks) snprintf(blocks, sizeof blocks, "relative error %.3g", s->block_relative);
    printf("selftest: step %d: latents max |diff| %.3g, relative error %.3g; blocks %s%s\n", step + 1,
           s->max_diff, s->relative, blocks, s->good ? "" : "; DIFFERENT");
    fflush(stdout);
}

/* ---- results ---- */

static const char *agreement(const fx_selftest_result *r, char *text, size_t size)
{
    if (r->exact) return "equal bits";
    snprintf(text, size, "within %.2g", r->tolerance);
    return text;
}

/* JSON has no NaN: null stands for it. */
static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *steps_json(const fx_selftest_result *r)
{
    json_t *list = json_array();
    for (int i = 0; i < r->steps_done; i++) {
        const fx_selftest_step *s = &r->steps[i];
        json_array_append_new(
            list, json_pack("{s:i, s:o, s:o, s:o, s:b}", "step", i + 1, "max_diff", number(s->max_diff),
                            "relative_error", number(s->relative), "blocks_relative_error",
                            s->blocks ? number(s->block_relative) : json_null(), "good", s->good));
    }
    return list;
}

static json_t *first_json(const fx_selftest_result *r)
{
    if (!r->first.found) return json_null();
    return json_pack("{s:i, s:s, s:i, s:o, s:o, s:I, s:I}", "step", r->first.step, "block", r->first.block,
                     "rank", r->first.rank, "max_diff", number(r->first.max_diff), "relative_error",
                     number(r->first.relative), "rows", (json_int_t)r->first.rows, "of",
                     (json_int_t)r->first.of);
}

static fx_status print_json(const job *j, const fx_selftest_result *r)
{
    const fx_options *o = &j->used;
    json_t *root =
        json_pack("{s:s, s:b, s:s, s:i, s:i, s:{s:i, s:i}, s:s, s:b, s:o, s:i, s:s, s:s, s:o, s:i, s:i, s:s, "
                  "s:o, s:i, s:o}",
                  "version", FX_VERSION, "passed", !r->first.found, "model", o->model, "ranks", j->s->ranks,
                  "nodes", j->s->nodes, "mesh", "ulysses", r->facts.mesh.ulysses, "ring", r->facts.mesh.ring,
                  "layout", fx_layout_name(r->layout), "exact", r->exact, "tolerance",
                  r->exact ? json_null() : json_real(r->tolerance), "threads", r->facts.threads, "backend",
                  o->backend, "dtype", o->dtype, "seed", fx_flag_json(o, &fx_flags[fx_flag_find("seed")]),
                  "width", r->request.width, "height", r->request.height, "prompt", o->prompt, "steps",
                  steps_json(r), "pixel_diff", r->pixel_diff, "first_difference", first_json(r));
    FX_CHECK(root, FX_EFORMAT, "the model's name is not UTF-8; JSON cannot hold it; rename it");
    json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(10));
    putchar('\n');
    json_decref(root);
    return fx_results_written();
}

static fx_status print_passed(const job *j, const fx_selftest_result *r)
{
    const fx_model_facts *f = &r->facts;
    char text[48];
    printf("selftest: passed: %d rank%s, mesh %dx%d, layout %s, exact: %s; %s; %d thread%s per rank, %s, %s, "
           "%dx%d, "
           "seed %llu, pictures differ by %d\n",
           j->s->ranks, j->s->ranks == 1 ? "" : "s", f->mesh.ulysses, f->mesh.ring, fx_layout_name(r->layout),
           r->exact ? "yes" : "no", agreement(r, text, sizeof text), f->threads, f->threads == 1 ? "" : "s",
           j->used.backend, j->used.dtype, r->request.width, r->request.height,
           (unsigned long long)j->used.seed, r->pixel_diff);
    return fx_results_written();
}

static fx_status test(job *j)
{
    fx_selftest_options opt = {.pipeline = fx_recipe_pipeline(&j->used),
                               .request = fx_recipe_request(&j->used),
                               .timeout_s = j->used.timeout,
                               .begin = on_begin,
                               .after_step = on_step,
                               .ctx = j};
    fx_selftest_result r;
    opt.pipeline.progress = fx_progress_show;
    opt.pipeline.progress_ctx = &j->progress;
    fx_status st = fx_selftest_run(&opt, j->s->comm, &r), printed = FX_OK;
    fx_progress_clear(&j->progress);
    if (j->s->rank == 0 && j->used.json && (st == FX_OK || r.first.found)) {
        char message[2048]; /* of the selftest: printing may fail too, and says so instead */
        snprintf(message, sizeof message, "%s", fx_error());
        printed = print_json(j, &r);
        if (printed == FX_OK && st != FX_OK) st = FX_FAIL(st, "%s", message);
    } else if (j->s->rank == 0 && st == FX_OK)
        printed = print_passed(j, &r);
    fx_selftest_free(&r);
    return st != FX_OK ? st : fx_run_vote(j->s, printed);
}

fx_status fx_cmd_selftest(fx_run *s, const fx_options *o)
{
    job j = {.s = s, .used = *o};
    fx_progress_open(&j.progress);
    fx_status st = prepare(&j);
    if (st == FX_OK) st = test(&j);
    fx_progress_clear(&j.progress);
    free(j.prompt);
    return st;
}
