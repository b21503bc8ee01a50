/* Judgement by error budget: for all i |y_i - r_i| <= B_i, and rms(err/B) <= 0.5. The budget comes from the
 * contract (kernels/ops.h) and ref's values; a kernel cannot loosen its own test. Keeps the worst err/B per
 * op and dtype. */
#include "tests/ops/ops_test.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const double u32 = 0x1p-24;
static const double rms_limit = 0.5;
enum { RMS_COUNT = 256 }; /* fewer elements say little about the rms */

typedef struct worst_row {
    const char *op;
    fx_dtype dtype;
    int trials;
    double ratio, rms;
    char at[240];
} worst_row;
static worst_row rows[128];
static int row_count;

double unit_of(fx_dtype dtype)
{
    switch (dtype) {
    case FX_BF16: return 0x1p-8;
    case FX_F16: return 0x1p-11;
    case FX_F64: return 0x1p-53;
    default: return u32;
    }
}

bool complain(const trial *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    printf("FAIL %s: ", t->label);
    vprintf(fmt, args);
    va_end(args);
    printf(" (%s)\n", t->c->why);
    return false;
}

static worst_row *row_of(const trial *t)
{
    for (int i = 0; i < row_count; i++)
        if (rows[i].dtype == t->be->dtype && strcmp(rows[i].op, t->c->op) == 0) return &rows[i];
    if (row_count == (int)(sizeof rows / sizeof rows[0])) abort();
    rows[row_count] = (worst_row){.op = t->c->op, .dtype = t->be->dtype};
    return &rows[row_count++];
}

bool library_products(const trial *t)
{
    return strcmp(t->be->ops->name, "onednn") == 0 && (t->def == &op_linear || t->def == &op_conv2d);
}

/* err/B; values that are not finite must be the same kind of not finite. */
static double ratio_of(double got, double want, double budget)
{
    if (isnan(got) || isnan(want)) return isnan(got) && isnan(want) ? 0 : INFINITY;
    if (isinf(got) || isinf(want)) return got == want ? 0 : INFINITY;
    const double err = fabs(got - want);
    return err == 0 ? 0 : budget > 0 ? err / budget : INFINITY;
}

static bool judge_operand(const trial *t, int index, worst_row *row)
{
    const operand *o = &t->arg[index];
    const int64_t n = fx_numel(o->t);
    double *budget = (double *)calloc((size_t)(n ? n : 1), sizeof *budget), worst = 0, squares = 0;
    int64_t first_bad = -1, bad = 0;
    t->def->budget(t, index, budget);
    for (int64_t i = 0; i < n; i++) {
        const bool stray = t->kind == BROKEN && isnan(read_t(o, i)) && library_products(t);
        const double ratio = stray ? 0 : ratio_of(read_t(o, i), read_r(o, i), budget[i]);
        squares += ratio * ratio;
        if (ratio > worst) worst = ratio;
        if (ratio <= 1) continue;
        if (first_bad < 0) first_bad = i;
        bad++;
    }
    const double rms = n ? sqrt(squares / (double)n) : 0;
    bool ok = true;
    if (bad) {
        const int64_t inner = o->t.shape[o->t.ndim - 1];
        const double got = read_t(o, first_bad), want = read_r(o, first_bad);
        ok = complain(
            t,
            "%s[%lld] (row %lld, column %lld of %lld): want %.9g, got %.9g, error %.3g, budget %.3g; %lld of "
            "%lld bad, worst err/B %.3g",
            o->name, (long long)first_bad, (long long)(first_bad / inner), (long long)(first_bad % inner),
            (long long)inner, want, got, fabs(got - want), budget[first_bad], (long long)bad, (long long)n,
            worst);
    } else if (n >= RMS_COUNT && rms > rms_limit && t->kind != NEARCONST) { /* equal values round alike */
        ok = complain(t, "%s: rms(err/B) %.3g over %lld elements, at most %.2g", o->name, rms, (long long)n,
                      rms_limit);
    }
    if (worst > row->ratio) {
        row->ratio = worst;
        snprintf(row->at, sizeof row->at, "%s of %s", o->name, t->label);
    }
    if (n >= RMS_COUNT && rms > row->rms && t->kind != NEARCONST) row->rms = rms;
    free(budget);
    return ok;
}

bool judge(trial *t)
{
    worst_row *row = row_of(t);
    bool ok = true;
    row->trials++;
    for (int a = 0; a < t->args; a++)
        if (t->arg[a].role == OUT || t->arg[a].role == INOUT) ok = judge_operand(t, a, row) && ok;
    return ok;
}

void judge_summary(void)
{
    printf("%-17s %-5s %7s %9s %9s  worst at\n", "op", "dtype", "trials", "err/B", "rms");
    for (int i = 0; i < row_count; i++)
        printf("%-17s %-5s %7d %9.3f %9.3f  %s\n", rows[i].op, fx_dtype_name(rows[i].dtype), rows[i].trials,
               rows[i].ratio, rows[i].rms, rows[i].at);
}
