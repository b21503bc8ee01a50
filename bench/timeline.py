#!/usr/bin/env python3
"""Sums up what bench/timeline.c wrote: where the time of one denoise step goes on one device.
usage: timeline.py FILE [--step N] [--list]     N: the step counted from the end, default 2; --list: every launch of it
A step ends with the check for finite numbers (count_nonfinite). Kernels are compute but for NCCL's, on whichever stream: a recorded
step with branches has many. 'gap': none of them runs."""
import argparse
import collections
import re


def short(name):
    if name.startswith("["):
        return name
    m = re.search(r"(?:^|\d)([a-z]\w*?_kernel|[a-z_]*sdpa\w*|nvjet\w*|cutlass\w*|cudnn\w*)", name)
    found = re.match(r"_Z\d*N?\d*(.*)", name)
    text = m.group(1) if m else (found.group(1) if found else name)
    return text[:70]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("file")
    p.add_argument("--step", type=int, default=2)
    p.add_argument("--list", action="store_true")
    a = p.parse_args()
    rows = []
    for text in open(a.file):
        begin, end, stream, name = text.rstrip("\n").split(" ", 3)
        rows.append((int(begin), int(end), int(stream), name))
    rows.sort()
    ends = [r[1] for r in rows if re.search(r"count_kernel|nonfinite", r[3])]
    if len(ends) < a.step + 1:
        raise SystemExit(f"{a.file}: {len(ends)} checks for finite numbers; step {a.step} from the end is not there")
    lo, hi = ends[-a.step - 1], ends[-a.step]
    step = [r for r in rows if lo <= r[0] and r[1] <= hi]
    total, n = collections.Counter(), collections.Counter()
    at, gap, gaps = lo, 0, collections.Counter()
    before = "start"
    for begin, end, stream, name in step:
        compute = not name.startswith("[") and "nccl" not in name
        key = ("" if compute else "(beside) ") + short(name)
        total[key] += end - begin
        n[key] += 1
        if a.list:
            print(f"{(begin - lo) / 1e3:10.1f} {(end - begin) / 1e3:8.1f} us  {key} {name[name.rfind('<'):] if '<' in name else ''}")
        if compute:
            if begin > at:
                gap += begin - at
                gaps[f"{before} -> {short(name)}"] += begin - at
            at, before = max(at, end), short(name)
    print(f"# {a.file}: step of {(hi - lo) / 1e6:.2f} ms, {len(step)} launches; gaps between kernels {gap / 1e6:.2f} ms")
    for key, t in total.most_common(45):
        print(f"{t / 1e6:9.3f} ms  x {n[key]:4d}  {t / n[key] / 1e3:8.1f} us  {key}")
    print("# gaps, the largest in sum")
    for key, t in gaps.most_common(14):
        print(f"{t / 1e6:9.3f} ms  {key}")


if __name__ == "__main__":
    main()
