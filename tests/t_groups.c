/* The policy of groups over many ranks, groups and waiting pictures: every picture is made once, groups only merge, none
 * idles in a full round, and the tail goes to as few and wide groups as there are pictures. */
#include <stdio.h>
#include <string.h>

#include "parallel/groups.h"
#include "tests/test.h"

/* What must hold for any policy. */
static void check_stages(const fx_groups *g, int64_t waiting)
{
    fx_groups_stage s[FX_GROUPS_WIDTHS];
    const int n = fx_groups_stages(g, waiting, s);
    int64_t left = waiting;
    int before = g->groups, bad = 0;
    for (int i = 0; i < n; i++) {
        const int64_t threshold = g->merge < before ? g->merge : before;
        bad += before % s[i].groups != 0;                                         /* groups merge whole */
        bad += s[i].pictures < 1 || s[i].pictures > left;                         /* something is made */
        bad += left >= threshold && s[i].groups != before;                        /* no merge without need */
        bad += left < threshold && (s[i].groups > left || s[i].groups >= before); /* none idles after one */
        bad += i > 0 && s[i].groups == s[i - 1].groups; /* a stage is as long as it can be */
        if (left < threshold)                           /* the narrowest such groups: no divisor between */
            for (int d = s[i].groups + 1; d <= left; d++) bad += before % d == 0;
        if (s[i].pictures < left) bad += s[i].pictures % s[i].groups != 0; /* full rounds, then the rest */
        left -= s[i].pictures;
        before = s[i].groups;
    }
    T_CHECK(bad == 0 && left == 0 && (n > 0) == (waiting > 0),
            "%d ranks, %d groups, merge %lld, %lld waiting", g->ranks, g->groups, (long long)g->merge,
            (long long)waiting);
}

static void check_many(void)
{
    for (int ranks = 1; ranks <= 144; ranks++)
        for (int groups = 1; groups <= ranks; groups++) {
            fx_groups g;
            const bool divides = ranks % groups == 0;
            const fx_status st = fx_groups_make(ranks, groups, -1, &g);
            T_CHECK(divides ? st == FX_OK : st == FX_EINVAL, "%d groups of %d ranks", groups, ranks);
            if (!divides) continue;
            for (int64_t waiting = 0; waiting <= 3 * groups + 1; waiting++) check_stages(&g, waiting);
            for (g.merge = 0; g.merge <= groups + 1; g.merge += 1 + groups / 4)
                check_stages(&g, 2 * groups + groups / 2);
        }
}

typedef struct example {
    int ranks, groups;
    int64_t merge, waiting;
    const char *text;
} example;

/* By hand. */
static const example examples[] = {
    {4, 2, -1, 1, "1 group of 4 ranks: 1 picture"},
    {4, 2, -1, 2, "2 groups of 2 ranks: 2 pictures"},
    {4, 2, -1, 5, "2 groups of 2 ranks: 4 pictures, then 1 group of 4 ranks: 1 picture"},
    {4, 4, -1, 3, "2 groups of 2 ranks: 2 pictures, then 1 group of 4 ranks: 1 picture"},
    {4, 4, -1, 4, "4 groups of 1 rank: 4 pictures"},
    {72, 9, -1, 14,
     "9 groups of 8 ranks: 9 pictures, then 3 groups of 24 ranks: 3 pictures, then 1 group of 72 ranks: 2 "
     "pictures"},
    {72, 9, 3, 14, "9 groups of 8 ranks: 14 pictures"},
    {72, 9, 3, 11, "9 groups of 8 ranks: 9 pictures, then 1 group of 72 ranks: 2 pictures"},
    {72, 9, 0, 10, "9 groups of 8 ranks: 10 pictures"},
    {8, 8, 4, 3, "2 groups of 4 ranks: 2 pictures, then 1 group of 8 ranks: 1 picture"},
    {7, 7, -1, 6, "1 group of 7 ranks: 6 pictures"},
    {1, 1, -1, 3, "1 group of 1 rank: 3 pictures"},
};

