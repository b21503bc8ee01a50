/* The desk of a batch; see batch.h. One line is open at a time and gives its pictures one after the other; pictures that were
 * handed out are remembered until they are done. */
#include "launch/batch/batch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch/batch/batch_rows.h"
#include "launch/batch/jobs.h"
#include "launch/batch/lines.h"
#include "launch/recipe.h"
#include "launch/batch/results.h"
#include "launch/talk.h"
#include "runtime/core/clock.h"
#include "runtime/core/log.h"
#include "runtime/io/output.h"
#include "runtime/io/png.h"

#define PATIENCE_S 0.5 /* of one call, while lines are skipped: other ranks wait for its answer */

struct fx_batch {
    const fx_options *given; /* borrowed; used: with the model's defaults */
    const fx_options *used;
    const fx_pipeline *pipe;
    char results_path[FX_OUTPUTS_MAX];
    fx_lines *lines;
    fx_results *results;
    json_t *seen;    /* real path -> the line it belongs to; 0: a file of the batch itself */
    fx_job job;      /* the open line: values filled in */
    fx_options want; /* of its pictures; the seed is that of the next one */
    int64_t line, image, images;
    bool over;
    fx_task *order; /* handed out last, with room for a prompt */
    size_t order_bytes;
    fx_task *open; /* [open_count] handed out and not done */
    size_t open_count, open_room;
    int64_t handed, made, kept, found, failed;
};

/* ---- opening ---- */

/* jobs.jsonl -> jobs.results.jsonl */
static void name_results(const fx_options *o, char out[FX_OUTPUTS_MAX])
{
    const char *jobs = strcmp(o->batch, "-") ? o->batch : "stdin";
    const size_t n = strlen(jobs);
    const size_t kept = n > 6 && !strcmp(jobs + n - 6, ".jsonl") ? n - 6 : n;
    if (o->results)
        snprintf(out, FX_OUTPUTS_MAX, "%s", o->results);
    else
        snprintf(out, FX_OUTPUTS_MAX, "%.*s.results.jsonl", (int)(kept < 4000 ? kept : 4000), jobs);
}

static void reserve(fx_batch *b, const char *path)
{
    char real[FX_OUTPUTS_MAX];
    if (!path) return;
    fx_outputs_real_name(path, real);
    json_object_set_new_nocheck(b->seen, real, json_integer(0));
}

static fx_status open_jobs(fx_batch *b)
{
    const char *name = b->given->batch;
    const int fd = strcmp(name, "-") ? open(name, O_RDONLY | O_CLOEXEC) : dup(STDIN_FILENO);
    FX_CHECK(fd >= 0, FX_EINVAL, "--batch %s cannot be opened; %s; give a file with a JSON object per line",
             name, strerror(errno));
    return fx_lines_open(fd, FX_JOB_BYTES, &b->lines);
}

static fx_status same_file(const fx_batch *b)
{
    struct stat jobs, results;
    FX_CHECK(stat(b->given->batch, &jobs) || stat(b->results_path, &results) ||
                 jobs.st_ino != results.st_ino || jobs.st_dev != results.st_dev,
             FX_EINVAL, "--results %s is the jobs file itself; it would be destroyed; give another name",
             b->results_path);
    return FX_OK;
}

fx_status fx_batch_open(const fx_options *o, fx_batch **out)
{
    fx_batch *b = *out = calloc(1, sizeof *b);
    if (b) b->given = o, b->seen = json_object();
    fx_status st = b && b->seen ? FX_OK : FX_FAIL(FX_ENOMEM, "no memory for the batch");
    if (!st) name_results(o, b->results_path);
    if (!st) st = open_jobs(b);
    if (!st) st = same_file(b);
    if (!st) st = fx_results_open(b->results_path, o->resume, o->force, &b->results);
    if (st) {
        fx_batch_close(out);
        return st;
    }
    reserve(b, b->results_path);
    reserve(b, o->batch);
    reserve(b, o->report);
    return FX_OK;
}

