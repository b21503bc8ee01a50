/* The table of `fluxpar bench` and its JSON; what the columns mean: bench/METRICS.md. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/ops.h"
#include "launch/bench/bench.h"
#include "launch/metadata.h"
#include "runtime/core/host.h"

/* ---- figures ---- */

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double *sorted(const double *v, int n)
{
    double *copy = n > 0 ? malloc((size_t)n * sizeof *copy) : NULL;
    if (!copy) return NULL;
    memcpy(copy, v, (size_t)n * sizeof *copy);
    qsort(copy, (size_t)n, sizeof *copy, ascending);
    return copy;
}

double fx_bench_percentile(const double *v, int n, double p)
{
    double *s = sorted(v, n);
    if (!s) return NAN;
    int rank = (int)ceil(p * n);
    if (rank < 1) rank = 1;
    const double value = s[rank - 1];
    free(s);
    return value;
}

double fx_bench_median(const double *v, int n)
{
    double *s = sorted(v, n);
    if (!s) return NAN;
    const double value = n % 2 ? s[n / 2] : (s[n / 2 - 1] + s[n / 2]) / 2;
    free(s);
    return value;
}

typedef struct figures {
    double step, p95, compute, comm, exposed; /* seconds */
    double image, text, denoise, vae;         /* seconds */
    double speedup, efficiency;               /* 1 is ideal for efficiency; NaN without a base */
    double memory, sent;                      /* bytes */
    int64_t bad;                              /* -1: nothing to compare with */
} figures;

/* What works at the same time: devices, or cores. */
static double workers(const fx_bench_row *r)
{
    return strcmp(r->of->used.backend, "cuda") ? (double)r->of->ranks * r->facts.threads : r->of->ranks;
}

static figures figures_of(const fx_bench *b, const fx_bench_row *r)
{
    const fx_bench_row *base = r->of->base < 0 ? NULL : &b->rows[r->of->base];
    figures f = {.step = fx_bench_median(r->step, r->runs * r->steps),
                 .p95 = fx_bench_percentile(r->step, r->runs * r->steps, 0.95),
                 .comm = fx_bench_median(r->comm, FX_BENCH_REPLAYS),
                 .exposed = fx_bench_median(r->exposed, r->runs),
                 .image = fx_bench_median(r->image, r->runs),
                 .text = fx_bench_median(r->text, r->runs),
                 .denoise = fx_bench_median(r->denoise, r->runs),
                 .vae = fx_bench_median(r->vae, r->runs),
                 .speedup = NAN,
                 .efficiency = NAN,
                 .memory = (double)r->weights + (double)r->arena,
                 .sent = (double)r->sent,
                 .bad = r->bad_latents};
    f.compute = f.step - f.exposed;
    if (r->bad_pictures > 0) f.bad += r->bad_pictures;
    if (!base) return f;
    f.speedup = fx_bench_median(base->step, base->runs * base->steps) / f.step;
    f.efficiency = f.speedup * workers(base) / workers(r);
    return f;
}

/* Rows of oneDNN's products change with their number, and so do the threads' shares of them. */
static bool equal_bytes_promised(const fx_bench_row *r)
{
    return r->facts.exact && strcmp(r->of->used.backend, "onednn") != 0;
}

bool fx_bench_wrong(const fx_bench_row *r)
{
    return equal_bytes_promised(r) && (r->bad_latents > 0 || r->bad_pictures > 0);
}

/* ---- the table ---- */

void fx_bench_print_header(const fx_bench *b)
{
    const fx_host m = fx_host_read();
    const fx_options *o = b->used;
    const fx_model_facts *f = &b->rows[0].facts;
    char name[256];
    fx_model_name(o->model, name, sizeof name);
    printf("# fluxpar bench %s; %s; %s\n", FX_VERSION, fx_comm_describe(), b->rows[0].backend);
    printf("# machine %s, %d cores, %.1f GiB, %s; load %.2f before; %d rank%s on %d node%s\n", m.processor,
           m.cores, (double)m.memory_bytes / 0x1p30, m.system, m.load, b->s->ranks,
           b->s->ranks == 1 ? "" : "s", b->s->nodes, b->s->nodes == 1 ? "" : "s");
    printf("# model %s (%s), %d double + %d single blocks, %d heads; %dx%d, %d steps, %d text tokens, seed "
           "%llu\n",
           name, f->kind, f->double_blocks, f->single_blocks, f->heads, b->request.width, b->request.height,
           b->request.steps, b->request.t5_len, (unsigned long long)o->seed);
    printf("# runs %lld per mesh by turns, %lld warm-up%s each round; %s; medians\n", (long long)o->runs,
           (long long)o->warmups, o->warmups == 1 ? "" : "s",
           o->no_vae ? "text and steps" : "text, steps and VAE");
    printf("#\n# %-30s %5s %7s %6s %5s %7s %9s %9s %9s %8s %8s %8s %8s %8s %8s %7s %6s %9s %5s %8s\n", "mesh",
           "ranks", "threads", "layout", "exact", "backend", "step", "p95", "compute", "comm", "exposed",
           "image", "text", "denoise", "vae", "speedup", "eff", "memory", "diff", "#bad");
    printf("# %-30s %5s %7s %6s %5s %7s %9s %9s %9s %8s %8s %8s %8s %8s %8s %7s %6s %9s %5s %8s\n", "", "",
           "", "", "", "", "(ms)", "(ms)", "(ms)", "(ms)", "(ms)", "(s)", "(s)", "(s)", "(s)", "(x)", "(%)",
           "(MiB)", "(255)", "(bytes)");
}

static const char *number(char text[32], double v, int decimals)
{
    if (isfinite(v))
        snprintf(text, 32, "%.*f", decimals, v);
    else
        snprintf(text, 32, "-");
    return text;
}

