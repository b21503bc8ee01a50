#!/usr/bin/env bash
# 1 to N ranks: strong scaling at several picture sizes (one picture by all), and weak scaling in groups (one picture per group).
#   bench/scaling.sh [RANKS]        RANKS: default all GPUs, else all cores
# SIZES="512 1024 2048", STEPS (4), RUNS (5), WARMUP (1), PER_GROUP (4 pictures per group), THREADS per CPU rank (1), MODEL, BACKEND,
# FLAGS: more of them for fluxpar bench; BUILD, OUT and MACHINE: bench/machine.sh. The tables go to the standard output, and with all
# samples to OUT/scaling-MACHINE.json; pictures of it: bench/plot.py. Exit 1 when a run failed or bytes differed.
. "$(dirname "$0")/machine.sh"
ranks=${1:-$(most_ranks)}
steps=${STEPS:-4} bad=0 parts=()
threads=(--threads "${THREADS:-1}")
if on_gpus; then threads=(); fi
# shellcheck disable=SC2206
flags=(-m "$model" --steps "$steps" --backend "$backend" "${threads[@]}" ${FLAGS:-})

echo "# scaling.sh: commit $commit, machine $machine, 1 to $ranks ranks"
for size in ${SIZES:-512 1024 2048}; do
    echo "# strong scaling, ${size}x$size"
    # shellcheck disable=SC2046
    if $(start "$ranks") "$fluxpar" bench "${flags[@]}" -W "$size" -H "$size" --runs "${RUNS:-5}" --warmup "${WARMUP:-1}" -q \
        --json "$scratch/strong-$size.json"; then
        parts+=("strong+=$scratch/strong-$size.json")
    else bad=1; fi
done

# In groups: totals are seconds from process start to a picture on disk; the first picture of each group is warm-up.
size=${SIZES:-512} size=${size%% *} each=${PER_GROUP:-4}
echo "# weak scaling, ${size}x$size: a group per rank, $each pictures per group"
echo "# groups   rate  speedup    eff"
echo "#      (images/s)    (x)    (%)"
for ((n = 1; ; n = 2 * n < ranks ? 2 * n : ranks)); do
    mkdir -p "$scratch/weak-$n"
    # shellcheck disable=SC2046
    $(start "$n") "$fluxpar" generate "${flags[@]}" -p cat -S 1 -n $((n * each)) --groups "$n" -W "$size" -H "$size" -q \
        --report "$scratch/weak-$n/report.json" -o "$scratch/weak-$n/p.png" >"$scratch/weak-$n/paths" || bad=1
    python3 - "$n" "$scratch" <<'PY' || bad=1
import json, os, sys
n, folder = int(sys.argv[1]), sys.argv[2]
totals = sorted(i["timings"]["total"] for i in json.load(open(f"{folder}/weak-{n}/report.json"))["images"])
rate = (len(totals) - n) / (totals[-1] - totals[n - 1])
path = f"{folder}/weak.json"
weak = json.load(open(path)) if os.path.exists(path) else {"rows": []}
base = weak["rows"][0]["images_per_s"] if weak["rows"] else rate
weak["rows"].append({"groups": n, "ranks": n, "images": len(totals), "images_per_s": rate, "speedup": rate / base,
                     "efficiency": rate / base / n, "samples": {"total_s": totals}})
json.dump(weak, open(path, "w"))
print(f"{n:8} {rate:6.3f} {rate / base:8.2f} {100 * rate / base / n:6.1f}")
PY
    [ "$n" -lt "$ranks" ] || break
done
[ ! -s "$scratch/weak.json" ] || parts+=("weak+=$scratch/weak.json")
[ ${#parts[@]} -gt 0 ] || exit 1
python3 "$root/bench/collect.py" "$out/scaling-$machine.json" bench=scaling commit="$commit" machine="$machine" note="${NOTE:-}" "${parts[@]}" || bad=1
echo "# written: $out/scaling-$machine.json"
exit $bad
