#!/usr/bin/env bash
# Groups of ranks that make different pictures at the same time: the desk alone with jobs of random lengths (check_desk), then
# whole runs: 4 ranks as 2x2, 4x1 and merged at the tail, 6 as 3x2, odd numbers of pictures, a batch: always the bytes of
# one rank, and what the policy says. Then what goes wrong: uneven groups, a picture that fails, a rank that is killed or
# stopped in one group, a signal. Each ends all groups with one line.
. "$(dirname "$0")/lib.sh"
need_model
if ! has_mpi || [ ! -x "$build_dir/tests/check_desk" ]; then
    skip "all" "no mpirun, built without MPI, or tests not built"
    finish
fi
preload=$build_dir/tests/fault_preload.so

# ---- the desk ----

desk() { # RANKS GROUPS MERGE JOBS [OPTIONS]
    rc=0
    timeout -k 5 100 mpirun "${mpi_flags[@]}" -np "$1" "$build_dir/tests/check_desk" "${@:2}" >"$out" 2>"$err" || rc=$?
    [ $rc = 0 ] || cat "$out"
    check "desk, $*" prints '^check_desk: [1-9][0-9]* passed, 0 failed'
}
desk 1 1 -1 3
desk 4 2 -1 0
desk 4 4 -1 11
desk 4 4 0 7
desk 4 4 2 11
desk 6 3 -1 10 slow=2 # the others do its work
desk 4 2 -1 9 fail=4
desk 4 4 -1 9 short=6 # the source said more than it had
desk 10 10 -1 22      # more groups than one line of messages has

# ---- the same bytes ----

mkdir one
gen -n 5 -o one/x.png
check "one rank" rc_is 0

# same_as_one NAME N: N pictures, each as one rank makes it.
same_as_one() {
    local seed
    for seed in $(seq "$2"); do check "$1: picture $seed" cmp "one/x-$seed.png" "$1/x-$seed.png"; done
    check "$1: nothing else" same "$(find "$1" -type f | wc -l)" "$2"
    check "$1: a path each" same "$(sort "$out" | xargs)" "$(seq -f "$1/x-%g.png" "$2" | xargs)"
}
groups() { # NAME RANKS PICTURES HEADER ARGS...
    local name=$1 ranks=$2 n=$3 header=$4
    shift 4
    mkdir "$name"
    gen_mpi "$ranks" -n "$n" -o "$name/x.png" "$@"
    check "$name: exit" rc_is 0
    check "$name: header" says "^groups   $header"
    same_as_one "$name" "$n"
}
groups g2x2 4 4 '2 groups of 2 ranks: 4 pictures; they merge when fewer than 2 pictures wait$' --groups 2
groups tail 4 5 '2 groups of 2 ranks: 4 pictures, then 1 group of 4 ranks: 1 picture;' --groups 2 --report tail.json
check "the tail: merged" says '^groups   merged: 1 of 4 ranks$'
groups g4x1 4 3 '2 groups of 2 ranks: 2 pictures, then 1 group of 4 ranks: 1 picture;' --groups 4
groups never 4 5 '4 groups of 1 rank: 5 pictures; they never merge$' --groups 4 --merge 0
check "never: not merged" test "$(grep -c '^groups   merged' "$err")" = 0
groups g3x2 6 5 '3 groups of 2 ranks: 3 pictures, then 1 group of 6 ranks: 2 pictures;' --groups 3 --ulysses 1 --ring 2
groups auto 10 2 '2 groups of 5 ranks: 2 pictures;'
gen_mpi 4 -n 2 -o alone.png
check "automatic: few ranks are one group" test "$(grep -c '^groups ' "$err")" = 0

