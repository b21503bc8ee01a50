#!/bin/sh
# Runs the rank tests under mpirun on 1..8 ranks (oversubscribed where cores are few), then the faults: each must end
# all ranks with one clear reason. usage: sh_mpi.sh [build folder]   exit 0 passed, 1 failed, 77 no mpirun.
# FX_LONG=1: all cases.
build=${1:-${FX_BUILD:-build}}
comm=$build/tests/check_comm
shard=$build/tests/check_shard
slabs=$build/tests/t_slabs
fault=$build/tests/tool_comm_fault
cases=quick
[ -n "$FX_LONG" ] && cases=all # three times as many, three times as long
passed=0
failed=0
skipped=0
out=$(mktemp)
trap 'rm -f "$out"' EXIT

if ! command -v mpirun >/dev/null || ! "$build/fluxpar" --version | grep -E '^MPI +[^ n]' >/dev/null; then
    echo "sh_mpi: there is no mpirun, or the build is without MPI"
    echo "sh_mpi: 0 passed, 0 failed, 1 skipped"
    exit 77
fi
# One thread per rank and no pinning: ranks share the cores. Root and more ranks than cores need leave.
export OMP_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none

start() { # ranks, program, arguments: runs it, output in $out
    ranks=$1
    shift
    timeout -k 5 300 mpirun -np "$ranks" "$@" </dev/null >"$out" 2>&1
}

verdict() { # 1 = good, name
    if [ "$1" = 1 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $2"
        head -40 "$out"
    fi
}

for p in 1 2 3 4 5 6 7 8; do
    start $p "$comm"
    [ $? = 0 ] && verdict 1 || verdict 0 "check_comm on $p ranks"
    start $p "$shard" $cases
    [ $? = 0 ] && verdict 1 || verdict 0 "check_shard on $p ranks"
    start $p "$slabs"
    [ $? = 0 ] && verdict 1 || verdict 0 "t_slabs on $p ranks"
done

# The CUDA backend's kernels on the CPU in place of the CPU backend: as slow as they are there.
if [ -n "$FX_LONG" ]; then
    for part in attention blocks vae; do
        start 3 "$shard" quick $part twin
        [ $? = 0 ] && verdict 1 || verdict 0 "check_shard $part on 3 ranks, CUDA's kernels"
    done
fi

for p in 2 3 5; do
    start $p "$build/tests/t_store_device"
    [ $? = 0 ] && verdict 1 || verdict 0 "t_store_device on $p ranks"
done

# Kernels of older processors split work in other ways; bits must not follow.
ONEDNN_MAX_CPU_ISA=AVX2 start 4 "$shard" quick
[ $? = 0 ] && verdict 1 || verdict 0 "check_shard on 4 ranks, AVX2"

# Without the kernel's help for single-copy messages (containers), and over sockets.
OMPI_MCA_btl_vader_single_copy_mechanism=none start 3 "$comm"
[ $? = 0 ] && verdict 1 || verdict 0 "no single-copy messages"
OMPI_MCA_btl=self,tcp start 3 "$comm"
[ $? = 0 ] && verdict 1 || verdict 0 "sockets"

fault() { # what, wanted exit code (of mpirun: 137 when it saw the kill), wanted words
    start 4 "$fault" "$1"
    code=$?
    good=0
    if [ $code = "$2" ] && grep -q "$3" "$out" && ! grep -q 'was forgotten' "$out"; then good=1; fi
    verdict $good "fault '$1': mpirun returned $code, want $2 and '$3'"
}

fault late 5 "FX_ECOMM after [1-9].* s: rank [012] waited 1 s in 'denoise step 3' for rank 3; "
fault stopped 5 "FX_ECOMM after [1-9].* s: rank [012] waited 1 s in 'denoise step 3' for rank 3; "
fault signal 143 "FX_ESIGNAL after 0\.. s: stopped by signal 15 in 'denoise step 3'"
# mpirun may end the job before the survivors' deadline: the code is its own (137) then.
start 4 "$fault" killed
code=$?
[ $code != 0 ] && [ $code != 124 ] && verdict 1 || verdict 0 "a killed rank: mpirun returned $code"

# A launcher that this MPI does not know must not give many jobs of one rank.
env PMI_SIZE=4 PMI_RANK=1 "$comm" >"$out" 2>&1
[ $? = 2 ] && grep -q 'MPI started 1 process but the launcher started 4 tasks' "$out" && verdict 1 ||
    verdict 0 "4 tasks, MPI of one"

echo "sh_mpi: $passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
