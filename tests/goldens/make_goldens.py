"""Makes the golden folders. See README.md.

    make_goldens.py [NAME...]                                  the models of configs.py (all, or the named ones)
    make_goldens.py --model DIR --out DIR [--prompt P ...]     goldens of any diffusers folder that has weights
"""
import argparse
import os
import shutil
import tempfile

import torch

import build
import capture
import configs

HERE = os.path.dirname(os.path.abspath(__file__))


def make(name):
    cfg = configs.MODELS[name]
    target = os.path.join(HERE, name)
    with tempfile.TemporaryDirectory() as tmp:
        model = os.path.join(tmp, name)
        build.build(cfg, model)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(model, target, ignore=shutil.ignore_patterns("*.safetensors"))
        stages, errors = capture.write_goldens(model, os.path.join(target, "golden"), cfg["run"])
    print(name)
    print(capture.summary(stages, errors), flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("names", nargs="*", metavar="NAME")
    p.add_argument("--model")
    p.add_argument("--out")
    p.add_argument("--prompt", default="a slice of pizza on a blue background")
    p.add_argument("--seed", type=int, default=7)
    p.add_argument("--width", type=int, default=128)
    p.add_argument("--height", type=int, default=128)
    p.add_argument("--steps", type=int, default=4)
    p.add_argument("--guidance", type=float, default=3.5)
    p.add_argument("--t5-len", type=int, default=32)
    a = p.parse_args()
    if a.model:
        run = dict(prompt=a.prompt, seed=a.seed, width=a.width, height=a.height, steps=a.steps, guidance=a.guidance,
                   t5_len=a.t5_len)
        print(capture.summary(*capture.write_goldens(a.model, a.out, run)))
        return
    for name in a.names or configs.MODELS:
        make(name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