# What the report says of who made what.
by_ranks() { python3 -c 'import json, sys
r = json.load(open("tail.json"))
print(r["groups"]["most"], r["groups"]["merge"], *sorted("%d@%d+%d" % (i["seed"], i["first_rank"], i["ranks"]) for i in r["images"]))
print(*sorted({(m["rank"]) for i in r["images"] for m in i["memory"]["ranks"]}))'; }
check "report: groups" same "$(by_ranks | head -n 1 | cut -d ' ' -f 1-2)" "2 2"
check "report: two ranks each, four for the last" same "$(by_ranks | head -n 1 | grep -oE '\+[0-9]' | tr -d '\n')" "+2+2+2+2+4"
check "report: all ranks" same "$(by_ranks | tail -n 1)" "0 1 2 3"
for seed in 1 2 3 4 5; do
    "$fluxpar" info --json "tail/x-$seed.png" >"$out"
    check "the picture does not tell of groups" test "$(grep -c group "$out")" = 0
done

# Sizes that differ from picture to picture, the largest first for one group; a prompt for which the numbers fail: that picture
# is recorded, all others are made.
# spoil_word WORD: m, a copy of the model in which CLIP's embedding of a word is not finite.
spoil_word() {
    copy_model m && own_file m/text_encoder/model.safetensors
    python3 - "$1" <<'PY'
import json, struct, sys
word = json.load(open("m/tokenizer/vocab.json"))[sys.argv[1] + "</w>"]
with open("m/text_encoder/model.safetensors", "r+b") as f:
    size, = struct.unpack("<Q", f.read(8))
    t = json.loads(f.read(size))["text_model.embeddings.token_embedding.weight"]
    f.seek(8 + size + t["data_offsets"][0] + word * t["shape"][1] * (4 if t["dtype"] == "F32" else 2))
    f.write(b"\xff" * 8)
PY
}
if spoil_word '!' 2>/dev/null; then
    for i in 1 2 3 4 5 6 7; do
        printf '{"prompt": "%s", "seed": %d, "width": %d, "output": "OUT/%d.png"}\n' "$([ $i = 3 ] && echo '!' || echo kite)" \
            $i $((64 + i % 3 * 32)) $i
    done >list
    mkdir b1 b4
    sed 's/OUT/b1/' list >b1.jsonl
    sed 's/OUT/b4/' list >b4.jsonl
    fx generate -m m --batch b1.jsonl --steps 2 --t5-len 16 --threads 1
    check "batch, one rank: part failed" rc_is 7
    mpi 4 generate -m m --batch b4.jsonl --steps 2 --t5-len 16 --threads 1 --groups 4 --merge 3
    check "batch, 4 groups: part failed" rc_is 7
    check "batch, 4 groups: one error line" one_error_line
    check "batch, 4 groups: the failure is recorded" grep -q '"status":"failed".*not finite' b4.results.jsonl
    check "batch, 4 groups: a line each" same "$(wc -l <b4.results.jsonl)" "$(wc -l <b1.results.jsonl)"
    check "batch, 4 groups: six pictures" only_files b4 1.png 2.png 4.png 5.png 6.png 7.png
    for i in 1 2 4 5 6 7; do check "batch, 4 groups: picture $i" cmp b1/$i.png b4/$i.png; done

    rm -rf out && mkdir out
    prompt='!' gen_mpi 4 -m m -n 4 --groups 2 -o out/x.png
    refused 6 'step 1, block [a-z_0-9]+, rank [0-9]: [0-9]+ values are not finite' "a picture of a group is not finite"
    check "not finite: no file" only_files out
else
    skip "a prompt whose numbers fail" "no python3, or another model"
fi

# ---- refused ----

gen_mpi 4 -n 2 --groups 3 -o no.png
refused 2 '--groups 3 does not divide 4 ranks.*possible: 1, 2, 4' "uneven groups"
gen_mpi 4 -n 2 --groups 2 --ulysses 4 -o no.png
refused 2 'ulysses 4' "a mesh larger than a group"
check "refused: no file" test "$(ls no* 2>/dev/null)" = ""

# ---- lost and stopped ranks, signals ----

# No part of a picture is left; what a group had finished is whole.
whole_files() {
    local f
    while read -r f; do "$fluxpar" info "$f" >/dev/null || return 1; done < <(find out -type f)
    return 0
}
# fault RANK PHASE FAULT ARGS...: 4 ranks as 2 groups; RANK gets FAULT in PHASE.
fault() {
    local rank=$1 phase=$2 what=$3
    shift 3
    rm -rf out && mkdir out
    rc=0
    timeout -k 5 100 mpirun "${mpi_flags[@]}" -np 4 -x LD_PRELOAD="$preload" -x FAULT="$what" -x FAULT_RANK="$rank" \
        -x FAULT_AT="$phase" "$fluxpar" generate -m "$model" -p x --threads 1 --t5-len 16 --steps 40 -S 1 -n 4 --groups 2 -v \
        -o out/x.png "$@" >"$out" 2>"$err" || rc=$?
}
if [ -f "$preload" ] && ! sanitized; then
    fault 3 'denoise step 2' 9
    check "a killed rank of the second group: exit" rc_is 137
    check "a killed rank: one line" one_error_line
    check "a killed rank: named" says "^fluxpar: error: rank [0-9].*rank 3 \(process [0-9]+\) is gone; it was in 'denoise step 2"
    check "a killed rank: no part of a file" whole_files
    fault 2 'denoise step 2' 19 --timeout 2
    check "a stopped rank of the second group: exit" rc_is 5
    check "a stopped rank: one line" one_error_line
    check "a stopped rank: named" says "^fluxpar: error: rank [0-9].*rank 2 "
    check "a stopped rank: no part of a file" whole_files
    fault 1 'next picture' 19 --groups 4 --timeout 2 # alone in its group: only rank 0 misses it
    check "a stopped group of one: exit" rc_is 5
    check "a stopped group of one: named" says "^fluxpar: error: rank [0-9].*rank 1[ ,]"
    fault 2 'denoise step 2' 15
    check "a signal to a rank of the second group: exit" rc_is 143
    check "a signal: one line" one_error_line
    check "a signal: said" says "^fluxpar: error: rank [0-9].*SIGTERM"
    check "a signal: no part of a file" whole_files
    fault 2 'png' files
    check "a group that cannot write: exit" rc_is 7
    check "a group that cannot write: one line" one_error_line
    check "a group that cannot write: said by its first rank" says "^fluxpar: error: rank 2 .*out/x-[24].png"
    check "a group that cannot write: no part of a file" whole_files
else
    skip "faults" "no preload library, or sanitized"
fi
finish
