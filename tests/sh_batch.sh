#!/usr/bin/env bash
# Batches (generate --batch): the bytes of single runs on one and two ranks; bad lines are recorded and the job goes on; results
# are synced; --resume makes what is missing and nothing twice; flags, names, the standard input. Kills and signals: sh_requeue.sh.
. "$(dirname "$0")/lib.sh"
need_model
preload=$build_dir/tests/fault_preload.so
short=(--steps 2 --t5-len 16 --threads 1)

batch() { fx generate -m "$model" --batch "$@" "${short[@]}"; }
batch_mpi() { # RANKS ARGS...
    local ranks=$1
    shift
    mpi "$ranks" generate -m "$model" --batch "$@" "${short[@]}"
}
rows() { grep -cE "$1" "$2"; } # rows PATTERN FILE
has_rows() { same "$(rows "$2" "$3")" "$1"; } # has_rows COUNT PATTERN FILE

cat >jobs.jsonl <<'END'
{"prompt": "a slice of pizza on a blue background", "seed": 7, "output": "pizza.png"}
{"prompt": "a cat", "seed": 3, "steps": 3, "width": 96, "height": 160, "guidance": 2, "n": 2, "output": "cat.png"}

{"prompt": "a slice of pizza on a blue background", "seed": 8}
{"prompt": "", "seed": "18446744073709551615"}
END
pictures=(pizza.png cat-3.png cat-4.png fluxpar-4.png fluxpar-5.png)

# ---- the pictures are those of single runs ----
mkdir single one && cp jobs.jsonl one && cd single || exit 1
one() { fx generate -m "$model" "${short[@]}" "$@"; }
one -p "a slice of pizza on a blue background" -S 7 -o pizza.png
one -p "a cat" -S 3 --steps 3 -W 96 -H 160 -g 2 -n 2 -o cat.png
one -p "a slice of pizza on a blue background" -S 8 -o fluxpar-4.png
one -p "" -S 18446744073709551615 -o fluxpar-5.png
check "single runs" only_files . "${pictures[@]}"
cd ../one || exit 1
equal() { # equal NAME FOLDER: all pictures are there, with the bytes of single runs
    local p
    for p in "${pictures[@]}"; do check "$1: $p" cmp -s "$work/single/$p" "$2/$p"; done
}
logged=()
sanitized || logged=(env LD_PRELOAD="$preload" FAULT_RANK=0 FAULT_LOG="$work/calls")
rc=0
"${logged[@]}" "$fluxpar" generate -m "$model" --batch jobs.jsonl "${short[@]}" --report r.json >"$out" 2>"$err" || rc=$?
check "one rank: exit 0" rc_is 0
equal "one rank" .
check "one rank: nothing else" only_files . "${pictures[@]}" jobs.jsonl jobs.results.jsonl r.json
check "one rank: paths" same "$(xargs <"$out")" "${pictures[*]}"
check "a result per picture" has_rows 5 '^\{"status":"ok","line":[0-9]+,"image":[01],"path":"[^"]+","seed":.*,"seconds":\{"text":[0-9.e-]+,"denoise":.*,"vae":.*,"png":.*,"total":[0-9.e-]+\}\}$' jobs.results.jsonl
check "nothing else in the results" same "$(wc -l <jobs.results.jsonl)" 5
check "the largest seed is text" has_rows 1 '"path":"fluxpar-5.png","seed":"18446744073709551615"' jobs.results.jsonl
# The same prompt again: its second seed, and line 4. With the steps of line 2 the text length is the same, the size is not.
check "a prompt is encoded once" same "$(grep -oE '"text_kept":(true|false)' jobs.results.jsonl | cut -d: -f2 | xargs)" "false false true true false"
check "the report says so" same "$(grep -oE '"text_kept": (true|false)' r.json | cut -d' ' -f2 | xargs)" "false false true true false"
if sanitized; then skip "order of calls" "built with AddressSanitizer"; else
    # File, name, folder, result: for each picture. (The first sync is that of the results file's folder.)
    want=$(for p in "${pictures[@]}"; do echo "sync .$p rename $p sync one sync jobs.results.jsonl"; done | xargs)
    check "a result is synced after its picture has its name" same \
        "$(sed -E 's/\.fluxpar-[0-9]+\.tmp$//' "$work/calls" | grep -v 'r\.json' | tail -n +2 | head -n 20 | xargs)" "$want"
fi
if has_mpi; then
    mkdir ../two && cp jobs.jsonl ../two && cd ../two || exit 1
    batch_mpi 2 jobs.jsonl
    check "two ranks: exit 0" rc_is 0
    equal "two ranks" .
    check "two ranks: a result per picture" has_rows 5 '"status":"ok"' jobs.results.jsonl
fi

