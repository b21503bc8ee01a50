/* All adaLN linears depend only on (timestep, guidance, pooled text): they are computed for all steps in one
 * matmul per block before the first step, shared out over the ranks, and never again. Source:
 * CombinedTimestepGuidanceTextProj- Embeddings and AdaLayerNormZero of diffusers. */
#include "runtime/dit/dit.h"

#include <stdlib.h>

struct fx_mod_task {
    const fx_dense *dense;
    fx_tensor table; /* [steps, n] stream */
};

fx_tensor fx_mod_chunk(fx_tensor table, int step, int i, int64_t channels)
{
    return fx_slice(fx_row(table, step), 0, i * channels, channels);
}

static fx_status add_task(fx_dit *d, const fx_dense *dense, fx_tensor *table)
{
    FX_TRY(fx_push2(d->be->arena, d->be->stream, d->steps, dense->w.n, table));
    d->mod.task[d->mod.tasks++] = (struct fx_mod_task){dense, *table};
    return FX_OK;
}

fx_status fx_mod_open(fx_dit *d)
{
    const fx_dit_config *c = d->cfg;
    fx_mod_table *m = &d->mod;
    const size_t doubles = (size_t)c->double_blocks, singles = (size_t)c->single_blocks,
                 tasks = 2 * doubles + singles + 1;
    const size_t ranks = (size_t)fx_comm_size(d->comm);
    m->img = calloc(doubles + 1, sizeof *m->img);
    m->txt = calloc(doubles + 1, sizeof *m->txt);
    m->single = calloc(singles + 1, sizeof *m->single);
    m->task = calloc(tasks, sizeof *m->task);
    m->send = calloc(tasks * ranks, sizeof *m->send);
    m->recv = calloc(tasks, sizeof *m->recv);
    FX_CHECK(m->img && m->txt && m->single && m->task && m->send && m->recv, FX_ENOMEM,
             "no memory for the list of modulation tables");
    for (size_t i = 0; i < doubles; i++) {
        FX_TRY(add_task(d, &d->w->double_blocks[i].img.mod, &m->img[i]));
        FX_TRY(add_task(d, &d->w->double_blocks[i].txt.mod, &m->txt[i]));
    }
    for (size_t i = 0; i < singles; i++) FX_TRY(add_task(d, &d->w->single_blocks[i].mod, &m->single[i]));
    return add_task(d, &d->w->final_mod, &m->final);
}

void fx_mod_close(fx_dit *d)
{
    fx_mod_table *m = &d->mod;
    free(m->img);
    free(m->txt);
    free(m->single);
    free(m->task);
    free(m->send);
    free(m->recv);
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

/* Every rank sends the tables it made to all others. */
static fx_status spread(fx_dit *d)
{
    fx_mod_table *m = &d->mod;
    const int ranks = fx_comm_size(d->comm);
    int sends = 0, recvs = 0;
    if (ranks == 1) return FX_OK;
    for (int i = 0; i < m->tasks; i++) {
        const int owner = i % ranks;
        void *data = m->task[i].table.data;
        const size_t bytes = fx_bytes(m->task[i].table);
        if (owner != d->rank) m->recv[recvs++] = (fx_xfer){owner, data, bytes};
        for (int peer = 0; owner == d->rank && peer < ranks; peer++)
            if (peer != d->rank) m->send[sends++] = (fx_xfer){peer, data, bytes};
    }
    fx_ticket ticket;
    fx_comm *comm = fx_comm_rows(d->comm);
    FX_TRY(fx_comm_transfer(comm, sends, m->send, recvs, m->recv, &ticket));
    return fx_comm_wait(comm, &ticket);
}

fx_status fx_mod_fill(fx_dit *d, fx_tensor pooled, const float *sigma, double guidance)
{
    const size_t mark = fx_mark(d->be->arena);
    fx_tensor cond;
    FX_TRY(condition(d, pooled, sigma, guidance, &cond));
    for (int i = d->rank; i < d->mod.tasks; i += fx_comm_size(d->comm))
        FX_TRY(fx_dense_apply(d->be, d->mod.task[i].table, cond, d->mod.task[i].dense, FX_ACT_NONE));
    fx_rewind(d->be->arena, mark);
    return spread(d);
}
