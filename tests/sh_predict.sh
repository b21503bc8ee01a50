#!/usr/bin/env bash
# `fluxpar plan` as a predictor: the table, --json exactly as documented, wishes, topologies, drawings, machine files of a user and
# their faults; and a machine file measured here by one and two ranks.
. "$(dirname "$0")/lib.sh"

plan() { fx plan -m synthetic:flux-dev "$@"; }
json() { # json EXPRESSION: python about the last output, p the plans, l the limit
    python3 -c "import json,sys
d=json.load(open('$out')); p=d['plans']; l=d['limit']
sys.exit(0 if ($1) else 1)"
}

plan --gpu h200 --gpus 8
check "table: exit" rc_is 0
check "table: comments only" same "$(grep -vc '^#' "$out")" 0
check "table: best first" prints '^# +1 1 x 8x1 +stream +lsa +bf16 +[0-9.]+'
check "table: the limit" prints '^# limit +[0-9.]+ ms per step, [0-9.]+ s per picture'
check "table: today's totals follow" same "$(grep -cE '^# +[0-7] (even|stream)( +[0-9]+){8}$' "$out")" 8

plan --gpu gb200 --gpus 72 --topology nvl72 --json
check "json: exit" rc_is 0
check "json: keys" json "all(list(x) == ['groups','ulysses','ring','layout','exchange','dtype','step_ms','image_s','images_per_s','memory_bytes','binds'] for x in p) and list(d) == ['plans','limit'] and list(l) == ['step_ms','image_s']"
check "json: a partition of the GPUs" json "all(72 % (x['groups'] * x['ulysses'] * x['ring']) == 0 and x['groups'] * x['ulysses'] * x['ring'] == 72 for x in p)"
check "json: nothing beats the limit" json "all(x['step_ms'] > l['step_ms'] and x['image_s'] > l['image_s'] for x in p)"
check "json: in order" json "[x['image_s'] for x in p] == sorted(x['image_s'] for x in p)"
check "json: what binds" json "{x['binds'] for x in p} <= {'FLOP', 'HBM', 'NVLink', 'network', 'latency'}"
plan --gpu h100 --topology dgx --gpus 16 --json --ulysses 8 --ring 2
check "two nodes: no stores between them" json "p and all(x['exchange'] == 'nccl' for x in p if x['groups'] == 1)"
plan --gpu b200 --gpus 8 --dtype any --json
check "precisions: fp8 is quicker than bf16" json "{x['dtype'] for x in p} == {'bf16', 'fp8', 'nvfp4'} and p[0]['dtype'] != 'bf16'"
plan --gpu b200 --gpus 8 --dtype fp8
check "precisions: what is not there is said" prints 'fp8 .*\(not implemented\)'
plan --gpu h200 --gpus 8 --images-per-second 2 --json
check "wish: images per second" json "p and all(x['images_per_s'] >= 2 for x in p)"
plan --gpu h200 --gpus 8 --latency 2 --json
check "wish: latency" json "p and all(x['image_s'] <= 2 for x in p) and p[0]['images_per_s'] == max(x['images_per_s'] for x in p)"
plan --gpu h200 --gpus 2 --latency 0.01
check "wish: none" prints '^# no plan of [0-9]+ fulfils it'
plan --gpu h200 --gpus 4 --layout stream --exchange peer --json
check "what is given is kept" json "p and all(x['layout'] == 'stream' and x['exchange'] == 'peer' for x in p if x['groups'] < 4)"

# ---- drawings ----
plan --gpu h200 --gpus 4 --trace-json t.json --svg s.svg
check "drawings: exit" rc_is 0
check "trace: Chrome's format, four ranks, every block" python3 -c "
import json
e = json.load(open('t.json'))['traceEvents']
x = [i for i in e if i['ph'] == 'X']
assert {i['pid'] for i in x} == {0, 1, 2, 3} and {i['args']['box'] for i in x} >= {'double_00', 'single_37', 'euler'}
assert all(i['dur'] >= 0 and i['ts'] >= 0 for i in x) and {i['cat'] for i in x} >= {'gemm', 'attention', 'rows', 'exposed', 'launch'}"
check "svg: both blocks" python3 -c "
import xml.dom.minidom as m
d = m.parse('s.svg'); t = d.documentElement.toxml()
assert 'double_01' in t and 'single_01' in t and len(d.getElementsByTagName('rect')) > 40"
plan --gpu h200 --gpus 4 --svg nowhere/s.svg
check "svg: no such folder: exit 7 or 2" test "$rc" = 7 -o "$rc" = 2
plan --gpu h200 --gpus 4 --trace --json
check "trace and json exclude each other" rc_is 2

