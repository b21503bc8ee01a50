/* FLUX.1's real shapes: the op runs on all rows at once; 64 of them, drawn from the seed, are judged in full by ref like any
 * other trial (their rows are gathered into a small one); every element must be finite and no canary touched; and for
 * products a probe covers all rows: y . t against x . (w^T t) + b . t in f64 for a random t, which finds missing or misplaced
 * tiles (not one soft element: roundings of a row add up). A convolution is a product over its windows. */
#include "tests/ops/ops_test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 64, GUARD = 256, GAP = 8 /* elements behind each row */, TIMED_RUNS = 3 };

/* An operand with all its rows. */
typedef struct whole {
    fx_tensor t;
    unsigned char *frame;
    size_t bytes;
    uint64_t hash;
} whole;

typedef struct sampling {
    trial *t;
    int64_t rows;            /* all rows (conv: pixels) */
    int64_t sample[SAMPLES]; /* ascending; the first and the last among them */
    whole of[MAX_OPERANDS];  /* frame NULL: the operand has no rows */
    int64_t width, high_pad; /* conv: output width, zeros above */
} sampling;

static unsigned char canary(size_t i)
{
    return i % 2 ? 0xff : 0xfd; /* a NaN in every float dtype */
}

static uint64_t hash_of(const whole *w)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < w->bytes; i++) h = (h ^ w->frame[i]) * 0x100000001b3u;
    return h;
}

static void open_whole(whole *w, fx_dtype dtype, int ndim, const int64_t shape[])
{
    const size_t size = fx_dtype_size(dtype);
    w->t = fx_view(NULL, dtype, ndim, shape);
    if (ndim > 1) w->t.stride[0] += GAP;
    w->bytes = 2 * GUARD + (size_t)(w->t.stride[0] * shape[0]) * size;
    if (posix_memalign((void **)&w->frame, GUARD, w->bytes) != 0) abort();
    for (size_t i = 0; i < w->bytes; i++) w->frame[i] = canary(i);
    w->t.data = w->frame + GUARD;
}

/* The dense run of a row's elements: dims behind the rows' (all views here are dense but for the gap). */
static int64_t row_length(fx_tensor t)
{
    int64_t n = 1;
    for (int d = 1; d < t.ndim; d++) n *= t.shape[d];
    return n;
}

static char *row_at(fx_tensor t, int64_t row)
{
    return (char *)t.data + (size_t)(row * t.stride[0]) * fx_dtype_size(t.dtype);
}

static void fill_rows(sampling *s, whole *w)
{
    const int64_t n = row_length(w->t);
    double *values = (double *)malloc((size_t)n * sizeof *values);
    for (int64_t i = 0; i < w->t.shape[0]; i++) {
        for (int64_t k = 0; k < n; k++) values[k] = normal(&s->t->rng);
        fx_convert(row_at(w->t, i), w->t.dtype, values, FX_F64, n);
    }
    free(values);
}

static void draw_samples(sampling *s)
{
    for (int i = 0; i < SAMPLES; i++) { /* one of each 64th part */
        const int64_t begin = s->rows * i / SAMPLES, count = s->rows * (i + 1) / SAMPLES - begin;
        s->sample[i] = begin + (int64_t)(uniform(&s->t->rng) * (double)count);
    }
    s->sample[0] = 0;
    s->sample[SAMPLES - 1] = s->rows - 1;
}

/* ---- between the small trial and the whole ---- */

/* One sample's elements, either way. lse is [H,T]: its samples are columns. */
static void move_sample(const sampling *s, int a, int i, bool to_whole)
{
    const operand *o = &s->t->arg[a];
    const fx_tensor big = s->of[a].t;
    const size_t size = fx_dtype_size(o->t.dtype);
    if (o->split_dim == 1) {
        for (int64_t h = 0; h < o->t.shape[0]; h++) {
            char *small = (char *)o->t.data + (size_t)(h * o->t.stride[0] + i) * size;
            memcpy(small, row_at(big, h) + (size_t)s->sample[i] * size, size);
        }
        return;
    }
    char *small = row_at(o->t, i), *large = row_at(big, s->sample[i]);
    memcpy(to_whole ? large : small, to_whole ? small : large, (size_t)row_length(o->t) * size);
}