static void check_examples(void)
{
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        const example *e = &examples[i];
        fx_groups g;
        char text[512];
        T_OK(fx_groups_make(e->ranks, e->groups, e->merge, &g));
        fx_groups_text(&g, e->waiting, text, sizeof text);
        T_CHECK(!strcmp(text, e->text), "%d ranks, %d groups, merge %lld, %lld waiting: '%s', want '%s'",
                e->ranks, e->groups, (long long)e->merge, (long long)e->waiting, text, e->text);
    }
}

static void check_automatic(void)
{
    static const int want[][2] = {{1, 1},   {2, 1},  {5, 1},  {7, 1},  {8, 1},       {9, 3},   {10, 2},
                                  {11, 11}, {12, 2}, {16, 2}, {72, 9}, {1021, 1021}, {1031, 1}};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        fx_groups g;
        T_OK(fx_groups_make(want[i][0], 0, -1, &g));
        T_CHECK(g.groups == want[i][1], "%d ranks: %d groups, want %d", want[i][0], g.groups, want[i][1]);
        T_CHECK(g.merge == g.groups && g.groups <= FX_GROUPS_MOST && g.ranks % g.groups == 0, "%d ranks",
                g.ranks);
    }
}

static void check_widths(void)
{
    int d[FX_GROUPS_WIDTHS];
    T_CHECK(fx_groups_widths(12, d) == 6 && d[0] == 12 && d[1] == 6 && d[2] == 4 && d[3] == 3 && d[4] == 2 &&
                d[5] == 1,
            "divisors of 12");
    T_CHECK(fx_groups_widths(1, d) == 1 && d[0] == 1, "divisors of 1");
    for (int g = 1; g <= FX_GROUPS_MOST; g++) {
        const int n = fx_groups_widths(g, d);
        T_CHECK(d[0] == g && d[n - 1] == 1, "divisors of %d", g);
    }
}

static void check_meshes(void)
{
    const fx_groups g = {8, 4, 4};
    fx_mesh m;
    T_OK(fx_groups_mesh(&g, 4, 24, 1, 2, &m)); /* as asked for a group */
    T_CHECK(m.ranks == 2 && m.ulysses == 1 && m.ring == 2, "%dx%d", m.ulysses, m.ring);
    T_OK(fx_groups_mesh(&g, 2, 24, 1, 2, &m)); /* merged: a longer ring */
    T_CHECK(m.ranks == 4 && m.ulysses == 1 && m.ring == 4, "%dx%d", m.ulysses, m.ring);
    T_OK(fx_groups_mesh(&g, 1, 24, 0, 0, &m));
    T_CHECK(m.ranks == 8 && m.ulysses == 8 && m.ring == 1, "%dx%d", m.ulysses, m.ring);
    T_CHECK(fx_groups_mesh(&g, 4, 24, 3, 0, &m) == FX_EINVAL, "3 does not divide 2 ranks");
    T_CHECK(fx_groups_mesh(&g, 1, 5, 2, 0, &m) == FX_OK && m.ulysses == 1,
            "2 does not divide 5 heads: automatic");
}

static void check_words(void)
{
    fx_groups g;
    T_CHECK(fx_groups_make(6, 4, -1, &g) == FX_EINVAL &&
                strstr(fx_error(), "--groups 4 does not divide 6 ranks") &&
                strstr(fx_error(), "possible: 1, 2, 3, 6"),
            "%s", fx_error());
    T_CHECK(fx_groups_make(2048, 2048, -1, &g) == FX_EINVAL, "more groups than there can be");
    char tiny[8];
    T_OK(fx_groups_make(4, 2, -1, &g));
    T_CHECK(!strcmp(fx_groups_text(&g, 5, tiny, sizeof tiny), "2 group"), "cut: '%s'", tiny);
}

int main(void)
{
    check_many();
    check_examples();
    check_automatic();
    check_widths();
    check_meshes();
    check_words();
    return test_end("t_groups");
}
