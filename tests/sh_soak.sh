#!/usr/bin/env bash
# Many pictures in one process (t_soak) on 4 ranks: memory flat, no descriptor leaks, the last picture equals the first.
# 20 pictures in the suite, 300 with --long; FX_SOAK: another number.
. "$(dirname "$0")/lib.sh"
need_model

if ! has_mpi || [ ! -x "$build_dir/tests/t_soak" ]; then
    skip "all" "no mpirun, no MPI, or tests not built"
    finish
fi
count=${FX_SOAK:-$([ -n "${FX_LONG:-}" ] && echo 300 || echo 20)}
timeout -k 5 1500 mpirun "${mpi_flags[@]}" -np 4 "$build_dir/tests/t_soak" "$model" "$count" >"$out" 2>"$err" || rc=$?
cat "$out"
check "$count pictures on 4 ranks" rc_is 0
check "every rank has a slope" same "$(grep -c '^t_soak: rank [0-3]: .* slope ' "$out")" 4
check "$count pictures on 4 ranks: closing line" prints '^t_soak: [1-9][0-9]* passed, 0 failed, 0 skipped$'
finish
