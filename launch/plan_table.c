/* The ranked table of `fluxpar plan`, as comments and as JSON. Called by cmd_plan.c. */
#include "launch/plan_table.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { SHOWN = 20 };

static const char *not_implemented(const fx_plan_row *r)
{
    return r->dtype == FX_RATE_FP8 || r->dtype == FX_RATE_NVFP4 ? " (not implemented)" : "";
}

/* Between domains it is the network, not NVLink, that binds. */
static const char *binds(const fx_plan_query *q, const fx_plan_row *r)
{
    const bool far = r->how.offset + r->how.mesh.ranks > q->machine->domain_ranks;
    if (r->binds == FX_BINDS_LINK && q->machine->cpu) return "exchange";
    return r->binds == FX_BINDS_LINK && far ? "network" : fx_binds_name(r->binds);
}

static void print_row(const fx_plan_query *q, int i, const fx_plan_row *r)
{
    const fx_prediction *p = &r->p;
    char mesh[32];
    snprintf(mesh, sizeof mesh, "%d x %dx%d", r->groups, r->how.mesh.ulysses, r->how.mesh.ring);
    printf("# %4d %-10s %-6s %-5s %-5s %8.2f %7.2f %7.2f %6.2f %7.2f %7.2f %7.2f %8.2f %6.1f %6.1f %6.1f "
           "%8.3f %9.2f %8.2f  %s%s\n",
           i + 1, mesh, fx_layout_name(r->layout), fx_plan_by_text(r), fx_rate_name(r->dtype), r->step_ms,
           p->time_us[FX_TIME_GEMM] * 1e-3, p->time_us[FX_TIME_ATTENTION] * 1e-3,
           p->time_us[FX_TIME_ROWS] * 1e-3, p->time_us[FX_TIME_EXPOSED] * 1e-3,
           p->time_us[FX_TIME_LAUNCH] * 1e-3, p->weights_us * 1e-3, r->limit_ms, p->text_us * 1e-3,
           p->vae_us * 1e-3, r->tail_s * 1e3, r->image_s, r->images_per_s, (double)r->memory_bytes / 0x1p30,
           binds(q, r), not_implemented(r));
}

static void print_wish(const fx_plan_query *q, const fx_plans *all)
{
    if (q->images_per_s > 0) printf("# wish     at least %g images/s\n", q->images_per_s);
    if (q->latency_s > 0) printf("# wish     a picture within %g s\n", q->latency_s);
    if (all->too_large)
        printf("# memory   %d of %d plans do not fit into a device\n", all->too_large, all->tried);
    if (!all->n) printf("# no plan of %d fulfils it\n", all->tried);
}

void fx_plan_print(const fx_options *o, const fx_plan_query *q, const fx_plans *all)
{
    const fx_machine *m = q->machine;
    printf("# machine  %s: %s\n", o->gpu, m->name);
    if (m->source[0]) printf("# rates    %s\n", m->source);
    printf("# limit    %.2f ms per step, %.3f s per picture: peak rates, no latency, the best arrangement "
           "for one picture\n",
           all->limit_ms, all->limit_image_s);
    print_wish(q, all);
    printf("# predicted, best first%s (columns: launch/README.md)\n#\n",
           all->n > SHOWN ? ", 20 of them" : "");
    printf("# %4s %-10s %-6s %-5s %-5s %8s %7s %7s %6s %7s %7s %7s %8s %6s %6s %6s %8s %9s %8s  %s\n", "",
           "groups", "layout", "by", "dtype", "step ms", "GEMM", "attn", "rows", "exposed", "launch",
           "weights", "limit", "text", "VAE", "tail", "image s", "images/s", "GiB/GPU", "binds");
    for (int i = 0; i < all->n && i < SHOWN; i++) print_row(q, i, &all->row[i]);
    printf("#\n");
}

fx_status fx_plan_print_json(const fx_plan_query *q, const fx_plans *all)
{
    json_t *plans = json_array();
    for (int i = 0; plans && i < all->n; i++) {
        const fx_plan_row *r = &all->row[i];
        json_array_append_new(plans,
                              json_pack("{s:i, s:i, s:i, s:s, s:s, s:s, s:f, s:f, s:f, s:I, s:s}", "groups",
                                        r->groups, "ulysses", r->how.mesh.ulysses, "ring", r->how.mesh.ring,
                                        "layout", fx_layout_name(r->layout), "exchange", fx_plan_by_text(r),
                                        "dtype", fx_rate_name(r->dtype), "step_ms", r->step_ms, "image_s",
                                        r->image_s, "images_per_s", r->images_per_s, "memory_bytes",
                                        (json_int_t)r->memory_bytes, "binds", binds(q, r)));
    }
    json_t *root = json_pack("{s:o, s:{s:f, s:f}}", "plans", plans, "limit", "step_ms", all->limit_ms,
                             "image_s", all->limit_image_s);
    FX_CHECK(root, FX_ENOMEM, "no memory for JSON");
    json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(8));
    json_decref(root);
    putchar('\n');
    return FX_OK;
}
