#!/usr/bin/env bash
# What only a GPU can show of the CUDA backend: builds it and runs every op against ref, models through the whole pipeline against
# the reference's tensors, the demo picture against the CPU's, recorded steps against launched ones, and compute-sanitizer over
# small ops. With more than one device: blocks and the VAE by rows against one rank, pictures and selftest by every exchange, also
# through NCCL's windows, which ranks of one NVLink domain use between nodes; groups that merge; a rank that stops, and one that is killed. It needs
# this repository, CUDA's libraries and, for several ranks, MPI. Last line 'N passed, N failed, N skipped'.
#   tests/gpu/run.sh [NGPUS [BUILD]]               NGPUS: ranks at most (default: all devices); BUILD: default build-gpu
#   tests/gpu/run.sh --rehearse [NRANKS [BUILD]]   the same commands on CPU ranks, little of each (tests/sh_gpu.sh): proves the script only
# PARTS="one several" (both): what one device shows, what several do.
# Logs and pictures go to $OUT (default build/gpu-report). FX_CUDNN_ROOT, FX_NCCL_ROOT: cuDNN and NCCL, also as pip lays them out;
# FX_CUDA_ARCHS: default this machine's; CMAKE_ARGS: more arguments.
set -uo pipefail
export LC_ALL=C
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
rehearse=0
if [ "${1:-}" = --rehearse ]; then
    rehearse=1
    shift
fi
report=$(realpath -m "${OUT:-$root/build/gpu-report}")
mkdir -p "$report"
passed=0 failed=0 skipped=0 parts=${PARTS:-one several}
close() {
    printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
    [ "$failed" = 0 ] || exit 1
    exit 0
}
case ${1:-1} in *[!0-9]* | 0)
    echo "usage: tests/gpu/run.sh [NGPUS [BUILD]]: '$1' is no number of GPUs"
    exit 2
    ;;
esac
for part in $parts; do
    case $part in one | several) ;; *)
        echo "usage: PARTS is of 'one' and 'several', not '$part'"
        exit 2
        ;;
    esac
done
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi

# program NAME COMMAND...: adds the closing line of a test program
program() {
    local name=$1 line p=0 f=0 s=0 begin=$SECONDS code=0
    shift
    if [ "$(type -t "$1")" = function ]; then
        "$@" >"$report/$name.log" 2>&1 || code=$?
    else
        timeout -k 10 "${LIMIT:-240}" "$@" >"$report/$name.log" 2>&1 || code=$?
    fi
    line=$(grep -aE '^[a-z_ 0-9]+: [0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$report/$name.log" | tail -n 1)
    if [ -n "$line" ]; then read -r p _ f _ s _ <<<"${line##*: }"; elif [ "$code" = 0 ]; then p=1; fi
    [ "$code" = 0 ] || [ "$f" != 0 ] || f=1
    printf '%-24s %4d s  %d passed, %d failed, %d skipped\n' "$name" $((SECONDS - begin)) "$p" "$f" "$s"
    [ "$f" = 0 ] || grep -aE 'FAIL|again|rror|differ' "$report/$name.log" | head -n 12 | cut -c -240 | sed 's/^/    /'
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}
skip() { # skip WHAT WHY
    skipped=$((skipped + 1))
    echo "$1: skipped: $2"
}

# ---- this machine ----

if [ "$rehearse" = 1 ]; then
    devices=${1:-2} backend=cpu staged=cpu patience=2 ops=(--op glu) goldens=(h4dev) sizes=(-W 64 -H 64) large=(-m "$root/launch/demo/model" "${sizes[@]}" --threads 1)
    short=(--steps 2 --t5-len 16 --threads 1)
else
    if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L >"$report/devices" 2>&1; then
        echo "no GPU on this machine"
        skipped=1
        close
    fi
    cat "$report/devices"
    devices=$(wc -l <"$report/devices") backend=cuda staged=cuda-staged patience=5 ops=() goldens=() short=()
    large=(-m synthetic:flux-dev:1+2 -W 1024 -H 1024)
fi
ranks=${1:-$devices}
[ "$ranks" -le "$devices" ] || ranks=$devices
build=$(realpath -m "${2:-$root/build-gpu}")
if [ "$rehearse" = 0 ]; then
    arch=${FX_CUDA_ARCHS:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)a}
    # shellcheck disable=SC2086
    if ! { cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DFX_CUDA=ON -DFX_CUDA_ARCHS="$arch" -DFX_CUDNN_ROOT="${FX_CUDNN_ROOT:-}" \
        -DFX_NCCL_ROOT="${FX_NCCL_ROOT:-}" ${CMAKE_ARGS:-} && cmake --build "$build" -j "$(nproc)"; } >"$report/build.log" 2>&1; then
        grep -E 'rror' "$report/build.log" | head -n 20
        tail -n 5 "$report/build.log"
        failed=1
        close
    fi
    echo "built in $SECONDS s"
