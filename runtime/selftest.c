/* One picture by rank 0 alone, then by all ranks, compared as it grows; see selftest.h.
 *
 * Equal bits are demanded wherever the pipeline promises them (exact runs). Elsewhere a row may be apart by a tolerance:
 * sums are grouped by ring block, or by the library's choice for a number of rows, so each attention or product differs in
 * its last f32 bits (e = 2^-24) and, in bf16, in roundings of its operands (u = 2^-8) that fall to the other side; blocks
 * carry that on. Measured, worst row of any block or latents: 1.6e-6 in f32 and 9.8e-3 in bf16 (demo model, 28 steps, and
 * random models with 5 and 24 heads, 12 steps; rings of 2 to 5; oneDNN: 7.2e-7 and 4.7e-4). These have 3 or 4 blocks; with
 * FLUX.1's 57 errors of like size add up to about 4 times that, 14 times if all had one sign. A wrong exchange puts rows of
 * other tokens or heads in their place: a relative error of the order of 1. The tolerances lie between. */
#include "runtime/selftest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/beats.h"
#include "runtime/collect.h"
#include "runtime/difference.h"

/* What rank 0 keeps of its run. Blocks of later steps are left out once they would take more than this: FLUX.1-dev at
 * 1024x1024 shows 3.2 GB per step. The first step is always kept. */
static const size_t RECORD_BYTES = (size_t)4 << 30;

typedef struct entry {
    int step, segment;
    char name[32];
    int64_t rows, columns;
    fx_dtype dtype;
    void *data;
} entry;

/* What ranks other than 0 must know of the first run. */
typedef struct summary {
    uint64_t hash;
    int32_t block_steps;
} summary;

typedef struct selftest {
    const fx_selftest_options *opt;
    fx_comm *world, *self; /* self: rank 0's own in the first run */
    fx_selftest_result *out;
    entry *record; /* rank 0 */
    size_t count, capacity, next, largest;
    size_t step_bytes; /* of the first step's blocks */
    summary sum;
    void *gathered; /* rank 0: room for the largest entry */
    uint8_t *picture;
    bool step_good; /* the step under way, and its blocks' worst relative error */
    double block_relative;
    fx_beats beats;   /* of rank 0 in the first run */
    fx_status judged; /* first failure of a comparison, which must not leave the other ranks alone */
} selftest;

/* ---- the first run: rank 0 works, the others wait ---- */

/* The others wait for beats: rank 0 gives one in each progress call and after each block. */
static void beat_in_progress(void *ctx, fx_phase phase, size_t done, size_t total, double seconds)
{
    selftest *t = ctx;
    const fx_pipeline_options *p = &t->opt->pipeline;
    if (p->progress) p->progress(p->progress_ctx, phase, done, total, seconds);
    fx_beats_on(&t->beats); /* a failure is seen at the next block */
}

static bool is_block(const fx_sight *l)
{
    return !strncmp(l->name, "double_", 7) || !strncmp(l->name, "single_", 7);
}

static bool is_kept(const selftest *t, const fx_sight *l)
{
    return l->step == 0 || !is_block(l) || l->step < t->sum.block_steps;
}

static fx_status new_entry(selftest *t, const fx_sight *l, entry **out)
{
    if (t->count == t->capacity) {
        const size_t capacity = 2 * t->capacity + 64;
        entry *grown = realloc(t->record, capacity * sizeof *grown);
        FX_CHECK(grown, FX_ENOMEM, "no memory for the record of the selftest");
        t->record = grown;
        t->capacity = capacity;
    }
    entry *e = &t->record[t->count];
    *e = (entry){.step = l->step,
                 .segment = l->segment,
                 .rows = fx_collect_count(l->layout, l->segment),
                 .columns = l->rows.shape[1],
                 .dtype = l->rows.dtype};
    snprintf(e->name, sizeof e->name, "%s", l->name);
    const size_t bytes = (size_t)(e->rows * e->columns) * fx_dtype_size(e->dtype);
    e->data = malloc(bytes + 1);
    FX_CHECK(e->data, FX_ENOMEM,
             "no memory to record %zu bytes of block %s, step %d; give a smaller picture with -W and -H",
             bytes, l->name, l->step + 1);
    t->count++;
    if (bytes > t->largest) t->largest = bytes;
    if (is_block(l) && l->step == 0) t->step_bytes += bytes;
    *out = e;
    return FX_OK;
}

