#!/usr/bin/env bash
# The command line as a user sees it: help, versions, defaults, output names, metadata, report, dump, quiet, inspect, info.
. "$(dirname "$0")/lib.sh"
need_model

# ---- help and versions ----
fx --help
check "help: exit 0" rc_is 0
for word in generate selftest bench doctor plan inspect info version 'Exit codes'; do check "help names $word" prints "$word"; done
fx generate --help
check "generate --help: exit 0" rc_is 0
for flag in model prompt prompt-file output width height steps guidance seed t5-len ulysses ring layout exact threads \
    backend dtype timeout report dump warmup no-graphs exchange bind batch results resume grace quiet verbose force ulysses-degree ring-degree; do
    check "generate --help names --$flag" prints "--$flag( |,|$|\))"
done
for letter in m p o n W H g S q v f; do check "generate --help names -$letter" prints "^  -$letter, --"; done
for command in inspect info; do
    fx $command --help
    check "$command --help names --json" prints "--json"
done
fx help generate
check "help generate" prints "--guidance"
fx --version
check "--version: exit 0" rc_is 0
for word in fluxpar compiler 'backend cpu' MPI jansson libpng PCRE2 utf8proc hwloc; do check "--version names $word" prints "^$word +[^ ]"; done
check "--version: nothing on stderr" silent "$err"

# ---- a run and its defaults ----
mkdir defaults && cd defaults || exit 1
fx generate -m "$model" -p "a slice of pizza on a blue background" --steps 2
cd "$work" || exit 1
check "defaults: exit 0" rc_is 0
seed=$(sed -n 's/^seed *//p' "$err")
check "the seed is printed" grep -qE '^[0-9]+$' <<<"$seed"
check "the name carries the seed" only_files defaults "fluxpar-$seed.png"
check "the path is the last line of stdout" same "$(tail -n 1 "$out")" "fluxpar-$seed.png"
check "timings are printed" says "^  total +[0-9.]+ s"
check "header: mesh and threads" says "^run .*mesh 1x1 .*thread"
fx generate -m "$model" -p "a slice of pizza on a blue background" --steps 2 -S "$seed" -o "again.png"
check "the printed seed gives the same picture" cmp -s again.png "defaults/fluxpar-$seed.png"
fx info again.png
for line in "prompt +a slice of pizza on a blue background" "steps +2" "guidance +3.5" "dtype +bf16" "seed +$seed" \
    "width +[0-9]+" "height +[0-9]+" "t5_len +[0-9]+" "model_hash +[0-9a-f]{16}" "version +[0-9]" "backend +cpu"; do
    check "info: $line" prints "^$line$|^$line"
done

# ---- same bytes, whatever does not change pixels ----
gen -o one.png
check "run: exit 0" rc_is 0
gen -o two.png
check "two runs, same bytes" cmp -s one.png two.png
gen -o three.png --threads 2 --report r.json --timeout 30 -v
check "threads, report, timeout and -v do not change bytes" cmp -s one.png three.png
gen -o four.png --layout even --backend cpu --exact on
check "layout, backend by name and exact do not change bytes" cmp -s one.png four.png
for way in peer nccl lsa; do
    gen -o "$way.png" --exchange "$way"
    check "--exchange $way is taken, for host memory without effect" cmp -s one.png "$way.png"
done
gen -o warm.png --warmup 64x48,32x32 --no-graphs
check "--warmup and --no-graphs do not change bytes" cmp -s one.png warm.png
check "--warmup says what it took" says "^warm-up +2 sizes, [0-9.]+ s"
for bad in 64 64x "64x48," "64x48,,32x32" axb; do
    gen -o no.png --warmup "$bad"
    refused 2 "is not a list of sizes" "--warmup $bad"
