/* `fluxpar plan`: how long pictures would take, arrangement by arrangement (runtime/predict), and one denoise step of every rank
 * as lines of text, both from the graph itself. No rank, no GPU and no weights are needed. The columns: launch/README.md. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "launch/commands.h"
#include "launch/metadata.h"
#include "launch/plan_table.h"
#include "launch/recipe.h"
#include "runtime/request.h"
#include "runtime/trace.h"

/* ---- lines ---- */

static const char *const kind_name[] = {
    [FX_TRACE_LAUNCH] = "launch", [FX_TRACE_SEND] = "send", [FX_TRACE_RECV] = "recv",
    [FX_TRACE_WAIT] = "wait",     [FX_TRACE_HOST] = "host", [FX_TRACE_STORE] = "store",
    [FX_TRACE_COPY] = "store"};
static const char *const stream_name[] = {
    [FX_TRACE_LAUNCH] = "compute", [FX_TRACE_SEND] = "wire", [FX_TRACE_RECV] = "wire",
    [FX_TRACE_WAIT] = "compute",   [FX_TRACE_HOST] = "host", [FX_TRACE_STORE] = "compute",
    [FX_TRACE_COPY] = "wire"};

static void print_columns(void)
{
    printf("#\n# %4s %6s %-8s %-6s %-10s %-16s %5s %7s %11s  %s\n", "rank", "number", "stream", "kind", "box",
           "what", "peer", "ticket", "bytes", "shape buffers");
}

/* "bf16[512,3072]": no blank in it, so that columns can be cut at blanks. */
static void print_shapes(int n, const fx_tensor t[], const char *before)
{
    for (int i = 0; i < n; i++) {
        if (!fx_present(t[i])) continue;
        printf("%s%s[", before, fx_dtype_name(t[i].dtype));
        for (int d = 0; d < t[i].ndim; d++) printf("%s%" PRId64, d ? "," : "", t[i].shape[d]);
        printf("]");
        before = ",";
    }
}

static void print_op(const fx_plan_op *op)
{
    print_shapes(FX_PLAN_WRITES, op->write, "");
    print_shapes(FX_PLAN_READS, op->read, "<-");
    const fx_weight *w = &op->weight;
    if (w->n) printf(",%s[%" PRId64 ",%" PRId64 "]", fx_dtype_name(w->dtype), w->n, w->k * w->kh * w->kw);
}

static void print_line(void *ctx, const fx_trace_line *l)
{
    char peer[16] = "-", ticket[16] = "-";
    (void)ctx;
    if (l->peer >= 0) snprintf(peer, sizeof peer, "%d", l->peer);
    if (l->ticket) snprintf(ticket, sizeof ticket, "%d", l->ticket);
    printf("  %4d %6" PRId64 " %-8s %-6s %-10s %-16s %5s %7s %11zu  ", l->rank, l->number,
           stream_name[l->kind], kind_name[l->kind], l->box, l->what, peer, ticket, l->bytes);
    if (l->op && l->ranges)
        print_op(l->op);
    else
        printf("-");
    for (int i = 0; i < l->ranges; i++) {
        const fx_trace_range *r = &l->range[i];
        printf(" %c:", r->write ? 'w' : 'r');
        if (r->weights)
            printf("weights+%zu", r->bytes);
        else
            printf("%zu+%zu", r->offset, r->bytes);
    }
    puts(l->ranges ? "" : " -");
}

/* ---- header and totals ---- */

/* What a run would take; rings that hop always go by transfers. */
static bool by_kernels(const fx_options *o, const fx_machine *m)
{
    if (!strcmp(o->exchange, "auto"))
        return o->gpus <= m->domain_ranks && m->by[FX_BY_LSA].given && strcmp(o->exact, "off");
    return !strcmp(o->exchange, "lsa");
}

