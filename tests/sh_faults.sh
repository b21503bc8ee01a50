#!/usr/bin/env bash
# Ranks that are killed or stopped in every phase, that fail alone, that have other programs, arguments or files; launchers
# that are killed; full and read-only disks; too little memory. Each ends with one line that names rank and phase, all
# ranks gone in time, and no file. Where a fault must hit one phase, tests/preload/fault.c makes the rank strike itself
# there: no test waits for a moment to come. FX_LONG=1: every phase, killed and stopped.
. "$(dirname "$0")/lib.sh"
need_model
preload=$build_dir/tests/fault_preload.so
mkdir out
if ! has_mpi; then
    skip "all" "there is no mpirun"
    finish
fi
now_ms() { echo $(($(date +%s%N) / 1000000)); }

# ours PID: our program in the state running, sleeping or stopped; a zombie counts as gone.
ours() {
    [ "$(readlink "/proc/$1/exe" 2>/dev/null)" = "$(realpath "$fluxpar")" ] &&
        grep -qs '^State:[[:space:]]*[RSDTt]' "/proc/$1/status"
}
# Ranks of this test write into this test's folder: that is how they are told from those of others.
ranks_left() {
    local p
    for p in $(find /proc/[0-9]* -maxdepth 1 -name cwd -lname "$work" 2>/dev/null | tr -dc '0-9\n'); do
        ours "$p" && echo "$p"
    done
    return 0
}
# all_gone MS: no rank of this test runs any more, MS milliseconds from now at the latest.
all_gone() {
    local end=$(($(now_ms) + $1)) left
    while :; do
        left=$(ranks_left)
        [ -n "$left" ] || return 0
        [ "$(now_ms)" -lt $end ] || break
        sleep 0.05
    done
    echo "still there: $left"
    # shellcheck disable=SC2086
    kill -KILL $left 2>/dev/null
    false
}

# after_fault WHAT CODE PATTERN: what every fault must leave behind.
after_fault() {
    check "$1: exit code $2" rc_is "$2"
    check "$1: one error line" one_error_line
    check "$1: message" says "^fluxpar: error: rank [0-9]+ \([^,]+, cpu\): .*$3"
    check "$1: all ranks gone" all_gone 10000
    check "$1: no file" only_files out
    check "$1: no result" silent "$out"
}
export ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0

# ---- one rank, one phase ----

# strike FAULT RANK PHASE ARGS...: 3 ranks, of which RANK gets FAULT in PHASE; the time it took in $took ms.
strike() {
    local fault=$1 rank=$2 phase=$3 begin
    shift 3
    begin=$(now_ms)
    LD_PRELOAD='' mpi 3 -x LD_PRELOAD="$preload" -x FAULT="$fault" -x FAULT_RANK="$rank" -x FAULT_AT="$phase" \
        ${send:+-x FAULT_SEND=1} "$fluxpar" generate -m "$model" -p x --threads 1 --t5-len 16 --steps 4 -S 1 -v \
        -o out/x.png "$@"
    took=$(($(now_ms) - begin))
}
# mpi() puts $fluxpar before its arguments; here mpirun's own flags come first.
mpi() {
    local ranks=$1
    shift
    rc=0
    timeout -k 5 "${limit:-120}" mpirun "${mpi_flags[@]}" -np "$ranks" "$@" >"$out" 2>"$err" || rc=$?
}

killed() { # PHASE WHERE ARGS...: WHERE the rank was, as the line must say
    local phase=$1 where=$2
    shift 2
    strike 9 1 "$phase" "$@"
    after_fault "killed in $where" 137 "rank 1 \(process [0-9]+\) is gone; it was in '$where'; noticed during '[a-z]+"
}
stopped() {
    local phase=$1 where=$2
    shift 2
    strike 19 2 "$phase" --timeout 4 "$@"
    # In a ring a rank may wait for a neighbour that waits for the stopped one.
    after_fault "stopped in $where" 5 "waited 4 s in '[a-z]+.*' for ranks? [0-9, ]+; .*rank 2 \(process [0-9]+\) is stopped in '$where'"
    check "stopped in $where: ended by its deadline (took $took ms)" test "$took" -lt 20000
}

