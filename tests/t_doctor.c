/* What `fluxpar doctor` makes of its measurements (launch/doctor/judge.c), and who measures with whom: pure functions, so racks
 * and broken devices need not be there. */
#include "launch/doctor/doctor.h"
#include "tests/test.h"

enum { MOST = 80 };
static fx_surround of[MOST];
static fx_scene scene;
static fx_findings found;

/* So many ranks, four to a node. */
static void ranks(int n)
{
    memset(of, 0, sizeof of);
    for (int r = 0; r < n; r++) {
        snprintf(of[r].host, sizeof of[r].host, "node%d", r / 4);
        of[r].local_ranks = 4;
        of[r].imex = 1;
        of[r].card.total_bytes = (uint64_t)80 << 30;
        snprintf(of[r].card.uuid, sizeof of[r].card.uuid, "GPU-%d", r);
    }
    scene = (fx_scene){.ranks = n,
                       .devices = true,
                       .threads = 0,
                       .node_bytes = 0,
                       .rank_bytes = 0,
                       .device_bytes = 0,
                       .of = of};
}

/* So many findings; the first is of that level and has these words. Then they are forgotten. */
static void expect(const char *what, int n, fx_found_level level, const char *words)
{
    char text[1100] = "";
    const fx_finding *one = &found.list[0];
    if (found.n) snprintf(text, sizeof text, "%s; %s; %s", one->what, one->why, one->fix);
    T_CHECK(found.n == n && (!n || (one->level == level && strstr(text, words))), "%s: %d findings: %s", what,
            found.n, text);
    found = (fx_findings){.n = 0};
}

/* ---- who measures with whom ---- */

static void check_pairs(void)
{
    static unsigned char met[MOST][MOST];
    for (int n = 1; n <= MOST; n++) {
        int bad = 0, busiest = 0;
        memset(met, 0, sizeof met);
        for (int round = 0; round < fx_wire_rounds(n); round++) {
            int busy = 0;
            for (int r = 0; r < n; r++) {
                const int peer = fx_wire_partner(n, round, r);
                if (peer < 0) continue;
                bad += peer >= n || peer == r || fx_wire_partner(n, round, peer) != r;
                met[r][peer < n ? peer : 0]++;
                busy++;
            }
            busiest = busy > busiest ? busy : busiest;
        }
        for (int a = 0; a < n; a++)
            for (int b = 0; b < n; b++) bad += met[a][b] != (a != b);
        T_CHECK(!bad, "%d ranks: %d faults", n, bad);
        T_CHECK(busiest == (n < 2 ? 0 : n <= 8 ? 2 : n / 2 * 2), "%d ranks: %d at a time", n, busiest);
    }
}

/* ---- messages ---- */

static fx_wire_cell cells[MOST * MOST];
static fx_wire_table table;

static void even_table(int n)
{
    ranks(n);
    table = (fx_wire_table){.name = "MPI", .fault = "", .ranks = n, .cell = cells};
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++)
            cells[a * n + b] = (fx_wire_cell){.latency_s = a == b ? -1 : 1e-6,
                                              .rate = a == b           ? 0
                                                      : a / 4 == b / 4 ? 8e9
                                                                       : 2e9,
                                              .wrong = 0};
}

static void check_wires(void)
{
    even_table(8);
    fx_judge_wires(&scene, &table, &found);
    expect("even", 0, FX_FOUND_NOTE, "");
    cells[2 * 8 + 5].wrong = 3;
    fx_judge_wires(&scene, &table, &found);
    expect("wrong bytes", 1, FX_FOUND_FAILURE,
           "MPI: 3 of 8388608 bytes from rank 5 (node1) to rank 2 (node0) are wrong");
    even_table(8);
    cells[1 * 8 + 3].rate = 1e9; /* an eighth of the others of its node; half of those between nodes */
    cells[3 * 8 + 1].rate = 0.9e9;
    fx_judge_wires(&scene, &table, &found);
    expect("slow within a node", 1, FX_FOUND_WARNING, "between rank 3 (node0) and rank 1 (node0) 900 MB/s");
    cells[1 * 8 + 3].rate = 1.01e9;
    cells[3 * 8 + 1].rate = 1.01e9;
    fx_judge_wires(&scene, &table, &found);
    expect("not slow enough", 0, FX_FOUND_NOTE, "");
    even_table(8);
    cells[0 * 8 + 7].rate = 1e8;
    fx_judge_wires(&scene, &table, &found);
    expect("slow between nodes", 1, FX_FOUND_WARNING,
           "rank 0 (node0) and rank 7 (node1) 100 MB/s, where the middle pair has 2000");
    even_table(2);
    cells[1].rate = 1;
    fx_judge_wires(&scene, &table, &found);
    expect("two ranks have nothing to compare with", 0, FX_FOUND_NOTE, "");
    table.cell = NULL;
    snprintf(table.fault, sizeof table.fault, "NCCL: unhandled");
    fx_judge_wires(&scene, &table, &found);
    expect("not measured", 1, FX_FOUND_FAILURE, "MPI: no messages; NCCL: unhandled");
}