# ---- files of a user ----
echo '{"fluxpar_topology": 1, "name": "two", "domain": {"ranks": 2, "latency_us": 1}}' >two.json
plan --gpu h200 --gpus 4 --topology two.json --json
check "a topology of pairs without a network: no picture on four" json "p and all(x['groups'] >= 2 for x in p)"
plan --gpu h200 --gpus 4 --topology rack
refused 2 '--topology rack is not known; possible are dgx\|nvl72, or a file NAME.json' "no such topology"
echo '{"fluxpar_machine": 1, "name": "x", "kind": "gpu", "units": "many"}' >bad.json
plan --gpu bad.json --gpus 4
refused 3 'bad.json: units: wanted a number from 1 to 65536; correct the file' "a value of the wrong kind"
plan --gpu gone.json --gpus 4
refused 3 'gone.json' "no such file"
plan --gpu h200 --gpus 4 --dtype int3
refused 2 '--dtype int3 is not known; possible are bf16\|f32\|fp8\|nvfp4' "no such precision"
plan --gpu a100 --gpus 4 --dtype fp8
refused 2 '--dtype fp8: NVIDIA A100 .* has no rates of it' "a precision without rates"
FLUXPAR_CACHE=$work/none plan --gpu this --gpus 2
refused 3 'machine.json' "this machine, not measured"

# ---- this machine ----
export OMP_WAIT_POLICY=passive
fx bench --calibrate one.json --threads 1
check "calibrate: exit" rc_is 0
check "calibrate: names the file" prints '^one.json$'
fx bench --calibrate one.json --threads 1
refused 2 'one.json' "calibrate: the file is there"
fx plan -m synthetic:flux-dev:1+2 --gpu one.json --gpus 2 -W 256 -H 256 --json
check "calibrated: two ranks of its node go by MPI" json "p and all(x['exchange'] == ('mpi' if x['groups'] == 1 else 'none') for x in p)"
if has_mpi; then
    FLUXPAR_CACHE=$work/cache mpi 2 bench --calibrate this --threads 1
    check "calibrate on two ranks: exit" rc_is 0
    FLUXPAR_CACHE=$work/cache plan --gpu this --gpus 2 -W 256 -H 256
    check "this machine" prints '^# rates +measured by fluxpar bench --calibrate'
    check "only the file is left" only_files "$work/cache" machine.json
    # a run chooses by it: exchanges that cost 5 ms each make one exchange per block the better mesh; the bytes stay
    if [ -f "$model/model_index.json" ]; then
        gen_mpi 4 -o plain.png
        check "without a file: the default mesh" says 'mesh 4x1 .*layout auto'
        sed -i -E 's/"start_us": [0-9.]+/"start_us": 5000.0/' "$work/cache/machine.json"
        FLUXPAR_CACHE=$work/cache gen_mpi 4 -o chosen.png
        check "with a file: what it predicts" says 'mesh 1x4, layout even: chosen by prediction'
        check "the same bytes" cmp plain.png chosen.png
        FLUXPAR_CACHE=$work/cache gen_mpi 4 --ulysses 2 -o given.png
        check "what is given is kept" says 'mesh 2x2'
        echo '{' >"$work/cache/machine.json"
        FLUXPAR_CACHE=$work/cache gen_mpi 4 -f -o given.png
        check "a bad file: a warning, and the default" says 'machine.json is not valid JSON.*defaults'
        check "a bad file: a picture" rc_is 0
    fi
else skip "two ranks" "no mpirun"; fi
finish
