#!/usr/bin/env python3
"""Pictures (SVG) of result files; no third-party package.
  plot.py scaling  RESULT.json OUT.svg    speedup over ranks by picture size and in groups, with the ideal line (of scaling.sh)
  plot.py stages   RESULT.json OUT.svg    where a picture's time goes on each mesh, stacked (of scaling.sh or fluxpar bench)
  plot.py ablation RESULT.json OUT.svg    seconds per picture, one optimisation after the other (of bench/ablation.sh)
  plot.py all [FOLDER]                    of all result files of a folder (bench/results): KIND-of-RESULT.svg beside them
The same file gives the same bytes."""
import json
import pathlib
import sys
from xml.sax.saxutils import escape

COLOURS = ["#3465a4", "#f57900", "#4e9a06", "#a40000", "#75507b", "#555753"]
STAGES = [("text", "#75507b"), ("steps, computing", "#3465a4"), ("steps, waiting for ranks", "#f57900"), ("VAE", "#4e9a06")]


class Picture:
    def __init__(self, width, height, title, below):
        self.width, self.height, self.parts = width, height, []
        self.text(16, 24, title, size=15, weight="bold")
        self.text(16, height - 10, below, size=10, fill="#777")

    def text(self, x, y, words, size=12, anchor="start", fill="#222", weight="normal"):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" '
                          f'font-weight="{weight}">{escape(str(words))}</text>')

    def line(self, points, colour, width=2, dash=""):
        at = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        more = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="{width}"{more}/>')

    def bar(self, x, y, width, height, colour):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" fill="{colour}"/>')

    def dot(self, x, y, colour):
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')

    def write(self, path):
        with open(path, "w") as file:
            file.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{self.height}" '
                       f'viewBox="0 0 {self.width} {self.height}" font-family="sans-serif">\n'
                       f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(self.parts) + "\n</svg>\n")


def about(run, result):
    """The small line below: machine, model, size, load."""
    m, p = run["machine"], run["parameters"]
    name = "bundled model" if p["model"] == "model" else p["model"]
    words = [m["processor"], f"{m['cores']} cores", f"{name} ({p['double_blocks']}+{p['single_blocks']} blocks)",
             f"{p['steps']} steps", f"load {m['load']:.1f} before", run["date"][:10]]
    if result.get("note"):
        words.append(result["note"])
    return ", ".join(words)


def best_by_ranks(rows):
    best = {}
    for r in rows:
        if r["speedup"] is not None and (r["ranks"] not in best or r["step_ms"] < best[r["ranks"]]["step_ms"]):
            best[r["ranks"]] = r
    return [best[n] for n in sorted(best)]


def scaling(result):
    runs = result["strong"]
    most = max(r["ranks"] for run in runs for r in run["rows"])
    top = max([most] + [r["speedup"] or 0 for run in runs for r in run["rows"]])
    weak = result["weak"][0]["rows"] if result.get("weak") else []
    top = max([top] + [r["speedup"] for r in weak])
    pic = Picture(680, 400, "Speedup over ranks: of a denoise step; in groups, of pictures per second", about(runs[0], result))
    left, right, low, high = 60, 470, 340, 50
    x = lambda n: left + (right - left) * (n - 1) / max(most - 1, 1)
    y = lambda s: low - (low - high) * s / top
    pic.line([(left, high), (left, low), (right, low)], "#222", 1)
    ranks = sorted({r["ranks"] for run in runs for r in run["rows"]})
    for n in ranks:
        pic.text(x(n), low + 18, n, anchor="middle")
        pic.text(left - 8, y(n) + 4, n, anchor="end")
        pic.line([(left, y(n)), (right, y(n))], "#ddd", 1)
    pic.text((left + right) / 2, low + 36, "ranks", anchor="middle")
    pic.line([(x(1), y(1)), (x(most), y(most))], "#222", 1, "5,4")
    pic.text(right + 16, high + 10, "- - ideal")
    for i, run in enumerate(runs):
        rows, colour = best_by_ranks(run["rows"]), COLOURS[i % len(COLOURS)]
        pic.line([(x(r["ranks"]), y(r["speedup"])) for r in rows], colour)
        for r in rows:
            pic.dot(x(r["ranks"]), y(r["speedup"]), colour)
        pic.text(right + 16, high + 32 + 20 * i, f"{run['parameters']['width']}x{run['parameters']['height']}: "
                 f"{rows[-1]['speedup']:.2f} x on {rows[-1]['ranks']}", fill=colour)
    if weak:
        colour = COLOURS[len(runs) % len(COLOURS)]
        pic.line([(x(r["ranks"]), y(r["speedup"])) for r in weak], colour, 2, "2,3")
        for r in weak:
            pic.dot(x(r["ranks"]), y(r["speedup"]), colour)
        pic.text(right + 16, high + 32 + 20 * len(runs), f"a picture per group: {weak[-1]['speedup']:.2f} x on {weak[-1]['ranks']}",
                 fill=colour)
    return pic


