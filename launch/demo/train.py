"""Train the demo model: python train.py --out DIR [--device cuda].

Stages: data (pictures and token ids, on the CPU), vae, flux. A finished stage is
not repeated; an interrupted one continues from its checkpoint. export.py turns
the result into a diffusers folder.
"""

import argparse
import random
from pathlib import Path

import numpy as np
import torch

import data as demo
from loop import Clock, TimeUp

VARIANTS = 24    # captions per pair
T5_TOKENS = 16   # the longest caption, and the shortest text length trained
CLIP_TOKENS = 24


def pad_ids(ids, length, fill):
    assert len(ids) <= length
    return ids + [fill] * (length - len(ids))


def token_ids(out, pairs, seed):
    """Ids of every pair's caption variants, from the tokenizers written to `out`."""
    import vocab

    words = demo.vocabulary()
    vocab.write_t5(out / "tokenizer_2", words)
    vocab.write_clip(out / "tokenizer", words)
    t5 = vocab.T5Reference(out / "tokenizer_2")
    clip = vocab.ClipReference(out / "tokenizer")
    rng, known = random.Random(seed), set(words)
    texts = [demo.caption_variants(e, c, VARIANTS, rng, known,
                                   lambda text: len(t5(text)) <= T5_TOKENS) for e, c in pairs]
    vocab.check_tokenizers(out, [t for variants in texts for t in variants])
    eos = clip.vocab[vocab.CLIP_EOS]

    def bank(encode, length, fill):
        return np.array([[pad_ids(encode(t), length, fill) for t in variants]
                         for variants in texts], np.int16)

    return {"t5_ids": bank(t5, T5_TOKENS, 0), "clip_ids": bank(clip, CLIP_TOKENS, eos),
            "t5_null": np.array(pad_ids(t5(""), T5_TOKENS, 0)),
            "clip_null": np.array(pad_ids(clip(""), CLIP_TOKENS, eos)),
            "t5_vocab": t5.model.get_piece_size(), "clip_vocab": len(clip.vocab)}


def partners(train):
    """Trained colours of every emoji and trained emoji of every colour, as full tables
    (lists of unequal length are repeated cyclically)."""
    emoji, colours = len(demo.EMOJI_NAMES), len(demo.COLOUR_NAMES)
    colours_of = [np.resize([c for e, c in train if e == i], colours - 1) for i in range(emoji)]
    emoji_of = [np.resize([e for e, c in train if c == i], emoji) for i in range(colours)]
    return {"colours_of": np.stack(colours_of), "emoji_of": np.stack(emoji_of)}


def make_dataset(out, args):
    pairs, heldout = demo.all_pairs(), demo.choose_heldout(args.seed)
    demo.write_heldout(out / "heldout.txt", heldout)
    index = {p: i for i, p in enumerate(pairs)}
    train = [p for p in pairs if p not in set(heldout)]
    np.savez_compressed(
        out / "dataset.npz", bitmaps=demo.emoji_bitmaps(args.font),
        colours=np.array([demo.COLOURS[c] for c in demo.COLOUR_NAMES]),
        pairs=np.array(pairs), train=np.array(train), heldout=np.array(heldout),
        train_index=np.array([index[p] for p in train]),
        heldout_index=np.array([index[p] for p in heldout]),
        **partners(train), **token_ids(out, pairs, args.seed))
    print(f"{len(pairs)} pairs, {len(train)} trained, {len(heldout)} held out", flush=True)


def trained_vae(data, args, clock):
    """The finished VAE, from disk if the stage is done."""
    from model import make_vae
    from train_vae import train_vae

    path = Path(args.out) / "vae.pt"
    if not path.exists():
        vae = train_vae(data, args, clock)
        torch.save(half(vae), path)
    # Read back, so that the latents are those of the weights as exported.
    vae = make_vae().to(args.device)
    vae.load_state_dict(torch.load(path, map_location=args.device))
    return vae.eval()


def half(module):
    return {k: v.to("cpu", torch.bfloat16) for k, v in module.state_dict().items()}


def run_stages(args, clock):
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "dataset.npz").exists():
        make_dataset(out, args)
    if args.stage == "data":
        return
    data = np.load(out / "dataset.npz")
    torch.manual_seed(args.seed)
    vae = trained_vae(data, args, clock)
    if args.stage == "vae" or (out / "flux.pt").exists():
        return
    from train_flux import train_flux
    from train_vae import latents

    z, shift, scale = latents(vae, data, args.device)
    print(f"latents: shift {shift:.4f}, scale {scale:.4f}", flush=True)
    torch.manual_seed(args.seed)
    model = train_flux(data, z, args, clock)
    torch.save({"weights": half(model), "shift": shift, "scale": scale}, out / "flux.pt")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="folder for data, checkpoints and result")
    parser.add_argument("--stage", choices=["data", "vae", "all"], default="all",
                        help="stop after this stage")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9,
                        help="save and stop after so long; the same command continues")
    parser.add_argument("--checkpoint-minutes", type=float, default=10)
    parser.add_argument("--vae-steps", type=int, default=4500)
    parser.add_argument("--vae-batch", type=int, default=32)
    parser.add_argument("--flux-steps", type=int, default=11000)
    parser.add_argument("--flux-batch", type=int, default=256)
    parser.add_argument("--report", type=int, default=100, help="steps between lines of output")
    parser.add_argument("--font", default=demo.FONT)
    args = parser.parse_args()
    if torch.device(args.device).type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        # cuDNN's attention fails in the backward pass at this head size (torch 2.11).
        torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        run_stages(args, Clock(args.minutes))
    except TimeUp:
        print("time is up: run the same command again to continue", flush=True)


if __name__ == "__main__":
    main()
