#!/usr/bin/env bash
# cmake --install: a prefix that holds the program, the bundled model, the job scripts and the READMEs, can be moved, and knows
# nothing of the folders it was built from and in.
. "$(dirname "$0")/lib.sh"
need_model
if [ ! -f "$build_dir/cmake_install.cmake" ] || ! command -v cmake >/dev/null; then
    skip "all" "$build_dir was not configured by CMake"
    finish
fi
rc=0
cmake --install "$build_dir" --prefix "$work/first" >"$out" 2>"$err" || rc=$?
check "cmake --install" rc_is 0
mv first prefix # what was installed may be moved
tops() { (cd prefix && find . -mindepth 1 -maxdepth "$1" "${@:2}" -printf '%P\n' | sort | xargs); }
check "what stands in the prefix" same "$(tops 2)" "bin bin/fluxpar share share/doc share/fluxpar"
check "what stands in share/fluxpar" same "$(cd prefix/share/fluxpar && find . -mindepth 1 -maxdepth 2 -type d -printf '%P\n' | sort | xargs)" "demo demo/model slurm"

# the same picture, from another folder, of the installed model
fluxpar=$build_dir/fluxpar gen -o built.png
check "the built program" rc_is 0
mkdir elsewhere
(cd elsewhere && unset FX_DEMO_MODEL && timeout 120 ../prefix/bin/fluxpar generate -m ../prefix/share/fluxpar/demo/model \
    -p "a slice of pizza on a blue background" --steps 2 --t5-len 16 -S 1 --threads 1 -o there.png) >"$out" 2>"$err" || rc=$?
check "the installed program" rc_is 0
[ -n "${FX_DEMO_MODEL:-}" ] || check "the same picture" cmp built.png elsewhere/there.png

# the job scripts find the installed program and model (here srun is a script that drops its own flags)
mkdir bin && printf '#!/bin/sh\nwhile case $1 in --*) true ;; *) false ;; esac do shift; done\nexec "$@"\n' >bin/srun && chmod +x bin/srun
(cd elsewhere && unset FLUXPAR MODEL SLURM_SUBMIT_DIR && PATH=$work/bin:$PATH FLUXPAR_HOME=$work/prefix BACKEND=cpu ARGS="--steps 2 --t5-len 16 -S 1 --threads 1" \
    OUTPUT=job.png timeout 120 bash ../prefix/share/fluxpar/slurm/one_image.sbatch) >"$out" 2>"$err" || rc=$?
check "an installed job script" rc_is 0
check "an installed job script: its picture" cmp elsewhere/there.png elsewhere/job.png

# neither the tree of the sources nor that of the build is named in any file
printf '%s\n' "$root_dir" "$(realpath "$root_dir")" "$build_dir" "$(realpath "$build_dir")" | sort -u >names
echo "$root_dir" >planted
check "planted: a name of the tree" grep -qaFf names planted
if grep -q -- '--coverage' "$build_dir/CMakeCache.txt" || sanitized; then skip "no name of the tree" "a build for coverage or sanitizers names its sources"; else
    check "no name of the tree" same "$(grep -rlaFf names prefix | xargs)" ""
fi
check "no path of the build for libraries" same "$(readelf -d prefix/bin/fluxpar | grep -E 'R(UN)?PATH' | grep -cFf names)" 0

# every link of the READMEs within the tree leads somewhere in the installed one too
docs=prefix/share/doc/fluxpar
while read -r readme; do
    grep -oE '\]\([a-z][^)#:]*\)' "$docs/$readme" | tr -d '])(' | while read -r link; do
        [ -e "$docs/$(dirname "$readme")/$link" ] || echo "$readme: $link"
    done
done < <(cd $docs && find . -name README.md) >broken
grep -vE ': (\.\./)*(launch/demo/model/NOTICE|tests/goldens/README.md|tests/goldens/?|model/.*|goldens/README.md|[a-z_./]*\.(py|json))$' broken >found
check "links of the installed READMEs" same "$(xargs <found)" ""
finish
