#!/usr/bin/env bash
# run.sh [RUNS]: fluxpar beside PyTorch and diffusers on this machine's CPU, the same weights and threads, by turns; needs a build and
# 8 GB of memory. Installs the peers into a virtual environment that is thrown away afterwards (6 GB from PyPI, at the versions of
# tests/goldens/requirements.txt), writes 2.5 GB of model folders, and ends with OUT/peers-MACHINE.json.
#   VENV=DIR MODELS=DIR   keep or reuse them there       THREADS (all cores), ROWS (all), NOTE ("who else used the machine")
#   BUILD, FLUXPAR, MODEL (the bundled one), MACHINE, OUT: as in ../machine.sh         PEER="COMMAND": instead of torch_side.py
. "$(dirname "${BASH_SOURCE[0]}")/../machine.sh"
here=$root/bench/peers
models=${MODELS:-$scratch/models}
if [ -z "${PEER:-}" ]; then
    venv=${VENV:-$scratch/venv}
    if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import torch, diffusers, transformers' 2>/dev/null; then
        echo "# installing torch and diffusers into $venv"
        python3 -m venv "$venv" && "$venv/bin/pip" install -q -r "$root/tests/goldens/requirements.txt" ||
            die "torch and diffusers could not be installed; python3-venv and PyPI are needed, or set VENV"
    fi
    "$venv/bin/python" "$here/models.py" "$models" || die "the model folders could not be written to $models"
    PEER="$venv/bin/python $here/torch_side.py"
fi
python3 "$here/compare.py" --fluxpar "$fluxpar" --peer "$PEER" --models "$models" --demo "$model" --runs "${1:-${RUNS:-5}}" \
    --threads "${THREADS:-$(nproc)}" ${ROWS:+--rows "$ROWS"} ${SIZE:+--size "$SIZE"} --machine "$machine" --commit "$commit" \
    --note "${NOTE:-}" --out "$out/peers-$machine.json"
