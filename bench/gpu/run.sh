#!/usr/bin/env bash
# The performance table of one machine with GPUs, and what its first hour should find out: the ceilings of products and copies,
# a step's ops one by one, pictures of FLUX.1-dev's size on 1, 2, 4 and 8 of them (three sizes, both exchanges, equal bytes), cold
# starts, a step launch by launch. Changes no setting of a GPU. The table comes last, after '#' lines; exit 1 when a run failed.
#   bench/gpu/run.sh [NGPUS [BUILD]]              NGPUS: at most so many ranks (default all); BUILD: measured as it is, else built
#   bench/gpu/run.sh --rehearse [NRANKS [BUILD]]  the same commands with the demo model on CPU ranks: what they print is no result
# Logs, reports, pictures, table.txt and table.json go to $OUT (default build/gpu-bench). FX_CUDNN_ROOT, FX_NCCL_ROOT,
# FX_CUDA_ARCHS, CMAKE_ARGS: as tests/gpu/run.sh. LIMIT: seconds for one run (300).
set -uo pipefail
export LC_ALL=C NCCL_NVLS_ENABLE=0
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
rehearse=0
if [ "${1:-}" = --rehearse ]; then
    rehearse=1
    shift
fi
report=$(realpath -m "${OUT:-$root/build/gpu-bench}")
mkdir -p "$report"
rm -f "$report"/*.png "$report"/table.* "$report"/times*
rows=$report/rows.tsv bad=0
: >"$rows"
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi

# ---- this machine ----

if [ "$rehearse" = 1 ]; then
    most=${1:-2} machine="CPU ranks, a rehearsal" driver=none backend=cpu
    model=$root/launch/demo/model sizes=(128 64 192) steps=(3 2 2)
else
    if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L >"$report/devices" 2>&1; then
        echo "no GPU on this machine"
        exit 77
    fi
    devices=$(wc -l <"$report/devices")
    most=${1:-$devices}
    [ "$most" -le "$devices" ] || most=$devices
    machine="$devices x $(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)"
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)
    backend=cuda model=synthetic:flux-dev sizes=(1024 512 2048) steps=(28 12 6)
fi
build=$(realpath -m "${2:-$root/build-gpu}")
if [ -z "${2:-}" ]; then
    options=(-DFX_CUDA=OFF)
    [ "$rehearse" = 1 ] || options=(-DFX_CUDA=ON "-DFX_CUDNN_ROOT=${FX_CUDNN_ROOT:-}" "-DFX_NCCL_ROOT=${FX_NCCL_ROOT:-}"
        "-DFX_CUDA_ARCHS=${FX_CUDA_ARCHS:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)a}")
    # shellcheck disable=SC2086
    if ! { cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release "${options[@]}" ${CMAKE_ARGS:-} &&
        cmake --build "$build" -j "$(nproc)"; } >"$report/build.log" 2>&1; then
        grep -E 'rror' "$report/build.log" | head -n 20
        echo "the build failed: $report/build.log"
        exit 1
    fi
fi
fluxpar=$build/fluxpar
if [ "$most" -gt 1 ] && ! { command -v mpirun >/dev/null && "$fluxpar" --version | grep -E '^MPI +[^ n]' >/dev/null; }; then
    echo "one rank only: no mpirun, or a build without MPI"
    most=1
fi
libraries=$("$fluxpar" --version | sed -nE "s/^backend $backend +//p; s/^MPI +//p" | paste -sd ';' | sed 's/;/; /g')
# What cuDNN planned for and which algorithms won is kept between the runs of this script's call, and not before it.
export FLUXPAR_CACHE=$report/cache
rm -rf "$FLUXPAR_CACHE"
mkdir "$FLUXPAR_CACHE"

# ---- runs ----

# run NAME COMMAND...: its log in NAME.log; false and a line when it failed
run() {
    local name=$1 code=0
    shift
    timeout -k 10 "${LIMIT:-300}" "$@" >"$report/$name.log" 2>&1 || code=$?
    [ "$code" != 0 ] || return 0
    bad=1
    printf '%s: FAILED (exit %d): %s\n' "$name" "$code" "$(grep -a 'rror' "$report/$name.log" | tail -n 1 | cut -c -200)"
    return 1
}
# row WHAT RANKS EXCHANGE SIZE STEPS STEP_MS PICTURE_S TEXT_S DENOISE_S VAE_S PNG_S EXPOSED_MS TOTAL_S BYTES, '-' for what there is none of
row() {
    local IFS=$'\t'
    printf '%s\n' "$*" >>"$rows"
    printf '%s\n' "$*"
}
# figures LOG: step_ms picture_s text_s denoise_s vae_s png_s exposed_ms (per step) total_s of the last picture
figures() {
    awk '$1 == "text" && NF == 3 && /^  / {text = $2} $1 == "vae" && /^  / {vae = $2} $1 == "png" && /^  / {png = $2}
        $1 == "denoise" && /median/ {denoise = $2; steps = $4; step = $7} $1 == "exchanged" {exposed = $(NF - 1)} $1 == "total" {total = $2}
        END {
            if (!steps) exit 1
            printf "%.2f %.3f %s %s %s %s %s %s\n", step * 1e3, text + denoise + vae + png, text, denoise, vae, png,
                exposed == "" ? "-" : sprintf("%.2f", exposed * 1e3 / steps), total
        }' "$report/$1.log"
}
# picture NAME RANKS EXCHANGE SIZE STEPS COUNT: pictures of seeds 5, 6, ...; false when they failed
picture() {
    local name=$1 n=$2 by=$3 size=$4 some=$5 count=$6 start=() threads=()
    [ "$n" = 1 ] || start=(mpirun --oversubscribe --bind-to none -np "$n")
    [ "$rehearse" = 0 ] || threads=(--threads 1)
    run "$name" "${start[@]}" "$fluxpar" generate -m "$model" -p cat -S 5 -n "$count" -W "$size" -H "$size" --steps "$some" \
        --backend "$backend" --exchange "$by" "${threads[@]}" --report "$report/$name.json" -f -o "$report/$name.png"
}
# measured WHAT NAME RANKS EXCHANGE SIZE STEPS COUNT [OTHER]: a row; OTHER: the run whose pictures must have the same bytes
measured() {
    local what=$1 name=$2 n=$3 by=$4 size=$5 some=$6 count=$7 other=${8:-} equal=- f
    picture "$name" "$n" "$by" "$size" "$some" "$count" || return 0
    if ! read -r -a f <<<"$(figures "$name")" || [ ${#f[@]} != 8 ]; then
        echo "$name: FAILED: no figures in its log"
        bad=1
        return 0
    fi
    if [ -n "$other" ]; then
        equal=same
        for seed in 5 6; do
            cmp "$report/$other-$seed.png" "$report/$name-$seed.png" || { equal=DIFFER bad=1; }
        done
    fi
    row "$what" "$n" "$by" "$size" "$some" "${f[@]}" "$equal"
}

echo "# what ranks exchange size steps step_ms picture_s text_s denoise_s vae_s png_s exposed_ms_per_step total_s bytes"
product=- copied=-
if [ "$rehearse" = 1 ]; then
    run ceilings "$build/bench/bench_ops" --threads 1 --runs 1 --linear 512x1024x1024 || true
else
    for image in 4096 2048 1024 512; do # the ops of a step with that many image rows
        run "ops_$image" "$build/bench/bench_ops" --backend cuda --rows "$image" --rings yes --json "$report/ops_$image.json" || true
        took=$(sed -nE 's/^# step of .* ([0-9.]+) ms$/\1/p' "$report/ops_$image.log")
        row "ops_of_step" 1 - "$image" - "${took:--}" - - - - - - - -
    done
    run ceilings "$build/bench/bench_ops" --backend cuda --ceilings yes || true
fi
[ ! -x "$build/bench/questions" ] || [ "$rehearse" = 1 ] || run questions "$build/bench/questions" || true
product=$(awk '/^  linear/ {last = $(NF - 4)} END {print last == "" ? "-" : last}' "$report/ceilings.log")
copied=$(awk '/^  copy/ {last = $(NF - 3)} END {print last == "" ? "-" : last}' "$report/ceilings.log")
[ ! -x "$build/tests/tool_dnn_plans" ] || [ "$rehearse" = 1 ] || "$build/tests/tool_dnn_plans" device >"$report/device.json" || bad=1

measured cold_no_plans cold_no_plans 1 auto "${sizes[0]}" "${steps[0]}" 1
for n in 1 2 4 8; do
    [ "$n" -le "$most" ] || continue
    ways=(auto)
    [ "$n" = 1 ] || ways=(auto peer nccl)
    for by in "${ways[@]}"; do
        other=one
        name=${n}_$by
        [ "$n" != 1 ] || name=one other=
        measured picture "$name" "$n" "$by" "${sizes[0]}" "${steps[0]}" 2 "$other"
    done
    for i in 1 2; do
        other=one_${sizes[i]}
        name=${n}_${sizes[i]}
        [ "$n" != 1 ] || name=$other other=
        measured picture "$name" "$n" auto "${sizes[i]}" "${steps[i]}" 2 "$other"
    done
    measured cold "cold_$n" "$n" auto "${sizes[0]}" "${steps[0]}" 1
done

# ---- a step, launch by launch ----

if ! command -v python3 >/dev/null; then echo "no python3: no timelines"; else
    if [ "$rehearse" = 1 ]; then # no CUPTI: three steps of two launches as bench/timeline.c would write them
        printf '%s\n' '0 10000000 7 gemm' '10000000 12000000 7 count_kernel' '15000000 25000000 7 gemm' '25000000 27000000 7 count_kernel' \
            '30000000 40000000 7 gemm' '40000000 42000000 7 count_kernel' >"$report/times.1.1"
    else
        for n in 1 "$most"; do
            [ -s "$(echo "$report/times.$n."* | cut -d ' ' -f 1)" ] || CUDA_INJECTION64_PATH=$build/bench/timeline.so \
                FX_TIMELINE=$report/times.$n picture "timeline_$n" "$n" auto "${sizes[0]}" 6 1
        done
    fi
    for n in 1 $([ "$most" = 1 ] || [ "$rehearse" = 1 ] || echo "$most"); do
        file=$(find "$report" -maxdepth 1 -name "times.$n.*" -size +0 | sort | head -n 1)
        run "step_$n" python3 "$root/bench/timeline.py" "${file:-$report/times.$n}" || continue
        took=$(sed -nE 's/^# .*: step of ([0-9.]+) ms, .*/\1/p' "$report/step_$n.log")
        gaps=$(sed -nE 's/^# .*gaps between kernels ([0-9.]+) ms$/\1/p' "$report/step_$n.log")
        row timeline "$n" auto "${sizes[0]}" 6 "${took:--}" - - - - - "${gaps:--}" - -
    done
