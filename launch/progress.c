/* Progress lines; see progress.h. Called from the step loop: it formats a line only when one is due. */
#include "launch/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "launch/talk.h"

#define REDRAW_S 0.1 /* of the bar */
#define PLAIN_S  2.0 /* between plain lines */
#define GIB      (1024.0 * 1024.0 * 1024.0)

const char *fx_phase_name(fx_phase phase)
{
    static const char *const names[FX_PHASES] = {"load", "text", "denoise", "vae"};
    return (unsigned)phase < FX_PHASES ? names[phase] : "?";
}

void fx_progress_open(fx_progress_state *p)
{
    *p = (fx_progress_state){.phase = -1};
    p->bar = isatty(STDERR_FILENO) == 1 && !fx_talk_quiet();
}

static void put_stderr(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0) return;
}

void fx_progress_clear(fx_progress_state *p)
{
    if (p->drawn) put_stderr("\r\033[K");
    p->drawn = false;
}

/* "12/28  0.31 s/step  ETA 4.9 s" or "1.2 of 23.8 GiB  2.1 GiB/s  ETA 11 s" */
static void amount(char *buf, size_t size, fx_phase phase, size_t done, size_t total, double seconds)
{
    const double share = total ? (double)done / (double)total : 0;
    const double eta = share > 0 ? seconds / share - seconds : 0;
    if (phase == FX_PHASE_LOAD)
        snprintf(buf, size, "%.2f of %.2f GiB  %.2f GiB/s  ETA %.1f s", (double)done / GIB,
                 (double)total / GIB, seconds > 0 ? (double)done / GIB / seconds : 0, eta);
    else if (phase == FX_PHASE_DENOISE)
        snprintf(buf, size, "step %zu/%zu  %.3g s/step  ETA %.1f s", done, total,
                 done ? seconds / (double)done : 0, eta);
    else
        snprintf(buf, size, "%zu/%zu  %.1f s", done, total, seconds);
}

static void draw_bar(fx_progress_state *p, fx_phase phase, size_t done, size_t total, double seconds)
{
    enum { WIDTH = 30 };
    char text[96], cells[WIDTH + 1], line[192];
    const int full = total ? (int)((double)done / (double)total * WIDTH) : 0;
    amount(text, sizeof text, phase, done, total, seconds);
    memset(cells, ' ', WIDTH);
    memset(cells, '=', (size_t)full);
    if (full > 0 && full < WIDTH) cells[full] = '>';
    cells[WIDTH] = 0;
    snprintf(line, sizeof line, "\r%-8s[%s] %s\033[K", fx_phase_name(phase), cells, text);
    put_stderr(line);
    p->drawn = true;
}

/* A plain line when a tenth of the work and two seconds have passed since the last. */
static bool plain_due(const fx_progress_state *p, size_t done, size_t total, double seconds)
{
    return done < total && (done - p->step) * 10 >= total && seconds - p->printed >= PLAIN_S;
}

void fx_progress_show(void *ctx, fx_phase phase, size_t done, size_t total, double seconds)
{
    fx_progress_state *p = ctx;
    char text[96];
    if ((int)phase != p->phase) {
        p->phase = (int)phase;
        p->printed = 0;
        p->step = 0;
        p->ended = false;
    }
    if (fx_talk_quiet() || done > total || p->ended) return;
    if (done == total) {
        fx_progress_clear(p);
        p->ended = true;
        if (p->brief && phase != FX_PHASE_LOAD) return;
        if (phase == FX_PHASE_DENOISE)
            fx_talk("%-8s %zu steps in %.2f s", fx_phase_name(phase), total, seconds);
        else
            fx_talk("%-8s %.2f s", fx_phase_name(phase), seconds);
    } else if (p->bar && (seconds - p->printed >= REDRAW_S || !p->drawn))
        draw_bar(p, phase, done, total, seconds);
    else if (!p->bar && plain_due(p, done, total, seconds)) {
        amount(text, sizeof text, phase, done, total, seconds);
        fx_talk("%-8s %s", fx_phase_name(phase), text);
    } else
        return;
    p->printed = seconds;
    p->step = done;
}
