/* Called by pipeline.c while it opens and when the team changes; contract in teams.h. */
#include "runtime/teams.h"

#include "parallel/comm_nccl.h"

fx_status fx_teams_plan(fx_sizes *z, const fx_pipeline_options *o, int heads)
{
    const fx_groups g = {fx_comm_size(z->whole), o->groups > 1 ? o->groups : 1, 0};
    const int used = o->at_once ? o->at_once : g.groups;
    int groups[FX_GROUPS_WIDTHS];
    FX_CHECK(g.ranks % g.groups == 0 && used >= 1 && g.groups % used == 0 && g.groups <= FX_GROUPS_MOST,
             FX_EINVAL, "%d of %d groups of %d ranks", used, g.groups, g.ranks);
    z->teams = fx_groups_widths(used, groups);
    for (int t = 0; t < z->teams; t++) {
        fx_team *team = &z->team[t];
        team->groups = groups[z->teams - 1 - t];
        FX_TRY(fx_groups_mesh(&g, team->groups, heads, o->ulysses, o->ring, &team->mesh));
    }
    z->team[0].comm = z->whole;
    z->now = &z->team[0];
    z->opt.mesh = z->team[0].mesh;
    return FX_OK;
}

/* Neighbours are a group: they are close to each other. */
fx_status fx_teams_open(fx_sizes *z, fx_wire exchange)
{
    const int rank = fx_comm_rank(z->whole);
    for (int t = 1; t < z->teams; t++) {
        fx_team *team = &z->team[t];
        FX_TRY(fx_comm_split(z->whole, rank / team->mesh.ranks, rank, &team->comm));
        FX_TRY(fx_comm_vote(z->whole, fx_comm_open_team_rows(team->comm, z->be, exchange, z->whole), NULL));
    }
    return FX_OK;
}

fx_team *fx_teams_find(fx_sizes *z, int groups)
{
    for (int t = 0; t < z->teams; t++)
        if (z->team[t].groups == groups) return &z->team[t];
    return NULL;
}

void fx_teams_close(fx_sizes *z)
{
    for (int t = 1; t < z->teams; t++) fx_comm_close(&z->team[t].comm);
    z->teams = 0;
}
