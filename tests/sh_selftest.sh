#!/usr/bin/env bash
# `fluxpar selftest`: passes on one rank and on several, on every kind of mesh; its lines and its JSON; what it refuses; and
# t_selftest, in which blocks are spoilt: the step, block and rank that it names must be the spoilt ones.
. "$(dirname "$0")/lib.sh"
need_model

small=(-m "$model" -W 64 -H 48 --t5-len 16 --steps 2 --threads 1)

fx selftest --help
check "help: exit 0" rc_is 0
for flag in model prompt width height steps seed ulysses ring layout exact threads backend dtype timeout json quiet; do
    check "help names --$flag" prints "--$flag( |,|$|\))"
done
check "help has no flag of files" bash -c '! grep -qE -- "--(output|count|report|dump|force)" "$1"' _ "$out"

fx selftest "${small[@]}" --threads 2 --steps 3
check "one rank: exit 0" rc_is 0
check "one rank: a line per step" same "$(grep -c '^selftest: step [1-3]: latents max |diff| 0, relative error 0; blocks relative error 0$' "$out")" 3
check "one rank: verdict" prints '^selftest: passed: 1 rank, mesh 1x1, layout even, exact: yes; equal bits; 2 threads'
fx selftest "${small[@]}" -q --json
check "quiet: nothing on stderr" silent "$err"
check "JSON: passed" prints '^  "passed": true,$'
check "JSON: nothing differs" prints '"first_difference": null'
if command -v python3 >/dev/null; then
    check "JSON parses" python3 -c 'import json, sys
r = json.load(open(sys.argv[1]))
assert [s["step"] for s in r["steps"]] == [1, 2] and all(s["good"] and s["max_diff"] == 0 for s in r["steps"])
assert r["exact"] is True and r["tolerance"] is None and r["pixel_diff"] == 0 and r["mesh"] == {"ulysses": 1, "ring": 1}' "$out"
fi
fx selftest "${small[@]}" -W 63
refused 2 "not a multiple of 16" "a size"
fx selftest "${small[@]}" -o x.png
refused 2 "unknown flag -o" "a flag of generate"
fx selftest --steps 2
refused 2 "no model" "no model"

if ! has_mpi || [ ! -x "$build_dir/tests/t_selftest" ]; then
    skip "several ranks" "no mpirun, no MPI, or tests not built"
    finish
fi

passes() { # NAME RANKS PATTERN FLAGS...
    local name=$1 ranks=$2 pattern=$3
    shift 3
    mpi "$ranks" selftest "${small[@]}" "$@"
    check "$name: exit 0" rc_is 0
    check "$name: verdict" prints "^selftest: passed: $ranks ranks, $pattern"
}
passes "2 ranks" 2 'mesh 2x1, layout [a-z]+, exact: yes; equal bits'
passes "3 ranks, stream" 3 'mesh 3x1, layout stream, exact: yes; equal bits' --layout stream --dtype f32
passes "4 ranks, hybrid" 4 'mesh 2x2, layout even, exact: yes; equal bits' --ulysses 2 --ring 2 --layout even
passes "2 ranks, partial results merged, f32" 2 'mesh 1x2, layout even, exact: no; within 0.001' --ulysses 1 --ring 2 --layout even --exact off --dtype f32
check "partial results merged: bits differ, and are shown" prints 'step 2: latents max .diff. [1-9]'
passes "3 ranks, partial results merged, bf16" 3 'mesh 1x3, layout [a-z]+, exact: no; within 0.1' --ulysses 1 --ring 3 --exact off
mpi 2 selftest "${small[@]}" -W 63
refused 2 "not a multiple of 16" "a size on 2 ranks"

for ranks in 1 2 3 4; do
    rc=0
    timeout -k 5 200 mpirun "${mpi_flags[@]}" -np $ranks "$build_dir/tests/t_selftest" "$model" >"$out" 2>"$err" || rc=$?
    [ $rc = 0 ] || cat "$out"
    check "spoilt blocks, $ranks ranks" prints '^t_selftest: [1-9][0-9]* passed, 0 failed'
    check "spoilt blocks, $ranks ranks: exit" rc_is 0
done
finish
