# shellcheck shell=bash
# Sourced by the scripts here: where the program is, how ranks start, and a short name of this machine for result files.
#   BUILD (build), FLUXPAR (BUILD/fluxpar), MODEL (the bundled one), BACKEND (auto), MACHINE (processor and cores), OUT (bench/results)
set -uo pipefail
export LC_ALL=C OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-1000} # as fluxpar sets them for itself
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${BUILD:-$root/build}
fluxpar=${FLUXPAR:-$build/fluxpar}
model=${MODEL:-$root/launch/demo/model}
backend=${BACKEND:-auto}
out=${OUT:-$root/bench/results}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/fluxpar-bench.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
die() {
    echo "$(basename "$0"): $*" >&2
    exit 2
}
[ -x "$fluxpar" ] || die "no program $fluxpar; build first, or set BUILD or FLUXPAR"
command -v python3 >/dev/null || die "python3 writes the result files and is not here; apt-get install python3"
mkdir -p "$out" || die "cannot make the folder $out; set OUT"

gpus() { nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true; }
# Devices where this build and this machine have them, else cores.
most_ranks() {
    local n=0
    if [ "$backend" = cuda ] || { [ "$backend" = auto ] && "$fluxpar" --version | grep -E '^backend cuda +[^ n]' >/dev/null; }; then n=$(gpus); fi
    [ "${n:-0}" -gt 0 ] || n=$(nproc)
    echo "$n"
}
on_gpus() { [ "$backend" != cpu ] && [ "$(gpus)" -gt 0 ] && "$fluxpar" --version | grep -E '^backend cuda +[^ n]' >/dev/null; }
short_name() {
    local name
    name=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
    if on_gpus; then name="$(gpus)x $name"; else name="$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1) $(nproc) cores"; fi
    sed -E 's/\((R|TM)\)//g' <<<"$name" | tr -cs 'A-Za-z0-9' - | tr 'A-Z' a-z | sed 's/-$//'
}
machine=${MACHINE:-$(short_name)}
commit=$(git -C "$root" -c safe.directory='*' describe --always --dirty 2>/dev/null || echo unknown)
# start N: the words that start N ranks
start() { [ "$1" = 1 ] || echo "${LAUNCHER:-mpirun --oversubscribe --bind-to none} -np $1"; }
