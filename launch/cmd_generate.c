/* `fluxpar generate`: arguments that all ranks agree on -> checks that need no weights -> load -> pictures ->
 * files. Every step ends with a vote, so that all ranks go on or all stop; pictures are made by groups (picture_desk.c). */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/ops.h"
#include "launch/agree.h"
#include "launch/commands.h"
#include "launch/metadata.h"
#include "launch/model_look.h"
#include "launch/picture.h"
#include "launch/place/place.h"
#include "launch/prompt.h"
#include "launch/recipe.h"
#include "launch/signals.h"
#include "launch/talk.h"
#include "runtime/core/clock.h"
#include "runtime/core/log.h"
#include "runtime/pipeline.h"

/* ---- before the weights ---- */

static fx_status draw_seed(fx_run *s, fx_options *o)
{
    uint32_t drawn = 0; /* the generator uses 32 bits of a seed */
    fx_status st = FX_OK;
    if (s->rank == 0 && getrandom(&drawn, sizeof drawn, 0) != sizeof drawn)
        st = FX_FAIL(FX_EDEVICE, "the system gives no random number; %s; give a seed with -S",
                     strerror(errno));
    FX_TRY(fx_run_vote(s, st));
    FX_TRY(fx_comm_broadcast(s->comm, 0, &drawn, sizeof drawn));
    if (!fx_flag_given(o, "seed")) o->seed = drawn;
    if (o->seed > UINT64_MAX - (uint64_t)(o->count - 1))
        st = FX_FAIL(
            FX_EINVAL,
            "-n %lld from --seed %llu passes the largest seed; seeds are counted up; take a smaller one",
            (long long)o->count, (unsigned long long)o->seed);
    return fx_run_vote(s, st);
}

/* A prompt and a seed, or a batch that has them. */
static fx_status prepare_pictures(fx_work *j, char **prompt)
{
    fx_options *o = &j->used;
    FX_TRY(fx_prompt_get(j->s, o, prompt));
    o->prompt = *prompt;
    FX_TRY(draw_seed(j->s, o));
    return fx_run_vote(j->s, j->s->rank == 0 ? fx_outputs_check(o) : FX_OK);
}

static fx_status prepare_batch(fx_work *j, fx_batch **batch)
{
    const fx_options *o = &j->used;
    const bool first = j->s->rank == 0;
    fx_signals_grace(o->grace,
                     "'; the unfinished picture is not written; what is done is in the results file; go on "
                     "with --resume");
    FX_TRY(fx_run_vote(j->s, first ? fx_outputs_check_batch(o) : FX_OK));
    return fx_run_vote(j->s, first ? fx_batch_open(o, batch) : FX_OK);
}

static fx_status prepare(fx_work *j, char **prompt, fx_batch **batch)
{
    fx_run *s = j->s;
    fx_options *o = &j->used;
    char echo[1024];
    fx_options_echo(o, echo, sizeof echo);
    fx_talk("fluxpar %s generate %s", FX_VERSION, echo);
    fx_comm_set_phase(s->comm, "checks");
    FX_TRY(o->batch ? prepare_batch(j, batch) : prepare_pictures(j, prompt));
    FX_TRY(fx_run_vote(s, s->rank == 0 ? fx_recipe_check(o, s->ranks) : FX_OK));
    FX_TRY(fx_agree_model(s, o->model));
    FX_TRY(fx_recipe_backend(s->comm, s->ranks, s->nodes, o));
    fx_talk_open(s->rank, s->ranks, o->backend, o->quiet, o->verbose);
    return fx_place_run(s, o);
}

/* ---- load ---- */