static fx_status record(void *ctx, const fx_sight *l)
{
    selftest *t = ctx;
    entry *e = NULL;
    FX_TRY(fx_beats_on(&t->beats));
    if (l->step == 1 && !t->sum.block_steps) {
        const size_t fit = t->step_bytes ? RECORD_BYTES / t->step_bytes : RECORD_BYTES;
        t->sum.block_steps = fit > INT32_MAX ? INT32_MAX : fit < 1 ? 1 : (int32_t)fit;
    }
    if (!is_kept(t, l)) return FX_OK;
    FX_TRY(new_entry(t, l, &e));
    return fx_collect_segment(l->be, t->self, l->layout, l->segment, l->rows, e->data);
}

static fx_status keep_picture(selftest *t, const fx_result *r)
{
    const size_t bytes = (size_t)r->width * (size_t)r->height * 3;
    t->picture = malloc(bytes);
    t->gathered = malloc(t->largest + 1);
    FX_CHECK(t->picture && t->gathered, FX_ENOMEM, "no memory to keep a picture of %dx%d", r->width,
             r->height);
    memcpy(t->picture, r->rgb, bytes);
    if (!t->sum.block_steps) t->sum.block_steps = 1; /* there was one step */
    return FX_OK;
}

static fx_status run_alone(selftest *t)
{
    fx_pipeline_options p = t->opt->pipeline;
    fx_request r = t->opt->request;
    fx_pipeline *pipe = NULL;
    fx_result result = {0};
    p.ulysses = p.ring = 1;
    p.layout = FX_LAYOUT_EVEN;
    p.exact = FX_EXACT_AUTO;
    if (fx_comm_size(t->world) == 1) p.threads = 1;
    p.progress = beat_in_progress;
    p.progress_ctx = t;
    r.onlooker = record;
    r.onlooker_ctx = t;
    p.first = &r;
    FX_TRY(fx_comm_open("self", t->opt->timeout_s, &t->self));
    fx_status st = fx_pipeline_open(&p, t->self, &pipe);
    if (!st) t->sum.hash = fx_pipeline_facts(pipe)->hash;
    if (!st) st = fx_pipeline_generate(pipe, &r, &result);
    if (!st) st = keep_picture(t, &result);
    fx_pipeline_close(&pipe);
    fx_comm_close(&t->self);
    return st;
}

static fx_status first_run(selftest *t)
{
    const int ranks = fx_comm_size(t->world);
    fx_status st;
    if (t->opt->begin) t->opt->begin(t->opt->ctx, true);
    fx_comm_set_phase(t->world, "selftest: rank 0 alone");
    fx_comm_set_timeout(t->world, t->opt->timeout_s * ranks);
    if (fx_comm_rank(t->world) == 0) {
        st = run_alone(t);
        if (fx_beats_over(&t->beats) != FX_OK) st = t->beats.status;
    } else
        st = fx_beats_wait(t->world);
    fx_comm_set_timeout(t->world, t->opt->timeout_s);
    FX_TRY(fx_comm_vote(t->world, st, NULL));
    return fx_comm_broadcast(t->world, 0, &t->sum, sizeof t->sum);
}

/* ---- the second run: all ranks ---- */

static void take_first(selftest *t, int step, const char *block, int rank, const fx_difference *d, int64_t of)
{
    fx_selftest_result *o = t->out;
    if (o->first.found) return;
    o->first.found = true;
    o->first.step = step;
    o->first.rank = rank;
    o->first.max_diff = d->max_diff;
    o->first.relative = d->relative;
    o->first.rows = d->rows;
    o->first.of = of;
    snprintf(o->first.block, sizeof o->first.block, "%s", block);
}

