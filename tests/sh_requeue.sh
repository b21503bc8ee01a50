#!/usr/bin/env bash
# A batch that is killed or asked to end, and goes on: whenever SIGKILL comes, --resume makes what is missing, nothing twice, and
# leaves no temporary name; SIGUSR1 and SIGTERM let a picture that can be finished be finished and drop any other; ranks end when
# mpirun dies. FX_LONG=1: more moments.
. "$(dirname "$0")/lib.sh"
need_model
preload=$build_dir/tests/fault_preload.so
now_ms() { echo $(($(date +%s%N) / 1000000)); }
crowded() { awk -v cores="$(nproc)" '{exit !($1 > 1.5 * cores)}' /proc/loadavg; }

pictures=(a-1.png a-2.png a-3.png a-4.png)
args=(generate -m "$model" --batch jobs.jsonl -o a.png --t5-len 16 --threads 1 --steps 4)
printf '{"prompt": "%s"}\n' cat dog fox cat >few
mkdir want && cd want && cp ../few jobs.jsonl && fx "${args[@]}" -S 5 && cd ..
check "not disturbed: exit 0" rc_is 0

fresh() { # FOLDER [LINES]: an empty folder with its jobs
    rm -rf "$1" && mkdir "$1" && cp "${2:-few}" "$1/jobs.jsonl" && cd "$1" || exit 1
}
equal() { # what a batch must have in the end, wherever it was disturbed
    local p
    check "$1: goes on, exit 0" rc_is 0
    for p in "${pictures[@]}"; do check "$1: $p" cmp -s "../want/$p" "$p"; done
    check "$1: no temporary name, nothing else" only_files . "${pictures[@]}" jobs.jsonl jobs.results.jsonl
    check "$1: one result per picture" same "$(grep '"status":"ok"' jobs.results.jsonl | grep -oE '"path":"[^"]*"' | sort | xargs)" \
        "$(printf '"path":"%s"\n' "${pictures[@]}" | xargs -n 1 printf '%s ' | xargs)"
    check "$1: results are whole lines" same "$(grep -vcE '^\{.*\}$' jobs.results.jsonl)" 0
    cd ..
}

# ---- SIGKILL ----

if sanitized; then skip "killed at a known place" "built with AddressSanitizer"; else
    # killed HOW MADE FOUND ENV...: one rank is killed there; then MADE pictures have results, and FOUND are there without.
    killed() {
        local how=$1 made=$2 found=$3
        shift 3
        fresh killed
        rc=0
        { env LD_PRELOAD="$preload" FAULT_RANK=0 FAULT=9 "$@" "$fluxpar" "${args[@]}" -S 5 -v >"$out" 2>"$err"; } 2>"$work/.killed" || rc=$?
        check "$how: killed" rc_is 137
        check "$how: $made results" same "$(grep -c '"status":"ok"' jobs.results.jsonl)" "$made"
        check "$how: pictures" same "$(find . -name 'a-*.png' | wc -l)" $((made + found))
        find . -name '*.png' -exec touch -d '2001-01-01' {} +
        fx "${args[@]}" -S 5 --resume
        check "$how: nothing finished is made again" same "$(find . -name '*.png' ! -newermt 2002-01-01 | wc -l)" $((made + found))
        check "$how: found by what they say of themselves" same "$(grep -c '"found":true' jobs.results.jsonl)" "$found"
        equal "$how"
    }
    killed "before the name" 1 0 FAULT_RENAME=-2
    killed "between name and result" 1 1 FAULT_RENAME=2
    if [ -n "${FX_LONG:-}" ]; then
        killed "in the first picture" 0 0 FAULT_AT="denoise step 2"
        killed "in the decoder" 0 0 FAULT_AT=vae
        killed "after the last name" 3 1 FAULT_RENAME=4
    fi
fi
# At any moment, several times in a row; the seed is drawn once.
fresh any
rm -f ../seeds
for ms in $([ -n "${FX_LONG:-}" ] && seq 60 35 800 || echo 200 400); do
    "$fluxpar" "${args[@]}" --resume >>"$out" 2>"$err" &
    pid=$!
    sleep "$(awk "BEGIN {print $ms / 1000}")"
    kill -KILL $pid 2>/dev/null
    wait $pid 2>/dev/null
    grep -hoE '^\{"status":"ok".*"path":"[^"]*","seed":[0-9]+' jobs.results.jsonl 2>/dev/null >>../seeds
done
fx "${args[@]}" --resume
check "at any moment: exit 0" rc_is 0
grep -hoE '^\{"status":"ok".*"path":"[^"]*","seed":[0-9]+' jobs.results.jsonl >>../seeds
check "at any moment: every picture has one seed" same "$(sed -E 's/.*"path"/"path"/' ../seeds | sort -u | wc -l)" 4
for p in "${pictures[@]}"; do # made at one go with the seed it got
    seed=$(grep "\"path\":\"$p\"" jobs.results.jsonl | grep -oE '"seed":[0-9]+' | tail -n 1 | cut -d: -f2)
    number=${p//[^0-9]/}
    fx generate -m "$model" -p "$(sed -n "${number}s/.*: \"\(.*\)\"}/\1/p" jobs.jsonl)" -S "$seed" --t5-len 16 --threads 1 --steps 4 -o ../x.png -f
    check "at any moment: $p" cmp -s ../x.png "$p"
done
check "at any moment: no temporary name" same "$(find . -name '.*.tmp')" ""
check "at any moment: one result per picture" same "$(grep -c '"status":"ok"' jobs.results.jsonl)" 4
cd ..

# ---- signals ----

# Long pictures, of which the second is never finished by itself.
printf '{"prompt": "cat"}\n{"prompt": "dog", "steps": 1000}\n{"prompt": "fox"}\n{"prompt": "cat"}\n' >long
printf '{"prompt": "cat"}\n{"prompt": "dog", "steps": 60}\n{"prompt": "fox"}\n{"prompt": "cat"}\n' >middle

# start RANKS LINES ARGS...: in the background, until step 5 of the second picture; $pid is fluxpar or mpirun.
start() {
    local ranks=$1 lines=$2 run=("$fluxpar")
    shift 2
    [ "$ranks" = 1 ] || run=(mpirun "${mpi_flags[@]}" -np "$ranks" "$fluxpar")
    fresh stopped "$lines"
    : >"$err"
    setsid "${run[@]}" "${args[@]}" -S 5 -v "$@" >"$out" 2>"$err" &
    pid=$!
    for _ in $(seq 600); do
        grep -q "rank 0: denoise step ${step:-5}" "$err" && break
        kill -0 $pid 2>/dev/null || break
        sleep 0.05
    done
}
left() { # ranks of this test that still run
    local p
    for p in $(find /proc/[0-9]* -maxdepth 1 -name cwd -lname "$work/stopped" 2>/dev/null | tr -dc '0-9\n'); do
        [ "$(readlink "/proc/$p/exe" 2>/dev/null)" = "$(realpath "$fluxpar")" ] && grep -qs '^State:[[:space:]]*[RSDTt]' "/proc/$p/status" && echo "$p"
    done
    return 0
}
# ended MS: all ranks are gone in time; then $rc of $pid.
ended() {
    local limit_ms=$1 begin took=0 rank
    ! crowded || limit_ms=$((limit_ms * 3))
    begin=$(now_ms)
    for rank in $(left); do
        while grep -qs '^State:[[:space:]]*[RSDTt]' "/proc/$rank/status"; do
            took=$(($(now_ms) - begin))
            [ "$took" -lt $((limit_ms * 2)) ] || break
            sleep 0.05
        done
    done
    rc=0
    wait $pid || rc=$?
    check "$what: gone within $limit_ms ms (took $took)" [ "$took" -le "$limit_ms" ]
}
# dropped CODE SIGNAL: the second picture is not there, the first is; it goes on (with fewer steps, to be quick).
dropped() {
    check "$what: exit code" grep -qxE "$1" <<<"$rc"
    check "$what: one error line" one_error_line
    check "$what: message" says "error: rank [0-9]+ .*stopped by $2.*go on with --resume"
    check "$what: what is done stays, nothing else" only_files . a-1.png jobs.jsonl jobs.results.jsonl
    cp ../few jobs.jsonl
    fx "${args[@]}" -S 5 --resume
    check "$what: the first is not made again" same "$(wc -l <"$out")" 3
    equal "$what"
}
# finished CODE: the second picture is there, no third was begun.
finished() {
    check "$what: exit code" rc_is "$1"
    check "$what: one error line" one_error_line
    check "$what: message" says "error: rank [0-9]+ .*stopped by .*go on with --resume"
    check "$what: the picture is finished" only_files . a-1.png a-2.png jobs.jsonl jobs.results.jsonl
    check "$what: with its result" same "$(grep -c '"status":"ok"' jobs.results.jsonl)" 2
    fx "${args[@]}" -S 5 --resume
    check "$what: goes on: exit 0" rc_is 0
    check "$what: goes on with the third" same "$(xargs <"$out")" "a-3.png a-4.png"
    cd ..
}

what="SIGUSR1, a picture that cannot be finished in time"
start 1 long --grace 2
kill -USR1 $pid
ended 1500
check "$what: the result says so" grep -q '^{"status":"stopped","line":2,.*"exit":138}$' jobs.results.jsonl
dropped 138 SIGUSR1

if [ -n "${FX_LONG:-}" ]; then
    what="SIGUSR1, a picture that can"
    start 1 middle --grace 600
    kill -USR1 $pid
    ended 20000
    finished 138
fi

what="SIGTERM without a launcher"
start 1 middle --grace 600
kill -TERM $pid
ended 20000
finished 143

if [ -n "${FX_LONG:-}" ]; then
    what="SIGTERM, --grace 0"
    start 1 long --grace 0
    kill -TERM $pid
    ended 1000
    dropped 143 SIGTERM
fi

what="SIGUSR1 and then SIGTERM"
start 1 middle --grace 600
kill -USR1 $pid
sleep 0.1
kill -TERM $pid
ended 1500
dropped 143 SIGTERM

if [ -n "${FX_LONG:-}" ]; then
    what="SIGINT"
    start 1 long --grace 60
    kill -INT $pid
    ended 1500
    dropped 130 SIGINT
fi

# Deep in one long operation nothing is looked at: the deadline ends it.
what="SIGUSR1 inside a long step"
step=1 start 1 long --grace 1 -W 1024 -H 1024 --backend ref
sleep 0.5
kill -USR1 $pid
ended 2500
check "$what: exit code" rc_is 138
check "$what: one error line" one_error_line
check "$what: no picture" only_files . jobs.jsonl jobs.results.jsonl
cd ..

what="SIGTERM while it waits for a line"
rm -rf stopped && mkdir stopped && cd stopped || exit 1
mkfifo line
setsid "$fluxpar" generate -m "$model" --batch line --threads 1 -v >"$out" 2>"$err" &
pid=$!
exec 3>line
for _ in $(seq 200); do
    grep -q 'rank 0: next picture' "$err" && break
    sleep 0.05
done
sleep 0.2
kill -TERM $pid
ended 1500
exec 3>&-
check "$what: exit code" rc_is 143
check "$what: no picture" only_files . line line.results.jsonl
cd ..

if ! has_mpi; then
    skip "several ranks" "there is no mpirun"
    finish
fi

what="SIGTERM to mpirun, 2 ranks" # it kills them a second later
start 2 long --grace 86400
kill -TERM $pid
ended 1500
dropped '1|143' SIGTERM

what="SIGUSR1 to mpirun, 2 ranks" # which passes it on
start 2 middle --grace 600
kill -USR1 $pid
ended 30000
finished 138

what="mpirun is killed, 2 ranks"
start 2 long
kill -KILL $pid
ended 1000
wait $pid 2>/dev/null
check "$what: what is done stays, nothing else" only_files . a-1.png jobs.jsonl jobs.results.jsonl
cp ../few jobs.jsonl
mpi 2 "${args[@]}" -S 5 --resume
equal "$what"

if sanitized; then skip "one of 2 ranks is killed" "built with AddressSanitizer"; else
    what="one of 2 ranks is killed"
    fresh killed
    rc=0
    timeout -k 5 120 mpirun "${mpi_flags[@]}" -np 2 -x LD_PRELOAD="$preload" -x FAULT_RANK=1 -x FAULT=9 -x FAULT_AT="denoise step 4" \
        "$fluxpar" "${args[@]}" -S 5 -v >"$out" 2>"$err" || rc=$?
    check "$what: mpirun reports failure" [ "$rc" != 0 ]
    check "$what: named" says "rank 1 \(process [0-9]+\) is gone"
    mpi 2 "${args[@]}" -S 5 --resume
    equal "$what"
fi
finish
