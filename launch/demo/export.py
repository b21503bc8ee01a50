"""Write a training result as a diffusers folder: python export.py --run DIR --model DIR."""

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import (AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline,
                       FluxTransformer2DModel)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

from model import TextToLatents, make_vae

HERE = Path(__file__).parent
LIMIT_MIB = 30
PARTS = {"vae": AutoencoderKL, "transformer": FluxTransformer2DModel,
         "text_encoder": CLIPTextModel, "text_encoder_2": T5EncoderModel}
TOKENIZERS = {
    "tokenizer": ["vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"],
    "tokenizer_2": ["spiece.model", "tokenizer.json", "special_tokens_map.json",
                    "tokenizer_config.json"],
}


def plain(name):
    """transformers has dropped and added this prefix between its versions."""
    return name.replace("clip.text_model.", "clip.")


def load_result(run):
    vae = make_vae()
    vae.load_state_dict(torch.load(run / "vae.pt"))
    saved = torch.load(run / "flux.pt")
    t5 = T5TokenizerFast.from_pretrained(run / "tokenizer_2")
    clip = CLIPTokenizer.from_pretrained(run / "tokenizer")
    model = TextToLatents(len(t5), len(clip))
    own = {plain(name): name for name in model.state_dict()}
    model.load_state_dict({own[plain(k)]: v for k, v in saved["weights"].items()})
    vae.register_to_config(shift_factor=saved["shift"], scaling_factor=saved["scale"])
    return vae, model, clip, t5


def scheduler():
    """FLUX.1-dev's own settings."""
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=True, base_shift=0.5,
        max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096)


def restore_flux_layout(run, folder):
    """Where the installed libraries write other files than FLUX.1-dev has, put its own."""
    clip = folder / "text_encoder" / "model.safetensors"
    weights = {"text_model." + k.removeprefix("text_model."): v for k, v in load_file(clip).items()}
    save_file(weights, clip, metadata={"format": "pt"})
    for name, files in TOKENIZERS.items():
        shutil.rmtree(folder / name)
        (folder / name).mkdir()
        for file in files:
            shutil.copy(run / name / file, folder / name / file)
    index = folder / "model_index.json"
    value = json.loads(index.read_text())
    value["tokenizer_2"] = ["transformers", "T5TokenizerFast"]
    value.pop("_name_or_path", None)
    index.write_text(json.dumps(value, indent=2) + "\n")


def export(run, folder):
    if folder.exists():
        shutil.rmtree(folder)
    vae, model, clip, t5 = load_result(run)
    pipeline = FluxPipeline(
        scheduler=scheduler(), vae=vae, transformer=model.transformer, text_encoder=model.clip,
        text_encoder_2=model.t5, tokenizer=clip, tokenizer_2=t5)
    pipeline.to(torch.bfloat16).save_pretrained(folder)
    restore_flux_layout(run, folder)
    for licence in (HERE / "licences").iterdir():
        shutil.copy(licence, folder / licence.name)


def check(folder):
    """Every component loads with no key missing, none left over; all of it is small."""
    for part, kind in PARTS.items():
        module, info = kind.from_pretrained(folder / part, output_loading_info=True)
        assert not any(info.values()), (part, info)
        print(f"{part}: {sum(p.numel() for p in module.parameters()) / 1e6:.2f} M parameters")
    FluxPipeline.from_pretrained(folder)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 2 ** 20
    assert size <= LIMIT_MIB, size
    print(f"{folder}: {size:.2f} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="train.py's --out")
    parser.add_argument("--model", type=Path, default=HERE / "model")
    args = parser.parse_args()
    export(args.run, args.model)
    check(args.model)


if __name__ == "__main__":
    main()