static void open_operands(sampling *s)
{
    trial *t = s->t;
    for (int a = 0; a < t->args; a++) {
        operand *o = &t->arg[a];
        if (o->split_dim < 0) continue;
        int64_t shape[FX_MAX_DIMS];
        for (int d = 0; d < o->t.ndim; d++) shape[d] = d == o->split_dim ? s->rows : o->t.shape[d];
        open_whole(&s->of[a], o->t.dtype, o->t.ndim, shape);
        if (o->role == OUT || o->role == TEMP) continue;
        fill_rows(s, &s->of[a]);
        for (int i = 0; i < SAMPLES; i++) move_sample(s, a, i, true);
        s->of[a].hash = hash_of(&s->of[a]);
    }
}

/* (A convolution's were gathered by pixel.) */
static void gather_outputs(const sampling *s)
{
    for (int a = 0; a < s->t->args && !s->width; a++)
        if (s->of[a].frame && (s->t->arg[a].role == OUT || s->t->arg[a].role == INOUT))
            for (int i = 0; i < SAMPLES; i++) move_sample(s, a, i, false);
}

/* ---- all rows ---- */

static bool untouched(const whole *w, size_t begin, size_t end)
{
    for (size_t i = begin; i < end; i++)
        if (w->frame[i] != canary(i)) return false;
    return true;
}

/* Every element finite, every canary whole. */
static bool look_at_output(const trial *t, const char *name, const whole *w)
{
    const int64_t n = row_length(w->t), rows = w->t.shape[0];
    const size_t size = fx_dtype_size(w->t.dtype), row = (size_t)n * size,
                 step = (size_t)w->t.stride[0] * size;
    int64_t broken = 0, first = rows * n, last = 0;
    bool clean = untouched(w, 0, GUARD) && untouched(w, w->bytes - GUARD, w->bytes);
#pragma omp parallel for num_threads(2) reduction(+ : broken) reduction(min : first) reduction(max : last) reduction(&& : clean)
    for (int64_t i = 0; i < rows; i++) {
        double *values = (double *)malloc((size_t)n * sizeof *values);
        fx_convert(values, FX_F64, row_at(w->t, i), w->t.dtype, n);
        for (int64_t k = 0; k < n; k++) {
            if (isfinite(values[k])) continue;
            const int64_t at = i * n + k;
            broken++;
            if (at < first) first = at;
            if (at > last) last = at;
        }
        clean = clean && untouched(w, GUARD + (size_t)i * step + row, GUARD + (size_t)(i + 1) * step);
        free(values);
    }
    if (broken)
        return complain(t,
                        "%s: %lld of %lld elements are not finite (not written?), from row %lld, column %lld "
                        "to row %lld, column %lld",
                        name, (long long)broken, (long long)(rows * n), (long long)(first / n),
                        (long long)(first % n), (long long)(last / n), (long long)(last % n));
    return clean || complain(t, "%s: a canary behind a row or round the whole changed", name);
}

static bool look_at_all(const sampling *s)
{
    bool ok = true;
    for (int a = 0; a < s->t->args && ok; a++) {
        const operand *o = &s->t->arg[a];
        if (!s->of[a].frame) continue;
        if (o->role == IN || o->role == PARAM)
            ok = hash_of(&s->of[a]) == s->of[a].hash ||
                 complain(s->t, "the input %s or a canary changed", o->name);
        else
            ok = look_at_output(s->t, o->name, &s->of[a]);
    }
    return ok;
}

/* ---- the probe ---- */

/* Row i of x as f64: of a matrix, or the window of pixel i. */
static void probe_row(const sampling *s, int64_t i, double *x)
{
    const fx_tensor t = s->of[0].t;
    if (!s->width) {
        fx_convert(x, FX_F64, row_at(t, i), t.dtype, t.shape[1]);
        return;
    }
    const int64_t k = t.shape[2], top = i / s->width - s->high_pad, left = i % s->width - 1;
    const size_t size = fx_dtype_size(t.dtype);
    for (int64_t tap = 0; tap < 9; tap++, x += k) {
        const int64_t r = top + tap / 3, c = left + tap % 3;
        if (r < 0 || r >= t.shape[0] || c < 0 || c >= t.shape[1])
            memset(x, 0, (size_t)k * sizeof *x);
        else
            fx_convert(x, FX_F64, row_at(t, r) + (size_t)(c * k) * size, t.dtype, k);
    }
}

