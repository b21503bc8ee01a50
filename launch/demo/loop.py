"""What both training stages share: schedule, moving average, checkpoints, time limit."""

import os
import time
from contextlib import nullcontext
from pathlib import Path

import torch


class TimeUp(Exception):
    """The time limit was reached; the checkpoint on disk continues from here."""


class Clock:
    def __init__(self, minutes):
        self.start, self.limit = time.monotonic(), minutes * 60

    def seconds(self):
        return time.monotonic() - self.start

    def up(self):
        return self.seconds() > self.limit


class Ema:
    """Moving average of the weights; what is exported is the average."""

    def __init__(self, module, decay):
        self.decay = decay
        self.live = list(module.parameters())
        self.mean = [p.detach().clone() for p in self.live]

    @torch.no_grad()
    def update(self, step):
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.mean, self.live, weight)

    @torch.no_grad()
    def swap(self):
        """Exchange live weights and average; call again to undo."""
        for p, m in zip(self.live, self.mean):
            kept = p.detach().clone()
            p.copy_(m)
            m.copy_(kept)


def autocast(device):
    """bf16 matrix products over f32 weights; CPUs without bf16 units gain nothing by it."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16) if kind == "cuda" else nullcontext()


def make_optimizer(module, lr, weight_decay, fused):
    """AdamW, with weight decay on matrices and convolutions alone."""
    matrices = [p for p in module.parameters() if p.dim() >= 2]
    vectors = [p for p in module.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay},
              {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99), fused=fused)


def rate(step, steps, warmup, hold):
    """Warm up, stay, then fall linearly to zero."""
    return min((step + 1) / warmup, 1.0, (1 - step / steps) / (1 - hold))


class Stage:
    """One training loop over `steps` calls of `loss_of(step)`."""

    def __init__(self, name, module, steps, lr, args, clock, decay=0.01, ema=0.999):
        self.name, self.module, self.steps, self.lr = name, module, steps, lr
        self.args, self.clock = args, clock
        self.path = Path(args.out) / f"{name}.ckpt"
        self.optimizer = make_optimizer(module, lr, decay, fused=args.device != "cpu")
        self.ema = Ema(module, ema)
        self.generator = torch.Generator(args.device).manual_seed(args.seed)
        self.step, self.seconds = 0, 0.0
        if self.path.exists():
            self.load()

    def load(self):
        state = torch.load(self.path, map_location=self.args.device)
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        for mean, saved in zip(self.ema.mean, state["ema"]):
            mean.copy_(saved)
        self.generator.set_state(state["generator"].cpu())
        self.step, self.seconds = state["step"], state["seconds"]
        print(f"{self.name}: resuming at step {self.step}", flush=True)

    def save(self):
        torch.save({"module": self.module.state_dict(), "ema": self.ema.mean,
                    "optimizer": self.optimizer.state_dict(), "step": self.step,
                    "generator": self.generator.get_state(), "seconds": self.seconds},
                   f"{self.path}.new")
        os.replace(f"{self.path}.new", self.path)  # never a half-written checkpoint

    def update(self, loss):
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * rate(self.step, self.steps, warmup=100, hold=0.3)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.ema.update(self.step)
        self.step += 1

    def run(self, loss_of, report_every, progress=None, progress_every=None):
        """Train to the end; leave the averaged weights in the module."""
        saved, begun, total = self.clock.seconds(), self.clock.seconds() - self.seconds, 0.0
        while self.step < self.steps:
            loss = loss_of(self.step)
            self.update(loss)
            total = total + loss.detach()  # stays on the device: no wait per step
            if self.step % report_every == 0:
                self.seconds = self.clock.seconds() - begun
                print(f"{self.name} {self.step}/{self.steps} {self.seconds:.0f} s "
                      f"loss {float(total) / report_every:.4f}", flush=True)
                total = 0.0
                if self.clock.up():
                    self.save()
                    raise TimeUp
                if self.clock.seconds() - saved > self.args.checkpoint_minutes * 60:
                    self.save()
                    saved = self.clock.seconds()
            if progress and self.step % progress_every == 0 and self.step < self.steps:
                self.ema.swap()
                progress()
                self.ema.swap()
        self.save()
        self.ema.swap()
        if progress:
            progress()