static const char *count(char text[32], int64_t n)
{
    snprintf(text, 32, n < 0 ? "-" : "%lld", (long long)n);
    return text;
}

void fx_bench_print_rows(const fx_bench *b)
{
    int64_t wrong = 0;
    for (int i = 0; i < b->n; i++) {
        const fx_bench_row *r = &b->rows[i];
        const figures f = figures_of(b, r);
        char t[16][32];
        printf("  %-30s %5d %7d %6s %5s %7s %9s %9s %9s %8s %8s %8s %8s %8s %8s %7s %6s %9s %5s %8s\n",
               r->of->name, r->of->ranks, r->facts.threads, fx_layout_name(r->layout),
               r->facts.exact ? "yes" : "no", r->of->used.backend, number(t[0], f.step * 1e3, 2),
               number(t[1], f.p95 * 1e3, 2), number(t[2], f.compute * 1e3, 2), number(t[3], f.comm * 1e3, 3),
               number(t[4], f.exposed * 1e3, 3), number(t[5], f.image, 3), number(t[6], f.text, 3),
               number(t[7], f.denoise, 3), number(t[8], f.vae, 3), number(t[9], f.speedup, 2),
               number(t[10], f.efficiency * 100, 1), number(t[11], f.memory / 0x1p20, 1),
               count(t[12], r->diff), count(t[13], f.bad));
        wrong += fx_bench_wrong(r);
    }
    printf("# rows with wrong bytes: %lld%s\n", (long long)wrong, wrong ? "" : " OK");
}

/* ---- the same as JSON ---- */

static json_t *real(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *samples(const double *v, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(list, real(v[i]));
    return list;
}

static json_t *samples_of(const fx_bench_row *r)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "step_s", samples(r->step, r->runs * r->steps),
                     "image_s", samples(r->image, r->runs), "text_s", samples(r->text, r->runs), "denoise_s",
                     samples(r->denoise, r->runs), "vae_s", samples(r->vae, r->runs), "exposed_s",
                     samples(r->exposed, r->runs), "comm_s", samples(r->comm, FX_BENCH_REPLAYS));
}

static json_t *row_json(const fx_bench *b, const fx_bench_row *r)
{
    const figures f = figures_of(b, r);
    json_t *row = json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:s, s:b, s:s, s:s, s:s, s:b}", "mesh", r->of->name, "ranks", r->of->ranks,
        "ulysses", r->facts.mesh.ulysses, "ring", r->facts.mesh.ring, "threads", r->facts.threads, "layout",
        fx_layout_name(r->layout), "exact", r->facts.exact, "backend", r->of->used.backend, "dtype",
        r->of->used.dtype, "exchange", r->exchange, "graphs", !r->of->used.no_graphs);
    json_t *more =
        json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:f}", "step_ms",
                  real(f.step * 1e3), "p95_ms", real(f.p95 * 1e3), "compute_ms", real(f.compute * 1e3),
                  "comm_ms", real(f.comm * 1e3), "exposed_ms", real(f.exposed * 1e3), "image_s",
                  real(f.image), "text_s", real(f.text), "denoise_s", real(f.denoise), "vae_s", real(f.vae),
                  "speedup", real(f.speedup), "efficiency", real(f.efficiency), "load_s", r->load);
    json_t *rest =
        json_pack("{s:I, s:I, s:I, s:I, s:i, s:i, s:o, s:b, s:o}", "weight_bytes", (json_int_t)r->weights,
                  "arena_bytes", (json_int_t)r->arena, "process_peak_bytes", (json_int_t)r->process,
                  "sent_bytes", (json_int_t)r->sent, "diff", r->diff, "kept_texts", r->kept_texts,
                  "bad_bytes", f.bad < 0 ? json_null() : json_integer((json_int_t)f.bad), "wrong",
                  fx_bench_wrong(r), "samples", samples_of(r));
    if (row && more && rest && !json_object_update(row, more) && !json_object_update(row, rest)) {
        json_decref(more);
        json_decref(rest);
        return row;
    }
    json_decref(row), json_decref(more), json_decref(rest);
    return NULL;
}

json_t *fx_bench_json(const fx_bench *b)
{
    const fx_host m = fx_host_read();
    const fx_model_facts *f = &b->rows[0].facts;
    const time_t now = time(NULL);
    struct tm utc;
    char date[32] = "", name[256];
    json_t *rows = json_array();
    if (gmtime_r(&now, &utc)) strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    fx_model_name(b->used->model, name, sizeof name);
    for (int i = 0; i < b->n; i++) json_array_append_new(rows, row_json(b, &b->rows[i]));
    return json_pack(
        "{s:s, s:s, s:s, s:{s:s, s:s, s:i, s:I, s:f}, s:{s:s, s:s}, s:{s:s, s:s, s:i, s:i, s:i, s:i, s:i, "
        "s:i, "
        "s:I, s:I, s:b, s:i, s:i}, s:o}",
        "bench", "meshes", "version", FX_VERSION, "date", date, "machine", "processor", m.processor, "system",
        m.system, "cores", m.cores, "memory_bytes", (json_int_t)m.memory_bytes, "load", m.load, "libraries",
        "mpi", fx_comm_describe(), "backend", b->rows[0].backend, "parameters", "model", name, "kind",
        f->kind, "double_blocks", f->double_blocks, "single_blocks", f->single_blocks, "width",
        b->request.width, "height", b->request.height, "steps", b->request.steps, "t5_len", b->request.t5_len,
        "runs", (json_int_t)b->used->runs, "warmups", (json_int_t)b->used->warmups, "vae", !b->used->no_vae,
        "ranks", b->s->ranks, "nodes", b->s->nodes, "rows", rows);
}
