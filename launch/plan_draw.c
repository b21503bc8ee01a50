/* The predicted schedule of the best plan, drawn: all of a step for Chrome's trace viewer (or ui.perfetto.dev), one double and
 * one single block as SVG. Called by cmd_plan.c. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launch/plan_table.h"
#include "runtime/io/output.h"

static const char *const time_name[FX_TIMES] = {"gemm", "attention", "rows", "exposed", "launch"};
static const char *const time_colour[FX_TIMES] = {"#4878a8", "#e08a3c", "#6aa56a", "#d05050", "#b0b0b0"};

typedef struct span_list {
    int n, room;
    fx_span *span;
    bool full;
} span_list;

static void keep(void *ctx, const fx_span *s)
{
    span_list *l = ctx;
    if (l->n == l->room) {
        const int room = l->room ? 2 * l->room : 4096;
        fx_span *grown = realloc(l->span, (size_t)room * sizeof *grown);
        if (!grown) {
            l->full = true;
            return;
        }
        l->span = grown;
        l->room = room;
    }
    l->span[l->n++] = *s;
}

static fx_status simulate_again(const fx_graph *g, const fx_plan_query *q, const fx_plan_row *r, fx_work *w,
                                span_list *l)
{
    const fx_span_sink sink = {keep, l};
    fx_prediction p;
    FX_TRY(fx_plan_show(g, q, r, w, &sink, &p));
    FX_CHECK(!l->full, FX_ENOMEM, "no memory for the events of a step");
    return FX_OK;
}

/* ---- files ---- */

typedef void (*writer)(FILE *, const fx_plan_row *, const fx_work *, const span_list *);

static fx_status write_file(const char *path, const fx_plan_row *r, const fx_work *w, const span_list *l,
                            writer draw)
{
    int fd;
    FX_TRY(fx_output_begin(path, &fd));
    const int copy = dup(fd);
    FILE *f = copy < 0 ? NULL : fdopen(copy, "w");
    if (f) draw(f, r, w, l);
    const bool failed = !f || ferror(f);
    if (!f && copy >= 0) close(copy);
    if ((f && fclose(f) != 0) || failed) {
        const fx_status st =
            FX_FAIL(FX_EWRITE, "%s cannot be written; %s; check the disk", path, strerror(errno));
        fx_output_abort(fd);
        return st;
    }
    return fx_output_commit(path, fd, true);
}

static fx_status draw_to(const fx_graph *g, const fx_plan_query *q, const fx_plan_row *r, const char *path,
                         writer draw)
{
    fx_work w = {0};
    span_list l = {0};
    fx_status st = fx_output_check(path, true);
    if (!st) st = simulate_again(g, q, r, &w, &l);
    if (!st) st = write_file(path, r, &w, &l, draw);
    free(l.span);
    fx_work_close(&w);
    return st;
}

/* ---- Chrome ---- */

/* Ranks of a class have the same events; each gets its copy, up to 16 ranks. */
static void draw_trace(FILE *f, const fx_plan_row *r, const fx_work *w, const span_list *l)
{
    enum { RANKS = 16 };
    const char *comma = "\n";
    (void)r;
    fprintf(f, "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [");
    for (int rank = 0; rank < w->ranks && rank < RANKS; rank++)
        for (int lane = 0; lane < 2; lane++, comma = ",\n")
            fprintf(f,
                    "%s{\"ph\": \"M\", \"name\": \"thread_name\", \"pid\": %d, \"tid\": %d, \"args\": "
                    "{\"name\": \"%s\"}}",
                    comma, rank, lane, lane ? "wire" : "compute");
    for (int i = 0; i < l->n; i++)
        for (int rank = 0; rank < w->ranks && rank < RANKS; rank++) {
            const fx_span *s = &l->span[i];
            if (w->class_of[rank] != s->who) continue;
            fprintf(f,
                    ",\n{\"ph\": \"X\", \"name\": \"%s\", \"cat\": \"%s\", \"pid\": %d, \"tid\": %d, \"ts\": "
                    "%.3f, \"dur\": %.3f, "
                    "\"args\": {\"box\": \"%s\"}}",
                    s->name, time_name[s->kind], rank, s->wire ? 1 : 0, s->begin_us, s->end_us - s->begin_us,
                    s->box < 0 ? "" : w->box[s->box]);
        }
    fprintf(f, "\n]}\n");
}

fx_status fx_plan_write_trace(const fx_graph *g, const fx_plan_query *q, const fx_plan_row *r,
                              const char *path)
{
    return draw_to(g, q, r, path, draw_trace);
}

