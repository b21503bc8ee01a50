/* By which interface do the nodes reach rank 0's? NCCL and MPI pick one by its name's beginning and its order, which is wrong
 * where nodes have bridges and links that lead nowhere; so each is tried with a greeting that only rank 0's process can give. */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "launch/doctor/doctor.h"
#include "runtime/core/clock.h"

enum { GREETING = 16 };

typedef struct offer { /* rank 0's, to all */
    int32_t faces;
    fx_face face[FX_FACES];
    uint8_t greeting[GREETING];
} offer;

static socklen_t set_port(struct sockaddr_storage *a, uint16_t port)
{
    if (a->ss_family == AF_INET6) {
        ((struct sockaddr_in6 *)a)->sin6_port = htons(port);
        return sizeof(struct sockaddr_in6);
    }
    ((struct sockaddr_in *)a)->sin_port = htons(port);
    return sizeof(struct sockaddr_in);
}

static int speed_of(const char *name)
{
    char path[128];
    int speed = 0;
    snprintf(path, sizeof path, "/sys/class/net/%s/speed", name);
    FILE *f = fopen(path, "re");
    if (f && fscanf(f, "%9d", &speed) != 1) speed = 0;
    if (f) fclose(f);
    return speed > 0 ? speed : 0;
}

/* ---- rank 0 ---- */

