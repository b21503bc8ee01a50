/* `fluxpar plan`: one denoise step of every rank as lines of text, from the graph itself (runtime/trace.c). No rank, no GPU and
 * no weights are needed. The columns: launch/README.md. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "launch/commands.h"
#include "launch/metadata.h"
#include "launch/recipe.h"
#include "runtime/request.h"
#include "runtime/trace.h"

static const struct {
    const char *name, *text;
    int of_domain; /* so many reach each other's memory: of a node, or of a rack in one NVLink domain (NVL72) */
} gpus[] = {{"h100", "NVIDIA H100, sm_90", 8},
            {"h200", "NVIDIA H200, sm_90", 8},
            {"b200", "NVIDIA B200, sm_100", 8},
            {"gb200", "NVIDIA GB200, sm_100", 72}};

static const char *gpu_text(const char *name)
{
    for (size_t i = 0; i < sizeof gpus / sizeof gpus[0]; i++)
        if (!strcmp(gpus[i].name, name)) return gpus[i].text;
    return name;
}

static int of_domain(const char *name)
{
    for (size_t i = 0; i < sizeof gpus / sizeof gpus[0]; i++)
        if (!strcmp(gpus[i].name, name)) return gpus[i].of_domain;
    return 1;
}

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
static bool by_kernels(const fx_options *o)
{
    if (!strcmp(o->exchange, "auto")) return o->gpus <= of_domain(o->gpu) && strcmp(o->exact, "off");
    return !strcmp(o->exchange, "lsa");
}

static void print_header(const fx_options *o, const fx_model_facts *f, const fx_request *r)
{
    char name[256];
    fx_model_name(o->model, name, sizeof name);
    printf("# fluxpar %s plan: one denoise step, nothing was run\n", FX_VERSION);
    printf("# model    %s (%s), %d double + %d single blocks, %d heads\n", name, f->kind, f->double_blocks,
           f->single_blocks, f->heads);
    printf("# picture  %dx%d, %d steps, %d text tokens\n", r->width, r->height, r->steps, r->t5_len);
    printf("# run      %" PRId64 " x %s (%s), mesh %dx%d (ulysses x ring), %s, bf16%s\n", o->gpus, o->gpu,
           gpu_text(o->gpu), f->mesh.ulysses, f->mesh.ring, f->exact ? "exact" : "not exact",
           o->gpus == 1    ? ""
           : by_kernels(o) ? ", rows by kernels (--exchange lsa)"
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

static fx_status walk(const fx_trace *t, const fx_options *o, fx_trace_totals *all)
{
    fx_request r = fx_recipe_request(o);
    r.prompt = "";
    FX_TRY(fx_request_complete(fx_trace_facts(t), &r));
    print_header(o, fx_trace_facts(t), &r);
    if (o->trace) print_columns();
    for (int rank = 0; rank < o->gpus; rank++) {
        FX_TRY(fx_trace_rank(t, &r, rank, o->trace ? print_line : NULL, NULL, &all[rank]));
        if (ferror(stdout)) break; /* named by fx_results_written */
    }
    for (int rank = 0; rank < o->gpus; rank++) print_totals(rank, &all[rank]);
    return fx_results_written();
}

fx_status fx_cmd_plan(fx_run *s, const fx_options *o)
{
    static fx_trace_totals all[FX_PLAN_GPUS];
    fx_trace *t = NULL;
    (void)s;
    FX_TRY(fx_recipe_check(o, (int)o->gpus));
    fx_pipeline_options p = fx_recipe_pipeline(o);
    p.exchange = by_kernels(o) ? FX_WIRE_LSA : FX_WIRE_PEER;
    FX_TRY(fx_trace_open(&p, (int)o->gpus, &t));
    const fx_status st = walk(t, o, all);
    fx_trace_close(&t);
    return st;
}
