/* Watches one step of a plan and writes down what was asked for; see trace.h. Called by launch/cmd_plan.c. */
#include "runtime/trace.h"

#include <stdio.h>
#include <stdlib.h>

#include "runtime/request.h"
#include "runtime/session.h"

struct fx_trace {
    fx_backend *be; /* of no device */
    fx_model model;
    fx_model_facts facts;
    fx_session_options opt;
    int ranks;
};

/* One rank's step while it goes by. */
typedef struct recorder {
    const fx_session *s;
    void (*line)(void *, const fx_trace_line *);
    void *ctx;
    char box[64];
    int64_t lines;
    fx_trace_totals totals;
} recorder;

/* ---- ranges ---- */

/* Bytes from the first element to behind the last; of no element: 0. */
static size_t extent(fx_tensor t)
{
    int64_t last = 0;
    if (fx_numel(t) == 0) return 0;
    for (int d = 0; d < t.ndim; d++) last += (t.shape[d] - 1) * t.stride[d];
    return (size_t)(last + 1) * fx_dtype_size(t.dtype);
}

static void add_range(const recorder *r, fx_trace_line *l, bool write, const void *data, size_t bytes)
{
    fx_trace_range *x = &l->range[l->ranges++];
    *x = (fx_trace_range){.write = write, .bytes = bytes};
    x->weights = !fx_arena_offset(r->s->be->arena, data, &x->offset);
    if (x->weights) x->offset = 0;
}

static void add_tensors(const recorder *r, fx_trace_line *l, bool write, int n, const fx_tensor t[])
{
    for (int i = 0; i < n; i++) {
        if (!fx_present(t[i])) continue;
        add_range(r, l, write, t[i].data, extent(t[i]));
        l->bytes += fx_bytes(t[i]);
    }
}

static void add_weight(fx_trace_line *l, const fx_weight *w)
{
    const size_t bytes = (size_t)(w->n * w->k * w->kh * w->kw) * fx_dtype_size(w->dtype);
    if (!w->n) return;
    l->range[l->ranges++] = (fx_trace_range){.weights = true, .bytes = bytes};
    l->bytes += bytes;
}

/* ---- what goes by ---- */

static fx_trace_line begin_line(const recorder *r, fx_trace_kind kind, const char *what)
{
    return (fx_trace_line){
        .rank = fx_comm_rank(r->s->comm), .kind = kind, .box = r->box, .what = what, .peer = -1};
}

static void end_line(recorder *r, fx_trace_line *l)
{
    l->number = ++r->lines;
    if (r->line) r->line(r->ctx, l);
}

static void on_begin(void *ctx, const fx_session *s)
{
    recorder *r = ctx;
    const fx_range *mine = s->layout.part[fx_comm_rank(s->comm)];
    r->s = s;
    r->totals = (fx_trace_totals){
        .layout = s->layout.kind, .text_rows = mine[FX_TEXT].count, .image_rows = mine[FX_IMAGE].count};
}

static void on_box(void *ctx, const char *name)
{
    recorder *r = ctx;
    snprintf(r->box, sizeof r->box, "%s", name);
}

static void on_op(void *ctx, const fx_plan_op *op)
{
    recorder *r = ctx;
    fx_trace_line l = begin_line(r, op->host ? FX_TRACE_HOST : FX_TRACE_LAUNCH, op->name);
    l.op = op;
    add_tensors(r, &l, true, FX_PLAN_WRITES, op->write);
    add_tensors(r, &l, false, FX_PLAN_READS, op->read);
    add_weight(&l, &op->weight);
    if (op->scratch_bytes) add_range(r, &l, true, op->scratch, op->scratch_bytes);
    *(op->host ? &r->totals.hosts : &r->totals.launches) += 1;
    end_line(r, &l);
}

static void on_transfers(recorder *r, fx_trace_kind kind, int ticket, const char *label, int n,
                         const fx_xfer x[])
{
    for (int i = 0; i < n; i++) {
        fx_trace_line l = begin_line(r, kind, label);
        l.peer = x[i].peer;
        l.ticket = ticket;
        l.bytes = x[i].bytes;
        add_range(r, &l, kind == FX_TRACE_RECV, x[i].data, x[i].bytes);
        end_line(r, &l);
        if (kind == FX_TRACE_SEND) r->totals.bytes_sent += x[i].bytes;
    }
}

static void on_post(void *ctx, int ticket, const char *label, int sends, const fx_xfer send[], int recvs,
                    const fx_xfer recv[])
{
    recorder *r = ctx;
    r->totals.posts++;
    on_transfers(r, FX_TRACE_RECV, ticket, label, recvs, recv); /* as transports do: receives first */
    on_transfers(r, FX_TRACE_SEND, ticket, label, sends, send);
}