void fx_batch_begin(fx_batch *b, const fx_options *used, const fx_pipeline *pipe)
{
    b->used = used;
    b->pipe = pipe;
}

void fx_batch_close(fx_batch **batch)
{
    fx_batch *b = *batch;
    if (!b) return;
    fx_job_free(&b->job);
    fx_lines_close(&b->lines);
    fx_results_close(&b->results);
    json_decref(b->seen);
    free(b->order);
    free(b->open);
    free(b);
    *batch = NULL;
}

/* ---- results ---- */

/* A line, or the rest of one, of which nothing can be made. */
static fx_status bad_line(fx_batch *b, fx_status st)
{
    char text[1024];
    json_t *row = json_pack("{s:s, s:I}", "status", "failed", "line", (json_int_t)b->line);
    snprintf(text, sizeof text, "%s", fx_error());
    fx_results_clean(text);
    fx_log(FX_LOG_WARN, "line %lld: %s", (long long)b->line, text);
    fx_row_error(row, st, text);
    b->failed++;
    return fx_results_add(b->results, row);
}

static fx_status bad_picture(fx_batch *b, const fx_task *o, const char *status, fx_status st,
                             const char *error)
{
    char text[1024];
    json_t *row = fx_row_of(status, o);
    snprintf(text, sizeof text, "%s", error);
    fx_results_clean(text);
    if (st != FX_ESIGNAL) fx_log(FX_LOG_WARN, "line %lld, %s: %s", (long long)o->line, o->path, text);
    fx_row_error(row, st, text);
    if (st != FX_ESIGNAL) b->failed++;
    return fx_results_add(b->results, row);
}

/* ---- a line ---- */

static fx_status fill_seed(fx_batch *b)
{
    uint64_t drawn;
    if (b->job.has_seed)
        b->want.seed = b->job.seed;
    else if (!fx_flag_given(b->used, "seed")) {
        FX_TRY(fx_results_drawn(b->results, &drawn));
        b->want.seed = fx_row_seed(drawn, b->line);
    }
    return FX_OK;
}

/* What the line leaves out is the command line's; what that leaves out is the model's. */
static fx_status fill_line(fx_batch *b)
{
    const fx_job *j = &b->job;
    fx_options *w = &b->want;
    w->prompt = j->prompt;
    if (j->width) w->width = j->width;
    if (j->height) w->height = j->height;
    if (j->steps) w->steps = j->steps;
    if (j->guidance >= 0) w->guidance = j->guidance;
    b->image = 0;
    b->images = j->count ? j->count : b->used->count;
    w->count = 1;
    fx_request r = fx_recipe_request(w);
    FX_TRY(fx_pipeline_complete(b->pipe, &r));
    FX_CHECK(w->seed <= UINT64_MAX - (uint64_t)(b->images - 1), FX_EINVAL,
             "%lld images from seed %llu pass the largest seed; seeds are counted up; take a smaller one",
             (long long)b->images, (unsigned long long)w->seed);
    return j->output ? fx_outputs_check_name("\"output\":", j->output) : FX_OK;
}

static fx_status read_line(fx_batch *b, fx_line *line)
{
    if (line->number == 1 && line->size >= 3 && !memcmp(line->text, "\xef\xbb\xbf", 3))
        line->text += 3, line->size -= 3; /* a byte order mark */
    if (line->kind == FX_LINE_TEXT && fx_job_blank(line->text, line->size)) return FX_OK;
    fx_status st = line->kind == FX_LINE_TOO_LONG ? FX_FAIL(FX_EINVAL, "longer than %d bytes", FX_JOB_BYTES)
                                                  : fx_job_parse(line->text, line->size, &b->job);
    b->want = *b->used;
    if (!st) FX_TRY(fill_seed(b));
    if (!st) st = fill_line(b);
    if (!st) return FX_OK;
    b->images = 0;
    return st == FX_ENOMEM ? st : bad_line(b, st);
}

