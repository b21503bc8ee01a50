#!/usr/bin/env bash
# Sharding through the whole pipeline: t_mesh on 1 to 8 ranks for models with 24, 6, 10 and 5 heads; then again with the
# instruction set limited to AVX2 (other kernels), and with two threads per rank. The last part checks that the PNG files
# that users get are equal bytes too.
. "$(dirname "$0")/lib.sh"

if ! has_mpi || [ ! -x "$build_dir/tests/t_mesh" ]; then
    skip "all" "no mpirun, built without MPI, or tests not built"
    finish
fi
models=$work/models
mkdir "$models"
for m in h24dev h6schnell h10shards h5odd; do
    check "materialise $m" "$build_dir/tests/tool_materialize" "$tests_dir/goldens/$m" "$models/$m"
done

# mesh RANKS MODEL THREADS all|few: one mpirun for all meshes of that rank count
mesh() {
    rc=0
    timeout -k 5 240 mpirun "${mpi_flags[@]}" -np "$1" "$build_dir/tests/t_mesh" "$models/$2" "$3" "$4" >"$out" 2>"$err" || rc=$?
    [ $rc = 0 ] || cat "$out"
    check "$1 ranks, $2, $3 threads" prints '^t_mesh rank 0: [1-9][0-9]* passed, 0 failed'
    check "$1 ranks, $2, $3 threads: exit" rc_is 0
}

for p in 1 2 3 4 5 6 7 8; do mesh $p h24dev 1 "$([ $p -lt 7 ] && echo all || echo few)"; done
for p in 2 3 6; do mesh $p h6schnell 1 few; done
for p in 5 4; do mesh $p h10shards 1 few; done
for p in 5 3; do mesh $p h5odd 1 few; done
for p in 2 3; do OMP_WAIT_POLICY=passive mesh $p h24dev 2 few; done
for p in 2 4; do ONEDNN_MAX_CPU_ISA=AVX2 mesh $p h24dev 1 few; done
ONEDNN_MAX_CPU_ISA=AVX512_CORE mesh 3 h24dev 1 few

if [ -f "$model/model_index.json" ]; then
    gen -o one.png
    check "one rank" rc_is 0
    for p in 2 3 8; do
        gen_mpi $p -o "on$p.png"
        check "PNG of $p ranks is that of one" cmp one.png "on$p.png"
    done
    gen_mpi 4 --ulysses 2 --ring 2 --exact on -o hybrid.png
    check "PNG of an exact hybrid mesh" cmp one.png hybrid.png
fi
finish
