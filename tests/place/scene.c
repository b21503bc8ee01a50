/* Every check of a scene with facts that break it and with facts that just do not; how ranks are bound. Part of t_place. */
#include "launch/place/judge.h"
#include "tests/place/scene.h"
#include "tests/test.h"

#define GIB ((int64_t)1 << 30)
#define MIB ((int64_t)1 << 20)

enum { RANKS = 4 };
static fx_surround of[RANKS];
static fx_scene scene;

/* Four ranks on two nodes of 64 cores, a GPU each, nothing wrong. */
static void fine(bool devices)
{
    memset(of, 0, sizeof of);
    for (int r = 0; r < RANKS; r++) {
        fx_surround *s = &of[r];
        snprintf(s->host, sizeof s->host, "node%d", r / 2);
        s->rank = r;
        s->local_rank = r % 2;
        s->local_ranks = 2;
        s->online = s->allowed = 64;
        s->numa_nodes = 2;
        s->device_numa = r % 2;
        snprintf(s->allowed_list, sizeof s->allowed_list, "0-63");
        s->quota = -1;
        s->memory_total = 256 * GIB;
        s->memory_free = 200 * GIB;
        s->group_free = s->address_free = -1;
        s->shm_total = s->shm_free = 64 * GIB;
        s->stack_limit = s->thread_stack = 8 * MIB;
        s->visible = devices ? 2 : -1;
        if (!devices) continue;
        s->card.visible = 2;
        s->card.ordinal = r % 2;
        s->card.driver = 13000;
        snprintf(s->card.name, sizeof s->card.name, "Some GPU");
        snprintf(s->card.uuid, sizeof s->card.uuid, "GPU-%08d", r);
    }
    scene = (fx_scene){.ranks = RANKS,
                       .devices = devices,
                       .threads = 0,
                       .node_bytes = 0,
                       .rank_bytes = 0,
                       .device_bytes = 0,
                       .of = of};
}

static const fx_findings *judge(void)
{
    static fx_findings f;
    f = (fx_findings){.n = 0};
    fx_judge_scene(&scene, &f);
    return &f;
}

static void expect_none(const char *what)
{
    const fx_findings *f = judge();
    T_CHECK(!f->n, "%s: %s", what, f->list[0].what);
}

/* Exactly one finding, of that level and topic, with these words in all of its text. */
static void expect(const char *what, fx_found_level level, const char *topic, const char *words)
{
    char text[1100];
    const fx_findings *f = judge();
    const fx_finding *one = &f->list[0];
    snprintf(text, sizeof text, "%s; %s; %s", one->what, one->why, one->fix);
    T_CHECK(f->n == 1 && one->level == level && !strcmp(one->topic, topic) && strstr(text, words),
            "%s: %d findings: %s %s: %s", what, f->n, fx_level_name(one->level), one->topic, text);
    T_CHECK(one->what[0] && one->why[0] && one->fix[0], "%s: what, why and what to do", what);
    const fx_status st = fx_findings_status(f);
    T_CHECK((st != FX_OK) == (level == FX_FOUND_FAILURE), "%s: status %d", what, (int)st);
    if (st != FX_OK) T_CHECK(!strcmp(fx_error(), text), "%s: '%s'", what, fx_error());
}

static void check_cores(void)
{
    fine(false);
    expect_none("fine on the CPU");
    of[1].allowed = 1;
    expect("one rank on one core", FX_FOUND_WARNING, "cores",
           "rank 1 may use 1 core of node0's 64 (1 of its 2 ranks");
    of[0].allowed = 1;
    expect("a node on one core each", FX_FOUND_WARNING, "cores", "--cpus-per-task=32");
    scene.threads = 1;
    expect_none("one thread was asked for");
    fine(false);
    of[0].allowed = of[1].allowed = 1;
    of[0].online = of[1].online = 3;
    expect_none("a core is a fair share of three");
    fine(false);
    of[2].quota = 40;
    of[2].allowed = 40;
    expect_none("a quota that suffices");
    of[2].allowed = 64;
    expect("a quota below the threads", FX_FOUND_WARNING, "cores",
           "has the time of 40 cores (cgroup cpu quota)");
    scene.threads = 20;
    expect_none("as many threads as the quota");
    scene.threads = 21;
    expect("one more", FX_FOUND_WARNING, "cores", "--threads 20");
    fine(false);
    of[0].online = of[1].online = 1;
    of[0].allowed = of[1].allowed = 1;
    expect("more ranks than cores", FX_FOUND_NOTE, "cores", "2 ranks share the 1 cores of node0");
}