/* How many groups there may be, and how many there are at the beginning: rank 0 knows how many pictures wait. */
static fx_status choose_groups(fx_work *j, const fx_batch *batch)
{
    FX_TRY(fx_run_vote(j->s, fx_recipe_groups(&j->used, j->s->ranks, &j->groups)));
    int64_t waiting = batch ? fx_batch_waiting(batch) : j->used.count;
    FX_TRY(fx_comm_broadcast(j->s->comm, 0, &waiting, sizeof waiting));
    j->unknown = j->used.batch && !waiting && j->used.groups; /* a pipe: as many as were asked for */
    j->at_once = j->unknown ? j->groups.groups : 1;
    if (waiting > 0) j->at_once = fx_groups_next(&j->groups, j->groups.groups, waiting).groups;
    j->used.groups = j->groups.groups;
    j->used.merge = j->groups.merge;
    return FX_OK;
}

static fx_status same_model(fx_work *j)
{
    uint64_t hash = j->facts->hash;
    FX_TRY(fx_comm_broadcast(j->s->comm, 0, &hash, sizeof hash));
    fx_status st = FX_OK;
    if (hash != j->facts->hash)
        st = FX_FAIL(FX_EFORMAT,
                     "model %s differs between the ranks; this rank sees hash %016llx, rank 0 %016llx; put "
                     "the same files on all nodes",
                     j->used.model, (unsigned long long)j->facts->hash, (unsigned long long)hash);
    return fx_run_vote(j->s, st);
}

static fx_status load(fx_work *j, const fx_batch *batch)
{
    FX_TRY(choose_groups(j, batch));
    fx_pipeline_options p = fx_recipe_pipeline(&j->used);
    p.progress = fx_picture_progress;
    p.progress_ctx = j;
    p.groups = j->groups.groups;
    p.at_once = j->at_once;
    const fx_request first = fx_recipe_request(&j->used);
    if (!j->used.batch) p.first = &first; /* a batch goes on after a picture that does not fit */
    if (!j->used.batch && !j->used.warmup && j->used.count == 1)
        p.text_bytes = 0; /* its prompt does not come again */
    const double start = fx_now_s();
    FX_TRY(fx_pipeline_open(&p, j->s->comm, &j->pipe));
    j->facts = fx_pipeline_facts(j->pipe);
    j->load_s = fx_now_s() - start;
    FX_TRY(same_model(j));
    return fx_run_vote(j->s, fx_pipeline_select(j->pipe, j->at_once));
}

/* ---- header and notes ---- */

/* The defaults of the model become the values used. */
static void take_defaults(fx_options *o, const fx_request *r)
{
    o->width = r->width;
    o->height = r->height;
    o->steps = r->steps;
    o->guidance = r->guidance < 0 ? 3.5 : r->guidance;
    o->t5_len = r->t5_len;
}

/* What is decided, and by which threshold. */
static void print_groups(const fx_work *j)
{
    char text[512];
    const int most = j->groups.groups, width = j->groups.ranks / most;
    if (most == 1) return;
    snprintf(text, sizeof text, "up to %d of %d rank%s", most, width, width == 1 ? "" : "s");
    if (!j->used.batch) fx_groups_text(&j->groups, j->used.count, text, sizeof text);
    if (j->groups.merge)
        fx_talk("groups   %s; they merge when fewer than %lld pictures wait", text,
                (long long)j->groups.merge);
    else
        fx_talk("groups   %s; they never merge", text);
}

