/* One trial: plan (touches nothing, sizes the arena exactly), backend, ref, judgement; then the same on one
 * thread, cut by rows into calls of one row, an eighth (576 of 4608: a rank of eight) and the rest, which must give the same
 * bytes. */
#include "tests/ops/ops_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void views(const trial *t, bool ref, fx_tensor out[])
{
    for (int a = 0; a < t->args; a++) out[a] = ref ? t->arg[a].r : t->arg[a].t;
}

static void cut_rows(const trial *t, int64_t begin, int64_t count, fx_tensor part[], trial *sub)
{
    *sub = *t;
    views(t, false, part);
    if (t->def->cut) {
        t->def->cut(t, begin, count, part, sub);
        return;
    }
    for (int a = 0; a < t->args; a++)
        if (t->arg[a].split_dim >= 0) part[a] = fx_slice(part[a], t->arg[a].split_dim, begin, count);
}

/* The whole in one call, or (whole NULL) rows in up to four. */
static fx_status call(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor whole[])
{
    fx_tensor part[MAX_OPERANDS];
    trial sub;
    if (whole) return t->def->call(be, t, w, whole);
    const int64_t n = t->split_rows, cuts[] = {0, 1, n / 8 + 1, n / 2 + 1, n};
    for (int i = 0; i < 4; i++) {
        if (cuts[i + 1] <= cuts[i]) continue;
        cut_rows(t, cuts[i], cuts[i + 1] - cuts[i], part, &sub);
        FX_TRY(t->def->call(be, &sub, w, part));
    }
    return FX_OK;
}

/* Plans, opens an arena of exactly the planned size, runs. */
fx_status plan_and_run(fx_backend *be, const trial *t, const fx_weight *w, const fx_tensor whole[])
{
    fx_backend *plan = NULL;
    fx_status st;
    be->arena = NULL;
    FX_TRY_OUT(fx_backend_plan(be, &plan));
    FX_TRY_OUT(fx_arena_measure(&plan->arena));
    FX_TRY_OUT(call(plan, t, w, whole));
    for (int a = 0; a < t->args; a++)
        if (memcmp(t->arg[a].frame, t->arg[a].snapshot, t->arg[a].bytes) != 0) {
            st = FX_FAIL(FX_ESHAPE, "planning wrote to %s", t->arg[a].name);
            goto out;
        }
    if (fx_peak(plan->arena)) FX_TRY_OUT(fx_arena_open(NULL, fx_peak(plan->arena), &be->arena));
    FX_TRY_OUT(call(be, t, w, whole));
    FX_TRY_OUT(fx_sync(be));
out:
    if (plan) fx_arena_close(&plan->arena);
    fx_backend_close(&plan);
    fx_arena_close(&be->arena);
    return st;
}

/* Rows cut into several calls on one thread give the bytes of the whole. */
static bool split_agrees(trial *t)
{
    unsigned char *whole[MAX_OPERANDS];
    bool ok = true;
    for (int a = 0; a < t->args; a++) {
        whole[a] = (unsigned char *)malloc(t->arg[a].bytes);
        memcpy(whole[a], t->arg[a].frame, t->arg[a].bytes);
    }
    restart_outputs(t);
    fx_tensor all[MAX_OPERANDS];
    views(t, false, all);
    if (plan_and_run(t->be1, t, &t->w_be1, t->split_rows > 1 ? NULL : all))
        ok = complain(t, "cut by rows, 1 thread: %s", fx_error());
    for (int a = 0; a < t->args && ok; a++) {
        size_t i = 0;
        while (i < t->arg[a].bytes && t->arg[a].frame[i] == whole[a][i]) i++;
        if (i < t->arg[a].bytes)
            ok = complain(
                t, "%s: cut by rows on one thread gives other bytes (%lld bytes from the first element)",
                t->arg[a].name,
                (long long)i - (long long)((unsigned char *)t->arg[a].t.data - t->arg[a].frame));
    }
    for (int a = 0; a < t->args; a++) free(whole[a]);
    return ok;
}

void make_label(trial *t)
{
    const op_case *c = t->c;
    snprintf(t->label, sizeof t->label, "%s %s %s [%lld,%lld,%lld,%lld] v%d view%d %s in=%s out=%s", c->op,
             t->be->ops->name, fx_dtype_name(t->be->dtype), (long long)c->t, (long long)c->c, (long long)c->k,
             (long long)c->h, c->variant, (int)c->view, kind_name(t->kind), fx_dtype_name(t->x_dtype),
             fx_dtype_name(t->y_dtype));
}

bool run_trial(trial *t)
{
    t->def->setup(t);
    fx_tensor ref[MAX_OPERANDS], whole[MAX_OPERANDS];
    views(t, true, ref);
    views(t, false, whole);
    bool ok = true;
    if (plan_and_run(t->be, t, &t->w_be, whole))
        ok = complain(t, "%s", fx_error());
    else if (t->def->call(t->ref, t, &t->w_ref, ref))
        ok = complain(t, "ref: %s", fx_error());
    const char *damage = ok ? frame_damage(t) : NULL;
    if (damage) ok = complain(t, "%s", damage);
    ok = ok && judge(t);
    const char *complaint = ok && t->def->extra ? t->def->extra(t) : NULL;
    if (complaint) ok = complain(t, "%s", complaint);
    ok = ok && (t->parts || !t->be->rows_exact || split_agrees(t));
    free_trial(t);
    return ok;
}
