/* run by: sh_selftest.sh
 * The selftest names what is wrong: t_selftest MODEL, under mpirun on P ranks. Both kinds of blocks and the choice of a step are
 * wrapped by the linker (--wrap, CMakeLists.txt), so that one row of one block on one rank in one step can be spoilt behind the
 * back of the pipeline; the run of rank 0 alone is left as it is. The finding must be exactly that step, block and rank. */
#include <math.h>

#include "parallel/layout.h"
#include "runtime/dit/dit.h"
#include "runtime/selftest.h"
#include "tests/test_ranks.h"

typedef enum { NOTHING, ADD, LAST_BIT, NEGATE, MAKE_NAN } damage;

typedef struct spoil {
    damage damage;
    int step, block, rank; /* from 0 */
    int segment;           /* FX_ALL: a single block */
} spoil;

static spoil now;
static int ranks;

fx_status __real_fx_double_block(fx_dit *, int block);
fx_status __real_fx_single_block(fx_dit *, int block);
fx_status __wrap_fx_double_block(fx_dit *, int block);
fx_status __real_fx_dit_select(fx_dit *, int step);
fx_status __wrap_fx_dit_select(fx_dit *, int step);
fx_status __wrap_fx_single_block(fx_dit *, int block);

static void spoil_row(float *x, int64_t n)
{
    if (now.damage == ADD) x[n / 2] += 0.5f;
    if (now.damage == LAST_BIT) x[n - 1] = nextafterf(x[n - 1], INFINITY);
    if (now.damage == MAKE_NAN) x[0] = NAN;
    for (int64_t i = 0; now.damage == NEGATE && i < n; i++) x[i] = -x[i];
}

static int step; /* the selected one */

fx_status __wrap_fx_dit_select(fx_dit *d, int which)
{
    step = which;
    return __real_fx_dit_select(d, which);
}

/* Is this the second run (all ranks, or all threads), and the place to spoil? */
static bool here(const fx_dit *d, int block)
{
    const bool second = ranks > 1 ? fx_comm_size(d->comm) == ranks : d->be->threads > 1;
    return second && !fx_planning(d->be) && now.damage != NOTHING && block == now.block && step == now.step &&
           d->rank == now.rank;
}

fx_status __wrap_fx_double_block(fx_dit *d, int block)
{
    FX_TRY(__real_fx_double_block(d, block));
    if (now.segment == FX_ALL || !here(d, block)) return FX_OK;
    FX_TRY(fx_dit_settle(d));
    const int64_t row =
        now.segment == FX_TEXT ? d->text_rows - 1 : d->text_rows; /* last text, first image row */
    spoil_row((float *)fx_row(d->x, row).data, d->x.shape[1]);
    return FX_OK;
}

fx_status __wrap_fx_single_block(fx_dit *d, int block)
{
    FX_TRY(__real_fx_single_block(d, block));
    if (now.segment != FX_ALL || !here(d, block)) return FX_OK;
    FX_TRY(fx_dit_settle(d));
    spoil_row((float *)fx_row(d->x, d->x.shape[0] / 2).data, d->x.shape[1]);
    return FX_OK;
}