/* ---- network ---- */

static fx_network net;

/* lo is left out before; docker0 leads nowhere. */
static void three_faces(void)
{
    ranks(12);
    net = (fx_network){.faces = 3, .asked = 2};
    net.face[0] = (fx_face){.name = "docker0", .address = "172.17.0.1", .family = 2, .speed = 0, .port = 1};
    net.face[1] = (fx_face){.name = "eth0", .address = "10.0.0.1", .family = 2, .speed = 1000, .port = 2};
    net.face[2] = (fx_face){.name = "ib0", .address = "10.1.0.1", .family = 2, .speed = 100000, .port = 3};
    net.reached[1] = net.reached[2] = 2;
    net.missing[0] = 8;
    net.missing[1] = net.missing[2] = -1;
}

static void with_setting(const char *setting, int n, fx_found_level level, const char *words)
{
    three_faces();
    snprintf(of[0].interface, sizeof of[0].interface, "%s", setting);
    fx_judge_network(&scene, 3, &net, &found);
    expect(setting, n, level, words);
}

static void check_network(void)
{
    with_setting("", 1, FX_FOUND_WARNING,
                 "interface docker0 (172.17.0.1) of node0 is not reached by rank 8 (node2)");
    with_setting("", 1, FX_FOUND_WARNING, "NCCL_SOCKET_IFNAME='=ib0'");
    with_setting("ib", 0, FX_FOUND_NOTE, "");
    with_setting("=eth0", 0, FX_FOUND_NOTE, "");
    with_setting("=eth", 1, FX_FOUND_FAILURE, "NCCL_SOCKET_IFNAME==eth names no interface of node0");
    with_setting("bond,eth", 0, FX_FOUND_NOTE, "");
    with_setting("docker", 1, FX_FOUND_FAILURE, "use NCCL_SOCKET_IFNAME='=ib0'");
    with_setting("^docker", 0, FX_FOUND_NOTE, "");
    with_setting("^eth,ib", 1, FX_FOUND_FAILURE, "names no interface");
    three_faces();
    fx_judge_network(&scene, 1, &net, &found);
    expect("one node needs none", 0, FX_FOUND_NOTE, "");
    net.reached[1] = net.reached[2] = 1;
    fx_judge_network(&scene, 3, &net, &found);
    expect("none for all", 1, FX_FOUND_FAILURE, "no interface of node0 is reached by all 2 other nodes");
    scene.devices = false;
    fx_judge_network(&scene, 3, &net, &found);
    expect("MPI met all the same", 1, FX_FOUND_WARNING, "open the firewall");
    net.faces = 0;
    fx_judge_network(&scene, 3, &net, &found);
    expect("no interface", 1, FX_FOUND_WARNING, "0 interfaces were tried");
}

/* ---- devices ---- */

static fx_node_pings pings;

static void even_pings(int n)
{
    ranks(8);
    memset(&pings, 0, sizeof pings);
    pings.first = 4;
    pings.devices = n;
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++)
            pings.cell[a * FX_PINGS + b] = (fx_ping_cell){.seconds = 1e-4,
                                                          .bytes = 1 << 24,
                                                          .wrong = 0,
                                                          .kind = a == b ? FX_LINK_SELF : FX_LINK_NVLINK};
}

static void check_copies(void)
{
    even_pings(4);
    fx_judge_pings(&scene, &pings, &found);
    expect("even", 0, FX_FOUND_NOTE, "");
    pings.cell[2 * FX_PINGS + 3].wrong = 7;
    fx_judge_pings(&scene, &pings, &found);
    expect("wrong bytes", 1, FX_FOUND_FAILURE,
           "device 2 to device 3 of node1: 7 of 16777216 bytes are wrong");
    even_pings(4);
    pings.cell[0 * FX_PINGS + 2].kind = pings.cell[2 * FX_PINGS].kind = FX_LINK_NONE;
    fx_judge_pings(&scene, &pings, &found);
    expect("no peer access", 1, FX_FOUND_WARNING,
           "device 0 of node1 does not reach the memory of device 2 (2 such pairs)");
    even_pings(4);
    snprintf(pings.fault, sizeof pings.fault, "a copy from device 1 to device 0 did not end within 10 s");
    fx_judge_pings(&scene, &pings, &found);
    expect("hangs", 1, FX_FOUND_FAILURE, "did not end within 10 s");
}