static const char *pixel_at(const sampling *s, int64_t i) /* output row i of the product */
{
    const fx_tensor y = s->of[1].t;
    if (!s->width) return row_at(y, i);
    return row_at(y, i / s->width) + (size_t)(i % s->width * y.shape[2]) * fx_dtype_size(y.dtype);
}

typedef struct probe {
    double *t, *wt, *norm; /* t[N], w^T t [K], |w_n| */
    double bt;             /* b . t */
} probe;

static void open_probe(const sampling *s, probe *p)
{
    trial *t = s->t;
    const int64_t n = t->w_ref.n, k = t->w_ref.k;
    const double *w = (const double *)t->w_ref.packed;
    *p = (probe){.t = (double *)malloc((size_t)(2 * n + k) * sizeof(double))};
    p->norm = p->t + n, p->wt = p->norm + n;
    memset(p->wt, 0, (size_t)k * sizeof(double));
    for (int64_t i = 0; i < n; i++) {
        const double *row = w + i * k;
        double squares = 0;
        p->t[i] = normal(&t->rng);
        for (int64_t j = 0; j < k; j++) p->wt[j] += p->t[i] * row[j], squares += row[j] * row[j];
        p->norm[i] = sqrt(squares);
        p->bt += t->args > 2 ? p->t[i] * t->arg[2].before[i] : 0;
    }
}

/* |y.t - x.(w^T t) - b.t| over its limit: four times the root of the summed squares of what each element may be off,
 * u|y| + 2 sqrt(K) e |x||w_n|. */
static double probe_ratio(const sampling *s, const probe *p, int64_t i, double *x, double *y)
{
    const int64_t n = s->t->w_ref.n, k = s->t->w_ref.k;
    const fx_dtype dtype = s->of[1].t.dtype;
    const double u = unit_of(dtype), grow = 2 * sqrt((double)k) * u32;
    double left = 0, right = p->bt, squares = 0, off = 0;
    probe_row(s, i, x);
    fx_convert(y, FX_F64, pixel_at(s, i), dtype, n);
    for (int64_t j = 0; j < k; j++) right += x[j] * p->wt[j], squares += x[j] * x[j];
    const double size = sqrt(squares);
    for (int64_t j = 0; j < n; j++) {
        const double one = p->t[j] * (u * fabs(y[j]) + grow * size * p->norm[j]);
        left += p->t[j] * y[j];
        off += one * one;
    }
    return fabs(left - right) / (4 * sqrt(off) + 0x1p-120);
}

static bool probe_all(const sampling *s)
{
    probe p;
    int64_t bad = 0, first = s->rows;
    double worst = 0;
    open_probe(s, &p);
#pragma omp parallel for num_threads(2) reduction(+ : bad) reduction(min : first) reduction(max : worst)
    for (int64_t i = 0; i < s->rows; i++) {
        double *x = (double *)malloc((size_t)(s->t->w_ref.k + s->t->w_ref.n) * sizeof *x);
        const double ratio = probe_ratio(s, &p, i, x, x + s->t->w_ref.k);
        if (!(ratio <= 1)) bad++, first = i < first ? i : first;
        if (ratio > worst) worst = ratio;
        free(x);
    }
    free(p.t);
    return !bad ||
           complain(s->t, "probe: %lld of %lld rows are off, the first is %lld; worst error/limit %.3g",
                    (long long)bad, (long long)s->rows, (long long)first, worst);
}

/* ---- one row of the table ---- */

static bool judge_samples(sampling *s)
{
    trial *t = s->t;
    fx_tensor ref[MAX_OPERANDS];
    bool ok = look_at_all(s);
    gather_outputs(s);
    for (int a = 0; a < t->args; a++) ref[a] = t->arg[a].r;
    if (ok && t->def->call(t->ref, t, &t->w_ref, ref)) ok = complain(t, "ref: %s", fx_error());
    const char *damage = ok ? frame_damage(t) : NULL;
    if (damage) ok = complain(t, "%s", damage);
    ok = ok && judge(t);
    return ok && (!t->has_weight || probe_all(s));
}

static void close_sampling(sampling *s)
{
    for (int a = 0; a < MAX_OPERANDS; a++) free(s->of[a].frame);
    free_trial(s->t);
}