static void on_wait(void *ctx, int ticket, const char *label)
{
    recorder *r = ctx;
    fx_trace_line l = begin_line(r, FX_TRACE_WAIT, label);
    l.ticket = ticket;
    r->totals.waits++;
    end_line(r, &l);
}

static void on_store(void *ctx, const char *label, int peer, size_t bytes, int n, const fx_xfer from[])
{
    recorder *r = ctx;
    fx_trace_line l = begin_line(r, n ? FX_TRACE_COPY : FX_TRACE_STORE, label);
    l.peer = peer;
    l.bytes = bytes;
    for (int i = 0; i < n; i++) add_range(r, &l, false, from[i].data, from[i].bytes);
    if (peer != l.rank) r->totals.bytes_sent += bytes;
    end_line(r, &l);
}

static void on_join(void *ctx, const char *label)
{
    recorder *r = ctx;
    fx_trace_line l = begin_line(r, FX_TRACE_WAIT, label);
    r->totals.waits++;
    end_line(r, &l);
}

static void on_await(void *ctx, const char *label, int peer, size_t bytes, int n, const fx_xfer place[])
{
    recorder *r = ctx;
    fx_trace_line l = begin_line(r, FX_TRACE_WAIT, label);
    l.peer = peer;
    l.bytes = bytes;
    for (int i = 0; i < n; i++) add_range(r, &l, true, place[i].data, place[i].bytes);
    r->totals.waits++;
    end_line(r, &l);
}

static void on_copy(void *ctx, void *to, const void *from, size_t bytes)
{
    recorder *r = ctx;
    fx_trace_line l = begin_line(r, FX_TRACE_LAUNCH, "copy_rows");
    l.bytes = 2 * bytes;
    add_range(r, &l, true, to, bytes);
    add_range(r, &l, false, from, bytes);
    r->totals.launches++;
    end_line(r, &l);
}

static void on_host(void *ctx, const char *name, size_t bytes)
{
    recorder *r = ctx;
    fx_trace_line l = begin_line(r, FX_TRACE_HOST, name);
    l.bytes = bytes;
    r->totals.hosts++;
    end_line(r, &l);
}

/* ---- calls ---- */

fx_status fx_trace_open(const fx_pipeline_options *opt, int ranks, fx_trace **out)
{
    fx_status st;
    fx_trace *t = calloc(1, sizeof *t);
    *out = NULL;
    FX_CHECK(t, FX_ENOMEM, "no memory for a trace");
    t->ranks = ranks;
    t->opt = (fx_session_options){.layout = opt->layout,
                                  .exact = opt->exact,
                                  .noise_dtype = FX_BF16,
                                  .by_kernels = opt->exchange == FX_WIRE_LSA};
    FX_TRY_OUT(fx_backend_plan(NULL, &t->be));
    FX_TRY_OUT(fx_model_open(opt->model, t->be, NULL, &t->model));
    FX_TRY_OUT(fx_mesh_make(ranks, (int)t->model.dit_config.heads, opt->ulysses, opt->ring, &t->opt.mesh));
    fx_request_facts(&t->model, &t->facts);
    t->facts.mesh = t->opt.mesh;
    t->facts.layout = opt->layout;
    t->facts.exact = t->opt.mesh.ring == 1 || opt->exact != FX_EXACT_OFF;
    *out = t;
    return FX_OK;
out:
    fx_trace_close(&t);
    return st;
}

void fx_trace_close(fx_trace **t)
{
    if (!*t) return;
    fx_model_close(&(*t)->model);
    fx_backend_close(&(*t)->be);
    free(*t);
    *t = NULL;
}

const fx_model_facts *fx_trace_facts(const fx_trace *t)
{
    return &t->facts;
}

fx_status fx_trace_rank(const fx_trace *t, const fx_request *r, int rank,
                        void (*line)(void *ctx, const fx_trace_line *), void *ctx, fx_trace_totals *out)
{
    const fx_size size = {r->width, r->height, r->steps, r->t5_len};
    recorder rec = {.line = line, .ctx = ctx, .box = "step"};
    const fx_step_watch watch = {.begin = on_begin,
                                 .ctx = &rec,
                                 .ops = {.op = on_op, .box = on_box, .ctx = &rec},
                                 .comm = {.post = on_post,
                                          .wait = on_wait,
                                          .copy = on_copy,
                                          .store = on_store,
                                          .join = on_join,
                                          .await = on_await,
                                          .host = on_host,
                                          .ctx = &rec}};
    size_t arena_bytes = 0;
    FX_TRY(fx_session_plan(&t->model, t->be, rank, t->ranks, &t->opt, size, &watch, &arena_bytes));
    *out = rec.totals;
    out->arena_bytes = arena_bytes;
    return FX_OK;
}
