#!/usr/bin/env bash
# What each optimisation brings, added one after the other to the plainest way: seconds per picture, and how much the picture differs
# from the first row's (largest difference of a pixel value, in 1/255; 0 is the same picture).
#   bench/ablation.sh [RANKS]       RANKS: default all GPUs, else all cores
# SIZE (the model's), STEPS (the model's), RUNS (5), MODEL, BACKEND, FLAGS; BUILD, OUT and MACHINE: bench/machine.sh. All rows are measured
# by turns in one run of fluxpar bench. The table goes to the standard output, and with all samples to OUT/ablation-MACHINE.json.
. "$(dirname "$0")/machine.sh"
ranks=${1:-$(most_ranks)}
names=() cases=()
add() { # add NAME CASE
    names+=("$1")
    cases+=("$2")
}
if on_gpus; then
    add "one GPU, every kernel launched by the host" 1x1:no-graphs
    add "+ steps recorded and played (CUDA graphs)" 1x1
    if [ "$ranks" -gt 1 ]; then
        add "+ $ranks GPUs, rows by NCCL" "$ranks:exchange=nccl:layout=even:no-graphs"
        add "+ rows by copies into the peer's memory" "$ranks:exchange=peer:layout=even"
        add "+ rows by kernels into the peer's memory" "$ranks:exchange=lsa:layout=even"
        add "+ text and image on different GPUs" "$ranks:exchange=lsa:layout=stream"
    fi
else
    ! "$fluxpar" --version | grep -E '^backend onednn +[^ n]' >/dev/null || add "oneDNN, f32, one thread" 1x1:backend=onednn:dtype=f32:threads=1
    add "own kernels, f32, one thread" 1x1:backend=cpu:dtype=f32:threads=1
    add "+ bf16" 1x1:backend=cpu:threads=1
    [ "$ranks" = 1 ] || add "+ $ranks threads" "1x1:backend=cpu:threads=$ranks"
    if [ "$ranks" -gt 1 ]; then
        add "$ranks ranks of one thread instead, even rows" "$ranks:backend=cpu:threads=1:layout=even"
        add "+ text and image on different ranks" "$ranks:backend=cpu:threads=1:layout=stream"
    fi
fi
sizes=()
[ -z "${SIZE:-}" ] || sizes=(-W "$SIZE" -H "$SIZE")
list=$(IFS=, && echo "${cases[*]}")
# shellcheck disable=SC2046,SC2086
$(start "$ranks") "$fluxpar" bench -m "$model" "${sizes[@]}" ${STEPS:+--steps "$STEPS"} --meshes "$list" --runs "${RUNS:-5}" -q \
    ${FLAGS:-} --json "$scratch/meshes.json" >"$scratch/table" || { cat "$scratch/table"; exit 1; }
printf '%s\n' "${names[@]}" >"$scratch/names"
python3 - "$scratch" "$commit" "$machine" "${NOTE:-}" "$out/ablation-$machine.json" <<'PY' || exit 1
import json, sys
folder, commit, machine, note, out = sys.argv[1:]
run = json.load(open(folder + "/meshes.json"))
names = open(folder + "/names").read().splitlines()
assert len(names) == len(run["rows"]), "a mesh was added or dropped"
first = run["rows"][0]["image_s"]
for line in open(folder + "/table"):
    if line.startswith("# ") and "mesh " not in line and "(ms)" not in line and "wrong bytes" not in line:
        print(line, end="")
print(f"# {'optimisation':46} {'image':>9} {'step':>10} {'gain':>7} {'all':>7} {'diff':>6} {'#bad':>8}  mesh")
print(f"# {'':46} {'(s)':>9} {'(ms)':>10} {'(x)':>7} {'(x)':>7} {'(255)':>6} {'(bytes)':>8}")
before = first
for name, r in zip(names, run["rows"]):
    r["name"], r["gain"], r["gain_all"] = name, before / r["image_s"], first / r["image_s"]
    before = r["image_s"]
    bad = "-" if r["bad_bytes"] is None else r["bad_bytes"]
    print(f"  {name:46} {r['image_s']:9.3f} {r['step_ms']:10.2f} {r['gain']:7.2f} {r['gain_all']:7.2f} {r['diff']:6} {bad:>8}  {r['mesh']}")
run.update(bench="ablation", commit=commit, short_name=machine, note=note)
json.dump(run, open(out, "w"), indent=1)
open(out, "a").write("\n")
print(f"# written: {out}")
PY