static void check_memory(void)
{
    fine(false);
    scene.node_bytes = 100 * GIB;
    scene.rank_bytes = 50 * GIB;
    expect_none("exactly enough");
    scene.rank_bytes++;
    of[2].memory_free += GIB;
    expect("too little", FX_FOUND_FAILURE, "memory",
           "200.00 GiB of host memory are needed on node0 and 200.00 GiB are there");
    fine(false);
    scene.node_bytes = 30 * GIB;
    of[0].group_free = 20 * GIB;
    expect("too little in a group", FX_FOUND_FAILURE, "memory",
           "memory limit of the container or job (cgroup)");
    T_CHECK(judge()->list[0].code == FX_ENOMEM, "exit code 8");
    of[0].group_free = 40 * GIB;
    expect("a limit is told", FX_FOUND_NOTE, "memory", "node0 has 40.00 GiB for its ranks");
    of[0].group_free = 150 * GIB;
    expect_none("a wide limit");
    fine(true);
    scene.device_bytes = 30 * (uint64_t)GIB;
    for (int r = 0; r < RANKS; r++) of[r].card.total_bytes = 30 * (uint64_t)GIB;
    expect_none("weights that just fit");
    of[2].card.total_bytes--;
    expect("weights larger than the device", FX_FOUND_FAILURE, "memory",
           "30.00 GiB on each device and those of node1 have");
    fine(true);
    of[2].address_free = 8 * GIB;
    expect("ulimit -v on a GPU", FX_FOUND_WARNING, "memory", "ulimit -v unlimited");
}

static void check_shm(void)
{
    fine(true);
    of[0].shm_free = 20 * MIB;
    expect_none("10 MiB for each pair");
    of[0].shm_free--;
    expect("small /dev/shm", FX_FOUND_WARNING, "shm", "/dev/shm of node0 has 19 MiB free for 2 ranks");
    of[0].shm_free = 2 * MIB;
    expect("hardly any /dev/shm", FX_FOUND_WARNING, "shm", "--shm-size=1g");
    of[0].shm_free--;
    expect("too small for NCCL", FX_FOUND_FAILURE, "shm", "NCCL takes shared memory there and cannot start");
    of[0].shm_free = -1;
    expect("no /dev/shm", FX_FOUND_FAILURE, "shm", "has 0 MiB free");
    snprintf(of[0].settings, sizeof of[0].settings, "NCCL_SHM_DISABLE=1");
    expect("NCCL does without", FX_FOUND_WARNING, "settings", "NCCL_SHM_DISABLE=1 is set on node0");
    fine(false);
    of[2].shm_total = 10 * MIB;
    of[2].shm_free = 0; /* MPI has it already */
    expect_none("enough for MPI");
    of[2].shm_total--;
    expect("too small for MPI", FX_FOUND_WARNING, "shm", "/dev/shm of node1 has 9 MiB in all for 2 ranks");
}

static void check_stacks(void)
{
    fine(true);
    of[0].stack_limit = FX_NO_LIMIT;
    expect("unlimited stack", FX_FOUND_NOTE, "stack", "fluxpar gives them 8 MiB");
    fine(true);
    of[2].thread_stack = 2 * MIB;
    expect("small stacks", FX_FOUND_WARNING, "stack", "threads on node1 have stacks of 2048 KiB");
}

