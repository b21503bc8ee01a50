#!/usr/bin/env python3
"""Writes bench/NVL72.md and its pictures from `fluxpar plan --json`: predictions, nothing is measured.
  bench/nvl72.py [FLUXPAR [FOLDER]]      default: build/fluxpar, the folder of this file
The same program and machine files give the same bytes."""
import copy
import json
import pathlib
import subprocess
import sys
import tempfile

from plot import COLOURS, Picture

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = sys.argv[1] if len(sys.argv) > 1 else str(HERE.parent / "build/fluxpar")
FOLDER = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else HERE
SIZES = [512, 768, 1024, 1536, 2048, 3072, 4096]
PNG_MS = 10  # of the machine files, per megapixel: taken off where others time no file
MODEL = "synthetic:flux-dev"


def plan(gpu, gpus, side, *more, model=MODEL):
    done = subprocess.run([PROGRAM, "plan", "-m", model, "--gpu", str(gpu), "--gpus", str(gpus), "-W", str(side), "-H", str(side), "--json",
                           *more], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"nvl72.py: {done.stderr.strip()}")
    return json.loads(done.stdout)


def ranks(p):
    return p["ulysses"] * p["ring"]


def name(p):
    return f"{p['ulysses']}x{p['ring']} {p['layout']}"


def best_by_ranks(plans):
    """72 GPUs in groups of P: the best plan of a picture on P."""
    best = {}
    for p in plans:
        if ranks(p) not in best or p["step_ms"] < best[ranks(p)]["step_ms"]:
            best[ranks(p)] = p
    return dict(sorted(best.items()))


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head)] + ["| " + " | ".join(map(str, r)) + " |" for r in rows]) + "\n"


def changed(gpu, change):
    """A shipped machine file with a change, as a file."""
    m = copy.deepcopy(json.loads((HERE.parent / f"runtime/predict/machines/{gpu}.json").read_text()))
    change(m)
    file = tempfile.NamedTemporaryFile("w", suffix=".json", delete=False)
    json.dump(m, file)
    file.close()
    return file.name


# ---- pictures ----


def curve(path, title, below, xs, lines, x_name, y_name):
    """Both axes logarithmic; lines: {name: [(x, y)]}."""
    import math
    p = Picture(760, 400, title, below)
    left, right, top, bottom = 70, 560, 50, 340
    ys = [y for points in lines.values() for _, y in points]
    lo, hi = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    x0, x1 = math.log(min(xs)), math.log(max(xs))

    def at(x, y):
        return left + (right - left) * (math.log(x) - x0) / (x1 - x0), bottom - (bottom - top) * (math.log10(y) - lo) / (hi - lo)
    for d in range(lo, hi + 1):
        y = at(xs[0], 10.0**d)[1]
        p.line([(left, y), (right, y)], "#ddd", 1)
        p.text(left - 6, y + 4, f"{10.0**d:g}", 10, "end")
    for x in xs:
        p.text(at(x, 10.0**lo)[0], bottom + 16, f"{x:g}", 10, "middle")
    p.text((left + right) / 2, bottom + 34, x_name, 11, "middle")
    p.text(left, top - 10, y_name, 11)
    for i, (label, points) in enumerate(lines.items()):
        colour = COLOURS[i % len(COLOURS)]
        p.line([at(*q) for q in points], colour, 2, "" if i < len(COLOURS) else "5,3")
        for q in points:
            p.dot(*at(*q), colour)
        p.text(right + 14, top + 18 * i + 8, label, 11, fill=colour)
    p.write(path)


# ---- chapters ----


def layouts(out, all_sizes):
    out.append("## The best layout of one picture\n\nulysses x ring and layout; ms per step, seconds per picture (28 steps; text, VAE and PNG "
               "included), speedup of a step against one GPU.\n")
    head = ["GPUs"] + [f"{s}x{s}" for s in SIZES]
    rows = []
    for n in next(iter(all_sizes.values())):
        row = [n]
        for s in SIZES:
            p, one = all_sizes[s][n], all_sizes[s][1]
            row.append(f"{name(p)}: {p['step_ms']:.1f} ms, {p['image_s']:.2f} s, {one['step_ms'] / p['step_ms']:.1f} x")
        rows.append(row)
    out.append(table(head, rows))
    curve(FOLDER / "nvl72-steps.svg", "A step on 1 to 72 GB200, the best layout", "predicted by fluxpar plan; 28 steps, bf16",
          list(all_sizes[1024]), {f"{s}x{s}": [(n, p["step_ms"]) for n, p in all_sizes[s].items()] for s in SIZES}, "GPUs of one picture",
          "ms per step")
    out.append("![ms per step against GPUs](nvl72-steps.svg)\n")
    ring, stop = [], []
    for s in SIZES:
        counts = list(all_sizes[s])
        first = [n for n in counts if all_sizes[s][n]["ring"] > 1]
        ring.append([f"{s}x{s}", ", ".join(f"{n} ({name(all_sizes[s][n])})" for n in first) or "never"])
        last = counts[-1]
        for a, b in zip(counts, counts[1:]):
            if all_sizes[s][a]["image_s"] / all_sizes[s][b]["image_s"] < 1 + 0.25 * (b / a - 1):
                last = a
                break
        stop.append([f"{s}x{s}", last, f"{all_sizes[s][last]['image_s']:.2f} s", f"{all_sizes[s][counts[-1]]['image_s']:.2f} s"])
    out.append("Where a ring is part of the best mesh (24 heads: more than 24 ranks have no other):\n\n" + table(["picture", "GPUs"], ring))
    out.append("Where more GPUs stop paying: the last count whose next one still brings a quarter of what it costs.\n\n" +
               table(["picture", "GPUs", "picture there", "picture on 72"], stop))


