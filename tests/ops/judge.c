/* Judgement by error budget: for all i |y_i - r_i| <= B_i, and rms(err/B) <= 0.5. The budget comes from the
 * contract (kernels/ops.h) and ref's values; a kernel cannot loosen its own test. Keeps the worst err/B. */
#include "tests/ops/ops_test.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const double u32 = 0x1p-24;
static const double rms_limit = 0.5;
enum { RMS_COUNT = 256 }; /* fewer elements say little about the rms */

op_score *op_scores;

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

bool library_products(const trial *t)
{
    return strcmp(t->be->ops->name, "onednn") == 0 && (t->def == &op_linear || t->def == &op_conv2d);
}

/* They cut the sums of a step of products; see kernels/ops.h. */
bool tensor_cores(const trial *t)
{
    return strncmp(t->be->ops->name, "cuda", 4) == 0;
}

/* err/B; values that are not finite must be the same kind of not finite. */
static double ratio_of(double got, double want, double budget)
{
    if (isnan(got) || isnan(want)) return isnan(got) && isnan(want) ? 0 : INFINITY;
    if (isinf(got) || isinf(want)) return got == want ? 0 : INFINITY;
    const double err = fabs(got - want);
    return err == 0 ? 0 : budget > 0 ? err / budget : INFINITY;
}

/* x and . round the first bad element: the tile of rows and columns that shows what kind of mistake it is. */
static void print_map(const operand *o, const unsigned char *bad, int64_t first_bad)
{
    enum { HIGH = 12, WIDTH = 64 };
    const int64_t inner = o->t.shape[o->t.ndim - 1], rows = fx_numel(o->t) / inner;
    int64_t top = first_bad / inner - 3, left = first_bad % inner - 8;
    if (top > rows - HIGH) top = rows - HIGH;
    if (left > inner - WIDTH) left = inner - WIDTH;
    if (top < 0) top = 0;
    if (left < 0) left = 0;
    printf("     rows %lld.., columns %lld.. of %lldx%lld; x: out of budget\n", (long long)top,
           (long long)left, (long long)rows, (long long)inner);
    for (int64_t i = top; i < rows && i < top + HIGH; i++) {
        printf("     ");
        for (int64_t j = left; j < inner && j < left + WIDTH; j++) putchar(bad[i * inner + j] ? 'x' : '.');
        putchar('\n');
    }
}

/* What the elements of one output came to. */
typedef struct verdict {
    double worst, beyond, squares;
    int64_t first_bad, bad;
} verdict;

static verdict weigh(const trial *t, const operand *o, const double *budget, unsigned char *bad)
{
    verdict v = {.first_bad = -1};
    const double u = o->t.dtype == FX_U8 || o->t.dtype == FX_I32 ? 0 : unit_of(o->t.dtype);
    for (int64_t i = 0; i < fx_numel(o->t); i++) {
        const double got = read_t(o, i), want = read_r(o, i), rounding = u * fabs(want);
        if (t->kind == BROKEN && isnan(got) && library_products(t)) continue;
        const double ratio = ratio_of(got, want, budget[i]), rest = fabs(got - want) - rounding;
        v.squares += ratio * ratio;
        if (ratio > v.worst) v.worst = ratio;
        if (u > 0 && rest > 0 && budget[i] > rounding)
            v.beyond = fmax(v.beyond, rest / (budget[i] - rounding));
        if (ratio <= 1) continue;
        if (!v.bad++) v.first_bad = i;
        bad[i] = 1;
    }
    return v;
}

static bool complain_bad(const trial *t, const operand *o, const verdict *v, const double *budget)
{
    const int64_t inner = o->t.shape[o->t.ndim - 1], i = v->first_bad;
    const double got = read_t(o, i), want = read_r(o, i);
    return complain(t,
                    "%s[%lld] (row %lld, column %lld of %lld): want %.9g, got %.9g, error %.3g, budget %.3g; "
                    "%lld of %lld bad, worst err/B %.3g",
                    o->name, (long long)i, (long long)(i / inner), (long long)(i % inner), (long long)inner,
                    want, got, fabs(got - want), budget[i], (long long)v->bad, (long long)fx_numel(o->t),
                    v->worst);
}

static void keep_score(const trial *t, const operand *o, const verdict *v, double rms)
{
    if (v->worst > op_scores->ratio) {
        op_scores->ratio = v->worst;
        snprintf(op_scores->at, sizeof op_scores->at, "%s of %s", o->name, t->label);
    }
    if (v->beyond > op_scores->beyond) op_scores->beyond = v->beyond;
    if (rms > op_scores->rms) op_scores->rms = rms;
}

static bool judge_operand(const trial *t, int index)
{
    const operand *o = &t->arg[index];
    const int64_t n = fx_numel(o->t);
    double *budget = (double *)calloc((size_t)(n ? n : 1), sizeof *budget);
    unsigned char *bad = (unsigned char *)calloc((size_t)(n ? n : 1), 1);
    t->def->budget(t, index, budget);
    const verdict v = weigh(t, o, budget, bad);
    /* few elements say little about the rms, and equal values round alike */
    const double rms = n >= RMS_COUNT && t->kind != NEARCONST ? sqrt(v.squares / (double)n) : 0;
    bool ok = true;
    if (v.bad) {
        ok = complain_bad(t, o, &v, budget);
        print_map(o, bad, v.first_bad);
    } else if (rms > rms_limit) {
        ok = complain(t, "%s: rms(err/B) %.3g over %lld elements, at most %.2g", o->name, rms, (long long)n,
                      rms_limit);
    }
    keep_score(t, o, &v, rms);
    free(budget);
    free(bad);
    return ok;
}

bool judge(trial *t)
{
    bool ok = true;
    op_scores->trials++;
    for (int a = 0; a < t->args; a++)
        if (t->arg[a].role == OUT || t->arg[a].role == INOUT) ok = judge_operand(t, a) && ok;
    return ok;
}
