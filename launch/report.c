/* The report of a run; see report.h. Sizes are bytes, times seconds. */
#include "launch/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/json_file.h"
#include "launch/metadata.h"
#include "launch/talk.h"
#include "runtime/core/log.h"

#define MIB (1024.0 * 1024.0)

int64_t fx_unplanned_bytes(const fx_rank_report *r)
{
    return (int64_t)r->peak_bytes - (int64_t)r->file_bytes - (int64_t)r->weight_bytes -
           (int64_t)r->arena_bytes - (int64_t)r->text_bytes;
}

static json_t *hex(uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)value);
    return json_string(text);
}

/* All flags with the values in use, by name. */
static json_t *flags_json(const fx_options *o)
{
    json_t *root = json_object();
    for (int i = 0; i < fx_flag_count; i++) {
        const fx_flag *f = &fx_flags[i];
        char number[64];
        if (!(f->commands & FX_CMD_GENERATE) || f->kind == FX_FLAG_SWITCH) continue;
        if (f->kind == FX_FLAG_TEXT && !*fx_flag_text(o, f, number, sizeof number)) continue;
        json_object_set_new(root, f->name, fx_flag_json(o, f));
    }
    return root;
}

fx_status fx_report_open(const fx_options *used, const fx_model_facts *f, const fx_groups *groups, int nodes,
                         double load_s, fx_report *out)
{
    json_t *model = json_pack("{s:s, s:s, s:o, s:f, s:I, s:i, s:i, s:i, s:b}", "path", used->model, "kind",
                              f->kind, "hash", hex(f->hash), "parameters", f->parameters, "weight_bytes",
                              (json_int_t)f->weight_bytes, "heads", f->heads, "double_blocks",
                              f->double_blocks, "single_blocks", f->single_blocks, "guidance", f->guidance);
    json_t *versions = json_pack("{s:s, s:s, s:s, s:s}", "fluxpar", FX_VERSION, "backend", f->backend, "mpi",
                                 fx_comm_describe(), "jansson", jansson_version_str());
    out->images = json_array();
    out->root = json_pack(
        "{s:o?, s:o, s:i, s:i, s:{s:i, s:I}, s:{s:i, s:i}, s:s, s:b, s:i, s:s, s:s, s:{s:f}, s:o, s:o?}",
        "model", model, "flags", flags_json(used), "ranks", groups->ranks, "nodes", nodes, "groups", "most",
        groups->groups, "merge", (json_int_t)groups->merge, "mesh", "ulysses", f->mesh.ulysses, "ring",
        f->mesh.ring, "layout", fx_layout_name(f->layout), "exact", f->exact, "threads", f->threads,
        "backend", used->backend, "dtype", used->dtype, "timings", "load", load_s, "images", out->images,
        "versions", versions);
    FX_CHECK(out->root && model && versions, FX_ENOMEM,
             "no memory for the report, or a text in it is not UTF-8");
    return FX_OK;
}

static json_t *timings_json(const fx_picture *p)
{
    const fx_timings *t = &p->result->time;
    json_t *steps = json_array();
    for (int64_t i = 0; t->step && i < p->used->steps; i++)
        json_array_append_new(steps, json_real(t->step[i]));
    return json_pack("{s:f, s:o, s:f, s:f, s:f, s:f, s:f}", "text", t->text, "step", steps, "denoise",
                     t->denoise, "vae", t->vae, "png", p->png_s, "generate", t->total, "total", p->total_s);
}

static json_t *memory_json(const fx_result *result)
{
    const fx_rank_report *rank = result->rank;
    json_t *list = json_array();
    bool within = true;
    for (int r = 0; r < result->ranks; r++) {
        const int64_t unplanned = fx_unplanned_bytes(&rank[r]);
        within &= unplanned <= FX_UNPLANNED_LIMIT;
        json_array_append_new(
            list, json_pack("{s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "rank", result->first + r,
                            "peak_bytes", (json_int_t)rank[r].peak_bytes, "file_backed_bytes",
                            (json_int_t)rank[r].file_bytes, "weight_bytes", (json_int_t)rank[r].weight_bytes,
                            "arena_bytes", (json_int_t)rank[r].arena_bytes, "arena_peak_bytes",
                            (json_int_t)rank[r].arena_peak_bytes, "text_bytes",
                            (json_int_t)rank[r].text_bytes, "unplanned_bytes", (json_int_t)unplanned,
                            "within_limit", unplanned <= FX_UNPLANNED_LIMIT));
    }
    return json_pack("{s:I, s:b, s:o}", "unplanned_limit_bytes", (json_int_t)FX_UNPLANNED_LIMIT,
                     "within_limit", within, "ranks", list);
}

