"""The sizes of a transformer that its cost depends on, and the matrix products that follow from them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class MatrixProduct:
    """One kind of matrix product of a forward pass, of one sample."""

    part: str  # "patches", "conditions", "projections", "self-attention", "cross-attention", "mlp", "head"
    forward: int  # FLOPs; multiply and add are two
    # Products of the backward pass per product of the forward pass: one for the weight (or second factor) and
    # one for the input, unless nothing before the input is trained.
    backward: int = 2
    block: bool = True  # inside a block, so computed again where that block is checkpointed


@dataclass(frozen=True)
class TransformerShape(ABC):
    """The sizes of a transformer; each family has a subclass, which knows its matrix products."""

    dim: int  # width of a token
    mlp: int  # width inside the feed-forward layers
    heads: int
    layers: int  # blocks
    patch: tuple[int, int, int]  # (t, h, w), in latents
    channels_in: int
    channels_out: int
    text_dim: int
    text_tokens: int  # to which prompts are padded
    time_in: int  # width of the timestep's sinusoid
    time_dim: int  # width of the timestep's vector

    def count_tokens(self, frames: int, height: int, width: int) -> int:
        """Count the tokens of a latent video, or, with one frame, of a reference."""
        return math.prod(
            size // patch for size, patch in zip((frames, height, width), self.patch, strict=True)
        )

    @abstractmethod
    def iterate_products(
        self, tokens: int, *, text: int | None = None, timesteps: int = 1
    ) -> Iterator[MatrixProduct]:
        """Yield every matrix product of the forward pass of one sample.

        Args:
            tokens: of the whole sequence, references included: attention is quadratic in them.
            text: tokens of the text; None: `text_tokens`.
            timesteps: how many are embedded: one, or `tokens` where each token has its own (Wan 2.2 TI2V).
        """