static void check_devices(void)
{
    fine(true);
    expect_none("fine on GPUs");
    memcpy(of[1].card.uuid, of[0].card.uuid, sizeof of[0].card.uuid);
    snprintf(of[0].visible_env, sizeof of[0].visible_env, "0");
    expect("a shared device", FX_FOUND_FAILURE, "devices",
           "ranks 0 and 1 both use GPU-00000000 (Some GPU) of node0");
    T_CHECK(judge()->list[0].code == FX_EDEVICE && strstr(judge()->list[0].why, "CUDA_VISIBLE_DEVICES=0"),
            "%s", judge()->list[0].why);
    fine(true);
    memcpy(of[2].card.uuid, of[0].card.uuid, sizeof of[0].card.uuid);
    expect_none("the same number on another node");
    of[2].visible = of[3].visible = 1;
    expect("one visible device per rank", FX_FOUND_WARNING, "devices",
           "rank 2 sees 1 device and 2 ranks run on node1");
    fine(true);
    snprintf(of[3].device_fault, sizeof of[3].device_fault, "fell off the bus");
    expect("no device", FX_FOUND_FAILURE, "devices", "rank 3 has no device on node1; fell off the bus");
    fine(true);
    snprintf(of[3].card.name, sizeof of[3].card.name, "Another GPU");
    expect("two kinds", FX_FOUND_WARNING, "devices", "rank 0 has a Some GPU and rank 3 a Another GPU");
    fine(true);
    of[2].card.driver = 12080;
    expect("two drivers", FX_FOUND_WARNING, "devices", "CUDA 13.0 and that of rank 2's for 12.8");
    fine(true);
    snprintf(of[2].settings, sizeof of[2].settings, "NCCL_ALGO=Ring NCCL_P2P_DISABLE=1");
    expect("a harmful setting", FX_FOUND_WARNING, "settings", "it switches a fast way between devices off");
    snprintf(of[2].settings, sizeof of[2].settings, "NCCL_P2P_DISABLE=0 NCCL_ALGO=Ring");
    expect("another setting", FX_FOUND_NOTE, "settings", "it changes the ways");
    scene.ranks = 1;
    of[0].local_ranks = 1;
    snprintf(of[0].settings, sizeof of[0].settings, "NCCL_P2P_DISABLE=1");
    expect_none("of one rank nothing travels");
}

static void check_many(void)
{
    static fx_surround many[200];
    char text[64];
    fine(false);
    for (int r = 0; r < 200; r++) {
        many[r] = of[0];
        snprintf(many[r].host, sizeof many[r].host, "n%d", r / 2);
        many[r].allowed = 1;
    }
    scene.ranks = 200;
    scene.of = many;
    const fx_findings *f = judge();
    T_CHECK(f->n == FX_FINDINGS && f->left_out == 100 - FX_FINDINGS, "%d kept, %d left out", f->n,
            f->left_out);
    fx_ranks_of_node(&scene, 199, text, sizeof text);
    T_CHECK(!strcmp(text, "198-199") && fx_first_of_node(&scene, 199) == 198, "%s", text);
    for (int r = 0; r < 200; r++) snprintf(many[r].host, sizeof many[r].host, "n%d", r % 2);
    fx_ranks_of_node(&scene, 1, text, sizeof text);
    T_CHECK(strlen(text) < sizeof text && !strncmp(text, "1,3,5,7,", 8), "%s", text);
}

/* ---- binding ---- */

static void expect_bound(const char *what, int rank, const char *bind, int number, int parts)
{
    const fx_binding b = fx_binding_of(&scene, rank, bind);
    T_CHECK(b.parts == parts && (parts < 0 || b.number == number) && (b.why != NULL) == (parts < 0),
            "%s: %d of %d (%s)", what, b.number, b.parts, b.why ? b.why : "");
}

static void check_binding(void)
{
    fine(false);
    expect_bound("second of its node", 1, "auto", 1, 2);
    expect_bound("first of another node", 2, "auto", 0, 2);
    expect_bound("off", 1, "off", 0, -1);
    scene.threads = 32;
    expect_bound("as many threads as cores", 1, "auto", 1, 2);
    scene.threads = 33;
    expect_bound("more", 1, "auto", 0, -1);
    fine(false);
    snprintf(of[1].allowed_list, sizeof of[1].allowed_list, "32-63");
    expect_bound("cores of its own", 1, "auto", 0, -1);
    expect_bound("the other too", 0, "auto", 0, -1);
    fine(false);
    snprintf(of[1].openmp, sizeof of[1].openmp, "OMP_PLACES");
    expect_bound("the user places threads", 1, "auto", 0, -1);
    fine(true);
    expect_bound("the device's node", 3, "auto", 1, 0);
    of[3].device_numa = -1;
    expect_bound("unknown: a share", 3, "auto", 1, 2);
    fine(true);
    of[0].numa_nodes = 1;
    expect_bound("one NUMA node: a share", 0, "auto", 0, 2);
}

void check_scenes(void)
{
    check_cores();
    check_memory();
    check_shm();
    check_stacks();
    check_devices();
    check_many();
    check_binding();
}
