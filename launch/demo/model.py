"""The demo's components, all of them diffusers' and transformers' own classes."""

import math

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

TEXT = 128    # width of both text encoders
PATCHES = 8   # 128 pixels = 16 latents = 8 packed patches a side
CHANNELS = 64  # 16 latent channels x 2 x 2


def make_vae():
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=16, sample_size=128,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 64, 64), layers_per_block=1, norm_num_groups=8,
        use_quant_conv=False, use_post_quant_conv=False)
    for name, m in vae.named_modules():
        if isinstance(m, nn.Conv2d):
            # PyTorch's default gain shrinks the signal layer by layer; with unit gain
            # and small residual branches a narrow VAE starts to learn at once.
            nn.init.kaiming_normal_(m.weight, nonlinearity="linear")
            nn.init.zeros_(m.bias)
            if name.endswith("conv2"):
                m.weight.data.mul_(0.1)
    with torch.no_grad():  # start with little latent noise
        vae.encoder.conv_out.weight[16:].mul_(0.1)
        vae.encoder.conv_out.bias[16:].fill_(-5)
    return vae


def make_transformer():
    model = FluxTransformer2DModel(
        patch_size=1, in_channels=CHANNELS, num_layers=1, num_single_layers=3,
        num_attention_heads=24, attention_head_dim=16, axes_dims_rope=(4, 6, 6),
        joint_attention_dim=TEXT, pooled_projection_dim=TEXT, guidance_embeds=True)
    for name, p in model.named_parameters():
        if p.dim() == 2:
            nn.init.xavier_uniform_(p)
        elif name.endswith("bias"):
            nn.init.zeros_(p)
    for name, m in model.named_modules():
        if isinstance(m, nn.Linear) and "time_text_embed" in name:
            nn.init.normal_(m.weight, std=0.02)
        elif isinstance(m, nn.Linear) and "norm" in name:
            nn.init.zeros_(m.weight)  # adaLN-zero: every block starts as the identity
    nn.init.zeros_(model.proj_out.weight)
    return model


def make_t5(vocab_size):
    return T5EncoderModel(T5Config(
        vocab_size=vocab_size, d_model=TEXT, d_kv=32, d_ff=256, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", dropout_rate=0.0, is_encoder_decoder=False,
        use_cache=False, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        attn_implementation="eager"))


def make_clip(vocab_size):
    bos, eos = vocab_size - 2, vocab_size - 1
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=vocab_size, hidden_size=TEXT, intermediate_size=256, projection_dim=TEXT,
        num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=77,
        bos_token_id=bos, eos_token_id=eos, pad_token_id=eos, attn_implementation="eager"))


class TextToLatents(nn.Module):
    """Transformer and text encoders: everything the second stage trains."""

    def __init__(self, t5_vocab, clip_vocab):
        super().__init__()
        self.transformer = make_transformer()
        self.t5 = make_t5(t5_vocab)
        self.clip = make_clip(clip_vocab)
        grid = torch.zeros(PATCHES, PATCHES, 3)
        grid[..., 1] += torch.arange(PATCHES)[:, None]
        grid[..., 2] += torch.arange(PATCHES)[None, :]
        self.register_buffer("img_ids", grid.reshape(-1, 3), persistent=False)

    def encode(self, t5_ids, clip_ids):
        return (self.t5(input_ids=t5_ids).last_hidden_state.float(),
                self.clip(input_ids=clip_ids).pooler_output.float())

    def forward(self, x, t, guidance, text, pooled):
        """Velocity (noise - picture) at time t in 0..1."""
        return self.transformer(
            hidden_states=x, timestep=t, guidance=guidance, encoder_hidden_states=text,
            pooled_projections=pooled, img_ids=self.img_ids,
            txt_ids=self.img_ids.new_zeros(text.shape[1], 3), return_dict=False)[0].float()


def pack(z):
    """[n, 16, 16, 16] latents -> [n, 64, 64] tokens, as FluxPipeline packs them."""
    n, c, h, w = z.shape
    z = z.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return z.reshape(n, h * w // 4, c * 4)


def sigmas(steps):
    """FLUX.1-dev's schedule at this picture size (shift 0.5 at 256 tokens, 1.15 at 4096)."""
    mu = 0.5 + (PATCHES ** 2 - 256) * (1.15 - 0.5) / (4096 - 256)
    s = [1 - i * (1 - 1 / steps) / (steps - 1) for i in range(steps)]
    return [math.exp(mu) / (math.exp(mu) + 1 / v - 1) for v in s] + [0.0]


@torch.no_grad()
def sample(model, t5_ids, clip_ids, generator, steps=20):
    """Packed latents of one batch of prompts, by Euler steps."""
    device = t5_ids.device
    text, pooled = model.encode(t5_ids, clip_ids)
    shape = (len(t5_ids), PATCHES ** 2, CHANNELS)
    x = torch.randn(shape, generator=generator, device=device)
    guidance = torch.full(shape[:1], 3.5, device=device)
    schedule = sigmas(steps)
    for now, after in zip(schedule, schedule[1:]):
        t = torch.full(shape[:1], now, device=device)
        x = x + (after - now) * model(x, t, guidance, text, pooled)
    return x
