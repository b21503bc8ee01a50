#!/usr/bin/env bash
# `fluxpar bench`: the table and its JSON have the same rows and figures that fit together, on one rank and several; equal bytes on
# every mesh; spoilt messages are counted and end it with 6; what it refuses.
. "$(dirname "$0")/lib.sh"
need_model

small=(-m "$model" -W 64 -H 48 --t5-len 16 --steps 2 --threads 1 --runs 2)
rows() { grep -v '^#' "$out"; }
column() { # column N: of every row
    rows | awk -v n="$1" '{print $n}' | xargs
}

fx bench --help
check "help: exit 0" rc_is 0
for flag in model prompt width height steps seed meshes runs warmup no-vae json force layout exact threads backend dtype timeout; do
    check "help names --$flag" prints "--$flag( |,|$|\))"
done
check "help has no flag of one mesh or of pictures" bash -c '! grep -qE -- "--(output|count|report|dump|ulysses|ring)[ ,]" "$1"' _ "$out"

# ---- one rank ----
fx bench "${small[@]}" --meshes 1x1,1x1:dtype=f32,1x1:threads=2 --json t.json
check "one rank: exit 0" rc_is 0
check "columns of one width" same "$(rows | awk '{print NF, length($0)}' | sort -u | wc -l)" 1
check "as many names and units" same "$(grep -cE '^# (mesh .*#bad| +\(ms\) .*\(bytes\))$' "$out")" 2
check "machine, versions, model and parameters" same "$(grep -cE '^# (fluxpar bench|machine|model|runs) ' "$out")" 4
check "rows" same "$(column 1)" "1x1 1x1:dtype=f32 1x1:threads=2"
check "threads of each" same "$(column 3)" "1 1 2"
check "equal bytes; f32 is compared with nothing but itself" same "$(column 20)" "0 0 0"
check "a picture of f32 is another one" test "$(rows | awk '$1 ~ /f32/ {print $19}')" -gt 0
check "the verdict" same "$(tail -n 1 "$out")" "# rows with wrong bytes: 0 OK"
fx bench "${small[@]}" --meshes 1x1 --json t.json
refused 2 "t.json exists.*--json" "a JSON file that is there"
fx bench "${small[@]}" --meshes 1x1 --json t.json -f -q --no-vae --warmup 0
check "-f replaces it" rc_is 0
check "-q: nothing on stderr" silent "$err"
check "--no-vae: no time in it, latents are compared" same "$(column 15) $(column 19) $(column 20)" "0.000 - 0"

