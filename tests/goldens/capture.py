"""Runs the reference (diffusers FluxPipeline) on a model folder and writes its golden tensors."""
import json
import math
import os
import platform
import shutil

import diffusers
import numpy as np
import tokenizers
import torch
import transformers
from diffusers import FluxPipeline

import rng


class Tap:
    """One pipeline run with everything a test compares, by stage name, as f32 arrays.

    exact_time: timestep and guidance reach the embedder in f32 also in a bf16 pipeline (which by itself rounds them first).
    """

    def __init__(self, pipe, run, noise=None, exact_time=False):
        self.pipe, self.run, self.out = pipe, run, {}
        hooks = [pipe.text_encoder.register_forward_hook(lambda m, i, o: self.put("clip_pooled", o.pooler_output[0])),
                 pipe.text_encoder_2.register_forward_hook(lambda m, i, o: self.put("t5_out", o[0][0]))]
        hooks += [b.register_forward_hook(self.block("double", n)) for n, b in enumerate(pipe.transformer.transformer_blocks)]
        hooks += [b.register_forward_hook(self.block("single", n))
                  for n, b in enumerate(pipe.transformer.single_transformer_blocks)]
        hooks += [pipe.transformer.register_forward_hook(lambda m, i, o: self.put("noise_pred_00", o[0][0]))]
        hooks += [pipe.vae.decoder.register_forward_hook(lambda m, i, o: self.put("pixels", o[0].permute(1, 2, 0)))]
        decode = pipe.vae.decode
        pipe.vae.decode = lambda z, **kw: (self.put("vae_in", z[0]), decode(z, **kw))[1]
        embed = pipe.transformer.time_text_embed
        if exact_time:
            plain = embed.forward
            embed.forward = lambda *a: plain(*self.f32_time(len(a)), a[-1])
        first = pipe.prepare_latents
        pipe.prepare_latents = lambda *a: self.noise(first(*a))
        image = pipe(run["prompt"], width=run["width"], height=run["height"], num_inference_steps=run["steps"],
                     guidance_scale=run["guidance"] or 0.0, max_sequence_length=run["t5_len"], output_type="np",
                     generator=torch.Generator("cpu").manual_seed(run["seed"]), latents=noise,
                     callback_on_step_end=self.step).images[0]
        self.rgb8 = (image * 255).round().astype(np.uint8)  # as VaeImageProcessor.numpy_to_pil
        for h in hooks:
            h.remove()
        del pipe.vae.decode, pipe.prepare_latents
        if exact_time:
            del embed.forward

    def put(self, name, tensor):
        self.out.setdefault(name, tensor.detach().float().numpy().copy())

    def f32_time(self, n):
        t = (self.pipe.current_timestep / 1000).expand(1) * 1000
        return [t, torch.full([1], self.run["guidance"] or 0.0) * 1000][: n - 1]

    def noise(self, result):
        self.put("noise", result[0][0])
        return result

    def step(self, pipe, i, t, kw):
        self.put(f"latents_{i + 1:02d}", kw["latents"][0])
        return {}

    def block(self, kind, n):
        def hook(module, args, out):  # both kinds return (text rows, image rows)
            txt, img = out[0][0], out[1][0]
            if kind == "double":
                self.put(f"double_{n:02d}_txt", txt)
                self.put(f"double_{n:02d}_img", img)
            else:
                self.put(f"single_{n:02d}", torch.cat([txt, img]))
        return hook


def load(model, dtype):
    pipe = FluxPipeline.from_pretrained(model, torch_dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def token_ids(pipe, run):
    kw = dict(padding="max_length", truncation=True)
    return {"ids_clip": pipe.tokenizer(run["prompt"], max_length=pipe.tokenizer_max_length, **kw)["input_ids"],
            "ids_t5": pipe.tokenizer_2(run["prompt"], max_length=run["t5_len"], **kw)["input_ids"]}


def encoder_moments(pipe, run):
    """posterior mean and log-variance of a synthetic image in [-1, 1): rng tensor "golden/encoder_in", seed 0, [3, h, w]"""
    shape = [3, run["encoder_height"], run["encoder_width"]]
    x = torch.from_numpy(rng.generate("golden/encoder_in", 0, shape, 1.0))[None].to(pipe.vae.dtype)
    with torch.no_grad():
        dist = pipe.vae.encode(x).latent_dist
    return {"encoder_mean": dist.mean[0].float().numpy(), "encoder_logvar": dist.logvar[0].float().numpy()}


def error(y, g):
    """||y - g|| / ||g|| in f64"""
    y, g = y.astype(np.float64).ravel(), g.astype(np.float64).ravel()
    return float(np.linalg.norm(y - g) / np.linalg.norm(g))


def write_goldens(model, out, run):
    """runs `model` (a folder with weights) in f32 and bf16 and writes `out`/*.npy, run.json, bf16_errors*.json"""
    torch.manual_seed(0)
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    pipe = load(model, torch.float32)
    factor = 2 * pipe.vae_scale_factor
    assert run["width"] % factor == 0 and run["height"] % factor == 0
    run = dict(run, encoder_width=run["width"], encoder_height=run["height"])
    tap = Tap(pipe, run)
    stages = dict(tap.out, **encoder_moments(pipe, run))
    for name, x in stages.items():
        assert np.isfinite(x).all(), name
        np.save(os.path.join(out, name + ".npy"), x.astype(np.float32))
    for name, ids in token_ids(pipe, run).items():
        np.save(os.path.join(out, name + ".npy"), np.array(ids, np.int32))
    np.save(os.path.join(out, "sigmas.npy"), pipe.scheduler.sigmas.numpy().astype(np.float32))
    np.save(os.path.join(out, "rgb8.npy"), tap.rgb8)

    low = load(model, torch.bfloat16)
    own = Tap(low, dict(run, steps=1))  # its own noise, drawn in bf16 from the same seed
    np.save(os.path.join(out, "noise_bf16.npy"), rng.bf16_bits(own.out["noise"]))
    for name, exact_time in (("bf16_errors.json", False), ("bf16_errors_exact_time.json", True)):
        tap16 = Tap(low, run, torch.from_numpy(stages["noise"])[None], exact_time)
        stages16 = dict(tap16.out, **encoder_moments(low, run))
        errors = {k: float("%.4g" % error(stages16[k], g)) for k, g in stages.items()}
        with open(os.path.join(out, name), "w") as f:
            json.dump(errors, f, indent=1)
            f.write("\n")
    run["versions"] = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
                       "diffusers": diffusers.__version__, "transformers": transformers.__version__,
                       "tokenizers": tokenizers.__version__}
    with open(os.path.join(out, "run.json"), "w") as f:
        json.dump(run, f, indent=1, ensure_ascii=False)
        f.write("\n")
    return stages, errors


def summary(stages, errors):
    """one line per stage: shape, size, and the error of bf16 (with exact time)"""
    rows = []
    for k, x in stages.items():
        shape = "x".join(map(str, x.shape))
        rows.append(f"  {k:16s} {shape:14s} rms {math.sqrt(float((x.astype(np.float64) ** 2).mean())):7.3f}"
                    f"  max {float(np.abs(x).max()):7.3f}  bf16 error {errors[k]:.2e}")
    return "\n".join(rows)
