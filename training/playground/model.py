"""The playground's model as a diffusers pipeline folder: what `encode`, `train` and `generate` are given."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.playground.pixel_vae import PixelUnshuffleVAE

# What captions of the plain stage are made of.
WORDS = (
    "A",
    "thing",
    "moves",
    "to",
    "the",
    "left",
    "right",
    "up",
    "down",
    "Nothing",
    "but",
    "grey",
    "ground",
)
TEXT_LENGTH = 8  # tokens: the longest caption has six words, a full stop and its end
TEXT_WIDTH = 32


@dataclass(frozen=True)
class Shape:
    """Of the transformer. Defaults have 0.7 M parameters."""

    heads: int = 4
    head_dim: int = 24
    layers: int = 4


def write_model(folder: Path, *, seed: int = 0, shape: Shape | None = None) -> Path:
    """Write transformer (random weights), lossless VAE, frozen random text encoder, tokenizer and scheduler.

    Stock classes but for the VAE; the same seed gives the same weights. Returns the folder.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    shape = shape or Shape()
    width = shape.heads * shape.head_dim
    vae = PixelUnshuffleVAE()
    channels = vae.config.z_dim
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Embeddings of random words in random directions: different captions differ, which is all it takes.
        text = UMT5EncoderModel(
            UMT5Config(
                d_model=TEXT_WIDTH, d_kv=8, d_ff=64, num_layers=1, num_heads=4, vocab_size=len(_vocabulary())
            )
        )
        transformer = WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=shape.heads,
            attention_head_dim=shape.head_dim,
            in_channels=channels,
            out_channels=channels,
            text_dim=TEXT_WIDTH,
            freq_dim=64,
            ffn_dim=4 * width,
            num_layers=shape.layers,
        )
    parts: dict[str, Any] = {
        "transformer": transformer,
        "vae": vae,
        "text_encoder": text,
        "tokenizer": _tokenizer(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    homes = {"transformer": "diffusers", "scheduler": "diffusers", "vae": PixelUnshuffleVAE.__module__}
    index = {name: [homes.get(name, "transformers"), type(part).__name__] for name, part in parts.items()} | {
        "_class_name": "WanPipeline"
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return folder


def _vocabulary() -> list[tuple[str, float]]:
    """Pieces of a sentencepiece model and their scores: the words, and letters for all others."""
    start = "\u2581"  # sentencepiece's mark of a word's beginning
    letters = [chr(code) for code in range(ord("b"), ord("z") + 1)]
    words = [f"{start}{word}" for word in WORDS]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), (start, -4.0), (".", -2.0)]
    return [*special, *((word, -2.0) for word in words), *((letter, -6.0) for letter in ["a", *letters])]


def _tokenizer() -> Any:
    from transformers import T5Tokenizer

    return T5Tokenizer(vocab=_vocabulary(), extra_ids=0, model_max_length=TEXT_LENGTH)
