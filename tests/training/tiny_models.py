"""Tiny models with random weights in the layout of diffusers' pipeline folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

WORDS = ("a", "red", "blue", "dog", "cup", "runs", "in", "street", "quiet", "and")


def tokenizer(limit: int | None = None) -> Any:
    from transformers import T5Tokenizer

    pieces = [piece for word in WORDS for piece in (word, f"\u2581{word}")]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1) if chr(code) != "a"]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("\u2581", -4.0)]
    vocabulary += [(piece, -2.0) for piece in pieces] + [(letter, -6.0) for letter in letters]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=limit)


def write_wan(
    folder: Path, *, seed: int = 0, text_width: int = 32, text_limit: int | None = None, vae: Any = None
) -> Path:
    """A Wan 2.1: VAE of 16 channels (4 frames, 8 px per latent), UMT5, transformer; well under 2 MB.

    text_limit: `model_max_length` of the tokenizer.
    """
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = vae or AutoencoderKLWan(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
        text = UMT5EncoderModel(UMT5Config(**_t5(text_width)))
        transformer = WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            text_dim=text_width,
            freq_dim=16,
            ffn_dim=32,
            num_layers=2,
            rope_max_seq_len=64,
        )
    scheduler = FlowMatchEulerDiscreteScheduler()
    return _save(folder, "WanPipeline", vae, text, tokenizer(text_limit), transformer, scheduler)


def write_cogvideox(
    folder: Path, *, seed: int = 0, text_width: int = 32, text_limit: int | None = None
) -> Path:
    """A CogVideoX: VAE of 16 channels (4 frames, 8 px per latent), T5, transformer with rotary positions."""
    from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
    from transformers import T5Config, T5EncoderModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKLCogVideoX(
            block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2, scaling_factor=0.7
        )
        text = T5EncoderModel(T5Config(**_t5(text_width)))
        transformer = CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            text_embed_dim=text_width,
            time_embed_dim=8,
            num_layers=2,
            use_rotary_positional_embeddings=True,
        )
    scheduler = CogVideoXDDIMScheduler()
    return _save(folder, "CogVideoXPipeline", vae, text, tokenizer(text_limit), transformer, scheduler)


def _t5(width: int) -> dict[str, int]:
    return {"d_model": width, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 64}


def _save(
    folder: Path, pipeline: str, vae: Any, text: Any, tokens: Any, transformer: Any, scheduler: Any
) -> Path:
    parts = {"vae": vae, "text_encoder": text, "tokenizer": tokens}
    parts |= {"transformer": transformer, "scheduler": scheduler}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    classes = {name: [_library(part), type(part).__name__] for name, part in parts.items()}
    index = {"_class_name": pipeline, **classes}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _library(part: Any) -> str:
    """Return where diffusers finds the class of a part: its library, or the module of another class."""
    module: str = type(part).__module__
    library = module.partition(".")[0]
    return library if library in ("diffusers", "transformers") else module
