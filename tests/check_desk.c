/* run by: sh_groups.sh
 * The desk without pictures: jobs of random lengths over groups that merge. check_desk GROUPS MERGE JOBS [fail=N] [short=N]
 * [slow=RANK], under mpirun on P ranks. Every job is made once, by as many ranks as the policy says, and its bytes come through
 * both ways; with `fail` job N fails and nothing more is handed out; with `short` the source ends early; with `slow` the group
 * of a rank takes ten times as long. */
#include <time.h>
#include <unistd.h>

#include "parallel/desk.h"
#include "runtime/core/clock.h"
#include "tests/test_ranks.h"

enum { JOBS_MOST = 256 };

typedef struct bench {
    fx_comm *world, *team[FX_GROUPS_MOST + 1]; /* this rank's team, by number of groups */
    fx_desk *desk;
    fx_groups policy;
    int lies;
    int64_t jobs, given, fail, end; /* end: the source has no more than this after all */
    int slow, groups, moves;        /* groups of this rank; how often they changed */
    int64_t made[JOBS_MOST];        /* on rank 0: how often a job came back */
    int64_t by_width[1025];         /* pictures by groups of so many ranks */
    int64_t after_failure;          /* jobs handed out after one had failed */
    bool failed;
} bench;

static size_t length_of(int64_t job)
{
    return job % 5 == 4 ? 0 : (size_t)(job * 7919 % 100003) + (job % 7 == 3 ? 1 << 20 : 0);
}

static void fill(unsigned char *at, size_t n, int64_t job, int way)
{
    for (size_t i = 0; i < n; i++)
        at[i] = (unsigned char)(job * 31 + (int64_t)i * 7 + way + (int64_t)(i >> 8));
}

static bool is_filled(const void *data, size_t n, int64_t job, int way)
{
    const unsigned char *at = data;
    size_t bad = 0;
    for (size_t i = 0; i < n; i++)
        bad += at[i] != (unsigned char)(job * 31 + (int64_t)i * 7 + way + (int64_t)(i >> 8));
    return bad == 0;
}

static int64_t waiting(void *ctx)
{
    bench *b = ctx;
    if (b->given == b->jobs) return -1;
    return b->given < b->end || b->lies++ < 3 ? b->jobs - b->given
                                              : -1; /* with `short`, more than there are */
}

static fx_status next(void *ctx, fx_desk_job *out)
{
    static unsigned char body[2 << 20];
    bench *b = ctx;
    out->number = -1;
    if (b->given >= b->jobs || b->given >= b->end) return FX_OK;
    b->after_failure += b->failed;
    out->number = b->given++;
    out->bytes = length_of(out->number);
    out->body = body;
    fill(body, out->bytes, out->number, 1);
    return FX_OK;
}

static fx_status done(void *ctx, const fx_desk_outcome *o)
{
    bench *b = ctx;
    const bool fails = o->number == b->fail;
    b->made[o->number]++;
    b->by_width[o->width]++;
    T_CHECK(o->width > 0 && o->first % o->width == 0 && b->policy.ranks % o->width == 0,
            "job %lld by %d from %d", (long long)o->number, o->width, o->first);
    if (fails) {
        T_CHECK(o->status == FX_ENUMERIC && strstr(o->text, "on purpose"), "job %lld: %s",
                (long long)o->number, o->text);
        b->failed = true;
        return FX_FAIL(FX_ENUMERIC, "%s", o->text);
    }
    T_CHECK(!o->status && o->bytes == length_of(o->number + 1) && is_filled(o->body, o->bytes, o->number, 2),
            "result of job %lld", (long long)o->number);
    return FX_OK;
}

static fx_status move(void *ctx, int groups, fx_comm **team)
{
    bench *b = ctx;
    const int rank = fx_comm_rank(b->world), width = b->policy.ranks / groups;
    T_CHECK(b->policy.groups % groups == 0 && (!b->groups || (b->groups > groups && b->groups % groups == 0)),
            "from %d to %d groups", b->groups, groups);
    b->moves++;
    b->groups = groups;
    T_CHECK(b->team[groups] && fx_comm_size(b->team[groups]) == width &&
                fx_comm_rank(b->team[groups]) == rank % width,
            "one of %d groups", groups);
    *team = b->team[groups];
    return FX_OK;
}