/* A picture, and a small product whose rows are the windows of the sampled pixels. */
static fx_weight conv_weight(trial *t, int64_t k)
{
    const int64_t n = t->w_ref.n;
    fx_weight w = {.n = n, .k = k, .kh = 3, .kw = 3, .kind = FX_WEIGHT_CONV, .dtype = t->be->dtype};
    const size_t size = fx_dtype_size(w.dtype);
    double *values = (double *)malloc((size_t)(n * k * 9) * sizeof *values);
    void *src = malloc((size_t)(n * k * 9) * size), *dst = NULL;
    for (int64_t i = 0; i < n * k * 9; i++) /* [n][k][tap], as files store it, from [n][tap][k] */
        values[i] = t->w_values[i / (k * 9) * k * 9 + i % 9 * k + i / 9 % k];
    fx_convert(src, w.dtype, values, FX_F64, n * k * 9);
    if (posix_memalign(&dst, GUARD, fx_packed_bytes(t->be, &w)) != 0 || fx_pack(t->be, &w, src, dst)) abort();
    w.packed = dst;
    free(src), free(values);
    return w;
}

static void open_picture(sampling *s, const op_case *c, trial *big)
{
    trial *t = s->t;
    const int64_t in[3] = {c->t, c->h, c->k}, out[3] = {s->rows / s->width, s->width, c->c}, k = c->k;
    open_whole(&s->of[0], t->be->dtype, 3, in);
    open_whole(&s->of[1], t->y_dtype, 3, out);
    fill_rows(s, &s->of[0]);
    s->of[0].hash = hash_of(&s->of[0]);
    double *x = (double *)malloc((size_t)(9 * k) * sizeof *x);
    for (int i = 0; i < SAMPLES; i++) {
        probe_row(s, s->sample[i], x);
        for (int64_t j = 0; j < 9 * k; j++) set_value(&t->arg[0], i * 9 * k + j, x[j]);
    }
    free(x);
    *big = *t;
    big->def = &op_conv2d, big->c = c, big->stride = 1;
    big->pad[0] = big->pad[1] = (int)s->high_pad, big->pad[2] = big->pad[3] = 1;
}

static bool run_picture(sampling *s, const op_case *c, bool timed)
{
    trial *t = s->t, big;
    op_case windows = {"linear", SAMPLES, c->c, 9 * c->k, 1, FX_ACT_NONE, PLAIN, NORMAL, c->why};
    s->high_pad = c->variant == 3 ? 0 : 1; /* variants of conv2d: 0 a picture, 3 a slab with its halo rows */
    s->width = c->h;
    s->rows = (c->t - 2 + 2 * s->high_pad) * c->h;
    draw_samples(s);
    t->c = &windows, t->def = &op_linear;
    t->def->setup(t);
    open_picture(s, c, &big);
    const fx_weight w = conv_weight(t, c->k);
    const fx_tensor views[3] = {s->of[0].t, s->of[1].t, t->arg[2].t};
    bool ok = true;
    if (timed)
        time_views(&big, &w, views, TIMED_RUNS);
    else
        ok = !plan_and_run(t->be, &big, &w, views) || complain(t, "%s", fx_error());
    for (int i = 0; ok && i < SAMPLES; i++)
        memcpy(row_at(t->arg[1].t, i), pixel_at(s, s->sample[i]),
               (size_t)c->c * fx_dtype_size(t->arg[1].t.dtype));
    ok = ok && (timed || judge_samples(s));
    free((void *)(uintptr_t)w.packed);
    close_sampling(s);
    return ok;
}

static bool run_or_time(trial *t, bool timed)
{
    const op_case *c = t->c;
    sampling s = {.t = t, .rows = c->t};
    op_case small = *c;
    if (t->def == &op_conv2d) return run_picture(&s, c, timed);
    small.t = SAMPLES;
    small.view = PLAIN;
    t->c = &small;
    draw_samples(&s);
    t->def->setup(t);
    open_operands(&s);
    fx_tensor views[MAX_OPERANDS];
    for (int a = 0; a < t->args; a++) views[a] = s.of[a].frame ? s.of[a].t : t->arg[a].t;
    bool ok = true;
    if (timed)
        time_views(t, &t->w_be, views, TIMED_RUNS);
    else
        ok = !plan_and_run(t->be, t, &t->w_be, views) || complain(t, "%s", fx_error());
    ok = ok && (timed || judge_samples(&s));
    close_sampling(&s);
    return ok;
}

bool run_sampled(trial *t)
{
    return run_or_time(t, false);
}

void time_sampled(trial *t)
{
    (void)run_or_time(t, true);
}