# ---- what is refused ----
for bad in 2:"2x1:needs 2 ranks" 2:"axb:is no mesh" 2:"1x1x1:is no mesh" 2:"0x1:is no mesh" 2:"2x:is no mesh" 2:"2:needs 2 ranks" 2:":is no mesh" 2:"1x1,,1x1:is no mesh" \
    2:"1x1@steps=2:'steps' in 1x1.steps=2 is none of layout" 2:"1x1@layout:--layout" 2:"1x1@threads=0:--threads 0 is not possible" \
    2:"1x1@dtype=f16:--dtype f16 is not known" 2:"1x1@no-graphs=1:--no-graphs 1"; do
    list=${bad#*:}
    fx bench "${small[@]}" --meshes "$(cut -d : -f 1 <<<"$list" | tr @ :)"
    refused "${bad%%:*}" "${list#*:}" "--meshes $list"
done
fx bench "${small[@]}" --meshes "$(printf '1x1:threads=%d,' $(seq 1 70))1x1"
refused 2 "more than 64 meshes" "too many meshes"
fx bench "${small[@]}" -W 63
refused 2 "not a multiple of 16" "a size"
fx bench "${small[@]}" --runs 0
refused 2 "--runs 0 is not possible" "no runs"
fx bench "${small[@]}" --ulysses 1
refused 2 "--ulysses is not a flag of bench" "a flag of one mesh"
fx bench --runs 2
refused 2 "no model" "no model"

if ! has_mpi; then
    skip "several ranks" "no mpirun or no MPI"
    finish
fi

# ---- several ranks ----
mpi 3 bench "${small[@]}" --backend ref --meshes 1x1,3x1,1x3 --warmup 0
check "ref: q, k, v are one product on one rank and parts of its matrix on several" same "$rc $(column 20)" "0 0 0 0"
mpi 3 bench "${small[@]}" --layout even --meshes 3:layout=stream,all,1x2:exact=off --json m.json
check "three ranks: exit 0" rc_is 0
check "one rank comes first, doubles once, each mesh of 1, 2 and 3" same "$(column 1)" "1x1 3x1:layout=stream 2x1 1x2 3x1 1x3 1x2:exact=off"
check "ranks of each" same "$(column 2)" "1 3 2 2 3 3 2"
check "equal bytes where they are promised" same "$(rows | awk '$5 == "yes" {print $20}' | sort -u)" 0
check "the one that is not exact says so, and fails nothing" same "$(rows | awk '$5 == "no" {print $1}')" "1x2:exact=off"
check "layout used" same "$(column 4)" "even stream even even even even even"
if command -v python3 >/dev/null; then
    check "the JSON has the table's rows, and figures that follow from its samples" python3 -c 'import json, statistics, sys
d = json.load(open("m.json"))
table = [line.split() for line in open(sys.argv[1]) if not line.startswith("#")]
assert [r["mesh"] for r in d["rows"]] == [t[0] for t in table] and d["parameters"]["ranks"] == 3
for r, t in zip(d["rows"], table):
    s = r["samples"]
    assert len(s["step_s"]) == 4 and len(s["image_s"]) == 2 and len(s["comm_s"]) == 5, s
    assert abs(statistics.median(s["step_s"]) * 1e3 - r["step_ms"]) < 1e-6 and abs(r["step_ms"] - float(t[6])) < 0.006
    assert r["p95_ms"] == max(s["step_s"]) * 1e3 or abs(r["p95_ms"] - max(s["step_s"]) * 1e3) < 1e-6
    assert abs(r["compute_ms"] + r["exposed_ms"] - r["step_ms"]) < 1e-6 and 0 <= r["exposed_ms"] < r["step_ms"]
    assert abs(r["speedup"] - d["rows"][0]["step_ms"] / r["step_ms"]) < 1e-6
    assert abs(r["efficiency"] - r["speedup"] / r["ranks"]) < 1e-6
    assert (r["comm_ms"] > 0.001) == (r["ranks"] > 1) and (r["sent_bytes"] > 10000) == (r["ranks"] > 1), r
    assert r["weight_bytes"] > 1e6 and r["arena_bytes"] > 1e4 and not r["wrong"]
    assert r["kept_texts"] == 0  # each picture encodes its text' "$out"
else skip "the JSON" "no python3"; fi

preload=$build_dir/tests/fault_preload.so
if [ ! -f "$preload" ] || sanitized; then skip "spoilt messages" "no $preload, or a sanitizer"; else
    rc=0
    LD_PRELOAD='' timeout -k 5 120 mpirun "${mpi_flags[@]}" -np 2 -x LD_PRELOAD="$preload" -x FAULT_RANK=1 -x FAULT_SPOIL=1 \
        "$fluxpar" bench "${small[@]}" --meshes auto >"$out" 2>"$err" || rc=$?
    check "spoilt messages: exit 6" rc_is 6
    check "spoilt messages: one error line with the mesh" says "^fluxpar: error: rank 0 .*bench: 2x1 differs from one rank in [1-9][0-9]* bytes"
    check "spoilt messages: counted in their row alone" same "$(rows | awk '{print $1, ($20 > 0)}' | xargs)" "1x1 0 2x1 1"
    check "spoilt messages: the verdict" same "$(tail -n 1 "$out")" "# rows with wrong bytes: 1"
fi
finish
