/* The VAE's boxes over one rank's rows: norm with whole-picture statistics, bordered convolution, resnet,
 * middle attention. Used by encoder.c and decoder.c. Source: ResnetBlock2D, Attention and UNetMidBlock2D of
 * diffusers. */
#include "runtime/vae/vae.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float norm_eps = 1e-6f;

fx_status fx_vae_run_open(const fx_vae *vae, fx_backend *be, fx_comm *comm, const fx_range range[],
                          int64_t rows, fx_vae_run *out)
{
    const int ranks = fx_comm_size(comm);
    *out = (fx_vae_run){
        .vae = vae, .be = be, .comm = comm, .rank = fx_comm_rank(comm), .ranks = ranks, .rows = rows};
    out->range = malloc((size_t)ranks * sizeof *out->range);
    FX_CHECK(out->range, FX_ENOMEM, "no memory for the VAE's row ranges");
    memcpy(out->range, range, (size_t)ranks * sizeof *range);
    return FX_OK;
}

void fx_vae_run_close(fx_vae_run *r)
{
    free(r->range);
    *r = (fx_vae_run){0};
}

int64_t fx_vae_mine(const fx_vae_run *r)
{
    return r->range[r->rank].count;
}

void fx_vae_rescale(fx_vae_run *r, int num, int den)
{
    for (int i = 0; i < r->ranks; i++) {
        r->range[i].begin = r->range[i].begin * num / den;
        r->range[i].count = r->range[i].count * num / den;
    }
    r->rows = r->rows * num / den;
}

static fx_slabs slabs_of(const fx_vae_run *r)
{
    return (fx_slabs){.comm = r->comm, .range = r->range, .rows = r->rows};
}

fx_status fx_vae_push(fx_vae_run *r, int64_t extra_rows, int64_t w, int64_t c, fx_tensor *out)
{
    return fx_push3(r->be->arena, r->be->dtype, fx_vae_mine(r) + extra_rows, w, c, out);
}

fx_status fx_vae_pair_open(fx_vae_run *r, int64_t elements, fx_vae_pair *out)
{
    out->current = 0;
    FX_TRY(fx_push1(r->be->arena, r->be->dtype, elements, &out->buffer[0]));
    return fx_push1(r->be->arena, r->be->dtype, elements, &out->buffer[1]);
}

fx_tensor fx_vae_flip(fx_vae_pair *p, int64_t rows, int64_t w, int64_t c)
{
    p->current ^= 1;
    const fx_tensor flat = p->buffer[p->current];
    return fx_view3(flat.data, flat.dtype, rows, w, c);
}

fx_status fx_vae_resnets(fx_vae_run *r, const fx_vae_level *l, fx_vae_pair *pair, fx_tensor *x)
{
    for (int i = 0; i < l->resnets; i++) {
        const fx_tensor y = fx_vae_flip(pair, x->shape[0], x->shape[1], l->resnet[i].out);
        FX_TRY(fx_vae_resnet(r, &l->resnet[i], *x, y));
        *x = y;
    }
    return FX_OK;
}

fx_status fx_vae_norm(fx_vae_run *r, fx_tensor y, fx_tensor x, const fx_norm *n, fx_act act)
{
    fx_backend *be = r->be;
    const int64_t G = r->vae->cfg.groups;
    const size_t mark = fx_mark(be->arena);
    const fx_slabs slabs = slabs_of(r);
    fx_tensor mine, all;
    FX_TRY(fx_push3(be->arena, FX_F64, x.shape[0], G, 2, &mine));
    FX_TRY(fx_push3(be->arena, FX_F64, r->rows, G, 2, &all));
    FX_TRY(fx_row_stats(be, mine, x));
    FX_TRY(fx_gather_stats(be, &slabs, mine, all));
    FX_TRY(fx_group_norm(be, y, x, all, n->w, n->b, x.shape[1], norm_eps, act));
    fx_rewind(be->arena, mark);
    return FX_OK;
}

fx_status fx_vae_bordered(fx_vae_run *r, fx_tensor x, const fx_norm *n, fx_tensor out)
{
    const fx_tensor middle = fx_rows(out, 1, fx_vae_mine(r));
    const fx_slabs slabs = slabs_of(r);
    FX_TRY(n ? fx_vae_norm(r, middle, x, n, FX_ACT_SILU) : fx_copy(r->be, middle, x, 1, 0));
    return fx_halo_fill(r->be, &slabs, out, 1, 1);
}

fx_status fx_vae_conv3(fx_vae_run *r, fx_tensor y, fx_tensor bordered, const fx_conv *c)
{
    const int pad[4] = {0, 0, 1, 1};
    return fx_conv2d(r->be, y, bordered, c->w, c->b, 1, pad);
}

