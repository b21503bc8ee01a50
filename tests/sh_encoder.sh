#!/usr/bin/env bash
# The VAE encoder against the reference, alone and split by rows over ranks (t_encoder).
. "$(dirname "$0")/lib.sh"

if ! has_mpi || [ ! -x "$build_dir/tests/t_encoder" ]; then
    skip "all" "no mpirun, built without MPI, or tests not built"
    finish
fi
encoder() { # RANKS MODEL_DIR GOLDEN
    rc=0
    timeout -k 5 120 mpirun "${mpi_flags[@]}" -np "$1" "$build_dir/tests/t_encoder" "$2" "$3" >"$out" 2>"$err" || rc=$?
    [ $rc = 0 ] || cat "$out"
    check "$3 on $1 ranks" prints '^t_encoder rank 0: [1-9][0-9]* passed, 0 failed'
}
ranks=(1 2 3 4 5 8)
i=0
for m in h4dev h6schnell h10shards h24dev h4shift h5odd; do
    check "materialise $m" "$build_dir/tests/tool_materialize" "$tests_dir/goldens/$m" "$work/$m"
    encoder "${ranks[$i]}" "$work/$m" "$tests_dir/goldens/$m/golden"
    i=$((i + 1))
done
[ ! -f "$model/model_index.json" ] || encoder 3 "$model" "$tests_dir/goldens/demo/golden"
finish
