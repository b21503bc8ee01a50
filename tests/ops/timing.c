/* --bench: the time of each case that passed, with what it computes or moves per second. */
#include "tests/ops/ops_test.h"

#include <stdio.h>
#include <stdlib.h>

#include "runtime/core/clock.h"

enum { RUNS = 15 };

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double bytes_moved(const trial *t, const fx_tensor views[])
{
    double bytes = t->has_weight ? (double)fx_packed_bytes(t->be, &t->w_be) : 0;
    for (int a = 0; a < t->args; a++) bytes += (double)fx_bytes(views[a]) * (t->arg[a].role == INOUT ? 2 : 1);
    return bytes;
}

/* Each run is long enough for the clock (in place ops go on from their own results). */
void time_views(trial *t, const fx_weight *w, const fx_tensor views[], int runs)
{
    double run_s[RUNS];
    t->be->counts = (fx_op_counts){0};
    if (fx_arena_open(NULL, 256 << 20, &t->be->arena) || t->def->call(t->be, t, w, views))
        printf("%s: %s\n", t->label, fx_error());
    const fx_op_counts n = t->be->counts;
    const double flop = n.linear_flop + n.conv_flop + n.attention_flop;
    for (int i = 0; i < runs; i++) {
        const double begin_s = fx_now_s();
        int calls = 0;
        do {
            (void)t->def->call(t->be, t, w, views);
            calls++;
        } while (fx_now_s() - begin_s < 2e-3);
        run_s[i] = (fx_now_s() - begin_s) / calls;
    }
    qsort(run_s, (size_t)runs, sizeof run_s[0], by_value);
    printf("%-88s %10.2f us %9.2f %s\n", t->label, 1e6 * run_s[runs / 2],
           (flop > 0 ? flop : bytes_moved(t, views)) / run_s[runs / 2] * 1e-9, flop > 0 ? "GFLOP/s" : "GB/s");
    fx_arena_close(&t->be->arena);
}

void time_trial(trial *t)
{
    fx_tensor whole[MAX_OPERANDS];
    t->def->setup(t);
    for (int a = 0; a < t->args; a++) whole[a] = t->arg[a].t;
    time_views(t, &t->w_be, whole, RUNS);
    free_trial(t);
}
