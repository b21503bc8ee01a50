#!/usr/bin/env bash
# One archive for a machine that has gcc and CMake (and CUDA) but no package registry: the sources, and what else building and
# running needs: MPI, hwloc, the small libraries, pkg-config (from apt: Debian 12, Ubuntu 24.04 and newer). There:
#   tar xf fluxpar-bundle-ARCH.tar.xz && cd fluxpar-bundle-ARCH && . ./env.sh
#   cmake -S . -B build $FLUXPAR_CMAKE && cmake --build build -j
#   launch/bundle.sh [--arch amd64|arm64] [--model] [-o FILE]    --model: with launch/demo/model, 21 MiB more
#   launch/bundle.sh --root DIR [--arch amd64|arm64]             the packages alone, into the new folder DIR
# Changes nothing on this machine; packages are checked against the keys of its apt. Made for the distribution it runs on: that of
# the other machine must not be older (glibc).
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(dirname "$here")
arch=$(dpkg --print-architecture 2>/dev/null || true) model=0 out='' root=''
limit=$((20 << 20)) # bytes of an archive without the model

say() { printf 'bundle: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}
while [ $# -gt 0 ]; do
    case $1 in
    --arch | --root | -o)
        [ $# -gt 1 ] || die "$1 needs a value"
        case $1 in --arch) arch=$2 ;; --root) root=$(realpath -m "$2") ;; -o) out=$(realpath -m "$2") ;; esac
        shift
        ;;
    --model) model=1 ;;
    -h | --help)
        sed -n '2,9s/^# *//p' "$0"
        exit 0
        ;;
    *) die "unknown option $1; possible are --arch ARCH, --model, -o FILE, --root DIR" ;;
    esac
    shift
done
case $arch in
amd64) triplet=x86_64-linux-gnu ;;
arm64) triplet=aarch64-linux-gnu ;;
*) die "packages of '$arch' cannot be bundled; choose --arch amd64 or --arch arm64 (this script needs dpkg and apt-get)" ;;
esac
for program in apt-get dpkg-deb readelf tar xz; do
    command -v $program >/dev/null || die "there is no $program; this script runs on Debian 12, Ubuntu 24.04 and newer, with binutils and xz-utils"
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

# ---- packages ----

# What the quickstart installs, without what the other machine has (a compiler, CMake) and the large oneDNN.
wanted=(pkgconf libhwloc-dev)
mapfile -t -O 2 wanted < <(sed -n '/^packages=(/,/)/p' "$here/quickstart.sh" | tr -d '()' | sed 's/^packages=//' | xargs -n 1 |
    grep -vxE 'build-essential|cmake|pkg-config|libdnnl-dev|libhwloc-dev')
# Of all that those depend on, these are taken; libc, perl, Fortran and the like are not. Names end in t64 on newer systems.
kept='(lib)?(openmpi|jansson|png|pcre2|utf8proc|xxhash|hwloc|pmix|event|munge|numa|ucx|ibverbs|rdmacm|nl-3|nl-route-3|udev1|cap2$|pkgconf)'
kept+='|openmpi-|ibverbs-|pkgconf|zlib1g|libz1'
left_out='libhwloc-plugins|libnuma-dev|libibverbs-dev|libnl.*-dev|libudev-dev|libpmix-dev|libpcre2-(16|32|posix)|libevent-(dev|extra|openssl)|libevent-2'

# apt with a state of its own: nothing is installed there, so that it names all that is needed; this machine's sources and keys.
apt=(apt-get -q -y -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o Dir::State::lists="$work/lists"
    -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root -o Debug::NoLocking=1
    -o Acquire::Retries=3 -o Acquire::Languages=none)
fetch_packages() { # into $work/debs
    local names
    mkdir -p "$work"/{lists/partial,cache/archives/partial,debs}
    : >"$work/status"
    "${apt[@]}" update >"$work/log" 2>&1 || {
        tail -n 3 "$work/log" >&2
        die "apt-get update failed; check the network and /etc/apt"
    }
    "${apt[@]}" install --no-install-recommends --print-uris "${wanted[@]}" >"$work/uris" 2>"$work/log" || {
        tail -n 5 "$work/log" >&2
        die "apt cannot resolve ${wanted[*]} for $arch"
    }
    names=$(sed -nE "s/^'[^']*' ([^_]+)_.*/\1/p" "$work/uris" | grep -E "^($kept)" | grep -vE "^($left_out)" | sort -u)
    # shellcheck disable=SC2086
    (cd "$work/debs" && "${apt[@]}" download $names) >"$work/log" 2>&1 || {
        tail -n 5 "$work/log" >&2
        die "some package could not be downloaded"
    }
}

