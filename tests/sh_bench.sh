#!/usr/bin/env bash
# bench/gpu/run.sh, which measures machines with GPUs, rehearsed on the CPU with the demo model: every command it runs, its table
# and the JSON of it; a run that fails and a picture with other bytes end it with 1.
. "$(dirname "$0")/lib.sh"
need_model
[ -x "$build_dir/bench/bench_ops" ] || { skip "all" "no bench_ops in $build_dir"; finish; }
ranks=2
has_mpi || ranks=1

rehearse() { # BUILD: exit code in $rc, tables in report/
    rc=0
    OUT=$work/report timeout -k 5 "${limit:-200}" bash "$root_dir/bench/gpu/run.sh" --rehearse "$ranks" "$1" >"$out" 2>"$err" || rc=$?
}
table=report/table.txt
rehearse "$build_dir"
check "exit 0" rc_is 0
check "no message" silent "$err"
rows=$(grep -vc '^#' $table)
check "the table comes last" same "$(tail -n "$rows" "$out")" "$(grep -v '^#' $table)"
check "machine, host, version, model, ceilings" same "$(grep -c '^# ' $table)" 5
check "a ceiling" grep -qE '^# ceilings: largest product [0-9.]+ TFLOP/s' $table
check "columns" same "$(awk '!/^#/ {print NF, length($0)}' $table | sort -u | wc -l)" 1
check "one rank: cold without plans, three sizes, cold" same "$(awk '$2 == 1 && !/timeline/' $table | awk '{print $1}' | xargs)" \
    "cold_no_plans picture picture picture cold"
check "times of every picture" awk '/^(picture|cold)/ {n++; for (i = 6; i <= 11; i++) if ($i !~ /^[0-9.]+$/ || $6 <= 0) exit 1} END {exit !n}' $table
if [ "$ranks" = 2 ]; then
    check "two ranks: the automatic and both other exchanges, two more sizes" same "$(awk '/^picture/ && $2 == 2 {print $3, $14}' $table | xargs)" \
        "auto same peer same nccl same auto same auto same"
    check "and the waits of a step" awk '/^picture/ && $2 == 2 {if ($12 !~ /^[0-9.]+$/) exit 1}' $table
fi
if command -v python3 >/dev/null; then
    check "a timeline" same "$(awk '/^timeline/ {print $6, $12}' $table)" "15.00 3.00"
    check "the JSON has the table's rows" same "$(python3 -c 'import json, sys
d = json.load(open("report/table.json"))
print(len(d["rows"]), d["product_tflops"] > 0, d["copy_gbs"], all(r["step_ms"] > 0 for r in d["rows"]))')" "$((rows - 1)) True None True"
else skip "timeline and JSON" "no python3"; fi

# ---- what goes wrong is said, and ends with 1 ----
mkdir -p fake/bench && cp "$build_dir/bench/bench_ops" fake/bench/
wrapper() { # wrapper LINE: a fluxpar that runs LINE first
    printf '#!/usr/bin/env bash\n[ "$1" = --version ] || { %s; }\nexec "%s" "$@"\n' "$1" "$fluxpar" >fake/fluxpar
    chmod +x fake/fluxpar
}
if [ "$ranks" = 2 ]; then
    # shellcheck disable=SC2016
    wrapper '[ "${OMPI_COMM_WORLD_SIZE:-1}" = 1 ] || set -- "$@" --guidance 9'
    rehearse fake
    check "other bytes on two ranks: exit 1" rc_is 1
    check "they are named in the table" same "$(awk '/^picture/ && $2 == 2 {print $14}' $table | sort -u)" DIFFER
else skip "other bytes" "no MPI"; fi
wrapper 'echo "an error"; exit 3'
rehearse fake
check "failing runs: exit 1" rc_is 1
check "each is named" test "$(grep -c 'FAILED (exit 3): an error' "$out")" -ge 5
check "and none is in the table" same "$(grep -cE '^(picture|cold)' $table)" 0
finish
