#!/usr/bin/env bash
# What only a GPU can show of the CUDA backend: builds it and runs every op against ref, models through the whole pipeline
# against the reference's tensors, and compute-sanitizer over small ops. Last line 'N passed, N failed, N skipped'.
#   tests/gpu/run.sh [BUILD]       BUILD: default build-gpu. Logs and BUILD's results go to $OUT (default build/gpu-report).
# With more than one device: pictures and selftest on RANKS of them (default all), by every exchange, also through NCCL's windows,
# which ranks of one NVLink domain use between nodes; and a rank that stops.
# FX_CUDNN_ROOT, FX_NCCL_ROOT: cuDNN and NCCL, also as pip lays them out; FX_CUDA_ARCHS: default this machine's; CMAKE_ARGS: more arguments.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$(realpath -m "${1:-$root/build-gpu}")
report=${OUT:-$root/build/gpu-report}
mkdir -p "$report"
passed=0 failed=0 skipped=0
close() {
    printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
    [ "$failed" = 0 ] || exit 1
    exit 0
}

# program NAME COMMAND...: adds the closing line of a test program
program() {
    local name=$1 line p=0 f=0 s=0 begin=$SECONDS code=0
    shift
    if [ "$(type -t "$1")" = function ]; then
        "$@" >"$report/$name.log" 2>&1 || code=$?
    else
        timeout -k 10 "${LIMIT:-240}" "$@" >"$report/$name.log" 2>&1 || code=$?
    fi
    line=$(grep -aE '^[a-z_]+: [0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$report/$name.log" | tail -n 1)
    if [ -n "$line" ]; then read -r _ p _ f _ s _ <<<"${line//,/}"; elif [ "$code" = 0 ]; then p=1; fi
    [ "$code" = 0 ] || [ "$f" != 0 ] || f=1
    printf '%-24s %4d s  %d passed, %d failed, %d skipped\n' "$name" $((SECONDS - begin)) "$p" "$f" "$s"
    [ "$f" = 0 ] || grep -aE 'FAIL|again|rror' "$report/$name.log" | head -n 12 | cut -c -240 | sed 's/^/    /'
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L >"$report/devices" 2>&1; then
    echo "no GPU on this machine"
    skipped=1
    close
fi
cat "$report/devices"
arch=${FX_CUDA_ARCHS:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)a}
# shellcheck disable=SC2086
if ! { cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DFX_CUDA=ON -DFX_CUDA_ARCHS="$arch" \
    -DFX_CUDNN_ROOT="${FX_CUDNN_ROOT:-}" -DFX_NCCL_ROOT="${FX_NCCL_ROOT:-}" ${CMAKE_ARGS:-} && cmake --build "$build" -j "$(nproc)"; } >"$report/build.log" 2>&1; then
    grep -E 'rror' "$report/build.log" | head -n 20
    tail -n 5 "$report/build.log"
    failed=1
    close
fi
echo "built in $SECONDS s"
export FX_TESTS_DIR=$root/tests
program check_ops "$build/tests/check_ops" --backend cuda-staged --dtype bf16
program models "$build/tests/t_golden" --backend cuda-staged --dtype bf16
program models_on_device "$build/tests/t_golden" --backend cuda --dtype bf16
if command -v compute-sanitizer >/dev/null; then
    for op in norm_mod qk_norm_rope group_norm copy; do
        LIMIT=60 program "memcheck_$op" compute-sanitizer --error-exitcode 9 --target-processes all \
            "$build/tests/check_ops" --backend cuda-staged --dtype bf16 --op "$op"
    done
else
    skipped=$((skipped + 1))
    echo "compute-sanitizer: not installed"
fi
# ---- several devices, one picture ----
devices=$(nvidia-smi -L | wc -l) ranks=${RANKS:-$devices}
model=$root/launch/demo/model
picture() { # NAME RANKS ARGUMENT...: a picture of the demo model
    local name=$1 n=$2 start=()
    shift 2
    [ "$n" = 1 ] || start=(mpirun --oversubscribe --bind-to none -np "$n")
    LIMIT=120 program "$name" "${start[@]}" "$build/fluxpar" generate -m "$model" -p "a slice of pizza" -S 3 -f --backend cuda \
        -o "$report/$name.png" "$@"
}
if [ "$ranks" -gt 1 ] && [ "$devices" -ge "$ranks" ] && command -v mpirun >/dev/null && "$build/fluxpar" --version | grep -q NCCL; then
    LIMIT=180 program reach mpirun --oversubscribe --bind-to none -np "$ranks" "$build/tests/tool_reach" 12
    picture one_rank 1
    for mesh in "$ranks 1" "1 $ranks"; do
        read -r u r <<<"$mesh"
        for by in peer nccl lsa; do
            picture "mesh_${u}x${r}_$by" "$ranks" --ulysses "$u" --ring "$r" --exchange "$by"
            program "same_${u}x${r}_$by" cmp "$report/one_rank.png" "$report/mesh_${u}x${r}_$by.png"
        done
    done
    LIMIT=120 program hops mpirun --oversubscribe --bind-to none -np "$ranks" "$build/fluxpar" selftest -m "$model" --backend cuda \
        --ulysses 1 --ring "$ranks" --exact off
    # the demo model's heads are too small for cuDNN's fused kernels: parts into f32, as rings merge them, at FLUX's own width
    LIMIT=240 program hops_flux mpirun --oversubscribe --bind-to none -np "$ranks" "$build/fluxpar" selftest \
        -m synthetic:flux-dev:1+2 -W 1040 -H 784 --steps 2 --backend cuda --ulysses 1 --ring "$ranks" --exact off
    LIMIT=240 program selftest_flux mpirun --oversubscribe --bind-to none -np "$ranks" "$build/fluxpar" selftest \
        -m synthetic:flux-dev:1+2 -W 1024 -H 1024 --steps 2 --backend cuda
    # a rank that stops is named when the time is up, and all are gone
    stopped() { # EXCHANGE; large enough that the steps are not over when rank 1 is found
        rm -f "$report/never.png"
        mpirun --oversubscribe --bind-to none -np "$ranks" "$build/fluxpar" generate -m synthetic:flux-dev:2+4 -W 2048 -H 2048 \
            --steps 1000 -p x -f --backend cuda --exchange "$1" --timeout 5 -o "$report/never.png" >"$report/stopped.log" 2>&1 &
        local job=$! victim="" i
        for i in $(seq 60); do
            grep -q '^denoise' "$report/stopped.log" && break
            kill -0 "$job" 2>/dev/null || return 1
            sleep 1
        done
        for i in /proc/[0-9]*; do # rank 1
            [ "$(cat "$i/comm" 2>/dev/null)" = fluxpar ] || continue
            grep -qz '^OMPI_COMM_WORLD_RANK=1$' "$i/environ" 2>/dev/null && victim=${i#/proc/}
        done
        [ -n "$victim" ] && kill -STOP "$victim" || return 1
        i=$SECONDS
        wait "$job"
        [ $((SECONDS - i)) -le 20 ] && grep -qE 'fluxpar: error: rank [0-9]+ .*rank 1' "$report/stopped.log" && [ ! -e "$report/never.png" ] && return
        cat "$report/stopped.log" # of the ranks that wait any may be the one to say it
        return 1
    }
    program stopped_rank stopped auto
    program stopped_rank_lsa stopped lsa
    # the same through NCCL's windows
    if "$build/fluxpar" --version | grep -q 'no windows'; then
        skipped=$((skipped + 1))
        echo "windows: this NCCL has none (2.28 and its nccl_device.h are needed)"
    else
        export FLUXPAR_WINDOWS=1
        for mesh in "$ranks 1" "1 $ranks"; do
            read -r u r <<<"$mesh"
            for by in peer lsa; do
                picture "windows_${u}x${r}_$by" "$ranks" --ulysses "$u" --ring "$r" --exchange "$by"
                program "windows_${u}x${r}_${by}_used" grep -E 'exchange by peer (copies|stores), NCCL windows' "$report/windows_${u}x${r}_$by.log"
                program "windows_same_${u}x${r}_$by" cmp "$report/one_rank.png" "$report/windows_${u}x${r}_$by.png"
            done
        done
        # text and image on different ranks need different amounts of memory, and windows are as large on all
        picture windows_stream "$ranks" --layout stream
        program windows_same_stream cmp "$report/one_rank.png" "$report/windows_stream.png"
        LIMIT=240 program windows_selftest mpirun --oversubscribe --bind-to none -np "$ranks" "$build/fluxpar" selftest \
            -m synthetic:flux-dev:1+2 -W 1024 -H 1024 --steps 2 --backend cuda
        program windows_stopped_rank stopped lsa
        unset FLUXPAR_WINDOWS
    fi
else
    skipped=$((skipped + 1))
    echo "several devices: need more than one, mpirun and a build with NCCL"
fi
[ ! -x "$build/bench/bench_cuda" ] || "$build/bench/bench_cuda" 2>&1 | tee "$report/bench_cuda.log"
close
