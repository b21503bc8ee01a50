/* Flags into pipeline options and a request; see recipe.h. */
#include "launch/recipe.h"

#include <stdlib.h>
#include <string.h>

#include "launch/choose.h"
#include "launch/model_look.h"
#include "runtime/core/log.h"
#include "runtime/request.h"

/* "1024x768" at the start of text. */
static bool read_size(const char **text, fx_request *out)
{
    char *end;
    const long width = strtol(*text, &end, 10);
    if (end == *text || *end != 'x') return false;
    const char *second = end + 1;
    const long height = strtol(second, &end, 10);
    if (end == second || width < 1 || height < 1 || width > 65536 || height > 65536) return false;
    out->width = (int)width;
    out->height = (int)height;
    *text = end;
    return true;
}

fx_status fx_recipe_warm_up(const fx_options *o, const fx_request *like, fx_request out[], int *n)
{
    const char *at = o->warmup;
    *n = 0;
    while (at && *at) {
        FX_CHECK(*n < FX_WARM_MOST, FX_EINVAL, "--warmup %s: more than %d sizes", o->warmup, FX_WARM_MOST);
        out[*n] = *like;
        FX_CHECK(read_size(&at, &out[*n]) && (!*at || (*at == ',' && at[1])), FX_EINVAL,
                 "--warmup %s is not a list of sizes; write WIDTHxHEIGHT,WIDTHxHEIGHT,...", o->warmup);
        if (*at) at++;
        ++*n;
    }
    return FX_OK;
}

fx_status fx_recipe_groups(const fx_options *o, int ranks, fx_groups *out)
{
    const bool one = o->command != FX_CMD_GENERATE || (!o->groups && (o->ulysses || o->ring));
    return fx_groups_make(ranks, one ? 1 : (int)o->groups, o->merge, out);
}

fx_status fx_recipe_check(const fx_options *o, int ranks)
{
    static fx_look look;
    fx_groups groups;
    fx_mesh mesh;
    FX_TRY(fx_recipe_groups(o, ranks, &groups));
    FX_TRY(fx_look_at(o->model, &look));
    fx_request sizes[FX_WARM_MOST], any = {0};
    int n;
    FX_TRY(fx_recipe_warm_up(o, &any, sizes, &n));
    FX_CHECK(!look.problems, FX_EFORMAT, "model %s: %s", o->model, look.problem[0]);
    if (!look.configs) return FX_OK;
    if (o->width) FX_TRY(fx_request_check_side("width", (int)o->width, (int)look.multiple));
    if (o->height) FX_TRY(fx_request_check_side("height", (int)o->height, (int)look.multiple));
    for (int i = 0; i < n; i++) {
        FX_TRY(fx_request_check_side("warmup width", sizes[i].width, (int)look.multiple));
        FX_TRY(fx_request_check_side("warmup height", sizes[i].height, (int)look.multiple));
    }
    return fx_groups_mesh(&groups, groups.groups, (int)look.heads, (int)o->ulysses, (int)o->ring, &mesh);
}

fx_status fx_recipe_backend(fx_comm *comm, int ranks, int nodes, fx_options *o)
{
    if (strcmp(o->backend, "auto")) return FX_OK;
    int64_t devices = strcmp(o->dtype, "bf16") ? -1 : fx_device_count();
    /* A build for GPUs alone: ref's f64 loops stand in for nothing. */
    const bool only = devices >= 0 && !strcmp(fx_backend_auto(), "ref");
    if (devices == 0 && !only && fx_comm_rank(comm) == 0)
        fx_log(FX_LOG_NOTE, "no GPU is used: %s", fx_error());
    FX_TRY(fx_comm_all_reduce_i64(comm, FX_MIN, &devices, 1));
    const int each = (ranks + nodes - 1) / nodes;
    const bool enough = devices > 0 && devices >= each;
    if (devices > 0 && !enough && !only && fx_comm_rank(comm) == 0)
        fx_log(FX_LOG_NOTE,
               "no GPU is used: a node has %d ranks and %lld usable device%s; start one rank per device",
               each, (long long)devices, devices == 1 ? "" : "s");
    o->backend = enough || only ? "cuda" : fx_backend_auto();
    return FX_OK;
}

fx_pipeline_options fx_recipe_pipeline(const fx_options *o)
{
    fx_pipeline_options p = fx_pipeline_default_options(o->model);
    p.backend = o->backend;
    p.dtype = strcmp(o->dtype, "f32") ? FX_BF16 : FX_F32;
    p.threads = (int)o->threads;
    p.ulysses = (int)o->ulysses;
    p.ring = (int)o->ring;
    p.layout = !strcmp(o->layout, "even")     ? FX_LAYOUT_EVEN
               : !strcmp(o->layout, "stream") ? FX_LAYOUT_STREAM
                                              : FX_LAYOUT_AUTO;
    p.exact = !strcmp(o->exact, "on") ? FX_EXACT_ON : !strcmp(o->exact, "off") ? FX_EXACT_OFF : FX_EXACT_AUTO;
    p.record = !o->no_graphs;
    p.choose = fx_choose_layout;
    p.choose_ctx = (void *)o;
    p.exchange = !strcmp(o->exchange, "peer")   ? FX_WIRE_PEER
                 : !strcmp(o->exchange, "nccl") ? FX_WIRE_NCCL
                 : !strcmp(o->exchange, "lsa")  ? FX_WIRE_LSA
                                                : FX_WIRE_AUTO;
    return p;
}

fx_request fx_recipe_request(const fx_options *o)
{
    fx_request r = fx_default_request(o->prompt);
    r.width = (int)o->width;
    r.height = (int)o->height;
    r.steps = (int)o->steps;
    r.guidance = o->guidance;
    r.seed = o->seed;
    r.t5_len = (int)o->t5_len;
    r.dump_dir = o->dump;
    return r;
}
