"""Draws a random small FLUX.1 configuration, writes a complete model folder with weights and its goldens.

    random_model.py --seed N --out DIR     DIR gets the diffusers folder; DIR/golden the reference tensors

The weights are written by save_pretrained (names, shards and tokenizer.json as current libraries write them), so this also
tries layouts that the committed folders, which imitate published checkpoints, do not have.
"""
import argparse
import os
import random
import tempfile

import torch

import build
import capture
import configs
import tiny_tokenizers

PROMPTS = ["", "a cat", "a small fox near the old bridge, watercolor", "A  GREEN robot\tby the ﬁre — it's 35mm film! 日本 🦊",
           "an oil painting of the castle </s> and <extra_id_1> the <|endoftext|> river " * 3, "ｗｉｄｅ café caf\u0065\u0301 " * 2]


def draw(seed):
    """a configuration in the form of configs.MODELS"""
    r = random.Random(seed)
    heads = r.choice([1, 2, 3, 4, 5, 6, 8, 10, 12, 24])
    axes = [r.choice([2, 4, 6]) for _ in range(3)]
    while heads * sum(axes) > 200:
        axes = [max(2, a - 2) for a in axes]
        if axes == [2, 2, 2]:
            break
    groups = r.choice([2, 4, 8])
    levels = r.choice([2, 3, 4, 4, 5])
    latent = r.choice([4, 8, 16])
    factor = 2 ** levels  # pixels per token side: 2 x VAE factor
    tokens = [(4, 7), (7, 5), (6, 9), (11, 3), (3, 13)] if levels < 5 else [(3, 4), (5, 3)]
    w, h = r.choice(tokens)
    dev = r.random() < 0.6
    t5_heads, clip_heads = r.choice([1, 2, 3, 5]), r.choice([1, 2, 4])
    base = r.choice([16, 64, 256])
    scheduler = dict(configs.DEV, base_shift=r.choice([0.3, 0.5]), max_shift=r.choice([0.9, 1.15]), base_image_seq_len=base,
                     max_image_seq_len=base * r.choice([4, 16])) if dev else dict(configs.SCHNELL, shift=r.choice([1.0, 3.0]))
    return dict(
        weight_seed=seed, scheduler=scheduler, tokenizer_files=r.choice(["raw", "json"]), legacy_eos=r.random() < 0.4,
        dtype=configs.F32, t5_vocab_extra=r.choice([0, 5]), pixel_gain=0.3,
        transformer=dict(num_attention_heads=heads, attention_head_dim=sum(axes), axes_dims_rope=axes,
                         num_layers=r.randint(1, 3), num_single_layers=r.randint(1, 4), guidance_embeds=dev),
        clip=dict(hidden_size=clip_heads * r.choice([8, 12, 16]), intermediate_size=r.choice([24, 50, 64]),
                  num_hidden_layers=r.randint(1, 3), num_attention_heads=clip_heads, hidden_act=r.choice(["gelu", "quick_gelu"]),
                  max_position_embeddings=77, layer_norm_eps=r.choice([1e-5, 1e-6])),
        t5=dict(d_model=r.choice([16, 24, 40]), d_kv=r.choice([4, 6, 10, 16]), num_heads=t5_heads, d_ff=r.choice([20, 48]),
                num_layers=r.randint(1, 3), relative_attention_num_buckets=r.choice([8, 12, 32]),
                relative_attention_max_distance=r.choice([16, 20, 50, 128])),
        vae=dict(block_out_channels=[groups * r.randint(1, 16 // groups + 1) for _ in range(levels)],
                 layers_per_block=r.randint(1, 3), norm_num_groups=groups, latent_channels=latent,
                 scaling_factor=r.choice([0.3611, 0.18215, 1.3]), shift_factor=r.choice([0.1159, 0.0, -0.4]), sample_size=64,
                 use_quant_conv=r.random() < 0.5, use_post_quant_conv=r.random() < 0.5, mid_block_add_attention=r.random() < 0.7),
        tokens=dict(clip_merges=r.choice([0, 20, 70]), clip_len=77, clip_pad=r.choice([tiny_tokenizers.EOS, "!"]),
                    spm_vocab=r.choice([140, 180, 220]), spm_norm=r.choice(["rules", "identity", "nmt_nfkc"]),
                    extra_ids=r.choice([0, 3, 100])),
        save=dict(dtype=r.choice(["F32", "F16", "BF16"]), max_shard_size=r.choice(["10GB", "200KB"])),
        run=dict(prompt=r.choice(PROMPTS), seed=r.getrandbits(40), width=w * factor, height=h * factor, steps=r.randint(2, 6),
                 guidance=r.choice([1.0, 2.0, 3.5, 4.0]) if dev else None, t5_len=r.choice([5, 7, 13, 19, 24, 33])))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seed", type=int, required=True)
    p.add_argument("--out", required=True)
    a = p.parse_args()
    cfg = draw(a.seed)
    with tempfile.TemporaryDirectory() as tmp:
        build.build(cfg, tmp)
        pipe = capture.load(tmp, build.TORCH[cfg["save"]["dtype"]])
        pipe.save_pretrained(a.out, max_shard_size=cfg["save"]["max_shard_size"])
    if cfg["tokenizer_files"] == "raw":
        tiny_tokenizers.write_raw(cfg, a.out)
    build.clean(a.out)
    for key in ("transformer", "clip", "t5", "vae", "scheduler", "tokens", "save", "tokenizer_files", "run"):
        print(f"{key}: {cfg[key]}")
    print(capture.summary(*capture.write_goldens(a.out, os.path.join(a.out, "golden"), cfg["run"])))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