/* Listens on the address of an interface; -1: not possible. */
static int listen_on(const struct ifaddrs *i, fx_face *face)
{
    struct sockaddr_storage a;
    memset(&a, 0, sizeof a);
    const bool six = i->ifa_addr->sa_family == AF_INET6;
    memcpy(&a, i->ifa_addr, six ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
    socklen_t size = set_port(&a, 0);
    const int fd = socket(a.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (bind(fd, (struct sockaddr *)&a, size) || listen(fd, 1024) ||
        getsockname(fd, (struct sockaddr *)&a, &size)) {
        close(fd);
        return -1;
    }
    *face = (fx_face){.family = a.ss_family, .speed = speed_of(i->ifa_name)};
    snprintf(face->name, sizeof face->name, "%s", i->ifa_name);
    face->port = ntohs(six ? ((struct sockaddr_in6 *)&a)->sin6_port : ((struct sockaddr_in *)&a)->sin_port);
    const void *bytes = six ? (const void *)&((struct sockaddr_in6 *)&a)->sin6_addr
                            : (const void *)&((struct sockaddr_in *)&a)->sin_addr;
    inet_ntop(a.ss_family, bytes, face->address, sizeof face->address);
    return fd;
}

/* Interfaces that are up and lead out of the node; link-local addresses mean nothing on another one. */
static bool useful(const struct ifaddrs *i)
{
    if (!i->ifa_addr || !(i->ifa_flags & IFF_UP) || !(i->ifa_flags & IFF_RUNNING) ||
        (i->ifa_flags & IFF_LOOPBACK))
        return false;
    if (i->ifa_addr->sa_family == AF_INET) return true;
    return i->ifa_addr->sa_family == AF_INET6 &&
           !IN6_IS_ADDR_LINKLOCAL(&((const struct sockaddr_in6 *)(const void *)i->ifa_addr)->sin6_addr);
}

static void open_faces(offer *o, int fd[FX_FACES])
{
    struct ifaddrs *list = NULL;
    if (getifaddrs(&list)) return;
    for (const struct ifaddrs *i = list; i && o->faces < FX_FACES; i = i->ifa_next) {
        if (!useful(i)) continue;
        fd[o->faces] = listen_on(i, &o->face[o->faces]);
        if (fd[o->faces] >= 0) o->faces++;
    }
    freeifaddrs(list);
    if (getrandom(o->greeting, sizeof o->greeting, 0) != sizeof o->greeting)
        memset(o->greeting, 0x5a, sizeof o->greeting);
}

/* Greets whoever comes, until so many have come or the time is up. */
static void greet(const offer *o, const int fd[FX_FACES], int expected, double until_s)
{
    struct pollfd list[FX_FACES];
    for (int i = 0; i < o->faces; i++) list[i] = (struct pollfd){.fd = fd[i], .events = POLLIN};
    while (expected > 0 && fx_now_s() < until_s && !fx_stop_signal()) {
        if (poll(list, (nfds_t)o->faces, 50) <= 0) continue;
        for (int i = 0; i < o->faces; i++) {
            const int one = list[i].revents ? accept4(fd[i], NULL, NULL, SOCK_CLOEXEC) : -1;
            if (one < 0) continue;
            expected -=
                send(one, o->greeting, sizeof o->greeting, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof o->greeting;
            close(one);
        }
    }
}

/* ---- the others ---- */

static int begin_call(const fx_face *f)
{
    struct sockaddr_storage a;
    memset(&a, 0, sizeof a);
    a.ss_family = (sa_family_t)f->family;
    void *bytes = f->family == AF_INET6 ? (void *)&((struct sockaddr_in6 *)&a)->sin6_addr
                                        : (void *)&((struct sockaddr_in *)&a)->sin_addr;
    if (inet_pton(f->family, f->address, bytes) != 1) return -1;
    const int fd = socket(f->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, set_port(&a, f->port)) && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Bit i: the greeting came through interface i. */
static uint32_t call_all(const offer *o, double until_s)
{
    struct pollfd list[FX_FACES];
    uint8_t got[GREETING];
    uint32_t reached = 0;
    int open = 0;
    for (int i = 0; i < o->faces; i++) {
        list[i] = (struct pollfd){.fd = begin_call(&o->face[i]), .events = POLLIN};
        open += list[i].fd >= 0;
    }
    while (open && fx_now_s() < until_s && !fx_stop_signal()) {
        if (poll(list, (nfds_t)o->faces, 50) <= 0) continue;
        for (int i = 0; i < o->faces; i++) {
            if (list[i].fd < 0 || !list[i].revents) continue;
            const ssize_t n = recv(list[i].fd, got, sizeof got, MSG_DONTWAIT);
            if (n < 0 && errno == EAGAIN) continue;
            if (n == sizeof got && !memcmp(got, o->greeting, sizeof got)) reached |= 1u << i;
            close(list[i].fd);
            list[i].fd = -1;
            open--;
        }
    }
    for (int i = 0; i < o->faces; i++)
        if (list[i].fd >= 0) close(list[i].fd);
    return reached;
}

/* ---- all ---- */

/* The first rank of every node but rank 0's; where there is one node, rank 1 stands for them. */
static bool calls(const fx_scene *s, int rank)
{
    const bool other = strcmp(s->of[rank].host, s->of[0].host) != 0;
    bool alone = true;
    for (int r = 1; r < s->ranks; r++) alone = alone && !strcmp(s->of[r].host, s->of[0].host);
    return alone ? rank == 1 : other && fx_first_of_node(s, rank) == rank;
}

static fx_status collect(fx_run *s, const fx_scene *scene, uint32_t mine, fx_network *n)
{
    double got[FX_FACES], last[FX_FACES]; /* whole numbers */
    for (int i = 0; i < FX_FACES; i++) {
        const bool me = calls(scene, s->rank), yes = mine >> i & 1;
        got[i] = me && yes;
        last[i] = me && !yes ? s->rank : -1;
    }
    FX_TRY(fx_comm_all_reduce_f64(s->comm, FX_SUM, got, FX_FACES));
    FX_TRY(fx_comm_all_reduce_f64(s->comm, FX_MAX, last, FX_FACES));
    for (int i = 0; i < n->faces; i++) {
        n->reached[i] = (int)got[i];
        n->missing[i] = (int)last[i];
    }
    return FX_OK;
}

fx_status fx_network_probe(fx_run *s, const fx_scene *scene, double seconds, fx_network *n)
{
    offer o;
    int fd[FX_FACES];
    uint32_t mine = 0;
    for (int i = 0; i < FX_FACES; i++) fd[i] = -1;
    memset(&o, 0, sizeof o);
    *n = (fx_network){.faces = 0, .asked = 0};
    fx_comm_set_phase(s->comm, "network interfaces");
    if (s->rank == 0) open_faces(&o, fd);
    FX_TRY(fx_comm_broadcast(s->comm, 0, &o, sizeof o));
    for (int r = 0; r < s->ranks; r++) n->asked += calls(scene, r);
    n->faces = o.faces;
    memcpy(n->face, o.face, sizeof n->face);
    if (s->rank == 0)
        greet(&o, fd, o.faces * n->asked, fx_now_s() + seconds);
    else if (calls(scene, s->rank))
        mine = call_all(&o, fx_now_s() + seconds);
    for (int i = 0; s->rank == 0 && i < o.faces; i++) close(fd[i]);
    return s->ranks > 1 ? collect(s, scene, mine, n) : FX_OK;
}