/* Opens the next line that has pictures, or says that there is none (yet). */
static fx_status next_line(fx_batch *b, double wait_s, fx_task_kind *kind)
{
    fx_line line;
    *kind = b->over ? FX_TASK_END : FX_TASK_WAIT;
    if (b->over) return FX_OK;
    fx_job_free(&b->job);
    b->image = b->images = 0;
    FX_TRY(fx_lines_next(b->lines, wait_s, &line));
    if (line.kind == FX_LINE_LATER) return FX_OK;
    b->over = line.kind == FX_LINE_END || line.number > FX_JOB_LINES;
    *kind = b->over ? FX_TASK_END : FX_TASK_PICTURE;
    if (line.kind == FX_LINE_END) return FX_OK;
    b->line = line.number;
    if (b->over)
        return bad_line(b, FX_FAIL(FX_EINVAL,
                                   "more than %d lines; this and what follows is not read; split "
                                   "the file",
                                   FX_JOB_LINES));
    return read_line(b, &line);
}

/* ---- a picture of it ---- */

static fx_status fill_order(fx_batch *b, fx_task *o)
{
    const fx_options *w = &b->want;
    *o = (fx_task){.kind = FX_TASK_PICTURE,
                   .line = b->line,
                   .image = b->image,
                   .width = w->width,
                   .height = w->height,
                   .steps = w->steps,
                   .t5_len = w->t5_len,
                   .guidance = w->guidance,
                   .seed = w->seed,
                   .prompt_bytes = strlen(w->prompt) + 1};
    FX_TRY(fx_metadata_key(w, fx_pipeline_facts(b->pipe), o->key));
    if (b->job.output) return fx_outputs_job_name(b->job.output, b->images, w->seed, o->path);
    return fx_outputs_batch_name(b->used->output ? b->used->output : "fluxpar.png", b->line, b->image,
                                 b->images, w->seed, o->path);
}

static fx_status check_unique(fx_batch *b, const fx_task *o)
{
    char real[FX_OUTPUTS_MAX];
    fx_outputs_real_name(o->path, real);
    const json_t *other = json_object_get(b->seen, real);
    if (other && !json_integer_value(other))
        return FX_FAIL(FX_EINVAL, "%s is a file of the batch itself; it would be lost; give another name",
                       o->path);
    FX_CHECK(!other, FX_EINVAL,
             "%s is the picture of line %lld already; one would replace the other; give another name",
             o->path, (long long)json_integer_value(other));
    FX_CHECK(!json_object_set_new_nocheck(b->seen, real, json_integer(o->line)), FX_ENOMEM,
             "no memory for the names of the batch");
    return FX_OK;
}

/* An earlier run has made it. It may have been killed after the picture had its name and before the result was written. */
static fx_status made_before(fx_batch *b, const fx_task *o, bool *yes)
{
    struct stat info;
    const bool there = !stat(o->path, &info) && S_ISREG(info.st_mode);
    *yes = there && fx_results_has(b->results, o->path, o->key);
    if (*yes) {
        b->kept++;
        return FX_OK;
    }
    const int swept = fx_output_sweep(o->path);
    if (swept)
        fx_log(FX_LOG_DETAIL, "%s: %d unfinished file%s removed", o->path, swept, swept == 1 ? "" : "s");
    if (!there || !fx_metadata_is_of(o->path, o->key)) return FX_OK;
    *yes = true;
    b->found++;
    json_t *row = fx_row_of("ok", o);
    json_object_set_new(row, "found", json_true());
    return fx_results_add(b->results, row);
}

static fx_status check_place(const fx_batch *b, const fx_task *o)
{
    if (b->given->resume && !b->given->force && !access(o->path, F_OK))
        return FX_FAIL(FX_EINVAL,
                       "%s exists and is not this picture; it would be lost; use -f to overwrite it",
                       o->path);
    return fx_png_check_output(o->path, b->given->force);
}