fi
fluxpar=$build/fluxpar
export FX_TESTS_DIR=$root/tests
start() { # start RANKS COMMAND...
    local n=$1
    shift
    if [ "$n" = 1 ]; then "$@"; else mpirun --oversubscribe --bind-to none -np "$n" "$@"; fi
}
on() { # on RANKS NAME COMMAND...: a program on so many ranks
    local n=$1 name=$2 by=()
    shift 2
    [ "$n" = 1 ] || by=(mpirun --oversubscribe --bind-to none -np "$n")
    program "$name" "${by[@]}" "$@"
}
picture() { # picture NAME RANKS ARGUMENT...: of the demo model
    local name=$1 n=$2
    shift 2
    LIMIT=120 on "$n" "$name" "$fluxpar" generate -m "$root/launch/demo/model" -p "a slice of pizza" -S 3 -f --backend "$backend" "${short[@]+"${short[@]}"}" \
        -o "$report/$name.png" "$@"
}
same() { program "$1" cmp "$report/$2.png" "$report/$3.png"; } # same NAME PICTURE PICTURE

# ---- one device ----

one_device() {
    [ "$rehearse" = 1 ] || LIMIT=120 program doctor "$fluxpar" doctor --backend cuda
    program check_ops "$build/tests/check_ops" --backend "$staged" --dtype bf16 "${ops[@]+"${ops[@]}"}"
    program models "$build/tests/t_golden" --backend "$staged" --dtype bf16 "${goldens[@]+"${goldens[@]}"}"
    program models_on_device "$build/tests/t_golden" --backend "$backend" --dtype bf16 "${goldens[@]+"${goldens[@]}"}"
    # Sums in another order, bf16 in between: the CPU's own backends are 53 to 57 dB apart, another seed 11.
    if "$fluxpar" --version | grep '^backend cpu' >/dev/null; then
        picture by_the_cpu 1 --backend cpu
        program as_the_cpu "$build/tests/tool_pictures" "$report/one_rank.png" "$report/by_the_cpu.png" 45
    else skip as_the_cpu "built with FX_CPU=OFF"; fi
    # A recorded step (CUDA graph) gives the bytes of one that is launched op by op; so does one of a size that was warmed up.
    picture launched 1 --no-graphs
    same capture one_rank launched
    picture warmed_up 1 --warmup 64x64,192x128
    same capture_warmed_up one_rank warmed_up
    if command -v compute-sanitizer >/dev/null; then
        # memory, then races in shared memory (of our kernels: those of cuDNN order themselves in ways that racecheck does not know);
        # attention is ours where heads are small
        for what in memcheck:norm_mod memcheck:qk_norm_rope memcheck:group_norm memcheck:copy memcheck:attention \
            racecheck:norm_mod racecheck:gate_norm racecheck:group_norm racecheck:row_stats; do
            LIMIT=90 program "${what/:/_}" compute-sanitizer --tool "${what%:*}" --error-exitcode 9 --target-processes all \
                "$build/tests/check_ops" --backend "$staged" --dtype bf16 --op "${what#*:}"
        done
    else skip sanitizer "compute-sanitizer is not installed"; fi
}
picture one_rank 1 # what all others must equal
case " $parts " in *" one "*) one_device ;; esac

# ---- several devices, one picture ----

