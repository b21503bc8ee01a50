/* Listens while the graph runs over the plan backend and writes its jobs down; called by work.c for each class of ranks. */
#include "runtime/predict/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct recorder {
    fx_work *w;
    fx_program *p;
    fx_exchange_table *table;
    const fx_arrangement *how;
    fx_picture_part part;
    int me, box, cursor; /* cursor: exchange after the last one that was named */
    int tickets_room;
    int *exchange_of; /* [tickets_room] by ticket */
    bool full;        /* no memory */
} recorder;

/* ---- growing ---- */

static void *grow(void *list, int n, int *room, size_t size)
{
    if (n < *room) return list;
    const int more = *room ? 2 * *room : 256;
    void *grown = realloc(list, (size_t)more * size);
    if (grown) *room = more;
    return grown;
}

static fx_job *add_job(recorder *r, fx_job_kind kind, const char *name)
{
    fx_program *p = r->p;
    fx_job *grown = grow(p->job, p->n, &p->room, sizeof *p->job);
    static fx_job nobody;
    if (!grown) {
        r->full = true;
        return &nobody;
    }
    p->job = grown;
    p->job[p->n] = (fx_job){
        .kind = kind, .work = FX_WORK_ROWS, .part = r->part, .box = r->box, .name = name, .exchange = -1};
    return &p->job[p->n++];
}

/* Counts a peer to the last range [first, first + *count) of the list. */
static void add_peer(recorder *r, int first, int *count, int peer, double bytes)
{
    fx_program *p = r->p;
    const int class = r->w->class_of[peer], d = r->how->domain, o = r->how->offset;
    const bool far = (o + peer) / d != (o + r->me) / d;
    for (int i = first; i < first + *count; i++) {
        fx_work_peers *x = &p->peers[i];
        if (x->who != class || x->far != far) continue;
        x->count++;
        x->bytes += bytes;
        return;
    }
    fx_work_peers *grown = grow(p->peers, p->peers_n, &p->peers_room, sizeof *p->peers);
    if (!grown) {
        r->full = true;
        return;
    }
    p->peers = grown;
    p->peers[p->peers_n++] = (fx_work_peers){.who = class, .count = 1, .far = far, .bytes = bytes};
    ++*count;
}

/* ---- names ---- */

static int find_exchange(recorder *r, const char *name, int number)
{
    fx_exchange_table *t = r->table;
    for (int i = 0; i < t->n; i++) { /* ranks name them in the same order, so the first look finds it */
        const int at = (r->cursor + i) % t->n;
        const fx_exchange_key *k = &t->key[at];
        if (k->box == r->box && k->number == number && !strcmp(k->name, name)) return r->cursor = at + 1, at;
    }
    fx_exchange_key *grown = grow(t->key, t->n, &t->room, sizeof *t->key);
    if (!grown) {
        r->full = true;
        return -1;
    }
    t->key = grown;
    t->key[t->n] = (fx_exchange_key){r->box, number, name};
    r->cursor = t->n + 1;
    return t->n++;
}

/* How many exchanges of that name this rank began in this box. */
static int count_before(const recorder *r, fx_job_kind kind, const char *name)
{
    int n = 0;
    for (int i = r->p->n - 1; i >= 0 && r->p->job[i].box == r->box; i--)
        n += r->p->job[i].kind == kind && !strcmp(r->p->job[i].name, name);
    return n;
}

static void on_box(void *ctx, const char *name)
{
    recorder *r = ctx;
    fx_work *w = r->w;
    r->part = !strcmp(name, "text") ? FX_PART_TEXT : !strcmp(name, "vae") ? FX_PART_VAE : FX_PART_STEP;
    for (int i = 0; i < w->boxes; i++) {
        const int at = (r->box + 1 + i) % w->boxes;
        if (!strcmp(w->box[at], name)) {
            r->box = at;
            return;
        }
    }
    void *grown = grow(w->box, w->boxes, &w->boxes_room, sizeof *w->box);
    if (!grown) {
        r->full = true;
        return;
    }
    w->box = grown;
    snprintf(w->box[w->boxes], sizeof *w->box, "%.23s", name);
    r->box = w->boxes++;
}

/* ---- ops ---- */

static double bytes_of(int n, const fx_tensor t[])
{
    double bytes = 0;
    for (int i = 0; i < n; i++)
        if (fx_present(t[i])) bytes += (double)fx_bytes(t[i]);
    return bytes;
}

static void shape_product(fx_job *j, const fx_plan_op *op, fx_work_kind work)
{
    const fx_tensor y = op->write[0];
    const fx_weight *w = &op->weight;
    j->work = work;
    j->m = work == FX_WORK_CONV ? y.shape[0] * y.shape[1] : y.shape[0];
    j->n = w->n;
    j->k = w->k * w->kh * w->kw;
    j->weight_bytes = 2.0 * (double)(j->n * j->k);
}

static void shape_attention(fx_job *j, const fx_plan_op *op)
{
    const fx_tensor q = op->read[0], k = op->read[1];
    j->work = FX_WORK_ATTENTION;
    j->m = q.shape[0];
    j->heads = q.shape[1];
    j->n = k.shape[0];
    j->k = q.shape[2];
}