static void test_one(const char *model, fx_comm *comm, spoil s, fx_layout_kind layout, fx_exact exact,
                     bool found)
{
    const bool ring = exact == FX_EXACT_OFF;
    fx_selftest_options opt = {.pipeline = fx_pipeline_default_options(model),
                               .request = fx_default_request("a red kite above the harbour"),
                               .timeout_s = 60};
    fx_selftest_result r;
    char block[32], words[96];
    opt.pipeline.dtype = FX_F32;
    opt.pipeline.threads = ranks > 1 ? 1 : 2;
    opt.pipeline.layout = layout;
    opt.pipeline.exact = exact;
    opt.pipeline.ulysses = ring ? 1 : 0;
    opt.pipeline.ring = ring ? ranks : 0;
    opt.pipeline.backend = "cpu";
    opt.request.width = 64;
    opt.request.height = 48;
    opt.request.t5_len = 16;
    opt.request.steps = 3;
    opt.request.seed = 11;
    now = s;
    const fx_status st = fx_selftest_run(&opt, comm, &r);
    if (s.segment == FX_ALL)
        snprintf(block, sizeof block, "single_%02d", s.block);
    else
        snprintf(block, sizeof block, "double_%02d_%s", s.block, s.segment == FX_TEXT ? "txt" : "img");
    snprintf(words, sizeof words, "selftest: step %d, block %s, rank %d: max |diff| ", s.step + 1, block,
             s.rank);
    if (found) {
        T_CHECK(st == FX_ENUMERIC && !strncmp(fx_error(), words, strlen(words)),
                "damage %d: want '%s', got %d '%s'", s.damage, words, st, fx_error());
    } else
        T_CHECK(st == FX_OK, "damage %d, %s: %s", s.damage, words, fx_error());
    if (fx_comm_rank(comm) == 0) {
        T_CHECK(r.first.found == found, "damage %d, %s: found %d", s.damage, words, r.first.found);
        T_CHECK(r.exact == !ring, "exact %d", r.exact);
        T_CHECK(r.layout == layout || layout == FX_LAYOUT_AUTO, "layout %d", r.layout);
        if (found) {
            T_CHECK(r.first.step == s.step + 1 && r.first.rank == s.rank && !strcmp(r.first.block, block),
                    "want %s: step %d, block %s, rank %d", words, r.first.step, r.first.block, r.first.rank);
            T_CHECK(r.first.rows == 1, "%s: %d rows", words, (int)r.first.rows);
            T_CHECK(s.damage != ADD || fabs(r.first.max_diff - 0.5) < 1e-3, "%s: max |diff| %g", words,
                    r.first.max_diff);
            T_CHECK(s.damage != MAKE_NAN || isnan(r.first.max_diff), "%s: max |diff| %g", words,
                    r.first.max_diff);
            T_CHECK(s.damage == MAKE_NAN || !r.steps[s.step].good, "step %d is called good", s.step + 1);
            for (int i = 0; i < s.step; i++)
                T_CHECK(r.steps[i].good, "%s: step %d is called bad", words, i + 1);
        } else
            T_CHECK(r.steps_done == 3 && r.steps[2].good && r.pixel_diff >= 0, "%d steps", r.steps_done);
    }
    fx_selftest_free(&r);
}

int main(int argc, char **argv)
{
    fx_comm *comm = NULL;
    const char *model = argc > 1 ? argv[1] : "launch/demo/model";
    if (fx_comm_open("auto", 60, &comm)) {
        printf("t_selftest: %s\n", fx_error());
        return 1;
    }
    ranks = fx_comm_size(comm);
    const int last = ranks - 1, middle = ranks / 2;
    const fx_layout_kind even = FX_LAYOUT_EVEN, stream = ranks > 1 ? FX_LAYOUT_STREAM : FX_LAYOUT_EVEN;
    const fx_exact on = FX_EXACT_AUTO, off = FX_EXACT_OFF;
    test_one(model, comm, (spoil){NOTHING, 0, 0, 0, FX_ALL}, FX_LAYOUT_AUTO, on, false);
    test_one(model, comm, (spoil){ADD, 0, 0, last, FX_ALL}, even, on, true);
    test_one(model, comm, (spoil){ADD, 1, 0, middle, FX_TEXT}, even, on, true);
    test_one(model, comm, (spoil){LAST_BIT, 2, 1, last, FX_ALL}, stream, on, true);
    test_one(model, comm, (spoil){MAKE_NAN, 1, 0, last, FX_IMAGE}, stream, on, true);
    if (ranks > 1) { /* sums in another order pass, a wrong row does not */
        test_one(model, comm, (spoil){NOTHING, 0, 0, 0, FX_ALL}, even, off, false);
        test_one(model, comm, (spoil){LAST_BIT, 1, 0, 0, FX_ALL}, even, off, false);
        test_one(model, comm, (spoil){NEGATE, 1, 0, 0, FX_IMAGE}, even, off, true);
    }
    const int rc = test_end_ranks(comm, "t_selftest");
    fx_comm_finish(&comm);
    return rc;
}
