#!/usr/bin/env bash
# The CUDA backend's own kernels on the CPU (kernels/twin), from the very source that nvcc compiles: every op against ref,
# and a model through the whole pipeline against the reference's tensors. With --long: two models, both dtypes.
. "$(dirname "$0")/lib.sh"

run() { # NAME COMMAND...: a program with a closing line of its own
    local name=$1
    shift
    rc=0
    timeout -k 5 280 "$@" >"$out" 2>"$err" || rc=$?
    [ $rc = 0 ] || grep -a FAIL "$out" | head -n 20
    check "$name" prints '^[a-z_]+: [1-9][0-9]* passed, 0 failed'
    check "$name: exit" rc_is 0
}
if "$build_dir/tests/check_ops" --backend twin --op upsample2x 2>&1 | grep -q "'twin' is not built in"; then
    skip "all" "built with FX_CPU=OFF, whose twin has no products"
    finish
fi
run "every op" "$build_dir/tests/check_ops" --backend twin
export FX_TESTS_DIR=$tests_dir
if [ -n "${FX_LONG:-}" ]; then
    run "two models" "$build_dir/tests/t_golden" --backend twin h24dev h5odd
else
    run "a model in bf16" "$build_dir/tests/t_golden" --backend twin --dtype bf16 h5odd
fi
finish