if sanitized; then skip "faults at a known place" "built with AddressSanitizer"; else
    killed load load
    killed text text
    killed "denoise step 3" "denoise step 3"
    send=1 killed "denoise step 2" "denoise step 2, ring hop 1 of 2" --ring 3 --exact off
    killed vae vae
    send=1 stopped "denoise step 2" "denoise step 2, ring hop 1 of 2" --ring 3 --exact off
    if [ -n "${FX_LONG:-}" ]; then
        # Before the ranks share memory nobody knows who is gone; one line all the same.
        strike 9 1 start
        after_fault "killed in start" 137 "during 'start'"
        killed checks checks
        killed plan plan
        # Rank 0 may have finished the picture: then it is there, whole.
        strike 9 1 png
        rm -f out/x.png
        after_fault "killed in png" 137 "rank 1 \(process [0-9]+\) is gone; it was in 'png'; noticed during 'png'"
        for phase in checks load text "denoise step 2" vae; do stopped "$phase" "$phase"; done
    fi
    # A survivor that computes for long must notice too: steps of minutes on the slow backend.
    strike 9 1 "denoise step 1" -W 512 -H 512 --backend ref
    check "killed beside a long step: exit code 137" rc_is 137
    check "killed beside a long step: one error line" one_error_line
    check "killed beside a long step: message" says "\(.*, ref\): rank 1 \(process [0-9]+\) is gone; it was in 'denoise step 1'; noticed during 'denoise step 1"
    check "killed beside a long step: all ranks gone" all_gone 10000
    check "killed beside a long step: no file" only_files out

    # No memory on one rank only, in the middle, where nobody votes.
    strike memory 1 text -W 1024 -H 1024 --timeout 60
    after_fault "fails alone" 8 "^fluxpar: error: rank 1 .*no memory|no memory"
    check "fails alone: it was rank 1" says "error: rank 1 "
    check "fails alone: the others do not wait for a deadline (took $took ms)" test "$took" -lt 50000
fi

# ---- start ----

# ranks SCRIPT ARGS...: 3 ranks of a shell script, which gets the rank in $r and the program's arguments.
ranks() {
    local script=$1
    shift
    mpi 3 sh -c "r=\$OMPI_COMM_WORLD_RANK; $script" sh generate -m "$model" -p x --threads 1 --t5-len 16 -S 1 \
        -o out/x.png "$@"
}
export FLUXPAR=$fluxpar
ranks '[ $r = 0 ] && exec sleep 60; exec "$FLUXPAR" "$@"' --steps 2 --timeout 3
after_fault "a rank that does not start" 5 "waited 3 s for the other ranks during 'start of MPI'"

cp "$fluxpar" other
sed -i 's/0\.1\.0/0.1.9/g' other
ranks '[ $r = 2 ] && exec ./other "$@"; exec "$FLUXPAR" "$@"' --steps 2
after_fault "another version" 2 "this rank runs fluxpar 0\.1\.9 .*rank 0 \(.*\) runs 0\.1\.0"
check "another version: rank 2 says so" says "error: rank 2 "
# The build's identity: 20 bytes after the header of their section.
offset=$(readelf -SW "$fluxpar" 2>/dev/null | awk '{for (i = 1; i < NF; i++) if ($i == ".note.gnu.build-id") print $(i + 3)}')
if [ -n "$offset" ]; then
    cp "$fluxpar" other
    printf '\1\2\3\4\5' | dd of=other bs=1 seek=$((0x$offset + 16)) conv=notrunc status=none
    ranks '[ $r = 1 ] && exec ./other "$@"; exec "$FLUXPAR" "$@"' --steps 2
    after_fault "another build" 2 "this rank runs fluxpar 0\.1\.0 \(build 0102030405[0-9a-f]*\) and rank 0"
else skip "another build" "no readelf, or no build id"; fi
rm -f other

