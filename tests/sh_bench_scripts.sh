#!/usr/bin/env bash
# bench/all.sh, scaling.sh, ablation.sh and plot.py: every command they run, at small sizes; their tables and result files; what goes
# wrong ends them; and the pictures in the tree are those of the result files in the tree.
. "$(dirname "$0")/lib.sh"
need_model
command -v python3 >/dev/null || { skip "all" "no python3"; finish; }
ranks=2
has_mpi || ranks=1
script() { # script NAME ARGS...: with results in res/
    rc=0
    BUILD=$build_dir MODEL=$model OUT=$work/res MACHINE=here LAUNCHER="mpirun ${mpi_flags[*]}" RUNS=${RUNS:-2} STEPS=2 BACKEND=cpu PER_GROUP=2 \
        timeout -k 5 200 bash "$root_dir/bench/$1" "${@:2}" >"$out" 2>"$err" || rc=$?
}
plot() { # plot KIND RESULT OUT: a picture that XML can read
    python3 "$root_dir/bench/plot.py" "$1" "$2" "$3" && python3 -c 'import sys, xml.dom.minidom
d = xml.dom.minidom.parse(sys.argv[1])
print(len(d.getElementsByTagName("text")) > 4 and len(d.getElementsByTagName("rect")) + len(d.getElementsByTagName("circle")) > 1)' "$3"
}

SIZES="32 64" SIZE=32 ROWS=16 OPS="--only norm" COMM_MAX=4096 script all.sh $ranks
check "exit 0" rc_is 0
check "its files" only_files res {ablation,comm,ops,scaling}-here.json {ablation-of-ablation,scaling-of-scaling,stages-of-scaling}-here.svg
check "ops and comm in their files" python3 -c 'import json
for name in "ops", "comm":
    d = json.load(open(f"res/{name}-here.json"))
    assert d["bench"] == name and len(d["runs"]) == 1 and all(r["wrong"] == 0 for r in d["runs"][0]["rows"])'
check "scaling: a table per size" same "$(grep -c '^# rows with wrong bytes: 0 OK' "$out")" 2
check "scaling: rows of 1 to N ranks" same "$(grep -cE '^  [0-9]+x[0-9]+ ' "$out")" $((2 * ranks))
check "scaling: groups" same "$(awk '/^# weak/ {on = 1} /^# written/ {on = 0} on && !/^#/ {n++; if ($2 <= 0) bad = 1} END {print n, bad + 0}' "$out")" "$ranks 0"
check "scaling: the result file has machine, commit and both sizes" python3 -c 'import json
d = json.load(open("res/scaling-here.json"))
assert d["machine"] == "here" and d["commit"] and [r["parameters"]["width"] for r in d["strong"]] == [32, 64]
assert all(len(row["samples"]["step_s"]) == 4 for r in d["strong"] for row in r["rows"])'
check "scaling: its pictures" same "$(plot scaling res/scaling-here.json a.svg) $(plot stages res/scaling-here.json b.svg)" "True True"
check "all draws the same" cmp a.svg res/scaling-of-scaling-here.svg
sed -n '/^# optimisation/,$ {/^#/ d; p}' "$out" | grep '^  ' >table
check "ablation: own kernels, bf16, and ranks where there are" same "$(grep -cE '^  (own kernels, f32|\+ bf16|2 ranks of one thread|\+ text and image on)' table)" $((2 * ranks))
check "ablation: columns of one width but the last" same "$(sed 's/  [0-9x]*:.*//' table | awk '{print length($0)}' | sort -u | wc -l)" 1
check "ablation: the result file follows the table" python3 -c 'import json, sys
d = json.load(open("res/ablation-here.json"))
assert d["bench"] == "ablation" and len(d["rows"]) == int(sys.argv[1]) and d["rows"][0]["gain_all"] == 1 and d["commit"]
for a, b in zip(d["rows"], d["rows"][1:]):
    assert abs(b["gain"] - a["image_s"] / b["image_s"]) < 1e-9 and b["name"]' "$(wc -l <table)"
check "ablation: its picture" same "$(plot ablation res/ablation-here.json c.svg)" True

# ---- what goes wrong ----
rm -r res
mkdir fake && printf '#!/usr/bin/env bash\n[ "$1" != bench ] || { echo broken >&2; exit 5; }\nexec "%s" "$@"\n' "$fluxpar" >fake/fluxpar && chmod +x fake/fluxpar
FLUXPAR=$work/fake/fluxpar SIZES=32 script scaling.sh 1
check "scaling: a failing run ends it with 1" rc_is 1
FLUXPAR=$work/fake/fluxpar SIZE=32 script ablation.sh 1
check "ablation: a failing run ends it with 1" rc_is 1
check "no result file of it" no_file res/ablation-here.json
FLUXPAR=$work/none script ablation.sh 1
check "no program: exit 2, and what to do" bash -c '[ "$1" = 2 ] && grep -q "build first" "$2"' _ "$rc" "$err"
check "plot: an unknown kind" bash -c '! python3 "$1/bench/plot.py" pie a b 2>/dev/null' _ "$root_dir"

# ---- the pictures in the tree ----
for picture in "$root_dir"/bench/results/*.svg; do
    [ -f "$picture" ] || continue
    name=$(basename "$picture" .svg) # KIND-of-RESULT
    plot "${name%%-*}" "$root_dir/bench/results/${name#*-of-}.json" new.svg >/dev/null
    check "$name.svg is what plot.py makes of its result file" cmp new.svg "$picture"
done
finish
