"""Writes the model folders that both sides load: each has one part of FLUX.1-dev's real size, the rest is small.

    models.py OUT          OUT/slice: 1 double + 2 single blocks, OUT/t5: a T5-XXL block, OUT/vae: the decoder; 2.5 GB in all

Weights come from the generator of tests/goldens (rng.py), tokenizers from there too. A folder that is complete is left alone.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "goldens"))
import build  # noqa: E402
import configs  # noqa: E402

SMALL = dict(
    transformer=dict(num_attention_heads=2, attention_head_dim=16, axes_dims_rope=[4, 6, 6], num_layers=1, num_single_layers=1,
                     guidance_embeds=True),
    # widths that a transformer of the real size asks for; one small layer
    clip=dict(hidden_size=768, intermediate_size=64, num_hidden_layers=1, num_attention_heads=12, hidden_act="quick_gelu",
              max_position_embeddings=77),
    t5=dict(d_model=4096, d_kv=64, num_heads=1, d_ff=64, num_layers=1, relative_attention_num_buckets=32,
            relative_attention_max_distance=128),
    vae=dict(block_out_channels=[8, 8, 8, 8], layers_per_block=1, norm_num_groups=4, latent_channels=16, scaling_factor=0.3611,
             shift_factor=0.1159, sample_size=1024, **configs.PLAIN))
REAL = {
    "slice": dict(transformer=dict(num_attention_heads=24, attention_head_dim=128, axes_dims_rope=[16, 56, 56], num_layers=1,
                                   num_single_layers=2, guidance_embeds=True)),
    "t5": dict(t5=dict(SMALL["t5"], num_heads=64, d_ff=10240)),
    "vae": dict(vae=dict(SMALL["vae"], block_out_channels=[128, 256, 512, 512], layers_per_block=2, norm_num_groups=32)),
}


def main(out):
    for seed, (name, real) in enumerate(REAL.items(), 1):
        folder, partial = os.path.join(out, name), os.path.join(out, name + ".partial")
        if os.path.isdir(folder):
            continue
        print(f"# writing {name}", flush=True)
        cfg = dict(SMALL, **real, weight_seed=seed, scheduler=configs.DEV, tokenizer_files="raw",
                   dtype=dict(configs.BF16, vae="F32"),
                   tokens=dict(clip_merges=60, clip_len=77, spm_vocab=200, spm_norm="rules", extra_ids=100))
        build.build(cfg, partial)
        os.rename(partial, folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    os.makedirs(sys.argv[1], exist_ok=True)
    main(sys.argv[1])