# A rank that stops or is killed is named, and all are gone. lost SIGNAL WORDS EXCHANGE
lost() {
    local job victim="" i log=$report/lost.log
    rm -f "$report/never.png"
    start "$ranks" "$fluxpar" generate "${large[@]}" --steps 1000 -p x -f --backend "$backend" --exchange "$3" --timeout "$patience" \
        -o "$report/never.png" >"$log" 2>&1 &
    job=$!
    for i in $(seq 300); do
        grep -q '^denoise' "$log" && break
        kill -0 "$job" 2>/dev/null || { cat "$log" && return 1; }
        sleep 0.2
    done
    for i in /proc/[0-9]*; do # rank 1 of this job
        [ "$(cat "$i/comm" 2>/dev/null)" = fluxpar ] || continue
        grep -qz '^OMPI_COMM_WORLD_RANK=1$' "$i/environ" 2>/dev/null && grep -qza -e "$report/never.png" "$i/cmdline" && victim=${i#/proc/}
    done
    [ -n "$victim" ] && kill -"$1" "$victim" || return 1
    i=$SECONDS
    wait "$job"
    [ $((SECONDS - i)) -le 20 ] && grep -qE "fluxpar: error: rank [0-9]+ .*$2" "$log" && [ ! -e "$report/never.png" ] && return
    cat "$log" # of the ranks that wait any may be the one to say it
    return 1
}
by_every_exchange() {
    local mesh u r by
    for mesh in "$ranks 1" "1 $ranks"; do
        read -r u r <<<"$mesh"
        for by in peer nccl lsa; do
            picture "mesh_${u}x${r}_$by" "$ranks" --ulysses "$u" --ring "$r" --exchange "$by"
            same "same_${u}x${r}_$by" one_rank "mesh_${u}x${r}_$by"
        done
    done
    picture launched_lsa "$ranks" --exchange lsa --no-graphs
    same capture_lsa one_rank launched_lsa
    # by copy engines beside the MLP; the demo model's rows are few
    export FLUXPAR_COPIES=1
    picture copies "$ranks" --ring 1 --exchange lsa
    same same_copies one_rank copies
    picture copies_launched "$ranks" --ring 1 --exchange lsa --no-graphs
    same same_copies_launched one_rank copies_launched
    unset FLUXPAR_COPIES
    LIMIT=120 on "$ranks" hops "$fluxpar" selftest -m "$root/launch/demo/model" --backend "$backend" --ulysses 1 --ring "$ranks" --exact off \
        "${short[@]+"${short[@]}"}"
    # the demo model's heads are too small for cuDNN's fused kernels: parts into f32, as rings merge them, at FLUX's own width
    [ "$rehearse" = 1 ] || LIMIT=240 on "$ranks" hops_flux "$fluxpar" selftest -m synthetic:flux-dev:1+2 -W 1040 -H 784 --steps 2 \
        --backend "$backend" --ulysses 1 --ring "$ranks" --exact off
    LIMIT=240 on "$ranks" selftest_flux "$fluxpar" selftest "${large[@]}" --steps 2 --backend "$backend"
}
# Placement and doctor: a rank on each device; two on one; each with a device of its own and no other in sight.
shared_device() { # refused before any work
    start 2 env CUDA_VISIBLE_DEVICES=0 "$fluxpar" generate -m "$root/launch/demo/model" -p x -f --backend cuda -o "$report/never.png" 2>&1 |
        tee "$report/shared.txt"
    grep -qE 'fluxpar: error: rank 0 .*ranks 0 and 1 both use GPU-.*CUDA_VISIBLE_DEVICES=0' "$report/shared.txt" && [ ! -e "$report/never.png" ]
}
one_device_each() { # a warning; without a way into each other's memory it is refused
    # shellcheck disable=SC2016
    start 2 bash -c 'CUDA_VISIBLE_DEVICES=$OMPI_COMM_WORLD_LOCAL_RANK exec "$@"' x "$fluxpar" generate -m "$root/launch/demo/model" \
        -p x -S 3 -f --backend cuda -o "$report/one_each.png" 2>&1 | tee "$report/one_each.txt"
    grep -q 'fluxpar: warning: rank 0 sees 1 device and 2 ranks run on' "$report/one_each.txt" &&
        { [ -s "$report/one_each.png" ] || grep -q 'ranks see one device each and cannot write into' "$report/one_each.txt"; }
}
placed() {
    local way
    LIMIT=180 on "$ranks" doctor_ranks "$fluxpar" doctor --backend cuda -m synthetic:flux-dev:1+2
    for way in '(peer|NCCL)' NCCL; do program "doctor_way_${way//[^A-Z]/}" grep -E "^between +device memory, by $way.*: GB/s" "$report/doctor_ranks.log"; done
    program shared_device shared_device
    program one_device_each one_device_each
}
# Groups make different pictures and merge for the last one, over memory that is taken once for all of them: as one rank makes them.
grouped() { # NAME GROUPS EXCHANGE
    local seed
    mkdir -p "$report/$1"
    picture "$1" "$ranks" --groups "$2" --exchange "$3" -n $(($2 + 1)) -W 64 -o "$report/$1/x.png"
    for seed in $(seq 3 $(($2 + 3))); do same "$1_$seed" "one_rank_of_many/x-$seed" "$1/x-$seed"; done
}
by_groups() {
    local by
    mkdir -p "$report/one_rank_of_many"
    picture one_rank_of_many 1 -n $((ranks + 1)) -W 64 -o "$report/one_rank_of_many/x.png"
    for by in auto peer nccl; do
        grouped "groups_of_one_$by" "$ranks" $by
        [ $((ranks % 2)) != 0 ] || [ "$ranks" = 2 ] || grouped "two_groups_$by" 2 $by
    done
}
# The same through NCCL's windows.
by_windows() {
    local mesh u r by
    export FLUXPAR_WINDOWS=1
    for mesh in "$ranks 1" "1 $ranks"; do
        read -r u r <<<"$mesh"
        for by in peer lsa; do
            picture "windows_${u}x${r}_$by" "$ranks" --ulysses "$u" --ring "$r" --exchange "$by"
            program "windows_${u}x${r}_${by}_used" grep -E 'exchange by peer (copies|stores), NCCL windows' "$report/windows_${u}x${r}_$by.log"
            same "windows_same_${u}x${r}_$by" one_rank "windows_${u}x${r}_$by"
        done
    done
    # text and image on different ranks need different amounts of memory, and windows are as large on all
    picture windows_stream "$ranks" --layout stream
    same windows_same_stream one_rank windows_stream
    LIMIT=240 on "$ranks" windows_selftest "$fluxpar" selftest -m synthetic:flux-dev:1+2 -W 1024 -H 1024 --steps 2 --backend cuda
    grouped windows_groups_of_one "$ranks" auto
    [ $((ranks % 2)) != 0 ] || [ "$ranks" = 2 ] || grouped windows_two_groups 2 lsa
    program windows_stopped_rank lost STOP 'rank 1' lsa
    unset FLUXPAR_WINDOWS
}
if [[ " $parts " != *" several "* ]]; then
    skip "several devices" "PARTS=$parts"
elif [ "$ranks" -lt 2 ] || ! command -v mpirun >/dev/null; then
    skip "several devices" "need more than one, and mpirun"
elif [ "$rehearse" = 0 ] && ! "$fluxpar" --version | grep '^backend cuda.* NCCL [0-9]' >/dev/null; then
    skip "several devices" "a build without NCCL"
else
    # all on the first device: the bits of a row must not depend on how many rows there are beside it
    for part in attention blocks; do LIMIT=300 on "$ranks" "check_shard_$part" "$build/tests/check_shard" quick $part "$staged"; done
    [ "$rehearse" = 1 ] || LIMIT=180 on "$ranks" reach "$build/tests/tool_reach" 12
    [ "$rehearse" = 1 ] || placed
    by_every_exchange
    by_groups
    large=("${large[@]/flux-dev:1+2/flux-dev:2+4}") # so that the steps are not over when rank 1 is found
    large=("${large[@]/1024/2048}")
    program stopped_rank lost STOP 'rank 1' auto
    program stopped_rank_lsa lost STOP 'rank 1' lsa
    program killed_rank lost KILL 'rank 1 \(process [0-9]+\) is gone' auto
    if [ "$rehearse" = 1 ] || "$fluxpar" --version | grep 'no windows' >/dev/null; then
        skip windows "this NCCL has none (2.28 and its nccl_device.h are needed)"
    else by_windows; fi
fi
[ "$rehearse" = 1 ] || [ ! -x "$build/bench/bench_ops" ] || "$build/bench/bench_ops" --backend cuda 2>&1 | tee "$report/bench_ops.log"
close