static fx_device_health health[MOST];

/* Of one rack in one clique, or of nodes whose fabric ends at the node. */
static void healthy(int n, bool rack)
{
    ranks(n);
    memset(health, 0, sizeof health);
    for (int r = 0; r < n; r++) {
        health[r].fabric = FX_FABRIC_DONE;
        health[r].links = health[r].links_active = 18;
        snprintf(health[r].driver, sizeof health[r].driver, "580.1");
        snprintf(health[r].cluster, sizeof health[r].cluster, "%s",
                 rack ? "00112233445566778899aabbccddeeff" : "00000000000000000000000000000000");
    }
}

static void expect_health(const char *what, int nodes, int n, fx_found_level level, const char *words)
{
    fx_judge_health(&scene, nodes, health, &found);
    expect(what, n, level, words);
}

static void check_fabric(void)
{
    healthy(72, true);
    expect_health("a rack", 18, 0, FX_FOUND_NOTE, "");
    of[6].imex = 0;
    expect_health("no IMEX channel", 18, 1, FX_FOUND_WARNING,
                  "node1 has no IMEX channel that rank 6 can open");
    expect_health("on one node it is not needed", 1, 0, FX_FOUND_NOTE, "");
    healthy(72, true);
    health[71].clique = 2;
    expect_health("two cliques", 18, 1, FX_FOUND_WARNING,
                  "rank 0 (node0) and rank 71 (node17) are in different");
    healthy(72, true);
    health[40].cluster[0] = 'f';
    expect_health("two racks", 18, 1, FX_FOUND_WARNING, "rank 40 (node10) are in different NVLink domains");
    healthy(16, false);
    for (int r = 0; r < 16; r++) of[r].imex = 0;
    expect_health("nodes without a common fabric", 4, 0, FX_FOUND_NOTE, "");
    health[3].fabric = FX_FABRIC_IN_PROGRESS;
    expect_health("not registered", 4, 1, FX_FOUND_FAILURE,
                  "rank 3 (node0) is not registered with NVLink's fabric (in progress)");
    health[3].fabric = FX_FABRIC_NOT_STARTED;
    expect_health("not started", 4, 1, FX_FOUND_FAILURE, "nvidia-fabricmanager");
    health[3].fabric = FX_FABRIC_DONE;
    health[3].fabric_error = 999;
    expect_health("failed", 4, 1, FX_FOUND_FAILURE, "(NVML error 999)");
}

static void check_health(void)
{
    healthy(8, false);
    health[5].links_active = 17;
    expect_health("a link is down", 2, 1, FX_FOUND_WARNING,
                  "rank 5 (node1) has 17 of 18 NVLinks up, others have 18");
    healthy(8, false);
    health[2].used_bytes = (uint64_t)2 << 30;
    expect_health("our own memory", 2, 0, FX_FOUND_NOTE, "");
    health[2].first_process = 8123;
    expect_health("somebody else's", 2, 1, FX_FOUND_WARNING,
                  "2.0 of 80.0 GiB are used on the device of rank 2 (node0), by process 8123");
    health[2].used_bytes--;
    expect_health("little", 2, 0, FX_FOUND_NOTE, "");
    healthy(8, false);
    for (int r = 4; r < 8; r++) snprintf(health[r].driver, sizeof health[r].driver, "570.9");
    expect_health("two drivers", 2, 1, FX_FOUND_WARNING, "node0 has driver 580.1 and node1 has 570.9");
    healthy(4, false);
    for (int r = 0; r < 4; r++) {
        health[r] = (fx_device_health){.fabric = FX_FABRIC_UNKNOWN, .links = -1, .links_active = -1};
        snprintf(health[r].fault, sizeof health[r].fault, "no library");
    }
    expect_health("nobody knows", 1, 1, FX_FOUND_NOTE, "of the devices of node0 only CUDA tells; no library");
}

int main(void)
{
    check_pairs();
    check_wires();
    check_network();
    check_copies();
    check_fabric();
    check_health();
    return test_end("t_doctor");
}
