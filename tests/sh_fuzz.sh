#!/usr/bin/env bash
# Fuzz targets (tests/fuzz): each runs from its committed inputs for a while. With --long for 60 s each, built first when
# need be; otherwise 2 s each where they are built already. FX_FUZZ_SECONDS: another time; FX_FUZZ_BUILD: their build folder.
# What is found stays in FX_FUZZ_BUILD/found; once fixed it belongs in tests/fuzz/regress/NAME. Inputs that reach new code stay in
# FX_FUZZ_BUILD/new, where the next run goes on.
. "$(dirname "$0")/lib.sh"

fuzz_build=${FX_FUZZ_BUILD:-$build_dir-fuzz}
seconds=${FX_FUZZ_SECONDS:-$([ -n "${FX_LONG:-}" ] && echo 60 || echo 2)}
inputs=$tests_dir/fuzz
# A file may make the program need this much and no more, whatever it says.
limits=(-timeout=40 -rss_limit_mb=1500 -malloc_limit_mb=512 -max_len=8192)

targets=()
for file in "$inputs"/fuzz_*.c; do
    name=$(basename "$file" .c)
    targets+=("${name#fuzz_}")
done

build() {
    [ -f "$fuzz_build/CMakeCache.txt" ] ||
        cmake -S "$root_dir" -B "$fuzz_build" -DFX_FUZZ=ON -DFX_CPU=OFF -DFX_MPI=OFF -DCMAKE_BUILD_TYPE=Release \
            -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ || return
    cmake --build "$fuzz_build" -j "$(nproc)" --target "${targets[@]/#/fuzz_}"
}

# Passes libFuzzer's log on; at its end, how many edges were reached and when the last new one was.
watch_edges() {
    local line edges=0 last=0 begin=$SECONDS
    while IFS= read -r line; do
        printf '%s\n' "$line"
        if [[ $line =~ cov:\ ([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -gt "$edges" ]; then
            edges=${BASH_REMATCH[1]} last=$((SECONDS - begin))
        fi
    done
    echo "edges: $edges, the last new one after $last s"
}

fuzz() { # NAME: new inputs go to a folder of their own, the committed ones stay as they are
    local dictionary=$inputs/corpus/$1.dict flags=()
    [ ! -f "$dictionary" ] || flags=("-dict=$dictionary")
    [ ! -d "$inputs/regress/$1" ] || flags+=("$inputs/regress/$1")
    mkdir -p "$fuzz_build/new/$1" "$fuzz_build/found"
    FX_TESTS_DIR=$tests_dir timeout $((seconds + 60)) "$fuzz_build/fuzz/fuzz_$1" "${limits[@]}" \
        -max_total_time="$seconds" -artifact_prefix="$fuzz_build/found/$1-" -print_final_stats=1 \
        "$fuzz_build/new/$1" "$inputs/corpus/$1" "${flags[@]}" 2>&1 >/dev/null | watch_edges >"$work/$1.log"
    echo "${PIPESTATUS[0]}" >"$work/$1.rc"
}

judge() { # NAME
    tail -n 40 "$work/$1.log" >"$err"
    check "$1: nothing found in $seconds s" same "$(cat "$work/$1.rc")" 0
    awk -v n="$1" '/number_of_executed_units/ {count = $2} /^edges: / {print n ": " count " inputs, " $0}' "$work/$1.log"
}

if [ -n "${FX_LONG:-}" ]; then
    if ! command -v clang >/dev/null; then
        skip "all" "no clang, which libFuzzer comes with"
        finish
    fi
    check "the fuzz targets build" build
elif [ ! -d "$fuzz_build/fuzz" ]; then
    skip "all" "no fuzz targets in $fuzz_build; run.sh --long builds them"
    finish
fi
built=()
for name in "${targets[@]}"; do
    if [ -x "$fuzz_build/fuzz/fuzz_$name" ]; then built+=("$name"); else fail "$name: not built"; fi
done
for ((i = 0; i < ${#built[@]}; i += 2)); do # two at a time: what the development machine has cores for
    for name in "${built[@]:i:2}"; do fuzz "$name" & done
    wait
    for name in "${built[@]:i:2}"; do judge "$name"; done
done
finish
