"""Measure the demo model: generate, and find the nearest of all rendered pictures.

  python evaluate.py --json figures.json --sheet sheet.png     diffusers, on the CPU
  python evaluate.py --generator build/fluxpar                 the fluxpar program

A picture counts as right when the nearest of all pictures (trained and held out,
by squared difference of pixels) has the prompt's emoji and colour.
"""

import argparse
import json
import random
import shlex
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

import data as demo

HERE = Path(__file__).parent
GOALS = {"trained": 98, "held out": 80}  # right pictures of 100


class DiffusersGenerator:
    """FluxPipeline on the CPU, in batches. It can also null an encoder's output."""

    def __init__(self, args):
        import torch
        from diffusers import FluxPipeline

        self.torch, self.args = torch, args
        self.pipe = FluxPipeline.from_pretrained(
            args.model, dtype=getattr(torch, args.dtype))
        self.pipe.set_progress_bar_config(disable=True)

    def encode(self, prompts, null):
        """Embeddings, one encoder's replaced by those of the empty prompt on request."""
        def run(texts):
            return self.pipe.encode_prompt(
                prompt=texts, prompt_2=texts, max_sequence_length=self.args.text_length)[:2]

        text, pooled = run(prompts)
        empty_text, empty_pooled = run([""] * len(prompts))
        return (empty_text if null == "T5" else text,
                empty_pooled if null == "CLIP" else pooled)

    def batch(self, prompts, seeds, null):
        text, pooled = self.encode(prompts, null)
        pictures = self.pipe(
            prompt_embeds=text, pooled_prompt_embeds=pooled, height=demo.SIZE, width=demo.SIZE,
            num_inference_steps=self.args.steps,
            generator=[self.torch.Generator().manual_seed(s) for s in seeds]).images
        return [np.asarray(p) for p in pictures]

    def __call__(self, prompts, seeds, null=None, size=10):
        out = []
        for i in range(0, len(prompts), size):
            out += self.batch(prompts[i:i + size], seeds[i:i + size], null)
        return np.stack(out)


class CommandGenerator:
    """One call of the program for every picture."""

    def __init__(self, args):
        self.args = args
        self.command = shlex.split(args.generator)

    def one(self, prompt, seed, folder):
        from PIL import Image

        file = Path(folder) / "img.png"
        subprocess.run([*self.command, "generate", "-m", str(self.args.model), "-p", prompt,
                        "-S", str(seed), "--steps", str(self.args.steps), "-o", str(file),
                        "-f", "-q"], check=True)
        return np.asarray(Image.open(file).convert("RGB"))

    def __call__(self, prompts, seeds):
        with tempfile.TemporaryDirectory() as folder:
            return np.stack([self.one(p, s, folder) for p, s in zip(prompts, seeds)])


class Judge:
    """Nearest-picture search over all pairs."""

    def __init__(self, font):
        self.pairs = demo.all_pairs()
        self.pictures = demo.render(demo.emoji_bitmaps(font), self.pairs)
        self.flat = self.pictures.reshape(len(self.pairs), -1).astype(np.float32)
        self.norms = np.square(self.flat).sum(1)

    def nearest(self, images):
        flat = images.reshape(len(images), -1).astype(np.float32)
        return np.argmin(self.norms - 2 * flat @ self.flat.T, axis=1)

    def score(self, images, pairs):
        """Counts, misses, and how close the pictures are to the rendered ones."""
        found = [self.pairs[i] for i in self.nearest(images)]
        target = self.pictures[[self.pairs.index(p) for p in pairs]].astype(np.float32)
        error = np.square(images - target).mean((1, 2, 3)).clip(1e-3)
        return {
            "count": len(pairs),
            "right": sum(f == p for f, p in zip(found, pairs)),
            "emoji": sum(f[0] == p[0] for f, p in zip(found, pairs)),
            "colour": sum(f[1] == p[1] for f, p in zip(found, pairs)),
            "psnr": round(float(np.mean(20 * np.log10(255) - 10 * np.log10(error))), 2),
            "misses": [f"{name(p)} -> {name(f)}" for f, p in zip(found, pairs) if f != p],
        }


