"""The playground's model as a diffusers pipeline folder, for `encode`, `train` and `generate`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.playground.pixel_vae import PixelUnshuffleVAE

# The words of the captions of plain videos.
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
_LATENT_SIDE = 6  # of a frame's side: 12 px


@dataclass(frozen=True)
class PlaygroundShape:
    """Sizes of the transformer."""

    heads: int
    head_dim: int  # CogVideoX: divides into even parts of 1/4, 3/8 and 3/8 for its rotary positions
    layers: int


SHAPES = {
    "wan": PlaygroundShape(heads=4, head_dim=24, layers=4),
    "cogvideox": PlaygroundShape(heads=3, head_dim=32, layers=4),
}


def write_model(
    folder: Path, *, family: str = "wan", seed: int = 0, shape: PlaygroundShape | None = None
) -> Path:
    """Write transformer (random weights), lossless VAE, frozen random text encoder, tokenizer and scheduler.

    All but the VAE are stock classes. The same seed gives the same weights.

    Args:
        folder: where to write.
        family: a key of `SHAPES`.
        seed: of the weights.
        shape: of the transformer; None: that of `SHAPES`, with 0.7 M parameters.

    Returns:
        The folder.
    """
    vae = PixelUnshuffleVAE()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        write = {"wan": _make_wan, "cogvideox": _make_cogvideox}[family]
        pipeline, made = write(shape or SHAPES[family], vae.config.z_dim)
    parts: dict[str, Any] = {**made, "vae": vae, "tokenizer": _make_tokenizer()}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    homes = {"transformer": "diffusers", "scheduler": "diffusers", "vae": PixelUnshuffleVAE.__module__}
    index = {name: [homes.get(name, "transformers"), type(part).__name__] for name, part in parts.items()} | {
        "_class_name": pipeline
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return folder


def _make_wan(shape: PlaygroundShape, channels: int) -> tuple[str, dict[str, Any]]:
    """Name of diffusers' pipeline, and what it is made of."""
    from diffusers import FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    return "WanPipeline", {
        "text_encoder": UMT5EncoderModel(UMT5Config(**_make_text_config())),
        "transformer": WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=shape.heads,
            attention_head_dim=shape.head_dim,
            in_channels=channels,
            out_channels=channels,
            text_dim=TEXT_WIDTH,
            freq_dim=64,
            ffn_dim=4 * shape.heads * shape.head_dim,
            num_layers=shape.layers,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def _make_cogvideox(shape: PlaygroundShape, channels: int) -> tuple[str, dict[str, Any]]:
    """As CogVideoX-5B is: rotary positions, v-prediction, no signal at the last timestep."""
    from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
    from transformers import T5Config, T5EncoderModel

    return "CogVideoXPipeline", {
        "text_encoder": T5EncoderModel(T5Config(**_make_text_config())),
        "transformer": CogVideoXTransformer3DModel(
            num_attention_heads=shape.heads,
            attention_head_dim=shape.head_dim,
            in_channels=channels,
            out_channels=channels,
            time_embed_dim=64,
            text_embed_dim=TEXT_WIDTH,
            num_layers=shape.layers,
            sample_width=_LATENT_SIDE,
            sample_height=_LATENT_SIDE,
            sample_frames=3,
            patch_size=2,
            temporal_compression_ratio=1,
            max_text_seq_length=TEXT_LENGTH,
            use_rotary_positional_embeddings=True,
        ),
        "scheduler": CogVideoXDDIMScheduler(  # scheduler_config.json of THUDM/CogVideoX-5b
            clip_sample=False,
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            snr_shift_scale=1.0,
            timestep_spacing="trailing",
        ),
    }


def _make_text_config() -> dict[str, int]:
    """Random weights give random embeddings of words: different captions differ, which is enough."""
    return {
        "d_model": TEXT_WIDTH,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 1,
        "num_heads": 4,
        "vocab_size": len(_make_vocabulary()),
    }


def _make_vocabulary() -> list[tuple[str, float]]:
    """Pieces of a sentencepiece model and their scores: the words, and letters for all others."""
    start = "\u2581"  # sentencepiece's mark of a word's beginning
    letters = [chr(code) for code in range(ord("b"), ord("z") + 1)]
    words = [f"{start}{word}" for word in WORDS]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), (start, -4.0), (".", -2.0)]
    return [*special, *((word, -2.0) for word in words), *((letter, -6.0) for letter in ["a", *letters])]


def _make_tokenizer() -> Any:
    from transformers import T5Tokenizer

    return T5Tokenizer(vocab=_make_vocabulary(), extra_ids=0, model_max_length=TEXT_LENGTH)
