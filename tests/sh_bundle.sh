#!/usr/bin/env bash
# Long target: launch/bundle.sh makes an archive under 20 MiB from which a machine without MPI, hwloc, image and text libraries
# builds the program and makes the picture of this build, also on 2 ranks. This machine has those libraries, so each file that
# the archive brings is first hidden here, in a mount namespace of the test's own. Needs root and apt's sources.
. "$(dirname "$0")/lib.sh"
need_model
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    skip "all" "this is no Debian"
    finish
fi
"$root_dir/launch/bundle.sh" --root "$work" >"$out" 2>"$err" && rc=0 || rc=$?
check "a folder that is there is refused" rc_is 1
check "with a line that says so" says '^bundle: .* is already there; choose a new folder'
"$root_dir/launch/bundle.sh" --arch vax >"$out" 2>"$err" && rc=0 || rc=$?
check "an architecture without packages is refused" rc_is 1
check "with a line that says which there are" says "^bundle: packages of 'vax' cannot be bundled; choose --arch amd64 or --arch arm64"

"$root_dir/launch/bundle.sh" -o "$work/b.tar.xz" >"$out" 2>"$err" && rc=0 || rc=$?
if [ $rc != 0 ] && grep -qE 'apt-get update failed|could not be downloaded' "$err"; then
    skip "the archive" "$(tail -n 1 "$err")"
    finish
fi
check "bundle.sh" rc_is 0
check "its result is the archive" same "$(cat "$out")" "$work/b.tar.xz"
check "under 20 MiB" test "$(stat -c %s b.tar.xz)" -lt $((20 << 20))
mkdir empty && tar -C empty -xf b.tar.xz
dir=$(echo "$work"/empty/*)
check "every source is in it" same "$(cd "$root_dir" && for f in CMakeLists.txt */*.c */*/*.[chu]* tests/*; do [ ! -f "$f" ] || [ -f "$dir/$f" ] || echo "$f"; done)" ""
check "no package brought a link out of it" same "$(find "$dir/packages" -type l -lname '/*' | head -n 3)" ""
check "no documentation, Fortran or static library" same "$(find "$dir/packages" -name '*.a' -o -name '*.mod' -o -path '*/share/man*' -o -path '*/share/doc*' | head -n 3)" ""

cat >inside.sh <<'E2'
set -euo pipefail
cd "$1"
. ./env.sh # first: mount itself needs one of the libraries that are hidden
if [ "$3" = hide ]; then
    (cd packages && find usr \( -type f -o -type l \)) | while read -r f; do
        [ ! -f "/$f" ] || mount --bind /dev/null "$(realpath "/$f")" 2>/dev/null || echo "not hidden: /$f"
    done
fi
# shellcheck disable=SC2086
cmake -S . -B build $FLUXPAR_CMAKE -DFX_ONEDNN=OFF -DFX_CUDA=OFF -DFX_TESTS=OFF
cmake --build build -j "$(nproc)" --target fluxpar
ldd build/fluxpar >libraries
shift 3
build/fluxpar "$@" -o one.png
mpirun --oversubscribe --bind-to none -np 2 build/fluxpar "$@" -o two.png
E2
hide=hide inside=(unshare -m --propagation private)
if ! unshare -m true 2>/dev/null; then
    hide=no inside=()
    skip "files of this machine hidden" "no mount namespace here: it builds where they could be found"
fi
args=(generate -m "$model" -p "a slice of pizza on a blue background" --backend cpu --steps 2 --t5-len 16 -S 1 --threads 1)
env -i PATH=/usr/bin:/bin:/usr/sbin:/sbin HOME="$work" TMPDIR="${TMPDIR:-/tmp}" "${inside[@]}" bash inside.sh "$dir" _ $hide "${args[@]}" >"$out" 2>"$err" && rc=0 || rc=$?
check "it builds and makes pictures" rc_is 0
[ $rc = 0 ] || tail -n 20 "$out"
check "every file was hidden" same "$(grep -c '^not hidden' "$out")" 0
fx "${args[@]}" -o here.png
check "the picture of this build" cmp here.png "$dir/one.png"
check "and on 2 ranks" cmp here.png "$dir/two.png"
strangers() { grep -oE '=> /[^ ]+' "$dir/libraries" | cut -c 4- | grep -vF "$dir/packages/" | grep -vE '/lib(c|m|gomp|gcc_s|stdc\+\+|dl|rt|pthread)\.so'; }
check "all libraries but the compiler's are those of the archive" same "$(strangers | xargs)" ""
check "MPI's is among them" grep -q "libmpi.*$dir/packages/" "$dir/libraries"
finish
