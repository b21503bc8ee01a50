/* Cases by turns: in every round each case opens its pipeline on its ranks, warms up, and makes its share of the timed pictures.
 * Ranks without a part wait for signs of rank 0, which has a part in every case. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/bench/bench.h"
#include "launch/recipe.h"
#include "launch/talk.h"
#include "parallel/beats.h"
#include "runtime/collect.h"
#include "runtime/core/clock.h"

enum { ROUNDS = 3 };

/* One case in one round. */
typedef struct turn {
    fx_bench *b;
    fx_bench_row *row;
    const fx_bench_row *base; /* NULL: none */
    fx_comm *team;            /* those who work */
    fx_beats beats;           /* to those who do not; comm NULL: a rank that works, but 0 */
    fx_pipeline *pipe;
    uint8_t *seen; /* latents after the last step */
    size_t seen_bytes;
} turn;

/* ---- those who wait ---- */

static void on_progress(void *ctx, fx_phase phase, size_t done, size_t total, double seconds)
{
    turn *t = ctx;
    (void)phase, (void)done, (void)total, (void)seconds;
    if (t->b->s->rank == 0) fx_beats_on(&t->beats);
}

/* ---- bytes ---- */

static fx_status see_latents(void *ctx, const fx_sight *l)
{
    turn *t = ctx;
    t->row->layout = l->layout->kind;
    if (t->b->s->rank == 0) FX_TRY(fx_beats_on(&t->beats));
    if (strcmp(l->name, "latents") != 0 || l->step + 1 < t->row->steps) return FX_OK;
    const int64_t rows = fx_collect_count(l->layout, l->segment);
    t->seen_bytes = (size_t)(rows * l->rows.shape[1]) * fx_dtype_size(l->rows.dtype);
    t->seen = fx_comm_rank(t->team) ? NULL : malloc(t->seen_bytes);
    const fx_status st =
        t->seen || fx_comm_rank(t->team) ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for latents");
    FX_TRY(fx_comm_vote(t->team, st, NULL));
    return fx_collect_segment(l->be, t->team, l->layout, l->segment, l->rows, t->seen);
}

static int64_t bytes_apart(const uint8_t *a, size_t n, const uint8_t *b, size_t m)
{
    int64_t apart = 0;
    if (n != m) return (int64_t)(n > m ? n : m);
    for (size_t i = 0; i < n; i++) apart += a[i] != b[i];
    return apart;
}

static int largest_difference(const uint8_t *a, const uint8_t *b, size_t n)
{
    int most = 0;
    for (size_t i = 0; i < n; i++) {
        const int d = abs((int)a[i] - (int)b[i]);
        if (d > most) most = d;
    }
    return most;
}

static fx_status keep(uint8_t **to, size_t *bytes, const uint8_t *from, size_t n)
{
    *to = malloc(n);
    FX_CHECK(*to, FX_ENOMEM, "no memory to keep %zu bytes for comparison", n);
    memcpy(*to, from, n);
    *bytes = n;
    return FX_OK;
}

/* Rank 0. A base is compared with its own first picture. */
static fx_status judge_picture(turn *t, const fx_result *r)
{
    fx_bench_row *row = t->row, *first = &t->b->rows[0];
    const size_t n = 3 * (size_t)r->width * (size_t)r->height;
    if (!r->rgb) return FX_OK;
    if (!row->picture && (t->base == row || first == row))
        FX_TRY(keep(&row->picture, &row->picture_bytes, r->rgb, n));
    if (t->base) {
        const int64_t bad = bytes_apart(r->rgb, n, t->base->picture, t->base->picture_bytes);
        if (bad > row->bad_pictures) row->bad_pictures = bad;
    }
    const int diff = largest_difference(r->rgb, first->picture, n);
    if (diff > row->diff) row->diff = diff;
    return FX_OK;
}

static fx_status judge_latents(turn *t)
{
    fx_bench_row *row = t->row;
    if (!t->seen) return FX_OK;
    if (!row->latents && t->base == row)
        FX_TRY(keep(&row->latents, &row->latents_bytes, t->seen, t->seen_bytes));
    if (t->base)
        row->bad_latents = bytes_apart(t->seen, t->seen_bytes, t->base->latents, t->base->latents_bytes);
    return FX_OK;
}

/* ---- pictures ---- */

static fx_status make(turn *t, fx_request *r, fx_result *out)
{
    if (t->b->used->no_vae) return fx_pipeline_denoise_only(t->pipe, r, out);
    FX_TRY(fx_pipeline_generate(t->pipe, r, out));
    return fx_comm_vote(t->team, t->b->s->rank == 0 ? judge_picture(t, out) : FX_OK, NULL);
}

/* A picture whose latents are looked at, which warms up too. */
static fx_status check_bytes(turn *t)
{
    fx_request r = t->b->request;
    fx_result result;
    r.onlooker = see_latents;
    r.onlooker_ctx = t;
    FX_TRY(make(t, &r, &result));
    const fx_status st = fx_comm_vote(t->team, judge_latents(t), NULL);
    free(t->seen);
    t->seen = NULL;
    return st;
}

/* Rank 0. */
static void take_memory(fx_bench_row *row, const fx_rank_report *rank)
{
    row->weights = row->arena = row->process = row->sent = 0;
    for (int i = 0; i < row->of->ranks; i++) {
        if (rank[i].weight_bytes > row->weights) row->weights = rank[i].weight_bytes;
        if (rank[i].arena_peak_bytes > row->arena) row->arena = rank[i].arena_peak_bytes;
        if (rank[i].peak_bytes > row->process) row->process = rank[i].peak_bytes;
        if (rank[i].comm_bytes / (uint64_t)row->steps > row->sent)
            row->sent = rank[i].comm_bytes / (uint64_t)row->steps;
    }
}

