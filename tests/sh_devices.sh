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

# ---- doctor ----

with "Old:80,H100:90" fx doctor
check "doctor: a device that answers no call: exit 1" rc_is 1
check "doctor: the card of the usable one" prints '^device +rank 0: H100, 9\.0, .*, 1 of 2 seen'
with "" fx doctor
check "doctor without a device: exit 0" rc_is 0
[ $has_cpu = 0 ] || check "doctor without a device: says so" prints '^note +devices: no GPU is seen'
with "" fx doctor --backend cuda
check "doctor --backend cuda without a device: exit 1" rc_is 1
check "doctor --backend cuda without a device: found" prints '^failure +devices: rank 0 has no device on '

compile() { "${CC:-cc}" -std=c17 -D_GNU_SOURCE -Wall -Wextra -Werror -shared -fPIC -isystem "$include" "$@" "$tests_dir/cuda/works.c" 2>"$err"; }
mkdir driver
if ! compile -o works.so || ! compile -DNVML -o driver/libnvidia-ml.so.1; then
    fail "tests/cuda/works.c compiles"
    finish
fi
# copying DEVICES VARIABLES... -- COMMAND...: on a machine with so many devices whose copies work, and a driver's library
copying() {
    local set=(FX_DEVICES="$1" LD_PRELOAD="$work/works.so" LD_LIBRARY_PATH="$work/driver${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}")
    shift
    while [ "$1" != -- ]; do
        set+=("$1")
        shift
    done
    shift
    rc=0
    env "${set[@]}" timeout -k 5 60 "$@" >"$out" 2>"$err" || rc=$?
}
copying 3 X=1 -- "$fluxpar" doctor
check "doctor, three devices: exit 0" rc_is 0
check "doctor, three devices: card and driver" prints '^device +rank 0: Made-up GPU, 9\.0, 80\.0 GiB, .*PCI 0000:1b:00\.0, .*driver 580\.95\.05, 18 of 18 NVLinks up, fabric complete, clique 7, IMEX channels 0'
check "doctor, three devices: six copies over NVLink" same "$(grep -oE '[0-9.]+ nvlink' "$out" | wc -l)" 6
check "doctor, three devices: nothing found" prints '^verdict +ok: 0 failures, 0 warnings'
copying 2 FX_COPIES=wrong -- "$fluxpar" doctor
check "a wrong byte: exit 1" rc_is 1
check "a wrong byte: found" prints '^failure +link: device 0 to device 1 of [^ ]+: 1 of 16777216 bytes are wrong'
check "a wrong byte: of no other copy" same "$(grep -c 'bytes are wrong' "$out")" 1
copying 2 FX_COPIES=hang -- "$fluxpar" doctor
check "a copy that does not end: exit 1" rc_is 1
check "a copy that does not end: found" prints 'a copy from device 0 to device 1 did not end within 10 s'
copying 2 FX_COPIES=apart LD_LIBRARY_PATH= -- "$fluxpar" doctor
check "devices apart, no driver's library: a warning" prints '^warning +link: device 0 of [^ ]+ does not reach the memory of device 1 \(2 such pairs\)'
check "devices apart, no driver's library: a note" prints '^note +devices: of the devices of [^ ]+ only CUDA tells'
copying 2 FX_FABRIC=2 FX_OTHERS=1 -- "$fluxpar" doctor --json
check "fabric in progress: exit 1" rc_is 1
check "fabric in progress: found" prints "is not registered with NVLink's fabric \(in progress\)"
check "another process on the device: found" prints '18\.0 of 80\.0 GiB are used on the device of rank 0 \([^)]+\), by process 8123'
if has_mpi; then
    one=(mpirun "${mpi_flags[@]}" -np 2 "$fluxpar" generate -m "$model" -p x -S 1 --backend cuda -f -o x.png)
    rm -f x.png
    copying 1 CUDA_VISIBLE_DEVICES=0 -- "${one[@]}"
    refused 4 'ranks 0 and 1 both use GPU-01000000-0000-00 \(Made-up GPU\) of .*2 ranks run there and see 1 device; CUDA_VISIBLE_DEVICES=0; start one rank per device' "two ranks on a device"
    check "two ranks on a device: no picture" no_file x.png
    copying 2 FX_LINKS=17 -- mpirun "${mpi_flags[@]}" -np 2 "$fluxpar" doctor --json
    check "a link that is down: found" prints 'the device of rank 1 \([^)]+\) has 17 of 18 NVLinks up, others have 18'
    check "rows that do not open are a finding: exit 1" rc_is 1
fi
finish
