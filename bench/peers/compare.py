"""fluxpar beside PyTorch and diffusers on the CPU: the same weights, the same threads, by turns in one run; run.sh calls this.

    compare.py --fluxpar F --peer "COMMAND" --models DIR --demo DIR --out FILE.json [--threads N] [--runs N] [--rows A,B]

COMMAND is torch_side.py with its interpreter. Each run is a process of its own on both sides, so that the peak of its memory is that
of one measurement. METRICS.md says what is in a row.
"""
import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

PROMPTS = ["a small red fox near the old bridge, watercolor", "a wooden lighthouse above the harbour", "a golden kite in the garden"]
# goal: torch's time over fluxpar's; calls: timed calls of torch's process after one that is not counted, 0: the process is timed
ROWS = {
    "slice_bf16": dict(model="slice", stage="step", dtype="bf16", size=1024, steps=2, t5_len=512, calls=1, goal=1.3),
    "slice_f32": dict(model="slice", stage="step", dtype="f32", size=1024, steps=2, t5_len=512, calls=1, goal=None),
    "vae_f32": dict(model="vae", stage="vae", dtype="f32", size=512, steps=1, t5_len=32, calls=2, goal=1.2),
    "t5_bf16": dict(model="t5", stage="text", dtype="bf16", size=64, steps=1, t5_len=512, calls=3, goal=1.2),
    "demo_cold": dict(model=None, stage="picture", dtype="f32", size=128, steps=28, t5_len=None, calls=0, goal=3.0),
    "demo_warm": dict(model=None, stage="picture", dtype="f32", size=128, steps=28, t5_len=None, calls=3, goal=1.3),
}
# 1000 x guidance must be a bf16 number: diffusers rounds it, and 3.5 would become 3.504
SEED, GUIDANCE = 1, 4.0


class Failed(Exception):
    pass


def process(command, log, env=None):
    """(wall seconds, peak bytes of the process) of a command that must succeed"""
    with open(log, "w") as file:
        begin = time.monotonic()
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=dict(os.environ, **(env or {})))
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        with open(log) as file:
            tail = file.read()[-2000:]
        raise Failed(f"exit {child.returncode} of: {shlex.join(command)}\n{tail}")
    return seconds, usage.ru_maxrss * 1024


def flags_of(a, row):
    flags = ["-m", row["model"], "-S", str(SEED), "-W", str(row["size"]), "-H", str(row["size"]), "--guidance", str(GUIDANCE),
             "--dtype", row["dtype"], "--threads", str(a.threads), "--t5-len", str(row["t5_len"]), "-q", "--force"]
    return [a.fluxpar, "generate", *flags]


def own_run(a, row, folder):
    """(seconds, peak bytes) of fluxpar: the last picture of a process, its last step, or the whole process"""
    report, log = os.path.join(folder, "report.json"), os.path.join(folder, "own.log")
    command = [*flags_of(a, row), "--steps", str(row["steps"]), "-o", os.path.join(folder, "own.png"), "--report", report]
    if row["calls"] == 0 or row["stage"] == "step":
        wall, peak = process([*command, "-p", PROMPTS[0]], log)
    else:
        jobs = os.path.join(folder, "jobs.jsonl")
        with open(jobs, "w") as file:
            file.writelines(json.dumps({"prompt": p, "output": os.path.join(folder, f"own{i}.png")}) + "\n"
                            for i, p in enumerate(PROMPTS))
        results = os.path.join(folder, "results.jsonl")
        if os.path.exists(results):
            os.remove(results)
        wall, peak = process([*command, "--batch", jobs, "--results", results], log)
    with open(report) as file:
        images = json.load(file)["images"]
    if row["calls"] == 0:
        return wall, peak
    times = [i["timings"] for i in images]
    if row["stage"] == "step":
        return times[-1]["step"][-1], peak
    value = {"vae": lambda t: t["vae"], "text": lambda t: t["text"], "picture": lambda t: t["generate"] + t["png"]}[row["stage"]]
    return statistics.median(value(t) for t in times[1:]), peak


