#!/usr/bin/env bash
# tests/gpu/run.sh, which tests machines with GPUs, rehearsed on the CPU: its commands, its last line, and that other bytes, a lost
# rank that nobody names and a program that fails are counted. With --long: on two ranks.
. "$(dirname "$0")/lib.sh"
need_model
[ -x "$build_dir/tests/tool_pictures" ] || { skip "all" "no tests in $build_dir"; finish; }

rehearse() { # NRANKS BUILD: exit code in $rc
    rc=0
    OUT=$work/report timeout -k 5 "${limit:-250}" bash "$root_dir/tests/gpu/run.sh" --rehearse "$1" "$2" >"$out" 2>"$err" || rc=$?
}
last() { tail -n 1 "$out"; }
names() { sed -nE 's/^([a-z_0-9]+) +[0-9]+ s  .*/\1/p' "$out" | xargs; }
one="one_rank check_ops models models_on_device by_the_cpu as_the_cpu launched capture warmed_up capture_warmed_up"
rehearse 1 "$build_dir"
check "exit 0" rc_is 0
check "no message" silent "$err"
check "its programs" same "$(names | sed -E 's/ (mem|race)check_[a-z_]+//g')" "$one"
check "the last line" bash -c "[[ '$(last)' =~ ^[1-9][0-9]*\ passed,\ 0\ failed,\ [1-9]\ skipped\$ ]]"
check "logs stay in \$OUT" test -s report/check_ops.log
for bad in x 0 -2; do
    OUT=$work/report bash "$root_dir/tests/gpu/run.sh" "$bad" >"$out" 2>"$err"
    check "'$bad' is no number of GPUs" same "$?:$(last)" "2:usage: tests/gpu/run.sh [NGPUS [BUILD]]: '$bad' is no number of GPUs"
done
PARTS="one two" OUT=$work/report bash "$root_dir/tests/gpu/run.sh" >"$out" 2>"$err"
check "PARTS of something else" same "$?:$(last)" "2:usage: PARTS is of 'one' and 'several', not 'two'"
PARTS=several rehearse 1 "$build_dir"
check "PARTS=several: nothing of what one device shows" same "$rc $(names)" "0 one_rank"
if ! command -v nvidia-smi >/dev/null; then
    OUT=$work/report bash "$root_dir/tests/gpu/run.sh" >"$out" 2>"$err"
    check "no GPU: skipped" same "$?:$(xargs <"$out")" "0:no GPU on this machine 0 passed, 0 failed, 1 skipped"
fi

# ---- what goes wrong is counted ----
mkdir -p fake && ln -s "$build_dir/tests" fake/tests
wrapper() { # wrapper LINE: a fluxpar that runs LINE first
    printf '#!/usr/bin/env bash\n[ "$1" = --version ] || { %s; }\nexec "%s" "$@"\n' "$1" "$fluxpar" >fake/fluxpar
    chmod +x fake/fluxpar
}
# shellcheck disable=SC2016
wrapper '[[ " $* " != *" --no-graphs "* ]] || set -- "$@" --guidance 9'
rehearse 1 fake
check "other bytes: exit 1" rc_is 1
check "other bytes: named" same "$(sed -nE 's/^([a-z_]+) .* 1 failed.*/\1/p' "$out" | xargs)" capture
wrapper 'echo "an error"; exit 3'
rehearse 1 fake
check "failing runs: exit 1" rc_is 1
check "failing runs: counted" bash -c "[[ '$(last)' =~ ^[1-9][0-9]*\ passed,\ [4-9]\ failed,\  ]]"
check "failing runs: their words" test "$(grep -c '^    an error$' "$out")" -ge 3
"$build_dir/tests/tool_pictures" report/one_rank.png nowhere.png >"$out"
check "pictures: none: 2" same "$?" 2

if [ -n "${FX_LONG:-}" ] && has_mpi; then
    rehearse 2 "$build_dir"
    check "two ranks: exit 0" rc_is 0
    check "two ranks: programs" bash -c "[[ ' $(names) ' = *' same_1x2_lsa '*' capture_lsa hops selftest_flux one_rank_of_many groups_of_one_auto '*' stopped_rank stopped_rank_lsa killed_rank ' ]]"
    # shellcheck disable=SC2016
    wrapper '[[ " $* " != *" --steps 1000 "* ]] || exec sleep 7'
    limit=200 rehearse 2 fake
    check "two ranks: nobody names the lost one" same "$(sed -nE 's/^([a-z_]+) .* 1 failed.*/\1/p' "$out" | xargs)" "stopped_rank stopped_rank_lsa killed_rank"
fi
finish
