"""One measurement of PyTorch and diffusers, in a process of its own.

    torch_side.py ROW.json DUMP OUT.json     ROW: what compare.py asks for; DUMP: what fluxpar dumped, '-' for none

OUT gets {"seconds", "max_diff"}: the median of the timed calls, and the largest difference between fluxpar's output and the one
computed here from the same inputs, over the largest magnitude of this one (null without a dump).
"""
import json
import os
import statistics
import sys
import time

import numpy as np
import torch

DTYPE = {"bf16": torch.bfloat16, "f32": torch.float32}


def timed(row, call):
    """the last result, and the median time of row["calls"] calls after one that is not counted"""
    result, times = call(), []
    for _ in range(row["calls"]):
        begin = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - begin)
    return result, statistics.median(times)


def read(dump, name):
    return torch.from_numpy(np.load(os.path.join(dump, name + ".npy")))


def apart(mine, theirs):
    mine, theirs = mine.double(), theirs.double()
    return float((mine - theirs).abs().max() / mine.abs().max())


def input_of(dump, name, shape, dtype):
    """fluxpar's tensor, or without a dump one of that shape"""
    x = read(dump, name) if dump else torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return x.reshape(shape).to(dtype)


def transformer(row, dump, dtype):
    """the transformer's output at the first step"""
    from diffusers import FluxTransformer2DModel
    net = FluxTransformer2DModel.from_pretrained(row["model"], subfolder="transformer", torch_dtype=dtype).eval()
    side, text = row["size"] // 16, row["t5_len"]
    ids = torch.zeros(side, side, 3)
    ids[..., 1] += torch.arange(side)[:, None]
    ids[..., 2] += torch.arange(side)[None, :]
    c = net.config
    kw = dict(hidden_states=input_of(dump, "noise", (1, side * side, c.in_channels), dtype),
              encoder_hidden_states=input_of(dump, "t5_out", (1, text, c.joint_attention_dim), dtype),
              pooled_projections=input_of(dump, "clip_pooled", (1, c.pooled_projection_dim), dtype),
              timestep=torch.ones(1, dtype=dtype), guidance=torch.full([1], row["guidance"]),
              img_ids=ids.reshape(-1, 3), txt_ids=torch.zeros(text, 3), return_dict=False)
    out, seconds = timed(row, lambda: net(**kw)[0][0])
    return seconds, apart(out, read(dump, "noise_pred_00")) if dump else None


def decoder(row, dump, dtype):
    """the decoder's pixels"""
    from diffusers import AutoencoderKL
    net = AutoencoderKL.from_pretrained(row["model"], subfolder="vae", torch_dtype=dtype).eval()
    side = row["size"] // 8
    # fluxpar keeps pictures channels last
    z = input_of(dump, "vae_in", (1, side, side, net.config.latent_channels), dtype).permute(0, 3, 1, 2).contiguous()
    out, seconds = timed(row, lambda: net.decode(z, return_dict=False)[0][0])
    return seconds, apart(out.permute(1, 2, 0), read(dump, "pixels")) if dump else None


def t5(row, dump, dtype):
    """the T5 encoder's output; tokenizing is counted on both sides"""
    from transformers import T5EncoderModel, T5Tokenizer
    net = T5EncoderModel.from_pretrained(row["model"], subfolder="text_encoder_2", torch_dtype=dtype).eval()
    tok = T5Tokenizer.from_pretrained(row["model"], subfolder="tokenizer_2")

    def call():
        ids = tok(row["prompt"], padding="max_length", truncation=True, max_length=row["t5_len"], return_tensors="pt")
        return net(ids.input_ids)[0][0]
    out, seconds = timed(row, call)
    return seconds, apart(out, read(dump, "t5_out")) if dump else None


def picture(row, dump, dtype):
    """a whole picture as a PNG file; with calls = 0 the process is what is timed, and one picture is made"""
    from diffusers import FluxPipeline
    pipe = FluxPipeline.from_pretrained(row["model"], torch_dtype=dtype)
    pipe.set_progress_bar_config(disable=True)

    def call():
        image = pipe(row["prompt"], width=row["size"], height=row["size"], num_inference_steps=row["steps"],
                     guidance_scale=row["guidance"], max_sequence_length=row["t5_len"],
                     generator=torch.Generator("cpu").manual_seed(row["seed"])).images[0]
        image.save(row["png"])
        return image
    image, seconds = (call(), 0.0) if row["calls"] == 0 else timed(row, call)
    if not dump:
        return seconds, None
    mine = torch.from_numpy(np.asarray(image).astype(np.float64))
    return seconds, apart(mine, read(dump, "rgb8"))


def main(row_file, dump, out):
    with open(row_file) as f:
        row = json.load(f)
    torch.set_num_threads(row["threads"])
    torch.manual_seed(0)
    part = {"step": transformer, "vae": decoder, "text": t5, "picture": picture}[row["stage"]]
    with torch.inference_mode():
        seconds, diff = part(row, None if dump == "-" else dump, DTYPE[row["dtype"]])
    with open(out, "w") as f:
        json.dump({"seconds": seconds, "max_diff": diff, "torch": torch.__version__}, f)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
