#!/usr/bin/env bash
# Which kernel cuDNN takes on an H100 and on a B200 for every attention and convolution of 1024x1024 and 1360x768 on 1, 2, 4 and
# 8 ranks, without a GPU: tests/tool_dnn_plans.c against tests/cuda/plans.txt (a line: device | operation | engine | kernel).
# Attention must have a kernel for its device; one for sm_80 must be refused. Without FX_LONG, which .ci/cuda sets, the convolutions
# of most rank counts are left out: they take a minute of two cores. After a change that is meant:
#   FX_WRITE=1 FX_BUILD=DIR tests/sh_dnn_plans.sh        writes the table anew
. "$(dirname "$0")/lib.sh"

tool=$build_dir/tests/tool_dnn_plans table=$tests_dir/cuda/plans.txt
[ -x "$tool" ] || { skip "all" "built without FX_CUDA"; finish; }
library=$(LD_LIBRARY_PATH=$build_dir/tests/no_driver "$tool" version)
if [ -z "${FX_WRITE:-}" ] && ! grep -qx "# $library" "$table"; then
    skip "all" "$library here; the table was made with $(sed -n 's/^# \(cuDNN .*\)/\1/p' "$table")"
    finish
fi
how=()
[ -z "${FX_WRITE:-}${FX_LONG:-}" ] || how=(all)
plans() { # DEVICE
    LD_LIBRARY_PATH=$build_dir/tests/no_driver "$tool" "$tests_dir/cuda/$1.json" "${how[@]+"${how[@]}"}" 2>"$1.err" |
        sed "s/^/$1 | /; s/cudnn_generated_fort_native_//" | sort -u >"$1"
    echo "${PIPESTATUS[0]}" >"$1.rc"
}
for device in h100 b200; do plans "$device" & done
wait
if [ -n "${FX_WRITE:-}" ]; then
    { sed '/^[^#]/d; /^# cuDNN /d' "$table"; echo "# $library"; sort -V h100; sort -V b200; } >new
    cp new "$table"
fi
for device in h100 b200; do
    cp "$device.err" "$err"
    check "$device: planned" same "$(cat "$device.rc")" 0
    grep "^$device " "$table" | sort -u >want
    comm -23 "$device" want >other
    comm -13 "$device" want >missing
    check "$device: lines" test "$(wc -l <"$device")" -ge 30
    check "$device: no other choice than the table's: $(head -n 3 other)" silent other
    [ ${#how[@]} = 0 ] || check "$device: all of the table: $(head -n 3 missing)" silent missing
done
finish
