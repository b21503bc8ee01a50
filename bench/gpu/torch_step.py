#!/usr/bin/env python3
"""fluxpar beside PyTorch on one GPU: a picture's denoise steps by turns in one run, FLUX.1-dev's size, weights drawn at random.

    torch_step.py --fluxpar BUILD/fluxpar [--runs 3] [--size 1024] [--steps 28] [--ways eager,compile,autotune] [--json FILE]

torch's side is FluxTransformer2DModel of diffusers in bf16, with 512 text rows, guidance, and Euler's update in f32. Ways: 'eager' as
it is; 'compile' torch.compile of the whole, q, k and v in one product, attention by cuDNN; 'autotune' the same with
mode="max-autotune" (CUDA graphs, products tried one by one). Each run of each side draws a whole picture's steps after warm ones; a
picture's time is the median of its steps, which are timed on the device. The last line says how much longer torch's best way takes.
Getting ready takes minutes ('compile' 156 s beside 16 cores, 'autotune' longer); FILE is written after each way.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

import torch

TEXT = 512
TINY = dict(num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=64,
            pooled_projection_dim=32, axes_dims_rope=(4, 6, 6))


def network(device, tiny):
    from diffusers import FluxTransformer2DModel
    torch.manual_seed(1)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        net = FluxTransformer2DModel(in_channels=64, guidance_embeds=True, **(TINY if tiny else {}))
    torch.set_default_dtype(torch.float32)
    return net.eval().requires_grad_(False)


def attention_by(net, backend):
    """whether diffusers took it"""
    try:
        net.set_attention_backend(backend)
        return True
    except Exception as e:  # an older one, or a library without it
        print(f"# attention by {backend}: no: {str(e)[:100]}")
        return False


class Picture:
    """the denoise steps of one picture, on the device alone"""

    def __init__(self, net, size, device):
        side, c = size // 16, net.config
        ids = torch.zeros(side, side, 3, device=device)
        ids[..., 1] += torch.arange(side, device=device)[:, None]
        ids[..., 2] += torch.arange(side, device=device)[None, :]

        def random(*shape):
            return torch.randn(shape, device=device, dtype=torch.bfloat16)
        self.kept = dict(encoder_hidden_states=random(1, TEXT, c.joint_attention_dim), pooled_projections=random(1, c.pooled_projection_dim),
                         guidance=torch.full([1], 3.5, device=device), img_ids=ids.reshape(-1, 3),
                         txt_ids=torch.zeros(TEXT, 3, device=device), return_dict=False)
        self.noise = torch.randn((1, side * side, 64), device=device)

    def draw(self, call, steps, marks=None):
        x = self.noise.clone()
        sigma = torch.linspace(1, 0, steps + 1).tolist()
        for i in range(steps):
            if marks:
                marks[i].record()
            torch.compiler.cudagraph_mark_step_begin()
            t = torch.full([1], sigma[i], device=x.device, dtype=torch.bfloat16)
            out = call(hidden_states=x.bfloat16(), timestep=t, **self.kept)[0]
            x = x + (sigma[i + 1] - sigma[i]) * out.float()
        if marks:
            marks[steps].record()
        if not bool(torch.isfinite(x).all()):
            sys.exit("torch_step.py: torch's picture is not finite")


def timed(picture, call, steps, cpu):
    """median milliseconds of a step"""
    if cpu:
        begin = time.perf_counter()
        picture.draw(call, steps)
        return (time.perf_counter() - begin) / steps * 1e3
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
    picture.draw(call, steps, marks)
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in zip(marks, marks[1:]))


def conclude(result, path):
    """torch's best way so far, and how much longer than fluxpar it takes; None: it ran in none"""
    ran = {n: statistics.median(w["ms"]) for n, w in result["ways"].items() if "ms" in w}
    if ran:
        result["best"] = min(ran, key=ran.get)
        result["ratio"] = ran[result["best"]] / statistics.median(result["fluxpar_ms"])
    if path:
        with open(path, "w") as f:
            json.dump(result, f, indent=1)
            f.write("\n")
    return result.get("best")