/* Rank 0. On a device the host does not wait for rows, so what a step waits for them is not known here. */
static void take_times(fx_bench_row *row, const fx_result *r)
{
    const int i = row->runs;
    double waits = 0;
    for (int k = 0; k < row->of->ranks; k++) waits += r->rank[k].denoise_wait_s;
    row->image[i] = r->time.total;
    row->kept_texts += r->text_kept;
    row->text[i] = r->time.text;
    row->denoise[i] = r->time.denoise;
    row->vae[i] = r->time.vae;
    row->exposed[i] = strcmp(row->of->used.backend, "cuda") ? waits / row->of->ranks / row->steps : NAN;
    memcpy(row->step + (size_t)i * (size_t)row->steps, r->time.step, (size_t)row->steps * sizeof *row->step);
    take_memory(row, r->rank);
}

static fx_status open_pipeline(turn *t)
{
    fx_bench_row *row = t->row;
    fx_pipeline_options p = fx_recipe_pipeline(&row->of->used);
    p.text_bytes = 0; /* each picture encodes its text */
    p.progress = on_progress;
    p.progress_ctx = t;
    p.first = &t->b->request;
    const double begin = fx_now_s();
    FX_TRY(fx_pipeline_open(&p, t->team, &t->pipe));
    row->load = fx_now_s() - begin;
    row->facts = *fx_pipeline_facts(t->pipe);
    snprintf(row->backend, sizeof row->backend, "%s", row->facts.backend);
    snprintf(row->exchange, sizeof row->exchange, "%s", row->facts.exchange);
    row->facts.backend = row->facts.exchange = NULL; /* they belong to the pipeline */
    return fx_pipeline_complete(t->pipe, &t->b->request);
}

static fx_status take_room(fx_bench_row *row, int runs, int steps)
{
    const size_t n = (size_t)runs;
    row->steps = steps;
    row->image = calloc(n * (size_t)(5 + steps), sizeof *row->image);
    FX_CHECK(row->image, FX_ENOMEM, "no memory for %d runs", runs);
    row->text = row->image + n;
    row->denoise = row->text + n;
    row->vae = row->denoise + n;
    row->exposed = row->vae + n;
    row->step = row->exposed + n;
    return FX_OK;
}

static fx_status pictures(turn *t, int round, int runs)
{
    fx_bench *b = t->b;
    fx_bench_row *row = t->row;
    fx_result result;
    FX_TRY(open_pipeline(t));
    if (round == 0) {
        FX_TRY(fx_comm_vote(t->team, take_room(row, (int)b->used->runs, b->request.steps), NULL));
        FX_TRY(check_bytes(t));
        FX_TRY(fx_pipeline_exchange_only(t->pipe, &b->request, FX_BENCH_REPLAYS, row->comm));
    }
    for (int i = 0; i < b->used->warmups; i++) FX_TRY(make(t, &b->request, &result));
    for (int i = 0; i < runs; i++) {
        FX_TRY(make(t, &b->request, &result));
        if (b->s->rank == 0) take_times(row, &result);
        row->runs++;
    }
    return FX_OK;
}

/* ---- turns ---- */

static fx_status one_turn(fx_bench *b, fx_bench_row *row, int round, int runs)
{
    fx_run *s = b->s;
    const int ranks = row->of->ranks;
    const bool works = s->rank < ranks;
    turn t = {.b = b, .row = row, .base = row->of->base < 0 ? NULL : &b->rows[row->of->base]};
    fx_talk("round %d  %s", round + 1, row->of->name);
    FX_TRY(fx_comm_split(s->comm, works ? 0 : -1, s->rank, &t.team));
    fx_status st = fx_comm_split(s->comm, s->rank == 0 || !works ? 0 : -1, s->rank, &t.beats.comm);
    if (!st) {
        if (ranks < s->ranks) fx_comm_set_timeout(s->comm, s->timeout_s * s->ranks);
        st = works ? pictures(&t, round, runs) : fx_beats_wait(t.beats.comm);
        if (s->rank == 0 && fx_beats_over(&t.beats) && !st) st = t.beats.status;
        fx_comm_set_timeout(s->comm, s->timeout_s);
    }
    if (st == FX_ECOMM || st == FX_ESIGNAL) return st; /* nothing collective works any more */
    fx_pipeline_close(&t.pipe);
    fx_comm_close(&t.team);
    fx_comm_close(&t.beats.comm);
    return fx_run_vote(s, st);
}

fx_status fx_bench_run(fx_bench *b)
{
    const int runs = (int)b->used->runs, rounds = runs < ROUNDS ? runs : ROUNDS;
    b->rows = calloc((size_t)b->n, sizeof *b->rows);
    FX_TRY(fx_run_vote(b->s, b->rows ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for %d rows", b->n)));
    for (int i = 0; i < b->n; i++)
        b->rows[i] = (fx_bench_row){.of = &b->cases[i], .bad_pictures = -1, .bad_latents = -1, .diff = -1};
    for (int round = 0; round < rounds; round++) {
        const int share = (int)fx_split_even(runs, rounds, round).count;
        for (int i = 0; i < b->n; i++) FX_TRY(one_turn(b, &b->rows[i], round, share));
    }
    return FX_OK;
}

void fx_bench_free(fx_bench *b)
{
    for (int i = 0; b->rows && i < b->n; i++) {
        free(b->rows[i].image);
        free(b->rows[i].picture);
        free(b->rows[i].latents);
    }
    free(b->rows);
    b->rows = NULL;
}
