#!/usr/bin/env bash
# `fluxpar plan --trace`: the schedule of a denoise step that the graph itself gives, of golden models and FLUX.1-dev's sizes on 1
# to 36 ranks, read by tool_trace: exchanges and launches per block, no wait of the host, no buffer used twice at once, sends that
# are received, an end. tool_trace itself is shown spoilt traces. Then usage, and the totals of a rank.
. "$(dirname "$0")/lib.sh"

tool=$build_dir/tests/tool_trace
if [ ! -x "$tool" ]; then
    skip "all" "tests not built"
    finish
fi
plan() { fx plan --exchange peer "$@" --gpu h200 --trace; }
# judged NAME ARGS: the last trace has no findings; its last line shows.
judged() {
    check "$1: plan" rc_is 0
    check "$1: nothing on stderr" silent "$err"
    check "$1" "$tool" "${@:2}" <"$out"
}

# Launches of a block on a rank that has rows of text and image, U = ulysses > 1:
#   double: 2 x (norm, kv, q, and V, K and Q packed for U ranks each: 3 U), attention, 2 x (U pieces of the output laid into its
#   columns, out, norm, two of the MLP): 15 + 8 U; alone v and the output are where they belong: 19.
#   single: norm, kv, q, V, K and Q of text and image packed: 6 U, the MLP in two parts, attention, own rows of text and image
#   laid, those of U - 1 ranks, out: 8 + 7 U; alone text and image at once: 9. U = 1 of several: 13.
launches() { # launches U N
    case $1:$2 in
    1:1) echo --double 17 --single 7 ;;
    1:*) echo --double 21 --single 13 ;;
    *) echo --double $((15 + 8 * $1)) --single $((8 + 7 * $1)) ;;
    esac
}
# By kernels, for any U > 1:
#   double: 2 x (norm, kv, q), put, attention, given back, 2 x (out, norm, two of the MLP): 17
#   single: norm, kv, q, put, the MLP in two parts, attention, given back, out: 9; where rows go by copies: norm, kv, q, pack,
#   the MLP in two parts, attention, out: 8
# U = 1: attention writes where its output belongs, and only word goes back: the same.
# expect U N: two exchanges per block; none alone; with U = 1 every rank has all keys of its rows after one.
expect() {
    local exchanges=2
    [ "$1" != 1 ] || exchanges=1
    [ "$2" != 1 ] || exchanges=0
    echo --exchanges $exchanges "$(launches "$1" "$2")"
}

# ---- FLUX.1-dev, 1024 x 1024 ----
for n in 1 2 4 8; do
    begin=$(date +%s%N)
    plan -m synthetic:flux-dev -W 1024 -H 1024 --gpus $n
    took=$((($(date +%s%N) - begin) / 1000000))
    # shellcheck disable=SC2046
    judged "flux-dev on $n" $(expect $n $n)
    check "flux-dev on $n: the last line of the judge" same "$("$tool" <"$out" | cut -d, -f1-2)" "trace: $n ranks, $((57 * n)) blocks"
    check "flux-dev on $n: a trace takes seconds (it took $took ms)" test $took -lt 20000
done
check "8 ranks: the bytes per rank and block of parallel/README.md" \
    same "$(grep -cE '^# +[0-7] even +64 +512 .* 706019328 +[0-9]+$' "$out")" 8
cp "$out" flux8
plan -m synthetic:flux-dev --gpus 8 --layout stream
judged "text and image on different ranks" --exchanges 2
plan -m synthetic:flux-dev:1+2 --gpus 8 --ulysses 2 --ring 4
# shellcheck disable=SC2046
judged "mesh 2x4" $(expect 2 8)
plan -m synthetic:flux-dev:1+2 --gpus 6 --ring-degree 6
# shellcheck disable=SC2046
judged "mesh 1x6" $(expect 1 6)
plan -m synthetic:flux-dev:1+2 --gpus 6 --ulysses 2 --ring 3 --exact off
judged "mesh 2x3 with hops: two more" --exchanges 4
plan -m synthetic:flux-schnell:1+1 --gpus 36
judged "36 ranks, few rows" --exchanges 2
plan -m synthetic:flux-dev:1+1 --gpus 7 -W 48 -H 16 --t5-len 2 --layout even
judged "ranks without rows of text or image" --exchanges 1