done
gen -o no.png --warmup 64x50
refused 2 "warmup height 50 is not a multiple of 16" "--warmup 64x50"
gen -o no.png --warmup 16x16,16x16,16x16,16x16,16x16,16x16,16x16,16x16,16x16
refused 2 "more than 8 sizes" "nine sizes"
gen -o five.png --steps=7 --steps 2
check "the last of two flags wins, --flag=value works" cmp -s one.png five.png
gen -o six.png -S 2
check "another seed, another picture" bash -c '! cmp -s one.png six.png'
gen_mpi 2 -o p2.png
check "2 ranks: exit 0" rc_is 0
check "2 ranks: same bytes as 1" cmp -s one.png p2.png
check "2 ranks: one path on stdout" same "$(cat "$out")" p2.png
check "2 ranks: header" says "^run +2 ranks on 1 node, mesh 2x1"
gen_mpi 2 -o p2ring.png --ulysses 1 --ring 2 --exact off
check "ring: exit 0" rc_is 0
fx info --json p2ring.png
check "a run that is not exact names its mesh" prints '"mesh": "1x2"'
gen_mpi 2 -o p2exact.png --ulysses-degree 1 --ring-degree=2 --exact on
check "ring with --exact on: same bytes as 1" cmp -s one.png p2exact.png
gen_mpi 2 -o p2auto.png --ulysses 1 --ring 2
check "ring by default: same bytes as 1" cmp -s one.png p2auto.png

# ---- metadata ----
fx info --json one.png
check "info --json: exit 0" rc_is 0
check "info --json: nothing on stderr" silent "$err"
for key in prompt seed steps guidance width height t5_len dtype backend model model_hash version; do
    check "metadata has $key" prints "\"$key\": "
done
for key in mesh threads host time date ranks layout; do check "metadata has no $key" bash -c "! grep -q '\"$key\":' '$out'"; done
check "parameters: A1111 form" prints 'Steps: 2, Sampler: Euler, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 1, Size: [0-9]+x[0-9]+, Model hash: [0-9a-f]{16}, Model: [^,]+, Version: fluxpar'
check "the text chunk is plain tEXt" grep -aq 'tEXtparameters' one.png
prompt=$'naïve "quotes" \\ and\na second line' gen -o text.png
check "odd prompt: exit 0" rc_is 0
fx info --json text.png
check "odd prompt is kept" prints 'na(ï|\\u00EF)ve \\"quotes\\" \\\\ and\\na second line'
fx generate -m "$model" -p "" --steps 1 -S 1 -o empty.png
check "the empty prompt is valid" rc_is 0

# ---- prompts from files ----
printf 'a slice of pizza on a blue background\n' >prompt.txt
fx generate -m "$model" --prompt-file prompt.txt --steps 2 --t5-len 16 -S 1 --threads 1 -o file.png
check "prompt file: same bytes as -p" cmp -s one.png file.png
mpi 2 generate -m "$model" --prompt-file - --steps 2 --t5-len 16 -S 1 --threads 1 -o stdin.png <prompt.txt
check "prompt from standard input, 2 ranks" cmp -s one.png stdin.png
prompt="a a a a a a a a a a a a a a a a a a a a rocket ship" gen -o cut.png --t5-len 8
check "a long prompt goes on" rc_is 0
check "and says what was cut" says "^fluxpar: warning: .*rocket ship"
check "once" same "$(grep -c 'rocket ship' "$err")" 2 # the echo of the prompt is the other

# ---- several pictures, sizes, overwriting ----
mkdir many
gen -n 3 -o many/x.png
check "-n 3: exit 0" rc_is 0
check "-n 3: names" only_files many x-1.png x-2.png x-3.png
check "-n 3: paths on stdout" same "$(cat "$out")" $'many/x-1.png\nmany/x-2.png\nmany/x-3.png'
check "-n 3: the first is that of -n 1" cmp -s many/x-1.png one.png
gen -S 2 -o two2.png
check "-n 3: the second is that of its seed" cmp -s many/x-2.png two2.png
gen -o size.png -W 64 -H 96
fx info size.png
check "size" prints "^pixels +64x96$"
gen -o one.png
check "existing output is refused" rc_is 2
gen -o one.png -f -S 9
check "-f overwrites" rc_is 0
check "-f wrote the new picture" bash -c '! cmp -s one.png two.png'

