#!/usr/bin/env bash
# From a bare machine to a picture: installs what is missing (apt: Debian 12, Ubuntu 24.04 and newer), builds into build/,
# makes a picture of the bundled model on 2 ranks. The last line is the bare path of the PNG.
#   launch/quickstart.sh [--deps-only] [--jobs N]      --deps-only stops after the packages
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
deps_only=0 jobs=$(nproc)
packages=(build-essential cmake pkg-config libdnnl-dev libopenmpi-dev openmpi-bin libjansson-dev
    libpng-dev libpcre2-dev libutf8proc-dev libxxhash-dev libhwloc-dev)

say() { printf 'quickstart: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
    --deps-only) deps_only=1 ;;
    --jobs)
        jobs=${2:?--jobs needs a number}
        shift
        ;;
    -h | --help)
        sed -n '2,4s/^# *//p' "$0"
        exit 0
        ;;
    *) die "unknown option $1; possible are --deps-only and --jobs N" ;;
    esac
    shift
done

missing_packages() {
    local p
    for p in "$@"; do
        dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || echo "$p"
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

install_packages() {
    local missing apt=(env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    command -v dpkg-query >/dev/null || die "this script knows Debian and Ubuntu only; install the equivalents of: ${packages[*]}; then build with cmake"
    mapfile -t missing < <(missing_packages "${packages[@]}")
    if [ ${#missing[@]} = 0 ]; then
        say "all packages are installed"
        return
    fi
    say "installing ${missing[*]}"
    if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
        die "root or sudo without a password is needed; run: sudo apt-get install ${missing[*]}; then start this again"
    fi
    as_root "${apt[@]}" update >&2 || die "apt-get update failed; check the network and /etc/apt, then start this again"
    as_root "${apt[@]}" install --no-install-recommends "${missing[@]}" >&2 ||
        die "apt-get install failed; the message above says which package; Debian 12 and Ubuntu 24.04 (with universe) have all of them"
}

build() {
    local log=$root/build/quickstart.log cuda=()
    if nvidia-smi -L >/dev/null 2>&1; then cuda=(-DFX_CUDA=AUTO); fi # a GPU: its backend too, where the toolkit and cuDNN are
    mkdir -p "$root/build"
    say "building in $root/build with $jobs jobs"
    if ! { cmake -S "$root" -B "$root/build" -DCMAKE_BUILD_TYPE=Release "${cuda[@]}" && cmake --build "$root/build" -j "$jobs" --target fluxpar; } >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        die "the build failed; the whole log is $log"
    fi
}

make_picture() {
    local mpi=(mpirun -np 2 --oversubscribe --bind-to none) path
    [ "$(id -u)" != 0 ] || mpi+=(--allow-run-as-root)
    [ -f "$here/demo/model/model_index.json" ] || die "the bundled model $here/demo/model is missing; check out the whole repository"
    [ -w . ] || cd "${TMPDIR:-/tmp}"
    set -- "$root/build/fluxpar" generate -m "$here/demo/model" -p "a slice of pizza on a blue background"
    say "${mpi[*]} $(printf '%q ' "$@")"
    exec 3>&1 # the lines of the run, timings too, are part of this script's output
    path=$("${mpi[@]}" "$@" 2>&3) || die "the run failed; its message is above"
    path=$(tail -n 1 <<<"$path")
    say "done; the picture is below; 'build/fluxpar info' tells how it was made"
    printf '%s\n' "$(realpath "$path")"
}

install_packages
[ "$deps_only" = 0 ] || exit 0
build
make_picture
