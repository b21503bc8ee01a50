#!/usr/bin/env bash
# The source tree itself: headers compile alone, includes point down and each library is seen by its own folder only,
# library symbols begin with fx_ and nothing below launch/ prints or exits, formatting, file sizes, top level, shell scripts.
# Every rule is also given a small tree that breaks it, so that a rule which no longer sees anything fails.
. "$(dirname "$0")/lib.sh"

jobs=$(nproc)
c_names='\.(c|h|cc|cu|cuh)$'
text_names='\.(c|h|cc|cu|cuh|sh|sbatch|py|md|txt)$|^\.ci/|^\.clang-|^\.gitignore$'
data='^tests/goldens/[^/]+/|^launch/demo/model/'

# none NAME FILE: the rule found nothing; else its findings are shown.
none() {
    if [ -s "$2" ]; then
        failed=$((failed + 1))
        printf '%s: FAILED: %s\n' "$test_name" "$1"
        head -n 15 "$2" | sed 's/^/    /'
    else pass; fi
}
# found NAME FILE COUNT: a planted tree gave exactly so many findings.
found() { check "planted: $1" same "$(grep -c . "$2")" "$3"; }

in_git() { [ "$(git -c safe.directory='*' -C "$root_dir" rev-parse --show-toplevel 2>/dev/null)" = "$(realpath "$root_dir")" ]; }
tracked() { git -c safe.directory='*' -C "$root_dir" ls-files "$@"; }
sources() { # all files of the tree that git does not ignore
    if in_git; then tracked -co --exclude-standard; else
        (cd "$root_dir" && find . -type f -not -path './.git/*' -not -path './build*' | sed 's#^\./##')
    fi | sort | while read -r f; do [ -f "$root_dir/$f" ] && echo "$f"; done
}
sources >"$work/all"
grep -E "$c_names" "$work/all" >"$work/c"
grep -E "$text_names" "$work/all" | grep -vE "$data" >"$work/text"
grep -E '\.(sh|sbatch)$|^\.ci/' "$work/all" >"$work/scripts"
check "the tree has sources" test "$(wc -l <"$work/c")" -gt 100

# ---- includes ----

