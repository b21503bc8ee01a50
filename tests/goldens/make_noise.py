"""Writes noise/: torch.randn on the CPU for several seeds and sizes, in f32 and in bf16 (as bits).

All draws of one dtype stand one after another in one file; index.json says where each begins. Sizes below 16 take another
path in torch than larger ones, and a size that is not a multiple of 16 redraws its last 16 values.
"""
import json
import os

import numpy as np
import torch

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "noise")
SEEDS = [0, 42, 2**32 + 5, 2**63 - 25, 2**64 - 1]
SIZES = [1, 2, 5, 15, 16, 17, 31, 32, 64, 1000]
LARGE = {42: [4099]}


def draw(seed, size, dtype):
    return torch.randn(size, generator=torch.Generator("cpu").manual_seed(seed), dtype=dtype)


def main():
    os.makedirs(OUT, exist_ok=True)
    f32, bf16, index = [], [], []
    for seed in SEEDS:
        for size in SIZES + LARGE.get(seed, []):
            index.append({"seed": str(seed), "size": size, "offset": sum(len(x) for x in f32)})
            f32.append(draw(seed, size, torch.float32).numpy())
            bf16.append(draw(seed, size, torch.bfloat16).view(torch.int16).numpy().view(np.uint16))
    np.save(os.path.join(OUT, "f32.npy"), np.concatenate(f32))
    np.save(os.path.join(OUT, "bf16.npy"), np.concatenate(bf16))
    with open(os.path.join(OUT, "index.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(r) for r in index) + "\n]\n")
    print(len(index), "draws,", sum(len(x) for x in f32), "values")


if __name__ == "__main__":
    main()