static void print_header(const fx_options *o, const fx_machine *m, const fx_model_facts *f,
                         const fx_request *r)
{
    char name[256];
    fx_model_name(o->model, name, sizeof name);
    printf("# fluxpar %s plan: one denoise step, nothing was run\n", FX_VERSION);
    printf("# model    %s (%s), %d double + %d single blocks, %d heads\n", name, f->kind, f->double_blocks,
           f->single_blocks, f->heads);
    printf("# picture  %dx%d, %d steps, %d text tokens\n", r->width, r->height, r->steps, r->t5_len);
    printf("# run      %" PRId64 " x %s (%s), mesh %dx%d (ulysses x ring), %s, bf16%s\n", o->gpus, o->gpu,
           m->name, f->mesh.ulysses, f->mesh.ring, f->exact ? "exact" : "not exact",
           o->gpus == 1       ? ""
           : by_kernels(o, m) ? ", rows by kernels (--exchange lsa)"
                              : ", rows by transfers (--exchange peer, nccl)");
}

static void print_totals(int rank, const fx_trace_totals *t)
{
    if (rank == 0)
        printf("#\n# %4s %-7s %6s %6s %8s %6s %6s %5s %12s %12s\n", "rank", "layout", "text", "image",
               "launches", "posts", "waits", "host", "bytes sent", "arena bytes");
    printf("# %4d %-7s %6" PRId64 " %6" PRId64 " %8" PRId64 " %6" PRId64 " %6" PRId64 " %5" PRId64
           " %12zu %12zu\n",
           rank, fx_layout_name(t->layout), t->text_rows, t->image_rows, t->launches, t->posts, t->waits,
           t->hosts, t->bytes_sent, t->arena_bytes);
}

/* ---- what is asked ---- */

static fx_status by_of(const fx_options *o, const fx_machine *m, int *by)
{
    *by = -1;
    if (m->cpu || !strcmp(o->exchange, "auto")) return FX_OK;
    for (int i = 0; i < FX_BYS; i++)
        if (!strcmp(o->exchange, fx_by_name((fx_by)i))) *by = i;
    FX_CHECK(*by >= 0 && m->by[*by].given, FX_EINVAL,
             "--exchange %s: %s has no rates of it; leave it out or complete the file", o->exchange, m->name);
    return FX_OK;
}

/* "bf16", "fp8,nvfp4", "any". */
static fx_status dtypes_of(const fx_options *o, unsigned *bits)
{
    const char *at = o->precision ? o->precision : "bf16";
    *bits = 0;
    if (!strcmp(at, "any")) *bits = 1u << FX_RATE_BF16 | 1u << FX_RATE_FP8 | 1u << FX_RATE_NVFP4;
    while (!strcmp(at, "any") ? false : *at != 0) {
        const size_t n = strcspn(at, ",");
        unsigned bit = 0;
        for (int i = 0; i < FX_RATE_DTYPES; i++)
            if (strlen(fx_rate_name((fx_rate_dtype)i)) == n &&
                !strncmp(at, fx_rate_name((fx_rate_dtype)i), n))
                bit = 1u << i;
        FX_CHECK(bit, FX_EINVAL,
                 "--dtype %s is not known; possible are bf16|f32|fp8|nvfp4, several with commas, or any",
                 o->precision);
        *bits |= bit;
        at += n + (at[n] == ',');
    }
    FX_CHECK(*bits, FX_EINVAL,
             "--dtype is empty; possible are bf16|f32|fp8|nvfp4, several with commas, or any");
    return FX_OK;
}

/* A precision that the machine has no rates of would be predicted as bf16. */
static unsigned with_rates(const fx_machine *m, unsigned bits)
{
    unsigned known = bits & (1u << FX_RATE_BF16 | 1u << FX_RATE_F32);
    for (int i = 0; i < m->gemm.n; i++) known |= bits & 1u << m->gemm.r[i].dtype;
    return known;
}

static fx_status ask(const fx_options *o, const fx_machine *m, const fx_request *r, fx_plan_query *q)
{
    const fx_pipeline_options p = fx_recipe_pipeline(o);
    *q = (fx_plan_query){.machine = m,
                         .request = *r,
                         .devices = (int)o->gpus,
                         .ulysses = p.ulysses,
                         .ring = p.ring,
                         .layout = p.layout,
                         .exact = p.exact,
                         .images_per_s = o->images_per_s,
                         .latency_s = o->latency_s};
    FX_TRY(by_of(o, m, &q->by));
    FX_TRY(dtypes_of(o, &q->dtypes));
    const unsigned known = with_rates(m, q->dtypes);
    FX_CHECK(known, FX_EINVAL, "--dtype %s: %s has no rates of it; leave it out or complete the file",
             o->precision, m->name);
    q->dtypes = known;
    return FX_OK;
}