def name(pair):
    return demo.caption(demo.EMOJI_NAMES[pair[0]], demo.COLOUR_NAMES[pair[1]])


def draw_prompts(pairs, count, rng):
    """(pairs, prompts with or without article, new seeds); pairs repeat if too few."""
    pool = []
    while len(pool) < count:
        pool += rng.sample(pairs, len(pairs))
    pool = pool[:count]
    prompts = []
    for e, c in pool:
        title = demo.EMOJI_NAMES[e]
        article = rng.choice(["", demo.article_for(title)])
        prompts.append(demo.caption(title, demo.COLOUR_NAMES[c], article))
    return pool, prompts, [rng.randrange(2 ** 31) for _ in pool]


def evaluate(args, generator, judge):
    heldout = demo.read_heldout()
    trained = [p for p in judge.pairs if p not in set(heldout)]
    rng = random.Random(args.seed)
    results, images = {}, {}
    for label, pairs in (("trained", trained), ("held out", heldout)):
        pool, prompts, seeds = draw_prompts(pairs, args.count, rng)
        begun = time.monotonic()
        images[label] = generator(prompts, seeds)
        results[label] = judge.score(images[label], pool)
        results[label]["seconds"] = round(time.monotonic() - begun, 1)
        report(label, results[label])
        if label == "trained" and isinstance(generator, DiffusersGenerator):
            half = args.count // 2  # the same prompts and seeds, one encoder nulled
            for null in ("CLIP", "T5"):
                key = f"{null} nulled"
                images[key] = generator(prompts[:half], seeds[:half], null)
                change = np.abs(images[key].astype(np.float32) - images[label][:half])
                results[key] = judge.score(images[key], pool[:half])
                results[key]["mean_pixel_change"] = round(float(change.mean()), 1)
                results[key]["least_pixel_change"] = round(float(change.mean((1, 2, 3)).min()), 1)
                report(key, results[key])
    return results, images


def report(label, result):
    print(label, json.dumps(result), flush=True)


def contact_sheet(path, images, columns=12, cell=72, margin=76):
    """Rows of samples, with a label in front; a palette keeps the file small."""
    from PIL import Image, ImageDraw

    rows = [(label, images[label][i * columns:(i + 1) * columns])
            for label, count in (("trained", 4), ("held out", 4)) for i in range(count)]
    rows += [(label, images[label][:columns]) for label in images if "nulled" in label]
    sheet = Image.new("RGB", (margin + columns * cell, len(rows) * cell), "white")
    draw = ImageDraw.Draw(sheet)
    for y, (label, pictures) in enumerate(rows):
        draw.text((4, y * cell + cell // 2 - 6), label, fill="black")
        for x, picture in enumerate(pictures):
            small = Image.fromarray(picture).resize((cell, cell), Image.LANCZOS)
            sheet.paste(small, (margin + x * cell, y * cell))
    sheet.quantize(256).save(path, optimize=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HERE / "model")
    parser.add_argument("--generator", help="fluxpar program (may hold a launcher: 'mpirun -n 2 "
                        "build/fluxpar'); without it diffusers generates")
    parser.add_argument("--count", type=int, default=100, help="prompts per set")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--seed", type=int, default=1, help="chooses prompts and their seeds")
    parser.add_argument("--text-length", type=int, default=32)
    parser.add_argument("--dtype", default="float32", help="diffusers' weights and arithmetic")
    parser.add_argument("--font", default=demo.FONT)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet here (PNG)")
    args = parser.parse_args()
    generator = CommandGenerator(args) if args.generator else DiffusersGenerator(args)
    results, images = evaluate(args, generator, Judge(args.font))
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")
    if args.sheet:
        contact_sheet(args.sheet, images)
    scaled = {k: GOALS[k] * results[k]["count"] / 100 for k in GOALS}
    raise SystemExit(any(results[k]["right"] < scaled[k] for k in GOALS))


if __name__ == "__main__":
    main()
