/* By which way rows go between devices: every combination of what is asked for and what the machine has, against a table; what
 * a user is told. Before that: do the ranks' devices fit together? Decisions only; no device is needed. */
#include "parallel/comm_fit.h"
#include "parallel/comm_way.h"
#include "tests/test.h"

enum { NO = -1 }; /* refused */

/* What the ranks' machine has. */
typedef struct machine {
    const char *what, *no_ipc, *no_windows;
    int ranks, team;
} machine;

static const machine machines[] = {
    {"one node", NULL, NULL, 8, 8},
    {"one node, NCCL below 2.28", NULL, "old NCCL", 8, 0},
    {"one node, no handles", "no handles", NULL, 2, 2},
    {"one node, neither", "no handles", "old NCCL", 2, 0},
    {"a rack in one NVLink domain", "more than one node", NULL, 72, 72},
    {"a rack, NCCL below 2.28", "more than one node", "old NCCL", 72, 0},
    {"two nodes of 4", "more than one node", NULL, 8, 4},
    {"two nodes of 1", "more than one node", NULL, 2, 1},
};
enum { MACHINES = sizeof machines / sizeof machines[0] };

/* [machine][auto, peer, nccl, lsa][FLUXPAR_WINDOWS=1] */
static const int wanted[MACHINES][4][2] = {
    {{FX_WAY_IPC, FX_WAY_WINDOWS},
     {FX_WAY_IPC, FX_WAY_WINDOWS},
     {FX_WAY_NCCL, FX_WAY_NCCL},
     {FX_WAY_IPC, FX_WAY_WINDOWS}},
    {{FX_WAY_IPC, NO}, {FX_WAY_IPC, NO}, {FX_WAY_NCCL, FX_WAY_NCCL}, {FX_WAY_IPC, NO}},
    {{FX_WAY_WINDOWS, FX_WAY_WINDOWS},
     {FX_WAY_WINDOWS, FX_WAY_WINDOWS},
     {FX_WAY_NCCL, FX_WAY_NCCL},
     {FX_WAY_WINDOWS, FX_WAY_WINDOWS}},
    {{FX_WAY_NCCL, NO}, {NO, NO}, {FX_WAY_NCCL, FX_WAY_NCCL}, {NO, NO}},
    {{FX_WAY_WINDOWS, FX_WAY_WINDOWS},
     {FX_WAY_WINDOWS, FX_WAY_WINDOWS},
     {FX_WAY_NCCL, FX_WAY_NCCL},
     {FX_WAY_WINDOWS, FX_WAY_WINDOWS}},
    {{FX_WAY_NCCL, NO}, {NO, NO}, {FX_WAY_NCCL, FX_WAY_NCCL}, {NO, NO}},
    {{FX_WAY_NCCL, NO}, {NO, NO}, {FX_WAY_NCCL, FX_WAY_NCCL}, {NO, NO}},
    {{FX_WAY_NCCL, NO}, {NO, NO}, {FX_WAY_NCCL, FX_WAY_NCCL}, {NO, NO}},
};
static const fx_wire wire[4] = {FX_WIRE_AUTO, FX_WIRE_PEER, FX_WIRE_NCCL, FX_WIRE_LSA};

static fx_way_facts facts_of(const machine *m, fx_wire want, bool force)
{
    return (fx_way_facts){.want = want,
                          .force_windows = force,
                          .no_ipc = m->no_ipc,
                          .no_windows = m->no_windows,
                          .ranks = m->ranks,
                          .team = m->team,
                          .alone = false};
}

static void check_choice(const machine *m, fx_wire want, bool force, int expected)
{
    const fx_way_facts f = facts_of(m, want, force);
    char why[FX_WAY_TEXT] = "left from before";
    fx_way way = FX_WAY_NCCL;
    const fx_status st = fx_way_choose(&f, &way, why);
    const int got = st == FX_OK ? (int)way : NO;
    T_CHECK(got == expected && (st == FX_OK || st == FX_EDEVICE), "%s, wire %d, windows %d: %d, want %d",
            m->what, (int)want, force, got, expected);
    T_CHECK(!*why == (expected != NO && (expected != FX_WAY_NCCL || want == FX_WIRE_NCCL)),
            "%s, wire %d: why: '%s'", m->what, (int)want, why);
}

static void check_words(int which, fx_wire want, bool force, const char *text)
{
    const fx_way_facts f = facts_of(&machines[which], want, force);
    char why[FX_WAY_TEXT];
    fx_way way;
    const char *said = fx_way_choose(&f, &way, why) == FX_OK ? why : fx_error();
    T_CHECK(!strcmp(said, text), "'%s', want '%s'", said, text);
}

static void check_long_reasons(void)
{
    char all[400], why[FX_WAY_TEXT];
    fx_way way;
    memset(all, 'x', sizeof all - 1);
    all[sizeof all - 1] = 0;
    const fx_way_facts f = {.want = FX_WIRE_AUTO,
                            .force_windows = false,
                            .no_ipc = all,
                            .no_windows = all,
                            .ranks = 2,
                            .team = 0,
                            .alone = false};
    T_CHECK(fx_way_choose(&f, &way, why) == FX_OK && strlen(why) == 100 + 2 + 120, "%zu bytes", strlen(why));
}

