#!/usr/bin/env bash
# `fluxpar doctor` on 1, 2 and 3 ranks: what it says, its JSON, exit 1 with the right finding where something is wrong (a start without
# wiring, ranks that differ, a model that does not fit, another machine in a folder), ranks that are lost meanwhile; and how runs are
# placed: the line per node, warnings before any work, bound cores.
. "$(dirname "$0")/lib.sh"
need_model
export OMP_WAIT_POLICY=passive

# in_json EXPRESSION: python's, over the report d of the last run
in_json() {
    python3 - "$out" "$1" <<'PY'
import json, sys
d = json.load(open(sys.argv[1]))
def level(name): return [f for f in d["findings"] if f["level"] == name]
def has(name, topic, words): return any(f["topic"] == topic and words in f["what"] + f["why"] + f["do"] for f in level(name))
ok = eval(sys.argv[2])
if not ok: print(json.dumps(d["findings"], indent=1)[:3000])
sys.exit(not ok)
PY
}
json() { # NAME EXPRESSION
    if command -v python3 >/dev/null; then check "$1" in_json "$2"; else skip "$1" "no python3"; fi
}

# ---- a sound machine ----

fx doctor
check "one rank: exit 0" rc_is 0
check "one rank: nothing on stderr" silent "$err"
for line in "fluxpar [0-9.]+ doctor: 1 rank on 1 node" "mpi +[^;]+; started by " "library +hwloc " "node +[^ :]+: rank 0; computed on the CPU" \
    "  cpu +[^,]+, [0-9]+ cores, [0-9]+ NUMA node" "  memory [0-9.]+ GiB, [0-9.]+ free" "verdict  ok: 0 failures"; do
    check "one rank: $line" prints "^$line"
done
fx doctor --json
check "one rank, JSON: exit 0" rc_is 0
json "one rank, JSON" 'd["ranks"] == 1 and d["between"] == [] and d["failures"] == 0 and d["rank"][0]["cores_allowed"] >= 1 and d["rank"][0]["device"] is None'
fx doctor --help
check "help names its flags" prints "--json"
fx doctor pizza
check "no argument" rc_is 2

if has_mpi; then
    mpi 3 doctor
    check "3 ranks: exit 0" rc_is 0
    check "3 ranks: once" same "$(grep -c '^verdict' "$out")" 1
    check "3 ranks: one line per node" prints "^node +[^ :]+: ranks 0-2; computed on the CPU; link shared memory; "
    check "3 ranks: latencies" prints "^between .*host memory: latency in us one way, 8 bytes"
    check "3 ranks: a row for each" same "$(grep -cE '^ +[0-2]( +([0-9.]+|-)){3}$' "$out")" 6
    cores=$(python3 -c 'import os; print(len(os.sched_getaffinity(0)))' 2>/dev/null || nproc)
    for n in 3 2; do
        mpi $n doctor --json
        check "$n ranks, JSON: exit 0" rc_is 0
        json "$n ranks, JSON: every pair was measured, no byte wrong" "d['ranks'] == $n and all(
            (m['latency_us'][a][b] > 0 and m['bytes_per_s'][a][b] > 1e5 and m['wrong_bytes'][a][b] == 0) if a != b else m['latency_us'][a][b] is None
            for m in [d['between'][0]] for a in range($n) for b in range($n))"
        json "$n ranks, JSON: interfaces were tried" "all(f['tried_by'] == 1 and f['reached_by'] == 1 for f in d['network'])"
    done
    if "$fluxpar" --version | grep -E '^hwloc +[0-9]' >/dev/null && [ "$cores" -ge 2 ]; then # of the last run: two ranks
        json "each rank has an equal share of the cores" "all(r['bound'] and r['cores'] == $cores // 2 for r in d['rank'])"
        json "shares do not overlap" "d['rank'][0]['placed'] != d['rank'][1]['placed']"
    else skip "binding" "no hwloc, or one core"; fi
    if [ -n "${FX_LONG:-}" ]; then
        mpi 9 doctor --json
        json "9 ranks, in pairs" 'all(x > 0 for m in d["between"] for row in m["latency_us"] for x in row if x is not None)'
    fi
else skip "several ranks" "no mpirun, or built without MPI"; fi

# ---- what is wrong is found: exit 1 ----

wrong() { # NAME LEVEL TOPIC WORDS
    json "$1: found" "has('$2', '$3', '$4')"
    if [ "$2" = failure ]; then check "$1: exit 1" rc_is 1; else check "$1: exit 0" rc_is 0; fi
}
step=(env SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4 SLURM_NTASKS=4)
under() { # COMMAND...
    rc=0
    timeout -k 5 60 "$@" >"$out" 2>"$err" || rc=$?
}
under "${step[@]}" SLURM_PROCID=0 "$fluxpar" doctor --json
wrong "srun without MPI" failure mpi "srun started 4 tasks but did not wire MPI"
under "${step[@]}" SLURM_PROCID=2 "$fluxpar" doctor --json
check "srun without MPI: the other tasks are silent" silent "$out"
check "srun without MPI: their exit code" rc_is 1
under "${step[@]}" SLURM_PROCID=0 PMI_FD=77 PMIX_RANK=0 "$fluxpar" doctor --json
check "srun that another MPI understands: no picture of health" rc_is 1
under env SLURM_JOB_ID=7 SLURM_NTASKS=4 "$fluxpar" doctor --json
wrong "a batch script without srun" note mpi "one process in a job of 4 tasks"
fx doctor --json -m "$work/nothing"
check "no such model: exit 3" rc_is 3
copy_model m && rm m/vae/config.json
fx doctor --json -m m
wrong "a model that cannot be used" failure model "cannot be used"
if has_mpi; then
    under mpirun "${mpi_flags[@]}" -np 1 "$fluxpar" doctor --json --timeout 20 : -np 1 "$fluxpar" doctor --json --timeout 21
    wrong "ranks that differ" failure mpi "all ranks need the same arguments"
    json "ranks that differ: measured all the same" 'len(d["between"]) == 1 and d["ranks"] == 2'
