"""Floating-point operations of a training step, counted exactly from sizes; multiply and add are two.

Matrix products only, as `torch.utils.flop_counter` and every published MFU count them. `training` is what the
model needs, forward and backward; what activation checkpointing computes again is not in it, so a run does
not look faster for computing more (`recomputed` says how much that is).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from reprise.errors import RepriseError
from training.models.text_length import get_text_length

# What is not recomputed in the backward pass, by compute.checkpointing.
Checkpointing = Literal["none", "selective", "full"]


@dataclass(frozen=True)
class MatrixProduct:
    """One kind of matrix product of a forward pass, of one sample."""

    part: str  # "patches", "conditions", "projections", "self-attention", "cross-attention", "mlp", "head"
    forward: int
    # Products of the backward pass per product of the forward pass: one for the weight (or second factor) and
    # one for the input, unless nothing before the input is trained.
    backward: int = 2
    block: bool = True  # inside a block, so computed again where that block is checkpointed


@dataclass(frozen=True)
class TransformerShape:
    """The sizes of a transformer that its cost depends on."""

    family: Literal["wan", "cogvideox"]
    dim: int
    mlp: int
    heads: int
    layers: int
    patch: tuple[int, int, int]
    channels_in: int
    channels_out: int
    text_dim: int
    text_tokens: int  # Wan: cross-attended; CogVideoX: part of the sequence
    time_in: int  # width of the timestep's sinusoid
    time_dim: int  # of the timestep's vector

    @classmethod
    def from_config(cls, config: Mapping[str, Any], text_tokens: int | None = None) -> TransformerShape:
        """From the config of a diffusers transformer (a dict, or `model.config`).

        text_tokens: to which prompts are padded; None: as the released pipelines do.

        Raises:
            RepriseError: a class that is not known here.
        """
        name = config.get("_class_name", "")
        heads = config.get("num_attention_heads") or {"WanTransformer3DModel": 40}.get(name, 30)
        if name == "WanTransformer3DModel":
            dim = heads * config.get("attention_head_dim", 128)
            first, height, width = config.get("patch_size", (1, 2, 2))
            channels = config.get("in_channels", 16)
            return cls(
                family="wan",
                dim=dim,
                mlp=config.get("ffn_dim", 13824),
                heads=heads,
                layers=config.get("num_layers", 40),
                patch=(first, height, width),
                channels_in=channels,
                channels_out=config.get("out_channels") or channels,
                text_dim=config.get("text_dim", 4096),
                text_tokens=text_tokens or get_text_length("wan", config),
                time_in=config.get("freq_dim", 256),
                time_dim=dim,
            )
        if name == "CogVideoXTransformer3DModel":
            dim = heads * config.get("attention_head_dim", 64)
            patch = config.get("patch_size", 2)
            return cls(
                family="cogvideox",
                dim=dim,
                mlp=4 * dim,
                heads=heads,
                layers=config.get("num_layers", 30),
                patch=(config.get("patch_size_t") or 1, patch, patch),
                channels_in=config.get("in_channels", 16),
                channels_out=config.get("out_channels") or config.get("in_channels", 16),
                text_dim=config.get("text_embed_dim", 4096),
                text_tokens=text_tokens or get_text_length("cogvideox", config),
                time_in=dim,
                time_dim=config.get("time_embed_dim", 512),
            )
        raise RepriseError(f"no cost is known for a transformer of the class {name or '(none named)'}")

    def count_tokens(self, frames: int, height: int, width: int) -> int:
        """Tokens of a latent video (or, with one frame, of a reference)."""
        return math.prod(
            size // patch for size, patch in zip((frames, height, width), self.patch, strict=True)
        )


def iterate_products(
    shape: TransformerShape, tokens: int, *, text: int | None = None, timesteps: int = 1
) -> Iterator[MatrixProduct]:
    """Every matrix product of the forward pass of one sample.

    Args:
        tokens: of the whole sequence, references included: what attention is quadratic in.
        text: tokens of the text; default: what the model pads to.
        timesteps: how many are embedded: one, or `tokens` where each token has its own (Wan 2.2 TI2V).
    """
    text = shape.text_tokens if text is None else text
    n, d, f, layers = tokens, shape.dim, shape.mlp, shape.layers
    volume = math.prod(shape.patch)
    yield MatrixProduct("patches", 2 * n * d * shape.channels_in * volume, backward=1, block=False)
    if shape.family == "wan":
        yield MatrixProduct("conditions", 2 * text * shape.text_dim * d, backward=1, block=False)
        yield MatrixProduct("conditions", 2 * text * d * d, block=False)
        yield MatrixProduct("conditions", 2 * timesteps * shape.time_in * d, backward=1, block=False)
        yield MatrixProduct("conditions", 2 * timesteps * (d * d + d * 6 * d), block=False)
        yield MatrixProduct("projections", layers * 4 * 2 * n * d * d)
        yield MatrixProduct("self-attention", layers * 2 * 2 * n * n * d)
        yield MatrixProduct(
            "cross-attention", layers * (2 * 2 * n * d * d + 2 * 2 * text * d * d + 2 * 2 * n * text * d)
        )
        yield MatrixProduct("mlp", layers * 2 * 2 * n * d * f)
    else:
        m = n + text
        yield MatrixProduct("conditions", 2 * text * shape.text_dim * d, backward=1, block=False)
        yield MatrixProduct(
            "conditions", 2 * timesteps * shape.time_in * shape.time_dim, backward=1, block=False
        )
        yield MatrixProduct("conditions", 2 * timesteps * shape.time_dim**2, block=False)
        yield MatrixProduct("conditions", layers * 2 * 2 * timesteps * shape.time_dim * 6 * d)
        yield MatrixProduct("projections", layers * 4 * 2 * m * d * d)
        yield MatrixProduct("self-attention", layers * 2 * 2 * m * m * d)
        yield MatrixProduct("mlp", layers * 2 * 2 * m * d * f)
        yield MatrixProduct("head", 2 * timesteps * shape.time_dim * 2 * d, block=False)
    yield MatrixProduct("head", 2 * n * d * shape.channels_out * volume, block=False)


def count_forward(
    shape: TransformerShape, tokens: int, *, text: int | None = None, timesteps: int = 1
) -> int:
    """FLOPs of the forward pass of one sample."""
    return sum(each.forward for each in iterate_products(shape, tokens, text=text, timesteps=timesteps))


def count_training(
    shape: TransformerShape, tokens: int, *, text: int | None = None, timesteps: int = 1, frozen: bool = False
) -> int:
    """FLOPs of forward and backward of one sample.

    Args:
        frozen: only adapters are trained (LoRA): gradients pass through weights, none is made of them. The
            adapters' own products are left out: a tenth more at rank 128 on all layers of CogVideoX-5B.
    """
    total = 0
    for each in iterate_products(shape, tokens, text=text, timesteps=timesteps):
        two_factors = each.part == "self-attention"
        backward = min(each.backward, 1) if frozen and not two_factors else each.backward
        total += each.forward * (1 + backward)
    return total


def count_recomputed(
    shape: TransformerShape, tokens: int, checkpointing: Checkpointing, *, text: int | None = None
) -> int:
    """FLOPs that activation checkpointing computes a second time, of one sample: "selective" no product."""
    if checkpointing != "full":
        return 0
    return sum(each.forward for each in iterate_products(shape, tokens, text=text) if each.block)


def compute_part_shares(shape: TransformerShape, tokens: int, *, text: int | None = None) -> dict[str, float]:
    """Share of each part in the forward pass."""
    shares: dict[str, int] = {}
    for each in iterate_products(shape, tokens, text=text):
        shares[each.part] = shares.get(each.part, 0) + each.forward
    total = sum(shares.values())
    return {part: count / total for part, count in shares.items()}