# unpack DIR: usr/ of all packages, without documentation, static libraries, Fortran, C++, Java and OpenSHMEM of MPI.
unpack() {
    local dir=$1 deb lib name to
    mkdir -p "$dir"
    for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$dir"; done
    if [ -d "$dir/lib" ]; then # packages of before the merge of /lib into /usr/lib
        cp -a "$dir/lib/." "$dir/usr/lib/"
        rm -rf "${dir:?}/lib"
    fi
    lib=$dir/usr/lib/$triplet
    rm -rf "${dir:?}"/{sbin,usr/sbin,var,etc/{libnl-3,default,init.d,systemd,udev,logrotate.d,libibverbs.d}} "$dir"/usr/lib/{systemd,udev,tmpfiles.d}
    rm -rf "$dir"/usr/share/{doc,doc-base,man,lintian,bug,aclocal,bash-completion,hwloc,applications} "$lib"/{fortran,cmake}
    find "$dir" \( -name '*.a' -o -name '*.mod' -o -name '*.la' -o -name '*mpifh*' -o -name '*usempi*' -o -name '*shmem*' \
        -o -name '*mpi_java*' -o -name '*mpi_cxx*' -o -name '*.jar' -o -name 'mpijavac*' -o -name 'pcre2-posix*' \
        -o -name 'libpcre2-posix*' \) ! -path '*/openmpi3/*' ! -name 'help-*' -prune -exec rm -rf {} +
    for name in mpicc mpirun mpiexec; do ln -sf $name.openmpi "$dir/usr/bin/$name"; done
    [ -e "$dir/usr/bin/pkg-config" ] || ln -s pkgconf "$dir/usr/bin/pkg-config"
    # links that lead to /usr, or to what was in /lib, of a machine on which the packages are installed
    find "$dir" -type l -lname '/*' | while read -r name; do
        to=$(readlink "$name")
        [ -e "$dir$to" ] || to=/usr$to
        if [ -e "$dir$to" ]; then ln -sfr "$dir$to" "$name"; else rm -f "$name"; fi
    done
}

# complete DIR: every library that a file needs is in it, or is one that a machine with a compiler has. Plug-ins of MPI for
# networks that were left out go; anything else that is missing is an error.
complete() {
    local dir=$1 base='libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+|ld-linux[^ ]*|libresolv|libcrypt' file need again=1
    while [ $again = 1 ]; do
        again=0
        find "$dir" -name '*.so*' ! -type d -printf '%f\n' | sort -u >"$work/have"
        while read -r file; do
            for need in $(readelf -d "$file" 2>/dev/null | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p' | grep -vE "^($base)\.so"); do
                grep -qxF "$need" "$work/have" && continue
                case $file in
                */openmpi3/* | */pmix/* | */libibverbs/* | */ucx/* | */libmca_common_* | */libompitrace*) ;;
                *) die "$file needs $need, which no package of the list 'kept' has" ;;
                esac
                rm -f "$file"
                again=1
                break
            done
        done < <(find "$dir/usr/lib" "$dir/usr/bin" -type f)
        find "$dir" -xtype l -delete
    done
}

make_root() { # DIR
    local strip
    say "packages of $arch"
    fetch_packages
    unpack "$1"
    complete "$1"
    strip=$(command -v "$triplet-strip" || command -v llvm-strip || true)
    [ -z "$strip" ] || find "$1/usr" -type f \( -name '*.so*' -o -path '*/bin/*' \) -exec "$strip" --strip-unneeded {} + 2>/dev/null || true
    cp "$here/bundle_env.sh" "$1/env.sh"
    (cd "$work/debs" && find . -name '*.deb' -printf '%f\n' | sort) >"$1/packages.txt"
}

if [ -n "$root" ]; then
    [ ! -e "$root" ] || die "$root is already there; choose a new folder"
    make_root "$root"
    say "$(wc -l <"$root/packages.txt") packages in $root; . $root/env.sh"
    exit 0
fi

# ---- the archive ----

name=fluxpar-bundle-$arch
out=${out:-$PWD/$name.tar.xz}
tree=$work/$name
mkdir "$tree"
make_root "$tree/packages"
git=(git -c safe.directory='*' -C "$top")
if [ "$("${git[@]}" rev-parse --show-toplevel 2>/dev/null)" = "$(realpath "$top")" ]; then
    "${git[@]}" ls-files -z -co --exclude-standard >"$work/files" # as they are now, committed or not
else
    (cd "$top" && find . -type f -not -path './build*' -not -path './.git/*' -printf '%P\0') >"$work/files"
fi
tr '\0' '\n' <"$work/files" | grep -vE '^launch/demo/model/.*\.safetensors$' | grep -vE '^packages/|\.tar\.xz$' |
    (cd "$top" && while read -r f; do [ ! -f "$f" ] || printf '%s\n' "$f"; done) >"$work/list"
if [ $model = 1 ]; then (cd "$top" && find launch/demo/model -name '*.safetensors') >>"$work/list"; fi
tar -C "$top" -cf - -T "$work/list" | tar -C "$tree" -xf -
printf '%s\n' '# shellcheck shell=bash' '. "$(dirname "${BASH_SOURCE[0]}")/packages/env.sh"' >"$tree/env.sh"
tar -C "$work" --owner=0 --group=0 --sort=name -cf - "$name" | xz -T0 -9e >"$work/out"
bytes=$(stat -c %s "$work/out")
[ $model = 1 ] || [ "$bytes" -le "$limit" ] || die "the archive has $bytes bytes, more than $limit; what grew? (packages: $(du -sk "$tree/packages" | cut -f1) KiB unpacked)"
mkdir -p "$(dirname "$out")"
mv "$work/out" "$out"
say "$((bytes >> 10)) KiB, $(wc -l <"$tree/packages/packages.txt") packages"
printf '%s\n' "$out"
