/* The plan communicator: nothing moves, addresses are never touched, and who watches sees every call in order. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "parallel/comm_plan.h"
#include "tests/comm/comm_test.h"
#include "tests/test.h"

/* What was seen, in words. */
typedef struct seen {
    char text[512];
} seen;

__attribute__((format(printf, 2, 3))) static void note(seen *s, const char *fmt, ...)
{
    const size_t used = strlen(s->text);
    va_list args;
    va_start(args, fmt);
    vsnprintf(s->text + used, sizeof s->text - used, fmt, args);
    va_end(args);
}

static void on_post(void *ctx, int ticket, const char *label, int sends, const fx_xfer send[], int recvs,
                    const fx_xfer recv[])
{
    note(ctx, "post %d %s", ticket, label);
    for (int i = 0; i < recvs; i++) note(ctx, " from %d %zu", recv[i].peer, recv[i].bytes);
    for (int i = 0; i < sends; i++) note(ctx, " to %d %zu", send[i].peer, send[i].bytes);
    note(ctx, "; ");
}

static void on_wait(void *ctx, int ticket, const char *label)
{
    note(ctx, "wait %d %s; ", ticket, label);
}

static void on_copy(void *ctx, void *to, const void *from, size_t bytes)
{
    note(ctx, "copy %zu to %zu from %zu; ", bytes, (size_t)to, (size_t)from);
}

static void on_host(void *ctx, const char *name, size_t bytes)
{
    note(ctx, "%s %zu; ", name, bytes);
}

static const fx_xfer to_far = {3, (void *)16, 100}, to_self = {2, (void *)16, 100},
                     at_self = {2, (void *)32, 100};

static void test_quiet(fx_comm *c)
{
    fx_comm *sub;
    fx_ticket t;
    int64_t n = 7;
    T_CHECK(fx_comm_rank(c) == 2 && fx_comm_size(c) == 5, "2 of 5");
    T_OK(fx_comm_transfer(c, 1, &to_far, 1, &to_far, &t));
    T_CHECK(t.slot >= 0, "a transfer of a plan has a ticket");
    T_OK(fx_comm_wait(c, &t));
    T_OK(fx_comm_transfer(c, 1, &to_self, 1, &to_self, &t));
    T_OK(fx_comm_broadcast(c, 1, (void *)16, 100));
    T_OK(fx_comm_all_reduce_i64(c, FX_SUM, &n, 1));
    T_OK(fx_comm_barrier(c));
    T_CHECK(fx_comm_vote(c, FX_OK, NULL) == FX_OK && n == 7, "a plan moves nothing");
    T_CHECK(fx_comm_split(c, 0, 0, &sub) == FX_EINVAL && !sub, "a plan cannot be split");
}

static void test_watched(fx_comm *c)
{
    seen s = {""};
    const fx_comm_watch watch = {
        .post = on_post, .wait = on_wait, .copy = on_copy, .host = on_host, .ctx = &s};
    const fx_xfer send[3] = {{4, (void *)16, 8}, {0, (void *)24, 0}, {2, (void *)64, 5}},
                  recv[2] = {{2, (void *)96, 5}, {1, (void *)32, 24}};
    const size_t bytes[5] = {1, 2, 3, 4, 5}, offset[5] = {0};
    fx_ticket a, b;
    double x = 1;
    fx_comm_observe(c, &watch);
    fx_comm_label(c, "first");
    T_OK(fx_comm_transfer(c, 3, send, 2, recv, &a)); /* one empty, one to itself */
    T_OK(fx_comm_transfer(c, 1, &to_far, 0, NULL, &b));
    T_OK(fx_comm_wait(c, &b));
    T_OK(fx_comm_wait(c, &a));
    T_OK(fx_comm_wait(c, &a)); /* nothing is pending */
    fx_comm_label(c, "second");
    T_OK(fx_comm_transfer(c, 1, &to_self, 1, &at_self, &a)); /* no ticket, but the label is used up */
    T_OK(fx_comm_transfer(c, 0, NULL, 1, &to_far, &a));
    T_OK(fx_comm_wait(c, &a));
    T_OK(fx_comm_settle(c));
    T_OK(fx_comm_broadcast(c, 0, (void *)16, 7));
    T_OK(fx_comm_all_gather(c, NULL, NULL, bytes, offset));
    T_OK(fx_comm_all_reduce_f64(c, FX_MAX, &x, 1));
    T_OK(fx_comm_barrier(c));
    T_CHECK(fx_comm_vote(c, FX_EREAD, NULL) == FX_EREAD, "the own vote comes back");
    fx_comm_observe(c, NULL);
    T_OK(fx_comm_barrier(c));
    /* one transfer had gone by unwatched */
    const char *want =
        "copy 5 to 96 from 64; post 2 first from 1 24 to 4 8; post 3 rows to 3 100; wait 3 rows; wait 2 "
        "first; "
        "copy 100 to 32 from 16; post 4 rows from 3 100; wait 4 rows; settle 0; broadcast 7; all_gather 3; "
        "all_reduce 8; barrier 0; vote 8; ";
    T_CHECK(!strcmp(s.text, want), "seen: %s\nwant: %s", s.text, want);
}

/* Collectives of one rank are nothing to wait for. */
static void test_alone(void)
{
    seen s = {""};
    const fx_comm_watch watch = {
        .post = on_post, .wait = on_wait, .copy = on_copy, .host = on_host, .ctx = &s};
    fx_comm *c;
    int64_t n = 1;
    T_OK(fx_comm_open_plan(0, 1, &c));
    fx_comm_observe(c, &watch);
    T_OK(fx_comm_settle(c));
    T_OK(fx_comm_broadcast(c, 0, (void *)16, 7));
    T_OK(fx_comm_all_reduce_i64(c, FX_SUM, &n, 1));
    T_OK(fx_comm_barrier(c));
    T_CHECK(fx_comm_vote(c, FX_OK, NULL) == FX_OK && !*s.text, "seen: %s", s.text);
    fx_comm_close(&c);
}

void comm_test_plan(void)
{
    fx_comm *c;
    T_OK(fx_comm_open_plan(2, 5, &c));
    test_quiet(c);
    test_watched(c);
    fx_comm_close(&c);
    test_alone();
    T_CHECK(fx_comm_open("tcp", 1, &c) == FX_EINVAL && !c, "unknown transport");
    T_CHECK(strlen(fx_comm_describe()) > 3, "%s", fx_comm_describe());
}