# ---- quiet, report, dump ----
gen -o quiet.png -q
check "-q: exit 0" rc_is 0
check "-q: nothing on stderr" silent "$err"
for key in load text step denoise vae png total peak_bytes file_backed_bytes weight_bytes arena_bytes arena_peak_bytes unplanned_bytes ulysses \
    ring layout exact threads bytes_exchanged exposed_s versions fluxpar; do
    check "report has $key" grep -q "\"$key\":" r.json
done
check "memory is within its plan" bash -c '! grep -q "\"within_limit\": false" r.json'
mkdir rep && gen_mpi 2 -o rep/p.png --report rep/r.json
check "report of 2 ranks" grep -q '"rank": 1' rep/r.json
figure() { grep -oE "\"$1\": [0-9]+" rep/r.json | grep -oE '[0-9]+$'; }
check "the arena of each rank is used to the byte" same "$(figure arena_bytes)" "$(figure arena_peak_bytes)"
check "report of 2 ranks: bytes moved" bash -c "! grep -q '\"bytes_exchanged\": 0,' rep/r.json"
check "no other file beside the report" only_files rep p.png r.json
gen -o dumped.png --dump dump
check "--dump: exit 0" rc_is 0
for file in ids_clip ids_t5 clip_pooled t5_out noise double_00_img single_00 latents_01 latents_02 rgb8; do
    check "dump has $file" test -s "dump/$file.npy"
done
check "--dump does not change the picture" cmp -s dumped.png two.png

# ---- inspect and info of other things ----
fx inspect "$model"
check "inspect: exit 0" rc_is 0
for word in 'kind +flux-' '^transformer ' '^text_encoder ' '^text_encoder_2 ' '^vae ' 'bf16' 'usable +yes'; do check "inspect: $word" prints "$word"; done
hash=$(sed -n 's/^hash *//p' "$out")
fx info one.png
check "inspect and info show the same hash" prints "^model_hash +$hash\$"
fx inspect "$model" --json
check "inspect --json" prints '"usable": true'
fx inspect synthetic:flux-dev:1+2
check "inspect synthetic" prints "24 heads x 128"
mpi 3 inspect "$model"
check "inspect under mpirun: once" same "$(grep -c '^kind' "$out")" 1
check "inspect under mpirun: exit 0" rc_is 0
mpi 3 --version
check "--version under mpirun: once" same "$(grep -c '^fluxpar' "$out")" 1

# ---- how threads wait (libgomp shows its settings) ----
spins() { # spins THREADS [VARIABLE=VALUE]: turns before a waiting thread sleeps, as the run that makes the picture has it
    env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT -u KMP_BLOCKTIME OMP_DISPLAY_ENV=verbose "${@:2}" \
        "$fluxpar" generate -m "$model" -p x --steps 1 --t5-len 16 -S 1 --threads "$1" -f -o w.png 2>&1 |
        sed -n "s/.*GOMP_SPINCOUNT = '\([0-9]*\)'.*/\1/p" | tail -n 1
}
if [ -n "$(spins 1)" ]; then
    cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) # nproc heeds them
    [ "$cores" = 1 ] || check "a short spin" same "$(spins 2)" 1000
    check "none with more threads than cores" same "$(spins $((cores + 1)))" 0
    check "GOMP_SPINCOUNT of the user" same "$(spins 2 GOMP_SPINCOUNT=77)" 77
    check "OMP_WAIT_POLICY of the user" same "$(spins 2 OMP_WAIT_POLICY=passive)" 0
else skip "how threads wait" "not libgomp"; fi
finish
