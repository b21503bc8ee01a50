#!/usr/bin/env bash
# Long target: every script of slurm/ through sbatch and srun (pmix) on a real Slurm of 18 nodes on this machine (slurm_up.sh), with
# the CPU backend and the bundled model: accepted as it stands, the pictures of one rank, also over two nodes and in groups; a batch
# that is asked to end or loses a rank goes back into the queue and on; what the scripts refuse, and why.
. "$(dirname "$0")/lib.sh"
need_model
if [ -z "${FX_LONG:-}" ]; then
    skip "all" "part of the long target"
    finish
fi
PATH=$PATH:/usr/sbin:/sbin
packages=(slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge)
if ! command -v slurmctld >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { timeout 300 apt-get update && DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -y --no-install-recommends "${packages[@]}"; } >apt.log 2>&1 ||
        echo "sh_slurm: the packages of Slurm cannot be installed: $(tail -n 1 apt.log)"
fi
code=0
"$tests_dir/slurm_up.sh" start "$work/slurm" 18 64 >up.log 2>&1 || code=$?
if [ $code = 77 ]; then
    skip "all" "$(tail -n 1 up.log)"
    finish
fi
if [ $code != 0 ]; then
    cat up.log
    fail "Slurm does not start"
    finish
fi
trap '"$tests_dir/slurm_up.sh" stop "$work/slurm"; rm -rf "$work"' EXIT
. slurm/env
if ! srun --mpi=list 2>&1 | grep -q pmix; then
    skip "all" "this Slurm has no pmix"
    finish
fi
scripts=$root_dir/slurm
export FLUXPAR=$fluxpar FLUXPAR_HOME=$root_dir MODEL=$model BACKEND=cpu
few=(--threads 1 --t5-len 16 -S 1)
export ARGS="${few[*]} --steps 2"
prompts=(cat dog fox bat cow pig)
printf '{"prompt": "%s"}\n' "${prompts[@]}" >jobs.jsonl

