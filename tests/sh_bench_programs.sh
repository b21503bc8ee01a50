#!/usr/bin/env bash
# bench_ops and bench_comm: rows of fixed columns, figures that fit together in table and JSON, 0 wrong; and wrong values are counted,
# in the row where they are, and end the program with 6.
. "$(dirname "$0")/lib.sh"
ops=$build_dir/bench/bench_ops comm=$build_dir/bench/bench_comm
if [ ! -x "$ops" ] || [ ! -x "$comm" ]; then skip "all" "no bench programs in $build_dir"; finish; fi
export OMP_WAIT_POLICY=passive
rows() { grep -v '^#' "$out"; }
program() { # program COMMAND...
    rc=0
    timeout -k 5 120 "$@" >"$out" 2>"$err" || rc=$?
}

# ---- ops ----
program "$ops" --rows 16 --runs 2 --threads 1 --double 1 --single 2 --only norm --json ops.json
check "ops: exit 0" rc_is 0
check "ops: what is measured" same "$(rows | awk '{print $1}' | xargs)" "norm_mod gate_norm qk_norm_rope layer_norm rms_norm group_norm"
check "ops: one width, no value is wrong" same "$(rows | awk '{print length($0), $NF}' | sort -u | awk '{print NF, $2}')" "2 0"
check "ops: header" same "$(grep -cE '^# (bench_ops|machine|16 image|op +time|wrong values: 0 OK)| \(us\)' "$out")" 6
rest=attention,copy,axpy,activate,glu,row_stats,upsample,to_rgb8
program "$ops" --rows 16 --runs 1 --threads 1 --only "$rest,count,embed,load"
check "ops: the rest is right" rc_is 0
check "ops: which that is" same "$(rows | awk '{print $1}' | xargs)" \
    "attention copy axpy count_nonfinite glu activate embed row_stats upsample2x to_rgb8 upload download"
program "$ops" --rows 16 --runs 1 --threads 1 --only "$rest" --spoil yes
check "ops: a wrong value is seen, in each row" same "$(rows | awk '{print $NF}' | sort | uniq -c | xargs) $rc" "8 1 6"
program "$ops" --linear 32x48x64 --runs 3 --threads 1 --json linear.json
check "ops: one product" same "$(rows | awk '{print $1, $2, $4, $6, $NF}')" "linear 32 48 64 0"
program "$ops" --linear 32x48x64 --runs 1 --threads 1 --dtype f32 --spoil yes
check "ops: a wrong value of a product" same "$(rows | awk '{print $NF}') $rc" "1 6"
for bad in "--linear 3x4" "--runs 0" "--rows x" "--colour red" "--only"; do
    # shellcheck disable=SC2086
    program "$ops" $bad
    check "ops: $bad is refused" rc_is 2
done
program "$ops" --backend abacus
check "ops: an unknown backend is refused, with words" bash -c '[ "$1" = 2 ] && grep -q "^bench_ops: .*abacus" "$2"' _ "$rc" "$err"
if command -v python3 >/dev/null; then
    check "ops: the JSON has the table's rows and follows from its samples" python3 -c 'import json, statistics
d = json.load(open("ops.json"))
assert [r["op"] for r in d["rows"]] == "norm_mod gate_norm qk_norm_rope layer_norm rms_norm group_norm".split() and d["machine"]["cores"] > 0
for r in d["rows"]:
    t = r["samples"]["time_s"]
    assert len(t) == 2 and abs(statistics.median(t) * 1e6 - r["time_us"]) < 1e-3 and min(t) * 1e6 <= r["best_us"] + 1e-3 and r["gbs"] > 0
r = json.load(open("linear.json"))["rows"][0]
assert abs(r["tflops"] * r["time_us"] * 1e6 - 2 * 32 * 48 * 64) < 1 and r["wrong"] == 0'
fi

# ---- comm ----
program "$comm" --runs 1 --max 4096 --factor 64
check "comm, one rank: exit 0" rc_is 0
check "comm, one rank: nothing crosses a link" same "$(rows | awk '$1 != "attention" {print $6 + 0}' | sort -u)" 0
program "$comm" --max 1
check "comm: a size is refused" rc_is 2
if has_mpi; then
    preload=$build_dir/tests/fault_preload.so
    export ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0 # what MPI keeps looks like a leak
    ranks() { # ranks N ARGS
        program mpirun "${mpi_flags[@]}" -np "$1" "$comm" "${@:2}"
    }
    ranks 3 --runs 2 --max 16384 --factor 16 --json comm.json
    check "comm: exit 0" rc_is 0
    check "comm: three ops of three sizes, and attention of two" same "$(rows | awk '{print $1}' | uniq -c | xargs)" "3 alltoall 3 ring 3 halo 2 attention"
    check "comm: nothing wrong" same "$(rows | awk '{print $NF}' | sort -u) $(tail -n 1 "$out")" "0 # wrong values: 0 OK"
    if command -v python3 >/dev/null; then
        check "comm: the JSON's rates follow from sizes and times" python3 -c 'import json, statistics
d = json.load(open("comm.json"))
links = {"alltoall": 2 / 3, "ring": 1, "halo": 2}
assert d["parameters"]["ranks"] == 3
for r in d["rows"]:
    if r["op"] == "attention":
        assert r["sent_mb"] > 0 and r["attend_ms"] > 0 and len(r["samples"]["put_s"]) == 2
        continue
    assert abs(statistics.median(r["samples"]["time_s"]) * 1e6 - r["time_us"]) < 1e-3
    assert abs(r["algbw_gbs"] - r["bytes"] / r["time_us"] * 1e-3) < 1e-6
    assert abs(r["busbw_gbs"] - r["algbw_gbs"] * links[r["op"]]) < 1e-6, r'
    fi
    if [ ! -f "$preload" ] || sanitized; then skip "comm: spoilt messages" "no $preload, or a sanitizer"; else
        export FAULT_RANK=1 FAULT_SPOIL=1
        program mpirun "${mpi_flags[@]}" -np 2 -x LD_PRELOAD="$preload" -x FAULT_RANK -x FAULT_SPOIL "$comm" --runs 1 --min 4096 --max 4096 --op all
        unset FAULT_RANK FAULT_SPOIL
        check "comm: spoilt messages: exit 6" rc_is 6
        check "comm: one word of two transfers of each op, and values of attention" same \
            "$(rows | awk '{print $1, ($1 == "attention" ? ($NF > 0) : $NF)}' | uniq | xargs)" "alltoall 2 ring 2 halo 2 attention 1"
    fi
else skip "comm on several ranks" "no mpirun or no MPI"; fi
finish
