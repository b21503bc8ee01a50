/* What peers and the node's board learn of a rank: its phase, the part it is in, and who made a vote fail. */
#include "tests/comm/comm_test.h"
#include "tests/test_ranks.h"

static char seen_phase[128];
static int seen_whole, seen_parts;
static void see_phase(const char *phase, bool whole)
{
    snprintf(seen_phase, sizeof seen_phase, "%s", phase);
    seen_whole += whole;
    seen_parts += !whole;
}

/* A phase and its parts, set on the communicator or a split of it, are seen as one text. */
static void test_phase(fx_comm *c)
{
    fx_comm *sub;
    char large[300];
    T_OK(fx_comm_split(c, 0, 0, &sub));
    fx_comm_on_phase(c, see_phase);
    fx_comm_set_phase(c, "denoise step 3");
    T_CHECK(!strcmp(seen_phase, "denoise step 3"), "%s", seen_phase);
    fx_comm_set_part(sub, "ring hop 1 of 2");
    T_CHECK(!strcmp(seen_phase, "denoise step 3, ring hop 1 of 2"), "%s", seen_phase);
    fx_comm_set_part(sub, "ring hop 2 of 2");
    T_CHECK(!strcmp(seen_phase, "denoise step 3, ring hop 2 of 2"), "%s", seen_phase);
    fx_comm_set_part(sub, NULL);
    T_CHECK(!strcmp(seen_phase, "denoise step 3"), "%s", seen_phase);
    fx_comm_set_part(sub, "ring hop 1 of 2");
    fx_comm_set_phase(sub, "vae");
    T_CHECK(!strcmp(seen_phase, "vae"), "%s", seen_phase);
    T_CHECK(seen_whole == 2 && seen_parts == 4, "%d phases, %d parts", seen_whole, seen_parts);
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = 0;
    fx_comm_set_phase(c, large);
    fx_comm_set_part(c, large);
    T_CHECK(strlen(seen_phase) < 128, "%zu", strlen(seen_phase));
    fx_comm_on_phase(c, NULL);
    fx_comm_set_phase(c, "test");
    fx_comm_close(&sub);
}

/* The culprit is known after a failed vote of all ranks, not after one of some of them. */
static void test_culprit(fx_comm *c)
{
    fx_comm *sub;
    const int last = fx_comm_size(c) - 1, before = fx_comm_culprit(c);
    T_OK(fx_comm_split(c, fx_comm_rank(c), 0, &sub)); /* each alone */
    T_CHECK(fx_comm_vote(sub, FX_FAIL(FX_EFORMAT, "alone"), NULL) == FX_EFORMAT, "%s", fx_error());
    T_CHECK(fx_comm_culprit(c) == before, "%d", fx_comm_culprit(c));
    const fx_status mine = fx_comm_rank(c) == last ? FX_FAIL(FX_ENOMEM, "the last") : FX_OK;
    T_CHECK(fx_comm_vote(c, mine, NULL) == FX_ENOMEM, "%s", fx_error());
    T_CHECK(fx_comm_culprit(c) == last, "%d", fx_comm_culprit(c));
    fx_comm_close(&sub);
}

/* A failed vote can be forgiven on the communicator on which it was held; another's is not agreed on here. */
static void test_forgiven(fx_comm *c)
{
    fx_comm *sub;
    const bool alone = fx_comm_size(c) == 1;
    T_OK(fx_comm_split(c, 0, fx_comm_rank(c), &sub));
    fx_comm_forgive(c);
    T_CHECK(fx_comm_agreed(c) == alone && fx_comm_culprit(c) == -1, "culprit %d", fx_comm_culprit(c));
    T_CHECK(fx_comm_vote(sub, FX_FAIL(FX_EFORMAT, "some"), NULL) == FX_EFORMAT, "%s", fx_error());
    T_CHECK(fx_comm_agreed(sub) && fx_comm_agreed(c) == alone, "a vote on another communicator");
    fx_comm_forgive(sub);
    T_CHECK(fx_comm_agreed(sub) == alone, "not forgiven");
    const fx_status mine = fx_comm_rank(c) == 0 ? FX_FAIL(FX_ENOMEM, "the first") : FX_OK;
    T_CHECK(fx_comm_vote(c, mine, NULL) == FX_ENOMEM, "%s", fx_error());
    T_CHECK(fx_comm_agreed(c) && fx_comm_agreed(sub) == alone && fx_comm_culprit(c) == 0, "not agreed on");
    T_OK(fx_comm_vote(c, FX_OK, NULL));
    T_CHECK(fx_comm_agreed(c) && fx_comm_culprit(c) == 0, "forgotten by a vote that went well");
    fx_comm_forgive(c);
    T_OK(fx_comm_vote(c, FX_OK, NULL));
    T_CHECK(fx_comm_agreed(c) == alone && fx_comm_culprit(c) == -1, "not forgiven");
    fx_comm_close(&sub);
}

void comm_test_phases(fx_comm *c)
{
    test_phase(c);
    test_culprit(c);
    test_forgiven(c);
}