/* ---- SVG ---- */

enum { LEFT = 150, WIDE = 1100, LANE = 16, CLASSES = 8 };

/* One block of a kind: the second, as the first begins without a debt. */
static int find_box(const fx_work *w, const char *kind)
{
    char name[24];
    for (int number = 1; number >= 0; number--) {
        snprintf(name, sizeof name, "%s_%02d", kind, number);
        for (int i = 0; i < w->boxes; i++)
            if (!strcmp(w->box[i], name)) return i;
    }
    return -1;
}

static bool bounds(const span_list *l, int box, double *begin, double *end)
{
    bool any = false;
    for (int i = 0; i < l->n; i++) {
        const fx_span *s = &l->span[i];
        if (s->box != box) continue;
        if (!any || s->begin_us < *begin) *begin = s->begin_us;
        if (!any || s->end_us > *end) *end = s->end_us;
        any = true;
    }
    return any;
}

static void draw_span(FILE *f, const fx_span *s, double x, double y, double width)
{
    fprintf(f,
            "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%d\" fill=\"%s\" stroke=\"#fff\" "
            "stroke-width=\"0.4\"><title>%s %.1f us</title></rect>\n",
            x, y, width, LANE - 3, time_colour[s->kind], s->name, s->end_us - s->begin_us);
    if (width > 7.0 * (double)strlen(s->name))
        fprintf(f, "<text x=\"%.2f\" y=\"%.1f\" fill=\"#fff\">%s</text>\n", x + 3, y + LANE - 6, s->name);
}

static double draw_block(FILE *f, const fx_work *w, const span_list *l, const char *kind, double top)
{
    double begin = 0, end = 0;
    const int box = find_box(w, kind), shown = w->classes < CLASSES ? w->classes : CLASSES;
    if (box < 0 || !bounds(l, box, &begin, &end)) return top;
    const double scale = WIDE / (end - begin);
    fprintf(f, "<text x=\"8\" y=\"%.1f\" font-weight=\"bold\">%s: %.0f us</text>\n", top + 12, w->box[box],
            end - begin);
    for (int c = 0; c < shown; c++)
        fprintf(f,
                "<text x=\"8\" y=\"%.1f\">rank %d and %d alike</text>\n<text x=\"8\" y=\"%.1f\" "
                "fill=\"#888\">  its links</text>\n",
                top + 18 + 2 * LANE * c + LANE - 5, w->program[c].rank, w->program[c].size - 1,
                top + 18 + 2 * LANE * c + 2 * LANE - 5);
    for (int i = 0; i < l->n; i++) {
        const fx_span *s = &l->span[i];
        if (s->box != box || s->who >= shown) continue;
        draw_span(f, s, LEFT + scale * (s->begin_us - begin),
                  top + 18 + LANE * (2 * s->who + (s->wire ? 1 : 0)), scale * (s->end_us - s->begin_us));
    }
    return top + 18 + 2 * LANE * shown + 14;
}

static void draw_svg(FILE *f, const fx_plan_row *r, const fx_work *w, const span_list *l)
{
    const int shown = w->classes < CLASSES ? w->classes : CLASSES;
    const int height = 2 * (32 + 2 * LANE * shown) + 60;
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" "
            "font-size=\"10\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
            LEFT + WIDE + 20, height);
    fprintf(f,
            "<text x=\"8\" y=\"16\" font-size=\"12\">Predicted: %d ranks, mesh %dx%d, %s, %s, %s: %.2f ms "
            "per step</text>\n",
            w->ranks, r->how.mesh.ulysses, r->how.mesh.ring, fx_layout_name(r->layout), fx_plan_by_text(r),
            fx_rate_name(r->dtype), r->step_ms);
    double top = draw_block(f, w, l, "double", 26);
    top = draw_block(f, w, l, "single", top);
    for (int k = 0; k < FX_TIMES; k++)
        fprintf(f,
                "<rect x=\"%d\" y=\"%.1f\" width=\"10\" height=\"10\" fill=\"%s\"/><text x=\"%d\" "
                "y=\"%.1f\">%s</text>\n",
                LEFT + 90 * k, top, time_colour[k], LEFT + 90 * k + 14, top + 9, time_name[k]);
    fprintf(f, "</svg>\n");
}

fx_status fx_plan_write_svg(const fx_graph *g, const fx_plan_query *q, const fx_plan_row *r, const char *path)
{
    return draw_to(g, q, r, path, draw_svg);
}
