/* What `fluxpar doctor` measures, and what it means. Measuring is collective and bounded: every wait has the run's deadline,
 * every probe one of its own. Judging is pure: facts in, findings out. */
#ifndef FX_LAUNCH_DOCTOR_H
#define FX_LAUNCH_DOCTOR_H

#include "launch/place/place.h"

/* ---- messages between ranks (doctor_wires.c) ---- */

enum { FX_WIRES = 4, FX_WIRE_SMALL = 8, FX_WIRE_LARGE = 8 << 20 }; /* bytes of a message */

typedef struct fx_wire_cell {
    double latency_s; /* one way, small message: half of the fastest round trip; negative: not measured */
    double rate;      /* bytes per second one way, large message */
    uint64_t wrong;   /* bytes of what this rank got that are not what was sent */
} fx_wire_cell;

typedef struct fx_wire_table {
    char name[80];   /* "MPI, host memory", "device rows by peer copies" */
    char fault[256]; /* why it could not be measured; "" */
    int ranks;
    fx_wire_cell *cell; /* [ranks * ranks], row: who measured */
} fx_wire_table;

/* Pairs that are measured at the same time: round `round` of rank's partner, -1: none. One pair at a time up to ALONE ranks, from
 * there on all in pairs. Pure. */
int fx_wire_rounds(int ranks);
int fx_wire_partner(int ranks, int round, int rank);
fx_status fx_wires_host(fx_run *, fx_wire_table *);
fx_status fx_wires_device(fx_run *, bool nccl, fx_wire_table *);
void fx_judge_wires(const fx_scene *, const fx_wire_table *, fx_findings *);

/* ---- interfaces by which nodes could find each other (doctor_net.c) ---- */

enum { FX_FACES = 16 };
typedef struct fx_face {
    char name[16], address[46];
    int32_t family, speed; /* Mbit/s; 0: unknown */
    uint16_t port;
} fx_face;

typedef struct fx_network {
    int faces, asked; /* of rank 0's node; ranks that tried them */
    fx_face face[FX_FACES];
    int reached[FX_FACES]; /* how many of those came through */
    int missing[FX_FACES]; /* a rank that did not; -1 */
} fx_network;

/* Rank 0 listens on each of its interfaces; the first rank of every other node (on one node rank 1) tries them, for seconds. */
fx_status fx_network_probe(fx_run *, const fx_scene *, double seconds, fx_network *);
void fx_judge_network(const fx_scene *, int nodes, const fx_network *, fx_findings *);

/* ---- devices (doctor_devices.c) ---- */

enum { FX_PINGS = 16 }; /* devices of a node, at most */
typedef struct fx_ping_cell {
    double seconds; /* negative: it did not end; 0: not tried */
    uint64_t bytes, wrong;
    int32_t kind; /* fx_device_link_kind */
} fx_ping_cell;

typedef struct fx_node_pings {
    int32_t first, devices; /* first rank of the node; 0: this rank is not one, or there are none */
    char fault[160];
    fx_ping_cell cell[FX_PINGS * FX_PINGS];
} fx_node_pings;

typedef struct fx_device_report {
    fx_device_health *health; /* [ranks] */
    fx_node_pings *pings;     /* [ranks] */
} fx_device_report;

fx_status fx_devices_probe(fx_run *, const fx_scene *, double seconds, fx_device_report *);
void fx_judge_pings(const fx_scene *, const fx_node_pings *, fx_findings *);
void fx_judge_health(const fx_scene *, int nodes, const fx_device_health *, fx_findings *);

/* ---- the whole ---- */

typedef struct fx_doctor {
    fx_run *s;
    fx_start start;
    fx_place place;
    bool devices;
    int wires;
    fx_wire_table wire[FX_WIRES];
    fx_network network;
    fx_device_report device;
    fx_findings found;
    double seconds;
} fx_doctor;

void fx_doctor_print(const fx_doctor *);     /* for people, on the standard output */
fx_status fx_doctor_json(const fx_doctor *); /* the same as JSON */

#endif
