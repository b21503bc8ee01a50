/* All adaLN linears depend only on (timestep, guidance, pooled text): they are computed for all steps in one
 * matmul per block before the first step, shared out over the ranks, and never again. Source:
 * CombinedTimestepGuidanceTextProj- Embeddings and AdaLayerNormZero of diffusers. */
#include "runtime/dit/dit.h"

#include <stdlib.h>

struct fx_mod_task {
    const fx_dense *dense;
    fx_tensor table; /* [steps, n] columns of all[owner] */
};

fx_tensor fx_mod_chunk(fx_tensor row, int i, int64_t channels)
{
    return fx_slice(row, 0, i * channels, channels);
}

/* ---- which rank makes what ---- */

/* The block's matrix i in the order of the list: image and text of each double block, the single blocks, the last. */
static const fx_dense *matrix_of(const fx_dit *d, int i)
{
    const int doubles = d->cfg->double_blocks, singles = d->cfg->single_blocks;
    if (i < 2 * doubles) {
        const fx_double_weights *w = &d->w->double_blocks[i / 2];
        return i % 2 ? &w->txt.mod : &w->img.mod;
    }
    return i < 2 * doubles + singles ? &d->w->single_blocks[i - 2 * doubles].mod : &d->w->final_mod;
}

/* Columns of the matrices before number i with the same owner. */
static int64_t column_of(const fx_dit *d, int i, int ranks)
{
    int64_t column = 0;
    for (int k = i % ranks; k < i; k += ranks) column += matrix_of(d, k)->w.n;
    return column;
}

static fx_tensor *place_of(fx_dit *d, int i)
{
    fx_mod_table *m = &d->mod;
    const int doubles = d->cfg->double_blocks, singles = d->cfg->single_blocks;
    if (i < 2 * doubles) return i % 2 ? &m->txt[i / 2] : &m->img[i / 2];
    return i < 2 * doubles + singles ? &m->single[i - 2 * doubles] : &m->final;
}

static int64_t widest(const fx_dit *d, int tasks, int ranks)
{
    enum { EVEN = 64 }; /* rows begin at whole cache lines */
    int64_t width = 0;
    for (int i = 0; i < tasks; i++) {
        const int64_t end = column_of(d, i, ranks) + matrix_of(d, i)->w.n;
        if (end > width) width = end;
    }
    return fx_round_up(width, EVEN);
}

fx_status fx_mod_open(fx_dit *d)
{
    const fx_dit_config *c = d->cfg;
    fx_mod_table *m = &d->mod;
    const size_t doubles = (size_t)c->double_blocks, singles = (size_t)c->single_blocks;
    const int ranks = fx_comm_size(d->comm), tasks = 2 * c->double_blocks + c->single_blocks + 1;
    m->img = calloc(doubles + 1, sizeof *m->img);
    m->txt = calloc(doubles + 1, sizeof *m->txt);
    m->single = calloc(singles + 1, sizeof *m->single);
    m->task = calloc((size_t)tasks, sizeof *m->task);
    m->send = calloc(2 * (size_t)ranks, sizeof *m->send);
    FX_CHECK(m->img && m->txt && m->single && m->task && m->send, FX_ENOMEM,
             "no memory for the list of modulation tables");
    m->recv = m->send + ranks;
    m->tasks = tasks;
    const int64_t width = widest(d, tasks, ranks);
    FX_TRY(fx_push3(d->be->arena, d->be->stream, ranks, d->steps, width, &m->all));
    FX_TRY(fx_push2(d->be->arena, d->be->stream, ranks, width, &m->now));
    for (int i = 0; i < tasks; i++) {
        const fx_dense *dense = matrix_of(d, i);
        const int owner = i % ranks;
        const int64_t column = column_of(d, i, ranks);
        m->task[i] = (struct fx_mod_task){dense, fx_cols(fx_row(m->all, owner), column, dense->w.n)};
        *place_of(d, i) = fx_slice(fx_row(m->now, owner), 0, column, dense->w.n);
    }
    return FX_OK;
}

void fx_mod_close(fx_dit *d)
{
    fx_mod_table *m = &d->mod;
    free(m->img);
    free(m->txt);
    free(m->single);
    free(m->task);
    free(m->send);
    *m = (fx_mod_table){0};
}

/* out[M, C] += linear_2(silu(linear_1(features[M, K]))), each product rounded to dtype where it feeds a
 * matmul. */
static fx_status embed_mlp(fx_dit *d, const fx_embed_mlp *w, fx_tensor features, fx_tensor *out)
{
    fx_tensor hidden;
    FX_TRY(fx_push2(d->be->arena, d->be->stream, features.shape[0], d->cfg->hidden, out));
    FX_TRY(fx_push2(d->be->arena, d->be->dtype, features.shape[0], d->cfg->hidden, &hidden));
    FX_TRY(fx_dense_apply(d->be, hidden, features, &w->in, FX_ACT_SILU));
    return fx_dense_apply(d->be, *out, hidden, &w->out, FX_ACT_NONE);
}

