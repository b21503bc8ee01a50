"""Stage 'vae': the autoencoder, on the pictures of the training pairs alone."""

import math

import torch

from loop import Stage, autocast
from model import make_vae, pack


class Renderer:
    """Emoji over colours, on the device."""

    def __init__(self, data, device):
        rgba = torch.tensor(data["bitmaps"], device=device).float().permute(0, 3, 1, 2) / 255
        self.alpha = rgba[:, 3:]
        self.ink = rgba[:, :3] * self.alpha
        self.colours = torch.tensor(data["colours"], device=device).float() / 255

    def __call__(self, pairs):
        """Pictures in -1..1 of [n, 2] (emoji, colour) indices."""
        e, c = pairs[:, 0], pairs[:, 1]
        paper = self.colours[c][:, :, None, None] * (1 - self.alpha[e])
        return (self.ink[e] + paper) * 2 - 1


def edges(d):
    """Mean size of the differences between neighbours: keeps outlines sharp."""
    return (d[:, :, 1:] - d[:, :, :-1]).abs().mean() + (d[..., 1:] - d[..., :-1]).abs().mean()


def vae_loss(vae, x, generator, device):
    with autocast(device):
        posterior = vae.encode(x).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float().clamp(-12, 4)
        noise = torch.randn(mean.shape, generator=generator, device=device)
        y = vae.decode(mean + torch.exp(logvar / 2) * noise).sample.float()
    d = y - x
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    return d.abs().mean() + 0.5 * d.square().mean() + 0.5 * edges(d) + 2e-4 * kl


@torch.no_grad()
def psnr(vae, render, pairs):
    """Over a set of pictures, encoded to the mean and decoded again."""
    total = 0.0
    for chunk in pairs.split(64):
        x = render(chunk)
        y = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        total += float((y - x).square().mean((1, 2, 3)).sum()) / 4
    return -10 * math.log10(total / len(pairs))


def train_vae(data, args, clock):
    device = args.device
    vae = make_vae().to(device, memory_format=torch.channels_last)
    render = Renderer(data, device)
    train = torch.tensor(data["train"], device=device)
    heldout = torch.tensor(data["heldout"], device=device)
    stage = Stage("vae", vae, args.vae_steps, 2e-3, args, clock)

    def loss_of(step):
        pick = torch.randint(len(train), (args.vae_batch,), generator=stage.generator,
                             device=device)
        return vae_loss(vae, render(train[pick]), stage.generator, device)

    def progress():
        seen = train[:: len(train) // 64][:64]
        print(f"  PSNR trained {psnr(vae, render, seen):.2f} dB, "
              f"held out {psnr(vae, render, heldout[:64]):.2f} dB", flush=True)

    stage.run(loss_of, args.report, progress, max(1, args.vae_steps // 4))
    return vae


@torch.no_grad()
def latents(vae, data, device):
    """Packed, normalised latents of all pairs, and the (shift, scale) used: both go
    into the VAE's config. The statistics come from the training pairs alone."""
    render = Renderer(data, device)
    pairs = torch.tensor(data["pairs"], device=device)
    z = torch.cat([vae.encode(render(p)).latent_dist.mean for p in pairs.split(64)])
    used = z[torch.tensor(data["train_index"], device=device)]
    shift, scale = float(used.mean()), float(1 / used.std())
    return pack((z - shift) * scale), shift, scale
