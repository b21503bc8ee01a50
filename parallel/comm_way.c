/* Contract in comm_way.h. On one node CUDA's handles come first: that is the way that was measured. */
#include "parallel/comm_way.h"

#include <stdio.h>

static bool all_in_team(const fx_way_facts *f)
{
    return !f->no_windows && f->team == f->ranks;
}

static void say_why(const fx_way_facts *f, char why[FX_WAY_TEXT])
{
    int n = 0;
    if (f->no_ipc) n = snprintf(why, FX_WAY_TEXT, "%.100s; ", f->no_ipc);
    if (f->no_windows)
        snprintf(why + n, (size_t)(FX_WAY_TEXT - n), "%.120s", f->no_windows);
    else
        snprintf(why + n, (size_t)(FX_WAY_TEXT - n), "one NVLink domain holds %d of %d ranks", f->team,
                 f->ranks);
}

fx_status fx_way_choose(const fx_way_facts *f, fx_way *way, char why[FX_WAY_TEXT])
{
    why[0] = 0;
    *way = FX_WAY_NCCL;
    if (f->want == FX_WIRE_NCCL) return FX_OK;
    if (!f->force_windows && !f->no_ipc)
        *way = FX_WAY_IPC;
    else if (all_in_team(f))
        *way = FX_WAY_WINDOWS;
    else
        say_why(f, why);
    FX_CHECK(*way != FX_WAY_NCCL || !f->force_windows, FX_EDEVICE,
             "FLUXPAR_WINDOWS=1: NCCL has no windows for these ranks: %s; unset it", why);
    FX_CHECK(*way != FX_WAY_NCCL || !f->alone, FX_EDEVICE,
             "ranks see one device each and cannot write into each other's memory over NVLink: %s; let every "
             "rank see "
             "all devices of its node (CUDA_VISIBLE_DEVICES, Slurm's --gpus-per-task), or go on with "
             "--exchange nccl",
             why);
    FX_CHECK(*way != FX_WAY_NCCL || f->want == FX_WIRE_AUTO, FX_EDEVICE,
             "--exchange %s: a device of these ranks cannot write into another's memory: %s; use "
             "--exchange nccl",
             f->want == FX_WIRE_PEER ? "peer" : "lsa", why);
    return FX_OK;
}

const char *fx_way_name(fx_way way, bool by_kernels)
{
    if (way == FX_WAY_NCCL) return "NCCL";
    if (way == FX_WAY_IPC) return by_kernels ? "peer stores" : "peer copies";
    return by_kernels ? "peer stores, NCCL windows" : "peer copies, NCCL windows";
}