/* ---- predicted ---- */

static fx_status draw(const fx_options *o, const fx_graph *g, const fx_plan_query *q, const fx_plans *all)
{
    if (!o->trace_json && !o->svg) return FX_OK;
    FX_CHECK(all->n, FX_EINVAL, "no plan to draw; ask for less");
    if (o->trace_json) FX_TRY(fx_plan_write_trace(g, q, &all->row[0], o->trace_json));
    return o->svg ? fx_plan_write_svg(g, q, &all->row[0], o->svg) : FX_OK;
}

/* Everything is known before the first line is printed. */
typedef struct forecast {
    fx_graph *graph;
    fx_plan_query query;
    fx_plans plans;
} forecast;

static fx_status predict(const fx_options *o, const fx_machine *m, const fx_request *given, forecast *f)
{
    fx_request r = *given;
    FX_TRY(fx_graph_open(o->model, &f->graph));
    FX_TRY(fx_request_complete(fx_graph_facts(f->graph), &r));
    FX_TRY(ask(o, m, &r, &f->query));
    FX_TRY(fx_plans_open(f->graph, &f->query, &f->plans));
    return draw(o, f->graph, &f->query, &f->plans);
}

static void drop(forecast *f)
{
    fx_plans_close(&f->plans);
    fx_graph_close(&f->graph);
}

/* ---- one step of every rank ---- */

static fx_status walk(const fx_trace *t, const fx_options *o, const fx_machine *m, const forecast *f,
                      const fx_request *r)
{
    static fx_trace_totals all[FX_PLAN_GPUS];
    print_header(o, m, fx_trace_facts(t), r);
    if (o->trace)
        print_columns();
    else
        fx_plan_print(o, &f->query, &f->plans);
    for (int rank = 0; rank < o->gpus; rank++) {
        FX_TRY(fx_trace_rank(t, r, rank, o->trace ? print_line : NULL, NULL, &all[rank]));
        if (ferror(stdout)) break; /* named by fx_results_written */
    }
    for (int rank = 0; rank < o->gpus; rank++) print_totals(rank, &all[rank]);
    return FX_OK;
}

static fx_status show(const fx_options *o, const fx_machine *m, const forecast *f, fx_request *r)
{
    fx_trace *t = NULL;
    if (o->json) return fx_plan_print_json(&f->query, &f->plans);
    fx_pipeline_options p = fx_recipe_pipeline(o);
    p.exchange = by_kernels(o, m) ? FX_WIRE_LSA : FX_WIRE_PEER;
    FX_TRY(fx_trace_open(&p, (int)o->gpus, &t));
    fx_status st = fx_request_complete(fx_trace_facts(t), r);
    if (!st) st = walk(t, o, m, f, r);
    fx_trace_close(&t);
    return st;
}

static fx_status run_plan(const fx_options *o, const fx_machine *m)
{
    forecast f = {0};
    fx_request r = fx_recipe_request(o);
    r.prompt = "";
    fx_status st = o->trace ? FX_OK : predict(o, m, &r, &f);
    if (!st) st = show(o, m, &f, &r);
    drop(&f);
    return st;
}

fx_status fx_cmd_plan(fx_run *s, const fx_options *o)
{
    fx_machine m;
    (void)s;
    FX_CHECK(!o->trace || (!o->json && !o->svg && !o->trace_json), FX_EINVAL,
             "--trace shows one arrangement as text; leave out --json, --trace-json and --svg, or --trace");
    FX_TRY(fx_recipe_check(o, (int)o->gpus));
    FX_TRY(fx_machine_open(o->gpu ? o->gpu : "h100", &m));
    if (o->topology) FX_TRY(fx_machine_topology(o->topology, &m));
    fx_options used = *o;
    used.gpu = o->gpu ? o->gpu : "h100";
    FX_TRY(run_plan(&used, &m));
    return fx_results_written();
}