# ---- nothing is made twice ----
cd ../one || exit 1
touch -d '2001-01-01' ./*.png
batch jobs.jsonl
refused 2 "jobs.results.jsonl exists; .*--resume goes on.*-f begins anew" "again without --resume"
batch jobs.jsonl --resume
check "all made: exit 0" rc_is 0
check "all made: says so" says "^batch +0 made, 5 of an earlier run, 0 failed"
check "all made: no picture is touched" same "$(find . -name '*.png' -newermt 2002-01-01)" ""
check "all made: no path" silent "$out"
check "all made: no result more" same "$(wc -l <jobs.results.jsonl)" 5
rm cat-4.png
batch jobs.jsonl --resume
check "one is gone: it alone is made" same "$(xargs <"$out")" cat-4.png
equal "one is gone" .
# A picture that is there without its result: killed between the two. And a last line that was not written to its end.
head -n 3 jobs.results.jsonl >r && printf '{"status":"ok","line":4,"ima' >>r && mv r jobs.results.jsonl
touch -d '2001-01-01' ./*.png
batch jobs.jsonl --resume -v
check "torn: exit 0" rc_is 0
check "torn: said" says "note: jobs.results.jsonl: line 4 was not written to its end; it is removed"
check "torn: no picture is made again" same "$(find . -name '*.png' -newermt 2002-01-01)" ""
check "torn: pictures are found by what they say of themselves" has_rows 2 '"found":true' jobs.results.jsonl
check "torn: five pictures, five results" has_rows 5 '^\{.*"status":"ok".*\}$' jobs.results.jsonl
# Another picture under the name of one is not taken for it, nor lost.
rm jobs.results.jsonl && cp pizza.png cat-3.png
batch jobs.jsonl --resume
check "another picture is in the way: exit 7" rc_is 7
check "another picture is in the way: said" says "line 2, cat-3.png: cat-3.png exists and is not this picture"
check "another picture is in the way: kept" cmp -s pizza.png cat-3.png
batch jobs.jsonl --resume -f
check "-f: exit 0" rc_is 0
equal "-f" .
sed -i 's/"steps": 3/"steps": 1/' jobs.jsonl
batch jobs.jsonl --resume -f
check "a line that changed is made again" same "$(xargs <"$out")" "cat-3.png cat-4.png"
batch jobs.jsonl -f
check "-f without --resume: all is made again" same "$(wc -l <"$out")" 5
check "-f without --resume: results begin anew" same "$(wc -l <jobs.results.jsonl)" 5

# ---- bad lines ----
mkdir ../bad && cd ../bad || exit 1
cat >jobs.jsonl <<'END'
not json
{"prompt": "x", "sed": 3}
{"prompt": "x", "width": 100}
{"prompt": "x", "seed": 1, "output": "a.png"}
{"prompt": "x", "seed": 2, "output": "./a.png"}
{"prompt": "x", "seed": 3, "output": "none/a.png"}
{"prompt": "x", "seed": 4, "output": "a.jpg"}
{"prompt": "x", "seed": 5, "output": "jobs.jsonl"}
{"prompt": "x", "seed": "18446744073709551615", "n": 2}
{"prompt": "x", "seed": 6, "width": 24576, "height": 24576}
{"prompt": "x", "seed": 1, "output": "b.png"}
{"prompt": "x\u0001y\u009b", "output": "c.png", "\u001b[31m": 1}
END
printf '{"prompt": "%s"}\n' "$(head -c 2200000 /dev/zero | tr '\0' x)" >>jobs.jsonl
batch jobs.jsonl
bad_lines() {
    check "$1: exit 7" rc_is 7
    check "$1: the others are made" same "$(xargs <"$out")" "a.png b.png"
    check "$1: same values, same bytes" cmp -s a.png b.png
    check "$1: eleven results of failures" has_rows 11 '^\{"status":"failed","line":[0-9]+,.*"error":"[^"].*","exit":[0-9]+\}$' jobs.results.jsonl
    check "$1: one error line" one_error_line
    check "$1: it sums up" says "11 of 13 pictures or lines of the batch failed; .*jobs.results.jsonl; .*--resume"
}
bad_lines "bad lines, one rank"
row() { check "bad line $1" grep -qE "^\{\"status\":\"failed\",\"line\":$1,.*$2" jobs.results.jsonl; }
row 1 'not valid JSON.*"exit":2\}'
row 2 'unknown field \\"sed\\"; did you mean \\"seed\\"'
row 3 'width 100 is not a multiple of 16'
row 5 'is the picture of line 4 already'
row 6 'none/a.png.*"exit":7\}'
row 7 'only PNG is written'
row 8 'a file of the batch itself'
row 9 'pass the largest seed'
row 10 '2359296 image tokens are too many.*"exit":2\}'
row 12 'unknown field \\"\?\[31m'
row 13 'longer than 2097152 bytes'
check "no control characters in messages" same "$(grep -caP '[\x00-\x08\x0b-\x1f\x7f]' "$err" jobs.results.jsonl | cut -d: -f2 | xargs)" "0 0"
if [ "$(awk '/^MemAvailable/ {print $2}' /proc/meminfo)" -lt 50000000 ]; then
    printf '{"prompt": "x", "seed": 1, "width": 10240, "height": 10240}\n{"prompt": "x", "seed": 1, "output": "c.png"}\n' >large.jsonl
    batch large.jsonl
    check "too large for the memory: exit 7" rc_is 7
    check "too large for the memory: its own code" has_rows 1 '"line":1,.*activations need.*"exit":8\}' large.results.jsonl
    check "too large for the memory: the next one is made" cmp -s a.png c.png
else skip "too large for the memory" "more than 50 GB are free"; fi
if has_mpi; then
    batch_mpi 2 jobs.jsonl -f
    bad_lines "bad lines, two ranks"
fi
# Numbers that are not finite are a picture's own fault, too: the next one is tried.
if poison text_encoder_2/model.safetensors shared.weight || poison transformer/diffusion_pytorch_model.safetensors proj_out.weight; then
    printf '{"prompt": "x", "seed": 1}\n{"prompt": "x", "seed": 2}\n' >nan.jsonl
    fx generate -m m --batch nan.jsonl "${short[@]}"
    check "not finite: exit 7" rc_is 7
    check "not finite: both are tried" has_rows 2 '"status":"failed".*not finite.*"exit":6' nan.results.jsonl
    if has_mpi; then
        mpi 2 generate -m m --batch nan.jsonl "${short[@]}" --resume
        check "not finite, two ranks: both are tried" has_rows 4 '"status":"failed".*not finite.*"exit":6' nan.results.jsonl
    fi
else skip "not finite" "no tensor to poison"; fi

# ---- the command line ----
mkdir ../cli && cd ../cli || exit 1
printf '\xef\xbb\xbf{"prompt": "x"}\r\n{"prompt": "x"}' >few
batch few
check "no seeds: exit 0" rc_is 0
check "no seeds: names" only_files . fluxpar-1.png fluxpar-2.png few few.results.jsonl
check "no seeds: two pictures" test "$(cmp fluxpar-1.png fluxpar-2.png 2>&1)"
check "no seeds: what was drawn is kept" has_rows 1 '^\{"status":"drawn","seed":[0-9]+\}$' few.results.jsonl
cp fluxpar-2.png before.png && rm fluxpar-2.png
batch few --resume
check "no seeds: the same picture again" cmp -s before.png fluxpar-2.png
rm -f ./*.png few.results.jsonl
batch few -S 5 -n 2 -o 'p{line}_{image}_{seed}.png' --results r.jsonl
check "pattern: names" only_files . few r.jsonl p1_0_5.png p1_1_6.png p2_0_5.png p2_1_6.png
check "-S: the same seed for all lines" cmp -s p1_0_5.png p2_0_5.png
rm -f ./*.png r.jsonl
batch few -S 5 -n 2 -o x.png
check "-n: names" only_files . few few.results.jsonl x-1-5.png x-1-6.png x-2-5.png x-2-6.png
rm -f ./*.png few.results.jsonl
batch few -p x
refused 2 "-p and --batch are both given" "-p with --batch"
fx generate -m "$model" -p x --resume
refused 2 "--resume is for a batch" "--resume alone"
fx generate -m "$model" -p x --grace 3
refused 2 "--grace is for a batch" "--grace alone"
batch none.jsonl
refused 2 "--batch none.jsonl cannot be opened" "no such file"
batch .
check "a folder: exit 2" rc_is 2
batch few --results few
refused 2 "is the jobs file itself" "results into the jobs"
batch few -o 'a{lin}.png'
refused 2 "nothing is known for \{lin\}" "an unknown word in -o"
batch few -o a.jpg
refused 2 "only PNG is written" "another kind of picture"
echo "my notes" >notes
batch few --results notes --resume
refused 2 "no results file of fluxpar" "a foreign results file"
check "a foreign results file stays" same "$(cat notes)" "my notes"
: >empty
batch empty
check "no jobs: exit 0" rc_is 0
if [ "$(id -u)" = 0 ] && [ -e /dev/full ]; then
    batch few --results /dev/full
    check "results that are no file: exit 2" rc_is 2
fi

# ---- the standard input ----
mkdir ../stdin && cd ../stdin || exit 1
batch - < <(printf '{"prompt": "x", "seed": 1}\n{"prompt": "x", "seed": 2}')
check "stdin: exit 0" rc_is 0
check "stdin: files" only_files . fluxpar-1.png fluxpar-2.png stdin.results.jsonl
if has_mpi; then # the other rank waits longer than the deadline of a wait
    batch_mpi 2 - --timeout 2 -f < <(echo '{"prompt": "x", "seed": 1}'; sleep 3; echo '{"prompt": "x", "seed": 2}')
    check "a slow stdin, two ranks: exit 0" rc_is 0
    check "a slow stdin, two ranks: both" same "$(wc -l <stdin.results.jsonl)" 2
fi
finish
