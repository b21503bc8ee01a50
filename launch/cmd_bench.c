/* `fluxpar bench`: meshes of 1 to RANKS ranks against each other, through the pipeline that makes pictures. The table goes to the
 * standard output, and with all samples to --json FILE. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/agree.h"
#include "launch/bench/bench.h"
#include "launch/commands.h"
#include "launch/json_file.h"
#include "launch/model_look.h"
#include "launch/prompt.h"
#include "launch/recipe.h"
#include "launch/talk.h"

static const char default_prompt[] = "a slice of pizza on a blue background";
enum { DEFAULT_STEPS = 4, DEFAULT_SEED = 1 };

typedef struct job {
    fx_run *s;
    fx_options used;
    char *prompt;
    fx_bench_case *cases;
    int n;
} job;

/* ---- before the weights ---- */

/* Rank 0: what can be refused without weights. */
static fx_status look(const job *j, int *heads)
{
    static fx_look model;
    if (j->used.json_file) FX_TRY(fx_json_check(j->used.json_file, j->used.force, "json"));
    FX_TRY(fx_recipe_check(&j->used, 1));
    FX_TRY(fx_look_at(j->used.model, &model));
    FX_CHECK(model.configs, FX_EFORMAT, "model %s: its configs are not there; bench needs them",
             j->used.model);
    *heads = (int)model.heads;
    return FX_OK;
}

static fx_status prepare(job *j)
{
    fx_run *s = j->s;
    fx_options *o = &j->used;
    char echo[1024];
    int heads = 0;
    if (!o->prompt && !o->prompt_file) o->prompt = default_prompt;
    if (!o->steps) o->steps = DEFAULT_STEPS;
    if (!fx_flag_given(o, "seed")) o->seed = DEFAULT_SEED;
    fx_options_echo(o, echo, sizeof echo);
    fx_talk("fluxpar %s bench %s", FX_VERSION, echo);
    fx_comm_set_phase(s->comm, "checks");
    FX_TRY(fx_prompt_get(s, o, &j->prompt));
    o->prompt = j->prompt;
    FX_TRY(fx_run_vote(s, s->rank == 0 ? look(j, &heads) : FX_OK));
    FX_TRY(fx_agree_model(s, o->model));
    FX_TRY(fx_comm_broadcast(s->comm, 0, &heads, sizeof heads));
    FX_TRY(fx_run_vote(s, fx_bench_cases(o, s->ranks, heads, &j->cases, &j->n)));
    if (!j->cases) return FX_ENOMEM; /* the vote has failed then */
    for (int i = 0; i < j->n; i++) FX_TRY(fx_recipe_backend(s->comm, s->ranks, s->nodes, &j->cases[i].used));
    fx_bench_bases(j->cases, j->n);
    fx_talk_open(s->rank, s->ranks, j->cases[0].used.backend, o->quiet, o->verbose);
    return FX_OK;
}

/* ---- results ---- */

static fx_status write_json(const fx_bench *b)
{
    json_t *root = fx_bench_json(b);
    FX_CHECK(root, FX_ENOMEM, "no memory for the JSON, or a text in it is not UTF-8");
    const fx_status st = fx_json_write(root, b->used->json_file, "json");
    json_decref(root);
    return st;
}

static fx_status print(const fx_bench *b)
{
    fx_bench_print_header(b);
    fx_bench_print_rows(b);
    FX_TRY(fx_results_written());
    if (b->used->json_file) FX_TRY(write_json(b));
    for (int i = 0; i < b->n; i++)
        FX_CHECK(!fx_bench_wrong(&b->rows[i]), FX_ENUMERIC,
                 "bench: %s differs from one rank in %lld bytes of the latents and %lld of a picture; equal "
                 "bytes are "
                 "promised; run fluxpar selftest with this mesh to see where",
                 b->rows[i].of->name, (long long)b->rows[i].bad_latents,
                 (long long)(b->rows[i].bad_pictures < 0 ? 0 : b->rows[i].bad_pictures));
    return FX_OK;
}

static fx_status measure(job *j)
{
    fx_bench b = {
        .s = j->s, .used = &j->used, .cases = j->cases, .n = j->n, .request = fx_recipe_request(&j->used)};
    fx_status st = fx_bench_run(&b);
    if (!st) st = fx_run_vote(j->s, j->s->rank == 0 ? print(&b) : FX_OK);
    fx_bench_free(&b);
    return st;
}

fx_status fx_cmd_bench(fx_run *s, const fx_options *o)
{
    job j = {.s = s, .used = *o};
    if (o->calibrate) return fx_cmd_calibrate(s, o);
    fx_status st = prepare(&j);
    if (st == FX_OK) st = measure(&j);
    free(j.cases);
    free(j.prompt);
    return st;
}
