#!/usr/bin/env bash
# bench/peers: what the comparison asks of both sides, its order, its table and its result file, with a stand-in for torch, which is too
# large to be installed here; fluxpar's side is real, with the bundled model in place of the large ones.
. "$(dirname "$0")/lib.sh"
need_model
command -v python3 >/dev/null || { skip "all" "no python3"; finish; }
mkdir models && for m in slice t5 vae; do ln -s "$(realpath "$model")" models/$m; done

# Both sides write down that they ran; the stand-in looks at what it is given.
cat >own <<END
#!/usr/bin/env bash
case "\$*" in *--dump*) ;; *) echo own >>"$work/order" ;; esac
exec "$fluxpar" "\$@"
END
cat >peer.py <<END
import json, os, sys
row, dump, out = json.load(open(sys.argv[1])), sys.argv[2], sys.argv[3]
print("torch", file=open("$work/order", "a"))
asked = {"step": ["noise", "t5_out", "clip_pooled", "noise_pred_00"], "vae": ["vae_in", "pixels"], "text": ["t5_out"], "picture": ["rgb8"]}
assert all(os.path.getsize(f"{dump}/{n}.npy") > 100 for n in asked[row["stage"]]), row
assert row["threads"] == 2 and row["prompt"] and row["dtype"] in ("f32", "bf16")
if os.path.exists("$work/broken"):
    sys.exit("peer is broken")
json.dump({"seconds": 0.05, "max_diff": 0.25, "torch": "none"}, open(out, "w"))
END
chmod +x own
peers() { # peers RUNS: with results in res/
    rc=0
    BUILD=$build_dir FLUXPAR=$work/own MODEL=$model MODELS=$work/models PEER="python3 $work/peer.py" OUT=$work/res MACHINE=here THREADS=2 SIZE=64 \
        timeout -k 5 200 bash "$root_dir/bench/peers/run.sh" "$@" >"$out" 2>"$err" || rc=$?
}

peers 2
check "exit 0" rc_is 0
check "no message" silent "$err"
check "a row of each" same "$(awk '!/^#/ {print $1}' "$out" | xargs)" "slice_bf16 slice_f32 vae_f32 t5_bf16 demo_cold demo_warm"
check "columns" same "$(awk '!/^#/ {print NF, length($0)}' "$out" | sort -u | wc -l)" 1
check "by turns" same "$(sort <order | uniq -c | xargs) $(head -4 order | xargs)" "12 own 12 torch own torch torch own"
check "the result file" only_files res peers-here.json
check "and what is in it" python3 -c 'import json
d = json.load(open("res/peers-here.json"))
assert d["machine"] == "here" and d["commit"] and d["torch"] == "none" and len(d["rows"]) == 6
for r in d["rows"]:
    own, peer = r["samples"]["fluxpar_s"], r["samples"]["torch_s"]
    assert len(own) == len(peer) == 2 and abs(r["fluxpar_s"] - sum(own) / 2) < 1e-9 and min(own) > 0
    assert r["name"] == "demo_cold" or r["torch_s"] == 0.05
    assert abs(r["ratio"] - r["torch_s"] / r["fluxpar_s"]) < 1e-9 and r["max_diff"] == 0.25
    assert r["fluxpar_bytes"] > 10e6 and r["torch_bytes"] > 1e6'

rm -r res
touch broken
ROWS=t5_bf16 peers 1
check "a failing peer ends it with 1" rc_is 1
check "and is named" says 'compare.py: t5_bf16: exit 1 of: .*peer.py'
check "with its own words" says 'peer is broken'
check "no result file" no_file res/peers-here.json
ROWS=nonsense peers 1
check "an unknown row" bash -c '[ "$1" = 1 ] && grep -q "no row nonsense; there are slice_bf16" "$2"' _ "$rc" "$err"
finish
