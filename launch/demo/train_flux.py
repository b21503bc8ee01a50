"""Stage 'flux': the transformer and both text encoders, jointly and from scratch.

What each encoder is needed for is decided here. In a FLUX prompt both encoders
read the same sentence, so a model may well learn to ignore one of them, and a
broken path would then go unseen. Here, in a part of the samples, T5 reads
another colour and CLIP another emoji than the picture shows. T5's tokens stay
reliable for the emoji and CLIP's pooled vector for the colour, so that each
must be used, and a pair never seen is made of two parts that were.
"""

import torch

from loop import Stage, autocast
from model import TextToLatents, sample

T5_LENGTHS = (16, 16, 24, 32)  # drawn per batch
OTHER = 0.25                   # T5 told another colour; likewise CLIP another emoji
NO_T5, NO_CLIP, NO_TEXT = 0.10, 0.10, 0.05


class Prompts:
    """Token ids of every caption variant, and the choice of what each encoder reads."""

    def __init__(self, data, device):
        def put(name):
            return torch.tensor(data[name], device=device).long()
        self.t5, self.clip = put("t5_ids"), put("clip_ids")        # [pair, variant, length]
        self.t5_null, self.clip_null = put("t5_null"), put("clip_null")
        self.pairs, self.train = put("pairs"), put("train_index")
        # Cyclic lists of each emoji's trained colours and each colour's trained emoji:
        # what an encoder is told is always itself a trained pair.
        self.colours_of, self.emoji_of = put("colours_of"), put("emoji_of")
        self.colour_count = int(self.pairs[:, 1].max()) + 1
        self.device = device

    def pad(self, t5_ids, length):
        return torch.nn.functional.pad(t5_ids, (0, length - t5_ids.shape[1]))  # pad id 0

    def draw(self, count, length, generator):
        """(pair, T5 ids, CLIP ids) of one training batch."""
        def choose(bound):
            return torch.randint(bound, (count,), generator=generator, device=self.device)

        u = torch.rand(4, count, generator=generator, device=self.device)
        pair = self.train[choose(len(self.train))]
        e, c = self.pairs[pair].unbind(1)
        no_t5 = u[0] < NO_T5 + NO_TEXT
        no_clip = (u[0] < NO_TEXT) | (u[0] > 1 - NO_CLIP)
        # An encoder on its own must not give away the other's half.
        colour = self.colours_of[e, choose(self.colours_of.shape[1])]
        colour = torch.where((u[1] < OTHER) | no_clip, colour, c)
        emoji = self.emoji_of[c, choose(self.emoji_of.shape[1])]
        emoji = torch.where((u[2] < OTHER) | no_t5, emoji, e)
        variants = self.t5.shape[1]
        t5 = self.t5[e * self.colour_count + colour, choose(variants)]
        clip = self.clip[emoji * self.colour_count + c, choose(variants)]
        t5 = torch.where(no_t5[:, None], self.t5_null, t5)
        clip = torch.where(no_clip[:, None], self.clip_null, clip)
        return pair, self.pad(t5, length), clip

    def plain(self, pair, variant=1, length=32):
        return self.pad(self.t5[pair, variant], length), self.clip[pair, variant]


def flow_loss(model, x0, t5_ids, clip_ids, generator, device):
    """Rectified flow: mean squared error of the velocity."""
    def draw(make, *shape):
        return make(shape, generator=generator, device=device)

    count = len(x0)
    noise = draw(torch.randn, *x0.shape)
    t = torch.sigmoid(draw(torch.randn, count) + 0.3)
    t = torch.where(draw(torch.rand, count) < 0.15, draw(torch.rand, count), t)
    guidance = 1 + 4 * draw(torch.rand, count)  # accepted, and without effect on the target
    mix = t[:, None, None]
    with autocast(device):
        text, pooled = model.encode(t5_ids, clip_ids)
        velocity = model((1 - mix) * x0 + mix * noise, t, guidance, text, pooled)
    return (velocity - (noise - x0)).square().mean()


@torch.no_grad()
def accuracy(model, prompts, z, pair, device, steps=20):
    """Share of samples nearest, in latents, to the right emoji, colour, and both."""
    generator = torch.Generator(device).manual_seed(1)
    t5_ids, clip_ids = prompts.plain(pair)
    with autocast(device):
        x = sample(model, t5_ids, clip_ids, generator, steps)
    found = torch.cdist(x.flatten(1), z.flatten(1)).argmin(1)
    hit = prompts.pairs[found] == prompts.pairs[pair]
    return [float(v) for v in (*hit.float().mean(0), hit.all(1).float().mean())]


def train_flux(data, z, args, clock):
    device = args.device
    model = TextToLatents(int(data["t5_vocab"]), int(data["clip_vocab"])).to(device)
    prompts = Prompts(data, device)
    stage = Stage("flux", model, args.flux_steps, 1e-3, args, clock, ema=0.9995)
    order = torch.Generator().manual_seed(args.seed)
    lengths = torch.randint(len(T5_LENGTHS), (args.flux_steps,), generator=order).tolist()

    def loss_of(step):
        pair, t5_ids, clip_ids = prompts.draw(
            args.flux_batch, T5_LENGTHS[lengths[step]], stage.generator)
        return flow_loss(model, z[pair], t5_ids, clip_ids, stage.generator, device)

    heldout = torch.tensor(data["heldout_index"], device=device)[:args.flux_batch]
    trained = prompts.train[:: len(prompts.train) // len(heldout)][:len(heldout)]

    def progress():
        for name, pair in (("trained", trained), ("held out", heldout)):
            scores = accuracy(model, prompts, z, pair, device)
            print("  {}: emoji {:.2f} colour {:.2f} both {:.2f}".format(name, *scores),
                  flush=True)

    stage.run(loss_of, args.report, progress, max(1, args.flux_steps // 8))
    return model