/* *give: it is to be made. Otherwise it is settled. */
static fx_status look_at_picture(fx_batch *b, fx_task *o, bool *give)
{
    bool before = false;
    *give = false;
    fx_status st = fill_order(b, o);
    if (!st) st = check_unique(b, o);
    b->image++;
    b->want.seed++;
    if (st) return st == FX_ENOMEM ? st : bad_picture(b, o, "failed", st, fx_error());
    if (b->given->resume) FX_TRY(made_before(b, o, &before));
    if (before) return FX_OK;
    st = check_place(b, o);
    *give = !st;
    return st ? bad_picture(b, o, "failed", st, fx_error()) : FX_OK;
}

/* ---- handing out ---- */

static fx_status make_room(fx_batch *b, size_t prompt_bytes)
{
    const size_t need = sizeof *b->order + prompt_bytes;
    if (need > b->order_bytes) {
        free(b->order);
        b->order = malloc(need);
        b->order_bytes = b->order ? need : 0;
    }
    if (b->open_count == b->open_room) {
        fx_task *more = realloc(b->open, (b->open_room + 16) * sizeof *more);
        if (more) b->open = more, b->open_room += 16;
    }
    FX_CHECK(b->order && b->open_count < b->open_room, FX_ENOMEM, "no memory for a job");
    return FX_OK;
}

static fx_status hand_out(fx_batch *b, fx_task *o)
{
    FX_TRY(make_room(b, o->prompt_bytes));
    o->number = b->handed++;
    b->open[b->open_count++] = *o;
    *b->order = *o;
    memcpy(b->order + 1, b->want.prompt, o->prompt_bytes);
    return FX_OK;
}

fx_status fx_batch_next(fx_batch *b, double wait_s, const fx_task **out, size_t *bytes)
{
    const double begin_s = fx_now_s();
    fx_task o = {.kind = FX_TASK_WAIT};
    fx_task_kind kind = FX_TASK_PICTURE;
    bool give = false;
    while (!give && kind == FX_TASK_PICTURE && fx_now_s() - begin_s < PATIENCE_S) {
        if (b->image < b->images)
            FX_TRY(look_at_picture(b, &o, &give));
        else
            FX_TRY(next_line(b, wait_s, &kind));
    }
    if (give)
        FX_TRY(hand_out(b, &o));
    else {
        FX_TRY(make_room(b, 0));
        *b->order = (fx_task){.kind = kind == FX_TASK_END ? FX_TASK_END : FX_TASK_WAIT};
    }
    *out = b->order;
    *bytes = sizeof *b->order + b->order->prompt_bytes;
    return FX_OK;
}

int64_t fx_batch_waiting(const fx_batch *b)
{
    return b->images - b->image + (b->over ? 0 : fx_lines_left(b->lines));
}

/* ---- done ---- */

fx_status fx_batch_done(fx_batch *b, int64_t number, fx_status st, const char *text, const fx_made *made)
{
    size_t i = 0;
    while (i < b->open_count && b->open[i].number != number) i++;
    FX_CHECK(i < b->open_count, FX_ESHAPE, "picture %lld was not handed out", (long long)number);
    const fx_task o = b->open[i];
    b->open[i] = b->open[--b->open_count];
    if (st != FX_OK || !made) return bad_picture(b, &o, st == FX_ESIGNAL ? "stopped" : "failed", st, text);
    b->made++;
    return fx_results_add(b->results, fx_row_made(&o, made));
}

fx_status fx_batch_summary(const fx_batch *b)
{
    const int64_t before = b->kept + b->found;
    fx_talk("batch    %lld made, %lld of an earlier run, %lld failed; results in %s", (long long)b->made,
            (long long)before, (long long)b->failed, b->results_path);
    FX_CHECK(!b->failed, FX_EWRITE,
             "%lld of %lld pictures or lines of the batch failed; each with its reason in %s; correct them "
             "and go on "
             "with --resume",
             (long long)b->failed, (long long)(b->failed + b->made + before), b->results_path);
    return FX_OK;
}
