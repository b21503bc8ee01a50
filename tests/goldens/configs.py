"""The golden models: together they vary every size and option that a FLUX.1 folder may carry."""

DEV = dict(num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15,
           base_image_seq_len=256, max_image_seq_len=4096)
SCHNELL = dict(num_train_timesteps=1000, shift=1.0, use_dynamic_shifting=False)
COMPONENTS = ("transformer", "vae", "text_encoder", "text_encoder_2")
F32, F16, BF16 = ({k: d for k in COMPONENTS} for d in ("F32", "F16", "BF16"))
QUANT = dict(use_quant_conv=True, use_post_quant_conv=True)
PLAIN = dict(use_quant_conv=False, use_post_quant_conv=False)

MODELS = {
    # like FLUX.1-dev, shrunk; the prompt is longer than t5_len
    "h4dev": dict(
        weight_seed=1, dtype=F32, scheduler=DEV, tokenizer_files="raw", clip_prefix=True,
        transformer=dict(num_attention_heads=4, attention_head_dim=12, axes_dims_rope=[2, 4, 6], num_layers=2,
                         num_single_layers=3, guidance_embeds=True),
        clip=dict(hidden_size=24, intermediate_size=56, num_hidden_layers=2, num_attention_heads=3, hidden_act="quick_gelu",
                  max_position_embeddings=77),
        t5=dict(d_model=32, d_kv=6, num_heads=3, d_ff=40, num_layers=2, relative_attention_num_buckets=32,
                relative_attention_max_distance=128),
        vae=dict(block_out_channels=[8, 12, 16, 16], layers_per_block=1, norm_num_groups=4, latent_channels=16,
                 scaling_factor=0.3611, shift_factor=0.1159, sample_size=128, **PLAIN),
        tokens=dict(clip_merges=60, clip_len=77, spm_vocab=200, spm_norm="rules", extra_ids=100),
        run=dict(prompt="A  painted fox near the ﬁne river, oil on canvas!", seed=42, width=144, height=96, steps=4,
                 guidance=3.5, t5_len=13)),
    # like FLUX.1-schnell; tokenizer.json only; quant convs; the older CLIP config whose eos_token_id is 2
    "h6schnell": dict(
        weight_seed=2, dtype=BF16, scheduler=SCHNELL, tokenizer_files="json", clip_prefix=False, t5_embed_tokens=True,
        legacy_eos=True,
        transformer=dict(num_attention_heads=6, attention_head_dim=8, axes_dims_rope=[4, 2, 2], num_layers=1,
                         num_single_layers=4, guidance_embeds=False),
        clip=dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, hidden_act="gelu",
                  max_position_embeddings=77),
        t5=dict(d_model=24, d_kv=8, num_heads=2, d_ff=64, num_layers=1, relative_attention_num_buckets=16,
                relative_attention_max_distance=64),
        vae=dict(block_out_channels=[8, 8, 16], layers_per_block=2, norm_num_groups=2, latent_channels=4,
                 scaling_factor=0.18215, shift_factor=0.0, sample_size=64, **QUANT),
        tokens=dict(clip_merges=90, clip_len=77, spm_vocab=180, spm_norm="rules", extra_ids=100),
        run=dict(prompt="a strange ｒｏｂｏｔ", seed=0, width=88, height=56, steps=3, guidance=None, t5_len=7)),
    # three shards of the transformer, half precision files, five VAE levels without attention, another resolution shift;
    # CLIP vocabulary with the specials first, and another pad token
    "h10shards": dict(
        weight_seed=3, dtype=F16, tokenizer_files="raw", clip_prefix=True, shards={"transformer": 3},
        scheduler=dict(DEV, base_shift=0.3, max_shift=1.6, base_image_seq_len=16, max_image_seq_len=64),
        transformer=dict(num_attention_heads=10, attention_head_dim=8, axes_dims_rope=[2, 2, 4], num_layers=3,
                         num_single_layers=1, guidance_embeds=True),
        clip=dict(hidden_size=40, intermediate_size=40, num_hidden_layers=3, num_attention_heads=5, hidden_act="gelu",
                  max_position_embeddings=40),
        t5=dict(d_model=40, d_kv=4, num_heads=5, d_ff=24, num_layers=1, relative_attention_num_buckets=8,
                relative_attention_max_distance=20),
        vae=dict(block_out_channels=[4, 8, 8, 12, 16], layers_per_block=1, norm_num_groups=4, latent_channels=8,
                 scaling_factor=0.7, shift_factor=-0.2, sample_size=256, mid_block_add_attention=False, **PLAIN),
        tokens=dict(clip_merges=40, clip_len=40, clip_pad="!", specials_first=True, spm_vocab=150, spm_norm="identity",
                    extra_ids=0, t5_len=40),
        run=dict(prompt="An old café (1935) under a golden bridge! it's lovely", seed=2**32 + 5, width=160, height=128,
                 steps=5, guidance=2.0, t5_len=33)),
    # as many heads as FLUX; text_encoder_2 in two shards; embedding table longer than the vocabulary
    "h24dev": dict(
        weight_seed=4, dtype=dict(BF16, vae="F32"), scheduler=DEV, tokenizer_files="json", clip_prefix=False,
        shards={"text_encoder_2": 2}, t5_vocab_extra=9,
        transformer=dict(num_attention_heads=24, attention_head_dim=8, axes_dims_rope=[2, 2, 4], num_layers=1,
                         num_single_layers=2, guidance_embeds=True),
        clip=dict(hidden_size=32, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
                  hidden_act="quick_gelu", max_position_embeddings=77),
        t5=dict(d_model=24, d_kv=16, num_heads=4, d_ff=48, num_layers=3, relative_attention_num_buckets=16,
                relative_attention_max_distance=32),
        vae=dict(block_out_channels=[8, 8, 16, 16], layers_per_block=3, norm_num_groups=8, latent_channels=16,
                 scaling_factor=0.3611, shift_factor=0.1159, sample_size=1024, **PLAIN),
        tokens=dict(clip_merges=50, clip_len=77, spm_vocab=160, spm_norm="rules", extra_ids=7),
        run=dict(prompt="a quiet lighthouse </s> beside\u00a0the <|endoftext|> harbour <extra_id_2>", seed=1234, width=80, height=112,
                 steps=3, guidance=4.0, t5_len=19)),
    # a fixed shift other than 1, every component in another dtype, the empty prompt
    "h4shift": dict(
        weight_seed=5, tokenizer_files="raw", clip_prefix=False, t5_embed_tokens=True, legacy_eos=True,
        scheduler=dict(SCHNELL, shift=3.0),
        dtype={"transformer": "BF16", "vae": "F16", "text_encoder": "F32", "text_encoder_2": "F16"},
        transformer=dict(num_attention_heads=4, attention_head_dim=16, axes_dims_rope=[4, 6, 6], num_layers=2,
                         num_single_layers=2, guidance_embeds=False),
        clip=dict(hidden_size=20, intermediate_size=60, num_hidden_layers=2, num_attention_heads=2,
                  hidden_act="quick_gelu", max_position_embeddings=77),
        t5=dict(d_model=48, d_kv=10, num_heads=4, d_ff=32, num_layers=2, relative_attention_num_buckets=32,
                relative_attention_max_distance=40),
        vae=dict(block_out_channels=[8, 16, 8, 16], layers_per_block=2, norm_num_groups=2, latent_channels=4,
                 scaling_factor=0.5, shift_factor=0.05, sample_size=128, **QUANT),
        tokens=dict(clip_merges=30, clip_len=77, spm_vocab=140, spm_norm="rules", extra_ids=100),
        run=dict(prompt="", seed=2**63 - 25, width=176, height=48, steps=6, guidance=None, t5_len=9)),
    # an odd number of heads, head size and text rows that no rank count divides
    "h5odd": dict(
        weight_seed=2**40 + 3, dtype=F32, scheduler=dict(DEV, base_shift=0.4, max_shift=1.2), tokenizer_files="raw",
        clip_prefix=True,
        transformer=dict(num_attention_heads=5, attention_head_dim=10, axes_dims_rope=[2, 4, 4], num_layers=2,
                         num_single_layers=1, guidance_embeds=True),
        clip=dict(hidden_size=16, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, hidden_act="gelu",
                  max_position_embeddings=77),
        t5=dict(d_model=20, d_kv=12, num_heads=3, d_ff=36, num_layers=2, relative_attention_num_buckets=12,
                relative_attention_max_distance=24),
        vae=dict(block_out_channels=[16, 8, 24], layers_per_block=1, norm_num_groups=8, latent_channels=8,
                 scaling_factor=0.41, shift_factor=0.0, sample_size=32, use_quant_conv=False, use_post_quant_conv=True),
        tokens=dict(clip_merges=60, clip_len=77, spm_vocab=200, spm_norm="rules", extra_ids=0),
        run=dict(prompt="a red kite, 日本の絵 🦊\tabove the\nGREEN forest's edge", seed=7, width=104, height=72, steps=4,
                 guidance=8.0, t5_len=31)),
}
