#!/usr/bin/env bash
# Everything about this machine that bench/results keeps, in one command: ops, transfers, scaling, ablation, and the pictures.
#   bench/all.sh [RANKS]            RANKS: default all GPUs, else all cores
# ROWS (image rows of the ops: 4096 on GPUs, else 1024), OPS (more flags of bench_ops), COMM_MAX (16 MiB), and what scaling.sh and ablation.sh take. Exit 1 when one failed.
. "$(dirname "$0")/machine.sh"
ranks=${1:-$(most_ranks)}
bad=0
rows=1024
if on_gpus; then rows=4096; fi
# kept NAME COMMAND...: its table to the standard output, its JSON into OUT/NAME-MACHINE.json
kept() {
    local name=$1
    shift
    if "$@" --json "$scratch/$name.json"; then
        python3 "$root/bench/collect.py" "$out/$name-$machine.json" bench="$name" commit="$commit" machine="$machine" note="${NOTE:-}" \
            "runs+=$scratch/$name.json" || bad=1
    else bad=1; fi
}
# shellcheck disable=SC2086
kept ops "$build/bench/bench_ops" --backend "$backend" --rows "${ROWS:-$rows}" --runs "${RUNS:-5}" ${OPS:-}
# shellcheck disable=SC2046
kept comm $(start "$ranks") "$build/bench/bench_comm" --backend "$backend" --max "${COMM_MAX:-16777216}" --runs "${RUNS:-5}"
"$root/bench/scaling.sh" "$ranks" || bad=1
"$root/bench/ablation.sh" "$ranks" || bad=1
python3 "$root/bench/plot.py" all "$out" || bad=1
exit $bad
