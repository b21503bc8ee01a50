# shellcheck shell=bash
# Helpers for tests/sh_*.sh, which run the real program. Source it first:
#   . "$(dirname "$0")/lib.sh"
# Gives: fx ARGS (runs fluxpar), mpi N ARGS (under mpirun), check NAME COMMAND..., skip NAME WHY, finish.
# After fx or mpi: $rc, and the files $out and $err. FX_BUILD: build folder; FX_DEMO_MODEL: model to use instead of the
# bundled one. No test leaves anything outside its own temporary folder.
set -uo pipefail
export LC_ALL=C

tests_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root_dir=$(dirname "$tests_dir")
build_dir=${FX_BUILD:-$root_dir/build}
fluxpar=$build_dir/fluxpar
model=${FX_DEMO_MODEL:-$root_dir/launch/demo/model}
test_name=$(basename "$0" .sh)
work=$(mktemp -d "${TMPDIR:-/tmp}/fluxpar-$test_name.XXXXXX")
out=$work/.out err=$work/.err
rc=0 passed=0 failed=0 skipped=0
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

mpi_flags=(--oversubscribe --bind-to none)
[ "$(id -u)" != 0 ] || mpi_flags+=(--allow-run-as-root)

fx() {
    rc=0
    timeout -k 5 "${limit:-120}" "$fluxpar" "$@" >"$out" 2>"$err" || rc=$?
}

# There is mpirun, and this build speaks MPI.
has_mpi() { command -v mpirun >/dev/null && "$fluxpar" --version | grep -E '^MPI +[^ n]' >/dev/null; }
mpi() {
    local ranks=$1
    shift
    rc=0
    ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0 timeout -k 5 "${limit:-120}" mpirun "${mpi_flags[@]}" -np "$ranks" "$fluxpar" "$@" >"$out" 2>"$err" || rc=$?
}

# A short run of the demo model: what most tests need.
gen() { fx generate -m "$model" -p "${prompt:-a slice of pizza on a blue background}" --steps 2 --t5-len 16 -S 1 --threads 1 "$@"; }
gen_mpi() {
    local ranks=$1
    shift
    mpi "$ranks" generate -m "$model" -p "${prompt:-a slice of pizza on a blue background}" --steps 2 --t5-len 16 -S 1 --threads 1 "$@"
}

mpirun_banner='^-{20,}$|^Primary job|^a non-zero exit code|^mpirun detected|^the job to be terminated|^ *Process name|^ *Exit code|^$'
pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    printf '%s: FAILED: %s\n' "$test_name" "$1"
    [ ! -s "$err" ] || grep -avE "$mpirun_banner" "$err" | sed 's/^/    stderr: /' | tail -n 12
}
check() { # check NAME COMMAND...
    local name=$1
    shift
    if "$@" >"$work/.check" 2>&1; then pass; else
        fail "$name [$*] (exit code of fluxpar: $rc)"
        sed 's/^/    /' "$work/.check" | tail -n 5
    fi
}
skip() {
    skipped=$((skipped + 1))
    printf '%s: skipped: %s: %s\n' "$test_name" "$1" "$2"
}

rc_is() { [ "$rc" = "$1" ]; }
same() { [ "$1" = "$2" ] || { echo "'$1' is not '$2'"; false; }; }
says() { grep -qE -e "$1" "$err"; }
prints() { grep -qE -e "$1" "$out"; }
silent() { [ ! -s "$1" ]; }
no_file() { [ ! -e "$1" ]; }
# Nothing was left in the folder but the names given.
only_files() {
    local dir=$1
    shift
    same "$(ls -A "$dir" | sort | xargs)" "$(printf '%s\n' "$@" | sort | xargs)"
}
one_error_line() { same "$(grep -c '^fluxpar: error: rank [0-9]* (' "$err")" 1; }

# refused CODE PATTERN NAME: the last run ended with CODE, one error line that matches, no result, and no file.
refused() {
    check "$3: exit code $1" rc_is "$1"
    check "$3: one error line" one_error_line
    check "$3: message" says "^fluxpar: error: rank [0-9]+ \([^,]+, [a-z]+\): .*$2"
    check "$3: no result" silent "$out"
}

# Built with AddressSanitizer: it needs terabytes of address space, and what MPI keeps looks like a leak to it.
sanitized() { grep -qa __asan_init "$fluxpar"; }

need_model() {
    [ -x "$fluxpar" ] || { fail "no program $fluxpar: build first"; finish; }
    [ -f "$model/model_index.json" ] && return
    skip "all" "no demo model in $model"
    finish
}

# A copy of the model in which single files may be replaced: links to the original.
copy_model() {
    rm -rf "$1"
    cp -rLs "$(realpath "$model")" "$1"
    chmod -R u+w "$1"
}
own_file() { # make FILE a real copy before it is edited
    cp --remove-destination "$(realpath "$1")" "$1"
    chmod u+w "$1"
}

# poison FILE TENSOR: makes m, a copy of the model with NaN in the first two values of a tensor; false when it has none.
poison() {
    local file=m/$1 offset length
    offset=$(head -c 200000 "$model/$1" | grep -aoE "\"$2\":\{[^}]*\}" | grep -oE '"data_offsets": *\[[0-9]+' | grep -oE '[0-9]+$')
    [ -n "$offset" ] || return 1
    copy_model m && own_file "$file"
    length=$(od -An -t u8 -N 8 "$file" | tr -d ' ')
    printf '\377\377\377\377' | dd of="$file" bs=1 seek=$((8 + length + offset)) conv=notrunc status=none
}

finish() {
    printf '%s: %d passed, %d failed, %d skipped\n' "$test_name" "$passed" "$failed" "$skipped"
    [ "$failed" = 0 ] || exit 1
    [ "$passed" != 0 ] || [ "$skipped" = 0 ] || exit 77
    exit 0
}