# includes DIR: the findings in the tree DIR. A folder may include what its row names, and nothing else.
includes() {
    (cd "$1" && find launch runtime parallel kernels bench tests -name '*.[chu]*' -type f | grep -E "$c_names" |
        xargs grep -HE '^[[:space:]]*#[[:space:]]*include' | sed -E 's/^([^:]*):[^<"]*([<"])([^>"]*).*/\1 \2 \3/') |
        awk -v root="$1" '
    BEGIN {
        core = "runtime/core "; io = "runtime/io " core; kernels = "kernels " core; parallel = "parallel " io kernels
        may["runtime/core"] = core; may["runtime/io"] = io; may["kernels"] = kernels
        may["kernels/ref"] = "kernels/ref " kernels
        may["kernels/cpu"] = "kernels/cpu " kernels
        may["kernels/onednn"] = "kernels/onednn kernels/cpu " kernels
        may["kernels/cuda"] = "kernels/cuda kernels/twin " kernels
        may["kernels/twin"] = "kernels/twin kernels/cuda kernels/cpu " kernels
        may["parallel"] = parallel
        may["runtime/sample"] = "runtime/sample " io kernels
        may["runtime/text"] = "runtime/text " parallel
        may["runtime/dit"] = "runtime/dit " parallel
        may["runtime/vae"] = "runtime/vae " parallel
        models = "runtime runtime/sample runtime/text runtime/dit runtime/vae " parallel
        may["runtime"] = models; may["runtime/predict"] = "runtime/predict " models
        may["launch"] = "launch launch/place launch/doctor launch/batch launch/bench runtime/predict " models
        may["launch/place"] = "launch/place launch " models; may["launch/batch"] = "launch/batch launch " models
        may["launch/doctor"] = "launch/doctor launch/place launch " models; may["launch/bench"] = "launch/bench launch " models
        backends = " kernels/ref kernels/cpu kernels/onednn kernels/cuda kernels/twin "
        # headers of libraries: which files may see them
        only["^mpi\\.h$"] = "^parallel/comm_(mpi|open)\\.c$"
        only["dnnl[^/]*$"] = "^(kernels/onednn/compat[^/]*|bench/[^/]*)$"
        only["^(cuda|cublas|cudnn|curand|nv)"] = "^(kernels/cuda/|tests/cuda/|bench/gpu/|parallel/comm_((cards|nccl|peer|window)\\.c|lsa\\.cu)$)"
        only["^nccl"] = "^(parallel/comm_((nccl|window)\\.c|lsa\\.cu)|launch/bootstrap\\.c)$"
        only["^hwloc"] = "^launch/place/bind\\.c$"
        only["^jansson"] = "^(runtime/io|runtime/text|runtime/predict|launch|bench|tests)/"
        only["^png\\.h"] = "^(runtime/io/png[^/]*|launch/cmd_version\\.c|tests/.*)$"
        only["^(pcre2|utf8proc)"] = "^(runtime/text/|launch/cmd_version\\.c)"
        only["^xxhash"] = "^(runtime/io/|launch/cmd_version\\.c)"
        only["^omp\\.h"] = "^(kernels/(cpu|onednn)|launch|bench|tests)/"
        only["(intrin|cpuid|arm_neon)\\.h$"] = "^kernels/cpu/"
    }
    function folder(path) { return match(path, /\/[^\/]*$/) ? substr(path, 1, RSTART - 1) : "." }
    $2 == "<" {
        for (h in only) if ($3 ~ h && $1 !~ only[h]) print $1 " includes <" $3 ">: seen by " only[h] " only"
        next
    }
    {
        from = folder($1); to = folder($3)
        if ($1 ~ /^(tests|bench)\//) {
            for (h in only) if ($3 ~ h && $3 !~ /^(kernels|bench)\// && $1 !~ only[h]) print $1 " includes " $3
            next
        }
        if (!(from in may)) print $1 ": its folder has no row in tests/sh_style.sh"
        else if (index(" " may[from], " " to " ") == 0 && !($1 == "kernels/registry.c" && index(backends, " " to " ")))
            print $1 " includes \"" $3 "\": the arrow from " from " to " to " does not exist"
        if ($3 ~ /(^|[\/_])internal\.h$/ && from != to) print $1 " includes the private \"" $3 "\""
        if (system("test -f \"" root "/" $3 "\"")) print $1 " includes \"" $3 "\": not a path from the root"
    }'
}
# Only the two registries (and what is compiled empty without its library) know what was configured.
configured() {
    (cd "$1" && grep -rnE '^[[:space:]]*#.*\bFX_HAVE_' launch runtime parallel kernels --include='*.[ch]' |
        grep -vE '^(kernels/registry\.c|parallel/comm_(open|mpi|cards|nccl|peer|reach|window)\.c):')
}

plant() { # plant FILE LINE...: a file of the planted tree
    mkdir -p "$work/bad/$(dirname "$1")"
    printf '%s\n' "${@:2}" >"$work/bad/$1"
}
mkdir -p "$work"/bad/{launch,runtime,parallel,kernels,bench,tests}
for h in runtime/core/status runtime/io/file runtime/text/encode parallel/comm parallel/comm_internal kernels/ops \
    kernels/cpu/cpu kernels/cpu/internal runtime/pipeline launch/options; do plant $h.h; done
plant kernels/registry.c '#include "kernels/cpu/cpu.h"' '#if FX_HAVE_CPU' '#endif'
plant parallel/comm_mpi.c '#include "parallel/comm_internal.h"' '#include <mpi.h>' '#include "kernels/ops.h"'
plant launch/main.c '#include "runtime/pipeline.h"' '#include <jansson.h>' '#include <stdio.h>'
plant bench/bench_cpu.c '#include <oneapi/dnnl/dnnl.h>' '#include "kernels/cpu/internal.h"'
includes "$work/bad" >"$work/found"
configured "$work/bad" >>"$work/found"
found "right includes" "$work/found" 0
plant runtime/core/status.c '#include "runtime/io/file.h"' '# include "kernels/ops.h"'
plant runtime/io/file.c '#include "parallel/comm.h"' '#include <utf8proc.h>'
plant kernels/ops.c '#include "kernels/cpu/cpu.h"' '#include "runtime/io/file.h"' '#if FX_HAVE_CPU' '#endif'
plant kernels/cpu/conv.c '#include <dnnl.h>' '#include <oneapi/dnnl/dnnl_types.h>' '#include "parallel/comm.h"'
plant parallel/mesh.c '#include <mpi.h>' '#include "runtime/text/encode.h"' '#include "comm.h"'
plant runtime/session.c '#include <mpi.h>' '#include "launch/options.h"' '#include "parallel/comm_internal.h"' '#include <cuda_runtime.h>'
plant runtime/new/thing.c '#include "runtime/core/status.h"'
plant launch/session.c '#include <mpi.h>' '#include "kernels/cpu/cpu.h"' '#include <nccl.h>' '#ifdef FX_HAVE_MPI' '#endif'
plant tests/t_x.c '#include <mpi.h>'
includes "$work/bad" >"$work/found"
found "wrong includes" "$work/found" 22
configured "$work/bad" >"$work/found"
found "#if of what was configured" "$work/found" 2

includes "$root_dir" >"$work/found"
none "includes point down, libraries are seen by their own folder only" "$work/found"
configured "$root_dir" >"$work/found"
none "FX_HAVE_* in the two registries only" "$work/found"

# ---- kernels ----

# direct DIR: CUDA's words in kernels, other than in device.cuh, whose words have a twin for the CPU; kernels elsewhere. Only NCCL's
# own addresses are read in a kernel that runs on a GPU alone.
words='threadIdx|blockIdx|blockDim|gridDim|warpSize|__[a-z]+__\b|__(sync|shfl|threadfence|nanosleep|ldg|ballot|any|all|f(mul|add)_rn)[a-z_]*|'
words+='atomic[A-Z][A-Za-z]*|\basm\b|\bclock(64)?\(|#[[:space:]]*pragma|cooperative_groups|dim3\b|cuda[A-Z][A-Za-z]*'
direct() {
    (cd "$1" && grep -nE "<<<|(^|[^A-Za-z0-9_])($words)" kernels/cuda/*.cu kernels/cuda/*.cuh | grep -v '^kernels/cuda/device\.cuh:' |
        grep -vE '__(restrict|attribute|VA_ARGS)__|fx_dim3' && true
        find . -name '*.cu' | sed 's#^\./##' | grep -vE '^kernels/cuda/|^parallel/comm_lsa\.cu$|^bench/gpu/|^build')
}
plant kernels/cuda/device.cuh '__syncthreads();'
plant kernels/cuda/good.cu '#include "kernels/cuda/device.cuh"' 'FX_KERNEL f(int *p) { fx_barrier(); p[fx_tid()] = 0; fx_dim3 grid(1); }'
direct "$work/bad" >"$work/found"
found "kernels through device.cuh" "$work/found" 0
plant kernels/cuda/bad.cu '__shared__ int x;' '__syncthreads();' 'int i = threadIdx.x;' 'f<<<1, 1>>>(p);' 'atomicAdd(p, 1);' 'asm volatile("");' \
    '#pragma unroll' '__threadfence_system();' 'cudaMalloc(p);' 'v = __shfl_xor_sync(m, v, 1);' 't = clock64();' 'x = __nanosleep(1);'
plant runtime/own.cu 'int x;'
direct "$work/bad" >"$work/found"
found "kernels past device.cuh" "$work/found" 13
rm "$work"/bad/kernels/cuda/{bad,good}.cu "$work/bad/runtime/own.cu"
direct "$root_dir" >"$work/found"
none "kernels use CUDA through kernels/cuda/device.cuh only, so that they run on the CPU too" "$work/found"

# ---- headers alone ----

cc=$(command -v "${CC:-gcc}") cxx=$(command -v "${CXX:-g++}")
flags=$(grep -ohE -- '(-isystem ?|-I)[^ "]+' "$build_dir/compile_commands.json" 2>/dev/null | grep -v -- "-I$root_dir\$" | sort -u | xargs)
alone() { # alone DIR < names: the findings; each header as C17 and as C++17, by itself
    export dir=$1 cc cxx
    # shellcheck disable=SC2016
    xargs -P "$jobs" -n 4 bash -c 'cd "$dir"; for h; do
        for how in "$cc -std=c17 -x c" "$cxx -std=c++17 -x c++"; do
            $how -D_GNU_SOURCE -fopenmp -Wall -Wextra -Werror -fsyntax-only -I. '"$flags"' "$h" 2>&1 |
                grep -E "error:" | head -n 2 | sed "s#^#alone, ${how##*-x }: #"
        done; done' _
}
if [ -z "$cc" ] || [ -z "$cxx" ]; then skip "headers alone" "no gcc and g++"; else
    plant runtime/core/good.h '#ifndef G' '#define G' '#include <stddef.h>' 'size_t fx_size(const char *text);' '#endif'
    plant runtime/core/needs.h '#ifndef N' '#define N' 'size_t fx_needs(void);' '#endif'
    plant runtime/core/onlyc.h '#ifndef O' '#define O' 'void fx_only(int class);' '#endif'
    printf 'runtime/core/%s.h\n' good needs onlyc | alone "$work/bad" | grep -oE '^alone, [c+]+: [^:]*' | sort -u >"$work/found"
    found "headers that do not compile alone" "$work/found" 3
    grep -E '^(kernels|parallel|runtime|launch)/.*\.h$' "$work/c" >"$work/headers"
    # shellcheck disable=SC2086
    if ! echo '#include <oneapi/dnnl/dnnl.h>' | "$cc" -E $flags - >"$work/.E" 2>&1; then
        skip "headers of kernels/onednn" "no oneDNN"
        sed -i '/^kernels\/onednn\//d' "$work/headers"
    fi
    alone "$root_dir" <"$work/headers" >"$work/found"
    none "every header compiles alone as C17 and as C++17" "$work/found"
fi

# ---- symbols ----

# prefixes FILE...: global symbols without fx_ (OpenMP names its locks itself; weak ones of C++ are templates of its library)
prefixes() {
    nm -A -g --defined-only "$@" 2>/dev/null |
        awk 'NF > 2 && !($(NF - 1) ~ /^[WVu]$/ && $NF ~ /^_Z/) && $NF !~ /^(fx_|_ZK?[0-9]+fx_|\.gomp_critical_user_fx_|__odr_asan|__asan|DW\.ref\.)/ {print $1, $NF}' | sed 's#.*/##'
}
calls() { # calls PATTERN FILE...: undefined symbols that match
    nm -A -u "${@:2}" 2>/dev/null | awk -v p="^($1)\$" '$NF ~ p {print $1, $NF}' | sed 's#.*/##'
}
ends='exit|quick_exit|abort|__assert_fail|__assert'
talks='(__)?v?printf(_chk)?|(__)?v?dprintf(_chk)?|puts|putchar|perror|stdout|stderr|system|popen'
libraries=("$build_dir"/libfx_*.a)
launch_objects=("$build_dir"/CMakeFiles/fluxpar.dir/launch/{,*/}*.o)
if ! command -v nm >/dev/null || [ ! -f "${libraries[0]}" ] || [ ! -f "${launch_objects[0]}" ]; then
    skip "symbols" "no nm, or nothing built in $build_dir"
else
    if [ -n "$cc" ]; then
        plant parallel/talk.c '#include <stdio.h>' '#include <stdlib.h>' 'int table[9];' 'static int own;' \
            'void fx_good(void) { own++; }' 'void talk(int n) { printf("%d\n", n); if (n) exit(1); fputs("x", stderr); abort(); }'
        "$cc" -c -o "$work/talk.o" "$work/bad/parallel/talk.c"
        { prefixes "$work/talk.o" && calls "$ends|$talks|_exit" "$work/talk.o"; } >"$work/found"
        found "symbols and calls" "$work/found" 6
    fi
    prefixes "${libraries[@]}" >"$work/found"
    none "every global symbol of the libraries begins with fx_" "$work/found"
    calls "$ends|$talks|_exit" "${libraries[@]}" | grep -vE '\bcomm\.c\.o: _exit$' >"$work/found"
    none "no library prints or ends the process (parallel/comm.c: _exit to abort)" "$work/found"
    calls "$ends" "${launch_objects[@]}" | grep -vE '^main\.c\.o: exit$' >"$work/found"
    none "launch/main.c alone calls exit" "$work/found"
fi

# ---- text ----

lines() { # lines DIR < names: tabs, trailing blanks, notes to oneself, long lines and long files
    (cd "$1" && xargs awk '
    FNR == 1 { if (n > 400 && last ~ code) print last ": " n " lines, more than 400"; last = FILENAME }
    BEGIN { code = "\\.(c|h|cc|cu|cuh|sh|py)$" }
    { n = FNR }
    /\t/ && FILENAME !~ /\.txt$/ { print FILENAME ":" FNR ": a tab" }
    /[ \t\r]$/ { print FILENAME ":" FNR ": a trailing blank" }
    /TO[D]O|FIX[M]E|(^|[^X])XX[X]([^X]|$)/ { print FILENAME ":" FNR ": a note to oneself" }
    length($0) > 130 && FILENAME ~ /\.(c|h|cc|cu|cuh)$/ { print FILENAME ":" FNR ": " length($0) " columns" }
    END { if (n > 400 && last ~ code) print last ": " n " lines, more than 400" }')
}
plant runtime/lines.c "$(printf 'a\tb')" 'blank ' "// TO""DO" "$(printf '%0131d' 0)" '"/tmp/a.XXXXXX"'
seq 401 >"$work/bad/runtime/long.c"
printf 'runtime/%s.c\n' lines long lines | lines "$work/bad" >"$work/found"
found "lines" "$work/found" 9
lines "$root_dir" <"$work/text" >"$work/found"
none "no tabs, trailing blanks, notes to oneself, lines over 130 columns, files over 400 lines" "$work/found"

formatter=$(command -v clang-format-14 || command -v clang-format)
major=$([ -z "$formatter" ] || "$formatter" --version | grep -oE 'version [0-9]+' | grep -oE '[0-9]+')
if [ -z "$formatter" ]; then skip "clang-format" "not installed"; elif [ "$major" != 14 ]; then
    skip "clang-format" "version $major; the tree is formatted by version 14"
else
    format() { (cd "$1" && xargs -P "$jobs" -n 8 "$formatter" --style="file:$root_dir/.clang-format" --dry-run 2>&1 | grep -E 'warning:|error:'); }
    plant runtime/format.c 'int  x ;'
    echo runtime/format.c | format "$work/bad" | cut -d: -f1 | sort -u >"$work/found"
    found "formatting" "$work/found" 1
    format "$root_dir" <"$work/c" >"$work/found"
    none "clang-format has nothing to change" "$work/found"
fi

# ---- the tree ----

if in_git; then
    top=$(tracked | cut -d/ -f1 | grep -v '^\.' | sort -u | xargs)
    check "nine entries at the top" same "$top" "CMakeLists.txt README.md bench kernels launch parallel runtime slurm tests"
    bytes() { (cd "$root_dir" && tracked -z "$@" | xargs -0 stat -c %s 2>/dev/null | awk '{n += $1} END {printf "%d", n}'); }
    check "the tree is under 50 MiB" test "$(bytes)" -lt $((50 << 20))
    check "tests/goldens is under 10 MiB" test "$(bytes tests/goldens)" -lt $((10 << 20))
else skip "the tree" "not a git checkout"; fi

# ---- shell scripts ----

if command -v shellcheck >/dev/null; then
    scripts() { (cd "$1" && xargs shellcheck -x -S warning -e SC1091,SC2154,SC2034 -f gcc); }
    # shellcheck disable=SC2016
    plant launch/bad.sh '#!/bin/bash' 'cd $1' 'rm -rf "$2/"*'
    echo launch/bad.sh | scripts "$work/bad" | grep -c SC2164 | grep -v '^0' >"$work/found"
    found "shellcheck" "$work/found" 1
    scripts "$root_dir" <"$work/scripts" >"$work/found"
    none "shellcheck" "$work/found"
else skip "shellcheck" "not installed"; fi
finish