# ---- golden models ----
for golden in h4dev h24dev h5odd; do
    "$build_dir/tests/tool_materialize" "$tests_dir/goldens/$golden" "$golden" || fail "materialise $golden"
    for n in 1 2 4 8; do
        case $golden in h4dev) u=$((n > 4 ? 4 : n)) ;; h24dev) u=$n ;; h5odd) u=1 ;; esac
        plan -m $golden -W 256 -H 256 --t5-len 16 --layout even --gpus $n
        # shellcheck disable=SC2046
        judged "$golden on $n" $(expect $u $n)
    done
done

# ---- the same by kernels ----
for n in 2 4 8; do
    plan -m synthetic:flux-dev -W 1024 -H 1024 --gpus $n --exchange lsa
    judged "by kernels: flux-dev on $n" --exchanges 2 --double 15 --single 7
    check "by kernels: $n ranks: copies in single blocks only" same "$(awk '$3 == "wire" {print $4, substr($5, 1, 6)}' "$out" | sort -u)" "store single"
    check "by kernels: $n ranks: a block's copies" same \
        "$(awk '$3 == "wire" && $5 == "single_37" && $1 == 1 {print $6, $7}' "$out" | sort | xargs)" \
        "$(for r in $(seq 0 $((n - 1))); do [ "$r" = 1 ] || echo "in $r"; done | sort | xargs)"
    check "by kernels: $n ranks: as many bytes as by transfers" same "$(awk '/^# +0 (even|stream)/ {print $(NF - 1)}' "$out")" \
        "$(fx plan -m synthetic:flux-dev -W 1024 -H 1024 --gpu h200 --gpus $n --exchange peer; awk '/^# +0 (even|stream)/ {print $(NF - 1)}' "$out")"
done
plan -m synthetic:flux-dev:1+2 --gpus 8 --ulysses 2 --ring 4 --exchange lsa
judged "by kernels: mesh 2x4" --exchanges 2 --double 15 --single 7
plan -m synthetic:flux-dev:1+2 --gpus 6 --ring-degree 6 --exchange lsa
judged "by kernels: mesh 1x6" --exchanges 1 --double 15 --single 7
plan -m synthetic:flux-dev:1+2 --gpus 6 --ulysses 2 --ring 3 --exact off --exchange lsa
judged "hops go by transfers all the same" --exchanges 4
plan -m synthetic:flux-dev --gpus 8 --layout stream --exchange lsa
judged "by kernels: text and image on different ranks" --exchanges 2
# few rows: kernels alone; FLUXPAR_COPIES says otherwise
plan -m synthetic:flux-dev:1+2 -W 512 -H 512 --gpus 4 --exchange lsa
judged "by kernels: few rows" --exchanges 2 --double 15 --single 7
check "by kernels: few rows: no copies" same "$(awk '$3 == "wire"' "$out" | wc -l)" 0
for copies in 0:1024 1:256; do
    IFS=: read -r FLUXPAR_COPIES side <<<"$copies"
    export FLUXPAR_COPIES
    plan -m synthetic:flux-dev:1+2 -W "$side" -H "$side" --gpus 4 --exchange lsa
    judged "FLUXPAR_COPIES=$FLUXPAR_COPIES" --exchanges 2 --double 15 --single 7
    check "FLUXPAR_COPIES=$FLUXPAR_COPIES: copies" same "$(awk '$3 == "wire" {print $5}' "$out" | sort -u | wc -l)" $((2 * FLUXPAR_COPIES))
