"""Builds a complete small FLUX.1 folder in diffusers layout from a config dictionary: configs and tokenizers through
save_pretrained, weights from rng.py under the names and dtypes of published checkpoints.
"""
import json
import math
import os
import shutil

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

import rng
import tiny_tokenizers

TORCH = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
WEIGHTS = {"transformer": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model",
           "text_encoder_2": "model"}


def modules(cfg):
    """untrained modules from the config; sizes that follow from one another are filled in here"""
    torch.manual_seed(0)
    t, c, e, v = cfg["transformer"], cfg["clip"], cfg["t5"], cfg["vae"]
    levels = len(v["block_out_channels"])
    vae = AutoencoderKL(in_channels=3, out_channels=3, down_block_types=["DownEncoderBlock2D"] * levels,
                        up_block_types=["UpDecoderBlock2D"] * levels, **v)
    transformer = FluxTransformer2DModel(in_channels=4 * v["latent_channels"], joint_attention_dim=e["d_model"],
                                         pooled_projection_dim=c["hidden_size"], **t)
    clip_tok, t5_tok, clip_special = tiny_tokenizers.sizes(cfg)
    ids = dict(bos_token_id=clip_special["bos"], eos_token_id=clip_special["eos"], pad_token_id=clip_special["pad"])
    if cfg.get("legacy_eos"):
        ids = dict(bos_token_id=0, eos_token_id=2, pad_token_id=1)
    clip = CLIPTextModel(CLIPTextConfig(vocab_size=clip_tok, projection_dim=c["hidden_size"], **ids, **c))
    t5 = T5EncoderModel(T5Config(vocab_size=t5_tok + cfg.get("t5_vocab_extra", 0), feed_forward_proj="gated-gelu",
                                 dropout_rate=0.0, **e))
    return {"transformer": transformer, "vae": vae, "text_encoder": clip, "text_encoder_2": t5}


def scale_of(component, name, shape, cfg):
    """amplitude and mean of one tensor: unit-variance signals, attention scores of deviation 1 to 2"""
    if len(shape) == 1:
        if name.endswith(".bias"):
            return (0.3 if name == "decoder.conv_out.bias" else 0.05), 0.0
        return (0.5 if "norm_q" in name or "norm_k" in name or "norm_added" in name else 0.1), 1.0
    if "relative_attention_bias" in name:
        return 2.0, 0.0
    if name in ("shared.weight", "encoder.embed_tokens.weight") or "token_embedding" in name:
        return 1.7, 0.0
    if "position_embedding" in name:
        return 0.8, 0.0
    fan_in, gain = math.prod(shape[1:]), 1.0
    leaf = name.split(".")[-2]
    if component == "text_encoder_2":  # scores are q.k without 1/sqrt(d)
        gain = math.sqrt(1.5 / math.sqrt(cfg["t5"]["d_kv"])) if leaf in ("q", "k") else {"wo": 2.0}.get(leaf, 1.0)
    elif component == "text_encoder":
        gain = 1.3 if leaf in ("q_proj", "k_proj") else 1.0
    elif component == "vae":
        gain = 1.3 if leaf in ("to_q", "to_k") else 1.0
        gain = cfg.get("pixel_gain", 0.4) if name == "decoder.conv_out.weight" else gain
    elif leaf == "linear":  # adaLN: shift, scale, gate
        gain = 0.7
    elif "time_text_embed" in name:
        gain = 1.4
    return math.sqrt(3.0 / fan_in) * gain, 0.0


def tensors_of(component, module, cfg):
    """manifest entries under the names of published files"""
    dtype, out = cfg["dtype"][component], []
    for name, value in module.state_dict().items():
        if component == "text_encoder":
            if "position_ids" in name:
                continue
            name = ("text_model." if cfg.get("clip_prefix", True) else "") + name.removeprefix("text_model.")
        if component == "text_encoder_2" and name == ("shared.weight" if cfg.get("t5_embed_tokens") else
                                                      "encoder.embed_tokens.weight"):
            continue
        amp, mean = scale_of(component, name.removeprefix("text_model."), tuple(value.shape), cfg)
        out.append({"name": name, "dtype": dtype, "shape": list(value.shape), "amp": float("%.4g" % amp), "mean": mean})
    return sorted(out, key=lambda t: t["name"])


def split(component, tensors, shards, root):
    """manifest files; with more than one shard also writes the index json beside them"""
    stem = f"{component}/{WEIGHTS[component]}"
    if shards == 1:
        return [{"path": f"{stem}.safetensors", "tensors": tensors}]
    files = [{"path": f"{stem}-{i + 1:05d}-of-{shards:05d}.safetensors", "tensors": []} for i in range(shards)]
    size = [math.prod(t["shape"]) * rng.SAFETENSORS_BYTES[t["dtype"]] for t in tensors]
    done, total, where = 0, sum(size), {}
    for t, n in zip(tensors, size):
        file = files[min(shards - 1, done * shards // total)]
        file["tensors"].append(t)
        where[t["name"]] = file["path"].split("/")[1]
        done += n
    with open(os.path.join(root, f"{stem}.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": total}, "weight_map": where}, f, indent=1, sort_keys=True)
        f.write("\n")
    return files


def build(cfg, root):
    """writes the folder with weights and manifest.json; returns nothing"""
    shutil.rmtree(root, ignore_errors=True)
    mods = modules(cfg)
    clip_tok, t5_tok = tiny_tokenizers.tokenizers(cfg)
    for k in ("text_encoder", "text_encoder_2"):
        mods[k].to(TORCH[cfg["dtype"][k]])  # their config.json names the dtype
    pipe = FluxPipeline(scheduler=FlowMatchEulerDiscreteScheduler(**cfg["scheduler"]), tokenizer=clip_tok,
                        tokenizer_2=t5_tok, **mods)
    pipe.save_pretrained(root)
    manifest = {"seed": cfg["weight_seed"], "files": []}
    for component in WEIGHTS:
        folder = os.path.join(root, component)
        for f in os.listdir(folder):
            if f != "config.json":
                os.remove(os.path.join(folder, f))
        tensors = tensors_of(component, mods[component], cfg)
        manifest["files"] += split(component, tensors, cfg.get("shards", {}).get(component, 1), root)
    if cfg["tokenizer_files"] == "raw":
        tiny_tokenizers.write_raw(cfg, root)
    rng.write_manifest(os.path.join(root, "manifest.json"), manifest)
    rng.write_weights(manifest, root)
    clean(root)


def clean(root):
    """drops what depends on the machine that ran this"""
    for path in ("model_index.json", "tokenizer/tokenizer_config.json", "tokenizer_2/tokenizer_config.json"):
        with open(os.path.join(root, path)) as f:
            d = json.load(f)
        for k in ("_name_or_path", "is_local", "local_files_only"):
            d.pop(k, None)
        with open(os.path.join(root, path), "w") as f:
            json.dump(d, f, indent=2, ensure_ascii=False)
            f.write("\n")
