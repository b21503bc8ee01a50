#!/usr/bin/env bash
# Ctrl-C, SIGTERM, lost and stopped ranks: all ranks are gone in time, one line, the documented exit code, no file.
. "$(dirname "$0")/lib.sh"
need_model
mkdir out

# start RANKS ARGS...: in the background, until it denoises; $pid is fluxpar or mpirun.
start() {
    local ranks=$1
    shift
    local run=("$fluxpar")
    [ "$ranks" = 1 ] || run=(mpirun "${mpi_flags[@]}" -np "$ranks" "$fluxpar")
    : >"$err"
    # setsid: SIGINT is ignored in background jobs of a shell without job control
    setsid "${run[@]}" generate -m "$model" -p x --steps 1000 --threads 1 -S 1 -o out/x.png "$@" >"$out" 2>"$err" &
    pid=$!
    for _ in $(seq 300); do
        grep -q '^text' "$err" && break
        kill -0 $pid 2>/dev/null || break
        sleep 0.1
    done
    sleep 0.5
}
ranks_of() { # the processes that mpirun started, in rank order
    grep -ls "^PPid:[[:space:]]*$1\$" /proc/[0-9]*/status | tr -dc '0-9\n' | sort -n
}
now() { date +%s%N; }

# ended SECONDS: waits for $pid; $rc, and whether it and its ranks were gone in time.
ended() {
    local limit_ns=$1 begin_ns took
    begin_ns=$(now)
    rc=0
    wait $pid || rc=$?
    took=$((($(now) - begin_ns) / 1000000))
    for rank in $ranks; do # not even as a process that still runs; a zombie counts as gone
        while grep -qs '^State:[[:space:]]*[RSDT]' "/proc/$rank/status"; do
            took=$((($(now) - begin_ns) / 1000000))
            [ "$took" -lt $((limit_ns * 2)) ] || break
            sleep 0.02
        done
    done
    check "$what: gone within $limit_ns ms (took $took)" [ "$took" -le "$limit_ns" ]
}
clean() {
    check "$what: one error line" one_error_line
    check "$what: message" says "^fluxpar: error: rank [0-9]+ \([^,]+, cpu\): .*$1"
    check "$what: no picture, nothing else" only_files out
    check "$what: no path printed" silent "$out"
}

for signal in INT TERM; do
    code=$([ $signal = INT ] && echo 130 || echo 143)
    what="SIG$signal, one rank"
    start 1
    ranks=""
    kill -$signal $pid
    ended 2000
    check "$what: exit code" rc_is "$code"
    clean "stopped by SIG$signal"

    what="SIG$signal to mpirun, 4 ranks"
    start 4
    ranks=$(ranks_of $pid)
    check "$what: 4 ranks run" same "$(wc -w <<<"$ranks" | xargs)" 4
    kill -$signal $pid
    ended 2000
    check "$what: mpirun reports failure" [ "$rc" != 0 ]
    clean "stopped by SIG"

    what="SIG$signal to one of 3 ranks"
    start 3
    ranks=$(ranks_of $pid)
    kill -$signal "$(sed -n 2p <<<"$ranks")" || fail "$what: no rank to signal"
    ended 2000
    check "$what: exit code" rc_is "$code"
    clean "stopped by SIG$signal"
done

what="SIGHUP, one rank"
start 1
ranks=""
kill -HUP $pid
ended 2000
check "$what: exit code" rc_is 129
clean "stopped by SIGHUP"

what="two signals"
start 1
kill -TERM $pid
kill -TERM $pid 2>/dev/null
ended 2000
check "$what: exit code" rc_is 143
check "$what: no picture, nothing else" only_files out

# A big step: one matrix product after the other, no wait in between.
what="SIGTERM inside a long step"
start 1 -W 1024 -H 1024 --backend ref --steps 4
sleep 1
kill -TERM $pid
ended 2000
check "$what: exit code" rc_is 143
check "$what: one error line" one_error_line
check "$what: message" says "error: rank 0 .*stopped by SIGTERM during 'denoise"
check "$what: no picture, nothing else" only_files out

what="SIGKILL of one of 4 ranks"
start 4
ranks=$(ranks_of $pid)
kill -KILL "$(sed -n 3p <<<"$ranks")"
ended 10000
check "$what: mpirun reports failure" [ "$rc" != 0 ]
clean "rank 2 \(process [0-9]+\) is gone|for rank 2"

what="SIGSTOP of one of 3 ranks, --timeout 2"
start 3 --timeout 2
ranks=$(ranks_of $pid)
stopped=$(sed -n 2p <<<"$ranks")
kill -STOP "$stopped"
ended 10000
check "$what: exit code" rc_is 5
clean "rank 1"
kill -KILL "$stopped" 2>/dev/null

what="SIGSEGV in one rank"
start 2
ranks=$(ranks_of $pid)
kill -SEGV "$(sed -n 2p <<<"$ranks")"
ended 10000
check "$what: exit code" [ "$rc" = 4 ]
clean "rank 1 .*died of SIGSEGV|died of SIGSEGV"
finish