static fx_status make(void *ctx, const fx_desk_job *job, fx_desk_buffer *result)
{
    bench *b = ctx;
    fx_comm *team = b->team[b->groups];
    const int rank = fx_comm_rank(b->world), width = fx_comm_size(team);
    const bool slow = b->slow >= 0 && b->slow / width == rank / width;
    int64_t number[2] = {job->number, -job->number};
    T_CHECK(job->bytes == length_of(job->number) && is_filled(job->body, job->bytes, job->number, 1),
            "job %lld", (long long)job->number);
    for (int step = 0; step < 4; step++) { /* the team alone talks, and its first rank looks at the desk */
        usleep((useconds_t)(job->number * 37 % 5 * 1000 + 500) * (slow ? 10 : 1));
        FX_TRY(fx_comm_all_reduce_i64(team, FX_MAX, number, 2));
        fx_desk_tick(b->desk);
    }
    T_CHECK(number[0] == job->number && number[1] == -job->number, "the team makes one job, not two");
    fx_status st = FX_OK;
    if (job->number == b->fail && fx_comm_rank(team) == width - 1)
        st = FX_FAIL(FX_ENUMERIC, "job failed on purpose");
    FX_TRY(fx_comm_vote(team, st, NULL));
    if (fx_comm_rank(team)) return FX_OK;
    result->bytes = length_of(job->number + 1);
    result->data = malloc(result->bytes + 1);
    fill(result->data, result->bytes, job->number, 2);
    return FX_OK;
}

static void open_teams(bench *b, int groups)
{
    int number[FX_GROUPS_WIDTHS];
    const int n = fx_groups_widths(groups, number), rank = fx_comm_rank(b->world);
    for (int i = 0; i < n; i++)
        T_OK(fx_comm_split(b->world, rank / (b->policy.ranks / number[i]), rank, &b->team[number[i]]));
}

/* What rank 0 saw in the end. */
static void check_list(const bench *b)
{
    fx_groups_stage stage[FX_GROUPS_WIDTHS];
    const int stages = fx_groups_stages(&b->policy, b->jobs, stage);
    int64_t want[1025] = {0}, made = 0;
    for (int64_t i = 0; i < b->jobs; i++) {
        made += b->made[i];
        T_CHECK(b->made[i] <= 1, "job %lld was made %lld times", (long long)i, (long long)b->made[i]);
    }
    T_CHECK(b->after_failure == 0, "%lld jobs were handed out after a failure", (long long)b->after_failure);
    if (b->fail >= 0) {
        T_CHECK(b->made[b->fail] == 1, "the job that fails came back");
        return;
    }
    T_CHECK(made == (b->jobs < b->end ? b->jobs : b->end), "%lld jobs came back", (long long)made);
    if (b->jobs > b->end) return;
    for (int i = 0; i < stages; i++) want[b->policy.ranks / stage[i].groups] += stage[i].pictures;
    for (int w = 1; w <= b->policy.ranks; w++)
        T_CHECK(b->by_width[w] == want[w], "%lld jobs by %d ranks, want %lld", (long long)b->by_width[w], w,
                (long long)want[w]);
}

static void run(bench *b)
{
    const fx_desk_calls calls = {
        .ctx = b, .waiting = waiting, .next = next, .done = done, .move = move, .make = make};
    const int64_t groups = fx_groups_next(&b->policy, b->policy.groups, b->jobs ? b->jobs : 1).groups;
    open_teams(b, (int)groups);
    T_OK(fx_desk_open(b->world, &b->policy, (int)groups, &calls, &b->desk));
    if (!b->desk) return;
    const fx_status st = fx_desk_run(b->desk);
    if (b->fail >= 0 && b->fail < b->end) { /* on all ranks alike; one answers for it */
        T_CHECK(st == FX_ENUMERIC && strstr(fx_error(), "on purpose"), "%s", fx_error());
        T_CHECK(fx_comm_culprit(b->world) % 2 == 1, "rank %d failed",
                fx_comm_culprit(b->world)); /* last of its team */
    } else
        T_OK(st);
    if (fx_comm_rank(b->world) == 0) check_list(b);
    fx_desk_close(&b->desk);
    T_OK(fx_comm_barrier(b->world));
    for (int g = 1; g <= b->policy.groups; g++) fx_comm_close(&b->team[g]);
}

static int64_t option(int argc, char **argv, const char *name, int64_t fallback)
{
    const size_t n = strlen(name);
    for (int i = 4; i < argc; i++)
        if (!strncmp(argv[i], name, n) && argv[i][n] == '=') return atoll(argv[i] + n + 1);
    return fallback;
}

int main(int argc, char **argv)
{
    static bench b;
    if (argc < 4 || fx_comm_open("auto", 20, &b.world)) {
        printf("usage: check_desk GROUPS MERGE JOBS [fail=N] [short=N] [slow=RANK]: %s\n", fx_error());
        return 1;
    }
    T_OK(fx_groups_make(fx_comm_size(b.world), atoi(argv[1]), atoll(argv[2]), &b.policy));
    b.jobs = atoll(argv[3]);
    b.fail = option(argc, argv, "fail", -1);
    b.end = option(argc, argv, "short", JOBS_MOST);
    b.slow = (int)option(argc, argv, "slow", -1);
    if (b.jobs <= JOBS_MOST && !test_failed) run(&b);
    const int rc = test_end_ranks(b.world, "check_desk");
    fx_comm_finish(&b.world);
    return rc;
}