static json_t *communication_json(const fx_result *result)
{
    const fx_rank_report *rank = result->rank;
    json_t *list = json_array();
    json_int_t bytes = 0;
    double exposed = 0;
    for (int r = 0; r < result->ranks; r++) {
        bytes += (json_int_t)rank[r].comm_bytes;
        if (rank[r].comm_wait_s > exposed) exposed = rank[r].comm_wait_s;
        json_array_append_new(list,
                              json_pack("{s:i, s:I, s:f, s:f}", "rank", result->first + r, "bytes_sent",
                                        (json_int_t)rank[r].comm_bytes, "exposed_s", rank[r].comm_wait_s,
                                        "denoise_exposed_s", rank[r].denoise_wait_s));
    }
    return json_pack("{s:I, s:f, s:o}", "bytes_exchanged", bytes, "exposed_s", exposed, "ranks", list);
}

fx_status fx_report_add(fx_report *r, const fx_picture *p)
{
    json_t *seed = fx_flag_json(p->used, &fx_flags[fx_flag_find("seed")]);
    json_t *timings = timings_json(p), *memory = memory_json(p->result);
    json_t *communication = communication_json(p->result);
    FX_CHECK(timings && memory && communication, FX_ENOMEM, "no memory for the report");
    json_object_update(json_object_get(r->root, "timings"), timings);
    json_object_set(r->root, "memory", memory);
    json_object_set(r->root, "communication", communication);
    json_t *image =
        json_pack("{s:s, s:o, s:i, s:i, s:i, s:i, s:b, s:o, s:o, s:o}", "path", p->path, "seed", seed,
                  "first_rank", p->result->first, "ranks", p->result->ranks, "width", p->result->width,
                  "height", p->result->height, "text_kept", p->result->text_kept, "timings", timings,
                  "memory", memory, "communication", communication);
    FX_CHECK(image && !json_array_append_new(r->images, image), FX_ENOMEM,
             "no memory for the report, or a path that is not UTF-8");
    return FX_OK;
}

fx_status fx_report_check(const char *path, bool force)
{
    return fx_json_check(path, force, "report");
}

fx_status fx_report_write(const fx_report *r, const char *path)
{
    return fx_json_write(r->root, path, "report");
}

void fx_report_close(fx_report *r)
{
    json_decref(r->root);
    *r = (fx_report){0};
}

void fx_report_check_memory(const fx_picture *p)
{
    for (int r = 0; r < p->result->ranks; r++) {
        const int64_t unplanned = fx_unplanned_bytes(&p->result->rank[r]);
        if (unplanned > FX_UNPLANNED_LIMIT)
            fx_log(FX_LOG_WARN,
                   "rank %d used %.0f MiB of memory beyond its plan; %d MiB are expected; see --report",
                   p->result->first + r, (double)unplanned / MIB, FX_UNPLANNED_LIMIT >> 20);
    }
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, int64_t n)
{
    double *sorted = n > 0 && values ? malloc((size_t)n * sizeof *sorted) : NULL, middle = 0;
    if (!sorted) return 0;
    memcpy(sorted, values, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    middle = n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
    free(sorted);
    return middle;
}

void fx_report_print(const fx_picture *p, double load_s, int ranks)
{
    const fx_timings *t = &p->result->time;
    double peak = 0, exposed = 0, bytes = 0;
    for (int r = 0; r < p->result->ranks; r++) {
        const fx_rank_report *rank = &p->result->rank[r];
        if ((double)rank->peak_bytes > peak) peak = (double)rank->peak_bytes;
        if (rank->comm_wait_s > exposed) exposed = rank->comm_wait_s;
        bytes += (double)rank->comm_bytes;
    }
    if (p->result->ranks < ranks)
        fx_talk("%s: seed %llu, ranks %d to %d", p->path, (unsigned long long)p->used->seed, p->result->first,
                p->result->first + p->result->ranks - 1);
    fx_talk("  load      %9.3f s", load_s);
    fx_talk("  text      %9.3f s", t->text);
    fx_talk("  denoise   %9.3f s   %lld steps, median %.4f s", t->denoise, (long long)p->used->steps,
            median(t->step, p->used->steps));
    fx_talk("  vae       %9.3f s", t->vae);
    fx_talk("  png       %9.3f s", p->png_s);
    fx_talk("  total     %9.3f s   from process start", p->total_s);
    if (p->result->ranks > 1) fx_talk("  exchanged %9.2f MiB, exposed %.3f s", bytes / MIB, exposed);
    fx_talk("  memory    %9.1f MiB at most per rank", peak / MIB);
}