differing_model() { # WHAT PATTERN: rank 1 has the model in ./m
    ranks '[ $r = 1 ] && cd other; exec "$FLUXPAR" "$@"' -m m --steps 2 -o "$work/out/x.png"
    check "$1: exit code 3" rc_is 3
    check "$1: one error line" one_error_line
    check "$1: message" says "error: rank 1 \(.*\): model m differs between the ranks; this rank has $2"
    check "$1: no file" only_files out
}
mkdir other
copy_model m
config=transformer/config.json
copy_model other/m && own_file other/m/$config && sed -i 's/FluxTransformer/FluxTransformeR/' other/m/$config
differing_model "a config with another letter" "$config of [0-9]+ bytes, header hash [0-9a-f]+, rank 0 has $config"
weights=transformer/diffusion_pytorch_model.safetensors
copy_model other/m && own_file other/m/$weights && sed -i '0,/proj_out\.bias/s//proj_out.bios/' other/m/$weights
differing_model "weights with another header" "$weights of"
if [ -n "${FX_LONG:-}" ]; then
    copy_model other/m && own_file other/m/$weights && printf x >>other/m/$weights
    differing_model "weights of another length" "$weights of [0-9]+ bytes"
    copy_model other/m && own_file other/m/$config && sed -i 's/^{/{ /' other/m/$config
    differing_model "a config of another size" "$config of [0-9]+ bytes, .*, rank 0 has $config of"
    copy_model other/m && rm -r other/m/tokenizer_2
    differing_model "a missing folder" ".*, rank 0 has tokenizer_2/"
fi
rm -rf other/m
differing_model "no model" "no more files, rank 0 has"
rm -rf m other

# ---- launchers ----

# Ranks whose mpirun is killed end by themselves; their lines go to files, because mpirun carried them.
mkdir lines
cat >rank.sh <<'S'
exec "$FLUXPAR" "$@" 2>"lines/$OMPI_COMM_WORLD_RANK"
S
mpirun "${mpi_flags[@]}" -np 3 sh rank.sh generate -m "$model" -p x --threads 1 -S 1 --steps 1000 -W 256 -H 256 -v -o out/x.png >"$out" 2>"$err" &
launcher=$!
for _ in $(seq 600); do
    [ "$(grep -ls 'denoise step 1' lines/* | wc -l)" = 3 ] && break
    kill -0 $launcher 2>/dev/null || break
    sleep 0.05
done
check "mpirun killed: three ranks compute" same "$(ranks_left | wc -l | xargs)" 3
begin=$(now_ms)
kill -KILL $launcher
wait $launcher 2>/dev/null
check "mpirun killed: all ranks gone" all_gone 5000
took=$(($(now_ms) - begin))
check "mpirun killed: within a second or so (took $took ms)" test "$took" -lt 4000
check "mpirun killed: no file" only_files out
check "mpirun killed: at most one line" test "$(cat lines/* | grep -c '^fluxpar: error:')" -le 1

# A rank alone belongs to nobody: it goes on when the shell that started it ends.
(setsid "$fluxpar" generate -m "$model" -p x --threads 1 --t5-len 16 -S 1 --steps 8 -o out/alone.png >"$out" 2>"$err" &)
for _ in $(seq 600); do
    [ ! -e out/alone.png ] || break # it gets this name when it is complete
    sleep 0.1
done
check "alone, its shell gone: a picture" only_files out alone.png
check "alone: it ends" all_gone 10000
rm -f out/alone.png

# ---- memory ----

if sanitized; then skip "memory" "built with AddressSanitizer"; else
    limits() { # WHAT KB RANKS PATTERN ARGS...: that address space on all ranks
        local what=$1 kb=$2 n=$3 pattern=$4
        shift 4
        if [ "$n" = 1 ]; then
            rc=0
            (ulimit -v "$kb" && exec "$fluxpar" generate -m "$model" -p x --threads 1 --steps 1 -S 1 -o out/x.png "$@") >"$out" 2>"$err" || rc=$?
        else ranks "ulimit -v $kb; exec \"\$FLUXPAR\" \"\$@\"" --steps 1 "$@"; fi
        after_fault "$what, $n ranks" 8 "$pattern"
    }
    have='[0-9.]+ GiB are available.* \(address space limit \(ulimit -v\)\)'
    for n in 1 3; do
        limits "too large a picture" 4000000 $n "weights need [0-9.]+ GiB on this node, and activations need [0-9.]+ GiB on each of $n ranks of it; $have" -W 8192 -H 8192
    done
    limits "no room for the weights" 6000000 1 "weights need [0-9.]+ GiB on this node, and activations .*; $have" -m synthetic:flux-dev
    ranks '[ $r = 1 ] && ulimit -v 1500000; exec "$FLUXPAR" "$@"' --steps 1 -W 4096 -H 4096
    after_fault "too little memory on one rank" 8 "activations need .*; $have"
    check "too little memory on one rank: it says so" says "error: rank 1 "
