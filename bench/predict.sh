#!/usr/bin/env bash
# The predictor against this machine's processors: calibrates with RANKS ranks, predicts a step on 1 and on RANKS ranks at several
# sizes, measures the same (median of the steps but the first), and prints both. Exit 1: an error of more than LIMIT percent. Alone on
# the machine; a shared one adds time to one side only.
#   bench/predict.sh [BUILD [RANKS]]          settings: LIMIT (15), SIZES, MODEL, STEPS
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$(realpath "${1:-$root/build}")
ranks=${2:-$(nproc)}
limit=${LIMIT:-15} model=${MODEL:-synthetic:flux-dev:1+2} steps=${STEPS:-4}
read -ra sizes <<<"${SIZES:-256 384 512}"
export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=1000
flags=(--oversubscribe --bind-to none)
[ "$(id -u)" != 0 ] || flags+=(--allow-run-as-root)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

run() { # run RANKS ARGS: all cores, dealt out
    local n=$1
    shift
    mpirun "${flags[@]}" -np "$n" "$build/fluxpar" "$@" --threads $(($(nproc) / n))
}
export FLUXPAR_CACHE= # the run takes its defaults, whatever was measured before
run "$ranks" bench --calibrate "$work/machine.json" >/dev/null
echo "# $model, $(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg), $steps steps"
echo "#  size ranks predicted measured   error"
bad=0
for size in "${sizes[@]}"; do
    for n in 1 "$ranks"; do
        shape=(-m "$model" -W "$size" -H "$size" --t5-len 128 --layout even --ulysses "$n")
        run "$n" generate "${shape[@]}" -p cat -S 1 --steps "$steps" -q -f -o "$work/p.png" --report "$work/r.json" >/dev/null
        "$build/fluxpar" plan "${shape[@]}" --gpu "$work/machine.json" --gpus "$n" --json >"$work/plan.json"
        python3 - "$work" "$size" "$n" "$limit" <<'END' || bad=1
import json, statistics, sys
work, size, n, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
report = json.load(open(work + "/r.json"))
def find(o):
    if isinstance(o, dict):
        if isinstance(o.get("step"), list):
            return o["step"]
        o = list(o.values())
    if isinstance(o, list):
        for x in o:
            f = find(x) if isinstance(x, (dict, list)) else None
            if f:
                return f
    return None
seen = 1e3 * statistics.median(find(report)[1:])
said = [p for p in json.load(open(work + "/plan.json"))["plans"] if p["groups"] == 1][0]["step_ms"]
error = 100 * (said / seen - 1)
print(f"{size:>7} {n:5d} {said:9.1f} {seen:8.1f} {error:+6.1f} %")
sys.exit(abs(error) > limit)
END
    done
done
[ $bad = 0 ] || { echo "predict.sh: an error of more than $limit %"; exit 1; }