done
plan -m synthetic:flux-dev:1+1 --gpus 7 -W 48 -H 16 --t5-len 2 --layout even --exchange lsa
judged "copies: ranks without rows, in a ring: none" --exchanges 1
plan -m synthetic:flux-dev:1+1 --gpus 8 -W 64 -H 64 --t5-len 2 --layout even --exchange lsa
judged "copies: ranks without rows of text" --exchanges 2
unset FLUXPAR_COPIES
plan -m synthetic:flux-dev:1+1 --gpus 7 -W 48 -H 16 --t5-len 2 --layout even --exchange lsa
judged "by kernels: ranks without rows of text or image" --exchanges 1
for gpu in h100:8:kernels h100:9:transfers gb200:72:kernels gb200:80:transfers; do
    IFS=: read -r name n by <<<"$gpu"
    fx plan -m synthetic:flux-dev:1+0 --gpu "$name" --gpus "$n"
    check "auto: $n of $name: rows by $by" prints "^# run .* rows by $by"
done
plan -m synthetic:flux-dev:1+0 --gpus 2 --exchange lsa
cp "$out" by_kernels
plan -m synthetic:flux-dev:0+1 --gpus 2 --exchange lsa
judged "by copies: one block" --exchanges 2 --single 7
cp "$out" by_copies
check "by copies: what they hide behind comes before attention" same "$(awk '$1 == 0 && $4 == "launch" && $5 == "single_00" {print $6}' by_copies | xargs)" \
    "norm_mod linear pack linear attention give_back linear"