# submit SCRIPT SBATCH-FLAGS...: $id; the log is $err, so that a failed check shows it.
submit() {
    local script=$1
    shift
    : >"$err"
    id=$(sbatch --parsable --cpus-per-task=1 --output="$err" "$@" "$scripts/$script" 2>"$out") || fail "sbatch $script: $(tail -n 1 "$out")"
}
state() { scontrol -o show job "$id" 2>/dev/null | grep -oE "\b$1=[^ ]*" | head -n 1 | cut -d= -f2; }
# ended SECONDS: waits for the end of the job; $rc is its exit code (the script's, or 128 and the signal).
ended() {
    local end=$((SECONDS + $1)) got
    while squeue -h -j "$id" 2>/dev/null | grep -q .; do
        [ $SECONDS -lt $end ] || {
            fail "job $id does not end: $(state JobState)"
            scancel "$id"
        }
        sleep 0.2
    done
    got=$(state ExitCode)
    rc=${got%:*}
    [ "${got#*:}" = 0 ] || rc=$((128 + ${got#*:}))
}
until_log() { # PATTERN [COUNT]: so many lines of the log match
    for _ in $(seq 600); do
        [ "$(grep -cE -e "$1" "$err")" -ge "${2:-1}" ] && return
        sleep 0.1
    done
    fail "the log never says '$1'"
}
results() { cat "${1:-jobs.results.jsonl}" 2>/dev/null | grep -c '^{"status":"ok"'; }

# ---- what one rank makes ----

fx generate -m "$model" -p cat --backend cpu $ARGS -o one.png
check "one rank: exit 0" rc_is 0
mkdir want
for i in "${!prompts[@]}"; do
    fx generate -m "$model" -p "${prompts[i]}" --backend cpu $ARGS -o want/$((i + 1)).png
done

# ---- as they stand ----

for script in "$scripts"/*.sbatch; do
    rc=0
    sbatch --test-only "$script" >"$out" 2>"$err" || rc=$?
    check "--test-only $(basename "$script")" rc_is 0
    check "--test-only $(basename "$script"): accepted" says '^sbatch: Job [0-9]+ to start at .* on nodes n'
done
check "five scripts" same "$(find "$scripts" -name '*.sbatch' | wc -l)" 5

# ---- one picture ----

PROMPT=cat OUTPUT=node.png submit one_image.sbatch --ntasks-per-node=3
ended 60
check "one_image: exit 0" rc_is 0
check "one_image: three ranks" says '^run +3 ranks on 1 node'
check "one_image: the bytes of one rank" cmp one.png node.png
check "one_image: its report" test -s node.json

PROMPT=cat OUTPUT=two.png ULYSSES=2 submit two_nodes.sbatch --ntasks-per-node=2
ended 60
check "two_nodes: exit 0" rc_is 0
check "two_nodes: over two nodes" says '^run +4 ranks on 2 nodes, mesh 2x2'
check "two_nodes: the bytes of one rank" cmp one.png two.png

# ---- batches ----

compare() { # NAME: the pictures batch/LINE.png
    local i
    for i in 1 2 3 4 5 6; do check "$1: picture $i" cmp -s "want/$i.png" "batch/$i.png"; done
    check "$1: nothing else" only_files batch 1.png 2.png 3.png 4.png 5.png 6.png
}
fresh() { rm -rf batch jobs.*results.jsonl jobs.*-of-*.jsonl && mkdir batch; }
export OUTPUT="batch/{line}.png"

fresh
RANKS_PER_GROUP=2 submit nvl72.sbatch --nodes=2
ended 90
check "nvl72: exit 0" rc_is 0
check "nvl72: four groups of two" says 'groups +.*4.* of 2 ranks'
check "nvl72: results" same "$(results)" 6
compare nvl72

fresh
submit array.sbatch --array=3-5 --ntasks-per-node=2 --open-mode=append
ended 120
check "array: results of the three parts" same "$(for p in 0 1 2; do results "jobs.$p-of-3.results.jsonl"; done | xargs)" "2 2 2"
compare array

# ---- scaling ----

OUTPUT=scaling SIZE=64 PICTURES=2 submit scaling.sbatch --ntasks-per-node=3
ended 90
check "scaling: exit 0" rc_is 0
check "scaling: 1, 2 and 3 ranks, times and equal bytes" same "$(grep -cE '^ +[123] +[0-9.]+ +[0-9.]+ +[0-9.]+  same$' "$err")" 3
check "scaling: the first is the yardstick" says '^ +1 +[0-9.]+ +1.00 +100.0  same$'

# ---- back into the queue ----

# again HOW: the job has gone on: all is there, what was there before is not made again.
again() {
    ended 120
    check "$1: exit 0 in the end" rc_is 0
    check "$1: started twice" same "$(state Restarts)" 1
    check "$1: the log has both runs" same "$(grep -cE '^# job [0-9]+: jobs.jsonl: [0-9]+ pictures are there, run [12]$' "$err")" 2
    check "$1: one result per picture" same "$(results)" 6
    check "$1: what was there is not made again" same "$(find batch -name '*.png' ! -newermt 2002-01-01 | wc -l)" "$old"
    compare "$1"
}
# Slurm needs a moment between both runs, in which what is there gets an old date.
aged() {
    until_log '^# job [0-9]+: goes back into the queue'
    old=$(find batch -name '*.png' | wc -l)
    find batch -name '*.png' -exec touch -d 2001-01-01 {} +
}
one_group=(--nodes=1 --ntasks-per-node=2)
export RANKS_PER_GROUP=2

fresh
ARGS="${few[*]} --steps 2 -v" submit nvl72.sbatch "${one_group[@]}"
until_log '^batch/2.png'
scancel --signal=USR1 "$id"
aged
check "asked to end: exit code of the first run" says '^# job [0-9]+: .*, exit code 138$'
check "asked to end: two pictures or more are there, not all" test "$old" -ge 2 -a "$old" -lt 6
again "asked to end"

fresh
submit nvl72.sbatch "${one_group[@]}"
until_log '^batch/2.png'
kill -KILL "$(pgrep -f "^$fluxpar generate .*--batch jobs.jsonl" | tail -n 1)"
aged
check "a rank is killed: exit code of the first run" says '^# job [0-9]+: .*, exit code (5|137)$'
check "a rank is killed: two pictures or more are there, not all" test "$old" -ge 2 -a "$old" -lt 6
again "a rank is killed"

fresh
submit nvl72.sbatch "${one_group[@]}"
until_log '^batch/1.png'
scancel "$id"
ended 60
check "scancel: not again" same "$(state Restarts)" 0
check "scancel: what is there has its result" same "$(results)" "$(find batch -name '*.png' | wc -l)"

if sanitized; then skip "no progress" "built with AddressSanitizer"; else
    printf '#!/bin/sh\n[ "$1" != generate ] || export LD_PRELOAD="%s" FAULT_RANK=1 FAULT=9 FAULT_AT=load\nexec "%s" "$@"\n' \
        "$build_dir/tests/fault_preload.so" "$fluxpar" >dying
    chmod +x dying
    fresh
    ARGS="$ARGS -v" FLUXPAR=$work/dying MAX_RESTARTS=1 submit nvl72.sbatch "${one_group[@]}"
    ended 120
    check "no progress: exit code" grep -qxE '5|137' <<<"$rc"
    check "no progress: not for ever" same "$(state Restarts)" 1
    check "no progress: says so" says '^# job [0-9]+: error: no picture was made in this run, the last of 1 restarts'
    check "no progress: no picture" only_files batch
fi

# ---- what is refused ----

refuses() { # NAME PATTERN: of the last job
    ended 60
    check "$1: exit code 2" rc_is 2
    check "$1: one line" same "$(grep -c '^# job [0-9]*: error: ' "$err")" 1
    check "$1: message" says "^# job [0-9]+: error: $2"
    check "$1: no picture" only_files batch
}
fresh
JOBS=nothing.jsonl submit nvl72.sbatch "${one_group[@]}"
refuses "no jobs" "no jobs file nothing.jsonl; set JOBS"
RANKS_PER_GROUP=3 submit nvl72.sbatch "${one_group[@]}"
refuses "uneven groups" "2 tasks are no multiple of RANKS_PER_GROUP=3"
ULYSSES=3 submit two_nodes.sbatch --ntasks-per-node=2
refuses "uneven mesh" "4 tasks are no multiple of ULYSSES=3"
FLUXPAR=$work/none submit one_image.sbatch --ntasks-per-node=1
refuses "no program" "no program $work/none; build it, or set FLUXPAR"

# NVL72 as nvidia-smi tells of it, on two nodes; on the third line: what differs.
mkdir fake channels
cat >fake/nvidia-smi <<'F'
#!/bin/bash
n=$SLURMD_NODENAME state=Completed status=Success clique=32766
case $FAKE in cliques) [ "$n" = n1 ] || clique=32767 ;; state) [ "$n" = n1 ] || state="In Progress" ;; none) exit 0 ;; broken) exit 9 ;; esac
for gpu in 0 1; do
    printf 'GPU 00000009:0%d:00.0\n    Fabric\n        State                             : %s\n        Status                            : %s\n' $gpu "$state" "$status"
    printf '        CliqueId                          : %s\n        ClusterUUID                       : 5a1e\n        Health\n            Bandwidth : N/A\n' $clique
done
F
printf '#!/bin/sh\necho "${FAKE_IMEX:-READY}"\n' >fake/nvidia-imex-ctl
chmod +x fake/*
export PATH=$work/fake:$PATH BACKEND=auto IMEX_CHANNELS=$work/channels
touch channels/channel0
nvl() { FAKE=$1 submit nvl72.sbatch --nodes=2 --ntasks-per-node=1; }
nvl good
ended 90
check "one domain: exit 0" rc_is 0
check "one domain: says so" says '^# job [0-9]+: one NVLink domain, 5a1e/32766 \(4 GPUs\)$'
fresh
nvl cliques
refuses "two domains" "the nodes are of several NVLink domains: 5a1e/32766 \(2 GPUs\), 5a1e/32767 \(2 GPUs\); ask Slurm for one with --segment=2"
nvl state
refuses "fabric not ready" "NVLink between nodes cannot be used: n2: fabric Progress Success; fabric manager and IMEX"
nvl none
refuses "no fabric" "these GPUs have no NVLink between nodes"
nvl broken
refuses "nvidia-smi fails" "nvidia-smi failed on a node"
FAKE_IMEX=DOWN nvl good
refuses "IMEX is down" "NVLink between nodes cannot be used: n1: IMEX is DOWN;n2: IMEX is DOWN; fabric"
rm channels/channel0
nvl good
refuses "no channel" "NVLink between nodes cannot be used: n1: no channel of IMEX;n2: no channel of IMEX; fabric"
finish