def torch_run(a, row, folder, dump):
    """(seconds, peak bytes, largest difference, version) of torch_side.py"""
    asked, answer = os.path.join(folder, "row.json"), os.path.join(folder, "torch.json")
    with open(asked, "w") as file:
        json.dump(dict(row, prompt=PROMPTS[0], seed=SEED, guidance=GUIDANCE, threads=a.threads,
                       png=os.path.join(folder, "torch.png")), file)
    env = {"OMP_NUM_THREADS": str(a.threads), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    wall, peak = process([*shlex.split(a.peer), asked, dump, answer], os.path.join(folder, "torch.log"), env)
    with open(answer) as file:
        got = json.load(file)
    return (wall if row["calls"] == 0 else got["seconds"]), peak, got["max_diff"], got["torch"]


def measure(a, name, folder):
    row = dict(ROWS[name])
    row["model"] = os.path.join(a.models, row["model"]) if row["model"] else a.demo
    with open(os.path.join(row["model"], "tokenizer_2", "tokenizer_config.json")) as file:
        most = json.load(file)["model_max_length"]
    row["t5_len"] = min(row["t5_len"] or most, most)
    if a.size and row["calls"] != 0:
        row["size"] = a.size
    dump = os.path.join(folder, "dump")
    os.makedirs(dump, exist_ok=True)
    # as many steps as the measured runs only where the picture is what is compared
    steps = row["steps"] if row["stage"] == "picture" else 1
    process([*flags_of(a, row), "--steps", str(steps), "-p", PROMPTS[0], "--dump", dump, "-o", os.path.join(folder, "dump.png")],
            os.path.join(folder, "dump.log"))
    own, peer = [], []
    for i in range(a.runs):
        pair = [lambda: own.append(own_run(a, row, folder)), lambda: peer.append(torch_run(a, row, folder, dump))]
        for one in pair if i % 2 == 0 else reversed(pair):
            one()
    seconds = statistics.median(s for s, _ in own), statistics.median(r[0] for r in peer)
    bytes_ = max(p for _, p in own), max(r[1] for r in peer)
    return {"name": name, "fluxpar_s": seconds[0], "torch_s": seconds[1], "ratio": seconds[1] / seconds[0],
            "max_diff": max(r[2] for r in peer), "fluxpar_bytes": bytes_[0], "torch_bytes": bytes_[1], "goal": row["goal"],
            "dtype": row["dtype"], "size": row["size"], "samples": {"fluxpar_s": [s for s, _ in own], "torch_s": [r[0] for r in peer]},
            "torch": peer[0][3]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("fluxpar", "peer", "models", "demo", "out"):
        p.add_argument("--" + name, required=True)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--rows", default=",".join(ROWS))
    p.add_argument("--size", type=int, help="of all pictures but the cold one's: for trying this out")
    for name in ("machine", "commit", "note"):
        p.add_argument("--" + name, default="")
    a = p.parse_args()
    unknown = [r for r in a.rows.split(",") if r not in ROWS]
    if unknown:
        sys.exit(f"compare.py: no row {unknown[0]}; there are {', '.join(ROWS)}")
    print(f"# {a.machine}, commit {a.commit}, {a.threads} threads, {a.runs} runs by turns, medians; load {os.getloadavg()[0]:.2f}")
    print(f"# {'row':10} {'fluxpar':>9} {'torch':>9} {'ratio':>6} {'goal':>5} {'max_diff':>9} {'fluxpar':>8} {'torch':>8}")
    print(f"# {'':10} {'(s)':>9} {'(s)':>9} {'(x)':>6} {'(x)':>5} {'':>9} {'(MiB)':>8} {'(MiB)':>8}")
    result = {"bench": "peers", "machine": a.machine, "commit": a.commit, "note": a.note, "threads": a.threads, "runs": a.runs,
              "load": os.getloadavg()[0], "rows": []}
    with tempfile.TemporaryDirectory() as scratch:
        for name in a.rows.split(","):
            try:
                r = measure(a, name, scratch)
            except Failed as e:
                sys.exit(f"compare.py: {name}: {e}")
            print(f"  {name:10} {r['fluxpar_s']:9.4f} {r['torch_s']:9.4f} {r['ratio']:6.2f} {r['goal'] or '-':>5} {r['max_diff']:9.2e} "
                  f"{r['fluxpar_bytes'] / 2**20:8.0f} {r['torch_bytes'] / 2**20:8.0f}", flush=True)
            result["torch"] = r.pop("torch")
            result["rows"].append(r)
    with open(a.out, "w") as file:
        json.dump(result, file, indent=1)
        file.write("\n")
    print(f"# torch {result['torch']}; written: {a.out}")


if __name__ == "__main__":
    main()
