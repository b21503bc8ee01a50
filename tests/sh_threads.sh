#!/usr/bin/env bash
# Data races between the threads of one rank: clang's ThreadSanitizer with libomp and its tool Archer, which tells the
# sanitizer what OpenMP's barriers order (it cannot see them by itself, and gcc's libgomp has no such tool). A build of its
# own without MPI: operators, the weight store and the demo model's pipeline with two threads. First two tiny programs: a
# race must be reported, and what a barrier orders must not. Long target only. FX_THREADS_BUILD: its build folder.
. "$(dirname "$0")/lib.sh"

threads_build=${FX_THREADS_BUILD:-$build_dir-threads}
if [ -z "${FX_LONG:-}" ]; then
    skip "all" "takes minutes; run.sh --long runs it"
    finish
fi
if ! command -v clang >/dev/null; then
    skip "all" "no clang, which ThreadSanitizer comes with"
    finish
fi
archer=$(realpath "$(clang -print-resource-dir)/../../libarcher.so")
if [ ! -f "$archer" ]; then
    skip "all" "no libarcher.so in clang's library folder; without it everything a barrier orders looks like a race"
    finish
fi
export OMP_TOOL_LIBRARIES=$archer OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive TSAN_OPTIONS="ignore_noninstrumented_modules=1 exitcode=66"

# under COMMAND...: runs it; $races: reports of the sanitizer
under() {
    rc=0
    timeout -k 5 "${limit:-600}" "$@" >"$out" 2>"$err" || rc=$?
    races=$(grep -ac 'WARNING: ThreadSanitizer' "$err" || true)
    [ "$races" = 0 ] || grep -aA 12 'WARNING: ThreadSanitizer' "$err" | head -n 40
}

# ---- can it fail, and does it know barriers ----

tiny() { # NAME, program on stdin
    cat >"$1.c"
    clang -g -fopenmp -fsanitize=thread "$1.c" -o "$1" && under "./$1" >/dev/null
}
check "a program with a race" tiny race <<'C'
int sum;
int main(void)
{
#pragma omp parallel num_threads(2)
    for (int i = 0; i < 1000; i++) sum += i;
    return 0;
}
C
check "the race is reported" test "$rc" = 66 -a "$races" -gt 0
check "a program with barriers" tiny barrier <<'C'
static int a[2], b[2];
int main(void)
{
#pragma omp parallel num_threads(2)
    {
#pragma omp for schedule(static, 1)
        for (int i = 0; i < 2; i++) a[i] = i + 1;
#pragma omp for schedule(static, 1)
        for (int i = 0; i < 2; i++) b[i] = a[1 - i];
    }
    return b[0] + b[1] == 3 ? 0 : 1;
}
C
check "its barriers are understood" test "$rc" = 0 -a "$races" = 0

# ---- fluxpar ----

build() {
    [ -f "$threads_build/CMakeCache.txt" ] ||
        cmake -S "$root_dir" -B "$threads_build" -DFX_MPI=OFF -DFX_ONEDNN=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo \
            -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_C_FLAGS=-fsanitize=thread \
            -DCMAKE_CXX_FLAGS=-fsanitize=thread -DCMAKE_EXE_LINKER_FLAGS=-fsanitize=thread || return
    cmake --build "$threads_build" -j "$(nproc)" --target fluxpar check_ops t_store
}
clean() { # NAME COMMAND...: exit 0 and no report
    local name=$1
    shift
    under "$@"
    check "$name" test "$rc" = 0 -a "$races" = 0
}
check "the build with ThreadSanitizer" build
check "the programs are instrumented" grep -qa __tsan_init "$threads_build/fluxpar"
clean "the weight store" "$threads_build/tests/t_store"
for dtype in bf16 f32; do
    clean "pipeline, $dtype" "$threads_build/fluxpar" generate -m "$model" -p "a slice of pizza" --steps 2 --t5-len 16 \
        --dtype "$dtype" --seed 1 --threads 2 -o "$dtype.png"
done
unset FX_LONG # the table of every day: races do not need the long rows, which take ten times as long here
for op in linear attention conv2d norm_mod gate_norm qk_norm_rope group_norm glu copy; do
    clean "$op" "$threads_build/tests/check_ops" --op "$op"
done
finish
