#!/usr/bin/env bash
# The same under srun as under mpirun: one picture, and lost, stopped and signalled ranks. On a Slurm of one node that
# slurm_up.sh starts; part of the long target (FX_LONG=1), where root installs its packages when they are missing.
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
        echo "sh_srun: the packages of Slurm cannot be installed: $(tail -n 1 apt.log)"
fi
code=0
"$tests_dir/slurm_up.sh" start "$work/slurm" >up.log 2>&1 || code=$?
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
mkdir out
preload=$build_dir/tests/fault_preload.so
now_ms() { echo $(($(date +%s%N) / 1000000)); }
args=(generate -m "$model" -p "a slice of pizza on a blue background" --threads 1 --t5-len 16 -S 1)

slurm() { # SRUN-FLAGS... -- COMMAND...
    local flags=()
    while [ "$1" != -- ]; do
        flags+=("$1")
        shift
    done
    shift
    rc=0
    timeout -k 5 120 srun "${flags[@]}" "$@" >"$out" 2>"$err" || rc=$?
}
# Processes of this program that run in this test's folder.
left() {
    local p
    for p in $(find /proc/[0-9]* -maxdepth 1 -name cwd -lname "$work" 2>/dev/null | tr -dc '0-9\n'); do
        [ "$(readlink "/proc/$p/exe" 2>/dev/null)" = "$(realpath "$fluxpar")" ] && echo "$p"
    done
    return 0
}
all_gone() {
    local end=$(($(now_ms) + 10000))
    while [ -n "$(left)" ]; do
        [ "$(now_ms)" -lt $end ] || return 1
        sleep 0.1
    done
}
ended() { # WHAT CODE PATTERN
    check "$1: exit code $2" grep -qxE "$2" <<<"$rc"
    check "$1: one error line" one_error_line
    check "$1: message" says "^fluxpar: error: rank [0-9]+ \([^,]+, cpu\): .*$3"
    check "$1: all ranks gone" all_gone
    check "$1: no file" only_files out
    check "$1: no result" silent "$out"
}

fx "${args[@]}" --steps 4 -o one.png
check "one rank" rc_is 0
slurm --mpi=pmix -n 3 -- "$fluxpar" "${args[@]}" --steps 4 -o three.png
check "srun --mpi=pmix -n 3: exit code" rc_is 0
check "srun --mpi=pmix -n 3: three ranks" says "^run +3 ranks on 1 node"
check "srun --mpi=pmix -n 3: the bytes of one rank" cmp one.png three.png

slurm --mpi=none -n 3 -- "$fluxpar" "${args[@]}" -o out/x.png
ended "srun without MPI" 2 "srun started 3 tasks .*use 'srun --mpi=pmix'"

strike() { # FAULT PHASE ARGS...
    local fault=$1 phase=$2
    shift 2
    slurm --mpi=pmix -n 3 -- env LD_PRELOAD="$preload" FAULT_RANK=1 FAULT="$fault" FAULT_AT="$phase" \
        ${send:+FAULT_SEND=1} "$fluxpar" "${args[@]}" --steps 4 -v -o out/x.png "$@"
}
# srun returns the largest code it has seen: 137 when it heard of the killed rank before the abort of the others.
if sanitized; then skip "faults at a known place" "built with AddressSanitizer"; else
    for phase in load text "denoise step 3" vae; do
        strike 9 "$phase"
        ended "killed in $phase" "5|137" "rank 1 \(process [0-9]+\) is gone; it was in '$phase'; noticed during '"
    done
    send=1 strike 9 "denoise step 2" --ring 3 --exact off
    ended "killed in a ring hop" "5|137" "rank 1 \(process [0-9]+\) is gone; it was in 'denoise step 2, ring hop 1 of 2'"
    begin=$(now_ms)
    strike 19 "denoise step 2" --timeout 3
    took=$(($(now_ms) - begin))
    ended "stopped" 5 "waited 3 s in 'denoise step 2' for ranks? [0-9, ]+; .*rank 1 \(process [0-9]+\) is stopped in 'denoise step 2'"
    check "stopped: ended by its deadline (took $took ms)" test "$took" -lt 20000
    strike memory text -W 1024 -H 1024
    ended "fails alone" 8 "no memory for the noise"
fi

# scancel, the way a time limit or a preemption comes.
timeout -k 5 120 srun --mpi=pmix -n 3 --job-name=stop-me "$fluxpar" "${args[@]}" --steps 1000 -W 256 -H 256 -v -o out/x.png >"$out" 2>"$err" &
pid=$!
for _ in $(seq 600); do
    grep -q 'denoise step 2' "$err" && break
    kill -0 $pid 2>/dev/null || break
    sleep 0.1
done
scancel --signal=TERM --name=stop-me
rc=0
wait $pid || rc=$?
ended "scancel --signal=TERM" 143 "stopped by SIGTERM during 'denoise step"

# A batch finishes its picture: on Slurm's warning (--signal), and on scancel's SIGTERM, which srun's ranks have time after.
printf '{"prompt": "cat"}\n{"prompt": "dog", "steps": 60}\n{"prompt": "fox"}\n' >jobs.jsonl
fx "${args[@]:0:3}" --batch jobs.jsonl --threads 1 --t5-len 16 -S 1 --steps 2 -o want.png --results want
for signal in USR1:138 TERM:143; do
    what="batch, SIG${signal%:*}"
    rm -f out/* jobs.results.jsonl
    batch=("$fluxpar" "${args[@]:0:3}" --batch jobs.jsonl --threads 1 --t5-len 16 -S 1 --steps 2 -v -o out/x.png --resume --grace 60)
    timeout -k 5 120 srun --mpi=pmix -n 3 --job-name=ask-me "${batch[@]}" >"$out" 2>"$err" &
    pid=$!
    for _ in $(seq 600); do
        grep -q 'denoise step 5' "$err" && break
        kill -0 $pid 2>/dev/null || break
        sleep 0.1
    done
    scancel --signal="${signal%:*}" --name=ask-me
    rc=0
    wait $pid || rc=$?
    check "$what: exit code" rc_is "${signal#*:}"
    check "$what: one error line" one_error_line
    check "$what: message" says "stopped by SIG${signal%:*} .*go on with --resume"
    check "$what: the picture is finished, no other begun" only_files out x-1.png x-2.png
    slurm --mpi=pmix -n 3 -- "${batch[@]}"
    check "$what: goes on: exit 0" rc_is 0
    for n in 1 2 3; do check "$what: picture $n" cmp -s want-$n.png out/x-$n.png; done
    check "$what: the third alone is made" same "$(xargs <"$out")" out/x-3.png
done
finish
