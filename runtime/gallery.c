/* Shows what a run computes; called by pipeline.c at each moment, contract in gallery.h. */
#include "runtime/gallery.h"

#include <stdio.h>

static fx_status show(const fx_gallery *g, const char *name, int segment, fx_tensor rows)
{
    const fx_sight sight = {g->step, name, &g->s->layout, segment, rows, g->s->be};
    return g->r->onlooker ? g->r->onlooker(g->r->onlooker_ctx, &sight) : FX_OK;
}

static fx_status observe_block(void *ctx, const char *name, int segment, fx_tensor rows)
{
    const fx_gallery *g = ctx;
    if (g->s->dump && g->step == 0) FX_TRY(fx_dump_segment(g->s->dump, name, &g->s->layout, segment, rows));
    return show(g, name, segment, rows);
}

bool fx_gallery_open_in_steps(const fx_gallery *g)
{
    return g->r->onlooker || g->s->dump;
}

void fx_gallery_begin_step(fx_gallery *g, fx_dit *dit, int step)
{
    g->step = step;
    dit->observe = g->r->onlooker || (g->s->dump && step == 0) ? observe_block : NULL;
    dit->observe_ctx = g;
}

fx_status fx_gallery_text(const fx_gallery *g, const fx_text_ids *ids)
{
    const fx_session *s = g->s;
    const fx_dump *d = s->dump;
    if (!d) return FX_OK;
    FX_TRY(fx_dump_host(d, "ids_clip", fx_view1(ids->clip, FX_I32, ids->clip_count)));
    FX_TRY(fx_dump_host(d, "ids_t5", fx_view1(ids->t5, FX_I32, ids->t5_count)));
    FX_TRY(fx_dump_host(d, "sigmas", fx_view1(s->sigma, FX_F32, s->size.steps + 1)));
    FX_TRY(fx_dump_whole(d, "clip_pooled", fx_row(s->pooled, 0)));
    FX_TRY(fx_dump_whole(d, "t5_out", s->t5));
    return fx_dump_segment(d, "noise", &s->layout, FX_IMAGE, s->latents);
}

fx_status fx_gallery_prepared(const fx_gallery *g)
{
    FX_TRY(show(g, "text", FX_TEXT, g->s->dit.context));
    return show(g, "noise", FX_IMAGE, g->s->latents);
}

fx_status fx_gallery_step(const fx_gallery *g)
{
    const fx_session *s = g->s;
    char name[32];
    if (s->dump && g->step == 0)
        FX_TRY(fx_dump_segment(s->dump, "noise_pred_00", &s->layout, FX_IMAGE, s->noise));
    snprintf(name, sizeof name, "latents_%02d", g->step + 1);
    if (s->dump) FX_TRY(fx_dump_segment(s->dump, name, &s->layout, FX_IMAGE, s->latents));
    return show(g, "latents", FX_IMAGE, s->latents);
}

fx_status fx_gallery_rgb(const fx_gallery *g, const uint8_t *rgb)
{
    const fx_session *s = g->s;
    const int64_t shape[] = {s->size.height, s->size.width, 3};
    return s->dump ? fx_dump_host(s->dump, "rgb8", fx_view((void *)rgb, FX_U8, 3, shape)) : FX_OK;
}