fi

# ---- the table ----

{
    echo "# $machine; driver $driver; $libraries"
    echo "# host $(uname -m), $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1); $(date -u '+%Y-%m-%d %H:%M UTC')"
    echo "# fluxpar $("$fluxpar" --version | sed -n 's/^fluxpar *//p') $(git -C "$root" -c safe.directory='*' rev-parse --short HEAD 2>/dev/null)"
    echo "# model $(basename "$model"), bf16, -S 5, step_ms: median of the last picture; exposed_ms: waits per step, for a timeline its gaps; total_s: from process start; size of ops_of_step: image rows"
    [ ! -s "$report/questions.log" ] || sed 's/^/# /' "$report/questions.log"
    echo "# ceilings: largest product $product TFLOP/s, copy $copied GB/s"
    { echo "what ranks exchange size steps step_ms picture_s text_s denoise_s vae_s png_s exposed_ms total_s bytes" && tr '\t' ' ' <"$rows"; } |
        awk '{printf "%-14s %5s %8s %5s %5s %9s %9s %7s %9s %7s %7s %10s %8s %7s\n", $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14}'
} >"$report/table.txt"
awk -F '\t' -v machine="$machine" -v driver="$driver" -v libraries="$libraries" -v date="$(date -u +%FT%TZ)" -v product="$product" -v copied="$copied" '
    function text(s) {gsub(/[\\"]/, "\\\\&", s); return "\"" s "\""}
    function value(s) {return s == "-" || s == "" ? "null" : s ~ /^[0-9.]+$/ ? s + 0 : text(s)}
    BEGIN {
        n = split("what ranks exchange size steps step_ms picture_s text_s denoise_s vae_s png_s exposed_ms total_s bytes", name, " ")
        printf "{\"machine\": %s, \"driver\": %s, \"libraries\": %s, \"date\": %s, \"product_tflops\": %s, \"copy_gbs\": %s, \"rows\": [",
            text(machine), text(driver), text(libraries), text(date), value(product), value(copied)
    }
    {
        printf "%s\n  {", (NR > 1 ? "," : "")
        for (i = 1; i <= n; i++) printf "%s\"%s\": %s", (i > 1 ? ", " : ""), name[i], value($i)
        printf "}"
    }
    END {print "\n]}"}' "$rows" >"$report/table.json" || bad=1
echo
cat "$report/table.txt"
exit "$bad"
