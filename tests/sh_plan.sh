#!/usr/bin/env bash
# The memory plan is exact: t_plan draws 30 random models and sizes on 1, 2 and 4 ranks, and fewer on odd numbers of ranks; on
# each rank the arena that was planned is the arena that a picture used, to the byte. FX_LONG draws a new seed and more.
. "$(dirname "$0")/lib.sh"

seed=1837
[ -z "${FX_LONG:-}" ] || seed=$(od -An -N 4 -t u4 /dev/urandom | tr -d ' ')
echo "sh_plan: seed $seed"
export OMP_WAIT_POLICY=passive # ranks share the cores

plan() { # plan RANKS COUNT
    local command=("$build_dir/tests/t_plan" --seed "$seed" --count "$2")
    [ ! -f "$model/model_index.json" ] || command+=(--demo "$model")
    [ "$1" = 1 ] || command=(mpirun "${mpi_flags[@]}" -np "$1" "${command[@]}")
    rc=0
    ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0 timeout -k 5 280 "${command[@]}" >"$out" 2>"$err" || rc=$?
    [ $rc = 0 ] || cat "$out"
    check "$1 ranks: the planned arena is the arena used" prints "^t_plan: [1-9][0-9]* passed, 0 failed"
    check "$1 ranks: exit" rc_is 0
}

if [ ! -x "$build_dir/tests/t_plan" ]; then
    skip "all" "tests not built"
    finish
fi
plan 1 30
if has_mpi; then
    for ranks in 2 4; do plan $ranks 30; done
    plan 3 5
    [ -z "${FX_LONG:-}" ] || for ranks in 3 5 6 8; do plan $ranks 60; done
else skip "several ranks" "no mpirun"; fi
finish
