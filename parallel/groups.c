/* The policy of groups; contract in groups.h. */
#include "parallel/groups.h"

#include <stdio.h>

static void name_choices(int ranks, char *buf, size_t size)
{
    size_t used = 0;
    for (int g = 1; g <= ranks && used < size; g++)
        if (ranks % g == 0) used += (size_t)snprintf(buf + used, size - used, "%s%d", used ? ", " : "", g);
}

fx_status fx_groups_make(int ranks, int groups, int64_t merge, fx_groups *out)
{
    char choices[200] = "";
    int width = FX_GROUPS_AUTO_RANKS;
    if (!groups) {
        while (ranks % width) width--;
        groups = ranks / width;
        while (groups > FX_GROUPS_MOST || ranks % groups) groups--; /* a job of thousands of single ranks */
    }
    if (ranks % groups || groups > FX_GROUPS_MOST) {
        name_choices(ranks, choices, sizeof choices);
        return FX_FAIL(FX_EINVAL,
                       "--groups %d does not divide %d rank%s; all groups have as many ranks; possible: %s",
                       groups, ranks, ranks == 1 ? "" : "s", choices);
    }
    *out = (fx_groups){.ranks = ranks, .groups = groups, .merge = merge < 0 ? groups : merge};
    return FX_OK;
}

static int divisor_up_to(int number, int64_t most)
{
    int d = most < number ? (int)most : number;
    while (d > 1 && number % d) d--;
    return d > 1 ? d : 1;
}

fx_groups_stage fx_groups_next(const fx_groups *g, int now, int64_t waiting)
{
    const int64_t first = g->merge < now ? g->merge : now;
    const int groups = waiting < first ? divisor_up_to(now, waiting) : now;
    const int64_t most = g->merge < groups ? g->merge : groups, over = waiting % groups;
    return (fx_groups_stage){groups, over < most ? waiting - over : waiting};
}

int fx_groups_stages(const fx_groups *g, int64_t waiting, fx_groups_stage out[FX_GROUPS_WIDTHS])
{
    int n = 0, now = g->groups;
    while (waiting > 0 && n < FX_GROUPS_WIDTHS) {
        out[n] = fx_groups_next(g, now, waiting);
        waiting -= out[n].pictures;
        now = out[n++].groups;
    }
    return n;
}

int fx_groups_widths(int now, int out[FX_GROUPS_WIDTHS])
{
    int n = 0;
    for (int d = now; d >= 1; d--)
        if (now % d == 0 && n < FX_GROUPS_WIDTHS) out[n++] = d;
    return n;
}

fx_status fx_groups_mesh(const fx_groups *g, int now, int heads, int ulysses, int ring, fx_mesh *out)
{
    const int width = g->ranks / now;
    if (now == g->groups) return fx_mesh_make(width, heads, ulysses, ring, out);
    const bool keep = ulysses > 0 && width % ulysses == 0 && heads % ulysses == 0;
    return fx_mesh_make(width, heads, keep ? ulysses : 0, 0, out);
}

const char *fx_groups_text(const fx_groups *g, int64_t waiting, char *buf, size_t size)
{
    fx_groups_stage stage[FX_GROUPS_WIDTHS];
    const int n = fx_groups_stages(g, waiting, stage);
    size_t used = 0;
    if (size) buf[0] = 0;
    for (int i = 0; i < n && used < size; i++) {
        const int width = g->ranks / stage[i].groups;
        used += (size_t)snprintf(buf + used, size - used, "%s%d group%s of %d rank%s: %lld picture%s",
                                 i ? ", then " : "", stage[i].groups, stage[i].groups == 1 ? "" : "s", width,
                                 width == 1 ? "" : "s", (long long)stage[i].pictures,
                                 stage[i].pictures == 1 ? "" : "s");
    }
    return buf;
}