static void end_step(selftest *t, int step, const fx_difference *d)
{
    fx_selftest_step *s = &t->out->steps[step];
    *s = (fx_selftest_step){d->max_diff, d->relative, t->block_relative, step < t->sum.block_steps,
                            t->step_good};
    t->out->steps_done = step + 1;
    t->step_good = true;
    t->block_relative = 0;
    if (t->opt->after_step) t->opt->after_step(t->opt->ctx, step, s);
}

/* Rank 0: what was gathered against the record's next entry. */
static fx_status judge(selftest *t, const fx_sight *l)
{
    fx_selftest_result *o = t->out;
    const entry *e = &t->record[t->next++];
    fx_difference d;
    FX_CHECK(t->next <= t->count && e->step == l->step && !strcmp(e->name, l->name) &&
                 e->rows == fx_collect_count(l->layout, l->segment) && e->columns == l->rows.shape[1] &&
                 e->dtype == l->rows.dtype,
             FX_ESHAPE,
             "selftest: the run on all ranks shows %s of step %d, the run on one rank something else",
             l->name, l->step + 1);
    FX_TRY(fx_difference_rows(e->data, t->gathered, e->dtype, e->rows, e->columns,
                              o->exact ? -1 : o->tolerance, &d));
    if (d.first >= 0) {
        t->step_good = false;
        take_first(t, l->step + 1, l->name, fx_collect_owner(l->layout, l->segment, d.first), &d, e->rows);
    }
    if (is_block(l) && !(d.relative <= t->block_relative)) t->block_relative = d.relative;
    if (!strcmp(l->name, "latents")) end_step(t, l->step, &d);
    return FX_OK;
}

static fx_status compare(void *ctx, const fx_sight *l)
{
    selftest *t = ctx;
    if (l->step == 0 && !strcmp(l->name, "text")) {
        t->out->layout = l->layout->kind;
        /* facts.exact says nothing of threads, which is all that differs on one rank */
        t->out->exact = t->out->facts.exact && l->be->rows_exact;
    }
    if (!is_kept(t, l)) return FX_OK;
    FX_TRY(fx_collect_segment(l->be, t->world, l->layout, l->segment, l->rows, t->gathered));
    if (fx_comm_rank(t->world) == 0 && t->judged == FX_OK) t->judged = judge(t, l);
    return FX_OK;
}

/* Rank 0. Pixels in 1/255: the picture is split by patch rows, whatever the layout. f32 runs that are not exact keep to
 * 1/255 (README.md); for bf16 there is no such promise, and the latents were judged. */
static void judge_picture(selftest *t, const fx_result *r)
{
    fx_selftest_result *o = t->out;
    const int ranks = fx_comm_size(t->world), unit = o->facts.size_multiple;
    const int64_t row = (int64_t)r->width * 3, allowed = o->exact                           ? 0
                                                         : t->opt->pipeline.dtype == FX_F32 ? 1
                                                                                            : 255;
    int64_t first = -1, rows = 0;
    o->pixel_diff = 0;
    for (int64_t y = 0; y < r->height; y++) {
        int most = 0;
        for (int64_t i = y * row; i < (y + 1) * row; i++) {
            const int d = abs((int)r->rgb[i] - (int)t->picture[i]);
            if (d > most) most = d;
        }
        if (most > o->pixel_diff) o->pixel_diff = most;
        if (most <= allowed) continue;
        if (first < 0) first = y;
        rows++;
    }
    if (first < 0) return;
    int owner = 0;
    for (int i = 0; i < ranks; i++) {
        const fx_range part = fx_split_even(r->height / unit, ranks, i);
        if (first / unit >= part.begin && first / unit < part.begin + part.count) owner = i;
    }
    const fx_difference d = {
        .max_diff = o->pixel_diff / 255.0, .relative = o->pixel_diff / 255.0, .rows = rows};
    take_first(t, 0, "vae decoder", owner, &d, r->height);
}

static fx_status same_model(const selftest *t, const fx_model_facts *f)
{
    FX_CHECK(
        f->hash == t->sum.hash, FX_EFORMAT,
        "model %s differs between the ranks; this rank sees hash %016llx, rank 0 %016llx; put the same files "
        "on all nodes",
        t->opt->pipeline.model, (unsigned long long)f->hash, (unsigned long long)t->sum.hash);
    return FX_OK;
}

