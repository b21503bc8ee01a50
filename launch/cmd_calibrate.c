/* `fluxpar bench --calibrate FILE`: the machine file of this machine, measured by all ranks at once
 * (runtime/predict/calibrate.c), for `fluxpar plan --gpu FILE`. Called by cmd_bench.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch/commands.h"
#include "launch/recipe.h"
#include "launch/talk.h"
#include "parallel/cores.h"
#include "runtime/core/clock.h"
#include "runtime/io/output.h"
#include "runtime/io/png.h"
#include "runtime/predict/calibrate.h"

/* "this" is where plan --gpu this looks; its folder is made. */
static fx_status target(const fx_options *o, char *path, size_t size)
{
    if (strcmp(o->calibrate, "this")) {
        snprintf(path, size, "%s", o->calibrate);
        return fx_output_check(path, o->force);
    }
    FX_CHECK(fx_machine_this(path, size), FX_EINVAL,
             "--calibrate this: no folder for results that are kept; set FLUXPAR_CACHE");
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        (void)mkdir(path, 0700); /* what fails here is named by the next line */
        *slash = '/';
    }
    return fx_output_check(path, true);
}

/* Seconds per pixel of a PNG whose pixels vary as a photograph's do. */
static fx_status time_png(const char *path, int threads, double *out)
{
    enum { SIDE = 512 };
    char name[1100];
    uint32_t state = 1;
    uint8_t *rgb = malloc((size_t)3 * SIDE * SIDE);
    FX_CHECK(rgb, FX_ENOMEM, "no memory for a picture");
    for (int i = 0; i < 3 * SIDE * SIDE; i++) {
        state = state * 1664525u + 1013904223u;
        rgb[i] = (uint8_t)(i / (3 * SIDE) / 4 + (int)(state >> 29));
    }
    snprintf(name, sizeof name, "%s.png", path);
    const double begin = fx_now_s();
    const fx_status st = fx_png_write(name, rgb, SIDE, SIDE, 0, NULL, false, threads);
    *out = (fx_now_s() - begin) / (SIDE * SIDE);
    if (!st) unlink(name);
    free(rgb);
    return st;
}

static fx_status open_backend(fx_run *s, const fx_options *o, fx_backend **be)
{
    int threads;
    fx_options used = *o;
    FX_TRY(fx_recipe_backend(s->comm, s->ranks, s->nodes, &used));
    FX_TRY(fx_cores_threads(s->comm, (int)o->threads, &threads));
    const fx_pipeline_options p = fx_recipe_pipeline(&used);
    return fx_run_vote(s, fx_backend_open(used.backend, p.dtype, threads, be));
}

fx_status fx_cmd_calibrate(fx_run *s, const fx_options *o)
{
    char path[1024] = "";
    fx_backend *be = NULL;
    static fx_machine m;
    double png = 0;
    fx_comm_set_phase(s->comm, "calibrate");
    FX_TRY(fx_run_vote(s, s->rank == 0 ? target(o, path, sizeof path) : FX_OK));
    FX_TRY(open_backend(s, o, &be));
    fx_status st = fx_run_vote(s, s->rank == 0 ? time_png(path, be->threads, &png) : FX_OK);
    if (!st) st = fx_comm_broadcast(s->comm, 0, &png, sizeof png);
    if (!st) st = fx_calibrate(s->comm, be, png, &m);
    fx_backend_close(&be);
    FX_TRY(st);
    if (s->rank == 0) {
        st = fx_machine_write(&m, path, o->force || !strcmp(o->calibrate, "this"));
        if (!st) printf("%s\n", path);
        if (!st) st = fx_results_written();
    }
    return fx_run_vote(s, st);
}