fx plan -m h4dev --gpu b200 --gpus 2
check "totals alone: exit" rc_is 0
check "totals alone: no line that is no comment" same "$(grep -vc '^#' "$out")" 0
check "totals alone: GPU and mesh are named" prints '^# run +2 x b200 \(NVIDIA B200, sm_100\), mesh 2x1'
check "totals alone: a line per rank" same "$(grep -cE '^# +[01] (even|stream)( +[0-9]+){8}$' "$out")" 2
rm h4dev/*/*.safetensors
plan -m h4dev --gpus 2
refused 3 'holds no .safetensors file' "without the files whose headers are read"

plan -m synthetic:flux-dev:0+1 --gpus 2
check "by transfers: two thirds of the MLP before attention, the rest after" same \
    "$(awk '$1 == 0 && $4 == "launch" && $5 == "single_00" && $6 ~ /linear|attention/ {split($10, y, "<"); print $6, y[1]}' "$out" | xargs)" \
    "linear bf16[2304,6144] linear bf16[2304,3072] linear bf16[2304,8192] attention bf16[4608,12,128] linear bf16[2304,4096] linear bf16[2304,3072]"

# ---- one line of each kind ----
plan -m synthetic:flux-dev:1+0 --gpus 2
judged "one block" --exchanges 2 --double 31
cp "$out" good
check "columns: linear" grep -qE '^ +0 +6 compute +launch embed +linear +- +- +[0-9]+  f32\[2048,3072\]<-bf16\[2048,64\],f32\[3072\],bf16\[3072,64\] w:[0-9]+\+25165824 r:[0-9]+\+262144 r:weights\+12288 r:weights\+393216$' good
check "columns: receive" grep -qE '^ +1 +[0-9]+ wire +recv +double_00 +in\.v\.image +0 +2 +6291456  - w:[0-9]+\+6291456$' good
check "columns: send" grep -qE '^ +0 +[0-9]+ wire +send +double_00 +out\.text +1 +[0-9]+ +786432  - r:[0-9]+\+786432$' good
check "columns: wait" grep -qE '^ +0 +[0-9]+ compute +wait +double_00 +out\.image +- +[0-9]+ +0  - -$' good
check "the watch after a step is the host's only wait" same "$(awk '$4 == "host" {print $1, $5, $6}' good | xargs)" \
    "0 watch settle 0 watch count_nonfinite 0 watch all_reduce 1 watch settle 1 watch count_nonfinite 1 watch all_reduce"
check "the Euler step is the last launch" same "$(awk '!/^#/ && $1 == 0 && $4 == "launch" && $5 != "watch" {last = $5 " " $6} END {print last}' good)" "euler gate_add"

# ---- spoilt traces: each is found, and called what it is ----
# Edited lines keep their numbers; inserted and removed ones are counted anew.
renumber() { awk '/^#/ {print; next} {n = $1 == rank ? n + 1 : 1; rank = $1; sub(/^ +[0-9]+ +[0-9]+/, " " rank " " n); print}'; }
spoilt() { # spoilt NAME MESSAGE AWK...
    rc=0
    awk "${@:3}" good | renumber >bad
    check "spoilt: $1: it is another trace" bash -c '! cmp -s <(grep -v "^#" bad) <(renumbered)'
    "$tool" --exchanges 2 --double 31 --single 7 <bad >"$out" || rc=$?
    check "spoilt: $1: exit" rc_is 1
    check "spoilt: $1: found" prints "$2"
}
renumber <good | grep -v '^#' >plain
renumbered() { cat plain; }
export -f renumbered
renumber <good | "$tool" --exchanges 2 --double 31 >"$out" || fail "a renumbered trace is judged alike"

# by kernels: what rank 0 waits for first
arrives=$(awk '$1 == 0 && $4 == "wait" {for (i = 1; i <= NF; i++) if ($i ~ /^w:/) {sub("w:", "", $i); print $i; exit}}' by_kernels)
cp good transfers
cp by_kernels good
renumber <good | grep -v '^#' >plain
spoilt "an op reads what another rank is storing" 'buffers: overlap of linear of line [0-9]+ with what rank 1 stores' -v into="${arrives%+*}" \
    '$1 == 0 && $4 == "launch" && $5 == "double_00" && $6 == "linear" && !done {sub(/ r:[0-9]+\+[0-9]+/, " r:" into "+1"); done = 1} {print}'
spoilt "fewer bytes are stored than waited for" 'pairs: stores are not what is waited for: in' \
    '$1 == 1 && $4 == "store" && $6 == "in.q" && !done {$9 -= 2; done = 1} {print}'
spoilt "a store is forgotten" 'pairs: stores are not what is waited for: out' '$1 == 1 && $4 == "store" && $6 == "out" {next} {print}'
spoilt "a rank does not wait" 'exchanges: 1 in double_00, want 2' '$1 == 0 && $4 == "wait" && $6 == "in" {next} {print}'
spoilt "two ranks store after they have waited for each other" 'end: waits for ever for in' \
    '$4 == "store" && $6 ~ /^in/ {held[$1] = held[$1] $0 "\n"; next} {print} $4 == "wait" && $6 == "in" {printf "%s", held[$1]}'
# by copies: what rank 0 sends first
staged=$(awk '$1 == 0 && $3 == "wire" {sub("r:", "", $11); print $11; exit}' by_copies)
cp by_copies good
renumber <good | grep -v '^#' >plain
spoilt "an op writes what is being copied" 'buffers: overlap of linear with the store of line [0-9]+, in' -v at="${staged%+*}" \
    '$1 == 0 && $4 == "launch" && $6 == "linear" && sent && !done {sub(/ w:[0-9]+\+[0-9]+/, " w:" at "+1"); done = 1} $1 == 0 && $3 == "wire" {sent = 1} {print}'
spoilt "copies are not joined" 'buffers: not waited for at the end of single_00' '$1 == 1 && $6 == "sent" {next} {print}'
spoilt "a join of nothing" 'buffers: a wait for nothing under way: sent' '{print} $1 == 1 && $6 == "sent"'
spoilt "a copy of other bytes than it reads" 'form: buffers of a copy' '$1 == 0 && $3 == "wire" && $6 == "in" {sub(/\+[0-9]+$/, "+2")} {print}'
spoilt "a copy is forgotten" 'pairs: stores are not what is waited for: in' '$1 == 1 && $3 == "wire" && $6 == "in" {next} {print}'
spoilt "a copy to the rank itself" 'form: peer' '$1 == 0 && $3 == "wire" {$7 = 0} {print}'
cp transfers good
renumber <good | grep -v '^#' >plain

# what the first send of rank 0 reads, and what the first receive of rank 0 fills
sent=$(awk '$1 == 0 && $4 == "send" {sub("r:", "", $NF); print $NF; exit}' good)
filled=$(awk '$1 == 0 && $4 == "recv" {sub("w:", "", $NF); print $NF; exit}' good)
at=${sent%+*} size=${sent#*+} into=${filled%+*}
export_at="-v at=$at -v last=$((at + size - 1)) -v into=$into"
# shellcheck disable=SC2086
{
    spoilt "an op writes the last byte of what is being sent" 'buffers: overlap of linear with the send of line [0-9]+, in\.v\.image' $export_at \
        '$1 == 0 && $6 == "linear" && sent && !done {sub(/w:[0-9]+\+[0-9]+/, "w:" last "+1"); done = 1} $1 == 0 && $4 == "send" {sent = 1} {print}'
    spoilt "an op reads what is being received" 'buffers: overlap of linear with the recv' $export_at \
        '$1 == 0 && $6 == "linear" && sent && !done {sub(/ r:[0-9]+\+[0-9]+/, " r:" into "+1"); done = 1} $1 == 0 && $4 == "send" {sent = 1} {print}'
    spoilt "two transfers fill one buffer" 'buffers: overlap of in\.k\.image with the recv' $export_at \
        '$1 == 0 && $4 == "recv" && $6 == "in.k.image" {sub(/w:[0-9]+/, "w:" into)} {print}'
    spoilt "a transfer sends what another fills" 'buffers: overlap of in\.k\.image with the recv' $export_at \
        '$1 == 0 && $4 == "send" && $6 == "in.k.image" {sub(/r:[0-9]+/, "r:" into)} {print}'
    # reading what is being sent is no fault
    awk $export_at '$1 == 0 && $6 == "linear" && sent && !done {sub(/ r:[0-9]+\+[0-9]+/, " r:" at "+1"); done = 1} $1 == 0 && $4 == "send" {sent = 1} {print}' good >fine
}
check "an op may read what is being sent: another trace" bash -c '! cmp -s good fine'
check "an op may read what is being sent" "$tool" --exchanges 2 --double 31 <fine
spoilt "a wait is missing" 'buffers: not waited for at the end of double_00' '!($1 == 1 && $4 == "wait" && $6 == "out.image")'
spoilt "attention does not wait for K" 'buffers: overlap of attention with the recv of line [0-9]+, in\.k\.image' \
    '$1 == 0 && $4 == "wait" && $6 == "in.k.image" {held = $0; next} {print} $1 == 0 && $6 == "attention" {print held}'
spoilt "a ticket is waited for twice" 'buffers: a wait for nothing under way: out\.text' '{print} $1 == 1 && $4 == "wait" && $6 == "out.text"'
spoilt "the host waits in a block" 'host: waits in double_00' '$1 == 0 && $5 == "double_00" && $6 == "attention" {sub("compute  launch", "host     host  ")} {print}'
spoilt "a stream that is another's" 'form: stream and kind' '$1 == 0 && $6 == "attention" {sub("compute", "wire   ")} {print}'
spoilt "one launch less on a rank" 'launches: 30 in double_00, want 31' '!($1 == 1 && $6 == "attention")'
spoilt "one launch more outside of the blocks" 'launches: not those of rank 0' '{print} $1 == 1 && $5 == "euler"'
spoilt "a third exchange" 'exchanges: 3 in double_00, want 2' \
    '{print} $6 == "out.image" && $4 == "wait" {for (i = 0; i < more[$1]; i++) {x = kept[$1, i]; gsub("in.v.image", "more.rows", x); sub(/ 2  /, " 99 ", x); print x}; w = $0; sub("out.image", "more.rows", w); sub($8, 99, w); print w} $6 == "in.v.image" && $4 != "wait" {kept[$1, more[$1]++] = $0}'
spoilt "a second exchange begins in the first" 'exchanges: begins while another is under way: out\.q\.text' '{sub("in.q.text", "out.q.text"); print}'
spoilt "other bytes than the receiver expects" 'pairs: .* in\.k\.text' \
    '$1 == 0 && $4 == "send" && $6 == "in.k.text" {sub(/786432  /, "786430  "); sub(/\+786432/, "+786430")} {print}'
spoilt "two sends change places" 'pairs: ' \
    '$1 == 0 && $4 == "send" && $6 == "in.v.image" {held = $0; next} {print} $1 == 0 && $4 == "send" && $6 == "in.k.image" {print held}'
spoilt "a send that nobody receives" 'pairs: ' '{print} $1 == 0 && $4 == "send" && $6 == "in.k.text"'
{ # each rank waits before it sends what the other waits for
    echo "0 1 wire recv double_00 in.a 1 1 8 - w:0+8" && echo "0 2 compute wait double_00 in.a - 1 0 - -"
    echo "0 3 wire send double_00 in.b 1 2 8 - r:0+8" && echo "0 4 compute wait double_00 in.b - 2 0 - -"
    echo "1 1 wire recv double_00 in.b 0 1 8 - w:0+8" && echo "1 2 compute wait double_00 in.b - 1 0 - -"
    echo "1 3 wire send double_00 in.a 0 2 8 - r:0+8" && echo "1 4 compute wait double_00 in.a - 2 0 - -"
} >knot
rc=0
"$tool" <knot >"$out" || rc=$?
check "spoilt: ranks that wait for each other: exit" rc_is 1
check "spoilt: ranks that wait for each other: found" prints '^rank 0 line 2: end: waits for ever for in\.a'
check "spoilt: nothing else in it" same "$(grep -c '^rank' "$out")" 2
rc=0
echo "no trace" | "$tool" >"$out" || rc=$?
check "what is no trace: exit 2" rc_is 2

# ---- usage ----
fx plan --help
for flag in model gpu gpus trace width height ulysses ring layout exact t5-len steps; do check "plan --help names --$flag" prints "--$flag( |,|$|\))"; done
check "plan --help has no flags of runs" bash -c "! grep -qE -e '--(seed|threads|backend|prompt|timeout)' '$out'"
fx plan --gpu h200 --gpus 2
refused 2 'no model' "no model"
fx plan -m synthetic:flux-dev --gpu rtx4090 --gpus 2
refused 2 'rtx4090 is not known; possible are a100\|b200\|gb200\|h100\|h200\|this, or a file NAME.json' "a GPU that is not known"
for n in 0 1025 x; do
    fx plan -m synthetic:flux-dev --gpu h100 --gpus $n
    refused 2 "--gpus $n is not possible; it is a whole number from 1 to 1024" "--gpus $n"
done
fx plan -m synthetic:flux-dev --gpus 8 --ulysses 3
refused 2 'possible ulysses x ring for 8 ranks: 1x8 2x4 4x2 8x1' "a mesh that is not possible"
fx plan -m synthetic:flux-dev --gpus 2 -W 1000
refused 2 '1000 is not a multiple of 16' "a width that is not possible"
fx plan -m synthetic:flux-dev --gpus 2 --seed 3
refused 2 '--seed is not a flag of plan' "a flag of another subcommand"
fx plan synthetic:flux-dev
refused 2 'stands alone' "a word without a flag"
fx plan -m nowhere --gpus 2
refused 3 'nowhere cannot be read' "no such model"
fx plna
check "a slip of the fingers" says 'did you mean plan\?'
rc=0
"$fluxpar" plan -m synthetic:flux-dev --gpus 8 --trace >/dev/full 2>"$err" || rc=$?
check "a full standard output: exit 7" rc_is 7
finish