static fx_status run_together(selftest *t, fx_pipeline *pipe)
{
    fx_selftest_result *o = t->out;
    fx_result result = {0};
    o->facts = *fx_pipeline_facts(pipe);
    o->facts.backend = NULL; /* belongs to the pipeline */
    o->request = t->opt->request;
    FX_TRY(fx_comm_vote(t->world, same_model(t, &o->facts), NULL));
    FX_TRY(fx_pipeline_complete(pipe, &o->request));
    o->steps = calloc((size_t)o->request.steps, sizeof *o->steps);
    FX_TRY(fx_comm_vote(t->world, o->steps ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for the steps"), NULL));
    o->request.onlooker = compare;
    o->request.onlooker_ctx = t;
    FX_TRY(fx_pipeline_generate(pipe, &o->request, &result));
    if (result.rgb) judge_picture(t, &result);
    return t->judged;
}

static fx_status second_run(selftest *t)
{
    fx_pipeline *pipe = NULL;
    fx_pipeline_options p = t->opt->pipeline;
    p.first = &t->opt->request;
    if (t->opt->begin) t->opt->begin(t->opt->ctx, false);
    fx_status st = fx_pipeline_open(&p, t->world, &pipe);
    if (!st) st = run_together(t, pipe);
    /* After a lost peer nothing collective works any more, and closing is collective. */
    if (st != FX_ECOMM && st != FX_ESIGNAL) fx_pipeline_close(&pipe);
    return st;
}

/* ---- the verdict ---- */

static fx_status verdict(const selftest *t)
{
    const fx_selftest_result *o = t->out;
    const int ranks = fx_comm_size(t->world);
    char where[96], allowed[48] = "equal bits are promised";
    if (!o->first.found) return FX_OK;
    if (!o->exact) snprintf(allowed, sizeof allowed, "allowed is %.2g", o->tolerance);
    if (o->first.step)
        snprintf(where, sizeof where, "step %d, block %s", o->first.step, o->first.block);
    else
        snprintf(where, sizeof where, "after the last step, %s", o->first.block);
    return FX_FAIL(
        FX_ENUMERIC,
        "selftest: %s, rank %d: max |diff| %.3g against one %s, in %lld of %lld rows, relative error "
        "%.3g, %s; %s on this machine; do not trust its pictures; run again with other --ulysses, "
        "--ring, --threads and --backend ref to see what it depends on",
        where, o->first.rank, o->first.max_diff, ranks > 1 ? "rank" : "thread", (long long)o->first.rows,
        (long long)o->first.of, o->first.relative, allowed,
        ranks > 1 ? "parallel computation is wrong" : "computation with threads is wrong");
}

static void free_record(selftest *t)
{
    for (size_t i = 0; i < t->count; i++) free(t->record[i].data);
    free(t->record);
    free(t->picture);
    free(t->gathered);
}

fx_status fx_selftest_run(const fx_selftest_options *opt, fx_comm *world, fx_selftest_result *out)
{
    selftest t = {.opt = opt, .world = world, .beats = {world, FX_OK}, .out = out, .step_good = true};
    *out = (fx_selftest_result){
        .pixel_diff = -1, .tolerance = opt->pipeline.dtype == FX_F32 ? FX_SELFTEST_F32 : FX_SELFTEST_BF16};
    fx_status st = first_run(&t);
    if (st == FX_OK) {
        st = second_run(&t);
        out->block_steps = t.sum.block_steps;
        /* What differed first explains numbers that were not finite later. */
        if (out->first.found && (st == FX_OK || st == FX_ENUMERIC)) st = verdict(&t);
        if (st != FX_ECOMM && st != FX_ESIGNAL) st = fx_comm_vote(world, st, NULL);
    }
    free_record(&t);
    return st;
}

void fx_selftest_free(fx_selftest_result *r)
{
    free(r->steps);
    r->steps = NULL;
}