fi

# A control group of 400 MB, where this user may make one: the limit of containers and jobs. Version 1, then 2.
group=''
for try in memory/memory.limit_in_bytes memory.max; do
    dir=/sys/fs/cgroup/$(dirname "$try")/fluxpar-test-$$
    [ -z "$group" ] && mkdir "$dir" 2>/dev/null || continue
    if { echo 400000000 >"$dir/$(basename "$try")"; } 2>/dev/null; then group=$dir; else rmdir "$dir"; fi
done
if [ -n "$group" ] && ! sanitized; then
    for n in 1 3; do
        run=()
        [ $n = 1 ] || run=(mpirun "${mpi_flags[@]}" -np "$n")
        rc=0
        timeout 120 sh -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' sh "$group" "${run[@]}" \
            "$fluxpar" generate -m "$model" -p x --threads 1 --steps 1 -S 1 -W 2048 -H 2048 -o out/x.png >"$out" 2>"$err" || rc=$?
        after_fault "memory limit of a job, $n ranks" 8 "activations need [0-9.]+ GiB on each of $n ranks .*; 0\.[0-9]+ GiB are available \(memory limit of this container or job"
    done
else skip "memory limit of a job" "no right to make a control group here"; fi
for _ in $(seq 100); do
    [ -n "$group" ] && ! rmdir "$group" 2>/dev/null || break
    sleep 0.1
done

# ---- disks ----

# In a mount namespace of its own, so that nothing has to be unmounted; users other than root need user namespaces.
apart=(unshare -m)
[ "$(id -u)" = 0 ] || apart=(unshare -rm)
mkdir disk
cat >disk.sh <<'S'
mount -t tmpfs -o size="$1" tmpfs disk || exit 99
[ "$2" = rw ] || mount -o remount,ro disk || exit 99
[ -z "$3" ] || exit 0
shift 3
"$@"
code=$?
ls -A disk
exit $code
S
on_disk() { # SIZE rw|ro COMMAND...: what it leaves there is the result
    rc=0
    ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
        timeout -k 5 120 "${apart[@]}" sh disk.sh "$1" "$2" "" "${@:3}" >"$out" 2>"$err" || rc=$?
}
if "${apart[@]}" sh disk.sh 16k ro try >/dev/null 2>&1; then
    picture=("$fluxpar" generate -m "$model" -p x --threads 1 --t5-len 16 --steps 1 -S 1 -o disk/x.png)
    for n in 1 3; do
        run=()
        [ $n = 1 ] || run=(mpirun "${mpi_flags[@]}" -np "$n")
        on_disk 8k rw "${run[@]}" "${picture[@]}" -W 256 -H 256
        after_fault "disk full, $n ranks" 7 "cannot write disk/x.png; .*No space left on device; free some space"
        on_disk 64k ro "${run[@]}" "${picture[@]}"
        after_fault "read-only disk, $n ranks" 7 "cannot write disk/x.png; .*Read-only file system"
        check "read-only disk, $n ranks: refused before any work" bash -c "! grep -q '^load' '$err'"
    done
    on_disk 8k rw "${picture[@]}" --dump disk -o out/x.png
    check "disk full with tensors: exit code" rc_is 7
    check "disk full with tensors: one error line" one_error_line
    check "disk full with tensors: message" says "cannot write disk/.*\.npy; No space left on device"
    check "disk full with tensors: nothing half-written" bash -c "! grep -E 'tmp|sigmas' '$out'"
else skip "full and read-only disks" "no right to mount a tmpfs in a namespace"; fi
if ! sanitized; then # set in the middle: MPI's own shared memory counts as files too
    strike files 0 vae
    after_fault "file size limit, 3 ranks" 7 "cannot write out/x.png; .*File too large"
fi
if [ "$(id -u)" != 0 ]; then
    mkdir closed && chmod a-w closed
    gen_bad=(generate -m "$model" -p x --threads 1 --steps 1 -o closed/x.png)
    fx "${gen_bad[@]}"
    after_fault "a folder without the right to write" 7 "cannot write closed/x.png; .*Permission denied"
fi
finish