fx_status fx_vae_conv1(fx_vae_run *r, fx_tensor y, fx_tensor x, const fx_conv *c)
{
    const int pad[4] = {0, 0, 0, 0};
    return fx_conv2d(r->be, y, x, c->w, c->b, 1, pad);
}

fx_status fx_vae_resnet(fx_vae_run *r, const fx_resnet *b, fx_tensor x, fx_tensor y)
{
    fx_backend *be = r->be;
    const int64_t w = x.shape[1];
    const size_t mark = fx_mark(be->arena);
    fx_tensor in, h, mid, skip = x;
    FX_TRY(fx_vae_push(r, 2, w, b->in, &in));
    FX_TRY(fx_vae_push(r, 0, w, b->out, &h));
    FX_TRY(fx_vae_push(r, 2, w, b->out, &mid));
    FX_TRY(fx_vae_bordered(r, x, &b->norm1, in));
    FX_TRY(fx_vae_conv3(r, h, in, &b->conv1));
    FX_TRY(fx_vae_bordered(r, h, &b->norm2, mid));
    FX_TRY(fx_vae_conv3(r, y, mid, &b->conv2));
    if (b->shortcut.w.n) {
        FX_TRY(fx_vae_conv1(r, h, x, &b->shortcut));
        skip = h;
    }
    FX_TRY(fx_axpy(be, y, skip, 1));
    fx_rewind(be->arena, mark);
    return FX_OK;
}

/* Rows of pixels as rows of tokens, and the gather of all ranks' tokens. */
static fx_status gather_tokens(fx_vae_run *r, fx_tensor mine, int64_t w, fx_tensor all)
{
    const int64_t c = mine.shape[1];
    const fx_slabs slabs = slabs_of(r);
    fx_tensor m = fx_view3(mine.data, mine.dtype, fx_vae_mine(r), w, c),
              a = fx_view3(all.data, all.dtype, r->rows, w, c);
    return fx_gather_rows(r->be, &slabs, m, a);
}

fx_status fx_vae_attention_block(fx_vae_run *r, const fx_vae_attention *a, fx_tensor x)
{
    fx_backend *be = r->be;
    const int64_t w = x.shape[1], c = x.shape[2], mine = fx_vae_mine(r) * w, all = r->rows * w;
    const size_t mark = fx_mark(be->arena);
    fx_tensor h, q, kv, k, v;
    FX_TRY(fx_vae_push(r, 0, w, c, &h));
    FX_TRY(fx_push2(be->arena, be->dtype, mine, c, &q));
    FX_TRY(fx_push2(be->arena, be->dtype, mine, c, &kv));
    FX_TRY(fx_push2(be->arena, be->dtype, all, c, &k));
    FX_TRY(fx_push2(be->arena, be->dtype, all, c, &v));
    const fx_tensor tokens = fx_view2(h.data, h.dtype, mine, c);
    FX_TRY(fx_vae_norm(r, h, x, &a->norm, FX_ACT_NONE));
    FX_TRY(fx_dense_apply(be, kv, tokens, &a->k, FX_ACT_NONE));
    FX_TRY(gather_tokens(r, kv, w, k));
    FX_TRY(fx_dense_apply(be, kv, tokens, &a->v, FX_ACT_NONE));
    FX_TRY(gather_tokens(r, kv, w, v));
    FX_TRY(fx_dense_apply(be, q, tokens, &a->q, FX_ACT_NONE));
    FX_TRY(fx_attention(be, fx_heads(kv, 1), fx_none(), fx_heads(q, 1), fx_heads(k, 1), fx_heads(v, 1),
                        fx_none(), 1.0f / sqrtf((float)c)));
    FX_TRY(fx_dense_apply(be, tokens, kv, &a->out, FX_ACT_NONE));
    FX_TRY(fx_axpy(be, x, h, 1));
    fx_rewind(be->arena, mark);
    return FX_OK;
}

fx_status fx_vae_mid(fx_vae_run *r, const fx_vae_half *h, fx_tensor x)
{
    const size_t mark = fx_mark(r->be->arena);
    fx_tensor y;
    FX_TRY(fx_vae_push(r, 0, x.shape[1], x.shape[2], &y));
    FX_TRY(fx_vae_resnet(r, &h->mid[0], x, y));
    if (r->vae->cfg.mid_attention) FX_TRY(fx_vae_attention_block(r, &h->attention, y));
    FX_TRY(fx_vae_resnet(r, &h->mid[1], y, x));
    fx_rewind(r->be->arena, mark);
    return FX_OK;
}