/* Ranks that see one device each: no fault where they reach each other all the same or NCCL was asked for; never silently by
 * NCCL. */
static void check_alone(void)
{
    char why[FX_WAY_TEXT];
    fx_way way;
    for (int m = 0; m < 4; m++)
        for (int w = 0; w < 4; w++) {
            fx_way_facts f = facts_of(&machines[m], wire[w], false);
            f.alone = true;
            const fx_status st = fx_way_choose(&f, &way, why);
            const int expected = wanted[m][w][0];
            const bool lost = expected == NO || (expected == FX_WAY_NCCL && wire[w] != FX_WIRE_NCCL);
            T_CHECK(st == (lost ? FX_EDEVICE : FX_OK) && (lost || (int)way == expected),
                    "alone: %s, wire %d: %d", machines[m].what, (int)wire[w], (int)st);
            T_CHECK(!lost ||
                        (strstr(fx_error(), "see one device each") &&
                         strstr(fx_error(), "no handles; old NCCL") &&
                         strstr(fx_error(), "CUDA_VISIBLE_DEVICES") && strstr(fx_error(), "--exchange nccl")),
                    "alone: '%s'", fx_error());
        }
}

/* ---- do they fit ---- */

static fx_device_card card(int rank, const char *host, int device, int visible)
{
    fx_device_card c = {.rank = rank, .visible = visible};
    snprintf(c.host, sizeof c.host, "%s", host);
    snprintf(c.libraries, sizeof c.libraries, "CUDA 13.0, NCCL 2.28.9");
    c.uuid[15] = (char)device; /* differs at the end only, behind zeros */
    return c;
}

static void check_fit(const char *what, const fx_device_card all[], int n, bool want_alone,
                      const char *refused)
{
    bool alone = !want_alone;
    const fx_status st = fx_cards_fit(all, n, &alone);
    if (refused)
        T_CHECK(st == FX_EDEVICE && !strcmp(fx_error(), refused), "%s: %d, '%s'", what, (int)st,
                st ? fx_error() : "");
    else
        T_CHECK(st == FX_OK && alone == want_alone, "%s: %d, alone %d", what, (int)st, alone);
}

static void check_fits(void)
{
    fx_device_card c[4] = {card(0, "a", 1, 2), card(1, "a", 2, 2), card(2, "b", 3, 2), card(3, "b", 4, 2)};
    check_fit("two nodes of two", c, 4, false, NULL);
    check_fit("one rank", c, 1, false, NULL);
    c[3].visible = 1;
    check_fit("the last sees itself only", c, 4, true, NULL);
    check_fit("ranks beside it", c, 3, false, NULL);
    c[3].visible = 2, c[2].visible = 1;
    check_fit("the first of a node sees itself only", c, 4, true, NULL);
    check_fit("a node of one", c, 3, false, NULL);
    c[2].visible = 2;
    c[3].uuid[15] = 1;
    check_fit("the same device of another node: containers may count alike", c, 4, false, NULL);
    c[3].uuid[15] = 3;
    check_fit("two on one device", c, 4, false,
              "ranks 2 and 3 are on the same device; start one rank per device (this node shows fewer "
              "devices than it "
              "has ranks), or use --backend cpu");
    c[3].uuid[15] = 4;
    snprintf(c[3].libraries, sizeof c[3].libraries, "CUDA 13.0, NCCL 2.28.8");
    check_fit(
        "other libraries", c, 4, false,
        "rank 0 runs with CUDA 13.0, NCCL 2.28.9 and rank 3 with CUDA 13.0, NCCL 2.28.8; install the same "
        "libraries on all nodes");
}

int main(void)
{
    check_fits();
    check_alone();
    for (int m = 0; m < MACHINES; m++)
        for (int w = 0; w < 4; w++)
            for (int force = 0; force < 2; force++)
                check_choice(&machines[m], wire[w], force, wanted[m][w][force]);
    check_words(3, FX_WIRE_AUTO, false, "no handles; old NCCL");
    check_words(6, FX_WIRE_AUTO, false, "more than one node; one NVLink domain holds 4 of 8 ranks");
    check_words(6, FX_WIRE_PEER, false,
                "--exchange peer: a device of these ranks cannot write into another's memory: more than one "
                "node; one NVLink domain holds 4 of 8 ranks; use --exchange nccl");
    check_words(3, FX_WIRE_LSA, false,
                "--exchange lsa: a device of these ranks cannot write into another's memory: no handles; old "
                "NCCL; use --exchange nccl");
    check_words(1, FX_WIRE_LSA, true,
                "FLUXPAR_WINDOWS=1: NCCL has no windows for these ranks: old NCCL; unset it");
    check_long_reasons();
    T_CHECK(!strcmp(fx_way_name(FX_WAY_NCCL, false), "NCCL"), "a name");
    T_CHECK(!strcmp(fx_way_name(FX_WAY_IPC, false), "peer copies"), "a name");
    T_CHECK(!strcmp(fx_way_name(FX_WAY_IPC, true), "peer stores"), "a name");
    T_CHECK(!strcmp(fx_way_name(FX_WAY_WINDOWS, false), "peer copies, NCCL windows"), "a name");
    T_CHECK(!strcmp(fx_way_name(FX_WAY_WINDOWS, true), "peer stores, NCCL windows"), "a name");
    return test_end("t_way");
}