/* Sinusoidal features of n host values as a tensor [n, 256] of the backend's dtype. */
static fx_status features_of(fx_dit *d, const float *t, int n, fx_tensor *out)
{
    fx_tensor raw;
    FX_TRY(fx_push2(d->be->arena, d->be->dtype, n, FX_TIME_CHANNELS, out));
    FX_TRY(fx_push2(d->be->arena, FX_F32, n, FX_TIME_CHANNELS, &raw));
    if (!fx_planning(d->be)) {
        float *host = malloc(fx_bytes(raw));
        FX_CHECK(host, FX_ENOMEM, "no memory for timestep features");
        fx_time_features(t, n, host);
        const fx_status st = fx_upload(d->be, raw, host);
        free(host);
        FX_TRY(st);
    }
    return fx_copy(d->be, *out, raw, 1, 0);
}

/* silu(time + guidance + text) for all steps: [steps, C] in dtype, what every modulation matmul reads. */
static fx_status condition(fx_dit *d, fx_tensor pooled, const float *sigma, double guidance, fx_tensor *out)
{
    fx_backend *be = d->be;
    fx_tensor features, time, text, pooled_in;
    FX_TRY(features_of(d, sigma, d->steps, &features));
    FX_TRY(embed_mlp(d, &d->w->time, features, &time));
    FX_TRY(fx_push2(be->arena, be->dtype, 1, d->cfg->pooled_dim, &pooled_in));
    FX_TRY(fx_copy(be, pooled_in, pooled, 1, 0));
    FX_TRY(embed_mlp(d, &d->w->text, pooled_in, &text));
    if (d->cfg->guidance) {
        fx_tensor strength;
        const float g = (float)guidance;
        FX_TRY(features_of(d, &g, 1, &features));
        FX_TRY(embed_mlp(d, &d->w->guidance, features, &strength));
        FX_TRY(fx_axpy(be, text, strength, 1));
    }
    for (int s = 0; s < d->steps; s++) FX_TRY(fx_axpy(be, fx_rows(time, s, 1), text, 1));
    FX_TRY(fx_push2(be->arena, be->dtype, d->steps, d->cfg->hidden, out));
    return fx_activate(be, *out, time, FX_ACT_SILU);
}

/* Every rank sends what it made to all others. */
static fx_status spread(fx_dit *d)
{
    fx_mod_table *m = &d->mod;
    const int ranks = fx_comm_size(d->comm), owners = m->tasks < ranks ? m->tasks : ranks;
    int sends = 0, recvs = 0;
    if (ranks == 1) return FX_OK;
    for (int r = 0; r < ranks; r++) {
        if (r == d->rank) continue;
        const fx_tensor mine = fx_row(m->all, d->rank), theirs = fx_row(m->all, r);
        if (d->rank < owners) m->send[sends++] = (fx_xfer){r, mine.data, fx_bytes(mine)};
        if (r < owners) m->recv[recvs++] = (fx_xfer){r, theirs.data, fx_bytes(theirs)};
    }
    fx_ticket ticket;
    fx_comm *comm = fx_comm_rows(d->comm);
    FX_TRY(fx_comm_transfer(comm, sends, m->send, recvs, m->recv, &ticket));
    return fx_comm_wait(comm, &ticket);
}

/* Columns of a block behind its last matrix are read with the rest and used by nobody: zeros. */
static fx_status clear_rest(fx_dit *d, int owner, fx_tensor any)
{
    const fx_tensor block = fx_row(d->mod.all, owner);
    int64_t used = 0;
    for (int i = owner; i < d->mod.tasks; i += fx_comm_size(d->comm)) used += d->mod.task[i].dense->w.n;
    if (used == block.shape[1]) return FX_OK;
    const fx_tensor rest = fx_cols(block, used, block.shape[1] - used);
    fx_tensor same = fx_cols(any, 0, 1); /* one column in place of them all */
    same.shape[1] = rest.shape[1];
    same.stride[1] = 0;
    return fx_copy(d->be, rest, same, 0, 0);
}

fx_status fx_mod_fill(fx_dit *d, fx_tensor pooled, const float *sigma, double guidance)
{
    const int ranks = fx_comm_size(d->comm);
    const size_t mark = fx_mark(d->be->arena);
    fx_tensor cond;
    FX_TRY(condition(d, pooled, sigma, guidance, &cond));
    for (int i = d->rank; i < d->mod.tasks; i += ranks)
        FX_TRY(fx_dense_apply(d->be, d->mod.task[i].table, cond, d->mod.task[i].dense, FX_ACT_NONE));
    FX_TRY(clear_rest(d, d->rank, cond));
    for (int r = d->mod.tasks; r < ranks; r++) /* they make nothing and send nothing */
        if (r != d->rank) FX_TRY(clear_rest(d, r, cond));
    fx_rewind(d->be->arena, mark);
    return spread(d);
}

fx_status fx_mod_select(fx_dit *d, int step)
{
    const fx_mod_table *m = &d->mod;
    fx_tensor rows = fx_slice(m->all, 1, step, 1); /* [ranks, 1, width] */
    rows.ndim = 2;
    rows.shape[1] = rows.shape[2];
    rows.stride[1] = rows.stride[2];
    return fx_copy(d->be, m->now, rows, 1, 0);
}