fi

# ---- another machine, in a folder ----

far=$work/far
mkdir -p "$far"/proc/self "$far"/sys/devices/system/{cpu,node} "$far"/sys/fs/cgroup/job
echo 0-63 >"$far/sys/devices/system/cpu/online"
echo 0-1 >"$far/sys/devices/system/node/online"
printf 'Name: x\nCpus_allowed_list:\t5\n' >"$far/proc/self/status"
printf 'MemTotal: 67108864 kB\nMemAvailable: 33554432 kB\n' >"$far/proc/meminfo"
echo 'Max stack size            unlimited            unlimited            bytes' >"$far/proc/self/limits"
echo 'shm /dev/shm tmpfs rw,size=1024k 0 0' >"$far/proc/self/mounts"
echo 0::/job >"$far/proc/self/cgroup"
echo 20000000 >"$far/sys/fs/cgroup/job/memory.max"
echo 0 >"$far/sys/fs/cgroup/job/memory.current"
FLUXPAR_ROOT=$far fx doctor --json -m "$model"
wrong "a memory limit below the model" failure memory "memory limit of the container or job"
FLUXPAR_ROOT=$far fx doctor -m "$model"
check "the same for people: exit 1" rc_is 1
check "the same for people" prints "^failure  memory: .* are needed on .* are there$"
check "why" prints "^  why    that is the memory limit of the container or job"
check "what to do" prints "^  do     ask for more"
check "verdict" prints "^verdict  a job would fail: 1 failure"
mkdir -p "$far/sys/fs/cgroup/memory/job"
echo 3:memory:/job >"$far/proc/self/cgroup"
echo 20000000 >"$far/sys/fs/cgroup/memory/job/memory.limit_in_bytes"
echo 0 >"$far/sys/fs/cgroup/memory/job/memory.usage_in_bytes"
FLUXPAR_ROOT=$far fx doctor --json -m "$model"
wrong "a memory limit of version 1" failure memory "memory limit of the container or job"
FLUXPAR_ROOT=$far fx doctor --json
wrong "one core of 64" warning cores "may use 1 core of"
if has_mpi; then
    export FLUXPAR_ROOT=$far
    mpi 2 doctor --json
    wrong "small /dev/shm" warning shm "has 1 MiB in all for 2 ranks"
    mpi 2 generate -m "$model" -p "a slice of pizza on a blue background" --steps 2 --t5-len 16 -S 1 -o warned.png
    check "a run warns of it" says "^fluxpar: warning: /dev/shm of [^ ]+ has 1 MiB in all .*--shm-size=1g"
    check "a run warns of bound ranks" says "^fluxpar: warning: rank 0 may use 1 core of [^ ]+ 64 .*--bind-to none"
    check "warnings: once" same "$(grep -c 'may use 1 core' "$err")" 1
    check "and goes on" rc_is 0
    unset FLUXPAR_ROOT
fi

# ---- placement ----

gen -o one.png
check "a run of one rank: its line" says "^node +[^ :]+: rank 0; computed on the CPU; [0-9]+ of [0-9]+ cores? allowed"
check "a sound machine: no warning" bash -c "! grep -q 'fluxpar: warning' '$err'"
if has_mpi; then
    gen_mpi 2 -o two.png
    check "bound ranks: the bytes of one" cmp -s one.png two.png
    check "a run of two ranks: one line" same "$(grep -c '^node ' "$err")" 1
    gen_mpi 2 -o off.png --bind off
    check "--bind off: says so" says "^node .*rank 0 not bound: --bind off"
    check "--bind off: the bytes of one" cmp -s one.png off.png
    OMP_PLACES=cores gen_mpi 2 -o places.png
    check "who places threads is left alone" says "^node .*rank 0 not bound: OMP_PLACES"
    mpi $((cores + 1)) doctor --json
    json "fewer cores than ranks: nobody is bound" "not any(r['bound'] for r in d['rank']) and has('note', 'cores', 'share the')"
fi
check "--version names hwloc" bash -c "'$fluxpar' --version | grep -E '^hwloc +([0-9]|none; ranks stay)' >/dev/null"

# ---- lost ranks ----

preload=$build_dir/tests/fault_preload.so
if ! has_mpi || sanitized; then skip "lost ranks" "no MPI, or built with AddressSanitizer"; else
    strike() { # FAULT TIMEOUT
        under mpirun "${mpi_flags[@]}" -np 3 -x LD_PRELOAD="$preload" -x FAULT="$1" -x FAULT_RANK=1 -x FAULT_AT="messages between ranks" \
            "$fluxpar" doctor -v --timeout "$2"
    }
    strike 9 30
    check "a killed rank: exit code" grep -qxE '5|137' <<<"$rc"
    check "a killed rank is named" says "^fluxpar: error: rank [02] .*rank 1 \(process [0-9]+\) is gone; it was in 'messages between ranks"
    check "a killed rank: no report" bash -c "! grep -q verdict '$out'"
    begin=$SECONDS
    strike 19 2
    check "a stopped rank: exit code 5" rc_is 5
    check "a stopped rank is named" says "^fluxpar: error: rank [02] .*waited 2 s .*rank 1 \(process [0-9]+\) is stopped"
    check "a stopped rank: ended by its deadline" test $((SECONDS - begin)) -lt 20
fi
finish
