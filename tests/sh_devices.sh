#!/usr/bin/env bash
# What a user is told of GPUs that cannot be used, on a machine without any: no driver, a driver without devices, devices that are
# too old or too new for this build, fewer than ranks. Named, exit 4 with --backend cuda; `auto` computes on the CPU and says why.
# The devices are made up by tests/cuda/devices.c. Needs a build with FX_CUDA; run by .ci/cuda.
. "$(dirname "$0")/lib.sh"

"$fluxpar" --version >"$out" 2>&1
if ! prints '^backend cuda '; then
    skip "all" "built without FX_CUDA"
    finish
fi
include=$(dirname "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)")/../include
if ! "${CC:-cc}" -std=c17 -D_GNU_SOURCE -Wall -Wextra -Werror -shared -fPIC -isystem "$include" -o devices.so "$tests_dir/cuda/devices.c" 2>"$err"; then
    fail "tests/cuda/devices.c compiles"
    finish
fi
archs=$(sed -nE 's/^backend cuda +code for ([^ ]+), .*/\1/p' "$out")
check "--version names the architectures that there is code for: $archs" test -n "$archs"
with() { # with DEVICES COMMAND...: the command on a machine that has them
    local devices=$1
    shift
    export FX_DEVICES=$devices LD_PRELOAD=$work/devices.so
    "$@"
    unset LD_PRELOAD
}
version() { "$fluxpar" --version >"$out" 2>"$err"; }
picture=(generate -m "$model" -p x -S 1 --steps 1 --t5-len 16 --threads 1 -f -o x.png)
has_cpu=1
grep -q '^backend cpu' "$out" || has_cpu=0

with "" fx "${picture[@]}" --backend cuda
refused 4 'no CUDA device; the driver shows none' "a driver without devices"
with "Old:80" fx "${picture[@]}" --backend cuda
refused 4 "Old has compute capability 8\.0 and this build has code for $archs; build with -DFX_CUDA_ARCHS=all \(9\.0 and later\)" "a device that is too old"
with "New:131" fx "${picture[@]}" --backend cuda
if [[ $archs = *-virtual* || $archs =~ (^|,)[0-9]+(,|$) ]]; then
    check "PTX runs on what comes later" says 'device 0 is taken'
else refused 4 "New has compute capability 13\.1 and this build has code for $archs" "a device that is too new"; fi
with "Old:80,H100:90,Old:75,H200:90" version
check "usable devices are counted" prints '^GPUs +2 usable'
with "Old:80,H100:90" fx "${picture[@]}" --backend cuda
check "beside an older device the one that there is code for is taken" says 'device 1 is taken'
check "it ends with 4" rc_is 4
with "Old:80,H100:90" fx "${picture[@]}" --backend auto
[ $has_cpu = 0 ] || check "auto takes a usable device" says 'device 1 is taken'
if [ $has_cpu = 1 ]; then
    with "Old:80" fx "${picture[@]}"
    check "auto without a usable device: exit" rc_is 0
    check "auto without a usable device: the reason" says 'note: no GPU is used: Old has compute capability 8\.0'
    check "auto without a usable device: what computes" says '^run .*(avx|sse|portable|amx)'
    check "auto without a usable device: a picture" test -s x.png
    with "H100:90" fx "${picture[@]}" --dtype f32
    check "f32 is for the CPU" rc_is 0
    if has_mpi; then
        with "H100:90" mpi 2 "${picture[@]}"
        check "fewer devices than ranks: exit" rc_is 0
        check "fewer devices than ranks: the reason, once" same "$(grep -c 'no GPU is used: a node has 2 ranks and 1 usable device; start one rank per device' "$err")" 1
    else skip "fewer devices than ranks" "no MPI"; fi
else
    with "Old:80" fx "${picture[@]}"
    refused 4 'Old has compute capability 8\.0' "auto where nothing else is built in"
fi
finish
