#!/usr/bin/env bash
# Long target: line coverage of runtime/, parallel/ and kernels/cpu by the suite, at least 90 % (.ci/coverage, in a build folder
# of its own next to BUILD; FX_COVERAGE_BUILD: another one).
. "$(dirname "$0")/lib.sh"

if ! command -v gcov >/dev/null; then
    skip "all" "no gcov"
    finish
fi
rc=0
env -u FX_LONG -u FX_QUICK "$root_dir/.ci/coverage" "${FX_COVERAGE_BUILD:-$build_dir-coverage}" >"$out" 2>"$err" || rc=$?
cat "$out"
sed -n "s/^coverage: /$test_name: note: &/p" "$out"
check "at least 90 % of the lines run" rc_is 0
finish
