/* Which ranks do the same, and what each such class does; see work.h. Called by search.c. */
#include "runtime/predict/record.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/request.h"

struct fx_graph {
    fx_backend *be; /* of no device */
    fx_model model;
    fx_model_facts facts;
};

/* ---- classes ---- */

/* Ranks do the same where they have as many rows, where the ranks that they exchange with do, and where as many of those are
 * near. Of many ranks one row more or less makes no class: all count as the fullest, which comes first. */
enum { EXACT_RANKS = 16 };

/* Of one type throughout, so that there are no bytes between the fields: keys are compared byte by byte. */
typedef struct class_key {
    int64_t rows[FX_SEGMENTS], group;    /* group: rows of all its ranks */
    int64_t near_group, near_all, place; /* ranks of its domain in its ulysses group, in all */
} class_key;

static void key_of(const fx_layout *l, const fx_arrangement *how, int rank, class_key *k)
{
    const int u = how->mesh.ulysses, first = rank / u * u, d = how->domain, mine = (how->offset + rank) / d;
    const bool exact = l->ranks <= EXACT_RANKS;
    memset(k, 0, sizeof *k);
    for (int s = 0; s < FX_SEGMENTS; s++)
        k->rows[s] = exact ? l->part[rank][s].count : l->part[rank][s].count > 0;
    for (int r = first; r < first + u; r++) {
        if (exact) k->group += fx_layout_local(l, r);
        k->near_group += (how->offset + r) / d == mine;
    }
    const int begin = mine * d - how->offset, end = begin + d;
    k->near_all = (end < l->ranks ? end : l->ranks) - (begin > 0 ? begin : 0);
    if (how->exact == FX_EXACT_OFF) k->place = rank / u; /* hops know their neighbours only */
}

static fx_status make_classes(const fx_layout *l, const fx_arrangement *how, fx_work *w)
{
    const size_t n = (size_t)l->ranks;
    class_key *key = calloc(n, sizeof *key);
    w->class_of = calloc(n, sizeof *w->class_of);
    w->program = calloc(n, sizeof *w->program);
    if (!key || !w->class_of || !w->program) {
        free(key);
        return FX_FAIL(FX_ENOMEM, "no memory for the work of %d ranks", l->ranks);
    }
    for (int r = 0; r < l->ranks; r++) {
        class_key k;
        int c = 0;
        key_of(l, how, r, &k);
        while (c < w->classes && memcmp(&key[c], &k, sizeof k) != 0) c++;
        if (c == w->classes) {
            memcpy(&key[w->classes++], &k, sizeof k);
            w->program[c] = (fx_program){
                .rank = r, .text_rows = l->part[r][FX_TEXT].count, .image_rows = l->part[r][FX_IMAGE].count};
        }
        w->class_of[r] = c;
        w->program[c].size++;
    }
    w->crosses = how->offset / how->domain != (how->offset + l->ranks - 1) / how->domain;
    free(key);
    return FX_OK;
}

/* ---- calls ---- */

fx_status fx_graph_open(const char *model, fx_graph **out)
{
    fx_status st;
    fx_graph *g = calloc(1, sizeof *g);
    *out = NULL;
    FX_CHECK(g, FX_ENOMEM, "no memory for a graph");
    FX_TRY_OUT(fx_backend_plan(NULL, &g->be));
    FX_TRY_OUT(fx_model_open(model, g->be, NULL, &g->model));
    fx_request_facts(&g->model, &g->facts);
    *out = g;
    return FX_OK;
out:
    fx_graph_close(&g);
    return st;
}

void fx_graph_close(fx_graph **g)
{
    if (!*g) return;
    fx_model_close(&(*g)->model);
    fx_backend_close(&(*g)->be);
    free(*g);
    *g = NULL;
}

const fx_model_facts *fx_graph_facts(const fx_graph *g)
{
    return &g->facts;
}

fx_status fx_work_open(const fx_graph *g, const fx_request *q, const fx_arrangement *how, fx_work *out)
{
    const int factor = g->facts.size_multiple;
    const int64_t rows[FX_SEGMENTS] = {
        [FX_TEXT] = q->t5_len, [FX_IMAGE] = (int64_t)(q->height / factor) * (q->width / factor)};
    fx_exchange_table table = {0};
    fx_layout l = {0};
    fx_status st;
    *out = (fx_work){.ranks = how->mesh.ranks};
    FX_TRY_OUT(fx_layout_open(how->layout, how->mesh.ranks, rows, &l));
    FX_TRY_OUT(make_classes(&l, how, out));
    for (int c = 0; c < out->classes; c++)
        FX_TRY_OUT(fx_work_listen(&g->model, g->be, q, how, &table, out, &out->program[c]));
    out->exchanges = table.n;
out:
    free(table.key);
    fx_layout_close(&l);
    if (st) fx_work_close(out);
    return st;
}

void fx_work_close(fx_work *w)
{
    for (int c = 0; w->program && c < w->classes; c++) {
        free(w->program[c].job);
        free(w->program[c].peers);
    }
    free(w->program);
    free(w->class_of);
    free(w->box);
    *w = (fx_work){0};
}
