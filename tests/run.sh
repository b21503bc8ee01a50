#!/usr/bin/env bash
# Builds fluxpar and runs its tests. The last line is 'N passed, N failed, N skipped'; exit 1 when something failed.
#   ./tests/run.sh [--quick] [--long] [--build DIR] [--no-build] [--list] [PATTERN...]
# --quick: the list in tests/quick.txt only (sanitizer builds); --long: more tests, a longer limit for each, and FX_LONG=1;
# --build DIR: another build folder (default build/; a new one is configured as Release); PATTERN: names with * and ?.
set -euo pipefail
export LC_ALL=C

tests_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root_dir=$(dirname "$tests_dir")
build_dir=$root_dir/build
quick=0 long=0 build=1 list=0
limit=${FX_TEST_LIMIT:-300}
patterns=()

usage() {
    sed -n '2,5s/^# //p' "$0"
    exit "$1"
}
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=1 ;;
    --long) long=1 limit=${FX_TEST_LIMIT:-1800} ;;
    --build)
        [ $# -gt 1 ] || usage 2
        build_dir=$(realpath -m "$2")
        shift
        ;;
    --no-build) build=0 ;;
    --list) list=1 ;;
    -h | --help) usage 0 ;;
    -*)
        echo "run.sh: unknown option $1" >&2
        usage 2 >&2
        ;;
    *) patterns+=("$1") ;;
    esac
    shift
done

# ---- what to run ----

wanted() { # NAME
    local p
    if [ "$quick" = 1 ] && ! grep -qx "$1" "$tests_dir/quick.txt"; then return 1; fi
    [ ${#patterns[@]} -gt 0 ] || return 0
    # shellcheck disable=SC2053
    for p in "${patterns[@]}"; do [[ $1 == $p ]] && return 0; done
    return 1
}

names=()
for file in "$tests_dir"/t_*.c "$tests_dir"/t_*.cc "$tests_dir"/check_*.c "$tests_dir"/sh_*.sh; do
    [ -e "$file" ] || continue
    name=$(basename "$file")
    name=${name%.*}
    [ "$long" = 1 ] || ! sed -n 2p "$file" | grep -q '^# Long target:' || continue
    # A program that needs ranks or arguments says which script runs it.
    case $file in *.c | *.cc) ! head -n 10 "$file" | grep -qiE 'run by: *sh_|run under mpirun by tests/sh_' || continue ;; esac
    if wanted "$name"; then names+=("$name"); fi
done
if [ "$list" = 1 ]; then
    [ ${#names[@]} = 0 ] || printf '%s\n' "${names[@]}"
    exit 0
fi

passed=0 failed=0 skipped=0 bad=()
close() {
    [ ${#bad[@]} = 0 ] || echo "failed tests: ${bad[*]}"
    printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
    [ "$failed" = 0 ] || exit 1
    exit 0
}

# ---- build ----

cores=$(nproc)
log_dir=$(mktemp -d "${TMPDIR:-/tmp}/fluxpar-tests.XXXXXX")
trap 'rm -rf "$log_dir"' EXIT
if [ "$build" = 1 ]; then
    [ -f "$build_dir/CMakeCache.txt" ] || set -- -DCMAKE_BUILD_TYPE=Release
    echo "building in $build_dir with $cores jobs"
    if ! { cmake -S "$root_dir" -B "$build_dir" "$@" && cmake --build "$build_dir" -j "$cores"; } >"$log_dir/build" 2>&1; then
        grep -E 'error|Error' "$log_dir/build" | head -n 20 || true
        tail -n 20 "$log_dir/build"
        echo "the build failed"
        failed=1
        close
    fi
fi

# ---- run ----

export FX_TESTS_DIR=$tests_dir FX_BUILD=$build_dir
[ "$quick" = 0 ] || export FX_QUICK=1
[ "$long" = 0 ] || export FX_LONG=1
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi

# count NAME EXIT LOG: adds the closing line of a test, or the closing lines of the programs it ran; without any the test
# counts as one failure (77: one skip).
count() {
    local name=$1 code=$2 log=$3 line p=0 f=0 s=0
    line=$(grep -aE "^$name: [0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$" "$log" | tail -n 1 || true)
    if [ -z "$line" ]; then
        line=$(grep -aoE '^[A-Za-z0-9_.-]+: [0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" |
            awk '{p += $2; f += $4; s += $6} END {if (NR) print "all:", p, "passed,", f, "failed,", s, "skipped"}' || true)
    fi
    if [ -n "$line" ]; then read -r _ p _ f _ s _ <<<"${line//,/}"; fi
    if [ -z "$line" ] && [ "$code" = 77 ]; then s=1; fi
    if [ -z "$line" ] && [ "$code" = 0 ]; then code="0 without its closing line"; fi
    if [ "$code" != 0 ] && [ "$code" != 77 ] && [ "$f" = 0 ]; then f=1; fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    verdict=ok
    if [ "$f" != 0 ]; then verdict="FAILED (exit $code)"; elif [ "$p" = 0 ]; then verdict=skipped; fi
    counts="$p passed, $f failed, $s skipped"
}

run_one() {
    local name=$1 command code=0 begin end seconds
    if [ -f "$tests_dir/$name.sh" ]; then command=(bash "$tests_dir/$name.sh"); else command=("$build_dir/tests/$name"); fi
    begin=$(date +%s%N)
    (cd "$log_dir" && exec timeout -k 10 "$limit" "${command[@]}") >"$log_dir/$name" 2>&1 </dev/null || code=$?
    end=$(date +%s%N)
    seconds=$(((end - begin) / 10000000))
    count "$name" "$code" "$log_dir/$name"
    seconds=$(printf '%d.%02d' $((seconds / 100)) $((seconds % 100)))
    printf '%-20s %8s s  %s  %s\n' "$name" "$seconds" "$verdict" "$counts"
    printf '%s %s\n' "$seconds" "$name" >>"$log_dir/.times"
    [ "$code" != 124 ] || echo "    ended after its limit of $limit s"
    case $verdict in FAILED*) bad+=("$name") ;; esac
    case $verdict in FAILED*) tail -n 60 "$log_dir/$name" | cut -c -300 | sed 's/^/    | /' ;; esac
    grep -ahE '^(skipped|[a-z_0-9]+: (skipped|note)): ' "$log_dir/$name" | cut -c -200 | sed 's/^/    /' | head -n 5 || true
}

for name in "${names[@]+"${names[@]}"}"; do run_one "$name"; done
if [ ${#names[@]} -gt 3 ]; then
    echo "slowest: $(sort -rn "$log_dir/.times" | head -n 5 | awk '{printf "%s%s %s s", sep, $2, $1; sep = ", "}')"
fi
if [ ${#names[@]} = 0 ]; then echo "no test has such a name"; failed=1; fi
close
