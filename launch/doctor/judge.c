/* What was measured means; see doctor.h. Wrong bytes and what stops a job are failures; what makes it slow is a warning. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/doctor/doctor.h"

/* ---- messages between ranks ---- */

static bool near(const fx_scene *s, int a, int b)
{
    return !strcmp(s->of[a].host, s->of[b].host);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The middle rate of the pairs within nodes or between them; 0: too few to compare. */
static double middle_rate(const fx_scene *s, const fx_wire_table *t, bool inside)
{
    const size_t most = (size_t)t->ranks * (size_t)t->ranks;
    double *rates = calloc(most, sizeof *rates), middle = 0;
    size_t n = 0;
    for (int a = 0; rates && a < t->ranks; a++)
        for (int b = 0; b < t->ranks; b++)
            if (a != b && near(s, a, b) == inside && t->cell[a * t->ranks + b].rate > 0)
                rates[n++] = t->cell[a * t->ranks + b].rate;
    if (n >= 4) {
        qsort(rates, n, sizeof *rates, by_value);
        middle = rates[n / 2];
    }
    free(rates);
    return middle;
}

/* A pair far below its likes: the slowest is named, the others are counted. */
static void judge_slow(const fx_scene *s, const fx_wire_table *t, bool inside, fx_findings *out)
{
    const double middle = middle_rate(s, t, inside);
    int from = -1, to = -1, more = -1;
    for (int a = 0; a < t->ranks; a++)
        for (int b = 0; b < t->ranks; b++) {
            const double rate = t->cell[a * t->ranks + b].rate;
            if (a == b || near(s, a, b) != inside || rate <= 0 || rate * 8 > middle) continue;
            more++;
            if (from < 0 || rate < t->cell[from * t->ranks + to].rate) from = a, to = b;
        }
    if (from >= 0)
        fx_find(out, FX_FOUND_WARNING, FX_ECOMM, "link",
                "%s: between rank %d (%s) and rank %d (%s) %.0f MB/s, where the middle pair has %.0f (%d "
                "more like it)\nall "
                "ranks wait for the slowest pair in every block\nlook for other jobs, a broken cable or card "
                "there, or leave the "
                "node out ('sbatch --exclude')",
                t->name, from, s->of[from].host, to, s->of[to].host, t->cell[from * t->ranks + to].rate / 1e6,
                middle / 1e6, more);
}

void fx_judge_wires(const fx_scene *s, const fx_wire_table *t, fx_findings *out)
{
    if (t->fault[0])
        fx_find(out, FX_FOUND_FAILURE, FX_ECOMM, "link",
                "%s: no messages\n%s\nmend that, or use --backend cpu", t->name, t->fault);
    if (!t->cell) return;
    for (int a = 0; a < t->ranks; a++)
        for (int b = 0; b < t->ranks; b++) {
            const fx_wire_cell *c = &t->cell[a * t->ranks + b];
            if (c->wrong)
                fx_find(out, FX_FOUND_FAILURE, FX_ECOMM, "link",
                        "%s: %llu of %d bytes from rank %d (%s) to rank %d (%s) are wrong\npictures would be "
                        "wrong too, without "
                        "a word\ntry another way (--exchange nccl, NCCL_P2P_DISABLE=1, another MPI "
                        "transport); between GPUs of "
                        "a node switch PCIe ACS and the IOMMU off; leave the node out",
                        t->name, (unsigned long long)c->wrong, FX_WIRE_LARGE, b, s->of[b].host, a,
                        s->of[a].host);
        }
    judge_slow(s, t, true, out);
    judge_slow(s, t, false, out);
}

/* ---- network ---- */

static bool named(const char *setting, const char *name)
{
    const bool exact = setting[0] == '=';
    const char *at = setting + (exact || setting[0] == '^');
    while (*at) {
        const size_t n = strcspn(at, ",");
        if (n && !strncmp(at, name, n) && (!exact || !name[n])) return setting[0] != '^';
        at += n + (at[n] == ',');
    }
    return setting[0] == '^';
}

/* The quickest interface by which all came through; -1: none. */
static int best_face(const fx_network *n)
{
    int best = -1;
    for (int i = 0; i < n->faces; i++)
        if (n->reached[i] == n->asked && (best < 0 || n->face[i].speed > n->face[best].speed)) best = i;
    return best;
}

void fx_judge_network(const fx_scene *s, int nodes, const fx_network *n, fx_findings *out)
{
    const int best = best_face(n);
    const char *setting = s->of[0].interface;
    bool allowed = !setting[0];
    if (nodes < 2 || !n->asked) return; /* ranks of a node need no network */
    for (int i = 0; i < n->faces; i++)
        allowed = allowed || (n->reached[i] == n->asked && named(setting, n->face[i].name));
    if (best < 0)
        fx_find(out, s->devices ? FX_FOUND_FAILURE : FX_FOUND_WARNING, FX_ECOMM, "network",
                "no interface of %s is reached by all %d other nodes\n%d interface%s tried over "
                "TCP%s%s\nopen the firewall between "
                "the nodes, or give them a common network",
                s->of[0].host, n->asked, n->faces, n->faces == 1 ? " was" : "s were",
                n->faces ? ", such as " : "", n->faces ? n->face[0].name : "");
    else if (!allowed)
        fx_find(out, s->devices ? FX_FOUND_FAILURE : FX_FOUND_WARNING, FX_ECOMM, "network",
                "NCCL_SOCKET_IFNAME=%s names no interface of %s that all nodes reach\nNCCL's start would "
                "wait and give up\nuse "
                "NCCL_SOCKET_IFNAME='=%s', or unset it",
                setting, s->of[0].host, n->face[best].name);
    for (int i = 0; i < n->faces && best >= 0 && !setting[0]; i++) {
        if (n->reached[i] == n->asked) continue;
        fx_find(out, FX_FOUND_WARNING, FX_ECOMM, "network",
                "interface %s (%s) of %s is not reached by rank %d (%s)\nNCCL and MPI may take it for their "
                "first "
                "connections\nuse NCCL_SOCKET_IFNAME='=%s' and 'mpirun --mca btl_tcp_if_include %s'",
                n->face[i].name, n->face[i].address, s->of[0].host, n->missing[i],
                n->missing[i] >= 0 && n->missing[i] < s->ranks ? s->of[n->missing[i]].host : "?",
                n->face[best].name, n->face[best].name);
        return;
    }
}

/* ---- devices ---- */

static void judge_ping(const fx_scene *s, const fx_node_pings *p, int a, int b, fx_findings *out)
{
    const fx_ping_cell *c = &p->cell[a * FX_PINGS + b];
    if (!c->wrong) return;
    fx_find(out, FX_FOUND_FAILURE, FX_EDEVICE, "link",
            "device %d to device %d of %s: %llu of %llu bytes are wrong\nPCIe's ACS or the IOMMU is likely "
            "between them, and copies "
            "between devices go astray\nswitch ACS and the IOMMU off, or use --exchange nccl with "
            "NCCL_P2P_DISABLE=1",
            a, b, s->of[p->first].host, (unsigned long long)c->wrong, (unsigned long long)c->bytes);
}

void fx_judge_pings(const fx_scene *s, const fx_node_pings *p, fx_findings *out)
{
    int none = 0, from = 0, to = 0;
    bool fast = false;
    const char *host = s->of[p->first].host;
    if (p->fault[0])
        fx_find(out, FX_FOUND_FAILURE, FX_EDEVICE, "link",
                "copies between devices of %s fail\n%s\nlook at 'nvidia-smi' and the kernel's log (Xid) "
                "there; reset the device or "
                "leave the node out",
                host, p->fault);
    for (int a = 0; a < p->devices; a++)
        for (int b = 0; b < p->devices; b++) {
            if (a == b) continue;
            judge_ping(s, p, a, b, out);
            fast = fast || p->cell[a * FX_PINGS + b].kind == FX_LINK_NVLINK;
            if (p->cell[a * FX_PINGS + b].kind != FX_LINK_NONE) continue;
            if (!none++) from = a, to = b;
        }
    if (none)
        fx_find(out, FX_FOUND_WARNING, FX_EDEVICE, "link",
                "device %d of %s does not reach the memory of device %d (%d such pairs)\ntheir rows go "
                "through host memory, several "
                "times slower%s\nlook at 'nvidia-smi topo -p2p r'; virtual machines and PCIe's ACS forbid it",
                from, host, to, none, fast ? " than NVLink between the others" : "");
}

static void judge_fabric(const fx_scene *s, int r, const fx_device_health *h, fx_findings *out)
{
    const char *host = s->of[r].host;
    if (h->fabric == FX_FABRIC_NOT_STARTED || h->fabric == FX_FABRIC_IN_PROGRESS)
        fx_find(out, FX_FOUND_FAILURE, FX_EDEVICE, "fabric",
                "the device of rank %d (%s) is not registered with NVLink's fabric (%s)\nCUDA does not start "
                "on it until it "
                "is\nstart or restart nvidia-fabricmanager there; see 'nvidia-smi -q | grep -A3 Fabric'",
                r, host, h->fabric == FX_FABRIC_NOT_STARTED ? "not started" : "in progress");
    else if (h->fabric == FX_FABRIC_DONE && h->fabric_error)
        fx_find(out, FX_FOUND_FAILURE, FX_EDEVICE, "fabric",
                "the device of rank %d (%s) failed to register with NVLink's fabric (NVML error %d)\nNVLink "
                "does not carry "
                "its rows\nrestart nvidia-fabricmanager there, or reset the device",
                r, host, h->fabric_error);
}

static bool in_rack(const fx_device_health *h)
{
    return h->fabric == FX_FABRIC_DONE && h->cluster[0] && strspn(h->cluster, "0") != strlen(h->cluster);
}

/* Several nodes that one NVLink domain could join. */
static void judge_rack(const fx_scene *s, const fx_device_health *h, fx_findings *out)
{
    int apart = -1, closed = -1;
    for (int r = 0; r < s->ranks; r++) {
        if (!in_rack(&h[r])) return;
        if (apart < 0 && (strcmp(h[r].cluster, h[0].cluster) || h[r].clique != h[0].clique)) apart = r;
        if (closed < 0 && !s->of[r].imex) closed = r;
    }
    if (closed >= 0)
        fx_find(out, FX_FOUND_WARNING, FX_EDEVICE, "fabric",
                "%s has no IMEX channel that rank %d can open "
                "(/dev/nvidia-caps-imex-channels/channel0)\nwithout it the nodes of "
                "the rack talk over the network instead of NVLink\nask for a channel in the site's Slurm "
                "prolog, and for "
                "nvidia-imex on all nodes ('nvidia-imex-ctl -N')",
                s->of[closed].host, closed);
    if (apart >= 0)
        fx_find(out, FX_FOUND_WARNING, FX_EDEVICE, "fabric",
                "rank 0 (%s) and rank %d (%s) are in different NVLink domains or cliques\nrows between them "
                "go over the "
                "network\nask for nodes of one rack ('sbatch --segment', --switches=1)",
                s->of[0].host, apart, s->of[apart].host);
}

static void judge_links(const fx_scene *s, const fx_device_health *h, fx_findings *out)
{
    int most = 0;
    for (int r = 0; r < s->ranks; r++) most = h[r].links_active > most ? h[r].links_active : most;
    for (int r = 0; r < s->ranks; r++) {
        if (h[r].links_active < 0 || h[r].links_active == most) continue;
        fx_find(out, FX_FOUND_WARNING, FX_EDEVICE, "link",
                "the device of rank %d (%s) has %d of %d NVLinks up, others have %d\nits rows arrive later "
                "than those of the others\nsee "
                "'nvidia-smi nvlink -s'; reset the device or leave the node out",
                r, s->of[r].host, h[r].links_active, h[r].links, most);
        return;
    }
}

static void judge_neighbour(const fx_scene *s, int r, const fx_device_health *h, fx_findings *out)
{
    if (h->first_process <= 0 || h->used_bytes < (uint64_t)2 << 30) return;
    fx_find(out, FX_FOUND_WARNING, FX_EDEVICE, "devices",
            "%.1f of %.1f GiB are used on the device of rank %d (%s), by process %d among others\nthe model "
            "may not fit beside "
            "it\nend it ('nvidia-smi'); left-overs of cancelled jobs are common",
            (double)h->used_bytes / 0x1p30, (double)s->of[r].card.total_bytes / 0x1p30, r, s->of[r].host,
            h->first_process);
}

void fx_judge_health(const fx_scene *s, int nodes, const fx_device_health *h, fx_findings *out)
{
    for (int r = 0; r < s->ranks; r++) {
        if (h[r].fault[0] && s->of[r].card.uuid[0] && fx_first_of_node(s, r) == r)
            fx_find(out, FX_FOUND_NOTE, FX_EDEVICE, "devices",
                    "of the devices of %s only CUDA tells\n%s\ninstall the driver's libnvidia-ml for fabric, "
                    "links and other "
                    "processes",
                    s->of[r].host, h[r].fault);
        judge_fabric(s, r, &h[r], out);
        judge_neighbour(s, r, &h[r], out);
        if (h[r].driver[0] && h[0].driver[0] && strcmp(h[r].driver, h[0].driver) &&
            fx_first_of_node(s, r) == r)
            fx_find(out, FX_FOUND_WARNING, FX_EDEVICE, "devices",
                    "%s has driver %s and %s has %s\nlibraries may choose other kernels then\ninstall one "
                    "driver on all nodes",
                    s->of[0].host, h[0].driver, s->of[r].host, h[r].driver);
    }
    judge_links(s, h, out);
    if (nodes > 1) judge_rack(s, h, out);
}