def stages_of(row, steps):
    waiting = (row["exposed_ms"] or 0) * steps / 1e3
    return [row["text_s"], max(row["denoise_s"] - waiting, 0), waiting, row["vae_s"]]


def stages(result):
    run = result["strong"][-1] if "strong" in result else result
    p, rows = run["parameters"], run["rows"]
    pic = Picture(720, 110 + 34 * len(rows), f"Where the time of a picture goes, {p['width']}x{p['height']}", about(run, result))
    left, right = 190, 640
    longest = max(sum(stages_of(r, p["steps"])) for r in rows)
    at = 16
    for name, colour in STAGES:
        pic.bar(at, 38, 12, 12, colour)
        pic.text(at + 18, 48, name)
        at += 40 + 7 * len(name)
    for i, r in enumerate(rows):
        y, x = 66 + 34 * i, left
        pic.text(left - 8, y + 16, f"{r['mesh']} ({r['ranks']} x {r['threads']})", anchor="end")
        for (_, colour), s in zip(STAGES, stages_of(r, p["steps"])):
            pic.bar(x, y, (right - left) * s / longest, 22, colour)
            x += (right - left) * s / longest
        pic.text(x + 6, y + 16, f"{r['image_s']:.3f} s")
    return pic


def ablation(result):
    rows = result["rows"]
    p = result["parameters"]
    pic = Picture(760, 80 + 34 * len(rows), f"Seconds per picture, {p['width']}x{p['height']}, one optimisation after the other",
                  about(result, result))
    left, right = 310, 590
    longest = max(r["image_s"] for r in rows)
    for i, r in enumerate(rows):
        y, width = 44 + 34 * i, (right - left) * r["image_s"] / longest
        pic.text(left - 8, y + 16, r["name"], anchor="end")
        pic.bar(left, y, width, 22, COLOURS[0])
        same = "same picture" if r["diff"] == 0 else f"differs by {r['diff']}/255"
        pic.text(left + width + 6, y + 16, f"{r['image_s']:.3f} s" + ("" if i == 0 else f", {same}"))
    return pic


KINDS = {"scaling": scaling, "stages": stages, "ablation": ablation}


def draw(kind, result, out):
    with open(result) as file:
        KINDS[kind](json.load(file)).write(out)


def draw_all(folder):
    for result in sorted(folder.glob("*.json")):
        begin = result.name.split("-")[0]
        for kind in {"scaling": ["scaling", "stages"], "ablation": ["ablation"]}.get(begin, []):
            draw(kind, result, folder / f"{kind}-of-{result.stem}.svg")
            print(folder / f"{kind}-of-{result.stem}.svg")


def main(args):
    if args[:1] == ["all"] and len(args) < 3:
        return draw_all(pathlib.Path(args[1] if len(args) == 2 else pathlib.Path(__file__).parent / "results"))
    if len(args) != 3 or args[0] not in KINDS:
        sys.exit(__doc__)
    draw(*args)


if __name__ == "__main__":
    main(sys.argv[1:])
