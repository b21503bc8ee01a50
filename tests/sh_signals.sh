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
    setsid "${run[@]}" generate -m "$model" -p x --steps 1000 --threads 1 -S 1 -v -o out/x.png "$@" >"$out" 2>"$err" &
    pid=$!
    for _ in $(seq 1200); do
        grep -q 'rank 0: denoise step' "$err" && break # -v: each rank tells its phases
        kill -0 $pid 2>/dev/null || break
        sleep 0.1
    done
}
ranks_of() { # the processes that mpirun started, in rank order, which is not always that of their numbers
    local p
    for p in $(grep -ls "^PPid:[[:space:]]*$1\$" /proc/[0-9]*/status | tr -dc '0-9\n'); do
        printf '%s %s\n' "$(tr '\0' '\n' <"/proc/$p/environ" | sed -n 's/^OMPI_COMM_WORLD_RANK=//p')" "$p"
    done 2>/dev/null | grep '^[0-9]' | sort -n | cut -d ' ' -f 2
}
now() { date +%s%N; }

# More to do than cores: then even a process that only has to leave waits for its turn.
crowded() { awk -v cores="$(nproc)" '{exit !($1 > 1.5 * cores)}' /proc/loadavg; }
# ended MS: waits until all ranks are gone, then for $pid; $rc, and whether they were gone in time. (mpirun itself takes
# its own time, a second or two more.)
ended() {
    local limit_ms=$1 begin_ns took=0 rank
    ! crowded || limit_ms=$((limit_ms * 3))
    begin_ns=$(now)
    for rank in ${ranks:-$pid}; do # not even as a process that still runs; a zombie counts as gone
        while grep -qs '^State:[[:space:]]*[RSDT]' "/proc/$rank/status"; do
            took=$((($(now) - begin_ns) / 1000000))
            [ "$took" -lt $((limit_ms * 2)) ] || break
            sleep 0.02
        done
    done
    rc=0
    wait $pid || rc=$?
    check "$what: gone within $limit_ms ms (took $took)" [ "$took" -le "$limit_ms" ]
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
    for try in 1 2 3; do
        start 4
        ranks=$(ranks_of $pid)
        check "$what: 4 ranks run" same "$(wc -w <<<"$ranks" | xargs)" 4
        kill -$signal $pid
        ended 2000
        check "$what: mpirun reports failure" [ "$rc" != 0 ]
        # An mpirun that was told to end may drop the beginning of what a rank wrote meanwhile ("pped by SIGTERM during ...", seen
        # once in some hundred runs of Open MPI 4.1.4).
        [ "$try" = 3 ] || says '^fluxpar: error: ' || ! says 'pped by SIG|the unfinished picture is not written' || continue
        break
    done
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
clean "rank 2 \(process [0-9]+\) is gone; it was in 'denoise step [0-9]+'; noticed during 'denoise step"

what="SIGSTOP of one of 3 ranks, --timeout 5"
start 3 --timeout 5
ranks=$(ranks_of $pid)
stopped=$(sed -n 2p <<<"$ranks")
kill -STOP "$stopped"
ended 15000
check "$what: exit code" rc_is 5
clean "waited 5 s in '.*' for ranks? [0-9, ]+; .*rank 1 \(process [0-9]+\) is stopped in 'denoise step"
kill -KILL "$stopped" 2>/dev/null

what="SIGSEGV in one rank"
start 2
ranks=$(ranks_of $pid)
kill -SEGV "$(sed -n 2p <<<"$ranks")"
ended 10000
check "$what: exit code" [ "$rc" = 4 ]
clean "died of SIGSEGV \(segmentation fault\) during 'denoise step"
check "$what: the rank itself says so" says "error: rank 1 "
finish
