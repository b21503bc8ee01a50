#!/usr/bin/env bash
# The whole pipeline under the guard backend, which watches every call (kernels/guard.c): the demo model on 1 and 4 ranks, in
# both dtypes, on the meshes that take other paths (ring hops and merges, text and image on different ranks). Nothing may be
# complained about, and the file must be the one that the plain backend writes. That the guard complains: t_guard.
. "$(dirname "$0")/lib.sh"
need_model

for dtype in bf16 f32; do
    gen --dtype $dtype -o plain-$dtype.png
    check "plain, $dtype" rc_is 0
    gen --dtype $dtype --backend guard -o guard-$dtype.png
    check "guard, $dtype: no complaint" rc_is 0
    check "guard, $dtype: the same file" cmp plain-$dtype.png guard-$dtype.png
done
check "guard was there" says 'every op of [a-z]+ is watched'
gen -W 80 -H 48 -o small.png
gen -W 80 -H 48 --threads 2 --backend guard -o small-guard.png
check "guard, 80x48, 2 threads: the same file" cmp small.png small-guard.png

if has_mpi; then
    meshes=("--ulysses 4" "--layout stream" "--ulysses 2 --ring 2 --exact on" "--ring 4 --dtype f32")
    for mesh in "${meshes[@]}"; do
        dtype=bf16
        [ "${mesh%f32}" = "$mesh" ] || dtype=f32
        # shellcheck disable=SC2086
        gen_mpi 4 $mesh --backend guard -o mesh.png -f
        check "guard, 4 ranks, $mesh: no complaint" rc_is 0
        check "guard, 4 ranks, $mesh: the file of one rank" cmp plain-$dtype.png mesh.png
    done
    gen_mpi 4 --ring 4 --exact off -o hops.png
    gen_mpi 4 --ring 4 --exact off --backend guard -o hops-guard.png
    check "guard, 4 ranks, keys and values hop: no complaint" rc_is 0
    check "guard, 4 ranks, keys and values hop: the same file" cmp hops.png hops-guard.png
else skip "4 ranks" "no mpirun"; fi

# A weight that is not finite is found where it works, not a block later.
if poison transformer/diffusion_pytorch_model.safetensors 'x_embedder\.weight'; then
    fx generate -m m -p x --steps 2 --backend guard -o bad.png
    refused 6 "guard: call [0-9]+, linear: finite inputs gave [0-9]+ NaN" "a NaN in a matrix"
    check "a NaN in a matrix: no file" no_file bad.png
else skip "a NaN in a matrix" "no x_embedder.weight in the header"; fi
finish