def way_of(net, name):
    """the call of a way, and what is said of it"""
    if name == "eager":
        return net, "diffusers as it is"
    net.fuse_qkv_projections()
    cudnn = next(net.parameters()).is_cuda and attention_by(net, "_native_cudnn")
    said = ("q, k and v in one product, " + ("attention by cuDNN, " if cudnn else "")) + "torch.compile"
    if name == "compile":
        return torch.compile(net, fullgraph=True), said
    if name == "autotune":
        return torch.compile(net, fullgraph=True, mode="max-autotune"), said + ', mode="max-autotune"'
    sys.exit(f"torch_step.py: no way {name}; there are eager, compile, autotune")


def own(a, folder):
    """median milliseconds of a step of the second picture"""
    command = [a.fluxpar, "generate", "-m", a.model, "-p", "cat", "-S", "5", "-n", "2", "-W", str(a.size), "-H", str(a.size), "--steps",
               str(a.steps), "--backend", a.backend, "-f", "-q", "-o", os.path.join(folder, "own.png"), "--report",
               os.path.join(folder, "own.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"torch_step.py: fluxpar failed: {done.stderr[-500:]}")
    with open(os.path.join(folder, "own.json")) as f:
        return statistics.median(json.load(f)["images"][-1]["timings"]["step"]) * 1e3


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--fluxpar", required=True)
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--size", type=int, default=1024)
    p.add_argument("--steps", type=int, default=28)
    p.add_argument("--ways", default="eager,compile,autotune")
    p.add_argument("--model", default="synthetic:flux-dev")
    p.add_argument("--json", help="the result, with all samples")
    p.add_argument("--rehearse", action="store_true", help="on the CPU, a tiny network on torch's side: what it prints is no result")
    a = p.parse_args()
    device = "cpu" if a.rehearse else "cuda"
    a.backend = "cpu" if a.rehearse else "cuda"
    import diffusers
    machine = "CPU, a rehearsal" if a.rehearse else torch.cuda.get_device_name(0)
    version = subprocess.run([a.fluxpar, "--version"], capture_output=True, text=True).stdout
    libraries = "; ".join(re.findall(rf"^backend {a.backend} +(.*)$", version, re.M))
    print(f"# {machine}; torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, diffusers {diffusers.__version__}; "
          f"fluxpar: {libraries}; {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}")
    result = {"machine": machine, "torch": torch.__version__, "diffusers": diffusers.__version__, "size": a.size, "steps": a.steps,
              "libraries": libraries, "ways": {}, "fluxpar_ms": []}
    net = network(device, a.rehearse)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        picture = Picture(net, a.size, device)
        own(a, folder)  # plans and trials are kept from here on
        for name in a.ways.split(","):
            call, said = way_of(net, name)
            begin = time.perf_counter()
            try:
                picture.draw(call, 3)
            except Exception as e:  # the others may do
                print(f"  {name}: failed: {' '.join(str(e).split())[:300]}", flush=True)
                result["ways"][name] = {"failed": str(e)[:1000], "what": said}
                continue
            if not a.rehearse:
                torch.cuda.synchronize()
            ready = time.perf_counter() - begin
            times, beside = [], []
            for i in range(a.runs):
                pair = [lambda: times.append(timed(picture, call, a.steps, a.rehearse)), lambda: beside.append(own(a, folder))]
                for one in pair if i % 2 == 0 else reversed(pair):
                    one()
            result["ways"][name] = {"ms": times, "ready_s": ready, "what": said}
            result["fluxpar_ms"] += beside
            ratio = statistics.median(times) / statistics.median(beside)
            print(f"  {name:9} {statistics.median(times):8.2f} ms   fluxpar {statistics.median(beside):8.2f} ms   {ratio:.3f} x   "
                  f"({', '.join(f'{t:.1f}' for t in times)} and {', '.join(f'{t:.1f}' for t in beside)}; {said}; ready in {ready:.0f} s)",
                  flush=True)
            conclude(result, a.json)
    best = conclude(result, a.json)
    if not best:
        sys.exit("torch_step.py: torch ran in no way")
    print(f"# torch's best way, {best}, takes {result['ratio']:.3f} times as long as fluxpar")


if __name__ == "__main__":
    main()