def queue(out):
    plans = plan("gb200", 72, 1024)["plans"]
    best = best_by_ranks(plans)
    rows = [[72 // n, n, name(p), f"{p['image_s']:.3f}", f"{p['images_per_s']:.1f}", p["binds"]] for n, p in best.items()]
    out.append("## A queue of pictures: 72 GPUs in groups, 1024x1024, bf16\n\n" +
               table(["groups", "GPUs each", "layout", "s per picture", "images/s", "binds"], rows))
    lines = {"with PNG": [(p["image_s"], p["images_per_s"]) for p in best.values()]}
    curve(FOLDER / "nvl72-queue.svg", "72 GB200: images/s against the time of a picture, as groups vary", "predicted by fluxpar plan; 1024x1024, 28 steps, bf16",
          [0.25, 0.5, 1, 2], lines, "seconds per picture", "images/s")
    out.append("![images/s against latency](nvl72-queue.svg)\n")


def precision(out):
    rows = []
    for n in (1, 8, 24, 72):
        for d in ("bf16", "fp8", "nvfp4"):
            p = [x for x in plan("gb200", n, 1024, "--dtype", d)["plans"] if x["groups"] == 1][0]
            s, kept = p["step_ms"], p["image_s"] - 28e-3 * p["step_ms"]
            cached = 28e-3 * s * (0.5 + 0.5 / 57) + kept  # half of the steps end behind the first block
            rows.append([n, d, name(p), f"{s:.2f}", f"{p['image_s']:.3f}", f"{cached:.3f}", p["binds"]])
    out.append("## Precision and cache, 1024x1024\n\nOnly bf16 is implemented. FP8 and NVFP4 are of linear layers, by rates of the machine file (1.8 and 3.2 times "
               "bf16; not measured), attention stays bf16; quantising is not in it. The cache is a first-block cache that skips the rest of half of the "
               "steps: not implemented either.\n\n" + table(["GPUs", "precision", "layout", "ms per step", "s per picture", "with the cache", "binds"], rows))


def best_of(d):
    return min((p for p in d["plans"] if p["groups"] == 1), key=lambda p: p["image_s"])


def goals(out):
    """What of latency must go, for the goals that were set before anything ran."""
    def scaled(gpu, f):
        def change(m):
            for w in m["exchange"].values():
                w["start_us"] *= f
                w["wait_us"] *= f
            m["op_us"] *= f
            m["launch_us"] *= f
        return changed(gpu, change)
    rows = []
    cases = [("8 x H200, bf16: 0.57 s", "h200", 8, "bf16", 0.57), ("8 x B200, bf16: 0.30 s", "b200", 8, "bf16", 0.30),
             ("8 x H200, FP8: 0.41 s", "h200", 8, "fp8", 0.41), ("8 x B200, FP8: 0.23 s", "b200", 8, "fp8", 0.23),
             ("24 x GB200, FP8, one picture: 0.15 s", "gb200", 24, "fp8", 0.15)]
    for words, gpu, n, dtype, goal in cases:
        row = [words]
        for f in (1, 0.5, 0.25, 0):
            s = best_of(plan(scaled(gpu, f), n, 1024, "--dtype", dtype))["image_s"]
            row.append(f"**{s:.3f}**" if s <= goal else f"{s:.3f}")
        rows.append(row)
    out.append("## What would have to be true for the goals\n\nSeconds per picture of 1024x1024, 28 steps; bold: the goal is met. From left to right: as in the "
               "machine file (PNG by many cores: 10 ms per megapixel; 7 to 15 were measured beside H200); then starts of kernels, exchanges and waits of a "
               "half, a quarter, nothing (a kernel of the exchange starts after 7 to 9 us, a wait takes 6 to 8, any other kernel 2.8).\n\n" +
               table(["goal", "as it is", "latency x 1/2", "x 1/4", "none"], rows))
    rows = []
    for f in (1, 0.5, 0.25, 0):
        best = best_by_ranks(plan(scaled("gb200", f), 72, 1024, "--dtype", "fp8")["plans"])
        rows.append([f"x {f:g}", f"{best[8]['images_per_s']:.1f}", f"{max(p['images_per_s'] for p in best.values()):.1f}"])
    out.append("72 GB200 as 9 groups of 8, FP8: at least 40 images/s were asked for.\n\n" +
               table(["latency", "images/s, 9 groups of 8", "images/s, best groups"], rows))


def large(out):
    rows = []
    for side in (1024, 2048, 4096):
        for n in (72, 288):
            d = plan("gb200", n, side, "--topology", "nvl72")
            one = [p for p in d["plans"] if p["groups"] == 1]
            most = max(d["plans"], key=lambda p: p["images_per_s"])
            p = min(one, key=lambda x: x["image_s"])
            rows.append([f"{side}x{side}", n, f"{name(p)} by {p['exchange']}", f"{p['step_ms']:.1f}", f"{p['image_s']:.2f}", p["binds"],
                         f"{most['images_per_s']:.1f} ({most['groups']} groups)", f"{d['limit']['step_ms']:.1f}"])
    out.append("## 4096x4096 on a rack, and four racks\n\nOne picture on all GPUs. Between racks: 400 Gb/s per GPU, no stores; the runtime then takes NCCL.\n\n" +
               table(["picture", "GPUs", "best on all", "ms per step", "s per picture", "binds", "most images/s", "limit ms"], rows))


def published(out):
    cases = [("xDiT, compiled, FLUX.1-dev 28 steps", "h100", MODEL, {1: 4.30, 2: 2.60, 4: 1.63}),
             ("ParaAttention, compiled, FLUX.1-dev 28 steps", "a100", MODEL, {1: 9.997, 2: 5.775, 4: 3.557}),
             ("xDiT, compiled, FLUX.1-schnell 4 steps", "a100", "synthetic:flux-schnell", {1: 1.88, 2: 1.25, 4: 0.96, 8: 0.82})]
    rows = []
    for words, gpu, model, seen in cases:
        for n, s in seen.items():
            d = plan(gpu, n, 1024, model=model)
            p = min((x for x in d["plans"] if x["groups"] == 1), key=lambda x: x["image_s"])
            ours = p["image_s"] - PNG_MS * 1e-3 * 1.048576
            rows.append([words, f"{n} x {gpu.upper()}", f"{s:.2f}", f"{ours:.2f}", f"{s / ours:.2f}", f"{d['limit']['image_s']:.2f}"])
            if d["limit"]["image_s"] > s:
                sys.exit(f"nvl72.py: the limit {d['limit']['image_s']} of {words} on {n} was beaten by {s}")
    out.append("## Against published figures\n\nOther software on the same cards, seconds per 1024x1024 picture without a file; the machine files were not "
               "fitted to them. So a ratio is expected: above 1 the other software is slower than what is predicted for this one.\n\n" +
               table(["who", "GPUs", "published", "predicted", "ratio", "limit"], rows) +
               "\nWhy: their exchanges are library collectives and their row kernels are compiled ones, whose cost does not shrink with the ranks, so the ratio grows "
               "with them; schnell's 4 steps are short beside text and VAE, which they do on every rank and which are not split (VAE, T5), so it grows most there. "
               "No limit is beaten.\n")


def measured(out):
    seen = [(1024, {1: 122.7, 2: 68.1}), (512, {1: 35.7, 2: 22.1}), (2048, {1: 679.4, 2: 352.5})]
    rows = []
    for side, times in seen:
        for n, ms in times.items():
            p = [x for x in plan("h200", n, side, "--ulysses", str(n), "--layout", "even")["plans"] if x["groups"] == 1][0]
            rows.append([f"{side}x{side}", n, ms, f"{p['step_ms']:.1f}", f"{100 * (p['step_ms'] / ms - 1):+.1f} %"])
    out.append("## Against this program's own measurements on H200\n\nThe H200 file has the op times of one GPU and the rates of its links (LOG.md); steps of 2 GPUs were "
               "not fitted to. Cards of one kind differ by 4 %. Four were last measured with an earlier graph (37.2, 14.1 and 184.9 ms), for which 35.6, 14.3 and 170.6 were predicted.\n\n" + table(["picture", "GPUs", "measured ms per step", "predicted", "error"], rows))


def main():
    out = ["# One NVL72 and beyond: what `fluxpar plan` predicts\n\nGenerated by `bench/nvl72.py` from the machine files in `runtime/predict/machines`; do not edit. GB200 and B200 have "
           "not been run: their rates are data sheets and published kernels. FLUX.1-dev's size, 28 steps, 512 text tokens, bf16 unless said.\n"]
    sizes = {s: best_by_ranks(plan("gb200", 72, s)["plans"]) for s in SIZES}
    measured(out)
    published(out)
    layouts(out, sizes)
    queue(out)
    precision(out)
    large(out)
    goals(out)
    (FOLDER / "NVL72.md").write_text("\n".join(out))


main()
