#!/usr/bin/env bash
# The tests are tested. Always: every row of tests/mutants.txt still fits its file, and a seed draws the same edits again. With
# --long: each row, and 30 edits drawn by tests/mutate.py, is applied to a copy of the tree, and the tests named in the row (then
# the quick list) must fail for at least 95 % of them. 10 to 20 minutes on 2 cores.
# FX_MUTANT_SEED: another seed (default: a new one, printed); FX_MUTANT_COUNT: how many are drawn (30); FX_MUTANT_SECONDS: after
# so long no more are drawn (1200).
. "$(dirname "$0")/lib.sh"

if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
    skip "all" "no Python 3.9 or newer"
    finish
fi
export PYTHONDONTWRITEBYTECODE=1
mutate=$tests_dir/mutate.py
check "every row of mutants.txt fits its file" python3 "$mutate" --check
check "at least 30 rows by hand" test "$(grep -cE '^[a-z0-9_]+ \| ' "$tests_dir/mutants.txt")" -ge 30
python3 "$mutate" --seed 7 --count 40 >"$work/one"
python3 "$mutate" --seed 7 --count 40 >"$work/two"
python3 "$mutate" --seed 8 --count 40 >"$work/other"
check "40 edits are drawn" same "$(grep -c '^+ ' "$work/one")" 40
check "a seed draws the same again" cmp "$work/one" "$work/two"
check "another seed draws others" test "$(grep -cxFf "$work/one" <(grep '^- ' "$work/other"))" -lt 20
if [ -z "${FX_LONG:-}" ]; then finish; fi

if ! command -v mpirun >/dev/null; then
    skip "trials" "no mpirun, which many rows need"
    finish
fi
seed=${FX_MUTANT_SEED:-$(((RANDOM << 15) + RANDOM))}
python3 "$tests_dir/mutate_run.py" "$work/trials" --seed "$seed" --count "${FX_MUTANT_COUNT:-30}" \
    --seconds "${FX_MUTANT_SECONDS:-1200}" >"$out" 2>"$err"
rc=$?
cat "$out"
grep -E '^(seed|drawn|not drawn|survivor)' "$out" | sed "s/^/$test_name: note: /"
check "at least 95 % of the bugs make a test fail (seed $seed)" rc_is 0
finish