static void print_header(const fx_work *j)
{
    const fx_model_facts *f = j->facts;
    const fx_options *o = &j->used;
    char name[256], guidance[48] = "", size[64] = "";
    fx_model_name(o->model, name, sizeof name);
    if (f->guidance) snprintf(guidance, sizeof guidance, ", guidance %.10g", o->guidance);
    if (f->parameters > 0) snprintf(size, sizeof size, ", %.4g M parameters", f->parameters / 1e6);
    fx_talk("model    %s (%s)%s, %d double + %d single blocks, %d heads, %.1f MiB of weights", name, f->kind,
            size, f->double_blocks, f->single_blocks, f->heads, (double)f->weight_bytes / 1048576.0);
    fx_talk("run      %d rank%s on %d node%s, mesh %dx%d (ulysses x ring), layout %s, %s, %d thread%s per "
            "rank, %s, %s%s%s",
            j->s->ranks, j->s->ranks == 1 ? "" : "s", j->s->nodes, j->s->nodes == 1 ? "" : "s",
            f->mesh.ulysses, f->mesh.ring, fx_layout_name(f->layout), f->exact ? "exact" : "not exact",
            f->threads, f->threads == 1 ? "" : "s", f->backend, o->dtype,
            f->exchange[0] ? ", exchange by " : "", f->exchange);
    print_groups(j);
    fx_talk("picture  %lldx%lld, %lld steps%s, %lld text tokens", (long long)o->width, (long long)o->height,
            (long long)o->steps, guidance, (long long)o->t5_len);
}

static void print_notes(const fx_work *j)
{
    const fx_options *o = &j->used;
    if (!j->facts->guidance && fx_flag_given(o, "guidance"))
        fx_log(FX_LOG_NOTE, "--guidance is ignored: this model has no guidance embedding");
    if (j->facts->width >= 1024 && (double)o->width * (double)o->height > 2.1e6)
        fx_log(FX_LOG_NOTE,
               "%lldx%lld is beyond the 2 megapixels FLUX.1 was trained for: stripes may appear; this is no "
               "fault of sharding",
               (long long)o->width, (long long)o->height);
}

/* ---- pictures ---- */

static fx_status warm_up(fx_work *j, const fx_request *like)
{
    fx_request r[FX_WARM_MOST];
    int n = 0;
    const double start = fx_now_s();
    FX_TRY(fx_run_vote(j->s, fx_recipe_warm_up(&j->used, like, r, &n)));
    if (!n) return FX_OK;
    FX_TRY(fx_pipeline_warm_up(j->pipe, r, n));
    fx_talk("warm-up  %d size%s, %.3f s", n, n == 1 ? "" : "s", fx_now_s() - start);
    return FX_OK;
}

/* On devices other ranks reach the memory, so it is taken for all groups before there are pictures. */
static fx_status reserve(fx_work *j, const fx_request *request)
{
    const bool device = !strcmp(j->used.backend, "cuda");
    if (j->at_once == 1 || (j->used.batch && !device)) return FX_OK;
    return fx_pipeline_reserve(j->pipe, request, 1);
}

static fx_status pictures(fx_work *j, fx_batch *batch)
{
    fx_options *o = &j->used;
    fx_request request = fx_recipe_request(o);
    if (o->batch) request.prompt = "";
    FX_TRY(fx_run_vote(j->s, fx_pipeline_complete(j->pipe, &request)));
    take_defaults(o, &request);
    print_header(j);
    print_notes(j);
    fx_status st = FX_OK;
    if (o->report) st = fx_report_open(o, j->facts, &j->groups, j->s->nodes, j->load_s, &j->report);
    FX_TRY(fx_run_vote(j->s, st));
    FX_TRY(reserve(j, &request));
    FX_TRY(warm_up(j, &request));
    return fx_pictures_run(j, batch);
}

fx_status fx_cmd_generate(fx_run *s, const fx_options *o)
{
    fx_work j = {.s = s, .used = *o};
    char *prompt = NULL;
    fx_batch *batch = NULL;
    fx_progress_open(&j.progress);
    j.progress.brief = o->batch;
    fx_status st = prepare(&j, &prompt, &batch);
    if (st == FX_OK) st = load(&j, batch);
    if (st == FX_OK) st = pictures(&j, batch);
    fx_progress_clear(&j.progress);
    /* After a lost peer nothing collective works any more, and closing is collective. */
    if (st != FX_ECOMM && st != FX_ESIGNAL) fx_pipeline_close(&j.pipe);
    fx_report_close(&j.report);
    fx_batch_close(&batch);
    free(prompt);
    return st;
}