static void on_op(void *ctx, const fx_plan_op *op)
{
    recorder *r = ctx;
    const bool stores = !strcmp(op->name, "put") || !strcmp(op->name, "give_back");
    fx_job *j = add_job(r, op->host ? FX_JOB_HOST : stores ? FX_JOB_STORE : FX_JOB_OP, op->name);
    j->bytes = bytes_of(FX_PLAN_WRITES, op->write) + bytes_of(FX_PLAN_READS, op->read);
    if (!strcmp(op->name, "linear"))
        shape_product(j, op, FX_WORK_GEMM);
    else if (!strcmp(op->name, "conv2d"))
        shape_product(j, op, FX_WORK_CONV);
    else if (!strcmp(op->name, "attention"))
        shape_attention(j, op);
}

static void on_copy(void *ctx, void *to, const void *from, size_t bytes)
{
    (void)to, (void)from;
    add_job(ctx, FX_JOB_OP, "copy_rows")->bytes = 2.0 * (double)bytes;
}

static void on_host(void *ctx, const char *name, size_t bytes)
{
    add_job(ctx, FX_JOB_HOST, name)->bytes = (double)bytes;
}

/* ---- between ranks ---- */

static void on_post(void *ctx, int ticket, const char *label, int sends, const fx_xfer send[], int recvs,
                    const fx_xfer recv[])
{
    recorder *r = ctx;
    const int number = count_before(r, FX_JOB_POST, label);
    fx_job *j = add_job(r, FX_JOB_POST, label);
    const int exchange = j->exchange = find_exchange(r, label, number);
    j->out = r->p->peers_n;
    for (int i = 0; i < sends; i++) add_peer(r, j->out, &j->outs, send[i].peer, (double)send[i].bytes);
    j->in = r->p->peers_n;
    for (int i = 0; i < recvs; i++) add_peer(r, j->in, &j->ins, recv[i].peer, (double)recv[i].bytes);
    while (ticket >= r->tickets_room) {
        int *grown = grow(r->exchange_of, ticket, &r->tickets_room, sizeof *r->exchange_of);
        if (!grown) {
            r->full = true;
            return;
        }
        r->exchange_of = grown;
    }
    r->exchange_of[ticket] = exchange;
}

static void on_wait(void *ctx, int ticket, const char *label)
{
    recorder *r = ctx;
    add_job(r, FX_JOB_WAIT, label)->exchange = ticket < r->tickets_room ? r->exchange_of[ticket] : -1;
}

/* All parts of a put are one exchange: one kernel brings them, and one wait is for all. */
static const char *store_name(const char *label)
{
    return strncmp(label, "in", 2) ? "out" : "in";
}

/* By the kernel before, or by copy engines (n > 0). */
static void on_store(void *ctx, const char *label, int peer, size_t bytes, int n, const fx_xfer from[])
{
    recorder *r = ctx;
    const fx_job_kind kind = n > 0 ? FX_JOB_COPY : FX_JOB_STORE;
    fx_job *j = r->p->n ? &r->p->job[r->p->n - 1] : NULL;
    (void)from;
    if (n > 0 && (!j || j->kind != kind)) j = add_job(r, kind, "copies");
    if (!j || j->kind != kind) return;
    if (j->exchange < 0) {
        j->exchange = find_exchange(r, store_name(label), 0);
        j->out = r->p->peers_n;
    }
    add_peer(r, j->out, &j->outs, peer, (double)bytes);
}

static void on_join(void *ctx, const char *label)
{
    (void)ctx, (void)label; /* the peers have waited for what was sent, and for longer */
}

static void on_await(void *ctx, const char *label, int peer, size_t bytes, int n, const fx_xfer place[])
{
    recorder *r = ctx;
    const char *name = store_name(label);
    fx_job *j = r->p->n ? &r->p->job[r->p->n - 1] : NULL;
    (void)n, (void)place;
    if (!j || j->kind != FX_JOB_AWAIT || strcmp(j->name, name)) {
        j = add_job(r, FX_JOB_AWAIT, name);
        j->exchange = find_exchange(r, name, 0);
        j->in = r->p->peers_n;
    }
    add_peer(r, j->in, &j->ins, peer, (double)bytes);
}

/* ---- the call ---- */

static void on_begin(void *ctx, const fx_session *s)
{
    recorder *r = ctx;
    r->w->layout = s->layout.kind;
}

fx_status fx_work_listen(const fx_model *model, fx_backend *be, const fx_request *q,
                         const fx_arrangement *how, fx_exchange_table *table, fx_work *w, fx_program *p)
{
    const fx_size size = {q->width, q->height, q->steps, q->t5_len};
    const fx_session_options opt = {.mesh = how->mesh,
                                    .layout = how->layout,
                                    .exact = how->exact,
                                    .noise_dtype = FX_BF16,
                                    .by_kernels = how->by_kernels};
    recorder r = {.w = w, .p = p, .table = table, .how = how, .me = p->rank, .box = -1};
    const fx_step_watch watch = {.begin = on_begin,
                                 .ctx = &r,
                                 .whole = true,
                                 .ops = {.op = on_op, .box = on_box, .ctx = &r},
                                 .comm = {.post = on_post,
                                          .wait = on_wait,
                                          .copy = on_copy,
                                          .store = on_store,
                                          .join = on_join,
                                          .await = on_await,
                                          .host = on_host,
                                          .ctx = &r}};
    fx_status st = fx_session_plan(model, be, p->rank, w->ranks, &opt, size, &watch, &p->arena_bytes);
    free(r.exchange_of);
    if (!st && r.full) st = FX_FAIL(FX_ENOMEM, "no memory for the work of a rank");
    return st;
}
